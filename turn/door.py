"""The UDP socket that strangers come to. Edge."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Final

from turn.allocation import FiveTuple
from turn.paths import MAX_DATAGRAM, Frame
from turn.reactor import Reactor
from turn.sockets import door

STRANGERS_A_ROUND: Final = (
    8  # then those in use are looked at again: a flood waits in the kernel, and is dropped there
)
_IP_PKTINFO: Final = 8  # ip(7); the module has no name for it before 3.14
_PKTINFO: Final = struct.Struct(
    "=I4s4s"
)  # interface, address that was meant (to send: from), address in the header
_BUFFER: Final = bytearray(MAX_DATAGRAM)
_VIEW: Final = memoryview(_BUFFER)

OnDatagram = Callable[[bytes, FiveTuple, "Door"], None]


class Door:
    """``address`` may be the wildcard: which address was meant is then asked of the kernel, and answered from that one.

    Raises ``OSError`` when the port can't be had.
    """

    def __init__(self, address: str, port: int, on_datagram: OnDatagram, reactor: Reactor) -> None:
        self._sock = door(address, port)
        bound = self._sock.getsockname()
        self.address, self.port = bound[0], bound[1]
        self._v6 = self._sock.family == socket.AF_INET6
        if self._v6:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self._sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._on_datagram = on_datagram
        reactor.add(self._sock.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(STRANGERS_A_ROUND):
            try:
                size, notes, _, source = self._sock.recvmsg_into([_BUFFER], 64)
            except OSError:
                return
            five_tuple = FiveTuple("udp", (source[0], source[1]), (self._meant(notes), self.port))
            self._on_datagram(bytes(_VIEW[:size]), five_tuple, self)

    def send(self, data: Frame, five_tuple: FiveTuple) -> None:
        """To the client, from the address that it spoke to. Raises ``OSError``."""
        if self._v6:
            level, kind, host = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, socket.AF_INET6
            note = socket.inet_pton(host, five_tuple.server[0]) + bytes(4)
        else:
            level, kind = socket.IPPROTO_IP, _IP_PKTINFO
            note = _PKTINFO.pack(0, socket.inet_aton(five_tuple.server[0]), bytes(4))
        self._sock.sendmsg([data], [(level, kind, note)], 0, five_tuple.client)

    def _meant(self, notes: list[tuple[int, int, bytes]]) -> str:
        for level, kind, note in notes:
            if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                return str(socket.inet_ntoa(_PKTINFO.unpack(note[: _PKTINFO.size])[2]))
            if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                return socket.inet_ntop(socket.AF_INET6, note[:16])
        return str(self.address)
