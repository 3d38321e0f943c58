"""One WebRTC connection with one peer: WHIP, WHEP, or both on the same connection.

::

    datagram → UdpPort → SecureTransport (SRTP) → Router → FrameAssembler → sink.on_video
                                                        → sink.on_audio
    send_video, send_audio → MixOut (pacing, header, history) → SecureTransport → socket
    poll (20 ms) → Feedback: NACK, keyframe requests, reports each second; signs of life

Everything runs on the loop thread, media synchronously inside the socket's callback. Time comes from one
clock that tests can replace; only the connection set-up uses the loop's own timers.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from mixer.errors import Conflict
from mixer.fanout import PacketizedVideo
from mixer.media import AudioCodec, EncodedAudio, EncodedVideo, Kind, VideoCodec
from mixer.rtp.line import LineState
from mixer.rtp.packet import RtpPacket, parse_rtp
from mixer.rtp.rtcp import (
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    RtcpPacket,
    SenderReport,
    parse_rtcp,
    write_rtcp,
)
from mixer.rtp.twcc import TransportFeedback
from mixer.video.demand import Demand
from mixer.webrtc.adapter import Certificate, SecureTransport, remote_candidate
from mixer.webrtc.answer import AUDIO_LEVEL, LocalSide, Plan, negotiate, write_answer
from mixer.webrtc.feedback import REPORT_S, Feedback
from mixer.webrtc.incoming import Router
from mixer.webrtc.mix import MixOut
from mixer.webrtc.offer import Offer, parse_offer
from mixer.webrtc.sdp import IceCandidate
from mixer.webrtc.sdpfrag import parse_fragment
from mixer.webrtc.udp import UdpPort

POLL_S: Final = 0.02  # a NACK waits at most one audio tick
URGENT_S: Final = (
    0.005  # between two requests at a gap: a sender with a gap a packet would cost an answer a packet
)
LINE_S: Final = 0.1  # as often as peers report on it


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

    def on_line(self, line: LineState, now: float) -> None:
        """How the line towards the peer is, each ``LINE_S``; only of a peer that we send to."""

    def on_closed(self, reason: str) -> None:
        """Once, whoever closed it; not when ``accept`` raised."""


class Home(Protocol):
    """What the peers of one worker share, as far as a peer knows it: `mixer.webrtc.peers.PeerFactory`.

    ``clock``: seconds, monotonic. ``origin``: its time at room pts 0; ``None``: guessed from the media.
    """

    port: UdpPort
    origin: float | None
    clock: Callable[[], float]
    connect_timeout_s: float
    silence_timeout_s: float

    @property
    def certificate(self) -> Certificate:
        """The DTLS certificate for new connections."""

    def added(self, peer: Peer) -> None:
        """It has answered an offer: poll it from now on."""

    def removed(self, peer: Peer) -> None:
        """It has hung up."""

    def pace(self, peer: Peer) -> None:
        """Call ``peer.drain`` each slot until its queue is empty."""


_numbers = itertools.count()  # of peers; spreads their polls over the rounds


class Peer:
    """See the module. Made by ``PeerFactory.peer`` (`mixer.webrtc.peers`); also a ``mixer.fanout.Viewer``."""

    def __init__(
        self, factory: Home, sink: PeerSink, *, send: bool, receive: bool, measure: bool = True
    ) -> None:
        self._factory = factory
        self._sink = sink
        self._may_send = send
        self._may_receive = receive
        self._measure = measure
        self.number = next(_numbers)
        self._cname = secrets.token_hex(8)
        self._offer: Offer | None = None
        self._transport: SecureTransport | None = None
        self._take(Router(Plan((), True)))
        self._mix = MixOut(lambda packet: False, origin=factory.origin, measure=measure)
        self._connected = False
        self._closed = False
        self._heard_at = 0.0
        self._media_at = 0.0
        self._line_at = 0.0
        self._urged_at = float("-inf")  # when a gap was answered at once
        self._urges = False  # one has opened since, and waits
        self.is_patient = True  # whether ``poll`` each ``PATIENT_ROUNDS`` is enough
        self._set_up: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.receives_video: VideoCodec | None = None
        self.receives_audio: AudioCodec | None = None
        self.audio_level_id: int | None = None

    @property
    def sends_video(self) -> VideoCodec | None:
        """What ``accept`` negotiated to send; ``None``: nothing. ``receives_*`` likewise."""
        return self._mix.video_codec

    @property
    def sends_audio(self) -> AudioCodec | None:
        return self._mix.audio_codec

    @property
    def repeats_audio(self) -> bool:
        """Whether what is sent may carry earlier sound again (RED)."""
        return self._mix.red is not None

    @property
    def resends_audio(self) -> bool:
        """Whether it may ask for lost sound again (NACK)."""
        return self._mix.resends_audio

    # --- signalling ---

    async def accept(self, offer: str) -> str:
        """Answer an offer and start connecting.

        Raises ``BadOffer``, ``UnsupportedOffer``; the peer then holds nothing and ``on_closed`` is not called.
        ``Conflict`` when it has answered before.
        """
        if self._offer is not None or self._closed:
            raise Conflict("this connection has answered its offer already")
        parsed = parse_offer(offer)
        plan = negotiate(parsed, send=self._may_send, receive=self._may_receive, measure=self._measure)
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
        transport.on_lost = self.close_soon
        self._mix.send = transport.send_rtp
        self._offer, self._transport = parsed, transport
        gathered = await transport.gather()
        for candidate in parsed.transport.candidates:
            await transport.add_candidate(remote_candidate(candidate))
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
        if self._closed:
            raise Conflict("the connection was closed while its offer was being answered")
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
        self._mix.clear()
        try:
            if self._set_up is not None:
                self._sink.on_closed(reason)  # first: nothing more is to be sent here
        finally:
            if self._transport is not None:
                await self._transport.close()

    def _take(self, router: Router) -> None:
        self._router = router
        self._feedback = Feedback(router, ssrc=random.getrandbits(32), cname=self._cname)

    def _take_plan(self, plan: Plan, local: LocalSide) -> None:
        self._take(Router(plan))
        for track in plan.tracks:
            self._mix.add(track, local.ssrcs, local.rtx_ssrc)
            if track.receives is not None and not track.screen:
                match track.receives.name:
                    case "H264" | "VP8" | "VP9" as video:
                        self.receives_video = video
                    case audio:
                        self.receives_audio = audio
                        self.audio_level_id = track.extensions.get(AUDIO_LEVEL)

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
            self.close_soon("the peer could not be reached: ICE or DTLS did not complete in time")
            return
        except ConnectionError as error:
            self.close_soon(str(error) or "connection lost during set-up")
            return
        now = self._factory.clock()
        self._heard_at = self._media_at = now
        self._feedback.schedule(now + random.uniform(0.1, REPORT_S))  # not all of a room's peers at once
        self._connected = True
        self._sink.on_connected()

    def close_soon(self, reason: str) -> None:
        """`close`, from where nothing can be awaited."""
        if not self._closed:
            self._spawn(self.close(reason))

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- in ---

    def _heard(self) -> None:
        self._heard_at = self._factory.clock()

    def _on_rtp(self, data: bytes) -> None:
        """Authenticated, but still a stranger's bytes: ``MalformedPacket`` is counted by the transport."""
        now = self._factory.clock()
        self._heard_at = self._media_at = now
        packet = parse_rtp(data)
        if self._feedback.notes_arrivals:
            self._feedback.arrived(packet, now)
        if self._closed or (routed := self._router.route(packet, now)) is None:
            return
        incoming, original = routed
        if not original.repaired:  # repairs are no part of reception statistics (RFC 4588 section 6.2)
            incoming.stats.receive(packet, now)
        if incoming.track.kind == "video":
            layers, gaps = self._feedback.layers(incoming), incoming.video_gaps
            for frame in layers.pass_on(incoming, incoming.frames(original, now), now):
                self._sink.on_video(frame, incoming.track.screen)
            if incoming.video_gaps != gaps or self._urges:
                self._urges = now < self._urged_at + URGENT_S
                if not self._urges:
                    self._urged_at = now
                    self._send_urgent(self._feedback.urgent(now, self._rtt_in_s))
        elif original.payload and self.receives_audio is not None:
            for sound in incoming.sounds(original, now):
                self._sink.on_audio(sound, self.receives_audio, now)

    def _on_rtcp(self, data: bytes) -> None:
        now = self._factory.clock()
        self._heard_at = now
        for packet in parse_rtcp(data):
            if not self._closed:
                self._handle_rtcp(packet, now)

    def _handle_rtcp(self, packet: RtcpPacket, now: float) -> None:
        """BYE is not here: Chrome sends it when a track is replaced. Leaving is DTLS's, or silence."""
        match packet:
            case SenderReport():
                for incoming in self._router.tracks:
                    if incoming.ssrc == packet.ssrc:
                        incoming.stats.sender_report(packet, now)
                self._mix.reported(packet.reports, now=now, unix_s=time.time())
            case ReceiverReport():
                self._mix.reported(packet.reports, now=now, unix_s=time.time())
            case TransportFeedback():
                held = self.holds_pictures
                self._mix.downlink.feedback(packet, self._rtt_s, now)
                if held and not self.holds_pictures:
                    self._line_at = now
            case Nack():
                self._mix.repeat(packet.media_ssrc, packet.lost, now)
                if self._mix.repeats_again:
                    self._factory.pace(self)
            case PictureLossIndication() if self._mix.is_video(packet.media_ssrc):
                self._keyframe_wanted()
            case FullIntraRequest() if any(self._mix.is_video(ssrc) for ssrc, _ in packet.entries):
                self._keyframe_wanted()
            case ReceiverEstimatedMaxBitrate():
                self._mix.downlink.remb(packet.bitrate_bps, now)
            case _:
                pass

    def _keyframe_wanted(self) -> None:
        self._mix.counters.plis += 1
        self._sink.on_keyframe_request()

    # --- out ---

    def send_video(self, unit: PacketizedVideo) -> None:
        """Send one picture: small ones leave at once, keyframes within 30 ms; see ``MixOut.picture``."""
        if not self._ready:
            self._mix.counters.unsent += 1
            return
        if not self._mix.picture(unit, self._factory.clock()):
            self._sink.on_keyframe_request()
        self._pace()

    def send_audio(self, frame: EncodedAudio) -> None:
        """Send one sound frame at once; dropped and counted when the socket is full."""
        if self._connected and not self._closed:
            self._mix.sound(frame, self._factory.clock())
        else:
            self._mix.counters.unsent += 1

    def stop_pictures(self) -> None:
        """Sound alone from now on, until `send_video` gets a keyframe again."""
        self._mix.stop_pictures()

    def hold_pictures(self) -> None:
        """No more pictures until those on their way have arrived; the line's queue is full of them."""
        self._mix.hold_pictures(self._factory.clock())

    @property
    def holds_pictures(self) -> bool:
        """Whether `hold_pictures` is still in force; `on_line` follows at once when it ends."""
        return self._mix.downlink.draining(self._factory.clock())

    def seek_line(self, bps: int | None) -> None:
        """What we would like to send, headers included; the line is tried for it. ``None``: enough as it is."""
        self._mix.downlink.seek(bps)

    def drain(self, now: float) -> bool:
        """Send what is due; whether more waits. Called by the factory's pacing timer."""
        if not self._ready:
            return False
        self._mix.drain(now)
        self._call(now)
        return self._restless(now)

    def request_keyframe(self, screen: bool = False) -> None:
        """Ask the publisher for a keyframe (PLI, or FIR if it knows only that); at most one in 0.3 s."""
        self._send_urgent(self._feedback.keyframe(screen=screen, now=self._factory.clock()))

    def ask_video(self, demand: Demand, screen: bool = False) -> None:
        """What the publisher is to send, by REMB, TMMBR and the choice of layer; repeated each second."""
        self._feedback.ask(demand, screen=screen, now=self._factory.clock())
        self._send_urgent(self._feedback.limits())

    def sender_time(self, kind: Kind, timestamp: int, *, screen: bool = False) -> float | None:
        """When the publisher took the sample of that RTP timestamp, seconds of its NTP clock; None: no report."""
        for incoming in self._router.tracks:
            if incoming.track.kind != kind or incoming.track.screen != screen:
                continue
            # simulcast layers have clocks of their own: what is shown is of the one that is decoded
            if kind == "audio" or self._feedback.layers(incoming).active in {None, incoming}:
                return incoming.stats.sender_time(timestamp & 0xFFFFFFFF)
        return None

    @property
    def _rtt_s(self) -> float | None:
        rtt_s = self._mix.counters.rtt_s
        return rtt_s if rtt_s is not None or self._transport is None else self._transport.rtt_s

    @property
    def _rtt_in_s(self) -> float | None:
        """Of ICE's checks: it is there before we have sent anything that is reported on."""
        return self._transport.rtt_s if self._transport is not None else None

    @property
    def _ready(self) -> bool:
        return self._connected and not self._closed

    def _send_urgent(self, packets: Sequence[RtcpPacket]) -> None:
        if packets:
            self._send_rtcp(self._feedback.compound(packets))

    def _send_rtcp(self, packets: Sequence[RtcpPacket]) -> None:
        if self._transport is not None and self._ready:
            self._transport.send_rtcp(write_rtcp(packets))

    # --- time ---

    def poll(self, now: float) -> None:
        """Feedback, reports, timeouts. Each ``POLL_S`` or, of the patient, so many of them, by the factory."""
        if not self._ready or self._transport is None:
            return
        self.is_patient = not (
            self.receives_video is not None or self._mix.listening or self._router.asks_for_sound(now)
        )
        urgent, self._urges = self._feedback.urgent(now, self._rtt_in_s), False
        if self._feedback.report_due(now):
            sent = self._mix.reports(now=now, unix_s=time.time())
            self._send_rtcp([*self._feedback.report(sent, now), *urgent])
        else:
            self._send_urgent(urgent)
        for packets in self._feedback.transport(now, busy=self._mix.downlink.narrow):
            self._send_rtcp(packets)
        self._call(now)
        self._listen(now)
        if now >= self._line_at and (self.sends_video is not None or self.sends_audio is not None):
            self._line_at = now + LINE_S
            self._watch_line(now)
        self._check_alive(now)

    def _restless(self, now: float) -> bool:
        return self._mix.queued > 0 or self._mix.repeats_again or self._mix.downlink.restless(now)

    def _pace(self) -> None:
        if self._restless(self._factory.clock()):
            self._factory.pace(self)

    def _call(self, now: float) -> None:
        """Call a peer that tells nothing better of its line, when that is due."""
        downlink = self._mix.downlink
        if self._transport is not None and downlink.call_due(now):
            self._transport.call(functools.partial(self._answered, downlink.called(now)))

    def _listen(self, now: float) -> None:
        """On a line that loses: call the peer, and repeat what it may have asked for when it does not answer."""
        mix = self._mix
        if self._transport is not None and mix.call_due(now):
            number = mix.called(now)
            self._transport.call(lambda: mix.answered(number, self._factory.clock()))
        mix.break_silence(now)

    def _answered(self, call: int) -> None:
        now, held = self._factory.clock(), self.holds_pictures
        self._mix.downlink.answered(call, now)
        if held and not self.holds_pictures:
            self._line_at = now

    def _watch_line(self, now: float) -> None:
        downlink = self._mix.downlink
        downlink.poll(now)
        self._pace()
        self._sink.on_line(downlink.state, now)

    def _check_alive(self, now: float) -> None:
        limit_s = self._factory.silence_timeout_s
        publishes_only = self.sends_video is None and self.sends_audio is None
        if now - self._heard_at > limit_s:
            self.close_soon(f"nothing was heard of the peer for {limit_s:.0f} s")
        elif publishes_only and now - self._media_at > limit_s:
            self.close_soon(f"the publisher sent no media for {limit_s:.0f} s")

    # --- numbers ---

    def stats(self) -> dict[str, Any]:
        """Counters since the start: of what is received, and under ``sent`` of what is sent."""
        tracks = self._router.tracks
        assemblers = [incoming.assembler for incoming in tracks if incoming.assembler is not None]
        mix, transport, rtt_s = self._mix.counters, self._transport, self._rtt_s
        streams = [stream for stream in (self._mix.video, self._mix.audio) if stream is not None]
        dropped = self._router.dropped + (transport.dropped if transport else Counter())
        return {
            "packets": sum(incoming.stats.received for incoming in tracks),
            "lost": sum(max(0, incoming.stats.lost) for incoming in tracks),
            "recovered": sum(assembler.recovered for assembler in assemblers)
            + sum(incoming.red.recovered for incoming in tracks if incoming.red is not None)
            + sum(incoming.gaps.recovered for incoming in tracks if incoming.gaps is not None),
            "jitter_ms": round(max((incoming.stats.jitter_ms for incoming in tracks), default=0.0), 2),
            "rtt_ms": round(rtt_s * 1000, 1) if rtt_s is not None else None,
            "bytes": transport.bytes_received if transport else 0,
            "asked_kbps": round(self._feedback.asked_bps / 1000),
            "received_kbps": round(self._feedback.received_bps / 1000),
            "layer": self._feedback.layer,
            "frames": sum(assembler.frames for assembler in assemblers),
            "frames_dropped": sum(assembler.dropped for assembler in assemblers),
            "nacks": sum(incoming.nacks for incoming in tracks),
            "plis": sum(incoming.plis for incoming in tracks),
            "dropped": dict(dropped),
            "sent": {
                "packets": sum(stream.packets for stream in streams),
                "bytes": transport.bytes_sent if transport else 0,
                "lost": max(0, mix.remote.packets_lost) if mix.remote else 0,
                "repeated": sum(stream.repeated for stream in streams),
                "refused": sum(stream.refused for stream in streams),
                "nacks": mix.nacks,
                "plis": mix.plis,
                "queued": self._mix.queued,
                "dropped": self._mix.dropped + dropped["send"],
                "choked": mix.choked,
                "padded": mix.padded,
                "unasked": mix.unasked,
                **self._mix.downlink.stats(self._factory.clock()),
            },
        }
