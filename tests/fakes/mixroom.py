"""A room's way out in simulated time: real distribution, peers, pacing, ladder; invented pictures and sound.

    room = MixRoom(seed=1)
    viewer = room.join("v1", line=Netem(seed=2, delay_s=0.03, rate_bps=500_000))
    await room.run(60.0)
    viewer.rendition, viewer.longest_freeze(10.0, 60.0), viewer.moves

Minutes pass in seconds, always the same way. A viewer is what a browser is to us: it assembles pictures, asks for
repeats and keyframes, and reports as its ``kind`` does.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

from aiortc.rate import RemoteBitrateEstimator

import mixer.webrtc.peer as peer_module
from mixer.connection import Connection
from mixer.distribution import Distribution
from mixer.media import FRAME_SAMPLES, VIDEO_CLOCK_HZ, AudioCodec, EncodedAudio, EncodedVideo, VideoCodec
from mixer.protocol import RosterEntry
from mixer.rtp.arrivals import ArrivalLog
from mixer.rtp.assemble import FrameAssembler
from mixer.rtp.history import unwrap_rtx
from mixer.rtp.packet import RtpPacket, parse_rtp
from mixer.rtp.reception import ReceptionStats
from mixer.rtp.rtcp import (
    Nack,
    PictureLossIndication,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    RtcpPacket,
    SenderReport,
    parse_rtcp,
    write_rtcp,
)
from mixer.video.rendition import RENDITIONS, Rendition
from mixer.webrtc.answer import ABS_SEND_TIME, TRANSPORT_CC, LocalSide, negotiate
from mixer.webrtc.offer import parse_offer
from mixer.webrtc.peer import Peer
from mixer.webrtc.peers import PeerFactory
from tests.fakes.netem import Netem
from tests.mixer.rtp.streams import body
from tests.mixer.webrtc.test_answer import video_offer

Kind = Literal["transport-cc", "remb", "reports"]

STEP_S = 0.005  # the pacer's slot
AUDIO_PT, RED_PT, VIDEO_PT, RTX_PT = 111, 63, 96, 97
AUDIO_SSRC, VIDEO_SSRC, RTX_SSRC = 11, 22, 33
SRTP_TAG = 10
CALL_BYTES = 124 - 28 - SRTP_TAG  # of a connectivity check, as it is on the wire


def wire_size(data: bytes) -> int:
    """IPv4 and UDP headers, and the tag that SRTP would add."""
    return len(data) + 28 + SRTP_TAG


class Encoders:
    """Stands for the canvas: pictures of the size that the rate control would give them."""

    def __init__(self, seed: int, busy: float) -> None:
        self._random = random.Random(seed)
        self._busy = busy
        self._outputs: dict[tuple[str, VideoCodec], tuple[Callable[[EncodedVideo], None], list[Any]]] = {}
        self.pictures: dict[str, int] = {}

    def want(self, name: str, codec: VideoCodec, sink: Callable[[EncodedVideo], None]) -> None:
        self._outputs[name, codec] = (sink, [True, None, 0.0])  # forced, slot, debt in bytes

    def unwant(self, name: str, codec: VideoCodec) -> None:
        self._outputs.pop((name, codec), None)

    def force_keyframe(self, name: str, codec: VideoCodec) -> None:
        if (name, codec) in self._outputs:
            self._outputs[name, codec][1][0] = True

    @property
    def running(self) -> set[str]:
        return {name for name, _ in self._outputs}

    def tick(self, index: int) -> None:
        for (name, codec), (sink, state) in list(self._outputs.items()):
            rendition = RENDITIONS[name]
            slot = index * rendition.fps // 30
            if not state[0] and slot == state[1]:
                continue
            forced, state[0], state[1] = state[0], False, slot
            mean = rendition.video_bps / 8 / rendition.fps
            if forced:
                size = rendition.video_bps / 8 * 0.4  # of the half second that the encoder's buffer holds
                state[2] += size
            else:
                size = mean * self._busy * self._random.uniform(0.5, 1.4)
                if state[2] > 0:  # the buffer fills again
                    size *= 0.6
                    state[2] -= mean - size
            self.pictures[name] = self.pictures.get(name, 0) + 1
            data = body(codec, forced, max(30, int(size)), self._random)
            sink(EncodedVideo(codec, data, index * VIDEO_CLOCK_HZ // 30, keyframe=forced))


class Bridge:
    """Stands for the audio bridge: packets of the right length, at the right instants, of about the right size."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._outputs: dict[str, tuple[Callable[[EncodedAudio], None], int, int, tuple[int, ...]]] = {}

    def add_output(
        self,
        key: str,
        sink: Callable[[EncodedAudio], None],
        *,
        codec: AudioCodec,
        minus: str | None,
        ptime_ms: int,
        bitrate_bps: int,
        fec: bool,
        repeats: tuple[int, ...],
    ) -> None:
        assert key not in self._outputs
        self._outputs[key] = (sink, ptime_ms // 20, bitrate_bps, repeats)

    def remove_output(self, key: str) -> None:
        self._outputs.pop(key, None)

    @property
    def outputs(self) -> int:
        return len(self._outputs)

    @property
    def rates(self) -> set[int]:
        """Bit rates of what is being made."""
        return {bitrate_bps for _, _, bitrate_bps, _ in self._outputs.values()}

    def tick(self, index: int) -> None:
        for sink, frames, bitrate_bps, repeats in list(self._outputs.values()):
            if (index + 1) % frames == 0:
                size = int(bitrate_bps * frames * 0.02 / 8 * self._random.uniform(0.8, 1.2))
                pts = (index + 1 - frames) * FRAME_SAMPLES
                earlier = tuple((back * frames * FRAME_SAMPLES, bytes(size)) for back in repeats)
                sink(EncodedAudio("opus", bytes(size), pts, frames * FRAME_SAMPLES, earlier=earlier))


class _Factory(PeerFactory):
    """Peers without a socket, in the room's time."""

    def __init__(self, room: MixRoom) -> None:
        super().__init__(host="127.0.0.1", ports=range(1), clock=lambda: room.now, origin=0.0)
        self.pacing: set[Peer] = set()
        self.next: Viewer

    def peer(self, sink: Any, *, send: bool, receive: bool, measure: bool = True) -> Peer:
        return _Peer(self, sink, self.next, measure=measure)

    def pace(self, peer: Peer) -> None:
        self.pacing.add(peer)


class _Transport:
    """What a peer uses of a ``SecureTransport``."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.rtt_s = None
        self._calls = 0
        self.dropped: Counter[str] = Counter()
        self.bytes_received = self.bytes_sent = 0

    def send_rtp(self, packet: bytes) -> bool:
        self._viewer.line.send(packet, self._viewer.room.now)
        return True

    send_rtcp = send_rtp

    def call(self, answered: Callable[[], None]) -> None:
        self._calls += 1
        self._viewer.calls[self._calls] = answered
        self._viewer.line.send(self._calls.to_bytes(8, "big") + bytes(CALL_BYTES - 8), self._viewer.room.now)


class _Peer(Peer):
    def __init__(self, factory: _Factory, sink: Any, viewer: Viewer, *, measure: bool) -> None:
        super().__init__(factory, sink, send=True, receive=False, measure=measure)
        self._viewer = viewer

    async def accept(self, offer: str) -> str:
        plan = negotiate(parse_offer(offer), send=True, receive=False, measure=self._measure)
        ssrcs: Any = {"audio": AUDIO_SSRC, "video": VIDEO_SSRC}
        self._take_plan(plan, LocalSide(1, "u", "p", ("sha-256", "00"), (), "us", ssrcs, RTX_SSRC))
        transport = _Transport(self._viewer)
        self._transport, self._mix.send = transport, transport.send_rtp  # type: ignore[assignment]
        self._connected = True
        return ""


@dataclass
class Shown:
    """One picture at the viewer: when, and its room time in 90 kHz."""

    at: float
    timestamp: int


@dataclass(eq=False)
class Viewer:
    """One viewer behind ``line``; ``back`` is the way of its reports."""

    room: MixRoom
    session: str
    line: Netem[bytes]
    back: Netem[bytes]
    kind: Kind
    deaf: bool = False
    connection: Connection = field(init=False)
    shown: list[Shown] = field(default_factory=list)
    renditions: list[tuple[float, str]] = field(default_factory=list)
    heard: list[tuple[int, int]] = field(default_factory=list)  # sequence, timestamp of sound
    sound_delays: list[tuple[float, float]] = field(default_factory=list)  # when, seconds after it was said
    received_bytes: int = 0
    calls: dict[int, Callable[[], None]] = field(default_factory=dict)  # of connectivity checks under way

    def __post_init__(self) -> None:
        self._log = ArrivalLog()
        self._assembler = FrameAssembler("VP8")
        self._stats = {AUDIO_SSRC: ReceptionStats(48_000), VIDEO_SSRC: ReceptionStats(90_000)}
        self._told: set[int] = set()
        self._estimator = RemoteBitrateEstimator()
        self._report_at = self._feedback_at = self._nack_at = 0.0
        self._first_sound: int | None = None

    @property
    def rendition(self) -> str:
        return self.connection.rendition.name

    @property
    def stats(self) -> dict[str, Any]:
        return self.connection.viewer_stats()

    def moves(self, start: float, end: float) -> int:
        """How often it was moved in that time."""
        return sum(start <= at < end for at, _ in self.renditions)

    def longest_freeze(self, start: float, end: float) -> float:
        """Seconds between two pictures at most, from ``start`` to ``end``."""
        times = [start, *(shown.at for shown in self.shown if start <= shown.at < end), end]
        return max(after - before for before, after in itertools.pairwise(times))

    def step(self, now: float) -> None:
        for data in self.line.receive(now):
            self.received_bytes += wire_size(data)
            if data[0] < 64:  # a connectivity check: any agent answers at once
                if not self.deaf:
                    self.back.send(data, now)
            elif 192 <= data[1] <= 223:
                for report in parse_rtcp(data):
                    if isinstance(report, SenderReport) and report.ssrc in self._stats:
                        self._stats[report.ssrc].sender_report(report, now)
            else:
                self._media(parse_rtp(data), data, now)
        for data in self.back.receive(now):
            if data[0] < 64:
                if (answered := self.calls.pop(int.from_bytes(data[:8], "big"), None)) is not None:
                    answered()
            else:
                self.connection.peer._on_rtcp(data)
        self._feed_back(now)

    def _media(self, packet: RtpPacket, data: bytes, now: float) -> None:
        number = packet.extensions.get(5)
        if number is not None:
            self._log.record(int.from_bytes(number, "big"), now)
        stamp = packet.extensions.get(3)
        if stamp is not None and self.kind == "remb":
            told = self._estimator.add(
                round(now * 1000), int.from_bytes(stamp, "big"), len(data) - 20, packet.ssrc
            )
            if told is not None:
                self._say(ReceiverEstimatedMaxBitrate(told[0], tuple(told[1])))
        if packet.ssrc == RTX_SSRC:
            original = unwrap_rtx(packet, payload_type=VIDEO_PT, ssrc=VIDEO_SSRC)
            if original is None:
                return
            packet = original
        else:
            self._told.add(packet.ssrc)
            self._stats[packet.ssrc].receive(packet, now)
        if packet.ssrc == AUDIO_SSRC:
            self.heard.append((packet.sequence, packet.timestamp))
            if self._first_sound is None:
                self._first_sound = packet.timestamp
            said = (packet.timestamp - self._first_sound & 0xFFFFFFFF) / 48_000
            self.sound_delays.append((now, now - said))
            return
        for frame in self._assembler.push(packet, now):
            self.shown.append(Shown(now, frame.pts))

    def _feed_back(self, now: float) -> None:
        if now >= self._nack_at:
            self._nack_at = now + 0.02
            wanted = self._assembler.poll(now)
            if wanted.nack:
                self._say(Nack(1, VIDEO_SSRC, tuple(wanted.nack)))
            if wanted.keyframe:
                self._say(PictureLossIndication(1, VIDEO_SSRC))
        if self.kind == "transport-cc" and now >= self._feedback_at and self._log.waiting:
            self._feedback_at = now + 0.1
            for report in self._log.report(sender_ssrc=1, media_ssrc=VIDEO_SSRC, now=now):
                self._say(report)
        if now >= self._report_at:
            self._report_at = now + 1.0
            blocks = [stats.report_block(now) for ssrc, stats in self._stats.items() if ssrc in self._told]
            self._say(ReceiverReport(1, tuple(blocks)))

    def _say(self, packet: RtcpPacket) -> None:
        self.back.send(write_rtcp([packet]), self.room.now)


class MixRoom:
    """See the module. ``busy``: how much of its rate the picture takes; 0.2 is a room where nothing moves."""

    def __init__(self, *, seed: int, busy: float = 0.95) -> None:
        self.now = 0.0
        self.encoders = Encoders(seed, busy)
        self.bridge = Bridge(seed)
        self.viewers: list[Viewer] = []
        self._factory = _Factory(self)
        self._step = 0
        stub: Any = SimpleNamespace(wake=lambda: None)
        bridge: Any = self.bridge
        canvas: Any = self.encoders
        self.distribution = Distribution(bridge, canvas, stub)

    # --- ConnectionRoom

    def adapted(self, connection: Connection, before: Rendition) -> None:
        viewer = next(v for v in self.viewers if v.connection is connection)
        if not viewer.renditions or viewer.renditions[-1][1] != connection.rendition.name:
            viewer.renditions.append((self.now, connection.rendition.name))
        self.distribution.adapt(connection)

    def keyframe_wanted(self, connection: Connection) -> None:
        self.distribution.keyframe_wanted(connection)

    # --- the test's

    async def join(
        self,
        session: str,
        line: Netem[bytes],
        *,
        kind: Kind = "transport-cc",
        asked: str = "auto",
        back_delay_s: float = 0.03,
        video: bool = True,
        rtx: bool = True,
        deaf: bool = False,
    ) -> Viewer:
        """A viewer behind ``line``; make that with ``size=wire_size``. ``deaf``: answers no connectivity check."""
        viewer = Viewer(self, session, line, Netem(seed=len(self.viewers), delay_s=back_delay_s), kind, deaf)
        entry = RosterEntry(id=session, name=session, kind="webrtc")
        viewer.connection = Connection(self, session, entry, publishes=False, asked=asked, minus=None)  # type: ignore[arg-type]
        self._factory.next = viewer
        await viewer.connection.answer(self._factory, _offer(kind, video, rtx))
        self.viewers.append(viewer)
        self.distribution.subscribe(viewer.connection)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        self.viewers.remove(viewer)
        self.distribution.unsubscribe(viewer.connection)

    async def run(self, until: float, each_step: Callable[[float], None] = lambda now: None) -> None:
        """Let time pass to ``until`` seconds since the room's beginning."""
        before, peer_module.time = peer_module.time, SimpleNamespace(time=lambda: 1.7e9 + self.now)  # type: ignore[assignment]
        try:
            while self.now < until:
                self._step += 1
                self.now = self._step * STEP_S
                await self._pass()
                each_step(self.now)
        finally:
            peer_module.time = before

    async def _pass(self) -> None:
        now, step = self.now, self._step
        if step % 4 == 0:  # 20 ms
            self.bridge.tick(step // 4)
            for viewer in self.viewers:
                viewer.connection.peer.poll(now)
        if (index := int(now * 30 + 1e-6)) != int((now - STEP_S) * 30 + 1e-6):
            self.encoders.tick(index)
            await asyncio.sleep(0)  # the distribution takes pictures over from the canvas's thread
        for peer in tuple(self._factory.pacing):
            if not peer.drain(now):
                self._factory.pacing.discard(peer)
        for viewer in self.viewers:
            viewer.step(now)


def _offer(kind: Kind, video: bool, rtx: bool) -> str:
    numbered = f"|a=extmap:5 {TRANSPORT_CC}" if kind == "transport-cc" else ""
    sound = (
        f"audio {AUDIO_PT} {RED_PT}|a=recvonly|a=rtpmap:{AUDIO_PT} opus/48000/2|a=rtpmap:{RED_PT} red/48000/2"
        f"|a=fmtp:{RED_PT} {AUDIO_PT}/{AUDIO_PT}|a=rtcp-fb:{AUDIO_PT} nack{numbered}"
    )
    repairs = f"|a=rtpmap:{RTX_PT} rtx/90000|a=fmtp:{RTX_PT} apt={VIDEO_PT}" if rtx else ""
    picture = (
        f"video {VIDEO_PT}{f' {RTX_PT}' if rtx else ''}|a=recvonly|a=rtpmap:{VIDEO_PT} VP8/90000{repairs}"
        f"|a=rtcp-fb:{VIDEO_PT} nack|a=rtcp-fb:{VIDEO_PT} nack pli"
        f"|a=extmap:3 {ABS_SEND_TIME}{numbered}"
    )
    if kind == "transport-cc":
        sound += f"|a=rtcp-fb:{AUDIO_PT} transport-cc"
        picture += f"|a=rtcp-fb:{VIDEO_PT} transport-cc"
    elif kind == "remb":
        picture += f"|a=rtcp-fb:{VIDEO_PT} goog-remb"
    return video_offer(sound, picture) if video else video_offer(sound)
