"""Clients over TCP and TLS. Edge. Frames stand one behind the other, ChannelData padded (RFC 8656 section 12.5).

Who has no allocation yet is a stranger: few bytes, ten seconds for the handshake, a minute to do something, and when
there are too many the longest-standing one goes. Towards a slow reader at most ``MAX_WAITING_BYTES`` wait; then frames
are dropped, whole ones: it is media, and late media are worth nothing.
"""

from __future__ import annotations

import socket
import ssl
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Final

from turn.allocation import FiveTuple
from turn.message import MalformedMessage, frame_bytes
from turn.paths import HEAD, Frame, OnStun, PeerPath, Traffic
from turn.reactor import Reactor

HANDSHAKE_S: Final = 10.0
IDLE_S: Final = 60.0
MAX_STRANGERS: Final = 512
STRANGERS_A_SOURCE: Final = 64  # an office behind one address
MAX_STRANGER_FRAME: Final = 2048  # a request with every attribute has under 700 bytes
MAX_WAITING_BYTES: Final = 65_536  # a sixth of a second at 4 Mbit/s
ACCEPTS_A_ROUND: Final = 8
_SEND_BUFFER: Final = (
    131_072  # the kernel's, beside ours: it would grow to megabytes, which is seconds of media
)
_CHUNK: Final = bytearray(65_536)
_VIEW: Final = memoryview(_CHUNK)
_FRAME: Final = bytearray(4 + 65_535 + 3)
_FRAME_VIEW: Final = memoryview(_FRAME)
_head_of: Final = HEAD.unpack_from
_NOTHING: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class StreamClient:
    """One connection. ``stranger``: no allocation hangs on it."""

    __slots__ = (
        "_on_closed", "_on_stun", "_reactor", "_rest", "_shaking", "_sock", "_traffic", "_waiting", "_waiting_bytes",
        "closed", "five_tuple", "routes", "since_s", "stranger", "write",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        five_tuple: FiveTuple,
        on_stun: OnStun,
        on_closed: Callable[[StreamClient], None],
        reactor: Reactor,
        traffic: Traffic,
    ) -> None:
        self.five_tuple = five_tuple
        self.routes: dict[int, PeerPath] = {}
        self.stranger = True
        self.closed = False
        self.since_s = reactor.now_s
        self.write: Callable[[Frame], object] = self._write
        self._sock = sock
        self._shaking = isinstance(sock, ssl.SSLSocket)
        self._on_stun = on_stun
        self._on_closed = on_closed
        self._reactor = reactor
        self._traffic = traffic
        self._rest = bytearray()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        reactor.add(sock.fileno(), self.ready)

    def overdue(self, now_s: float) -> bool:
        """Whether its time is over: an unfinished handshake, or a stranger who does nothing."""
        return self.stranger and now_s - self.since_s >= (HANDSHAKE_S if self._shaking else IDLE_S)

    def ready(self) -> None:
        """Something can be read, or written again."""
        if self._shaking:
            self._shake()
            return
        if self._waiting:
            self._flush()
        try:
            size = self._sock.recv_into(_CHUNK)
        except _NOTHING:
            return
        except OSError:
            size = 0
        if not size:
            self.close()
        elif self._rest:
            self._rest += _VIEW[:size]
            whole = self._rest
            self._rest = bytearray()
            with memoryview(whole) as view:
                self._frames(view)
        else:
            self._frames(_VIEW[:size])

    def _shake(self) -> None:
        try:
            self._sock.do_handshake()  # type: ignore[attr-defined]  # only a TLS socket is ever shaking
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            self._reactor.writable_too(self._sock.fileno(), wanted=True)
            return
        except OSError:
            self._traffic.drops["tls handshake"] += 1
            self.close()
            return
        self._shaking = False
        self.since_s = self._reactor.now_s
        self._reactor.writable_too(self._sock.fileno(), wanted=False)

    def _frames(self, view: memoryview) -> None:
        """All whole frames; what is left waits for more."""
        at, end = 0, len(view)
        while end - at >= 4:
            number, length = _head_of(view, at)
            route = self.routes.get(number)
            if route is not None:
                after = at + 4 + length + (-length & 3)
                if after > end:
                    break
                route.forward(view[at + 4 : at + 4 + length])
            else:
                try:
                    after = at + frame_bytes(view[at : at + 4])
                    if self.stranger and after - at > MAX_STRANGER_FRAME:
                        raise MalformedMessage("longer than any request")  # noqa: TRY301 (it is handled alike)
                except MalformedMessage:
                    self._traffic.drops["broken stream"] += 1
                    self.close()
                    return
                if after > end:
                    break
                self._other(bytes(view[at:after]))
                if self.closed:
                    return
            at = after
        if at < end:
            self._rest += view[at:]

    def _other(self, frame: bytes) -> None:
        if frame[0] < 0x40:
            self._on_stun(frame, self.five_tuple)
        else:
            self._traffic.drops["no such channel"] += 1

    def _write(self, frame: Frame) -> None:
        """One frame, padded here. What the line does not take waits; what does not fit there either is dropped."""
        if self.closed:
            return
        size = len(frame)
        if pad := -size & 3:
            _FRAME[:size] = frame
            _FRAME[size : size + pad] = bytes(pad)
            frame = _FRAME_VIEW[: size + pad]
        if self._waiting:
            self._wait(frame)
            return
        try:
            sent = self._sock.send(frame)
        except _NOTHING:
            sent = 0
        except OSError:
            self._traffic.drops["not sent"] += 1  # its end is read next
            return
        if sent < len(frame):
            self._wait(memoryview(frame)[sent:], begun=sent > 0)
            self._reactor.writable_too(self._sock.fileno(), wanted=True)

    def _wait(self, frame: Frame, *, begun: bool = False) -> None:
        if self._waiting_bytes + len(frame) > MAX_WAITING_BYTES and not begun:
            self._traffic.drops["slow reader"] += 1
            return
        self._waiting.append(bytes(frame))
        self._waiting_bytes += len(frame)

    def _flush(self) -> None:
        while self._waiting:
            frame = self._waiting[0]
            try:
                sent = self._sock.send(frame)
            except _NOTHING:
                return
            except OSError:
                self._waiting.clear()
                break
            self._waiting_bytes -= sent
            if sent < len(frame):
                self._waiting[0] = frame[sent:]
                return
            self._waiting.popleft()
        self._waiting_bytes = 0
        self._reactor.writable_too(self._sock.fileno(), wanted=False)

    def close(self) -> None:
        """Once; ``on_closed`` hears of it."""
        if not self.closed:
            self.closed = True
            self._reactor.remove(self._sock.fileno())
            self._sock.close()
            self._on_closed(self)


class Streams:
    """All connections, and the doors they come by."""

    def __init__(
        self, on_stun: OnStun, on_gone: Callable[[FiveTuple], None], reactor: Reactor, traffic: Traffic
    ) -> None:
        self.clients: dict[FiveTuple, StreamClient] = {}
        self._strangers: OrderedDict[StreamClient, None] = OrderedDict()
        self._sources: Counter[str] = Counter()
        self._on_stun = on_stun
        self._on_gone = on_gone
        self._reactor = reactor
        self._traffic = traffic

    def listen(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        """Take in who comes by this door."""
        self._reactor.add(sock.fileno(), lambda: self._accept(sock, context))

    def _accept(self, door: socket.socket, context: ssl.SSLContext | None) -> None:
        for _ in range(ACCEPTS_A_ROUND):
            try:
                sock, remote = door.accept()
            except (
                OSError
            ):  # nobody, somebody who went away again, or no descriptor left: those in use are served on
                return
            try:
                self._take(sock, remote, context)
            except OSError:
                sock.close()

    def _take(self, sock: socket.socket, remote: tuple[str, int], context: ssl.SSLContext | None) -> None:
        if self._sources[remote[0]] >= STRANGERS_A_SOURCE:
            self._traffic.drops["connections of a stranger"] += 1
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        local = sock.getsockname()
        five_tuple = FiveTuple(
            "tcp" if context is None else "tls", (remote[0], remote[1]), (local[0], local[1])
        )
        if context is not None:
            sock = context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        client = StreamClient(sock, five_tuple, self._on_stun, self._closed, self._reactor, self._traffic)
        self.clients[five_tuple] = client
        self._strange(client)
        if len(self._strangers) > MAX_STRANGERS:
            self._traffic.drops["connections of strangers"] += 1
            next(iter(self._strangers)).close()

    def known(self, client: StreamClient, *, known: bool) -> None:
        """An allocation hangs on the connection now, or does not any more."""
        if known and client in self._strangers:
            self._familiar(client)
        elif not known and not client.closed:
            client.since_s = self._reactor.now_s
            self._strange(client)

    def tick(self, now_s: float) -> None:
        """Let go of those whose time is over."""
        for client in [client for client in self._strangers if client.overdue(now_s)]:
            self._traffic.drops["idle connections"] += 1
            client.close()

    def _strange(self, client: StreamClient) -> None:
        client.stranger = True
        self._strangers[client] = None
        self._sources[client.five_tuple.client[0]] += 1

    def _familiar(self, client: StreamClient) -> None:
        client.stranger = False
        del self._strangers[client]
        source = client.five_tuple.client[0]
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    def _closed(self, client: StreamClient) -> None:
        del self.clients[client.five_tuple]
        if client.stranger:
            self._familiar(client)
        else:
            self._on_gone(client.five_tuple)
