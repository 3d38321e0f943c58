"""What all ways of measuring a line have in common: its state, a rate that is lowered and grows, windows. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

MIN_BPS: Final = 20_000  # below the `audio` rendition there is nothing left to give up
MAX_BPS: Final = 10_000_000  # nobody needs to know more
DECREASE_S: Final = 0.2  # between two: the first must show; libwebrtc waits a round trip, of 200 ms at most
LOSS_PACKETS: Final = 50  # of a quick judgement on loss; bursts of five are a tenth of it
MANY_PACKETS: Final = 400  # of a sure one: 14 % in bursts look like 25 % once in 20 minutes
LOSSY: Final = 0.05  # with a standing queue: an overflowing router
STANDING_QUEUE_S: Final = (
    0.08  # as `bandwidth.QUEUE_S`: less, all through a window, is the jitter of a busy radio
)
VERY_LOSSY: Final = 0.25  # whatever the delay: a policer
HALF: Final = 0.5  # no need to look long
_LOSS_SMOOTHING: Final = 0.3  # of the loss that is told, a judgement


@dataclass(frozen=True, slots=True)
class LineState:
    """How a line is. ``estimate_bps``: headers of IP and UDP included; ``None``: nothing known, nothing wrong.
    ``loss``: share 0 to 1, smoothed over some seconds. ``queue_s``: delay over the smallest seen.
    """

    estimate_bps: int | None
    loss: float
    rtt_s: float | None
    queue_s: float


class LineRate:
    """The estimate itself, bits a second, ``MIN_BPS`` to ``MAX_BPS``; ``None`` while nothing is known.

    Counters: ``decreases`` by reason.
    """

    def __init__(self) -> None:
        self.bps: float | None = None
        self.decreases: Counter[str] = Counter()
        self.decreased_at = float("-inf")
        self._grown_at: float | None = None

    def decrease(self, to_bps: float, now: float, reason: str) -> None:
        """Down to ``to_bps``, if that is less; not twice within ``DECREASE_S``."""
        if now - self.decreased_at < DECREASE_S:
            return
        self._grown_at = now
        self.decreased_at = now
        to_bps = bounded(to_bps)
        if self.bps is None or to_bps < self.bps:
            self.decreases[reason] += 1
            self.bps = to_bps

    def grow(self, growth: float, now: float, *, most: float) -> None:
        """``growth`` times as much a second, up to ``most``; never less than it is."""
        if self.bps is not None and self._grown_at is not None:
            elapsed_s = min(1.0, max(0.0, now - self._grown_at))
            self.bps = max(self.bps, min(self.bps * growth**elapsed_s, most, MAX_BPS))
        self._grown_at = now

    def congested(self, now: float) -> bool:
        """Whether it has just been lowered."""
        return now - self.decreased_at < DECREASE_S

    def hold(self, now: float) -> None:
        """Neither; growth goes on from here."""
        self._grown_at = now

    def measured(self, bps: float, now: float, *, at_least: bool) -> None:
        """A burst came through at ``bps``: the first news makes the estimate, ``at_least`` so much raises it."""
        bps = bounded(bps)
        if self.bps is None:
            self.bps, self._grown_at = bps, now
        elif at_least:
            self.bps = max(self.bps, bps)


def bounded(bps: float) -> float:
    """Within what an estimate may be."""
    return min(MAX_BPS, max(MIN_BPS, bps))


class Smallest:
    """The smallest value of the last one to two periods."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._since = float("-inf")
        self._now = self._before = float("inf")

    def add(self, value: float, now: float) -> float:
        """Take a value; the smallest, this one included."""
        if now - self._since > self._period_s:
            self._before, self._now, self._since = self._now, value, now
        self._now = min(self._now, value)
        return min(self._before, self._now)


@dataclass(frozen=True, slots=True)
class _Judged:
    loss: float
    queue_s: float  # the shortest: jitter comes and goes, a router's queue that overflows stays


class _Window:
    """Loss over at least so many packets, one window after the other."""

    def __init__(self, packets: int) -> None:
        self._packets = packets
        self._arrived = self._lost = 0
        self._queue_s = float("inf")

    def add(self, arrived: int, lost: int, queue_s: float) -> _Judged | None:
        self._arrived += arrived
        self._lost += lost
        self._queue_s = min(self._queue_s, queue_s)
        if self._arrived + self._lost < self._packets:
            return None
        judged = _Judged(max(0, self._lost) / (self._arrived + self._lost), self._queue_s)
        self._arrived = self._lost = 0
        self._queue_s = float("inf")
        return judged


class LossJudge:
    """When loss is the line's being full: with a queue that stands, or more than any radio explains.
    ``loss``: share 0 to 1, smoothed over some seconds. ``patient``: half of few packets lost is a long burst yet.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self._few, self._many = _Window(LOSS_PACKETS), _Window(MANY_PACKETS)
        self.loss = 0.0

    def full(self, arrived: int, lost: int, queue_s: float) -> bool:
        """A report: packets, and the shortest delay over the smallest meanwhile. ``lost`` < 0: late ones came."""
        few, many = self._few.add(arrived, lost, queue_s), self._many.add(arrived, lost, queue_s)
        if few is not None:
            self.loss += _LOSS_SMOOTHING * (few.loss - self.loss)
        overflowing = few is not None and few.loss > LOSSY and few.queue_s > STANDING_QUEUE_S
        policed = many is not None and many.loss > VERY_LOSSY
        halved = few is not None and few.loss > HALF and not self._patient
        return overflowing or policed or halved
