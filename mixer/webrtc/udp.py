"""One UDP port a worker: every WebRTC connection of the room shares it.

A datagram belongs to a connection by its STUN username fragment, by the transaction it answers, or by a
source address that ICE has authenticated before. What belongs to nobody is dropped and counted, never
answered: aioice itself checks neither size nor source, and an empty datagram from a stranger would close a
connection.

The socket is read by ``loop.add_reader`` and drained in short turns: no transport object, no task, no copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import ifaddr

from mixer.errors import ConfigError, MalformedPacket
from mixer.rtp.packet import classify
from mixer.webrtc.stun import StunPeek, peek_stun

Address = tuple[str, int]

MAX_DATAGRAM_BYTES: Final = 1500  # an Ethernet MTU; pylibsrtp's buffer is that long too and raises beyond
READ_BYTES: Final = 2048  # longer ones are cut by the kernel and still too long for us
READS_PER_TURN: Final = 32  # keeps one turn of the loop under about 1.5 ms at 40 µs a packet
SOCKET_BUFFER_BYTES: Final = 4 << 20  # half a second of a full room; the kernel grants what it may
ADDRESSES_PER_ENDPOINT: Final = 8  # a peer moves between networks, it does not collect them


class Endpoint(Protocol):
    """One connection behind the port. Called on the loop thread; must not raise."""

    def stun_received(self, data: bytes, source: Address, via: UdpSocket) -> None:
        """A STUN request for this connection's username fragment; integrity is NOT checked yet."""

    def media_received(self, data: bytes, source: Address) -> None:
        """DTLS, SRTP or SRTCP of 12..1500 bytes from an address this connection has authenticated."""


class UdpSocket:
    """One bound, non-blocking socket of the port."""

    def __init__(self, sock: socket.socket, addresses: tuple[str, ...], dropped: Counter[str]) -> None:
        self._sock = sock
        self._dropped = dropped
        self.recvfrom = sock.recvfrom
        self._sendto = sock.sendto
        self.port: int = sock.getsockname()[1]
        self.addresses = addresses  # what to advertise for it, best first
        self.family = sock.family

    def fileno(self) -> int:
        return self._sock.fileno()

    def sendto(self, data: bytes, destination: Address) -> bool:
        """Send or drop; ``False`` when the kernel would not take it (counted)."""
        try:
            self._sendto(data, destination)
        except (BlockingIOError, InterruptedError):
            self._dropped["send_blocked"] += 1
        except (OSError, ValueError, OverflowError):  # unreachable, wrong family, socket closed
            self._dropped["send_failed"] += 1
        else:
            return True
        return False

    def close(self) -> None:
        self._sock.close()


class UdpPort:
    """The worker's media port. ``host`` may be a comma-separated list of addresses, IPv6 too."""

    def __init__(self, *, host: str, ports: range, public_ip: str | None = None) -> None:
        self._hosts = [part.strip() for part in host.split(",") if part.strip()]
        self.ports = ports
        self.public_ip = public_ip
        self._loop: asyncio.AbstractEventLoop | None = None
        self._by_ufrag: dict[str, Endpoint] = {}
        self._by_source: dict[Address, Endpoint] = {}
        self._sources: dict[Endpoint, list[Address]] = {}
        self.sockets: list[UdpSocket] = []
        self.dropped: Counter[str] = Counter()
        self.received = 0
        # STUN responses carry no username: whoever started the transaction is found by its id. The adapter
        # puts a callback here for the time a transaction is open.
        self.transactions: dict[bytes, Callable[[bytes, Address], None]] = {}

    def open(self) -> None:
        """Bind; raises ``ConfigError`` naming the key when an address or every port of the range is taken."""
        self._loop = asyncio.get_running_loop()
        try:
            for host in self._hosts:
                _check_address(host)
                sock = _bind(host, self.ports)
                self.sockets.append(UdpSocket(sock, advertised(host, self.public_ip), self.dropped))
        except ConfigError:
            self.close()
            raise
        for opened in self.sockets:
            self._loop.add_reader(opened.fileno(), self._readable, opened)

    def close(self) -> None:
        for opened in self.sockets:
            if self._loop is not None and opened.fileno() >= 0:
                self._loop.remove_reader(opened.fileno())
            opened.close()
        self.sockets.clear()
        self._by_ufrag.clear()
        self._by_source.clear()
        self._sources.clear()
        self.transactions.clear()

    def register(self, ufrag: str, endpoint: Endpoint) -> None:
        """Route STUN requests for ``ufrag`` (ours) to ``endpoint``."""
        if ufrag in self._by_ufrag:
            raise ValueError("ICE username fragment is taken")
        self._by_ufrag[ufrag] = endpoint
        self._sources[endpoint] = []

    def authenticated(self, source: Address, endpoint: Endpoint) -> None:
        """ICE has proved that ``source`` speaks for ``endpoint``: its media goes there from now on."""
        owner = self._by_source.get(source)
        known = self._sources.get(endpoint)
        if owner is endpoint or known is None:
            return
        if owner is not None:
            self._sources[owner].remove(source)  # the last proof wins: a client that reuses its port
        self._by_source[source] = endpoint
        known.append(source)
        if len(known) > ADDRESSES_PER_ENDPOINT:
            del self._by_source[known.pop(0)]

    def unregister(self, ufrag: str, endpoint: Endpoint) -> None:
        if self._by_ufrag.get(ufrag) is endpoint:
            del self._by_ufrag[ufrag]
        for source in self._sources.pop(endpoint, ()):
            del self._by_source[source]

    def _readable(self, opened: UdpSocket) -> None:
        receive, route = opened.recvfrom, self._route
        for _ in range(READS_PER_TURN):
            try:
                data, source = receive(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an ICMP error of an earlier send; the socket itself is well
                self.dropped["recv_error"] += 1
                return
            self.received += 1
            route(data, source[:2], opened)  # IPv6 has a flow and a scope besides

    def _route(self, data: bytes, source: Address, opened: UdpSocket) -> None:
        """Untrusted input: nothing passes that is not sized, classified and owned."""
        if len(data) > MAX_DATAGRAM_BYTES:
            self.dropped["too_long"] += 1
            return
        kind = classify(data)
        if kind is None:
            self.dropped["unclassified"] += 1
        elif kind == "stun":
            self._route_stun(data, source, opened)
        else:
            endpoint = self._by_source.get(source)
            if endpoint is None:
                self.dropped["unknown_source"] += 1
            else:
                endpoint.media_received(data, source)

    def _route_stun(self, data: bytes, source: Address, opened: UdpSocket) -> None:
        try:
            peek: StunPeek = peek_stun(data)
        except MalformedPacket:
            self.dropped["malformed_stun"] += 1
            return
        if peek.kind == "request":
            endpoint = self._by_ufrag.get(peek.local_ufrag) if peek.local_ufrag else None
            if endpoint is not None:
                endpoint.stun_received(data, source, opened)
                return
        elif peek.kind != "indication":
            answered = self.transactions.get(peek.transaction)
            if answered is not None:
                answered(data, source)
                return
        self.dropped["unknown_stun"] += 1


def _check_address(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ConfigError(f"media.host: {host!r} is not an IP address") from error


def _bind(host: str, ports: range) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    offset = random.randrange(len(ports)) if len(ports) else 0
    last: OSError | None = None
    # workers of many rooms share the range: starting anywhere keeps them from racing for the same port
    for port in (*ports[offset:], *ports[:offset]):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
        except OSError as error:
            sock.close()
            last = error
            continue
        return sock
    raise ConfigError(
        f"media.host, media.udp_ports: cannot bind {host} on any of {ports.start}-{ports.stop - 1}: {last}"
    )


def advertised(host: str, public_ip: str | None) -> tuple[str, ...]:
    """Addresses under which a socket bound to ``host`` is reached, for candidates, best first."""
    bound = ipaddress.ip_address(host)
    found: Sequence[str] = _interface_addresses(bound.version) if bound.is_unspecified else [host]
    if public_ip is not None and ipaddress.ip_address(public_ip).version == bound.version:
        # 1:1 NAT: the public address first (ffmpeg's WHIP reads one candidate only), the private one kept for
        # callers on the same network
        found = [public_ip, *(address for address in found if address != public_ip)]
    return tuple(found)


def _interface_addresses(version: int) -> list[str]:
    default = _default_route_address(version)
    found = [default] if default else []
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            address = ipaddress.ip_address(text.partition("%")[0])
            usable = address.version == version and not (address.is_loopback or address.is_link_local)
            if usable and str(address) not in found:
                found.append(str(address))
    return found or [
        "127.0.0.1" if version == 4 else "::1"
    ]  # a machine without a network still mixes for itself


def _default_route_address(version: int) -> str | None:
    """Our address towards the Internet. Connecting a UDP socket sends nothing."""
    family, probe = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    with socket.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect((probe, 9))  # RFC 5737 / RFC 3849 documentation addresses
        address = ipaddress.ip_address(sock.getsockname()[0])
        return None if address.is_loopback or address.is_link_local else str(address)
    return None
