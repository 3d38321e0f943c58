"""One UDP port a worker: every WebRTC connection of the room shares it.

A datagram belongs to a connection by its STUN username fragment, by the transaction it answers, or by a
source address that ICE has authenticated before. What belongs to nobody is dropped and counted, never
answered: aioice itself checks neither size nor source, and an empty datagram from a stranger would close a
connection. An address that two connections have proved is contested (`_Contest`): what they authenticate tells whose
a packet is, so who forges another's address takes nothing from it.

The socket is read by ``loop.add_reader`` and drained in short turns, many datagrams at a system call (`batch`): no
transport object, no task, no copy. What is posted in one turn of the loop leaves together at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import ifaddr

from mixer.errors import ConfigError, MalformedPacket
from mixer.rtp.packet import HEAD_SIZE, MAX_DATAGRAM, classify
from mixer.webrtc.batch import Address, Inbox, Outbox, Slot, address_of, sender_key, sockaddr
from mixer.webrtc.stun import StunPeek, peek_stun

READS_PER_TURN: Final = 32  # keeps one turn of the loop under about 1.5 ms at 40 µs a packet
SOCKET_BUFFER_BYTES: Final = 4 << 20  # half a second of a full room; the kernel grants what it may
# To wake the loop costs as much as a few packets. Woken again within this time it lets them gather for as long: a
# tenth of a tick of sound, and less than what any jitter buffer allows for. Measured with 100 legs of PCMU.
GATHER_S: Final = 0.002
CROWD: Final = 8  # gathered at once: many people, whose packets may gather for twice as long
ADDRESSES_PER_ENDPOINT: Final = 8  # a peer moves between networks, it does not collect them
SILENT_S: Final = 5.0  # of the owner of a contested address; who lives there reports each second


class Endpoint(Protocol):
    """One connection behind the port. Called on the loop thread."""

    def stun_received(self, data: bytes, source: Address, via: UdpSocket) -> None:
        """A STUN request for this connection's username fragment; integrity is NOT checked yet."""

    def dtls_received(self, data: bytes) -> None:
        """A DTLS record of at most 1500 bytes from an address this connection has authenticated."""

    def media_received(self, slot: Slot, rtcp: bool) -> bool:
        """SRTP or SRTCP of 8 to 1500 bytes from there; whether it was authentic. The slot is the callee's for the
        call, to decrypt it in.
        """


class _Contest:
    """An address that a second connection has proved while it was another's: a NAT that gave it away, a client that
    came back, or an insider who forges its neighbour's address.

    Both are served, the owner first. ``newcomer`` gets it alone with a packet of its own when nothing authentic of
    the owner's has come from there for ``SILENT_S``.
    """

    def __init__(self, owner: Endpoint, newcomer: Endpoint, now: float) -> None:
        self.owner = owner
        self.newcomer = newcomer
        self._owner_at = now

    def dtls_received(self, data: bytes) -> None:
        """A record says not whose it is; to the other one it is noise, which DTLS ignores (RFC 6347 4.1.2.7)."""
        self.owner.dtls_received(data)
        self.newcomer.dtls_received(data)

    def media_received(self, slot: Slot, rtcp: bool, now: float) -> bool:
        """Hand it to whose it is; whether that settles the contest for ``newcomer``."""
        data = slot.read()  # the slot is spent by the first who tries
        if self.owner.media_received(slot, rtcp):
            self._owner_at = now
            return False
        return self.newcomer.media_received(Slot.holding(data), rtcp) and now - self._owner_at >= SILENT_S


class UdpSocket:
    """One bound, non-blocking socket of the port."""

    def __init__(
        self,
        sock: socket.socket,
        addresses: tuple[str, ...],
        dropped: Counter[str],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._sock = sock
        self._dropped = dropped
        self._sendto = sock.sendto
        self.inbox = Inbox(sock)
        self.outbox = Outbox(sock, unsent=self._unsent, begun=lambda: loop.call_soon(self.flush))
        self.port: int = sock.getsockname()[1]
        self.addresses = addresses  # what to advertise for it, best first
        self.family = sock.family
        self.woken_at = float("-inf")
        """When the loop was last woken by it, seconds of the loop's clock."""
        self.gathering: asyncio.Handle | None = None
        """What reads next, while the loop is not to be woken by it."""

    def fileno(self) -> int:
        return self._sock.fileno()

    def sendto(self, data: bytes, destination: Address) -> bool:
        """Send or drop at once; ``False`` when the kernel would not take it (counted)."""
        try:
            self._sendto(data, destination)
        except (OSError, ValueError, OverflowError) as error:  # wrong family, socket closed
            self._unsent(getattr(error, "errno", None))
        else:
            return True
        return False

    def name(self, destination: Address) -> bytes | None:
        """``destination`` as ``outbox`` takes it; ``None`` when this socket can't reach it."""
        with contextlib.suppress(OSError, struct.error):
            if (":" in destination[0]) == (self.family == socket.AF_INET6):
                return sockaddr(destination)
        return None

    def flush(self) -> None:
        """Send what was posted in this turn of the loop."""
        self.outbox.flush()

    def close(self) -> None:
        self.flush()
        self._sock.close()

    def _unsent(self, number: int | None) -> None:
        blocked = number in {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR}
        self._dropped["send_blocked" if blocked else "send_failed"] += 1  # failed: unreachable, refused


class UdpPort:
    """The worker's media port. ``host`` may be a comma-separated list of addresses, IPv6 too."""

    def __init__(self, *, host: str, ports: range, public_ip: str | None = None) -> None:
        self._hosts = [part.strip() for part in host.split(",") if part.strip()]
        self.ports = ports
        self.public_ip = public_ip
        self._loop: asyncio.AbstractEventLoop | None = None
        self._by_ufrag: dict[str, Endpoint] = {}
        self._by_source: dict[bytes, Endpoint] = {}  # by `sender_key`
        self._contests: dict[bytes, _Contest] = {}  # of addresses that are in neither's `_by_source`
        self._sources: dict[Endpoint, list[bytes]] = {}
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
                self.sockets.append(
                    UdpSocket(sock, advertised(host, self.public_ip), self.dropped, self._loop)
                )
        except ConfigError:
            self.close()
            raise
        for opened in self.sockets:
            self._loop.add_reader(opened.fileno(), self._readable, opened)

    def leave(self, opened: UdpSocket) -> None:
        """Read it no more: it is about to be closed, or somebody else reads it."""
        if self._loop is not None and opened.fileno() >= 0:
            self._loop.remove_reader(opened.fileno())
        if opened.gathering is not None:
            opened.gathering.cancel()
            opened.gathering = None

    def close(self) -> None:
        for opened in self.sockets:
            self.leave(opened)
            opened.close()
        self.sockets.clear()
        self._by_ufrag.clear()
        self._by_source.clear()
        self._contests.clear()
        self._sources.clear()
        self.transactions.clear()

    def register(self, ufrag: str, endpoint: Endpoint) -> None:
        """Route STUN requests for ``ufrag`` (ours) to ``endpoint``."""
        if ufrag in self._by_ufrag:
            raise ValueError("ICE username fragment is taken")
        self._by_ufrag[ufrag] = endpoint
        self._sources[endpoint] = []

    def authenticated(self, source: Address, endpoint: Endpoint) -> None:
        """ICE has proved that ``source`` speaks for ``endpoint``: its media goes there from now on.

        An address that is another's is contested. A third one takes the newcomer's place.
        """
        key = sender_key(source)
        known = self._sources.get(endpoint)
        if known is None or key in known:
            return
        if (contest := self._contests.get(key)) is not None:
            self._forget(key, contest.newcomer)
        if (owner := self._by_source.pop(key, None)) is not None:
            self._contests[key] = _Contest(owner, endpoint, asyncio.get_running_loop().time())
        else:
            self._by_source[key] = endpoint
        known.append(key)
        if len(known) > ADDRESSES_PER_ENDPOINT:
            self._forget(known[0], endpoint)

    def unregister(self, ufrag: str, endpoint: Endpoint) -> None:
        if self._by_ufrag.get(ufrag) is endpoint:
            del self._by_ufrag[ufrag]
        for key in tuple(self._sources.get(endpoint, ())):
            self._forget(key, endpoint)
        self._sources.pop(endpoint, None)

    def _forget(self, key: bytes, endpoint: Endpoint) -> None:
        """The address is ``endpoint``'s no more; who contests it has it."""
        self._sources[endpoint].remove(key)
        if (contest := self._contests.pop(key, None)) is None:
            del self._by_source[key]
        else:
            self._by_source[key] = contest.newcomer if endpoint is contest.owner else contest.owner

    def _readable(self, opened: UdpSocket) -> None:
        """Woken: something has come."""
        assert self._loop is not None  # noqa: S101 - it woke us
        now = self._loop.time()
        self._read(opened)
        if now - opened.woken_at < GATHER_S and opened.fileno() >= 0:
            self._loop.remove_reader(opened.fileno())
            opened.gathering = self._loop.call_later(GATHER_S, self._gathered, opened)
        opened.woken_at = now

    def _gathered(self, opened: UdpSocket) -> None:
        """Read what has come while nobody looked; until that is nothing, so it goes on."""
        assert self._loop is not None  # noqa: S101 - it calls us
        opened.gathering = None
        count = self._read(opened)
        if opened.fileno() < 0:  # what was read has closed the port
            return
        if count == READS_PER_TURN:
            opened.gathering = self._loop.call_soon(self._gathered, opened)
        elif count:
            pause_s = GATHER_S if count < CROWD else 2 * GATHER_S
            opened.gathering = self._loop.call_later(pause_s, self._gathered, opened)
        else:
            self._loop.add_reader(opened.fileno(), self._readable, opened)

    def _read(self, opened: UdpSocket) -> int:
        """Take what waits, up to ``READS_PER_TURN`` datagrams; how many."""
        inbox = opened.inbox
        try:
            count = inbox.receive(READS_PER_TURN)
        except OSError:
            self.dropped["recv_error"] += 1
            return 0
        self.received += count
        route = self._route
        for slot in inbox.slots[:count]:
            try:
                route(slot, opened)
            except Exception as error:  # a fault of ours in one connection must not cost the others theirs
                self._report(error)
        return count

    def _route(self, slot: Slot, opened: UdpSocket) -> None:
        """Untrusted input: nothing passes that is not sized, classified and owned."""
        size = slot.length[0]
        kind = classify(slot.packet[0:HEAD_SIZE], size)
        if kind is None:
            self.dropped["too_long" if size > MAX_DATAGRAM else "unclassified"] += 1
            return
        if kind == "stun":
            self.stun_received(slot.read(), address_of(slot.name[:]), opened)
            return
        endpoint = self._by_source.get(slot.name[opened.inbox.key])
        if endpoint is None:
            self._contested(slot, slot.name[opened.inbox.key], kind)
        elif kind == "dtls":
            endpoint.dtls_received(slot.read())
        else:
            endpoint.media_received(slot, kind == "rtcp")

    def _contested(self, slot: Slot, key: bytes, kind: str) -> None:
        """What comes from an address that is not one connection's alone."""
        contest = self._contests.get(key)
        if contest is None:
            self.dropped["unknown_source"] += 1
        elif kind == "dtls":
            contest.dtls_received(slot.read())
        else:
            settled = contest.media_received(slot, kind == "rtcp", asyncio.get_running_loop().time())
            if (
                settled and self._contests.get(key) is contest
            ):  # what was received may have closed one of the two
                self._forget(key, contest.owner)

    def _report(self, error: Exception) -> None:
        context = {"message": "a datagram could not be handled", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)

    def stun_received(self, data: bytes, source: Address, opened: UdpSocket) -> None:
        """A datagram that `classify` takes for STUN came from ``source``."""
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
