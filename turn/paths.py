"""The way of a packet through an allocation that stands. Edge, and the only code that runs for each packet.

Two halves meet here: a client (``DatagramClient``; ``streams.StreamClient`` for TCP and TLS) and a peer that a
channel is bound to (``PeerPath``). Each holds what the other needs ready-made: a packet costs one receive, one look-
up, one send.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from turn.allocation import Channel, FiveTuple
from turn.reactor import Reactor

HEAD: Final = struct.Struct("!HH")  # ChannelData: number, length (RFC 8656 section 12.4)
MAX_DATAGRAM: Final = 65_535
_BUFFER: Final = bytearray(
    4 + MAX_DATAGRAM
)  # one for all: there is one thread, and a packet leaves before the next comes
_VIEW: Final = memoryview(_BUFFER)
_DATA: Final = _VIEW[4:]
_head_of: Final = HEAD.unpack_from
_put_head: Final = HEAD.pack_into

Frame = bytes | bytearray | memoryview
OnStun = Callable[[bytes, FiveTuple], None]


@dataclass(slots=True)
class Traffic:
    """Packets that were relayed, each way, and why others were not."""

    to_peer: int = 0
    to_client: int = 0
    bytes_to_peer: int = 0  # of allocations that are gone; the buckets of the living know theirs
    bytes_to_client: int = 0
    drops: Counter[str] = field(default_factory=Counter)


class Client(Protocol):
    """What a relayed address needs of whoever it belongs to."""

    five_tuple: FiveTuple
    routes: dict[int, PeerPath]
    write: Callable[[Frame], object]  # one frame, STUN or ChannelData, without padding; may raise ``OSError``

    def close(self) -> None:
        """Let go of what it holds."""


class PeerPath:
    """A channel, both ways. Mostly by a socket of its own, at the relayed address and connected to the peer.

    Without one (no descriptor was left) ``send`` goes by the relayed address' own socket, where the peer's packets then
    arrive as well.
    """

    __slots__ = (
        "_channel",
        "_number",
        "_reactor",
        "_receive",
        "_send",
        "_sock",
        "_to_client",
        "_to_peer",
        "_traffic",
        "_write",
    )

    def __init__(
        self,
        channel: Channel,
        client: Client,
        sock: socket.socket | None,
        send: Callable[[Frame], object],
        reactor: Reactor,
        traffic: Traffic,
    ) -> None:
        self._channel = channel
        self._number = channel.number
        self._to_peer = channel.allocation.to_peer
        self._to_client = channel.allocation.to_client
        self._write = client.write
        self._sock = sock
        self._send = send
        self._reactor = reactor
        self._traffic = traffic
        if sock is not None:
            self._receive = sock.recv_into
            reactor.add(sock.fileno(), self.readable)

    def forward(self, data: memoryview) -> None:
        """From the client to the peer."""
        size = len(data)
        bucket = self._to_peer
        if bucket.left < size and bucket.refill(self._reactor.now_s) < size:
            self._traffic.drops["bandwidth to peer"] += 1
            return
        bucket.left -= size
        try:
            self._send(data)
        except OSError as error:
            if not again(self._send, data, error, self._traffic):
                return
        self._traffic.to_peer += 1

    def readable(self) -> None:
        """One packet of the peer to the client."""
        try:
            size = self._receive(_DATA)
        except OSError:  # nothing there after all, or ICMP told that an earlier packet found nobody
            return
        bucket = self._to_client
        if bucket.left < size and bucket.refill(self._reactor.now_s) < size:
            self._traffic.drops["bandwidth to client"] += 1
            return
        if not self._channel.permitted:
            self._traffic.drops["peer without permission"] += 1
            return
        bucket.left -= size
        _put_head(_BUFFER, 0, self._number, size)
        frame = _VIEW[: 4 + size]
        try:
            self._write(frame)
        except OSError as error:
            if not again(self._write, frame, error, self._traffic):
                return
        self._traffic.to_client += 1

    def close(self) -> None:
        if self._sock is not None:
            self._reactor.remove(self._sock.fileno())
            self._sock.close()


class DatagramClient:
    """A client over UDP, by a socket of its own beside the door (or through the door, when ``sock`` is None)."""

    __slots__ = ("_on_stun", "_reactor", "_receive", "_sock", "_traffic", "five_tuple", "routes", "write")

    def __init__(
        self,
        sock: socket.socket | None,
        write: Callable[[Frame], object],
        five_tuple: FiveTuple,
        on_stun: OnStun,
        reactor: Reactor,
        traffic: Traffic,
    ) -> None:
        self.five_tuple = five_tuple
        self.routes: dict[int, PeerPath] = {}
        self.write = write
        self._sock = sock
        self._on_stun = on_stun
        self._reactor = reactor
        self._traffic = traffic
        if sock is not None:
            self._receive = sock.recv_into
            reactor.add(sock.fileno(), self.readable)

    def readable(self) -> None:
        """One datagram of the client."""
        try:
            size = self._receive(_BUFFER)
        except OSError:
            return
        number, length = _head_of(_BUFFER)
        route = self.routes.get(number)
        if route is not None and length + 4 <= size:  # fewer than four bytes are never that long
            route.forward(_VIEW[4 : 4 + length])
        else:
            self._other(bytes(_VIEW[:size]))

    def received(self, data: bytes) -> None:
        """The same for a datagram that came to the door."""
        route = None if len(data) < 4 else self.routes.get(int.from_bytes(data[:2], "big"))
        length = int.from_bytes(data[2:4], "big")
        if route is not None and length + 4 <= len(data):
            route.forward(memoryview(data)[4 : 4 + length])
        else:
            self._other(data)

    def _other(self, data: bytes) -> None:
        if data[:1] < b"\x40":
            self._on_stun(data, self.five_tuple)
        else:
            self._traffic.drops["no such channel"] += 1

    def close(self) -> None:
        if self._sock is not None:
            self._reactor.remove(self._sock.fileno())
            self._sock.close()


def again(send: Callable[[Frame], object], data: Frame, error: OSError, traffic: Traffic) -> bool:
    """A send failed; whether it went at last. What ICMP told of an earlier packet stops the next one, once."""
    if isinstance(error, ConnectionRefusedError):
        try:
            send(data)
        except OSError:
            pass
        else:
            return True
    traffic.drops["not sent"] += 1
    return False
