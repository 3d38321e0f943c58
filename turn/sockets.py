"""Sockets as a relay needs them. Edge.

Who is known has a socket of its own: a second one at the same address, connected to that client or that peer. The
kernel then tells senders apart, a flood at the door can't fill the queue of a call, and a packet costs neither an
address to build nor one to parse. Beside the door it stands by SO_REUSEPORT, which the kernel grants to the same user.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from typing import Final

from turn.reactor import Handler, Reactor

Address = tuple[str, int] | tuple[str, int, int, int]

_BUFFER_BYTES: Final = (
    1 << 20
)  # 20 ms of 50,000 packets a second of 1000 bytes, as the kernel counts them (2.3 kB each)
_OUT_BUFFER_BYTES: Final = 1 << 18
_SO_RCVBUFFORCE: Final = 33  # socket(7), for the privileged; the module has no name for it
_IP_MTU_DISCOVER, _PMTUDISC_DONT, _PMTUDISC_DO = 10, 0, 2  # ip(7)
_IPV6_MTU_DISCOVER: Final = 23  # ipv6(7)
_LOCAL_FOR_S: Final = 5.0  # how long it is believed that an address is ours, or is not
_LOCAL_ENTRIES: Final = 1024


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def door(address: str, port: int) -> socket.socket:
    """A UDP socket that nobody else has, and that connected ones may be put beside. Raises ``OSError``."""
    sock = _datagram_socket(address)
    try:
        sock.bind((address, port))
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEPORT, 1
        )  # only now: a port in use must not be shared
    except OSError:
        sock.close()
        raise
    return sock


def beside(local: Address, remote: Address) -> tuple[socket.socket, Iterator[tuple[bytes, Address]]]:
    """A socket at ``local``, connected to ``remote``; and what slipped in from others while it was not yet.

    What slipped in is to be read before anything else of the socket. Raises ``OSError``.
    """
    sock = _datagram_socket(local[0])
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(local)
        sock.connect(remote)
    except OSError:
        sock.close()
        raise
    return sock, _waiting(sock)


def _waiting(sock: socket.socket) -> Iterator[tuple[bytes, Address]]:
    with contextlib.suppress(OSError):
        for _ in range(1024):  # more than its buffer holds
            yield sock.recvfrom(65_535)


def _datagram_socket(address: str) -> socket.socket:
    sock = socket.socket(family(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
    else:
        sock.setsockopt(
            socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT
        )  # RFC 8656 section 14.7: DF is asked for
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _OUT_BUFFER_BYTES)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    return sock


def send_whole(sock: socket.socket, data: bytes | bytearray | memoryview, target: Address) -> None:
    """Send with DF set, for once. Raises ``OSError``; EMSGSIZE when it is too large for the way."""
    if sock.family == socket.AF_INET6:
        level, option = socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER
    else:
        level, option = socket.IPPROTO_IP, _IP_MTU_DISCOVER
    sock.setsockopt(level, option, _PMTUDISC_DO)
    try:
        sock.sendto(data, target)
    finally:
        sock.setsockopt(level, option, _PMTUDISC_DONT)


def listener(address: str, port: int) -> socket.socket:
    """A TCP socket that listens. Raises ``OSError``."""
    sock = socket.socket(family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(512)
    except OSError:
        sock.close()
        raise
    return sock


def allow_many_descriptors() -> None:
    """As many as the machine grants: a call has a socket a side, a channel one more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65_536), hard)
        )


class RelayPorts:
    """``turn.table.Ports`` with real sockets."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._watched: set[tuple[str, int]] = set()

    def watch(self, address: str, port: int, handler: Handler) -> None:
        """Call ``handler`` when something has come to the port."""
        self._watched.add((address, port))
        self._reactor.add(self._sockets[address, port].fileno(), handler)

    def bind(self, address: str, port: int) -> bool:
        if (address, port) in self._sockets:
            return False
        try:
            self._sockets[address, port] = door(address, port)
        except OSError:
            return False
        return True

    def release(self, address: str, port: int) -> None:
        sock = self._sockets.pop((address, port))
        if (address, port) in self._watched:
            self._watched.remove((address, port))
            self._reactor.remove(sock.fileno())
        sock.close()

    def socket(self, address: str, port: int) -> socket.socket:
        """The socket of a port that was bound."""
        return self._sockets[address, port]


class LocalAddresses:
    """Whether an address is one of this machine's: it is if one can bind to it. Asked anew after five seconds."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bool, float]] = {}

    def __call__(self, address: str) -> bool:
        now_s = time.monotonic()
        known = self._known.get(address)
        if known is not None and now_s - known[1] < _LOCAL_FOR_S:
            return known[0]
        if len(self._known) >= _LOCAL_ENTRIES:
            self._known.clear()
        with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((address, 0))
            except OSError:
                found = False
            else:
                found = True
        self._known[address] = found, now_s
        return found
