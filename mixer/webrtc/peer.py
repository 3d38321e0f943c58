"""One WebRTC connection with one peer: WHIP, WHEP, or both on the same connection.

::

    datagram → UdpPort → SecureTransport (SRTP) → Router → FrameAssembler → sink.on_video
                                                        → sink.on_audio
    send_video → Pacer → OutgoingStream (header, history) → SecureTransport → socket
    poll (20 ms): NACK, keyframe requests, reports each second, signs of life

Everything runs on the loop thread, media synchronously inside the socket's callback. Time comes from one
clock that tests can replace; only the connection set-up uses the loop's own timers.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from mixer.errors import ConfigError, Conflict
from mixer.fanout import PacketizedVideo
from mixer.media import (
    AUDIO_CLOCK_HZ,
    VIDEO_CLOCK_HZ,
    AudioCodec,
    EncodedAudio,
    EncodedVideo,
    Kind,
    VideoCodec,
)
from mixer.rtp.pacing import SLOT_S, Pacer
from mixer.rtp.packet import RtpPacket, parse_rtp
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
from mixer.webrtc.answer import ABS_SEND_TIME, LocalSide, Plan, Track, negotiate, write_answer
from mixer.webrtc.incoming import IncomingTrack, Router
from mixer.webrtc.offer import Offer, parse_offer
from mixer.webrtc.outgoing import OutgoingStream, ntp_time
from mixer.webrtc.sdp import IceCandidate
from mixer.webrtc.sdpfrag import parse_fragment
from mixer.webrtc.udp import UdpPort

POLL_S: Final = 0.02  # a NACK waits at most one audio tick
REPORT_S: Final = 1.0  # RFC 3550 section 6.2 allows 5 s; senders steer by our loss and REMB, so more often
CONNECT_TIMEOUT_S: Final = 15.0  # aioice never gives up by itself without end-of-candidates
SILENCE_TIMEOUT_S: Final = 30.0  # RFC 7675 section 5.1: consent ends after 30 s; the issue allows 40 s
ALLOWED_BPS: Final = 2_500_000  # a REMB that lets browsers ramp up to 720p30; they stay at 300 kbit/s without
MIN_ALLOWED_BPS: Final = 30_000
CERTIFICATE_RENEWAL: Final = datetime.timedelta(
    days=10
)  # before the 30 days of an aiortc certificate are over


class PeerSink(Protocol):
    """What a peer tells its owner. Called on the loop thread; all must be quick."""

    def on_connected(self) -> None:
        """DTLS is up: ``send_video`` and ``send_audio`` have an effect from now on."""

    def on_audio(self, packet: RtpPacket, codec: AudioCodec, now: float) -> None:
        """One RTP packet of sound, in order of arrival."""

    def on_video(self, frame: EncodedVideo, screen: bool) -> None:
        """One whole picture, in decode order. ``screen``: of the second video m-line."""

    def on_keyframe_request(self) -> None:
        """The peer lost its picture (PLI, FIR), or our queue to it overflowed."""

    def on_estimate(self, bitrate_bps: int) -> None:
        """The peer's bandwidth estimate for what we send (REMB)."""

    def on_closed(self, reason: str) -> None:
        """Once, whoever closed it; not when ``accept`` raised."""


class PeerFactory:
    """What the peers of one worker share: the UDP port, the certificate, the timers.

    ``host``: address to bind, or a comma-separated list. ``ports``: where the port may be. ``clock``:
    seconds, monotonic. ``origin``: its time at room pts 0, for sender reports; without, it is guessed from
    the media.
    """

    def __init__(
        self,
        *,
        host: str,
        ports: range,
        public_ip: str | None = None,
        origin: float | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = UdpPort(host=host, ports=ports, public_ip=public_ip)
        self.clock = clock
        self.origin = origin
        self.connect_timeout_s = connect_timeout_s
        self.silence_timeout_s = silence_timeout_s
        self._certificate: Certificate | None = None
        self._peers: set[Peer] = set()
        self._poll_timer: asyncio.TimerHandle | None = None
        self._pace_timer: asyncio.TimerHandle | None = None
        self._pacing: set[Peer] = set()
        self._closed = False

    async def start(self) -> None:
        """Bind the port. Raises ``ConfigError`` naming the key."""
        if not len(self.port.ports):
            raise ConfigError("media.udp_ports: is empty")
        self.port.open()
        self._poll()

    async def close(self) -> None:
        """Close every peer, then the port."""
        self._closed = True
        for timer in (self._poll_timer, self._pace_timer):
            if timer is not None:
                timer.cancel()
        await asyncio.gather(*(peer.close("the room was closed") for peer in tuple(self._peers)))
        self.port.close()

    def peer(self, sink: PeerSink, *, send: bool, receive: bool) -> Peer:
        """A peer that may send the mix, receive a publisher, or both, as far as its offer wants."""
        return Peer(self, sink, send=send, receive=receive)

    def stats(self) -> dict[str, Any]:
        """Counters of the shared port: datagrams received, and dropped by reason."""
        return {"received": self.port.received, "dropped": dict(self.port.dropped), "peers": len(self._peers)}

    @property
    def certificate(self) -> Certificate:
        """The current DTLS certificate; a worker that runs for weeks gets a new one for new peers."""
        now = datetime.datetime.now(datetime.UTC)
        if self._certificate is None or self._certificate.expires - now < CERTIFICATE_RENEWAL:
            self._certificate = Certificate.generateCertificate()
        return self._certificate

    # --- for Peer ---

    def added(self, peer: Peer) -> None:
        self._peers.add(peer)

    def removed(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._pacing.discard(peer)

    def pace(self, peer: Peer) -> None:
        """Call ``peer.drain`` each slot until its queue is empty."""
        self._pacing.add(peer)
        if self._pace_timer is None and not self._closed:
            self._pace_timer = asyncio.get_running_loop().call_later(SLOT_S, self._pace)

    def _pace(self) -> None:
        self._pace_timer = None
        now = self.clock()
        for peer in tuple(self._pacing):
            if not peer.drain(now):
                self._pacing.discard(peer)
        if self._pacing and not self._closed:
            self._pace_timer = asyncio.get_running_loop().call_later(SLOT_S, self._pace)

    def _poll(self) -> None:
        if not self._closed:
            self._poll_timer = asyncio.get_running_loop().call_later(POLL_S, self._poll)
            now = self.clock()
            for peer in tuple(self._peers):
                peer.poll(now)


class Peer:
    """See the module. Made by ``PeerFactory.peer``; also a ``mixer.fanout.Viewer``.

    ``sends_*``, ``receives_*``: what ``accept`` negotiated, ``None`` for not at all.
    """

    def __init__(self, factory: PeerFactory, sink: PeerSink, *, send: bool, receive: bool) -> None:
        self._factory = factory
        self._sink = sink
        self._may_send = send
        self._may_receive = receive
        self.sends_video: VideoCodec | None = None
        self.sends_audio: AudioCodec | None = None
        self.receives_video: VideoCodec | None = None
        self.receives_audio: AudioCodec | None = None
        self._offer: Offer | None = None
        self._transport: SecureTransport | None = None
        self._router = Router(Plan((), True))
        self._video: OutgoingStream | None = None
        self._audio: OutgoingStream | None = None
        self._pacer: Pacer[tuple[bytes, int, bool]] = Pacer()
        self._needs_keyframe = True
        self._local_ssrc = random.getrandbits(32)  # signs our feedback
        self._cname = secrets.token_hex(8)
        self._allowed_bps = ALLOWED_BPS
        self._fir_sequence = 0
        self._origin: float | None = factory.origin
        self._connected_at: float | None = None
        self._heard_at = 0.0
        self._media_at = 0.0
        self._report_at = 0.0
        self._reported: tuple[int | None, ...] = ()
        self._set_up: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._accepted = False
        self._remote: ReportBlock | None = None
        self._rtt_s: float | None = None
        self._plis_received = 0
        self._nacks_received = 0
        self._unsent = 0

    # --- signalling ---

    async def accept(self, offer: str) -> str:
        """Answer an offer and start connecting.

        Raises ``BadOffer``, ``UnsupportedOffer``; the peer is unusable then and holds nothing.
        """
        if self._offer is not None or self._closed:
            raise Conflict("this connection has answered its offer already")
        parsed = parse_offer(offer)
        plan = negotiate(parsed, send=self._may_send, receive=self._may_receive)
        certificate = self._factory.certificate
        ufrag, password = secrets.token_hex(4), secrets.token_hex(16)
        transport = SecureTransport(
            self._factory.port,
            certificate,
            ufrag=ufrag,
            password=password,
            controlling=parsed.transport.lite,  # RFC 8445 section 6.1.1: beside a lite agent, the full one
            dtls_server=plan.dtls_server,
            on_rtp=self._on_rtp,
            on_rtcp=self._on_rtcp,
            heard=self._heard,
        )
        transport.on_lost = self._close_soon
        gathered = await transport.gather()
        for candidate in parsed.transport.candidates:
            await transport.add_candidate(remote_candidate(candidate))
        self._offer, self._transport = parsed, transport
        local = LocalSide(
            session_id=random.getrandbits(62),
            ufrag=ufrag,
            password=password,
            fingerprint=certificate.sha256,
            candidates=[IceCandidate(c.foundation, c.priority, c.host, c.port, "host") for c in gathered],
            cname=self._cname,
            ssrcs={"audio": random.getrandbits(32), "video": random.getrandbits(32)},
            rtx_ssrc=random.getrandbits(32),
        )
        self._take_plan(plan, local)
        self._accepted = True
        self._factory.added(self)
        self._set_up = asyncio.create_task(self._connect(transport, parsed), name="webrtc set-up")
        return write_answer(parsed, plan, local)

    def add_candidates(self, fragment: str) -> None:
        """Trickled candidates, RFC 8840. Raises ``BadOffer``, ``InvalidBody`` (ICE restart), ``Conflict``."""
        parsed = parse_fragment(fragment)
        if self._offer is None or self._transport is None or self._closed:
            raise Conflict("the connection is closed")
        parsed.check_generation(self._offer.transport.ufrag, self._offer.transport.password)
        for candidate in parsed.candidates:
            self._spawn(self._transport.add_candidate(remote_candidate(candidate)))

    async def close(self, reason: str = "closed") -> None:
        """Hang up. Safe at any point, any number of times; ``on_closed`` is called once."""
        if self._closed:
            return
        self._closed = True
        self._factory.removed(self)
        if self._set_up is not None and self._set_up is not asyncio.current_task():
            self._set_up.cancel()
        self._pacer.clear()
        try:
            if self._accepted:
                self._sink.on_closed(reason)  # first: nothing more is to be sent here
        finally:
            if self._transport is not None:
                await self._transport.close()

    def _take_plan(self, plan: Plan, local: LocalSide) -> None:
        self._router = Router(plan)
        for track in plan.tracks:
            if track.receives is not None and not track.screen:
                match track.receives.name:
                    case "H264" | "VP8" | "VP9" as video:
                        self.receives_video = video
                    case audio:
                        self.receives_audio = audio
            if track.sends is not None:
                stream = _outgoing(track, local.ssrcs, local.rtx_ssrc)
                match track.sends.name:
                    case "H264" | "VP8" | "VP9" as video:
                        self.sends_video, self._video = video, stream
                    case audio:
                        self.sends_audio, self._audio = audio, stream

    async def _connect(self, transport: SecureTransport, offer: Offer) -> None:
        remote = offer.transport
        try:
            async with asyncio.timeout(self._factory.connect_timeout_s):
                await transport.connect(
                    ufrag=remote.ufrag,
                    password=remote.password,
                    lite=remote.lite,
                    fingerprints=remote.fingerprints,
                )
        except TimeoutError:
            self._close_soon("the peer could not be reached: ICE or DTLS did not complete in time")
            return
        except ConnectionError as error:
            self._close_soon(str(error) or "connection lost during set-up")
            return
        now = self._factory.clock()
        self._connected_at = self._heard_at = self._media_at = now
        self._report_at = now + random.uniform(0.1, REPORT_S)  # not all of a room's peers at once
        self._sink.on_connected()

    def _close_soon(self, reason: str) -> None:
        if not self._closed:
            self._spawn(self.close(reason))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- media in ---

    def _heard(self) -> None:
        self._heard_at = self._factory.clock()

    def _on_rtp(self, data: bytes) -> None:
        """Authenticated, but still a stranger's bytes: ``MalformedPacket`` is counted by the transport."""
        now = self._factory.clock()
        self._heard_at = self._media_at = now
        packet = parse_rtp(data)
        if self._closed or (routed := self._router.route(packet, now)) is None:
            return
        incoming, original = routed
        if original is packet:  # repairs count for no reception statistics (RFC 4588 section 6.2)
            incoming.stats.receive(packet, now)
        if incoming.track.kind == "video":
            for frame in incoming.frames(original, now):
                self._sink.on_video(frame, incoming.track.screen)
        elif original.payload and self.receives_audio is not None:
            self._sink.on_audio(original, self.receives_audio, now)

    def _on_rtcp(self, data: bytes) -> None:
        now = self._factory.clock()
        self._heard_at = now
        for packet in parse_rtcp(data):
            self._handle_rtcp(packet, now)

    def _handle_rtcp(self, packet: RtcpPacket, now: float) -> None:
        """BYE is not here: Chrome sends it when a track is replaced. Leaving is DTLS's, or silence."""
        match packet:
            case SenderReport():
                for incoming in self._router.tracks:
                    if incoming.ssrc == packet.ssrc:
                        incoming.stats.sender_report(packet, now)
                self._take_blocks(packet.reports)
            case ReceiverReport():
                self._take_blocks(packet.reports)
            case Nack() if self._video is not None and packet.media_ssrc == self._video.ssrc:
                self._nacks_received += 1
                self._repeat(packet.lost, now)
            case PictureLossIndication() if self._video is not None and packet.media_ssrc == self._video.ssrc:
                self._plis_received += 1
                self._sink.on_keyframe_request()
            case FullIntraRequest() if self._video is not None:
                if any(ssrc == self._video.ssrc for ssrc, _ in packet.entries):
                    self._plis_received += 1
                    self._sink.on_keyframe_request()
            case ReceiverEstimatedMaxBitrate():
                self._sink.on_estimate(packet.bitrate_bps)
            case _:
                pass

    def _take_blocks(self, blocks: tuple[ReportBlock, ...]) -> None:
        for block in blocks:
            if (self._video is not None and block.ssrc == self._video.ssrc) or (
                self._remote is None and self._audio is not None and block.ssrc == self._audio.ssrc
            ):
                self._remote = block
            if block.last_sr:  # RFC 3550 section 6.4.1: A - LSR - DLSR
                middle = ntp_time(time.time()) >> 16 & 0xFFFFFFFF
                elapsed = (middle - block.last_sr - block.delay_since_last_sr) & 0xFFFFFFFF
                if elapsed < 10 << 16:
                    self._rtt_s = elapsed / 65536

    # --- media out ---

    def send_video(self, unit: PacketizedVideo) -> None:
        """Queue one picture: small ones leave at once, keyframes within 30 ms.

        A keyframe supersedes what still waits. When the queue overflows, what follows is dropped until the
        next keyframe, which is asked for.
        """
        if not self._ready or self._video is None or unit.codec != self.sends_video or not unit.payloads:
            self._unsent += 1
            return
        if unit.keyframe:
            self._pacer.clear()
        elif self._needs_keyframe:
            self._unsent += 1
            return
        now = self._factory.clock()
        self._learn_origin(unit.pts / VIDEO_CLOCK_HZ, now)
        last = len(unit.payloads) - 1
        packets = [(payload, unit.pts, index == last) for index, payload in enumerate(unit.payloads)]
        if not self._pacer.push(packets, now):
            self._pacer.clear()
            self._needs_keyframe = True
            self._sink.on_keyframe_request()
            return
        self._needs_keyframe = False
        if self.drain(now):
            self._factory.pace(self)

    def send_audio(self, frame: EncodedAudio) -> None:
        """Send one sound frame at once; dropped and counted when the socket is full."""
        stream = self._audio
        if not self._ready or stream is None or frame.codec != self.sends_audio:
            self._unsent += 1
            return
        now = self._factory.clock()
        self._learn_origin(frame.pts / AUDIO_CLOCK_HZ, now)
        pts = frame.pts * stream.clock_hz // AUDIO_CLOCK_HZ
        self._send(stream.packet(frame.data, pts, marker=stream.packets == 0, now=now))

    def drain(self, now: float) -> bool:
        """Send what the pacer lets go; whether more waits. Called by the factory's pacing timer."""
        if self._video is not None and not self._closed:
            for payload, pts, marker in self._pacer.due(now):
                self._send(self._video.packet(payload, pts, marker=marker, now=now))
        return len(self._pacer) > 0

    @property
    def _ready(self) -> bool:
        return self._connected_at is not None and not self._closed

    def _send(self, packet: bytes) -> None:
        if self._transport is None or not self._transport.send_rtp(packet):
            self._unsent += 1

    def _learn_origin(self, room_s: float, now: float) -> None:
        """Sound and picture share one origin, so that a receiver can align them; the earliest is nearest."""
        if self._factory.origin is not None:
            self._origin = self._factory.origin
        elif self._origin is None or now - room_s < self._origin:
            self._origin = now - room_s

    def _repeat(self, lost: tuple[int, ...], now: float) -> None:
        if self._video is None:
            return
        for sequence in lost:
            packet = self._video.repeat(sequence, now)
            if packet is not None:
                self._send(packet)

    # --- feedback to a publisher ---

    def request_keyframe(self, screen: bool = False) -> None:
        """Ask the publisher for a keyframe (PLI, or FIR if it knows only that); at most one in 0.3 s."""
        for incoming in self._router.tracks:
            if incoming.track.kind == "video" and incoming.track.screen == screen:
                incoming.want_keyframe()
                self._send_feedback(self._keyframe_requests(incoming, self._factory.clock()))

    def limit_video(self, bitrate_bps: int) -> None:
        """What the publisher may send at most, by REMB; repeated each second."""
        self._allowed_bps = max(MIN_ALLOWED_BPS, bitrate_bps)
        self._send_feedback(self._remb())

    def poll(self, now: float) -> None:
        """Feedback, reports, timeouts. Each ``POLL_S``, by the factory (or a test)."""
        if not self._ready:
            return
        feedback: list[RtcpPacket] = []
        for incoming in self._router.tracks:
            feedback += self._track_feedback(incoming, now)
        ssrcs = tuple(incoming.ssrc for incoming in self._router.tracks)
        if now >= self._report_at or ssrcs != self._reported:  # a new source hears at once what it may send
            self._report_at, self._reported = now + REPORT_S, ssrcs
            self._send_rtcp([*self._reports(now), *feedback])
        else:
            self._send_feedback(feedback)
        self._check_alive(now)

    def _track_feedback(self, incoming: IncomingTrack, now: float) -> list[RtcpPacket]:
        if incoming.assembler is None or incoming.ssrc is None:
            return []
        rtt_s = self._transport.rtt_s if self._transport is not None else None
        if rtt_s is not None:
            incoming.assembler.set_rtt(rtt_s)
        wanted = incoming.assembler.poll(now)
        packets: list[RtcpPacket] = []
        if wanted.nack:
            incoming.nacks += len(wanted.nack)
            packets.append(Nack(self._local_ssrc, incoming.ssrc, tuple(wanted.nack)))
        if wanted.keyframe:
            incoming.want_keyframe()
        return packets + self._keyframe_requests(incoming, now)

    def _keyframe_requests(self, incoming: IncomingTrack, now: float) -> list[RtcpPacket]:
        if incoming.ssrc is None or not incoming.keyframe_due(now):
            return []
        offered = incoming.track.feedback
        if "ccm fir" in offered and "nack pli" not in offered:
            self._fir_sequence = (self._fir_sequence + 1) & 0xFF
            return [FullIntraRequest(self._local_ssrc, ((incoming.ssrc, self._fir_sequence),))]
        return [PictureLossIndication(self._local_ssrc, incoming.ssrc)]

    def _remb(self) -> list[RtcpPacket]:
        ssrcs = tuple(
            incoming.ssrc
            for incoming in self._router.tracks
            if incoming.ssrc is not None and "goog-remb" in incoming.track.feedback
        )
        return [ReceiverEstimatedMaxBitrate(self._allowed_bps, ssrcs, self._local_ssrc)] if ssrcs else []

    def _reports(self, now: float) -> list[RtcpPacket]:
        """SR for what we send, RR for what we receive, CNAME, REMB: one compound (RFC 3550 section 6.1)."""
        blocks = tuple(i.stats.report_block(now) for i in self._router.tracks if i.ssrc is not None)
        room_s = now - self._origin if self._origin is not None else 0.0
        sent = [
            stream.report(room_s=room_s, unix_s=time.time())
            for stream in (self._video, self._audio)
            if stream is not None and stream.packets
        ]
        received = [ReceiverReport(self._local_ssrc, blocks)] if blocks or not sent else []
        ssrcs = [report.ssrc for report in sent] + [report.ssrc for report in received]
        described = [SourceDescription.of(ssrc, self._cname) for ssrc in ssrcs]
        return [*sent, *received, *described, *self._remb()]

    def _send_feedback(self, packets: list[RtcpPacket]) -> None:
        if packets:  # RFC 4585 section 3.1: a compound packet starts with a report and a CNAME
            cname = SourceDescription.of(self._local_ssrc, self._cname)
            self._send_rtcp([ReceiverReport(self._local_ssrc), cname, *packets])

    def _send_rtcp(self, packets: list[RtcpPacket]) -> None:
        if self._transport is not None and self._ready:
            self._transport.send_rtcp(write_rtcp(packets))

    def _check_alive(self, now: float) -> None:
        limit_s = self._factory.silence_timeout_s
        publishes_only = self.sends_video is None and self.sends_audio is None
        if now - self._heard_at > limit_s:
            self._close_soon(f"nothing was heard of the peer for {limit_s:.0f} s")
        elif publishes_only and now - self._media_at > limit_s:
            self._close_soon(f"the publisher sent no media for {limit_s:.0f} s")

    # --- numbers ---

    def stats(self) -> dict[str, Any]:
        """Counters since the start: of what is received, and under ``sent`` of what is sent."""
        tracks = self._router.tracks
        transport = self._transport
        rtt_s = self._rtt_s if self._rtt_s is not None else (transport.rtt_s if transport else None)
        sent = [stream for stream in (self._video, self._audio) if stream is not None]
        assemblers = [i.assembler for i in tracks if i.assembler is not None]
        dropped = self._router.dropped + (transport.dropped if transport else type(self._router.dropped)())
        return {
            "packets": sum(i.stats.received for i in tracks),
            "lost": sum(max(0, i.stats.lost) for i in tracks if i.ssrc is not None),
            "jitter_ms": round(max((i.stats.jitter_ms for i in tracks), default=0.0), 2),
            "rtt_ms": round(rtt_s * 1000, 1) if rtt_s is not None else None,
            "bytes": transport.bytes_received if transport else 0,
            "frames": sum(a.frames for a in assemblers),
            "frames_dropped": sum(a.dropped for a in assemblers),
            "nacks": sum(i.nacks for i in tracks),
            "plis": sum(i.plis for i in tracks),
            "dropped": dict(dropped),
            "sent": {
                "packets": sum(stream.packets for stream in sent),
                "bytes": transport.bytes_sent if transport else 0,
                "lost": self._remote.packets_lost if self._remote else 0,
                "repeated": sum(stream.repeated for stream in sent),
                "refused": sum(stream.refused for stream in sent),
                "nacks": self._nacks_received,
                "plis": self._plis_received,
                "queued": len(self._pacer),
                "dropped": self._unsent + self._pacer.dropped,
            },
        }


def _outgoing(track: Track, ssrcs: Mapping[Kind, int], rtx_ssrc: int) -> OutgoingStream:
    assert track.sends is not None  # noqa: S101 - the caller has looked
    is_video = track.kind == "video"
    rtx_type = track.rtx_sent
    return OutgoingStream(
        ssrc=ssrcs[track.kind],
        payload_type=track.sends.codec.payload_type,
        clock_hz=track.sends.codec.clock_hz,
        # on sound it would be a twelfth of the `audio` rendition's bits, and browsers' REMB is about video
        stamp_id=track.extensions.get(ABS_SEND_TIME) if is_video else None,
        rtx=(rtx_type, rtx_ssrc) if rtx_type is not None else None,
        **({} if is_video else {"history": 0}),
    )
