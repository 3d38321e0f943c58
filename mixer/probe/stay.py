"""How long a caller's tile was in its place, by looks at the wall that are seconds apart. Pure."""

from __future__ import annotations

from typing import Final

from mixer.probe.signal import Rect

MOVES_IN_S: Final = (
    1.0  # from the server's word to the picture here: a frame, the line, a jitter buffer, a keyframe
)


class Stay:
    """Between two looks nothing is known but what both say. A tile that both find in one place was there; one that
    came, went or moved meanwhile cannot be read until the next look, and its standing still is nobody's fault.
    """

    def __init__(self) -> None:
        self._place: Rect | None = None
        self._spans: list[tuple[float, float]] = []

    def look(self, place: Rect | None, now: float) -> None:
        """``place``: where the tile is ``now``, in seconds; None: nowhere."""
        if place is not None and place == self._place:
            self._spans[-1] = (self._spans[-1][0], max(now, self._spans[-1][0]))
        elif place is not None:
            self._spans.append((now + MOVES_IN_S, now + MOVES_IN_S))
        self._place = place

    def within(self, start: float, end: float) -> list[tuple[float, float]]:
        """From when to when it was shown, of ``start`` … ``end``."""
        cut = ((max(since, start), min(until, end)) for since, until in self._spans)
        return [(since, until) for since, until in cut if since < until]
