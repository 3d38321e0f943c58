"""Every private hook on aioice and aiortc, in one place; ``tests/mixer/webrtc/test_adapter.py`` holds each.

What we take from them: ICE (checks, roles, nomination) from ``aioice.Connection``, the DTLS handshake with
its exported keys from ``aiortc.RTCDtlsTransport``. What we don't: their sockets, their SDP, their RTP. An
upgrade of either is made with the contract tests green.

``Connection.get_component_candidates``
    Candidates of the shared port in place of a socket a connection.
``Connection.check_incoming``
    Called once a check is authenticated: from then on its source is known. Also fills in the PRIORITY that
    ffmpeg 8 leaves out (RFC 8445 section 7.1.1 demands it; aioice raises KeyError).
``Connection.check_complete``, ``._nominated``
    Which pair media leaves by.
``Connection.query_consent``
    The keepalives of RFC 7675 stay; the verdict is ours, see ``IceConnection.query_consent``.
``Connection.build_request``
    Checks beside aioice's own: `IceConnection.call`.
``StunProtocol.__init__``, ``.request``, ``.close``, ``.transactions``
    A protocol object without a transport of its own.
``RTCDtlsTransport(transport)``, of which it uses ``_recv`` and ``_send``
    DTLS datagrams by way of our demultiplexer.
``RTCDtlsTransport._set_role``, ``._rx_srtp``, ``._tx_srtp``
    The role that the answer named; the libsrtp sessions made of the exported keys.
``pylibsrtp.Session._srtp``, ``pylibsrtp._binding``
    libsrtp's own functions in the buffers of the socket (`batch`): 0.9 µs a packet where ``Session.protect`` takes 1.6.
``RTCCertificate._create_ssl_context``
    RSA peers (GStreamer 1.22) need more than ECDSA suites.
``RTCDtlsTransport``'s libsrtp policies: ``allow_repeat_tx``, ``window_size``
    Without RTX a packet is repeated as it was, and may come hundreds of packets late.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import pylibsrtp
from aioice import Candidate, Connection
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, StunProtocol
from aioice.stun import Message, TransactionError, parse_message
from aiortc import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from aiortc.rtcdtlstransport import SRTPProtectionProfile
from OpenSSL import SSL
from pylibsrtp._binding import lib

from mixer.errors import MalformedPacket
from mixer.webrtc.batch import Address, Slot
from mixer.webrtc.sdp import IceCandidate
from mixer.webrtc.udp import UdpPort, UdpSocket

MAX_SRTP_BYTES: Final = (
    1500  # an Ethernet frame; libsrtp writes up to SRTP_MAX_TRAILER_LEN, 144 bytes, behind it
)
COMPONENT: Final = 1  # RFC 8445: RTP; RTCP is multiplexed on it (RFC 5761), there is no second one
MAX_REMOTE_CANDIDATES: Final = 32  # a browser on a laptop with VPNs sends about 12
MAX_DTLS_BACKLOG: Final = 32  # datagrams; a whole handshake flight is at most 6
MAX_CALLS: Final = 128  # without an answer; 3 s of the fastest calling
MAX_SSRCS: Final = 1024
# Of one connection's life: a camera that is changed each five minutes of a day stays below, RTX and reports included.
# At 4000 libsrtp takes 9 µs to find one's stream, at 20,000 it is 79.
CONSENT_INTERVAL_S: Final = 5.0  # RFC 7675 section 5.1
CONSENT_ANSWER_S: Final = (
    0.45  # shorter than aioice's first retransmission, so that a measured RTT is not two
)


class MuxProtocol(StunProtocol):
    """aioice's view of one shared socket: STUN out through it, STUN in by the port's routing."""

    def __init__(
        self, connection: IceConnection, port: UdpPort, via: UdpSocket, candidate: Candidate
    ) -> None:
        super().__init__(connection)
        self.local_candidate = candidate
        self.via = via
        self._port = port
        self._connection = connection

    def send_stun(self, message: Message, addr: Address) -> None:
        self.via.sendto(bytes(message), addr)

    async def send_data(self, data: bytes, addr: Address) -> None:
        self.via.sendto(data, addr)

    async def request(
        self,
        request: Message,
        addr: Address,
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[Message, Address]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._port.transactions[request.transaction_id] = self.response_received
        try:
            answer = await super().request(request, addr, integrity_key, retransmissions)
        finally:
            self._port.transactions.pop(request.transaction_id, None)
        elapsed = loop.time() - started
        if elapsed < CONSENT_ANSWER_S:
            self._connection.rtt_s = elapsed
        return answer

    def response_received(self, data: bytes, source: Address) -> None:
        message = _parse(data)
        transaction = self.transactions.get(message.transaction_id) if message is not None else None
        if message is not None and transaction is not None:
            transaction.response_received(message, source)

    async def close(self) -> None:
        """The socket is shared and stays open."""


class IceConnection(Connection):
    """One ICE agent on the shared port. ``on_media`` gets SRTP and SRTCP at once; DTLS waits, bounded.

    ``heard``: called whenever the peer has proved, by an authenticated check, that it is there.
    """

    def __init__(
        self,
        port: UdpPort,
        *,
        ufrag: str,
        password: str,
        controlling: bool,
        on_media: Callable[[Slot, bool], bool],
        heard: Callable[[], None],
    ) -> None:
        super().__init__(ice_controlling=controlling, local_username=ufrag, local_password=password)
        self._port = port
        self.media_received = on_media  # of the port's side: at once, without a call between
        self._heard = heard
        self._dtls: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.selected: tuple[UdpSocket, Address, bytes] | None = None
        """The nominated pair: our socket, the peer's address, the same as a sockaddr."""
        self._called: deque[bytes] = deque()  # transactions of `call`, answered ones among them
        self.rtt_s: float | None = None
        self.dropped: Counter[str] = Counter()
        port.register(ufrag, self)

    # --- aioice's side ---

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: int = 5
    ) -> list[Candidate]:
        """Host candidates of the shared port. No STUN server, no TURN server, no socket."""
        candidates: list[Candidate] = []
        for via in self._port.sockets:
            of_socket = [_host_candidate(via, address, rank) for rank, address in enumerate(via.addresses)]
            self._protocols.append(MuxProtocol(self, self._port, via, of_socket[0]))
            candidates += of_socket
        return candidates

    def check_incoming(self, message: Message, addr: Address, protocol: StunProtocol) -> None:
        self._port.authenticated(addr, self)
        self._heard()
        message.attributes.setdefault("PRIORITY", candidate_priority(COMPONENT, "prflx"))
        if len(self._remote_candidates) < MAX_REMOTE_CANDIDATES or self._knows(addr):
            super().check_incoming(message, addr, protocol)
        else:
            self.dropped["candidates"] += 1

    def check_complete(self, pair: CandidatePair) -> None:
        super().check_complete(pair)
        nominated = self._nominated.get(COMPONENT)
        if nominated is not None and isinstance(nominated.protocol, MuxProtocol):
            self._select(nominated.protocol.via, nominated.remote_addr)

    def _select(self, via: UdpSocket, destination: Address) -> None:
        name = via.name(destination)
        self.selected = (via, destination, name) if name is not None else None
        self._port.authenticated(destination, self)

    async def query_consent(self) -> None:
        """Keep the path and its NAT bindings fresh, measure its round trip; never close.

        aioice closes after six unanswered checks, though media may still flow. A peer takes any authenticated
        packet as a sign of life and gives up by its own clock (``Peer.poll``).
        """
        if self.remote_password is None:  # pragma: no cover - connect() has checked it
            return
        key = self.remote_password.encode()
        while True:
            await asyncio.sleep(CONSENT_INTERVAL_S * random.uniform(0.8, 1.2))
            for pair in tuple(self._nominated.values()):
                request = self.build_request(pair, nominate=False)
                try:
                    await pair.protocol.request(
                        request, pair.remote_addr, integrity_key=key, retransmissions=0
                    )
                except TransactionError:
                    self.dropped["consent"] += 1
                else:
                    self._heard()

    def call(self, answered: Callable[[], None]) -> None:
        """Send one check, once; ``answered`` when its authenticated answer comes. Nothing before there is a path."""
        pair = self._nominated.get(COMPONENT)
        if pair is None or self.remote_password is None:
            return
        key = self.remote_password.encode()
        request = self.build_request(pair, nominate=False)
        request.add_message_integrity(key)

        def response(data: bytes, source: Address) -> None:
            message = _parse(data)
            if message is None or not message.check_message_integrity(key):
                self.dropped["unauthenticated_stun"] += 1
                return
            self._port.transactions.pop(request.transaction_id, None)
            self._heard()
            answered()

        if len(self._called) == MAX_CALLS:
            self._port.transactions.pop(self._called.popleft(), None)
        self._called.append(request.transaction_id)
        self._port.transactions[request.transaction_id] = response
        pair.protocol.send_stun(request, pair.remote_addr)

    def _knows(self, addr: Address) -> bool:
        return any((c.host, c.port) == addr for c in self._remote_candidates)

    # --- the port's side ---

    def stun_received(self, data: bytes, source: Address, via: UdpSocket) -> None:
        message = _parse(data)
        if message is None:
            self.dropped["malformed_stun"] += 1
            return
        for protocol in self._protocols:
            if isinstance(protocol, MuxProtocol) and protocol.via is via:
                self.request_received(message, source, protocol)

    def dtls_received(self, data: bytes) -> None:
        if self._dtls.qsize() < MAX_DTLS_BACKLOG:
            self._dtls.put_nowait(data)
        else:
            self.dropped["dtls"] += 1

    # --- our side ---

    def send_at_once(self, data: bytes) -> bool:
        """Send by the nominated pair; ``False`` when there is none yet or the socket would not take it."""
        if self.selected is None:
            return False
        via, destination, _ = self.selected
        return via.sendto(data, destination)

    async def add_candidate(self, candidate: Candidate) -> None:
        """Add a remote candidate, within the bound; what cannot be paired is ignored (RFC 8838 section 9)."""
        if len(self._remote_candidates) >= MAX_REMOTE_CANDIDATES:
            self.dropped["candidates"] += 1
            return
        await self.add_remote_candidate(candidate)

    async def close(self) -> None:
        self._port.unregister(self.local_username, self)
        self.selected = None
        for transaction in self._called:
            self._port.transactions.pop(transaction, None)
        self._dtls.put_nowait(None)
        await super().close()

    async def next_dtls(self) -> bytes:
        data = await self._dtls.get()
        if data is None:
            raise ConnectionError("ICE connection is closed")
        return data


def remote_candidate(parsed: IceCandidate) -> Candidate:
    """A candidate of an offer or fragment, in aioice's form."""
    return Candidate(
        foundation=parsed.foundation,
        component=COMPONENT,
        transport="udp",
        priority=parsed.priority,
        host=parsed.host,
        port=parsed.port,
        type=parsed.kind,
    )


def _host_candidate(via: UdpSocket, address: str, rank: int) -> Candidate:
    return Candidate(
        foundation=candidate_foundation("host", "udp", address)[:8],
        component=COMPONENT,
        transport="udp",
        priority=candidate_priority(COMPONENT, "host", 65535 - rank),  # RFC 8445 5.1.2.1 local preference
        host=address,
        port=via.port,
        type="host",
    )


def _parse(data: bytes) -> Message | None:
    """Parse a stranger's STUN with aioice, which lets ``struct.error`` out on short attributes."""
    try:
        return parse_message(data)
    except (ValueError, struct.error):
        return None


class Certificate(RTCCertificate):
    """Our DTLS certificate (ECDSA P-256). Accepts peers whose own is RSA (GStreamer before 1.24)."""

    CIPHERS: Final = b"HIGH:!aNULL"

    @property
    def sha256(self) -> tuple[str, str]:
        """``(algorithm, value)`` for ``a=fingerprint``."""
        return next((f.algorithm, f.value) for f in self.getFingerprints() if f.algorithm == "sha-256")

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(self.CIPHERS)
        return context


class _Link:
    """What ``RTCDtlsTransport`` uses of an ``RTCIceTransport`` once its role is set."""

    def __init__(self, ice: IceConnection) -> None:
        self._ice = ice

    async def _recv(self) -> bytes:
        return await self._ice.next_dtls()

    async def _send(self, data: bytes) -> None:
        if not self._ice.send_at_once(data):
            raise ConnectionError("no nominated pair, or the socket is full")


class SrtpSession:
    """One direction of a connection's SRTP and SRTCP, over a ``pylibsrtp.Session`` that it keeps alive.

    Raises ``pylibsrtp.Error`` for what libsrtp refuses (forged, replayed), ``ValueError`` for what is too long.
    """

    def __init__(self, session: pylibsrtp.Session) -> None:
        self._session = session
        self.seal: Final = self._writing(lib.srtp_protect)
        """Write an RTP packet into a slot, as SRTP."""
        self.seal_rtcp: Final = self._writing(lib.srtp_protect_rtcp)
        """The same of RTCP."""
        self.open: Final = self._reading(lib.srtp_unprotect)
        """The RTP packet in a slot's SRTP; the slot's content is spent."""
        self.open_rtcp: Final = self._reading(lib.srtp_unprotect_rtcp)
        """The same of RTCP."""

    # closures: run for each packet, they look nothing up

    def _writing(self, function: Callable[[Any, Any, Any], int]) -> Callable[[bytes, Slot], None]:
        srtp = self._session._srtp[0]

        def write(packet: bytes, slot: Slot) -> None:
            size = len(packet)
            if size > MAX_SRTP_BYTES:
                raise ValueError(f"a packet of {size} bytes is too long for SRTP")
            slot.packet[0:size] = packet
            length = slot.length
            length[0] = size
            if status := function(srtp, slot.start, length):
                raise pylibsrtp.Error(f"libsrtp refuses a packet (status {status})")

        return write

    def _reading(self, function: Callable[[Any, Any, Any], int]) -> Callable[[Slot], bytes]:
        srtp = self._session._srtp[0]

        def read(slot: Slot) -> bytes:
            length = slot.length
            if status := function(srtp, slot.start, length):
                raise pylibsrtp.Error(f"libsrtp refuses a packet (status {status})")
            packet: bytes = slot.packet[0 : length[0]]
            return packet

        return read


class SecureTransport:
    """ICE, then DTLS, then SRTP: bytes of RTP and RTCP in clear on our side, one peer on the other.

    ``on_rtp`` and ``on_rtcp`` are called synchronously in the socket's callback, with authenticated packets.
    """

    def __init__(
        self,
        port: UdpPort,
        certificate: Certificate,
        *,
        ufrag: str,
        password: str,
        controlling: bool,
        dtls_server: bool,
        on_rtp: Callable[[bytes], None],
        on_rtcp: Callable[[bytes], None],
        heard: Callable[[], None],
    ) -> None:
        self._ice = IceConnection(
            port, ufrag=ufrag, password=password, controlling=controlling, on_media=self._media, heard=heard
        )
        link: Any = _Link(self._ice)  # duck-typed: only _recv and _send are used
        self._dtls = RTCDtlsTransport(link, [certificate])
        self._dtls._set_role("server" if dtls_server else "client")
        self._on_rtp = on_rtp
        self._on_rtcp = on_rtcp
        self._rx: SrtpSession | None = None
        self._tx: SrtpSession | None = None
        self._early: deque[tuple[bytes, bool]] = deque(
            maxlen=64
        )  # media that overtakes the end of the handshake
        self._closing = False
        self._ssrcs: set[bytes] = set()  # that the peer has used
        self._lost = self._count_lost  # bound once: it goes along with each packet
        self.on_lost: Callable[[str], None] = lambda reason: None
        self.bytes_received = 0
        self.bytes_sent = 0

    @property
    def dropped(self) -> Counter[str]:
        return self._ice.dropped

    @property
    def rtt_s(self) -> float | None:
        """Last round trip of a connectivity check, seconds."""
        return self._ice.rtt_s

    async def gather(self) -> list[Candidate]:
        """Our candidates, best first."""
        await self._ice.gather_candidates()
        return self._ice.local_candidates

    async def add_candidate(self, candidate: Candidate) -> None:
        """Add a remote candidate, now or trickled; beyond the bound it is dropped and counted."""
        await self._ice.add_candidate(candidate)

    async def connect(
        self, *, ufrag: str, password: str, lite: bool, fingerprints: Sequence[tuple[str, str]]
    ) -> None:
        """ICE and DTLS to the end; ``ConnectionError`` says which failed. The caller sets the time limit."""
        self._ice.remote_username, self._ice.remote_password = ufrag, password
        self._ice.remote_is_lite = lite
        await self._ice.connect()
        await self._dtls.start(
            RTCDtlsParameters([RTCDtlsFingerprint(algorithm, value) for algorithm, value in fingerprints])
        )
        if self._dtls.state != "connected":
            raise ConnectionError("DTLS handshake failed")
        self._dtls.on("statechange", self._dtls_changed)
        self._rx, self._tx = SrtpSession(self._dtls._rx_srtp), SrtpSession(self._dtls._tx_srtp)
        for data, rtcp in self._early:
            self._media(Slot.holding(data), rtcp)
        self._early.clear()

    @property
    def ready(self) -> bool:
        return self._tx is not None and not self._closing

    def send_rtp(self, packet: bytes) -> bool:
        """Protect, and send with all else of this turn of the loop; ``False`` when it was dropped: not connected.

        What the socket does not take in the end is counted in ``dropped``.
        """
        return self._tx is not None and self._post(packet, self._tx.seal)

    def send_rtcp(self, packet: bytes) -> bool:
        """The same of RTCP."""
        return self._tx is not None and self._post(packet, self._tx.seal_rtcp)

    def _post(self, packet: bytes, seal: Callable[[bytes, Slot], None]) -> bool:
        selected = self._ice.selected
        if selected is None or self._closing:
            return False
        via, _, name = selected
        self.bytes_sent += via.outbox.post(packet, seal, name, self._lost)
        return True

    def call(self, answered: Callable[[], None]) -> None:
        """Call the peer, which has to answer at once: a connectivity check (RFC 8445 section 7.3)."""
        if not self._closing:
            self._ice.call(answered)

    def _count_lost(self, size: int) -> None:
        self.bytes_sent -= size
        self.dropped["send"] += 1

    def _media(self, slot: Slot, rtcp: bool) -> bool:
        """Whether it was authentic."""
        rx, size = self._rx, slot.length[0]
        if rx is None:
            self._early.append((slot.read(), rtcp))
            return False
        try:
            clear = rx.open_rtcp(slot) if rtcp else rx.open(slot)
        except pylibsrtp.Error:  # forged, replayed or too late
            self.dropped["srtp"] += 1
            return False
        self.bytes_received += size
        ssrc = clear[4:8] if rtcp else clear[8:12]
        if ssrc not in self._ssrcs:
            self._met(ssrc)
        try:
            (self._on_rtcp if rtcp else self._on_rtp)(clear)
        except MalformedPacket:
            self.dropped["malformed"] += 1
        return True

    def _met(self, ssrc: bytes) -> None:
        """A new SSRC of the peer: libsrtp keeps a stream of it, and looks through all of them for each packet."""
        self._ssrcs.add(ssrc)
        if len(self._ssrcs) == MAX_SSRCS and not self._closing:
            self.on_lost(f"the peer has used {MAX_SSRCS} SSRCs")

    def _dtls_changed(self) -> None:
        if self._dtls.state in {"closed", "failed"} and not self._closing:
            self.on_lost("the peer closed the connection")

    async def close(self) -> None:
        """Say goodbye (DTLS close_notify) and free the port's routes. Safe at any point, and twice."""
        if self._closing:
            return
        self._closing = True
        await self._dtls.stop()
        await self._ice.close()
