"""The mix on its way to one peer: at most one picture stream and one sound stream. Pure: bytes go to ``send``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mixer.fanout import PacketizedVideo
from mixer.media import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, AudioCodec, EncodedAudio, Kind, VideoCodec
from mixer.rtp.pacing import Pacer
from mixer.rtp.rtcp import ReportBlock, SenderReport
from mixer.webrtc.answer import ABS_SEND_TIME, MIXER_LEVELS, Track
from mixer.webrtc.outgoing import OutgoingStream, ntp_time

RTT_MAX: Final = 10 << 16  # 10 s in 1/65536 s: more is a report of another life


@dataclass(slots=True)
class MixCounters:
    """``unsent``: packets and frames that never left. ``remote``: the peer's last report on the pictures."""

    unsent: int = 0
    nacks: int = 0
    plis: int = 0
    remote: ReportBlock | None = None
    rtt_s: float | None = None


class MixOut:
    """Paces pictures, numbers packets, answers NACKs, reports.

    ``send``: protects and sends one RTP packet, ``False`` when it was dropped. ``origin``: monotonic seconds at
    room pts 0; ``None``: guessed as the earliest ``now - pts`` seen, one for sound and picture, so that a
    receiver aligns them either way.
    """

    def __init__(self, send: Callable[[bytes], bool], *, origin: float | None = None) -> None:
        self._send = send
        self._fixed_origin = origin is not None
        self._origin = origin
        self._pacer: Pacer[tuple[bytes, int, bool]] = Pacer()
        self._needs_keyframe = True
        self.video: OutgoingStream | None = None
        self.audio: OutgoingStream | None = None
        self.video_codec: VideoCodec | None = None
        self.audio_codec: AudioCodec | None = None
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
                    rtx=(rtx_type, rtx_ssrc) if rtx_type is not None else None,
                )
            case sound:
                self.audio_codec = sound
                # no send time: it would be a twelfth of the `audio` rendition, and REMB is about pictures
                self.audio = OutgoingStream(
                    ssrc=ssrcs["audio"],
                    payload_type=track.sends.codec.payload_type,
                    clock_hz=track.sends.codec.clock_hz,
                    levels_id=track.extensions.get(MIXER_LEVELS),
                    history=0,
                )

    def picture(self, unit: PacketizedVideo, now: float) -> bool:
        """Queue one picture; what is due leaves at once. ``False``: the queue overflowed, a keyframe is needed.

        A keyframe supersedes what still waits; after an overflow all is dropped until one comes.
        """
        if self.video is None or unit.codec != self.video_codec or not unit.payloads:
            self.counters.unsent += 1
            return True
        if unit.keyframe:
            self._pacer.clear()
        elif self._needs_keyframe:
            self.counters.unsent += 1
            return True
        self._learn_origin(unit.pts / VIDEO_CLOCK_HZ, now)
        last = len(unit.payloads) - 1
        packets = [(payload, unit.pts, index == last) for index, payload in enumerate(unit.payloads)]
        self._needs_keyframe = not self._pacer.push(packets, now)
        if self._needs_keyframe:
            self._pacer.clear()
            return False
        self.drain(now)
        return True

    def sound(self, frame: EncodedAudio, now: float) -> None:
        """Send one sound frame at once."""
        stream = self.audio
        if stream is None or frame.codec != self.audio_codec:
            self.counters.unsent += 1
            return
        self._learn_origin(frame.pts / AUDIO_CLOCK_HZ, now)
        pts = frame.pts * stream.clock_hz // AUDIO_CLOCK_HZ
        first = stream.packets == 0
        self._put(stream.packet(frame.data, pts, marker=first, now=now, contributors=frame.contributors))

    def drain(self, now: float) -> None:
        """Send what the pacer lets go by now."""
        if self.video is not None:
            for payload, pts, marker in self._pacer.due(now):
                self._put(self.video.packet(payload, pts, marker=marker, now=now))

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

    def is_video(self, ssrc: int) -> bool:
        """Whether ``ssrc`` is our picture stream."""
        return self.video is not None and self.video.ssrc == ssrc

    def repeat(self, lost: tuple[int, ...], now: float) -> None:
        """Answer a NACK for the picture stream."""
        self.counters.nacks += 1
        for sequence in lost:
            packet = self.video.repeat(sequence, now) if self.video is not None else None
            if packet is not None:
                self._put(packet)

    def reports(self, *, now: float, unix_s: float) -> list[SenderReport]:
        """A report a stream that has sent; both tell the same wall-clock time of room pts 0."""
        room_s = now - self._origin if self._origin is not None else 0.0
        streams = (self.video, self.audio)
        return [s.report(room_s=room_s, unix_s=unix_s) for s in streams if s is not None and s.packets]

    def reported(self, blocks: tuple[ReportBlock, ...], unix_s: float) -> None:
        """The peer's own account of what it got."""
        for block in blocks:
            if self.is_video(block.ssrc) or (self.video is None and self.audio is not None):
                self.counters.remote = block
            if block.last_sr:  # RFC 3550 section 6.4.1: A - LSR - DLSR
                middle = ntp_time(unix_s) >> 16 & 0xFFFFFFFF
                elapsed = (middle - block.last_sr - block.delay_since_last_sr) & 0xFFFFFFFF
                if elapsed < RTT_MAX:
                    self.counters.rtt_s = elapsed / 65536

    def _put(self, packet: bytes) -> None:
        if not self._send(packet):
            self.counters.unsent += 1

    def _learn_origin(self, room_s: float, now: float) -> None:
        if not self._fixed_origin and (self._origin is None or now - room_s < self._origin):
            self._origin = now - room_s
