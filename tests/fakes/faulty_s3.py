"""A proxy in front of an S3 server that fails as stores and lines do, where a test says so."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Fault:
    """What happens to one request. ``status`` with ``code``: the store's refusal, as XML. ``hang``: accepted, read,
    never answered. ``flip_up``, ``flip_down``: one byte of the body is spoilt on its way. ``cut``: the answer's body
    breaks off in its middle. ``location``: of a redirect. ``delay_s``: before all else."""

    status: int = 0
    code: str = ""
    location: str = ""
    hang: bool = False
    flip_up: bool = False
    flip_down: bool = False
    cut: bool = False
    delay_s: float = 0.0


Decide = Callable[[str, str], Fault | None]


@dataclass
class FaultyS3:
    """A running proxy. ``decide(method, path with query)`` names the fault of a request; requests are counted."""

    endpoint: str
    decide: Decide = lambda method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def heal(self) -> None:
        """From now on nothing fails."""
        self.decide = lambda method, path: None


class _Handler(BaseHTTPRequestHandler):
    """One connection. ``proxy`` and ``upstream`` are set by the server's own subclass."""

    protocol_version = "HTTP/1.1"
    proxy: FaultyS3
    upstream: tuple[str, int]

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.proxy.requests.append((self.command, self.path))
        fault = self.proxy.decide(self.command, self.path) or Fault()
        time.sleep(fault.delay_s)
        if fault.hang:
            self.proxy.released.wait(60)
            self.close_connection = True
        elif fault.status:
            self._refuse(fault)
        else:
            self._forward(_spoilt(body, 0) if fault.flip_up else body, fault)

    def _refuse(self, fault: Fault) -> None:
        text = f"<Error><Code>{fault.code}</Code><Message>said the test</Message></Error>".encode()
        self.send_response(fault.status)
        if fault.location:
            self.send_header("Location", fault.location)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _forward(self, body: bytes, fault: Fault) -> None:
        connection = http.client.HTTPConnection(*self.upstream, timeout=30)
        # The Host header as it came: it is signed.
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {*_HOP, "expect"}:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault.flip_down:
            content = _spoilt(content, -1)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {*_HOP, "content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if fault.cut:
            content = content[: len(content) // 2]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Tests say what they need."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients break off here; that is what the tests are for."""


def _spoilt(body: bytes, at: int) -> bytes:
    if not body:
        return body
    spoilt = bytearray(body)
    spoilt[at] ^= 1
    return bytes(spoilt)


@contextmanager
def faulty_s3(upstream: str) -> Iterator[FaultyS3]:
    """In front of the server at ``upstream``, http://HOST:PORT."""
    parts = urlsplit(upstream)
    handler = type("Handler", (_Handler,), {"upstream": (parts.hostname, parts.port)})
    server = _Server(("127.0.0.1", 0), handler)
    proxy = FaultyS3(f"http://127.0.0.1:{server.server_address[1]}")
    setattr(handler, "proxy", proxy)  # noqa: B010 - the type is made here
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        with suppress(OSError):
            server.shutdown()
        server.server_close()
        thread.join(5)
