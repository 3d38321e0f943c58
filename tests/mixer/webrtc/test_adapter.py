"""Contract tests of every hook on aioice and aiortc: when an upgrade breaks one, it is named here."""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import AsyncIterator

import pylibsrtp
import pytest
import pytest_asyncio
from aioice import Candidate, Connection
from aioice.ice import StunProtocol
from aioice.stun import Class, Message, Method
from aiortc import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from aiortc.rate import RemoteBitrateEstimator
from aiortc.rtcdtlstransport import SRTP_PROFILES
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from mixer.rtp.packet import RtpPacket, write_header, write_rtp
from mixer.webrtc import adapter
from mixer.webrtc.adapter import (
    MAX_CALLS,
    MAX_REMOTE_CANDIDATES,
    MAX_SRTP_BYTES,
    MAX_SSRCS,
    Certificate,
    IceConnection,
    MuxProtocol,
    SecureTransport,
    SrtpSession,
)
from mixer.webrtc.batch import Slot
from mixer.webrtc.udp import UdpPort
from tests.mixer.webrtc.support import HOST, PORTS, until

PASSWORDS = ("a" * 24, "b" * 24)


@pytest_asyncio.fixture
async def ports() -> AsyncIterator[tuple[UdpPort, UdpPort]]:
    made = (UdpPort(host=HOST, ports=PORTS), UdpPort(host=HOST, ports=PORTS))
    for port in made:
        port.open()
    yield made
    for port in made:
        port.close()


class Side:
    """One end of a secure transport, keeping what it receives."""

    def __init__(
        self, port: UdpPort, certificate: Certificate, *, controlling: bool, dtls_server: bool
    ) -> None:
        self.rtp: list[bytes] = []
        self.rtcp: list[bytes] = []
        self.lost: list[str] = []
        self.heard = 0
        self.certificate = certificate
        self.ufrag, self.password = ("left", PASSWORDS[0]) if controlling else ("right", PASSWORDS[1])
        self.transport = SecureTransport(
            port, certificate, ufrag=self.ufrag, password=self.password, controlling=controlling,
            dtls_server=dtls_server, on_rtp=self.rtp.append, on_rtcp=self.rtcp.append, heard=self._heard,
        )  # fmt: skip
        self.transport.on_lost = self.lost.append

    def _heard(self) -> None:
        self.heard += 1

    async def gather(self) -> None:
        self.candidates = await self.transport.gather()

    async def connect(self, other: Side) -> None:
        for candidate in other.candidates:
            await self.transport.add_candidate(candidate)
        await self.transport.connect(
            ufrag=other.ufrag, password=other.password, lite=False, fingerprints=[other.certificate.sha256]
        )


async def pair(
    ports: tuple[UdpPort, UdpPort], *, left: Certificate | None = None, left_is_dtls_server: bool = False
) -> tuple[Side, Side]:
    one = Side(ports[0], left or make(), controlling=True, dtls_server=left_is_dtls_server)
    two = Side(ports[1], make(), controlling=False, dtls_server=not left_is_dtls_server)
    await one.gather()
    await two.gather()
    async with asyncio.timeout(60):
        await asyncio.gather(one.connect(two), two.connect(one))
    return one, two


def make() -> Certificate:
    return Certificate.generateCertificate()


def rsa_certificate() -> Certificate:
    """What GStreamer 1.22 shows."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "GStreamer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return Certificate(key=key, cert=certificate)  # type: ignore[arg-type]  # aiortc names only EC keys


def rtp(sequence: int) -> bytes:
    return write_rtp(RtpPacket(96, True, sequence, 0, 7, b"payload"))


RECEIVER_REPORT = bytes([0x80, 201, 0, 1]) + bytes(4)


async def test_ice_dtls_and_srtp_both_ways_on_shared_ports(ports: tuple[UdpPort, UdpPort]) -> None:
    one, two = await pair(ports)
    assert one.transport.ready
    assert two.transport.ready
    assert one.transport.send_rtp(rtp(1))
    assert two.transport.send_rtp(rtp(2))
    assert two.transport.send_rtcp(RECEIVER_REPORT)
    await until(
        lambda: (two.rtp, one.rtp, one.rtcp) == ([rtp(1)], [rtp(2)], [RECEIVER_REPORT]), "the packets"
    )
    assert one.transport.rtt_s is not None
    assert 0 <= one.transport.rtt_s < 0.45
    assert two.heard > 0

    await one.transport.close()
    await until(lambda: two.lost, "the other side to notice close_notify")
    assert not one.transport.send_rtp(rtp(3))
    await one.transport.close()
    await two.transport.close()
    assert two.lost == ["the peer closed the connection"]


@pytest.mark.parametrize("rsa_is_dtls_server", [False, True])
async def test_a_peer_with_an_rsa_certificate_is_accepted(
    ports: tuple[UdpPort, UdpPort], rsa_is_dtls_server: bool
) -> None:
    one, two = await pair(ports, left=rsa_certificate(), left_is_dtls_server=rsa_is_dtls_server)
    assert one.transport.send_rtp(rtp(1))
    await until(lambda: two.rtp == [rtp(1)], "media")
    await asyncio.gather(one.transport.close(), two.transport.close())


def test_stock_aiortc_would_still_refuse_rsa() -> None:
    """When this fails the work-round in ``Certificate`` may go."""
    ours, stock = make(), RTCCertificate.generateCertificate()
    names = [SSL.Connection(c._create_ssl_context(SRTP_PROFILES)).get_cipher_list() for c in (ours, stock)]
    assert any("ECDHE-RSA" in name for name in names[0])
    assert not any("ECDHE-RSA" in name for name in names[1])


async def test_a_wrong_fingerprint_fails_the_handshake(ports: tuple[UdpPort, UdpPort]) -> None:
    one = Side(ports[0], make(), controlling=True, dtls_server=False)
    two = Side(ports[1], make(), controlling=False, dtls_server=True)
    await one.gather()
    await two.gather()
    two.certificate = make()  # what is signalled is not what is shown
    other = asyncio.create_task(two.connect(one))
    with pytest.raises(ConnectionError, match="DTLS"):
        async with asyncio.timeout(60):
            await one.connect(two)
    other.cancel()
    await asyncio.gather(one.transport.close(), two.transport.close())


async def test_forged_and_replayed_media_is_dropped_and_counted(ports: tuple[UdpPort, UdpPort]) -> None:
    one, two = await pair(ports)
    one.transport.send_rtp(rtp(1))
    ((sent, to),) = ports[0].sockets[0].outbox.waiting()
    assert to == (HOST, ports[1].sockets[0].port)
    await until(lambda: two.rtp, "the original")
    two.transport._media(Slot.holding(sent), False)
    two.transport._media(Slot.holding(sent[:-1] + b"\0"), False)
    assert two.rtp == [rtp(1)]
    assert two.transport.dropped["srtp"] == 2
    await asyncio.gather(one.transport.close(), two.transport.close())


async def test_a_packet_may_be_sent_again_and_come_late(ports: tuple[UdpPort, UdpPort]) -> None:
    """Repeats without RTX (of sound, and of who has no RTX) rest on two of aiortc's settings of libsrtp."""
    one, two = await pair(ports)
    late = 300  # packets: 2 s of a camera
    for sequence in range(1, late + 1):
        assert one.transport.send_rtp(rtp(sequence))
        if sequence % 30 == 0:  # as many as a socket's turn
            await until(lambda upto=sequence: len(two.rtp) == upto, "what was sent")  # type: ignore[misc]
    assert one.transport.send_rtp(rtp(0)), "never sent before: for the receiver it was lost, and comes late"
    await until(lambda: two.rtp[-1] == rtp(0), "the late one")
    assert one.transport.send_rtp(rtp(1)), "allow_repeat_tx"
    await until(lambda: two.transport.dropped["srtp"] == 1, "the second one of it, refused as a replay")
    assert one.transport.dropped["send"] == 0
    await asyncio.gather(one.transport.close(), two.transport.close())


async def test_who_uses_ssrcs_without_end_is_hung_up(ports: tuple[UdpPort, UdpPort]) -> None:
    one, two = await pair(ports)
    for number in range(MAX_SSRCS):
        assert two.lost == []
        assert one.transport.send_rtp(write_header(96, True, 7, 0, number + 1) + b"x")
        if number % 30 == 29 or number == MAX_SSRCS - 1:
            await until(lambda upto=number + 1: len(two.rtp) == upto, "what was sent")  # type: ignore[misc]
    assert two.lost == [f"the peer has used {MAX_SSRCS} SSRCs"]
    await asyncio.gather(one.transport.close(), two.transport.close())


async def test_a_lite_agent_is_asked_first_and_nominated_then(ports: tuple[UdpPort, UdpPort]) -> None:
    """RFC 8445 section 8.1.1: it can't tell us which pairs work, so we find that out before we nominate one."""
    one = Side(ports[0], make(), controlling=True, dtls_server=True)
    two = Side(ports[1], make(), controlling=False, dtls_server=False)
    await one.gather()
    await two.gather()
    checks: list[bool] = []
    received = two.transport._ice.request_received

    def note(message: Message, source: tuple[str, int], protocol: MuxProtocol) -> None:
        checks.append("USE-CANDIDATE" in message.attributes)
        received(message, source, protocol)

    two.transport._ice.request_received = note  # type: ignore[method-assign, assignment]
    for side, other in ((one, two), (two, one)):
        for candidate in other.candidates:
            await side.transport.add_candidate(candidate)
    async with asyncio.timeout(60):
        await asyncio.gather(
            one.transport.connect(
                ufrag=two.ufrag, password=two.password, lite=True, fingerprints=[two.certificate.sha256]
            ),
            two.transport.connect(
                ufrag=one.ufrag, password=one.password, lite=False, fingerprints=[one.certificate.sha256]
            ),
        )
    assert checks[0] is False
    assert checks[-1] is True
    one.transport.send_rtp(rtp(7))
    await until(lambda: two.rtp == [rtp(7)], "media")
    await asyncio.gather(one.transport.close(), two.transport.close())


async def test_media_that_overtakes_the_handshake_is_kept(ports: tuple[UdpPort, UdpPort]) -> None:
    one, two = await pair(ports)
    receiver, two.transport._rx = two.transport._rx, None
    one.transport.send_rtp(rtp(1))
    await until(lambda: two.transport._early, "early media")
    two.transport._rx = receiver
    data, rtcp = two.transport._early.popleft()
    two.transport._media(Slot.holding(data), rtcp)
    assert two.rtp == [rtp(1)]
    await asyncio.gather(one.transport.close(), two.transport.close())


def connection(port: UdpPort, heard: list[int] | None = None) -> IceConnection:
    return IceConnection(
        port, ufrag="ours", password=PASSWORDS[0], controlling=False, on_media=lambda slot, rtcp: True,
        heard=lambda: heard.append(1) if heard is not None else None,
    )  # fmt: skip


def check(*, priority: bool = False) -> Message:
    request = Message(Method.BINDING, Class.REQUEST, attributes={"USERNAME": "ours:them"})
    if priority:
        request.attributes["PRIORITY"] = 1
    request.add_message_integrity(PASSWORDS[0].encode())
    return request


async def test_gathering_opens_no_socket_and_asks_no_server(ports: tuple[UdpPort, UdpPort]) -> None:
    ice = connection(ports[0])
    await ice.gather_candidates()
    assert [(c.host, c.port, c.type) for c in ice.local_candidates] == [
        (HOST, ports[0].sockets[0].port, "host")
    ]
    assert all(isinstance(protocol, MuxProtocol) for protocol in ice._protocols)
    assert ice.stun_server is None
    await ice.close()


async def test_the_mapped_address_of_a_nat_comes_first() -> None:
    port = UdpPort(host=HOST, ports=PORTS, public_ip="203.0.113.7")
    port.open()
    ice = connection(port)
    await ice.gather_candidates()
    first, second = ice.local_candidates
    assert (first.host, second.host) == ("203.0.113.7", HOST)
    assert first.priority > second.priority
    await ice.close()
    port.close()


async def test_a_check_without_priority_is_answered_as_ffmpeg_8_needs(ports: tuple[UdpPort, UdpPort]) -> None:
    heard: list[int] = []
    ice = connection(ports[0], heard)
    ice.remote_username, ice.remote_password = "them", PASSWORDS[1]
    await ice.gather_candidates()
    ice._early_checks_done = True
    ice.stun_received(bytes(check()), (HOST, 5000), ports[0].sockets[0])
    assert heard == [1]
    assert [(c.host, c.port, c.type) for c in ice._remote_candidates] == [(HOST, 5000, "prflx")]
    await ice.close()

    stock = Connection(ice_controlling=False, local_username="ours", local_password=PASSWORDS[0])
    protocol = StunProtocol(stock)
    protocol.local_candidate = first = ice_candidate()
    with pytest.raises(KeyError, match="PRIORITY"):  # when this fails the work-round may go
        stock.check_incoming(check(), (HOST, 5000), protocol)
    assert first.component == 1


def ice_candidate() -> Candidate:
    return Candidate("1", 1, "udp", 1, HOST, 1, "host")


async def test_unauthenticated_checks_teach_nothing(ports: tuple[UdpPort, UdpPort]) -> None:
    heard: list[int] = []
    ice = connection(ports[0], heard)
    await ice.gather_candidates()
    forged = Message(Method.BINDING, Class.REQUEST, attributes={"USERNAME": "ours:them", "PRIORITY": 1})
    forged.add_message_integrity(b"x" * 24)
    via = ports[0].sockets[0]
    # a PRIORITY of 3 bytes: aioice lets struct.error out
    short = b"\0\1\0\x08\x21\x12\xa4\x42" + bytes(12) + b"\0\x24\0\3abc\0"
    for data in (bytes(forged), short, b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)):
        ice.stun_received(data, (HOST, 5000), via)
    assert heard == []
    assert ice._remote_candidates == []
    assert ice.dropped["malformed_stun"] == 1
    await ice.close()


async def test_candidates_are_bounded(ports: tuple[UdpPort, UdpPort]) -> None:
    ice = connection(ports[0])
    ice.remote_username, ice.remote_password = "them", PASSWORDS[1]
    await ice.gather_candidates()
    for number in range(MAX_REMOTE_CANDIDATES + 5):
        candidate = ice_candidate()
        candidate.port = 1000 + number
        await ice.add_candidate(candidate)
    ice._early_checks_done = True
    ice.stun_received(bytes(check()), (HOST, 5000), ports[0].sockets[0])
    assert len(ice._remote_candidates) == MAX_REMOTE_CANDIDATES
    assert ice.dropped["candidates"] == 6
    await ice.close()


async def test_unanswered_consent_checks_do_not_close(
    ports: tuple[UdpPort, UdpPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "CONSENT_INTERVAL_S", 0.001)
    monkeypatch.setattr("aioice.stun.RETRY_RTO", 0.001)
    one, two = await pair(ports)
    heard = two.heard
    await until(lambda: two.heard > heard + 2, "consent checks answered")
    await one.transport.close()
    await until(lambda: two.transport.dropped["consent"] > 10, "consent checks unanswered")
    assert not two.transport._ice._closed
    await two.transport.close()


async def test_a_call_is_answered_at_once_and_a_forged_answer_is_not_believed(
    ports: tuple[UdpPort, UdpPort],
) -> None:
    one, two = await pair(ports)
    answers: list[str] = []
    one.transport.call(lambda: answers.append("of a connected agent"))
    await until(lambda: answers, "the answer of aioice")
    waiting = dict(ports[0].transactions)
    one.transport.call(lambda: answers.append("forged"))
    (transaction,) = set(ports[0].transactions) - set(waiting)
    forged = Message(Method.BINDING, Class.RESPONSE, transaction)
    forged.add_message_integrity(b"not the password")
    ports[0].stun_received(bytes(forged), (HOST, 9), ports[0].sockets[0])
    assert answers == ["of a connected agent"]
    assert one.transport.dropped["unauthenticated_stun"] == 1
    await until(lambda: len(answers) == 2, "the true answer, which comes after all")
    two.transport._ice.check_incoming = lambda *arguments: None  # type: ignore[method-assign]
    await two.transport.close()
    for _ in range(MAX_CALLS + 20):
        one.transport.call(lambda: None)
    assert len(ports[0].transactions) <= MAX_CALLS + 1  # a consent check may be among them
    await one.transport.close()
    assert len(ports[0].transactions) <= 1
    one.transport.call(lambda: None)
    assert len(ports[0].transactions) <= 1


async def test_dtls_uses_only_two_methods_of_its_transport(ports: tuple[UdpPort, UdpPort]) -> None:
    used: set[str] = set()

    class Spy:
        def __getattr__(self, name: str) -> object:
            used.add(name)
            raise ConnectionError(name)

    dtls = RTCDtlsTransport(Spy(), [make()])  # type: ignore[arg-type]
    dtls._set_role("client")
    await dtls.start(RTCDtlsParameters([RTCDtlsFingerprint("sha-256", "AB")]))
    assert dtls.state == "failed"
    assert used <= {"_send", "_recv"}


async def test_the_dtls_backlog_is_bounded(ports: tuple[UdpPort, UdpPort]) -> None:
    ice = connection(ports[0])
    for _ in range(adapter.MAX_DTLS_BACKLOG + 3):
        ice.dtls_received(b"\x16" + bytes(20))
    assert ice.dropped["dtls"] == 3
    await ice.close()
    assert await ice.next_dtls() == b"\x16" + bytes(20)


def estimates(queue_ms_a_s: float) -> list[tuple[int, list[int]]]:
    """What aiortc tells of 1 Mbit/s in 100 packets a second, whose way grows longer by so much each second."""
    estimator, told = RemoteBitrateEstimator(), []
    for number in range(600):
        sent_s = number * 0.01
        stamp = round(sent_s * (1 << 18)) & 0xFFFFFF  # abs-send-time: seconds, 6.18 bits
        came_ms = round(sent_s * (1000 + queue_ms_a_s)) + 1_000_000
        if (estimate := estimator.add(came_ms, stamp, 1250, 7)) is not None:
            told.append(estimate)
    return told


def test_the_estimator_tells_a_line_s_queue_from_none() -> None:
    free, filling = estimates(0), estimates(300)
    assert free, "as of our own client: (arrival in ms, send time, payload bytes, SSRC)"
    assert {tuple(ssrcs) for _, ssrcs in free} == {(7,)}
    assert free[-1][0] > 1_000_000
    assert 100_000 < filling[-1][0] < 0.9 * 1_000_000


def sealed(session: SrtpSession, packet: bytes) -> bytes:
    slot = Slot.holding(b"")
    session.seal(packet, slot)
    return slot.read()


@pytest.mark.parametrize(
    ("profile", "key_bytes"),
    [
        (pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
        (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
    ],
)
def test_srtp_by_libsrtp_s_own_functions_is_what_pylibsrtp_makes(profile: int, key_bytes: int) -> None:
    key = os.urandom(key_bytes)

    def session(kind: int) -> pylibsrtp.Session:
        return pylibsrtp.Session(pylibsrtp.Policy(key=key, ssrc_type=kind, srtp_profile=profile))

    outbound, inbound = pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND
    ours, theirs = SrtpSession(session(outbound)), session(outbound)
    reader, their_reader = SrtpSession(session(inbound)), session(inbound)
    for number, size in enumerate((0, 1, 160, 1200, MAX_SRTP_BYTES - 12)):
        packet = bytes((0x80, 111, 0, number)) + bytes(8) + os.urandom(size)
        protected = sealed(ours, packet)
        if size < 1300:  # pylibsrtp's own bound is lower
            assert protected == theirs.protect(packet)
            assert their_reader.unprotect(protected) == packet
        if len(protected) <= MAX_SRTP_BYTES:
            assert reader.open(Slot.holding(protected)) == packet
            with pytest.raises(pylibsrtp.Error):  # replayed
                reader.open(Slot.holding(protected))
    report = bytes((0x80, 201, 0, 1, 0, 0, 0, 7))
    slot = Slot.holding(b"")
    ours.seal_rtcp(report, slot)
    assert their_reader.unprotect_rtcp(slot.read()) == report
    assert reader.open_rtcp(slot) == report
    with pytest.raises(pylibsrtp.Error):
        reader.open(Slot.holding(os.urandom(200)))
    with pytest.raises(ValueError, match="too long"):
        sealed(ours, bytes(MAX_SRTP_BYTES + 1))
