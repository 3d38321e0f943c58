"""Packets of one video source in any order → whole pictures in decode order.

How it decides
==============

Packets wait in a table by unwrapped sequence number. A picture is a run of consecutive numbers with one
timestamp that ends with the marker bit, or before a packet of another timestamp. There are two states:

**In step** (`_run` is set): every picture so far was handed out, so the next one can be decoded. `_run`
stands at its first packet and grows over whatever is there. When a number is missing, nothing is handed
out until it comes (the NACK schedule asks for it) or it is given up.

**Out of step** (`_run` is None): at the beginning, after a gap that nobody filled, after a picture of
rubbish. Pictures are worthless until a keyframe.

In both, while the way is blocked, a second run, `_rescue`, follows the newest keyframe that has begun behind
the gap. When it is whole it is handed out, whatever is missing before it is forgotten, and we are in step.

A keyframe is asked for when the way has been blocked for `PATIENCE_S` without a picture, and at once when
it is known that waiting is of no use. Requests are repeated, for they get lost, too.

Numbers that jump and SSRCs that change restart everything, but only when a second packet agrees with the
first (RFC 3550 appendix A.1 does so): one stray packet must not cost a keyframe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from mixer.errors import MalformedPacket
from mixer.media import EncodedVideo, VideoCodec
from mixer.rtp.nack import NackSchedule
from mixer.rtp.packet import RtpPacket
from mixer.rtp.payload import Picture, Start, depacketizer
from mixer.rtp.unwrap import Unwrapper

MAX_PACKETS: Final = 512  # a 1080p keyframe of 560 kB; 3 s of 1.5 Mbit/s
MAX_BYTES: Final = 4 << 20
PATIENCE_S: Final = 0.25  # two tries at a usual round trip, and still no visible freeze
ASK_AGAIN_S: Final = 0.5  # while packets come
ASK_IDLE_S: Final = 2.0  # while none come: a muted camera can't answer
_AGREE: Final = 16  # how near the second packet of a new numbering must be to the first
_KEEP_BEHIND: Final = 64  # out of step: packets kept because the start of their picture may be late


@dataclass(frozen=True, slots=True)
class Feedback:
    """What to tell the sender: 16-bit sequence numbers to repeat, and whether to ask for a keyframe."""

    nack: list[int] = field(default_factory=list)
    keyframe: bool = False


@dataclass(slots=True)
class _Run:
    """Packets ``start`` … ``cursor - 1`` are there and belong to one picture, that of ``timestamp``."""

    start: int
    cursor: int
    timestamp: int | None = None


class FrameAssembler:
    """Whole pictures of one video SSRC, out of its packets in any order.

    ``parameter_sets``: H.264's from the SDP (see `payload.depacketizer`). ``insists``: see `NackSchedule`.
    Pictures carry the sender's timestamp, unwrapped, as pts; it starts anew, anywhere, when the sender's SSRC or
    numbering does.

    Counters: ``frames`` handed out, ``dropped`` pictures received in vain, ``lost`` and ``recovered``
    packets, ``malformed`` pictures of rubbish, ``duplicates`` and ``late`` packets, ``overflows`` of the
    table, ``resets`` by a new numbering, ``gaps`` that opened: `poll` then, not at its next time.
    """

    def __init__(
        self, codec: VideoCodec, *, parameter_sets: Sequence[bytes] = (), insists: bool = False
    ) -> None:
        self._codec = codec
        self._parameter_sets = tuple(parameter_sets)
        self._nacks = NackSchedule(insists=insists)
        self.gaps = 0
        self._patience_s = PATIENCE_S
        self._ask_again_s = ASK_AGAIN_S
        self._asked_at: float | None = None
        self.frames = self.dropped = self.malformed = 0
        self.duplicates = self.late = self.overflows = self.resets = 0
        self._clear()

    def _clear(self) -> None:
        self._depacketizer = depacketizer(self._codec, self._parameter_sets)
        self._timestamps = Unwrapper(32)
        self._packets: dict[int, RtpPacket] = {}
        self._bytes = 0
        self._ssrc: int | None = None
        self._highest = 0  # unwrapped sequence number
        self._floor = 0  # packets below are late: their pictures are done with
        self._border = 0  # certainly the first packet of a picture
        self._run: _Run | None = None
        self._rescue: _Run | None = None
        self._stray: RtpPacket | None = None
        self._ask_at: float | None = None  # when to ask for a keyframe; None while all is well
        self._heard = False  # anything since the last request
        self._nacks.clear()

    @property
    def lost(self) -> int:
        """Packets that never came."""
        return self._nacks.lost

    @property
    def recovered(self) -> int:
        """Packets that came after they had been asked for."""
        return self._nacks.recovered

    @property
    def waiting(self) -> int:
        """Packets held back now, at most `MAX_PACKETS`."""
        return len(self._packets)

    def set_rtt(self, rtt_s: float) -> None:
        """The round trip to the sender: the period of repeated requests."""
        self._nacks.set_rtt(rtt_s)
        self._patience_s = max(PATIENCE_S, 2 * rtt_s)
        self._ask_again_s = max(ASK_AGAIN_S, 2 * rtt_s)

    def reset(self) -> None:
        """Forget the source but not the counters: the next packet is the first of a new one."""
        self.dropped += _pictures(self._packets.values())
        self._clear()

    def push(self, packet: RtpPacket, now: float) -> list[EncodedVideo]:
        """Take a packet; returns the pictures that it completes, mostly none or one."""
        delta = ((packet.sequence - self._highest + 0x8000) & 0xFFFF) - 0x8000
        if packet.ssrc != self._ssrc or not -MAX_PACKETS <= delta <= MAX_PACKETS:
            return self._meet(packet, now)
        sequence = self._highest + delta
        self._nacks.paid()
        if delta > 0:
            if delta > 1:
                self.gaps += 1
                if not self._nacks.add(self._highest + 1, sequence, now):
                    self._rescue = None
                    self._lose_step(sequence, now)
            self._highest = sequence
        elif sequence < self._floor:
            self.late += 1
            self._nacks.arrived(sequence, now)
            return []
        elif sequence in self._packets:
            self.duplicates += 1
            self._nacks.arrived(sequence, now)
            return []
        else:
            self._nacks.arrived(sequence, now)
        self._heard = True
        self._stray = None
        self._packets[sequence] = packet
        self._bytes += len(packet.payload)
        return self._progress(sequence, now)

    def poll(self, now: float) -> Feedback:
        """What to tell the sender now. To be called every 10 to 50 ms, whether packets come or not."""
        if expired := self._nacks.expire(now):
            if self._rescue is not None and max(expired) >= self._rescue.start:
                self._rescue = None  # it will never be whole
            if self._run is not None:
                self._lose_step(self._run.cursor, now)
        nack = [sequence & 0xFFFF for sequence in self._nacks.due(now)]
        keyframe = self._ask_at is not None and now >= self._ask_at and self._worth_asking(now)
        if keyframe:
            self._asked_at = now
            self._ask_at = now + self._ask_again_s
            self._heard = False
        return Feedback(nack, keyframe)

    def _worth_asking(self, now: float) -> bool:
        rescue = self._rescue
        if rescue is not None and rescue.cursor > self._highest and self._heard:
            # A keyframe is on its way and nothing of it is missing: another would only make it slower.
            self._ask_at = now + self._patience_s
            self._heard = False
            return False
        if self._asked_at is None:
            return True
        return now - self._asked_at >= (self._ask_again_s if self._heard else ASK_IDLE_S)

    def _meet(self, packet: RtpPacket, now: float) -> list[EncodedVideo]:
        """A packet that doesn't fit: the first of all, a stray, or the second of a new numbering."""
        if self._ssrc is None:
            self._begin(packet)
            return self.push(packet, now)
        stray, self._stray = self._stray, packet
        if stray is None or stray.ssrc != packet.ssrc:
            return []
        distance = ((packet.sequence - stray.sequence + 0x8000) & 0xFFFF) - 0x8000
        if distance == 0 or abs(distance) > _AGREE:
            return []
        self.reset()
        self.resets += 1
        first, second = (stray, packet) if distance > 0 else (packet, stray)
        self._begin(first)
        return self.push(first, now) + self.push(second, now)

    def _begin(self, first: RtpPacket) -> None:
        self._ssrc = first.ssrc
        self._border = first.sequence
        self._highest = first.sequence - 1
        self._floor = first.sequence - _AGREE  # forerunners may have been overtaken

    def _progress(self, sequence: int, now: float) -> list[EncodedVideo]:
        """Hand out what the packet just stored under ``sequence`` completes."""
        frames: list[EncodedVideo] = []
        run = self._run
        if run is None or sequence != run.cursor:
            self._notice(sequence)
        while True:
            if self._run is not None:
                self._walk(self._run, frames, now)
            if not (blocked := self._run is None or self._run.cursor <= self._highest):
                break
            if not self._rejoin(frames):
                break
        if self._bytes > MAX_BYTES or len(self._packets) > MAX_PACKETS:
            self._overflow(now)
            blocked = True
        elif self._run is None and self._rescue is None and len(self._packets) > 2 * _KEEP_BEHIND:
            self._discard_below(self._highest - _KEEP_BEHIND)
        if not blocked:
            self._ask_at = None
        elif self._ask_at is None or (frames and self._run is not None):
            self._ask_at = now + self._patience_s
        return frames

    def _walk(self, run: _Run, frames: list[EncodedVideo], now: float) -> None:
        """In step: grow the run over what is there and hand out each picture that becomes whole."""
        while (end := self._end_of_picture(run)) is not None:
            packets = self._take(run.start, end)
            self._floor = self._border = end
            if self._rescue is not None and self._rescue.start < end:
                self._rescue = None  # the gap before it was filled: its packets were part of this walk
            try:
                picture = self._read(packets)
            except MalformedPacket:
                self.malformed += 1
                self.dropped += 1
                self._lose_step(end, now)
                return
            if picture is not None:
                frames.append(self._hand_out(picture, packets))
            run.start, run.timestamp = end, None

    def _rejoin(self, frames: list[EncodedVideo]) -> bool:
        """Blocked: if a keyframe behind the gap is whole, hand it out and be in step after it."""
        while (rescue := self._rescue) is not None:
            if (end := self._end_of_picture(rescue)) is None:
                return False
            packets = [self._packets[sequence] for sequence in range(rescue.start, end)]
            try:
                picture = self._read(packets)
            except MalformedPacket:
                self.malformed += 1
                picture = None
            self._rescue = None
            if picture is not None and picture.keyframe:
                self._take(rescue.start, end)
                self._discard_below(end)
                self._run = _Run(end, end)
                self._border = end
                frames.append(self._hand_out(picture, packets))
                return True
            if self._run is None:
                self._border = end
            self._notice_from(end)
        return False

    def _end_of_picture(self, run: _Run) -> int | None:
        """Grow the run; the number after its last packet once it is whole, else None."""
        packets = self._packets
        while (packet := packets.get(run.cursor)) is not None:
            if not packet.payload and run.timestamp is None:  # padding between pictures
                del packets[run.cursor]
                run.cursor += 1
                run.start = self._floor = run.cursor
                continue
            if run.timestamp is None:
                run.timestamp = packet.timestamp
            elif packet.timestamp != run.timestamp and packet.payload:
                return run.cursor
            run.cursor += 1
            if packet.marker:
                return run.cursor
        return None

    def _notice(self, sequence: int) -> None:
        """Let the rescue follow the newest keyframe, from its first packet."""
        if not self._begins_keyframe(sequence):
            return
        rescue, timestamp = self._rescue, self._packets[sequence].timestamp
        same = rescue is not None and rescue.timestamp == timestamp
        if rescue is None or (sequence < rescue.start if same else sequence > rescue.start):
            self._rescue = _Run(sequence, sequence, timestamp)

    def _notice_from(self, first: int) -> None:
        for sequence in sorted(key for key in self._packets if key >= first):
            self._notice(sequence)

    def _begins_keyframe(self, sequence: int) -> bool:
        packet = self._packets[sequence]
        start = self._depacketizer.start(packet.payload)
        if start is Start.PERHAPS and sequence != self._border:
            before = self._packets.get(sequence - 1)
            return before is not None and before.timestamp != packet.timestamp
        return start is not Start.NO

    def _lose_step(self, sequence: int, now: float) -> None:
        """Nothing before ``sequence`` will be shown and what follows needs a keyframe: ask at once."""
        self._run = None
        self._ask_at = now
        if self._rescue is None:
            self._discard_below(sequence)
            self._notice_from(sequence)
        else:
            self._discard_below(self._rescue.start)

    def _overflow(self, now: float) -> None:
        """The table is full: keep the keyframe that is being gathered, if that makes room, else nothing."""
        self.overflows += 1
        self._lose_step(self._highest + 1, now)
        if self._bytes > MAX_BYTES or len(self._packets) > MAX_PACKETS:
            self._rescue = None
            self._discard_below(self._highest + 1)

    def _discard_below(self, sequence: int) -> None:
        stale = [key for key in self._packets if key < sequence]
        if stale:
            discarded = [self._packets.pop(key) for key in stale]
            self._bytes -= sum(len(packet.payload) for packet in discarded)
            self.dropped += _pictures(discarded)
        self._floor = max(self._floor, sequence)
        self._nacks.forget_below(sequence)

    def _take(self, start: int, end: int) -> list[RtpPacket]:
        packets = [self._packets.pop(sequence) for sequence in range(start, end)]
        self._bytes -= sum([len(packet.payload) for packet in packets])
        return packets

    def _read(self, packets: list[RtpPacket]) -> Picture | None:
        payloads = [packet.payload for packet in packets if packet.payload]
        return self._depacketizer.assemble(payloads) if payloads else None

    def _hand_out(self, picture: Picture, packets: list[RtpPacket]) -> EncodedVideo:
        self.frames += 1
        pts = self._timestamps.unwrap(packets[0].timestamp)
        return EncodedVideo(self._codec, picture.data, pts, picture.keyframe)


def _pictures(packets: Iterable[RtpPacket]) -> int:
    """How many pictures end among these packets: each has one marker."""
    return sum(packet.marker for packet in packets)
