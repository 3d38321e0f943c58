"""Pictures at an even pace over a line that loses packets: all are held as long as the repaired ones take. Pure.

A lost packet is there again a round trip later, and the pictures behind it wait for it: the picture stops, and
then hurries. Once that has happened twice within eight seconds every picture is held so that the late ones come in
time (what browsers' own jitter buffers do); a good line has no delay from this.

What is held for has to have happened twice, too: the rare one that takes another round trip is later than the rest
by less than what is seen as a stop, and to wait for it would be a delay that comes and goes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mixer.media import VIDEO_CLOCK_HZ

LATE_S: Final = 0.06  # two pictures of 30 a second: less is jitter, and hardly seen
MAX_HOLD_S: Final = 0.2  # two repeats on a long line; as much as a voice may be asked to wait for its picture
INCIDENTS: Final = 2  # one late picture may have been a large one
MEMORY_S: Final = 8.0  # bursts of five that make 2 % of a camera's 50 packets a second come each five seconds
CALM_S: Final = 2.0  # without one a line counts as good again ...
CALM_TIMES: Final = 4  # ... or so many times what was between two, where they came seldom
LOWER_S_PER_S: Final = (
    0.1  # a hold that ends at once would be seen as a jump; libwebrtc lowers its own so, too
)
_JUMP_S: Final = 2.0  # a transit that far off is another clock
_BASE_S: Final = 10.0  # how long a fastest transit is believed


class Steady:
    """The pictures of one source. ``hold_s``: what a picture that comes in time waits."""

    def __init__(self) -> None:
        self.hold_s = 0.0
        self._base = self._base_before = float("inf")
        self._base_at = float("-inf")
        self._incidents: deque[list[float]] = deque(maxlen=64)  # [when, the latest of it]
        self._is_late = False
        self._at = 0.0

    def hold(self, pts: int, now: float) -> float:
        """Seconds that the picture of ``pts`` (90 kHz, the sender's clock) waits, complete since ``now``."""
        late_s = self._late(now - pts / VIDEO_CLOCK_HZ, now)
        if late_s > LATE_S:
            if self._is_late:
                self._incidents[-1][1] = max(self._incidents[-1][1], late_s)
            else:
                self._incidents.append([now, late_s])
        self._is_late = late_s > LATE_S
        while self._incidents and (now - self._incidents[0][0] > MEMORY_S or self._is_calm(now)):
            self._is_late = self._is_late and len(self._incidents) > 1
            self._incidents.popleft()
        lates = sorted((late for _, late in self._incidents), reverse=True)
        wanted = min(MAX_HOLD_S, lates[INCIDENTS - 1]) if len(lates) >= INCIDENTS else 0.0
        lowered = self.hold_s - LOWER_S_PER_S * min(1.0, max(0.0, now - self._at))
        self.hold_s, self._at = max(wanted, lowered), now
        return max(0.0, self.hold_s - late_s)

    def _is_calm(self, now: float) -> bool:
        """Whether the last incident is longer ago than the next one would be."""
        first, last = self._incidents[0][0], self._incidents[-1][0]
        between_s = (last - first) / (len(self._incidents) - 1) if len(self._incidents) > 1 else MEMORY_S
        return now - last > max(CALM_S, CALM_TIMES * between_s)

    def _late(self, transit_s: float, now: float) -> float:
        """Seconds later than the fastest picture lately."""
        if abs(transit_s - min(self._base, self._base_before)) > _JUMP_S:
            self._base, self._base_before, self._base_at = transit_s, float("inf"), now
            self._incidents.clear()
            self._is_late = False
        elif now - self._base_at > _BASE_S:
            self._base, self._base_before, self._base_at = transit_s, self._base, now
        self._base = min(self._base, transit_s)
        return transit_s - min(self._base, self._base_before)
