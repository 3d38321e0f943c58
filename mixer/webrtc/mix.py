"""The mix on its way to one peer: at most one picture stream and one sound stream. Pure: bytes go to ``send``."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from mixer.fanout import PacketizedVideo
from mixer.media import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, AudioCodec, EncodedAudio, Kind, VideoCodec
from mixer.rtp.pacing import AT_ONCE, Pacer
from mixer.rtp.payload import vp8
from mixer.rtp.red import write_red
from mixer.rtp.rtcp import ReportBlock, SenderReport
from mixer.rtp.silence import CALL_BYTES, Silence
from mixer.webrtc.answer import ABS_SEND_TIME, MIXER_LEVELS, Track
from mixer.webrtc.downlink import WIRE_OVERHEAD, Downlink, TimedLine
from mixer.webrtc.echoed_line import EchoedLine
from mixer.webrtc.outgoing import OutgoingStream, ntp_time

RTT_MAX: Final = 10 << 16  # 10 s in 1/65536 s: more is a report of another life
SWITCH_STEP: Final = (
    90  # 1 ms of 90 kHz, between two renditions' pictures of one tick: no two share a timestamp
)
AGAIN_LOSS: Final = (
    0.03  # from there on what is repeated is repeated again: one in ten repeats is lost at 10 %
)
AGAIN_S: Final = 0.02  # after the first one: a burst that takes that is over by then
UNHEARD_S: Final = 0.3  # what was repeated since then needs no repeat because of a silence
MAX_AGAIN: Final = 256  # a keyframe's packets; the oldest are left out
MUTE_REPORTS: Final = 3  # without a transport-wide one, which was agreed: it will not come any more
SOUND_HISTORY: Final = 64  # 1.3 s of the shortest packets: a second request comes within 1 s


class _Queued(NamedTuple):
    """One packet that waits. ``burst``: of the pictures that measure the line; ``last`` packet of its picture."""

    payload: bytes
    pts: int
    last: bool
    burst: int


@dataclass(slots=True)
class MixCounters:
    """``unsent``: packets and frames that never left. ``remote``: the peer's last report on the pictures.
    ``choked``: repeats that the line had no room for. ``padded``: packets of padding. ``unasked``: repeats because the
    peer did not answer.
    """

    unsent: int = 0
    nacks: int = 0
    plis: int = 0
    choked: int = 0
    padded: int = 0
    unasked: int = 0
    remote: ReportBlock | None = None
    rtt_s: float | None = None


class MixOut:
    """Paces pictures, numbers packets, answers NACKs, reports.

    ``send``: protects and sends one RTP packet, ``False`` when it was dropped. ``origin``: monotonic seconds at
    room pts 0; ``None``: guessed as the earliest ``now - pts`` seen, one for sound and picture, so that a
    receiver aligns them either way. ``measure``: the line is to be measured, by calls if need be.
    """

    def __init__(
        self, send: Callable[[bytes], bool], *, origin: float | None = None, measure: bool = True
    ) -> None:
        self.send = send
        self._fixed_origin = origin is not None
        self._origin = origin
        self._pacer: Pacer[_Queued] = Pacer()
        self._again: deque[tuple[float, OutgoingStream, int]] = deque(maxlen=MAX_AGAIN)
        self._needs_keyframe = True
        self._fanout = 0
        self._last_pts = -1
        self._picture_id = random.getrandbits(15)
        self._measure = measure
        self._reports = 0
        self._silence = Silence()
        self.downlink: Downlink = EchoedLine(pads=False, calls=False)
        self.video: OutgoingStream | None = None
        self.audio: OutgoingStream | None = None
        self.video_codec: VideoCodec | None = None
        self.audio_codec: AudioCodec | None = None
        self.red: tuple[int, int] | None = None  # payload types: RED's, and of the sound in it
        self.counters = MixCounters()

    def add(self, track: Track, ssrcs: Mapping[Kind, int], rtx_ssrc: int) -> None:
        """Take over what was negotiated for an m-line; one that we don't send on changes nothing."""
        if track.sends is None:
            return
        rtx_type = track.rtx_sent
        match track.sends.name:
            case "H264" | "VP8" | "VP9" as codec:
                self.video_codec = codec
                self.video = OutgoingStream(
                    ssrc=ssrcs["video"],
                    payload_type=track.sends.codec.payload_type,
                    clock_hz=VIDEO_CLOCK_HZ,
                    stamp_id=track.extensions.get(ABS_SEND_TIME),
                    transport_id=track.transport_cc,
                    rtx=(rtx_type, rtx_ssrc) if rtx_type is not None else None,
                )
                self.downlink = self._line_of(self.video, pads=True)
            case sound:
                self.audio_codec = sound
                if track.red is not None:
                    self.red = track.red, track.sends.codec.payload_type
                # no send time: it would be a twelfth of the `audio` rendition, and REMB is about pictures; the
                # number is worth it, since that rendition has nothing else that tells of the line
                self.audio = OutgoingStream(
                    ssrc=ssrcs["audio"],
                    payload_type=track.sends.codec.payload_type,
                    clock_hz=track.sends.codec.clock_hz,
                    transport_id=track.transport_cc,
                    levels_id=track.extensions.get(MIXER_LEVELS),
                    history=SOUND_HISTORY if "nack" in track.feedback else 0,
                )
                if self.video is None:
                    self.downlink = self._line_of(self.audio, pads=False)

    def picture(self, unit: PacketizedVideo, now: float) -> bool:
        """Queue one picture; what is due leaves at once. ``False``: the queue overflowed, a keyframe is needed.

        A keyframe supersedes what still waits; after an overflow all is dropped until one comes.
        """
        if self.video is None or unit.codec != self.video_codec or not unit.payloads:
            self.counters.unsent += 1
            return True
        if unit.keyframe and not self.downlink.draining(now):
            self._pacer.clear()
        elif self._needs_keyframe:
            self.counters.unsent += 1
            return True
        if unit.fanout != self._fanout:
            self._fanout = unit.fanout
            self.video.forget()  # whoever still misses a packet of the old rendition needs it no more
        if not self._fixed_origin:
            self._learn_origin(unit.pts / VIDEO_CLOCK_HZ, now)
        self._needs_keyframe = not self._queue(unit, now)
        if self._needs_keyframe:
            self._pacer.clear()
            return False
        self.drain(now)
        return True

    def _queue(self, unit: PacketizedVideo, now: float) -> bool:
        payloads = unit.payloads
        if unit.picture_id is not None:
            if unit.picture_id != self._picture_id:  # it was moved, or pictures were dropped here
                payloads = tuple(vp8.renumber(payload, self._picture_id) for payload in payloads)
            self._picture_id = (self._picture_id + 1) & 0x7FFF
        pts = unit.pts if unit.pts > self._last_pts else self._last_pts + SWITCH_STEP
        self._last_pts = pts
        burst = self.downlink.begin_burst(now) if len(payloads) > AT_ONCE else 0
        last = len(payloads) - 1
        packets = [_Queued(payload, pts, index == last, burst) for index, payload in enumerate(payloads)]
        size = sum(map(len, payloads)) + len(payloads) * (self.video.header_size if self.video else 0)
        return self._pacer.push(packets, now, self.downlink.pacing_s(size, len(payloads)))

    def stop_pictures(self) -> None:
        """Sound alone from now on: what waits is forgotten, and the next picture must be a keyframe."""
        self._pacer.clear()
        self._needs_keyframe = True
        if self.video is not None:
            self.video.forget()

    def hold_pictures(self, now: float) -> None:
        """The same until the line has delivered what it has: a keyframe that finds its queue full is lost."""
        self.stop_pictures()
        self.downlink.drain(now)

    def sound(self, frame: EncodedAudio, now: float) -> None:
        """Send one sound frame at once."""
        stream = self.audio
        if stream is None or frame.codec != self.audio_codec:
            self.counters.unsent += 1
            return
        if not self._fixed_origin:
            self._learn_origin(frame.pts / AUDIO_CLOCK_HZ, now)
        pts, named = frame.pts * stream.clock_hz // AUDIO_CLOCK_HZ, frame.contributors
        payload, kind = frame.data, None
        if frame.earlier and self.red is not None:
            kind, inner = self.red
            payload = write_red(inner, frame.earlier, frame.data)
        size = len(payload) + stream.header_size
        if named:
            size += stream.naming_size(len(named))
        if stream.numbered:
            number = self.downlink.depart(size, now)
        else:
            number = 0
            self.downlink.count(size)
        # no keywords: this is run for each listener of each packet
        packet = stream.packet(payload, pts, stream.packets == 0, now, number, named, kind)
        if not self.send(packet):
            self.counters.unsent += 1

    def drain(self, now: float) -> None:
        """Send what the pacer lets go by now, repeats once more, and padding while the line is tried."""
        while self._again and self._again[0][0] <= now:
            _, repeated, sequence = self._again.popleft()
            self._repeat(repeated, sequence, now, unasked=True)
        stream = self.video
        if stream is None:
            return
        for payload, pts, last, burst in self._pacer.due(now):
            number = self._depart(stream, len(payload) + stream.header_size, now, burst)
            self._put(stream.packet(payload, pts, marker=last, now=now, transport=number))
            if last and burst:
                self.downlink.end_burst(burst, now)
        if self.downlink.probing:
            self._pad(stream, now)

    def _pad(self, stream: OutgoingStream, now: float) -> None:
        header = stream.rtx_header_size
        sizes = self.downlink.padding(header or stream.header_size, now)
        if header is None:
            self._pad_with_repeats(stream, sum(sizes) + len(sizes) * stream.header_size, now)
            return
        for size in sizes:
            self.counters.padded += 1
            number = self._depart(stream, size + header, now)
            self._put(stream.padding(size, now, number))

    def _pad_with_repeats(self, stream: OutgoingStream, octets: int, now: float) -> None:
        """Without RTX: what was sent last, again. Receivers drop a replay (RFC 3711 section 3.3.2)."""
        newest = stream.newest()
        for _ in range(round(octets / len(newest)) if newest is not None else 0):
            self.counters.padded += 1
            self.downlink.count(len(newest or b""))
            self._put(newest or b"")

    @property
    def queued(self) -> int:
        """Packets that wait for their slot."""
        return len(self._pacer)

    @property
    def dropped(self) -> int:
        """What never left: before the connection, of another codec, superseded, or the socket was full."""
        return self.counters.unsent + self._pacer.dropped

    def clear(self) -> None:
        """Forget what waits."""
        self._pacer.clear()
        self._again.clear()

    def is_video(self, ssrc: int) -> bool:
        """Whether ``ssrc`` is our picture stream."""
        return self.video is not None and self.video.ssrc == ssrc

    def repeat(self, ssrc: int, lost: tuple[int, ...], now: float) -> None:
        """Answer a NACK for one of our streams, as far as the line has room for it; of another one: ignored."""
        for stream in (self.video, self.audio):
            if stream is not None and stream.ssrc == ssrc:
                self.counters.nacks += 1
                asked = [sequence for sequence in lost if not stream.repeated_just_now(sequence, now)]
                for sequence in asked:
                    self._repeat(stream, sequence, now)
                if stream is self.video and self.downlink.state.loss >= AGAIN_LOSS:
                    self._again.extend((now + AGAIN_S, stream, sequence) for sequence in asked)

    # --- a peer that may have asked in vain

    @property
    def listening(self) -> bool:
        """Whether it is to be called (`call_due`), and `break_silence` to be run, each 20 ms."""
        stream = self.video
        return stream is not None and stream.keeps and self._silence.listening(self.downlink.state.loss)

    def call_due(self, now: float) -> bool:
        """Whether to call the peer now: only its answer counts, or that there is none."""
        if not self.listening or self.downlink.draining(now):
            return False
        sent_bps, line_bps = self.downlink.sent_bps(now), self.downlink.state.estimate_bps
        return self._silence.due(sent_bps if line_bps is None else min(sent_bps, line_bps), now)

    def called(self, now: float) -> int:
        """It was called; the number of the call."""
        self.downlink.count(CALL_BYTES - WIRE_OVERHEAD)
        return self._silence.called(self.video.packets if self.video is not None else 0, now)

    def answered(self, call: int, now: float) -> None:
        """The answer to a call."""
        self._silence.answered(call, now)

    def break_silence(self, now: float) -> None:
        """Send again what the peer may have asked for while nothing came from it."""
        stream = self.video
        if stream is None or not self.listening:
            return
        for positions in self._silence.suspects(stream.packets, now):
            for sequence in map(stream.sequence_of, positions):
                if not stream.repeated_just_now(sequence, now, within_s=UNHEARD_S):
                    self.counters.unasked += 1
                    self._repeat(stream, sequence, now, unasked=True)

    @property
    def resends_audio(self) -> bool:
        """Whether a NACK for sound is answered."""
        return self.audio is not None and self.audio.keeps

    @property
    def repeats_again(self) -> bool:
        """Whether `drain` has repeats to send once more."""
        return bool(self._again)

    def _repeat(self, stream: OutgoingStream, sequence: int, now: float, *, unasked: bool = False) -> None:
        size, number = stream.repeat_size(sequence), 0
        if size is not None:
            if not self.downlink.may_repeat(size, now):
                self.counters.choked += 1
                return
            if stream.rtx_header_size is not None:
                number = self._depart(stream, size, now)
            else:  # the same bytes, so the same number
                self.downlink.count(size)
        packet = stream.repeat(sequence, now, number, unasked=unasked)
        if packet is not None:
            self._put(packet)

    def reports(self, *, now: float, unix_s: float) -> list[SenderReport]:
        """A report a stream that has sent; both tell the same wall-clock time of room pts 0."""
        room_s = now - self._origin if self._origin is not None else 0.0
        streams = (self.video, self.audio)
        return [s.report(room_s=room_s, unix_s=unix_s) for s in streams if s is not None and s.packets]

    def reported(self, blocks: tuple[ReportBlock, ...], *, now: float, unix_s: float) -> None:
        """The peer's own account of what it got."""
        for block in blocks:
            if block.last_sr:  # RFC 3550 section 6.4.1: A - LSR - DLSR
                middle = ntp_time(unix_s) >> 16 & 0xFFFFFFFF
                elapsed = (middle - block.last_sr - block.delay_since_last_sr) & 0xFFFFFFFF
                if elapsed < RTT_MAX:
                    self.counters.rtt_s = elapsed / 65536
        streams = [stream for stream in (self.video, self.audio) if stream is not None]
        ours = [
            (block, stream.packets) for block in blocks for stream in streams if block.ssrc == stream.ssrc
        ]
        if ours:
            self.counters.remote = next(
                (b for b, _ in ours if b.ssrc == streams[0].ssrc), self.counters.remote
            )
            self._reports += 1
            if (
                self._reports >= MUTE_REPORTS
                and not self.downlink.heard
                and isinstance(self.downlink, TimedLine)
            ):
                self.downlink = self._called_line(pads=self.video is not None)
            self.downlink.reported(ours, self.counters.rtt_s, now)

    def _line_of(self, stream: OutgoingStream, *, pads: bool) -> Downlink:
        """How the line is measured: by what the peer reports, else by calling it."""
        return TimedLine(pads=pads) if stream.numbered else self._called_line(pads=pads)

    def _called_line(self, *, pads: bool) -> EchoedLine:
        """Who gets no pictures is not called: a third of what a silent leg costs, for 20 kbit/s that could be saved."""
        return EchoedLine(pads=pads, calls=self._measure and pads)

    def _depart(self, stream: OutgoingStream, size: int, now: float, burst: int = 0) -> int:
        if stream.numbered:
            return self.downlink.depart(size, now, burst)
        self.downlink.count(size)
        return 0

    def _put(self, packet: bytes) -> None:
        if not self.send(packet):
            self.counters.unsent += 1

    def _learn_origin(self, room_s: float, now: float) -> None:
        if self._origin is None or now - room_s < self._origin:
            self._origin = now - room_s
