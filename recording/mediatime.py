"""From the room's clock to the file's: where a recording starts, what its pauses cut out. Pure.

Video counts 90,000 a second and audio 48,000; an instant here is 1/720,000 s, the coarsest unit in which both
are whole numbers. So the arithmetic is exact: after any number of hours and pauses sound and picture are
placed by the same sum, and no rounding can drive them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INSTANT_HZ: Final = 720_000  # lcm(90,000, 48,000)
VIDEO_CLOCK_HZ: Final = 90_000  # RFC 3551 section 5
AUDIO_CLOCK_HZ: Final = 48_000  # the bridge's rate
VIDEO_TICK: Final = INSTANT_HZ // VIDEO_CLOCK_HZ
AUDIO_TICK: Final = INSTANT_HZ // AUDIO_CLOCK_HZ


def seconds(instants: int) -> float:
    """Seconds of a number of instants."""
    return instants / INSTANT_HZ


@dataclass(slots=True)
class _Span:
    """Room time that is in the file: from ``start`` up to, not including, ``end`` (None: still running)."""

    start: int
    end: int | None
    media: int  # the file's time at ``start``


class MediaTime:
    """Maps instants of the room to instants of the file.

    Nothing is in the file before `start`. `pause` ends a span, `start` (at a keyframe) begins the next one,
    at the very instant of the file where the last ended. Late packets of the span before the pause still find
    their place.
    """

    def __init__(self, *, media: int = 0) -> None:
        """``media``: the file's time at the first `start`; more than 0 when a file is continued."""
        self._spans: list[_Span] = []
        self._media = media

    @property
    def running(self) -> bool:
        """True between `start` and `pause`."""
        return bool(self._spans) and self._spans[-1].end is None

    def start(self, room: int) -> int:
        """Begin a span at ``room``; returns how long the pause before it was (0 for the first)."""
        if self.running:
            raise ValueError("the recording is running already")
        cut = 0
        if self._spans and (end := self._spans[-1].end) is not None:
            room = max(room, end)
            cut = room - end
        self._spans = [
            *self._spans[-1:],
            _Span(room, None, self._media),
        ]  # older spans get no packets any more
        return cut

    def pause(self, room: int) -> None:
        """End the running span at ``room``."""
        span = self._spans[-1]
        span.end = max(room, span.start)
        self._media = span.media + span.end - span.start

    def place(self, room: int, duration: int = 0) -> int | None:
        """The file's time of a packet at ``room`` lasting ``duration``, or None when it is not, or not all,
        in the file.
        """
        for span in reversed(self._spans):
            if room >= span.start:
                whole = room < span.end and room + duration <= span.end if span.end is not None else True
                return span.media + room - span.start if whole else None
        return None

    def clamp(self, room: int) -> int:
        """The file's time of an event at ``room``: during a pause that is where the pause cut, before the
        start 0.
        """
        for span in reversed(self._spans):
            if room >= span.start:
                end = room if span.end is None else min(room, span.end)
                return span.media + end - span.start
        return self._spans[0].media if self._spans else self._media
