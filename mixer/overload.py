"""Too much to do in the time there is: how that is seen, and what is given up for it, in declared steps. Pure.

Each second what was done is held against the time that there was for it; the worst share is the room's pressure:

    | cause    | share                                                                     |
    | -------- | ------------------------------------------------------------------------- |
    | canvas   | scale, compose, encode: of the frame's period                             |
    | frames   | frame ticks that were dropped: a tenth of them is all that is borne       |
    | decoding | of the time of the decoding threads                                       |
    | loop     | CPU of the thread that carries packets and sound: of one core, its most   |
    | sound    | sound ticks that were dropped: one in a second is all that is borne       |
    | cores    | CPU of the room's process, of the cores that it may use                   |

    | pressure          | for    | then                                                           |
    | ----------------- | ------ | -------------------------------------------------------------- |
    | ≥ 0.85            | 2 s    | nobody new is taken in, before those inside feel anything      |
    | ≥ 0.95            | 4 s    | one step down; the next one in 4 s, if this one does not do    |
    | < 0.65            | 10 s   | one step up; twice as long, up to 80 s, when it failed in 30 s |

Sound is never given up. While a room is recorded it goes down other steps (``RECORDED_STEPS``): the canvas keeps its
size and everybody on it, and after the pictures a second it is the viewers who get smaller ones. A recorded scene of
its own, beside a reduced one for the viewers, would cost more than it saves: the decoding for it stays, which is the
most, and a second scene is scaled, composed and encoded beside the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mixer.video.layout import LayoutBody

FULL_AT: Final = 0.85
OVER_AT: Final = 0.95
EASY_AT: Final = 0.65  # a step up brings back half as much again, and must not lead straight down
FULL_S: Final = 2.0  # one second may be a neighbour's compiler
OVER_S: Final = (
    4.0  # after the door: it has been closed for two seconds, and who came in just before is in the figures
)
EASY_S: Final = 10.0
MAX_EASY_S: Final = 80.0
FAILED_S: Final = 30.0
FRAMES_BORNE: Final = 0.1
TICKS_BORNE: Final = 1
WHOLE_S: Final = 5.0  # without holes, before that is said of the pictures

Cause = Literal["canvas", "frames", "decoding", "loop", "sound", "cores"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was done in ``elapsed_s`` seconds. ``canvas_s``: of the canvas thread. ``frames`` ticks were run,
    ``frames_dropped`` left out. ``decoding_s``: of all ``decoders`` threads. ``loop_s``: CPU of the loop's thread.
    ``sound_dropped``: sound ticks left out. ``cpu_s`` of the process, which may use ``cores``.
    """

    elapsed_s: float
    canvas_s: float
    frames: int
    frames_dropped: int
    decoding_s: float
    decoders: int
    loop_s: float
    sound_dropped: int
    cpu_s: float
    cores: float

    @property
    def shares(self) -> dict[Cause, float]:
        """By cause; 1.0 is all that there is."""
        elapsed_s = max(self.elapsed_s, 1e-3)
        ticks = max(1, self.frames + self.frames_dropped)
        return {
            "canvas": self.canvas_s / elapsed_s,
            "frames": self.frames_dropped / ticks / FRAMES_BORNE,
            "decoding": self.decoding_s / elapsed_s / self.decoders,
            "loop": self.loop_s / elapsed_s,
            "sound": self.sound_dropped / elapsed_s / TICKS_BORNE,
            "cores": self.cpu_s / elapsed_s / self.cores,
        }


@dataclass(frozen=True, slots=True)
class Step:
    """What the canvas is held to. ``quarters``: of its width and height. ``viewers``: the best rendition whose pictures
    are encoded for viewers alone; ``high`` is all of them.
    """

    name: str
    fps: int
    quarters: int
    max_tiles: int
    viewers: str = "high"


STEPS: Final[tuple[Step, ...]] = (
    Step("full", 60, 4, 25),
    Step("fps-20", 20, 4, 25),
    Step("fps-15", 15, 4, 25),
    Step("size-3/4", 15, 3, 25),
    Step("size-1/2", 15, 2, 25),
    Step("tiles-9", 15, 2, 9),
    Step("tiles-4", 15, 2, 4),
)
"""In this order: a picture less in two is seen by few, a smaller one by some, a missing person by everybody."""

RECORDED_STEPS: Final[tuple[Step, ...]] = (
    *STEPS[:3],
    Step("viewers-1/2", 15, 4, 25, "medium"),
    Step("viewers-1/4", 15, 4, 25, "low"),
)
"""Of a room that is recorded: who looks can look again, a film that lacks somebody lacks them for ever."""


def reduced(body: LayoutBody, step: Step) -> LayoutBody:
    """``body`` within the bounds of ``step``; itself where it is within them already."""
    canvas = body.canvas
    size = {
        "fps": min(canvas.fps, step.fps),
        "width": max(
            160, canvas.width * step.quarters // 8 * 2
        ),  # even, and not below what a layout may have
        "height": max(90, canvas.height * step.quarters // 8 * 2),
    }
    kept = {"canvas": canvas.model_copy(update=size), "max_tiles": min(body.max_tiles, step.max_tiles)}
    changed = body.model_copy(update=kept)
    return body if changed == body else changed


def decoding_threads(cores: int) -> int:
    """How many threads decode the pictures of one room on a machine of ``cores``.

    One core is the loop's and the canvas's: with two decoding threads on two cores a room of 9 + 9 took 1.15 and 1.20
    cores, with one 1.09 and 1.13, and no tick was lost.
    """
    return max(1, cores - 1)


class Overload:
    """One room's way down the steps and up again. ``moves`` counts them. ``acts``: otherwise it stays where it is and
    is never full, and only the pressure and its cause are told.
    """

    def __init__(self, *, acts: bool = True) -> None:
        self._acts = acts
        self._index = 0
        self._busy_since: float | None = None
        self._over_since: float | None = None
        self._easy_since: float | None = None
        self._holes_at = float("-inf")
        self._steps = STEPS
        self._up_at = float("-inf")
        self._easy_s = EASY_S
        self._full = False
        self.pressure = 0.0
        self.cause: Cause = "canvas"
        self.moves = 0
        self.holes = False
        """Whether so many frame ticks are dropped, at whatever step, that a film of them has holes."""

    @property
    def step(self) -> Step:
        """What holds now."""
        return self._steps[self._index]

    @property
    def index(self) -> int:
        """Of the step; 0: nothing is given up."""
        return self._index

    @property
    def full(self) -> bool:
        """Nobody new is to be taken in."""
        return self._full or self._index > 0

    def set_recorded(self, recorded: bool) -> None:
        """Whether the room is recorded: other steps, from this instant on; as many of them as there are."""
        self._steps = RECORDED_STEPS if recorded else STEPS
        self._index = min(self._index, len(self._steps) - 1)

    def update(self, sample: Sample, now: float) -> Step:
        """Take the last second; the step from now on."""
        shares = sample.shares
        self.cause = max(shares, key=lambda cause: shares[cause])
        self.pressure = shares[self.cause]
        if shares["frames"] >= 1.0:
            self._holes_at = now
        self.holes = now - self._holes_at < WHOLE_S
        if not self._acts:
            return self.step
        self._busy_since = _since(self._busy_since, self.pressure >= FULL_AT, now)
        self._over_since = _since(self._over_since, self.pressure >= OVER_AT, now)
        self._easy_since = _since(self._easy_since, self.pressure < EASY_AT, now)
        # full until it is easy again: a figure that sways about the border must not open and close the door
        self._full = _lasts(self._busy_since, FULL_S, now) or (self._full and self.pressure >= EASY_AT)
        self._move(now)
        return self.step

    def _move(self, now: float) -> None:
        if _lasts(self._over_since, OVER_S, now) and self._index < len(self._steps) - 1:
            failed = now - self._up_at < FAILED_S
            self._easy_s = min(MAX_EASY_S, 2 * self._easy_s) if failed else EASY_S
            self._go(self._index + 1, now)
        elif _lasts(self._easy_since, self._easy_s, now) and self._index:
            self._up_at = now
            self._go(self._index - 1, now)

    def _go(self, index: int, now: float) -> None:
        self._index = index
        self.moves += 1
        self._over_since = self._easy_since = None


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _lasts(since: float | None, seconds: float, now: float) -> bool:
    # Each sample speaks for the second before it, so the first one has lasted for one already.
    return since is not None and now - since >= seconds - 1.0 - 1e-6
