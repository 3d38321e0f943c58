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
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urljoin

import aiohttp
from aioice import Candidate

from mixer.errors import BadOffer
from mixer.media import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, EncodedVideo, Kind, VideoCodec
from mixer.rtp.arrivals import ArrivalLog
from mixer.rtp.assemble import FrameAssembler
from mixer.rtp.gaps import SoundGaps
from mixer.rtp.history import unwrap_rtx
from mixer.rtp.packet import RtpPacket, parse_rtp
from mixer.rtp.reception import ReceptionStats
from mixer.rtp.red import RedUnpacker
from mixer.rtp.rtcp import (
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    parse_rtcp,
    write_rtcp,
)
from mixer.webrtc.adapter import Certificate, SecureTransport, remote_candidate
from mixer.webrtc.answer import TRANSPORT_CC
from mixer.webrtc.offer import Offer, Section, parse_offer
from mixer.webrtc.outgoing import OutgoingStream
from mixer.webrtc.udp import UdpPort

CONNECT_TIMEOUT_S: Final = 15.0
POLL_S: Final = (
    0.05  # NACKs re-arm no faster than a round trip; 50 ms keeps thirty sessions under 2 % of a core
)
REPORT_S: Final = 1.0  # RFC 4585 section 3.4 allows as little; the server's loss figures follow ours
ARRIVALS_S: Final = 0.1  # libwebrtc's usual pace of transport-wide feedback
ANY_PORT: Final = range(1)  # port 0: the kernel chooses
AGAIN_S: Final = 0.1  # until a round trip is known: libwebrtc repeats nothing twice within one
_CLOCK_HZ: Final[dict[Kind, int]] = {"audio": AUDIO_CLOCK_HZ, "video": VIDEO_CLOCK_HZ}
_OPUS_PT: Final = 111
_RED_PT: Final = 63
_TRANSPORT_ID: Final = 5  # of the transport-wide sequence number, in what we receive
_VIDEO_PTS: Final[dict[VideoCodec, int]] = {"VP8": 96, "H264": 102, "VP9": 98}
_RTX_PTS: Final[dict[int, int]] = {97: 96, 103: 102, 99: 98}  # RTX payload type → the one it repairs
_VIDEO_FMTP: Final[dict[VideoCodec, str]] = {
    "H264": "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"  # RFC 6184 section 8.1
}

Direction = Literal["sendonly", "recvonly", "sendrecv"]
_REPAIRS: Final = ("nack", "nack pli", "ccm fir")
_FEEDBACK: Final[dict[Direction, tuple[str, ...]]] = {
    "recvonly": _REPAIRS,  # we estimate nothing of what comes
    "sendonly": (*_REPAIRS, "goog-remb"),
    "sendrecv": (*_REPAIRS, "goog-remb"),
}
_Report = TypeVar("_Report", SenderReport, ReceiverReport)


class Refused(ConnectionError):
    """The server answered the offer with an error: ``status``, and the problem's own words as message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Loss:
    """One direction's packets, as its receiver counts them."""

    packets: int
    lost: int

    @property
    def share(self) -> float:
        """0.0 … 1.0; repeats that outnumber losses make no negative loss."""
        expected = self.packets + self.lost
        return max(0, self.lost) / expected if expected > 0 else 0.0


class _Outgoing:
    """One stream that we send, the moment of its newest sample, and what its receiver last said of it."""

    def __init__(self, kind: Kind, payload_type: int) -> None:
        self.stream = OutgoingStream(
            ssrc=secrets.randbits(32), payload_type=payload_type, clock_hz=_CLOCK_HZ[kind]
        )
        self.newest: tuple[float, int] | None = None  # loop time, pts
        self.receiver: ReportBlock | None = None

    def report(self, now: float) -> SenderReport | None:
        if self.newest is None:
            return None
        at, pts = self.newest
        return self.stream.report(room_s=pts / self.stream.clock_hz + now - at, unix_s=time.time())

    @property
    def loss(self) -> Loss:
        lost = self.receiver.packets_lost if self.receiver is not None else 0
        return Loss(self.stream.packets - lost, lost)


class _Incoming:
    """One stream that we receive. ``assembler`` is there only when someone wants its pictures, ``red`` and ``gaps``
    only of sound.
    """

    def __init__(self, kind: Kind, codec: VideoCodec | None, *, assemble: bool) -> None:
        self.kind = kind
        self.codec = codec
        self.stats = ReceptionStats(_CLOCK_HZ[kind])
        self.assembler = FrameAssembler(codec) if assemble and codec is not None else None
        sounds = kind == "audio"
        self.red = RedUnpacker(red_type=_RED_PT, inner_type=_OPUS_PT) if sounds else None
        self.gaps = SoundGaps(AUDIO_CLOCK_HZ, foresees=False) if sounds else None
        self.ssrc: int | None = None

    def sounds(self, packet: RtpPacket, now: float) -> list[RtpPacket]:
        """Packets of bare Opus: this one, after the lost ones that it repeats. Raises ``MalformedPacket``."""
        found = self.red.unpack(packet) if self.red is not None else [packet]
        if self.gaps is not None:
            for earlier in found[:-1]:
                self.gaps.found(earlier, now)
        return found

    def is_repair(self, packet: RtpPacket, now: float) -> bool:
        """Whether a packet of sound came because it was asked for."""
        return self.gaps is not None and self.gaps.take(packet, now)


class WebRtcClient:
    """One WHIP or WHEP session. Callbacks are plain attributes, called on the loop thread; set them before
    ``start``.

    ``video``: codecs to offer, best first; empty for none. ``assemble``: hand out whole pictures by
    ``on_video`` (else received video is only counted). ``transport_cc``: report when each packet came, as
    browsers do; without it the server has only our loss to go by. ``bind``: local address of the media socket.
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
        transport_cc: bool = True,
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
        self._direction = direction
        self._video = tuple(video)
        self._audio = audio
        self._assemble = assemble
        self._arrivals = ArrivalLog() if transport_cc and direction != "sendonly" else None
        self._arrivals_at = 0.0
        self._ufrag, self._password = secrets.token_hex(4), secrets.token_hex(16)
        self._cname = secrets.token_hex(8)
        self._report_ssrc = secrets.randbits(32)  # sender SSRC of feedback when we send nothing
        self._port = UdpPort(host=bind, ports=ANY_PORT)
        self._transport: SecureTransport | None = None
        self._outgoing: dict[Kind, _Outgoing] = {}
        self._incoming: dict[int, _Incoming] = {}  # by payload type
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
        mids = [kind for kind, wanted in (("audio", self._audio), ("video", bool(self._video))) if wanted]
        fingerprint = _certificate().getFingerprints()[0]
        transport = [
            "c=IN IP4 0.0.0.0",
            "a=rtcp-mux",
            f"a=ice-ufrag:{self._ufrag}",
            f"a=ice-pwd:{self._password}",
            f"a=fingerprint:{fingerprint.algorithm} {fingerprint.value}",
            "a=setup:actpass",
            f"a={self._direction}",
        ]
        rows = ["v=0", f"o=- {random.getrandbits(62)} 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
        rows.append(f"a=group:BUNDLE {' '.join(mids)}")
        feedback = _FEEDBACK[self._direction]
        if self._arrivals is not None:
            transport.append(f"a=extmap:{_TRANSPORT_ID} {TRANSPORT_CC}")
            feedback = (*feedback, "transport-cc")
        gathered = [*(f"a=candidate:{candidate.to_sdp()}" for candidate in candidates), "a=end-of-candidates"]
        if self._audio:
            numbers = (
                f"{_OPUS_PT} {_RED_PT}"  # in this order: what is sent is bare, what is received may be either
            )
            rows += [f"m=audio 9 UDP/TLS/RTP/SAVPF {numbers}", *transport, *gathered, "a=mid:audio"]
            gathered = []  # the rest of the BUNDLE group shares them (RFC 9143 section 7.4)
            rows += [f"a=rtpmap:{_OPUS_PT} opus/48000/2", f"a=fmtp:{_OPUS_PT} minptime=10;useinbandfec=1"]
            rows += [f"a=rtpmap:{_RED_PT} red/48000/2", f"a=fmtp:{_RED_PT} {_OPUS_PT}/{_OPUS_PT}"]
            rows.append(f"a=rtcp-fb:{_OPUS_PT} nack")  # as our page has its browser say
            rows += [f"a=rtcp-fb:{_OPUS_PT} transport-cc"] if self._arrivals is not None else []
            rows += self._source("audio", _OPUS_PT)
        if self._video:
            media = [_VIDEO_PTS[codec] for codec in self._video]
            # with the reports, as browsers do: a line that is measured is tried with padding, which is RTX
            repairs = {
                rtx: apt for rtx, apt in _RTX_PTS.items() if apt in media and self._arrivals is not None
            }
            numbers = " ".join(map(str, [*media, *repairs]))
            rows += [f"m=video 9 UDP/TLS/RTP/SAVPF {numbers}", *transport, *gathered, "a=mid:video"]
            for codec in self._video:
                number = _VIDEO_PTS[codec]
                rows.append(f"a=rtpmap:{number} {codec}/90000")
                rows += [f"a=rtcp-fb:{number} {value}" for value in feedback]
                if fmtp := _VIDEO_FMTP.get(codec):
                    rows.append(f"a=fmtp:{number} {fmtp}")
            for rtx, apt in repairs.items():
                rows += [f"a=rtpmap:{rtx} rtx/90000", f"a=fmtp:{rtx} apt={apt}"]
            rows += self._source("video", _VIDEO_PTS[self._video[0]])
        return "\r\n".join(rows) + "\r\n"

    def _source(self, kind: Kind, payload_type: int) -> list[str]:
        if self._direction == "recvonly":
            return []
        outgoing = self._outgoing[kind] = _Outgoing(kind, payload_type)
        return [f"a=ssrc:{outgoing.stream.ssrc} cname:{self._cname}", f"a=msid:probe {kind}"]

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
            sound = _Incoming(kind, None, assemble=False)
            self._incoming |= {codec.payload_type: sound for codec in section.codecs}
            return
        for codec in section.codecs:
            if codec.payload_type in _RTX_PTS:
                continue
            name = next((name for name, number in _VIDEO_PTS.items() if number == codec.payload_type), None)
            self._incoming[codec.payload_type] = _Incoming(kind, name, assemble=self._assemble)

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
    def _streams(self) -> Iterable[_Incoming]:
        """Each stream once, however many payload types it has."""
        return dict.fromkeys(self._incoming.values())

    def _of_kind(self, kind: Kind) -> _Incoming | None:
        """The stream of that kind that packets come from; before any came, the first expected one."""
        streams = [incoming for incoming in self._streams if incoming.kind == kind]
        return next(
            (stream for stream in streams if stream.ssrc is not None), streams[0] if streams else None
        )

    def _rtp(self, data: bytes) -> None:
        packet = parse_rtp(data)
        now = asyncio.get_running_loop().time()
        self.bytes_received += len(data)
        if self._arrivals is not None and len(number := packet.extensions.get(_TRANSPORT_ID, b"")) == 2:
            self._arrivals.record(int.from_bytes(number, "big"), now)
        repaired = _RTX_PTS.get(packet.payload_type)
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

    def _urge(self, incoming: _Incoming, now: float) -> None:
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
