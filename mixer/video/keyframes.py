"""When to force a keyframe, for all who share one encoder.

Each keyframe costs every viewer about ten pictures' worth of bits, so one viewer's bad line must not decide
alone: losses are answered by one forced keyframe a second at most, put off rather than forgotten. Someone who
joins sees nothing before a keyframe and gets one at once; only a crowd that comes together shares.
"""

from __future__ import annotations

from typing import Final

LOSS_INTERVAL_S: Final = 1.0  # DESIGN.md, rule 6
JOIN_INTERVAL_S: Final = 0.2  # a room of 30 that reconnects gets five keyframes a second, not 30


class KeyframePolicy:
    """Coalesces keyframe requests. Times are seconds on any one steady clock, media time included.

    Counters: ``requested`` by viewers, ``forced`` at the encoder.
    """

    def __init__(
        self, *, loss_interval_s: float = LOSS_INTERVAL_S, join_interval_s: float = JOIN_INTERVAL_S
    ) -> None:
        self._loss_interval_s = loss_interval_s
        self._join_interval_s = join_interval_s
        self._last: float | None = None  # the latest keyframe, made or only asked for
        self._interval_s: float | None = None  # of the request that waits; None: none waits
        self.requested = 0
        self.forced = 0

    def lost(self) -> None:
        """A viewer cannot decode any more (PLI, FIR)."""
        self._want(self._loss_interval_s)

    def joined(self) -> None:
        """A newcomer sees nothing yet."""
        self._want(self._join_interval_s)

    def made(self, now: float) -> None:
        """A keyframe went out, forced or by itself: everybody is served."""
        self._last = now
        self._interval_s = None

    def due(self, now: float) -> bool:
        """True: force one now. A request stays until `made`, so a force without effect is repeated."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return False
        self._last = now
        self._interval_s = self._loss_interval_s
        self.forced += 1
        return True

    @property
    def deadline(self) -> float | None:
        """When to force one; None: nobody waits."""
        if self._interval_s is None:
            return None
        return float("-inf") if self._last is None else self._last + self._interval_s

    def _want(self, interval_s: float) -> None:
        self.requested += 1
        if self._interval_s is None or interval_s < self._interval_s:
            self._interval_s = interval_s
