"""A bad line with real sockets: a proxy between any WHIP/WHEP client and a server, in a process of its own.

    with shaping(server.url, seed=1, up=Way(loss=0.05), down=Way(delay_s=0.05, rate_bps=150_000)) as shaper:
        client = WebRtcClient(http, f"{shaper.url}/whep/demo", …)     # or a browser: f"{shaper.url}/r/demo"
        shaper.shape(down=Way())                                       # the cap is lifted, at once

HTTP goes through unharmed, pages and events too, but for candidates: in the answer the server's is replaced by a
socket of ours, in an offer and its trickled fragments each of the client's by another one. (Firefox does not
begin towards the loopback: it has to be called.) Media then takes the way of a NAT: each address of a client has a
socket of its own towards the server. STUN's integrity, DTLS and SRTP pass untouched, and what happens on the way
is the seeded `tests.fakes.netem`, one a direction. `up` is client → server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import ipaddress
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from tests.fakes.netem import Burst, Netem, wire_bytes
from tests.processes import end

Address = tuple[str, int]

CONTROL: Final = "/_shaper"
SOURCES_PER_LINE: Final = 8  # a browser checks from each of its interfaces
LINES: Final = 512
READS_PER_TURN: Final = 64
BUFFER_BYTES: Final = 4 << 20
GOODBYE_S: Final = 1.0  # after DELETE: the last RTCP BYE and DTLS alert still pass
_CANDIDATE: Final = re.compile(r"(a=candidate:\S+ 1 udp \d+ )(\S+) (\d+) typ [^\n]*\n", re.IGNORECASE)
_OTHERS: Final = re.compile(r"a=candidate:\S+ (?:\d+ tcp|[2-9] )[^\n]*\n", re.IGNORECASE)
_HOP_BY_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length"}
_ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Way:
    """What one direction does; the names are `Netem`'s. Without arguments: nothing."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    burst: Burst | None = None
    reorder: float = 0.0
    reorder_s: float = 0.01
    duplicate: float = 0.0
    rate_bps: float | None = None
    queue_bytes: int = 64_000

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Way:
        """From JSON; ``TypeError`` for a name that is none."""
        burst = fields.get("burst")
        return cls(**{**fields, "burst": None if burst is None else Burst(**burst)})


def bursts(share: float, packets: float = 5.0) -> Burst:
    """Losses of ``packets`` in a row on average that make ``share`` of all packets."""
    return Burst(begin=share / (1 - share) / packets, end=1 / packets)


class _Pipe:
    """One direction of one line: what it does to datagrams, and its counters. ``out`` sends what arrives."""

    def __init__(self, seed: int, way: Way, out: Callable[[bytes, Address], None]) -> None:
        self._netem: Netem[tuple[bytes, Address]] = Netem(seed=seed, size=lambda item: wire_bytes(item[0]))
        self._out = out
        self._clock = asyncio.get_running_loop().time
        self._timer: asyncio.TimerHandle | None = None
        self._packets = self._bytes = self._delivered = self._delivered_bytes = 0
        self.set(way)

    def set(self, way: Way) -> None:
        """From now on ``way``; what is under way arrives as it would have."""
        for entry in dataclasses.fields(Way):
            setattr(self._netem, entry.name, getattr(way, entry.name))
        self._pump()

    def push(self, data: bytes, target: Address) -> None:
        """A datagram comes to the line's near end."""
        self._packets += 1
        self._bytes += wire_bytes(data)
        self._netem.send((data, target), self._clock())
        self._pump()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def counters(self) -> dict[str, int]:
        """``wire_bytes``: what the sender put on the line, IP and UDP headers included; the rest tells itself."""
        return {
            "packets": self._packets,
            "wire_bytes": self._bytes,
            "delivered": self._delivered,
            "delivered_bytes": self._delivered_bytes,
            "lost": self._netem.lost,
            "overflowed": self._netem.overflowed,
            "queued_bytes": self._netem.queued_bytes,
        }

    def _pump(self) -> None:
        for data, target in self._netem.receive(self._clock()):
            self._delivered += 1
            self._delivered_bytes += wire_bytes(data)
            self._out(data, target)
        due = self._netem.next_arrival
        if self._timer is not None:
            if due is not None and self._timer.when() <= due and not self._timer.cancelled():
                return  # it comes early enough, and looks again
            self._timer.cancel()
        self._timer = None if due is None else asyncio.get_running_loop().call_at(due, self._due)

    def _due(self) -> None:
        self._timer = None
        self._pump()


class _Line:
    """One session's line: a front socket for the client, a back socket for each of its addresses."""

    def __init__(self, seed: int, up: Way, down: Way) -> None:
        self._server: Address | None = None
        self._front = _bound()
        self._backs: dict[Address, socket.socket] = {}
        self._loop = asyncio.get_running_loop()
        self.up = _Pipe(seed, up, self._to_server)
        self.down = _Pipe(seed + 1, down, self._to_client)
        self.path = ""
        self._loop.add_reader(self._front.fileno(), self._client_readable)

    def offered(self, sdp: str) -> str:
        """The client's candidates as the server is to see them; those that we can't stand in for are left out."""

        def seen(match: re.Match[str]) -> str:
            host, port = match[2], int(match[3])
            back = self._back((host, port)) if _is_ipv4(host) and port not in {0, 9} else None
            return (
                f"{match[1]}{_address(back)[0]} {_address(back)[1]} typ host\r\n" if back is not None else ""
            )

        return _OTHERS.sub("", _CANDIDATE.sub(seen, sdp))

    def answered(self, sdp: str) -> str:
        """The server's answer as the client is to see it. ``ValueError`` when it names no address of IPv4."""
        found = [match for match in _CANDIDATE.finditer(sdp) if _is_ipv4(match[2])]
        if not found:
            raise ValueError("an answer without a candidate")
        self._server = (found[0][2], int(found[0][3]))
        return _with_candidate(sdp, _address(self._front))

    def close(self) -> None:
        for sock in (self._front, *self._backs.values()):
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock.fileno())
                sock.close()
        self.up.close()
        self.down.close()

    def _back(self, client: Address) -> socket.socket | None:
        """The socket that stands for one address of the client; None: it has too many."""
        back = self._backs.get(client)
        if back is None and len(self._backs) < SOURCES_PER_LINE:
            back = self._backs[client] = _bound()
            self._loop.add_reader(back.fileno(), self._server_readable, back, client)
        return back

    def _client_readable(self) -> None:
        for data, source in _read(self._front):
            if self._back(source) is not None:
                self.up.push(data, source)

    def _server_readable(self, back: socket.socket, client: Address) -> None:
        for data, _ in _read(back):
            self.down.push(data, client)

    def _to_server(self, data: bytes, source: Address) -> None:
        if self._server is not None:
            _send(self._backs[source], data, self._server)

    def _to_client(self, data: bytes, client: Address) -> None:
        _send(self._front, data, client)


class Shaper:
    """The proxy. `start` it on a loop; `shape` at any time; `close` it."""

    def __init__(self, server_url: str, *, seed: int, up: Way, down: Way) -> None:
        self._server_url = server_url.rstrip("/")
        self._seed = seed
        self._up, self._down = up, down  # of lines to come
        self._lines: dict[str, _Line] = {}
        self._leaving: set[_Line] = set()
        self._made = 0
        self._http: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port of the loopback: `url`."""
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10), auto_decompress=False
        )
        app = web.Application(client_max_size=1 << 20)
        app.router.add_get(CONTROL, self._report)
        app.router.add_put(CONTROL, self._control)
        app.router.add_route("*", "/{rest:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._http is not None:
            await self._http.close()
        for line in (*self._lines.values(), *self._leaving):
            line.close()
        self._lines.clear()
        self._leaving.clear()

    def shape(self, *, session: str | None = None, up: Way | None = None, down: Way | None = None) -> None:
        """From now on; ``session`` None: all lines, and those to come. ``KeyError``: there is no such session."""
        lines = list(self._lines.values()) if session is None else [self._lines[session]]
        if session is None:
            self._up, self._down = up or self._up, down or self._down
        for line in lines:
            if up is not None:
                line.up.set(up)
            if down is not None:
                line.down.set(down)

    # -- HTTP

    async def _report(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                name: {"path": line.path, "up": line.up.counters(), "down": line.down.counters()}
                for name, line in self._lines.items()
            }
        )

    async def _control(self, request: web.Request) -> web.Response:
        body = await request.json()
        ways = {name: Way.of(body[name]) for name in ("up", "down") if body.get(name) is not None}
        try:
            self.shape(session=body.get("session"), up=ways.get("up"), down=ways.get("down"))
        except KeyError:
            raise web.HTTPNotFound(text="there is no such session") from None
        return web.Response(status=204)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        """One request through; an event stream for as long as it lasts."""
        body = await request.read()
        if request.content_type == "application/sdp":
            return await self._offer(request, body.decode())
        if request.content_type == "application/trickle-ice-sdpfrag":
            line = self._lines.get(_session(request.path))
            body = (line.offered(body.decode()) if line is not None else "").encode()
        async with self._ask(request, body) as answer:
            if request.method == "DELETE":
                self._forget(request.path)
            return await _passed_on(request, answer)

    def _ask(
        self, request: web.Request, body: bytes
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        assert self._http is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = self._server_url + request.raw_path
        return self._http.request(request.method, url, data=body, headers=headers, allow_redirects=False)

    async def _offer(self, request: web.Request, sdp: str) -> web.StreamResponse:
        """A session that the server takes has a line from then on."""
        if len(self._lines) >= LINES:
            raise web.HTTPServiceUnavailable(text="too many lines")
        self._made += 2
        line = _Line(self._seed + self._made, self._up, self._down)
        try:
            async with self._ask(request, line.offered(sdp).encode()) as answer:
                if answer.status != 201:
                    line.close()
                    return await _passed_on(request, answer)
                line.path = request.path
                content = line.answered(await answer.text())
                self._lines[_session(answer.headers["Location"])] = line
                return await _passed_on(request, answer, content.encode())
        except BaseException:
            if line not in self._lines.values():
                line.close()
            raise

    def _forget(self, path: str) -> None:
        line = self._lines.pop(_session(path), None)
        if line is not None:
            self._leaving.add(line)
            asyncio.get_running_loop().call_later(GOODBYE_S, self._part, line)

    def _part(self, line: _Line) -> None:
        self._leaving.discard(line)
        line.close()


async def _passed_on(
    request: web.Request, answer: aiohttp.ClientResponse, content: bytes | None = None
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in _HOP_BY_HOP:
            response.headers.add(name, value)
    if content is not None:
        response.content_length = len(content)
    elif "Content-Length" in answer.headers:
        response.headers["Content-Length"] = answer.headers["Content-Length"]
    await response.prepare(request)
    if content is not None:
        await response.write(content)
    else:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    await response.write_eof()
    return response


def _session(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _is_ipv4(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:  # a name of mDNS
        return False


def _with_candidate(sdp: str, address: Address) -> str:
    """Every section's first candidate at ``address``, no other one; the default address too."""
    host, port = address
    rows: list[str] = []
    for row in sdp.splitlines():
        if row.startswith("a=candidate:"):
            if not rows[-1].startswith("a=candidate:"):
                rows.append(f"a=candidate:shaper 1 udp 2130706431 {host} {port} typ host")
        elif row.startswith("c=IN IP") and not row.endswith(" 0.0.0.0"):
            rows.append(f"c=IN IP4 {host}")
        else:
            rows.append(re.sub(r"^(m=\w+) (?!0 |9 )\d+ ", rf"\1 {port} ", row))
    return "\r\n".join(rows) + "\r\n"


# -- sockets


def _bound() -> socket.socket:
    """A socket of the loopback."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    sock.bind(("127.0.0.1", 0))
    return sock


def _address(sock: socket.socket) -> Address:
    host, port = sock.getsockname()
    return host, port


def _read(sock: socket.socket) -> Iterator[tuple[bytes, Address]]:
    for _ in range(READS_PER_TURN):
        try:
            data, source = sock.recvfrom(65_535)
        except OSError:  # nothing more, or an ICMP error of an earlier send
            return
        yield data, (source[0], source[1])


def _send(sock: socket.socket, data: bytes, target: Address) -> None:
    with contextlib.suppress(OSError):  # full, or closed meanwhile: a line loses packets
        sock.sendto(data, target)


# -- a process of its own


@dataclass(frozen=True, slots=True)
class Remote:
    """A shaper in another process."""

    url: str

    def shape(self, *, session: str | None = None, up: Way | None = None, down: Way | None = None) -> None:
        """As `Shaper.shape`; ``urllib.error.HTTPError`` when there is no such session."""
        ways = {"up": up, "down": down}
        body = {name: dataclasses.asdict(way) for name, way in ways.items() if way is not None}
        self._call("PUT", {**body, "session": session})

    def lines(self) -> dict[str, Any]:
        """Session → ``{"path", "up", "down"}``, with the counters of both directions."""
        found: dict[str, Any] = json.loads(self._call("GET"))
        return found

    def _call(self, method: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + CONTROL, data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            content: bytes = response.read()
            return content


@contextlib.contextmanager
def shaping(
    server_url: str, *, seed: int, up: Way | None = None, down: Way | None = None
) -> Iterator[Remote]:
    """A shaper before ``server_url``, in a process of its own, ended at the end."""
    command = [sys.executable, "-m", "tests.shaper", server_url, "--seed", str(seed)]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the shaper did not start (status {process.wait(5)})")
        remote = Remote(url)
        remote.shape(up=up, down=down)
        yield remote
    finally:
        end(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.asynccontextmanager
async def running(
    server_url: str, *, seed: int, up: Way | None = None, down: Way | None = None
) -> AsyncIterator[Shaper]:
    """A shaper on this loop."""
    shaper = Shaper(server_url, seed=seed, up=up or Way(), down=down or Way())
    await shaper.start()
    try:
        yield shaper
    finally:
        await shaper.close()


async def _serve(server_url: str, seed: int) -> None:
    """Until SIGTERM, or until whoever started us is gone (standard input ends)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)
    async with running(server_url, seed=seed) as shaper:
        print(shaper.url, flush=True)
        await stop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.shaper", description="A bad line before a server.")
    parser.add_argument("server", help="http://HOST:PORT of the server")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    asyncio.run(_serve(args.server, args.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
