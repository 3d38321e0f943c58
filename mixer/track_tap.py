"""Between what participants send and the tracks of a recording: whole pictures and packets of sound, as they came.

Who is muted is not recorded: neither the voice, nor the camera of whom the room does not see. Of who refuses to be
recorded there is nothing. Runs on the loop thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mixer.audio.payload import RTP_CLOCK_HZ
from mixer.errors import MalformedPacket
from mixer.media import VIDEO_CLOCK_HZ, AudioCodec, EncodedVideo
from mixer.protocol import RosterEntry
from mixer.rtp.packet import RtpPacket
from mixer.rtp.unwrap import Unwrapper
from mixer.trackclock import STRANGE_S, SenderClock, TrackClock
from mixer.video.headers import picture_size
from recording.timeline import USUAL_WAIT_MS
from recording.tracks import TrackFrame, TrackKind, TrackSource

Write = Callable[[TrackSource, TrackFrame, int], None]

_WRAP = 1 << 32


@dataclass(slots=True)
class _Stream:
    """One RTP stream, until its clock begins anew."""

    clock: TrackClock
    rate_hz: int
    identity: tuple[int, str] | None = None  # of sound: SSRC and codec
    unwrapper: Unwrapper = field(default_factory=lambda: Unwrapper(32))
    base: int = 0  # multiples of 2³²: timestamps go up even when a stream follows another one
    last_rtp: int | None = None
    arrived_s: float = 0.0


@dataclass(slots=True)
class _Sender:
    """A participant: how they stand, the clock behind all that they send, and their streams."""

    entry: RosterEntry
    clock: SenderClock = field(default_factory=SenderClock)
    streams: dict[TrackKind, _Stream] = field(default_factory=dict)
    broken: set[TrackKind] = field(default_factory=set)  # pictures of it were left out
    wait_ms: int = USUAL_WAIT_MS


class TrackTap:
    """``write`` takes a frame and its room time in 90 kHz. ``origin_s``: monotonic time of the room's zero."""

    def __init__(self, write: Write, origin_s: float) -> None:
        self._write = write
        self._origin_s = origin_s
        self._senders: dict[str, _Sender] = {}

    def join(self, entry: RosterEntry) -> None:
        """``entry`` sends from now on, over a connection whose clocks are new."""
        self._senders[entry.id] = _Sender(entry, broken={"camera", "screen"})

    def change(self, entry: RosterEntry) -> None:
        """Mute, name as they are from now on."""
        sender = self._senders.get(entry.id)
        if sender is not None:
            sender.entry = entry

    def leave(self, participant: str) -> None:
        """Nothing more comes of them over this connection."""
        self._senders.pop(participant, None)

    def heard(
        self,
        participant: str,
        packet: RtpPacket,
        codec: AudioCodec,
        *,
        taken_s: float | None,
        now: float,
        wait_ms: float,
    ) -> None:
        """A packet of voice that arrived at ``now``; ``taken_s``: its time on the sender's NTP clock, ``wait_ms``: what
        the mix lets the voice wait now.
        """
        sender = self._senders.get(participant)
        if sender is None or sender.entry.muted or not sender.entry.recorded or not packet.payload:
            return
        stream = sender.streams.get("voice")
        identity = packet.ssrc, str(codec)
        rtp = packet.timestamp
        if stream is not None and stream.identity == identity:
            rtp = stream.unwrapper.unwrap(packet.timestamp)
        if stream is None or stream.identity != identity or _restarted(stream, rtp, now - self._origin_s):
            stream = self._new_stream(sender, "voice", RTP_CLOCK_HZ[codec])
            stream.identity = identity
            rtp = stream.unwrapper.unwrap(packet.timestamp)
        sender.wait_ms = round(wait_ms)
        self._keep(sender, "voice", stream, TrackFrame(codec, packet.payload, rtp, taken_s=taken_s), now)

    def saw(
        self, participant: str, frame: EncodedVideo, *, screen: bool, taken_s: float | None, now: float
    ) -> None:
        """A whole picture that was complete at ``now``."""
        sender = self._senders.get(participant)
        kind: TrackKind = "screen" if screen else "camera"
        if sender is None:
            return
        if not sender.entry.recorded or (sender.entry.video_muted and not screen):
            sender.broken.add(kind)
            return
        arrived_s = now - self._origin_s
        stream = sender.streams.get(kind)
        if stream is None or _restarted(stream, frame.pts, arrived_s):
            stream = self._new_stream(sender, kind, VIDEO_CLOCK_HZ)
        kept = TrackFrame(
            frame.codec,
            frame.data,
            frame.pts,
            keyframe=frame.keyframe,
            size=_size(frame) if frame.keyframe else None,
            taken_s=taken_s,
            fresh=kind in sender.broken,
        )
        sender.broken.discard(kind)
        self._keep(sender, kind, stream, kept, now)

    def _keep(self, sender: _Sender, kind: TrackKind, stream: _Stream, frame: TrackFrame, now: float) -> None:
        arrived_s = now - self._origin_s
        at_s = stream.clock.place(frame.rtp, frame.taken_s, arrived_s)
        stream.last_rtp, stream.arrived_s = frame.rtp, arrived_s
        entry = sender.entry
        frame = replace(frame, rtp=frame.rtp + stream.base, name=entry.name, wait_ms=sender.wait_ms)
        self._write(TrackSource(entry.id, kind), frame, round(at_s * VIDEO_CLOCK_HZ))

    @staticmethod
    def _new_stream(sender: _Sender, kind: TrackKind, rate_hz: int) -> _Stream:
        before = sender.streams.get(kind)
        stream = sender.streams[kind] = _Stream(TrackClock(sender.clock, rate_hz), rate_hz)
        if before is not None and before.last_rtp is not None:
            stream.base = (before.base + before.last_rtp) // _WRAP * _WRAP + _WRAP
        return stream


def _restarted(stream: _Stream, rtp: int, arrived_s: float) -> bool:
    """Whether the timestamps are those of another stream: another camera, another simulcast layer, a new start."""
    if stream.last_rtp is None:
        return False
    ahead_s = (rtp - stream.last_rtp) / stream.rate_hz
    return abs(ahead_s - (arrived_s - stream.arrived_s)) > STRANGE_S


def _size(frame: EncodedVideo) -> tuple[int, int] | None:
    try:
        return picture_size(frame.codec, frame.data)
    except MalformedPacket:
        return None
