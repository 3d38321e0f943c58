"""When the next tick is due: origin + n × period, so that ticks never drift. Pure: time is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

PAUSE_S: Final = 0.16
# Between two ticks. Nobody is to have a hole of 200 ms because of somebody else (issue 3); 40 ms are the way's.


@dataclass(slots=True)
class TickSchedule:
    """Ticks of ``rate_hz`` counted from ``origin_s`` (seconds, monotonic clock).

    A tick that starts within its own period has run, late or not; one whose whole period has passed is
    dropped and counted, never queued: the next one starts on time. ``slack``: how many periods more a tick may
    be late and still be run, for ticks whose receivers wait that long anyway; it bounds how many run at once.
    ``longest_s``: between the beginnings of two ticks in a row; ``pauses``: how many were longer than ``PAUSE_S``,
    of those that ``dropped`` alone cannot tell from as many single ones.
    """

    origin_s: float
    rate_hz: int
    slack: int = 0
    last: int = -1
    run: int = 0
    late: int = 0
    dropped: int = 0
    pauses: int = 0
    longest_s: float = 0.0
    _begun_s: float | None = field(default=None, init=False)

    def due_s(self, index: int) -> float:
        """When tick ``index`` is due."""
        return self.origin_s + index / self.rate_hz

    def next(self, now_s: float) -> int:
        """The tick to wait for, after ``last``."""
        elapsed = math.floor((now_s - self.origin_s) * self.rate_hz)
        return max(self.last + 1, elapsed - self.slack)

    def begin(self, index: int, now_s: float) -> None:
        """Tick ``index`` runs now; those skipped since the last one are counted as dropped."""
        if self.last >= 0:
            self.dropped += index - self.last - 1
        self.last = index
        self.run += 1
        # A quarter of the period is what the jitter buffers and the pacing behind us absorb unseen.
        self.late += (now_s - self.due_s(index)) * self.rate_hz > 0.25
        if self._begun_s is not None:
            pause_s = now_s - self._begun_s
            self.longest_s = max(self.longest_s, pause_s)
            self.pauses += pause_s > PAUSE_S
        self._begun_s = now_s

    def resume(self, now_s: float, rate_hz: int | None = None) -> None:
        """After a pause that was meant (nobody watched), or with another rate: nothing was dropped."""
        if rate_hz is not None:
            self.rate_hz = rate_hz
        self.last = math.floor((now_s - self.origin_s) * self.rate_hz)
        self._begun_s = None

    def stats(self) -> dict[str, int]:
        """The contract's ``ticks`` counters, and what a hole in what people get is made of."""
        return {
            "run": self.run,
            "late": self.late,
            "dropped": self.dropped,
            "pauses": self.pauses,
            "longest_ms": round(1000 * self.longest_s),
        }
