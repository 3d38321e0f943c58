"""Which rendition a viewer with ``auto`` gets: the best that its line carries. Pure.

    | when                                                    | waits | goes to                |
    | ------------------------------------------------------- | ----- | ---------------------- |
    | estimate < 0.8 × what the present rendition takes       | no    | the best that fits     |
    | estimate ≥ 1.15 × what a better one takes, at the start | 0.3 s | the best so much below |
    | the same, after a step up                               | 2 s   | the best so much below |
    | the same, after a fall                                  | 4 s   | the best so much below |
    | the same, after a second fall within a minute           | until the minute is over       |
    | nothing known                                           |       | stays                  |

Down is one step to where the line is, whatever lies between: each further second at the wrong rate is a second of
queue. Up is slow, because a step up that fails is a freeze. Steps down soon after another are one fall, so nobody
is moved more than four times a minute unless the line itself gets worse again and again. The gap between 0.8 and
1.15 is the hysteresis: the estimate after congestion is 0.85 of what came through, and a rendition takes less than
its limit most of the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mixer.rtp.line import LineState
from mixer.video.rendition import RENDITIONS, Rendition

DOWN: Final = 0.8
UP: Final = 1.15
START_S: Final = 0.3
AFTER_UP_S: Final = 2.0
AFTER_DOWN_S: Final = 4.0
FALL_S: Final = 5.0  # a fall takes so long at most: it may find the line's rate in two steps
CALM_S: Final = 60.0
_AUDIO_PACKET: Final = 58  # bytes beside the coded sound: IP, UDP, RTP with one extension, SRTP's tag

FEC_ON: Final = 0.01  # of packets lost: a line that loses 2 %, which is heard, is seen as one of 1 to 3 %
FEC_OFF: Final = 0.005
FEC_HOLD_S: Final = 20.0  # below it for so long: each change is a new encoder


@dataclass(frozen=True, slots=True)
class Rung:
    """One step. ``bps``: what it takes of the line at most."""

    rendition: Rendition
    bps: int


def rungs(*, video: bool) -> tuple[Rung, ...]:
    """The steps for a viewer that takes pictures, or sound alone; best first."""
    if video:
        return tuple(Rung(rendition, rendition.wire_bps) for rendition in RENDITIONS.values())
    return tuple(
        Rung(rendition, rendition.audio_bps + _AUDIO_PACKET * 8 * 1000 // rendition.audio_ptime_ms)
        for rendition in RENDITIONS.values()
    )


class Ladder:
    """One viewer's way up and down. ``moves`` counts them."""

    def __init__(self, steps: Sequence[Rung], start: Rendition, now: float) -> None:
        self._steps = tuple(steps)
        self._at = next(index for index, step in enumerate(steps) if step.rendition is start)
        self._ready_at = now + START_S
        self._falls: deque[float] = deque(maxlen=2)  # when the last two began
        self.moves = 0

    @property
    def rendition(self) -> Rendition:
        """Where it stands."""
        return self._steps[self._at].rendition

    @property
    def wanted_bps(self) -> int | None:
        """What the line must be good for to go one step up; ``None`` at the top."""
        return round(UP * self._steps[self._at - 1].bps) if self._at else None

    def update(self, line: LineState, now: float) -> Rendition:
        """The rendition from now on. To be asked several times a second."""
        estimate = line.estimate_bps
        if estimate is None:
            return self.rendition
        if estimate < DOWN * self._steps[self._at].bps and self._at < len(self._steps) - 1:
            self._down(estimate, now)
        elif now >= self._ready_at:
            self._up(estimate, now)
        return self.rendition

    def _down(self, estimate: int, now: float) -> None:
        lowest = len(self._steps) - 1
        below = range(self._at + 1, lowest)
        self._move(next((step for step in below if self._steps[step].bps <= estimate), lowest))
        if not self._falls or now - self._falls[-1] > FALL_S:
            self._falls.append(now)
        again = len(self._falls) == 2 and now - self._falls[0] < CALM_S
        self._ready_at = self._falls[0] + CALM_S if again else now + AFTER_DOWN_S

    def _up(self, estimate: int, now: float) -> None:
        better = next((step for step in range(self._at) if UP * self._steps[step].bps <= estimate), None)
        if better is not None:
            self._move(better)
            self._ready_at = now + AFTER_UP_S

    def _move(self, step: int) -> None:
        self._at = step
        self.moves += 1


class FecPolicy:
    """Whether a viewer's Opus packets carry in-band FEC: from 2 % of loss on, until 20 s under 0.5 %."""

    def __init__(self) -> None:
        self.on = False
        self._lossy_at = float("-inf")

    def update(self, loss: float, now: float) -> bool:
        """``loss``: share of packets, smoothed over some seconds."""
        if loss >= FEC_ON or (self.on and loss >= FEC_OFF):
            self.on = True
            self._lossy_at = now
        elif now - self._lossy_at >= FEC_HOLD_S:
            self.on = False
        return self.on
