"""The other side of WHIP and WHEP: an offerer that sends ready-made RTP payloads and takes what comes back.

It is what ``mosaique probe`` and the bench call with, and therefore light: no codec, no jitter buffer, one
socket and one slow timer a session. Media is sent as payloads that were cut once for all callers.

    client = WebRtcClient(http, "http://…/whip/demo", token=token, direction="sendonly")
    client.on_keyframe_request = …
    await client.start()            # offer, answer, ICE, DTLS; Refused, TimeoutError, ConnectionError
    client.send_video(payloads, timestamp=…)
    await client.close()            # DELETE, DTLS close_notify
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urljoin

import aiohttp
from aioice import Candidate
from aiortc.rate import RemoteBitrateEstimator

from mixer.errors import BadOffer
from mixer.media import EncodedVideo, Kind, VideoCodec
from mixer.rtp.arrivals import ArrivalLog
from mixer.rtp.gaps import SoundGaps
from mixer.rtp.history import unwrap_rtx
from mixer.rtp.packet import RtpPacket, parse_rtp
from mixer.rtp.rtcp import (
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    parse_rtcp,
    write_rtcp,
)
from mixer.webrtc.adapter import Certificate, SecureTransport, remote_candidate
from mixer.webrtc.client_offer import (
    OPUS_PT,
    RTX_PTS,
    STAMP_ID,
    TRANSPORT_ID,
    VIDEO_PTS,
    Direction,
    Tells,
    Wanted,
)
from mixer.webrtc.client_streams import Incoming, Loss, Outgoing
from mixer.webrtc.offer import Offer, Section, parse_offer
from mixer.webrtc.udp import UdpPort

CONNECT_TIMEOUT_S: Final = 15.0
POLL_S: Final = (
    0.05  # NACKs re-arm no faster than a round trip; 50 ms keeps thirty sessions under 2 % of a core
)
REPORT_S: Final = 1.0  # RFC 4585 section 3.4 allows as little; the server's loss figures follow ours
ARRIVALS_S: Final = 0.1  # libwebrtc's usual pace of transport-wide feedback
ANY_PORT: Final = range(1)  # port 0: the kernel chooses
AGAIN_S: Final = 0.1  # until a round trip is known: libwebrtc repeats nothing twice within one
_Report = TypeVar("_Report", SenderReport, ReceiverReport)


class Refused(ConnectionError):
    """The server answered the offer with an error: ``status``, and the problem's own words as message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class WebRtcClient:
    """One WHIP or WHEP session. Callbacks are plain attributes, called on the loop thread; set them before
    ``start``.

    ``video``: codecs to offer, best first; empty for none. ``assemble``: hand out whole pictures by ``on_video`` (else
    received video is only counted). ``tells``: what the server hears of its line: when each packet came, as from
    browsers, an estimate of ours (REMB), or no more than what was lost. ``bind``: local address of the media socket.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        *,
        token: str | None,
        direction: Direction,
        video: Sequence[VideoCodec] = ("VP8",),
        audio: bool = True,
        assemble: bool = False,
        tells: Tells = "transport-cc",
        bind: str = "127.0.0.1",
    ) -> None:
        self.on_video: Callable[[EncodedVideo, float], None] = lambda frame, now: None
        self.on_audio: Callable[[RtpPacket, float], None] = lambda packet, now: None
        self.on_keyframe_request: Callable[[], None] = lambda: None
        self.on_estimate: Callable[[int], None] = lambda bitrate_bps: None  # REMB: what we may send in all
        self.on_lost: Callable[[str], None] = lambda reason: None
        self._http = http
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._wanted = Wanted(direction, tuple(video), audio, tells)
        self._assemble = assemble
        self._arrivals = ArrivalLog() if self._wanted.told_by("transport-cc") else None
        self._estimator = RemoteBitrateEstimator() if self._wanted.told_by("remb") else None
        self._arrivals_at = 0.0
        self._ufrag, self._password = secrets.token_hex(4), secrets.token_hex(16)
        self._cname = secrets.token_hex(8)
        self._report_ssrc = secrets.randbits(32)  # sender SSRC of feedback when we send nothing
        self._port = UdpPort(host=bind, ports=ANY_PORT)
        self._transport: SecureTransport | None = None
        self._outgoing: dict[Kind, Outgoing] = {}
        self._incoming: dict[int, Incoming] = {}  # by payload type
        self._session_url: str | None = None
        self._poller: asyncio.Task[None] | None = None
        self.first_packet_at: float | None = None
        self.bytes_received = 0

    # -- signalling

    async def start(self) -> None:
        """Offer, read the answer, connect. Raises ``Refused``, ``ConnectionError``, ``TimeoutError``,
        ``BadOffer`` (an answer that cannot be read), ``aiohttp.ClientError``; nothing stays open then.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connect()
        except BaseException:
            await self.close()
            raise
        self._poller = asyncio.create_task(self._poll(), name="webrtc-client-poll")

    async def _connect(self) -> None:
        self._port.open()
        transport = SecureTransport(
            self._port,
            _certificate(),
            ufrag=self._ufrag,
            password=self._password,
            controlling=True,
            dtls_server=False,
            on_rtp=self._rtp,
            on_rtcp=self._rtcp,
            heard=lambda: None,
        )
        self._transport = transport
        transport.on_lost = self._lost
        offer = self._offer(await transport.gather())
        answer = parse_offer(await self._post(offer))
        self._agree(answer)
        for remote in answer.transport.candidates:
            await transport.add_candidate(remote_candidate(remote))
        await transport.connect(
            ufrag=answer.transport.ufrag,
            password=answer.transport.password,
            lite=answer.transport.lite,
            fingerprints=answer.transport.fingerprints,
        )

    def _lost(self, reason: str) -> None:
        self.on_lost(reason)

    async def _post(self, offer: str) -> str:
        headers = {**self._headers, "Content-Type": "application/sdp"}
        async with self._http.post(self._url, data=offer.encode(), headers=headers) as response:
            body = await response.text()
            if response.status != 201:
                raise Refused(response.status, _problem(body))
            location = response.headers.get("Location")
            self._session_url = urljoin(str(response.url), location) if location else None
            return body

    def _offer(self, candidates: Iterable[Candidate]) -> str:
        wanted, fingerprint = self._wanted, _certificate().getFingerprints()[0]
        if wanted.direction != "recvonly":
            numbers: dict[Kind, int] = {"audio": OPUS_PT} if wanted.audio else {}
            numbers |= {"video": VIDEO_PTS[wanted.video[0]]} if wanted.video else {}
            self._outgoing = {kind: Outgoing(kind, number) for kind, number in numbers.items()}
        return wanted.offer(
            ice=(self._ufrag, self._password),
            fingerprint=(fingerprint.algorithm, fingerprint.value),
            candidates=[candidate.to_sdp() for candidate in candidates],
            sources={kind: outgoing.stream.ssrc for kind, outgoing in self._outgoing.items()},
            cname=self._cname,
        )

    def _agree(self, answer: Offer) -> None:
        """Take over what the answer left of the offer (RFC 3264 section 6: send its first format)."""
        for section in answer.sections:
            kind: Kind = "audio" if section.kind == "audio" else "video"
            if section.rejected or not section.codecs:
                self._outgoing.pop(kind, None)
                continue
            if section.direction in {"sendrecv", "sendonly"}:
                self._expect(kind, section)
            if section.direction in {"sendonly", "inactive"}:
                self._outgoing.pop(kind, None)
        if not self._outgoing and not self._incoming:
            raise BadOffer("the answer leaves no media in either direction")

    def _expect(self, kind: Kind, section: Section) -> None:
        if kind == "audio":
            sound = Incoming(kind, None, assemble=False)
            self._incoming |= {codec.payload_type: sound for codec in section.codecs}
            return
        for codec in section.codecs:
            if codec.payload_type in RTX_PTS:
                continue
            name = next((name for name, number in VIDEO_PTS.items() if number == codec.payload_type), None)
            self._incoming[codec.payload_type] = Incoming(kind, name, assemble=self._assemble)

    async def close(self) -> None:
        """DELETE the session and close the transport. Safe at any point, any number of times."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
            self._poller = None
        session_url, self._session_url = self._session_url, None
        if session_url is not None:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(5.0), self._http.delete(session_url, headers=self._headers):
                    pass
        if self._transport is not None:
            await self._transport.close()
        self._port.close()

    # -- media

    @property
    def sends(self) -> frozenset[Kind]:
        """What the answer lets us send."""
        return frozenset(self._outgoing)

    def send_video(self, payloads: Sequence[bytes], *, timestamp: int) -> None:
        """Send one picture's payloads; ``timestamp``: 90 kHz. Does nothing if video was refused."""
        self._send("video", payloads, timestamp, marker=True)

    def send_audio(self, payload: bytes, *, timestamp: int, marker: bool = False) -> None:
        """Send one Opus packet; ``timestamp``: 48 kHz. Does nothing if audio was refused."""
        self._send("audio", (payload,), timestamp, marker=marker)

    def _send(self, kind: Kind, payloads: Sequence[bytes], timestamp: int, *, marker: bool) -> None:
        outgoing = self._outgoing.get(kind)
        if outgoing is None or self._transport is None:
            return
        now = asyncio.get_running_loop().time()
        outgoing.newest = (now, timestamp)
        last = len(payloads) - 1
        for place, payload in enumerate(payloads):
            packet = outgoing.stream.packet(payload, timestamp, marker=marker and place == last, now=now)
            self._transport.send_rtp(packet)

    def stop_assembling(self) -> None:
        """From now on only count video packets: for a viewer that has seen enough."""
        for incoming in self._streams:
            incoming.assembler = None

    def request_keyframe(self) -> None:
        """Send a PLI for the received video."""
        incoming = self._of_kind("video")
        if incoming is not None and incoming.ssrc is not None:
            self._feedback(PictureLossIndication(self._report_ssrc, incoming.ssrc))

    def sender_time(self, kind: Kind, timestamp: int) -> float | None:
        """Seconds of the sender's clock for a received RTP timestamp: compares sound with picture."""
        incoming = self._of_kind(kind)
        return incoming.stats.sender_time(timestamp & 0xFFFFFFFF) if incoming is not None else None

    def received_loss(self, kind: Kind) -> Loss:
        """What we received of ``kind``, and what was lost on the way to us."""
        incoming = self._of_kind(kind)
        return Loss(incoming.stats.received, incoming.stats.lost) if incoming is not None else Loss(0, 0)

    def sent_loss(self, kind: Kind) -> Loss:
        """What we sent of ``kind``, and what the server says was lost."""
        outgoing = self._outgoing.get(kind)
        return outgoing.loss if outgoing is not None else Loss(0, 0)

    @property
    def _streams(self) -> Iterable[Incoming]:
        """Each stream once, however many payload types it has."""
        return dict.fromkeys(self._incoming.values())

    def _of_kind(self, kind: Kind) -> Incoming | None:
        """The stream of that kind that packets come from; before any came, the first expected one."""
        streams = [incoming for incoming in self._streams if incoming.kind == kind]
        return next(
            (stream for stream in streams if stream.ssrc is not None), streams[0] if streams else None
        )

    def _rtp(self, data: bytes) -> None:
        packet = parse_rtp(data)
        now = asyncio.get_running_loop().time()
        self.bytes_received += len(data)
        self._look_at_line(packet, now)
        repaired = RTX_PTS.get(packet.payload_type)
        incoming = self._incoming.get(repaired or packet.payload_type)
        if incoming is None:
            return
        if repaired is None:
            if self.first_packet_at is None:
                self.first_packet_at = now
            incoming.ssrc = packet.ssrc
            if not incoming.is_repair(packet, now):
                incoming.stats.receive(packet, now)
        elif incoming.ssrc is None or incoming.assembler is None:
            return
        elif (original := unwrap_rtx(packet, payload_type=repaired, ssrc=incoming.ssrc)) is not None:
            packet = original
        else:
            return
        if incoming.kind == "audio":
            for sound in incoming.sounds(packet, now):
                self.on_audio(sound, now)
            self._urge(incoming, now)
        elif incoming.assembler is not None:
            for frame in incoming.assembler.push(packet, now):
                self.on_video(frame, now)
            self._urge(incoming, now)

    def _look_at_line(self, packet: RtpPacket, now: float) -> None:
        """Keep what we tell of it. The estimator is aiortc's, which is libwebrtc's of before transport-cc."""
        number, stamp = packet.extensions.get(TRANSPORT_ID, b""), packet.extensions.get(STAMP_ID, b"")
        if self._arrivals is not None and len(number) == 2:
            self._arrivals.record(int.from_bytes(number, "big"), now)
        if self._estimator is not None and len(stamp) == 3:
            sent = int.from_bytes(stamp, "big")
            told = self._estimator.add(round(now * 1000), sent, len(packet.payload), packet.ssrc)
            if told is not None:
                self._feedback(ReceiverEstimatedMaxBitrate(told[0], tuple(told[1]), self._report_ssrc))

    def _rtcp(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        for packet in parse_rtcp(data):
            match packet:
                case SenderReport():
                    for incoming in self._streams:
                        if incoming.ssrc == packet.ssrc:
                            incoming.stats.sender_report(packet, now)
                    self._reports(packet)
                case ReceiverReport():
                    self._reports(packet)
                case Nack(media_ssrc=ssrc, lost=lost):
                    self._repeat(ssrc, lost, now)
                case PictureLossIndication() | FullIntraRequest():
                    self.on_keyframe_request()
                case ReceiverEstimatedMaxBitrate(bitrate_bps=bitrate_bps):
                    self.on_estimate(bitrate_bps)
                case _:
                    pass

    def _reports(self, packet: _Report) -> None:
        for block in packet.reports:
            for outgoing in self._outgoing.values():
                if outgoing.stream.ssrc == block.ssrc:
                    outgoing.receiver = block

    def _repeat(self, ssrc: int, lost: Sequence[int], now: float) -> None:
        outgoing = next((out for out in self._outgoing.values() if out.stream.ssrc == ssrc), None)
        if outgoing is None or self._transport is None:
            return
        outgoing.stream.again_s = self._transport.rtt_s or AGAIN_S
        for sequence in lost:
            if (packet := outgoing.stream.repeat(sequence, now)) is not None:
                self._transport.send_rtp(packet)

    def _urge(self, incoming: Incoming, now: float) -> None:
        """Ask for what is missing and due: at a packet, and at the timer when none comes."""
        repairer = incoming.assembler or incoming.gaps
        if repairer is None or incoming.ssrc is None or self._transport is None:
            return
        if self._transport.rtt_s is not None:
            repairer.set_rtt(self._transport.rtt_s)
        if isinstance(repairer, SoundGaps):
            if lost := repairer.due(now):
                self._feedback(Nack(self._report_ssrc, incoming.ssrc, tuple(lost)))
            return
        feedback = repairer.poll(now)
        if feedback.nack:
            self._feedback(Nack(self._report_ssrc, incoming.ssrc, tuple(feedback.nack)))
        if feedback.keyframe:
            self._feedback(PictureLossIndication(self._report_ssrc, incoming.ssrc))

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        report_at = loop.time() + REPORT_S * random.random()  # thirty sessions must not report in one instant
        while True:
            await asyncio.sleep(POLL_S)
            now = loop.time()
            for incoming in self._streams:
                self._urge(incoming, now)
            self._report_arrivals(now)
            if now >= report_at:
                report_at = now + REPORT_S
                self._report(now)

    def _report_arrivals(self, now: float) -> None:
        ssrc = next((incoming.ssrc for incoming in self._streams if incoming.ssrc is not None), None)
        if self._arrivals is None or ssrc is None or now < self._arrivals_at or not self._arrivals.waiting:
            return
        self._arrivals_at = now + ARRIVALS_S
        for report in self._arrivals.report(sender_ssrc=self._report_ssrc, media_ssrc=ssrc, now=now):
            self._feedback(report)

    def _report(self, now: float) -> None:
        heard = [incoming for incoming in self._streams if incoming.ssrc is not None]
        blocks = tuple(incoming.stats.report_block(now) for incoming in heard)
        packets: list[RtcpPacket] = [
            report for outgoing in self._outgoing.values() if (report := outgoing.report(now)) is not None
        ]
        if blocks or not packets:
            packets.append(ReceiverReport(self._report_ssrc, blocks))
        first = packets[0]
        ssrc = first.ssrc if isinstance(first, SenderReport | ReceiverReport) else self._report_ssrc
        self._feedback(*packets, SourceDescription.of(ssrc, self._cname))

    def _feedback(self, *packets: RtcpPacket) -> None:
        if self._transport is not None:
            self._transport.send_rtcp(write_rtcp(packets))


@functools.cache
def _certificate() -> Certificate:
    """One DTLS certificate a process: making a key takes longer than a handshake."""
    return Certificate.generateCertificate()


def _problem(body: str) -> str:
    """The words of a problem+json body, or the beginning of whatever it is."""
    try:
        problem: Any = json.loads(body)
        return str(problem.get("detail") or problem.get("title") or "refused")
    except (ValueError, AttributeError):
        return body[:200] or "refused"
