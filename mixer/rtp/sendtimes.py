"""When a sender's packets left, by a clock of its own: what a queue on its line is seen in. Pure.

Where abs-send-time is agreed, each packet says it. Else the first packet of a picture does by its RTP timestamp, as
libwebrtc's estimators took it before that extension: it is when the picture was taken, so a busy encoder looks like
a queue. Packets that say nothing are taken to have been under way as long as the last one that did.
"""

from __future__ import annotations

from typing import Final

from mixer.media import VIDEO_CLOCK_HZ
from mixer.rtp.packet import RtpPacket
from mixer.rtp.unwrap import Unwrapper

STAMP_HZ: Final = 1 << 18  # abs-send-time: 6.18 fixed point, so that it wraps after 64 s
MAX_SOURCES: Final = 8  # a camera and a screen of three layers each, and some that have changed


class _MediaClock:
    """The RTP clock of one SSRC, laid so that its first packet was under way as long as others then."""

    def __init__(self, timestamp: int, sent_at: float) -> None:
        self._unwrap = Unwrapper(32)
        self._origin = sent_at - self._unwrap.unwrap(timestamp) / VIDEO_CLOCK_HZ
        self._newest = timestamp

    def sent_at(self, timestamp: int) -> float | None:
        """Of the first packet of a picture; ``None`` for the rest, which may be paced, and for late ones."""
        ticks = self._unwrap.unwrap(timestamp)
        if ticks <= self._newest:
            return None
        self._newest = ticks
        return self._origin + ticks / VIDEO_CLOCK_HZ


class SendTimes:
    """``stamp_id``: id of abs-send-time's extension; ``None``: not agreed.

    Bound: the clocks of ``MAX_SOURCES`` SSRCs; with more, all are laid anew.
    """

    def __init__(self, stamp_id: int | None) -> None:
        self._stamp_id = stamp_id
        self._unwrap = Unwrapper(24)
        self._clocks: dict[int, _MediaClock] = {}
        self._way_s: float | None = None  # of the last that told; the two clocks' difference is in it

    @property
    def exact(self) -> bool:
        """Whether they are times of sending, not of taking a picture."""
        return self._stamp_id is not None

    def sent_at(self, packet: RtpPacket, now: float, *, picture: bool) -> float | None:
        """Seconds of the sender's clock; ``None`` until one has told. ``picture``: of an agreed video's SSRC.

        A malformed stamp (untrusted) is none.
        """
        told = self._told(packet, now, picture=picture)
        if told is not None:
            self._way_s = now - told
            return told
        return None if self._way_s is None else now - self._way_s

    def _told(self, packet: RtpPacket, now: float, *, picture: bool) -> float | None:
        if self._stamp_id is not None:
            stamp = packet.extensions.get(self._stamp_id, b"")
            return self._unwrap.unwrap(int.from_bytes(stamp, "big")) / STAMP_HZ if len(stamp) == 3 else None
        if not picture:
            return None
        clock = self._clocks.get(packet.ssrc)
        if clock is not None:
            return clock.sent_at(packet.timestamp)
        if len(self._clocks) >= MAX_SOURCES:
            self._clocks.clear()
        sent_at = now - (self._way_s or 0.0)
        self._clocks[packet.ssrc] = _MediaClock(packet.timestamp, sent_at)
        return sent_at
