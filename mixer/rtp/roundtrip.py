"""What a line carries towards a peer that does not tell when packets came. Pure: echoes and reports in, bits out.

Two kinds: one tells its own estimate (REMB), the other one nothing but what receiver reports say. Of both we know

    | from                   | how often     | what                                                            |
    | ---------------------- | ------------- | --------------------------------------------------------------- |
    | echoes                 | 10 to 1 a s   | the queue, what is delivered, how a burst is drawn out          |
    | echoes that don't come | at once       | a queue that long, or full, and what is delivered at most       |
    | receiver reports       | each 1 to 5 s | the share that is lost, the packets that arrived                |

REMB follows what we send and is seconds behind: 40 kbit/s were told where 90 came through in time (aiortc's, for
10 s). So it is heard only of a peer that answers no call; then only one below what is sent, and not rising, is news.

An echo that is late once is jitter, or a receiver that was busy: what comes after it is less late. In a queue that
fills, the next one is later still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mixer.rtp.bandwidth import BACK_OFF, DEEP_QUEUE_S, GROWTH
from mixer.rtp.burst import BurstResult
from mixer.rtp.echo import Call, Echo, EchoMeter
from mixer.rtp.line import (
    HALF,
    LOSSY,
    MAX_BPS,
    STANDING_QUEUE_S,
    VERY_LOSSY,
    LineRate,
    LineState,
    LossJudge,
    Smallest,
    bounded,
)

SUSPECT_QUEUE_S: Final = 0.05  # an echo so late, and one later still after it: a queue fills
CALM_QUEUE_S: Final = 0.05  # the same: what is not suspected may grow
STANDING_S: Final = 1.0  # all echoes of so long late: a queue stands
STANDING_ECHOES: Final = (
    4  # at least: half a second of the usual calling, so that a few late ones are no queue
)
STANDING_ECHO_S: Final = 0.12  # half more than `bandwidth.QUEUE_S`: the jitter of the way back is in it, too
FULL_S: Final = 0.4  # of calls before a fall
EMPTIES: Final = -0.2  # seconds a second; four fifths of what the line carries would make it so slow
RATE_S: Final = 0.1  # at least, between two echoes that measure a rate
OVERDUE_S: Final = 0.6  # without any answer: full, or down
OVERDUE_SUSPECT_S: Final = 0.25  # the same where the last answer was late already
FILLING_CALLS: Final = 2  # late at once: a single one may be lost
OVERDUE_CALLS: Final = 4  # so many at least: one in five is lost where a tenth is lost each way
OVERDUE_MANY_S, MANY_CALLS = 0.3, 8  # none of so many
OVERDUE_AGAIN_S: Final = 1.5  # between two such falls: a queue of a second must have had time to empty
REMB_LAG_S: Final = 1.2  # an estimator looks at a second of what came
RISING: Final = 1.001  # one that follows what we send creeps up; a line that is full, or a limit, does not
BLIND_GROWTH: Final = 1.15  # a second, where nothing can be measured and trying is all there is
BLIND_MOST: Final = 6.0  # times what is sent: one rendition up (4 to 5 times as much), and then see
REPORT_S: Final = 1.0  # between two reports, as browsers send them
RTT_GROWTH_S: Final = 0.3  # of the reports' own round trips, for peers that answer no call
_BASE_RTT_S: Final = 15.0  # as `bandwidth.BASE_DELAY_S`


@dataclass(frozen=True, slots=True)
class Report:
    """What receiver reports say of all streams ``since`` the ones before: packets, and about how fast they came."""

    since: float
    arrived: int
    lost: int
    bps: float


class RoundTripEstimator:
    """See the module. ``measured``: bursts can be sent, so there is no need to grow blindly."""

    def __init__(self, meter: EchoMeter, *, measured: bool) -> None:
        self._meter = meter
        self._measured = measured
        self._judge = LossJudge()
        self._remb_before: int | None = None
        self._remb_since = 0.0
        self._base_rtt = Smallest(_BASE_RTT_S)
        self._doubtful = False  # the queue hardly grew when the estimate fell
        self._overdue_at = self._drained_at = float("-inf")
        self._queue_s = 0.0  # the shortest since the last report
        self.rate = LineRate()
        self.rtt_s: float | None = None
        self.queue_s = 0.0

    @property
    def bps(self) -> float | None:
        """The estimate; ``None`` while nothing is known."""
        return self.rate.bps

    @property
    def state(self) -> LineState:
        """All that is known."""
        bps = self.bps
        return LineState(round(bps) if bps is not None else None, self._judge.loss, self.rtt_s, self.queue_s)

    @property
    def suspects(self) -> bool:
        """Whether the last echo was late: the next one decides."""
        return self.queue_s > SUSPECT_QUEUE_S

    def echo(self, echo: Echo, before: Echo | None, sent_bps: float, now: float, *, disturbed: bool) -> None:
        """One is back; ``before``: the last one before it. ``disturbed``: our own burst may explain a queue."""
        self.queue_s = echo.queue_s
        self._queue_s = min(self._queue_s, echo.queue_s)
        self.rtt_s = echo.rtt_s
        if echo.call.sent_at < self._from:
            self.rate.hold(now)  # made before what has been done about it
            return
        fills = (
            before is not None
            and before.call.sent_at >= self._from
            and SUSPECT_QUEUE_S < before.queue_s < echo.queue_s - 0.01
            and echo.queue_s > DEEP_QUEUE_S
        )
        if not disturbed and (fills or self._stands(echo)):
            self._fall(echo, now)
        elif echo.queue_s < CALM_QUEUE_S:
            most = 1.5 * sent_bps + 10_000 if self._measured else BLIND_MOST * sent_bps
            self.rate.grow(GROWTH if self._measured else BLIND_GROWTH, now, most=most)
        else:
            self.rate.hold(now)

    def burst(self, result: BurstResult, now: float) -> None:
        """What a burst measured: good news raises the estimate; the first news makes it."""
        if result.began_at >= self.rate.decreased_at and result.loss <= VERY_LOSSY:
            bps = 0.95 * result.bps if result.saturated else result.bps
            self.rate.measured(bps, now, at_least=not result.saturated)

    def remb(self, bps: int, sent_bps: float, now: float) -> None:
        """The peer's own estimate. ``sent_bps``: what we send it, headers included."""
        before = self._remb_before
        if bps >= 0.9 * sent_bps or before is None or bps > RISING * before:
            self._remb_before, self._remb_since = bps, now
        elif now - self._remb_since >= REMB_LAG_S and not self._meter.answered:
            self._remb_since = now
            self.rate.decrease(bps, now, "remb")

    def report(self, told: Report, rtt_s: float | None, now: float) -> None:
        """A receiver report."""
        queue_s, self._queue_s = self._queue_s, float("inf")
        if not self._meter.answered:
            queue_s = self._deaf(rtt_s, told.bps, now)
        if told.since - (self.rtt_s or 0.0) < self._from + REPORT_S:
            return  # of what was sent before the last fall: a gap is seen only when something comes after it
        if self._judge.full(told.arrived, told.lost, queue_s if queue_s < float("inf") else 0.0):
            self.rate.decrease((1.0 - LOSSY) * told.bps, now, "loss")

    def drained(self, fell_at: float, now: float) -> None:
        """What was sent before a fall is through, or lost. A queue that hardly grew was perhaps full: how much was
        delivered then shows in how many calls came through.
        """
        bps, through = self.rate.bps, self._meter.through(fell_at - FULL_S)
        if self._doubtful and bps is not None and through < HALF:
            self.rate.decrease(bps * through, now, "loss")
        self._doubtful, self._drained_at = False, now

    def poll(self, now: float, *, disturbed: bool) -> None:
        """Each 100 ms or more often: notices that calls are not answered any more."""
        newest = self._meter.newest
        meter, waiting = self._meter, self._meter.waiting(now)
        late = [c for c in waiting if c.sent_at >= self._from and meter.overdue_s(c, now) > STANDING_QUEUE_S]
        if newest is None or len(late) < FILLING_CALLS:
            return
        late_s = meter.overdue_s(late[0], now)
        if len(late) >= OVERDUE_CALLS:
            self.queue_s = max(self.queue_s, late_s)
        if disturbed:
            return
        if (
            newest.call.sent_at >= self._from
            and newest.queue_s > DEEP_QUEUE_S
            and late_s > newest.queue_s + 0.01
        ):
            self._fall(newest, now)
        limit_s = OVERDUE_SUSPECT_S if newest.queue_s > SUSPECT_QUEUE_S else OVERDUE_S
        if len(late) >= MANY_CALLS:
            limit_s = min(limit_s, OVERDUE_MANY_S)
        overdue = len(late) >= OVERDUE_CALLS and late_s - newest.queue_s > limit_s
        if overdue and now - self._overdue_at > OVERDUE_AGAIN_S:
            self._overdue_at = now
            self.rate.decrease(BACK_OFF * _most_bps(newest, late[0], late_s), now, "silence")

    @property
    def _from(self) -> float:
        return max(self.rate.decreased_at, self._drained_at)

    def _stands(self, echo: Echo) -> bool:
        """Whether a queue has been there for a while; one that empties needs no answer."""
        after = self._meter.since(self._from)
        recent = [e for e in after if e.call.sent_at >= echo.call.sent_at - STANDING_S]
        if len(recent) < STANDING_ECHOES:
            recent = after[-STANDING_ECHOES:]
        elapsed_s = echo.call.sent_at - recent[0].call.sent_at
        if len(recent) < STANDING_ECHOES or elapsed_s < STANDING_S / 2:
            return False
        empties = echo.queue_s - recent[0].queue_s < EMPTIES * elapsed_s
        return not empties and min(e.queue_s for e in recent) > STANDING_ECHO_S

    def _fall(self, echo: Echo, now: float) -> None:
        """Down to what was delivered between the answers of ``echo`` and of one a tenth of a second before it."""
        first = self._meter.before(echo.call.sent_at - RATE_S)
        if first is None:
            return
        sent_s = echo.call.sent_at - first.call.sent_at
        elapsed_s = sent_s + echo.rtt_s - first.rtt_s
        if elapsed_s > 0:
            self._doubtful = elapsed_s < sent_s / HALF
            octets = (echo.call.octets - first.call.octets) * self._meter.through(first.call.sent_at)
            self.rate.decrease(BACK_OFF * octets * 8 / elapsed_s, now, "delay")

    def _deaf(self, rtt_s: float | None, arrived_bps: float, now: float) -> float:
        """A peer that answers no call: the queue by the reports' own round trips, and growth without a measure."""
        if rtt_s is not None:
            self.rtt_s = rtt_s
            self.queue_s = rtt_s - self._base_rtt.add(rtt_s, now)
        if self.rate.bps is None:
            self.rate.measured(arrived_bps, now, at_least=False)
        elif self.queue_s > RTT_GROWTH_S:
            self.rate.decrease(BACK_OFF * arrived_bps, now, "delay")
        else:
            self.rate.grow(BLIND_GROWTH, now, most=min(MAX_BPS, BLIND_MOST * arrived_bps))
        return self.queue_s


def _most_bps(newest: Echo, first: Call, late_s: float) -> float:
    """What came through at most, when all that was sent between the two has not in that time."""
    elapsed_s = first.sent_at - newest.call.sent_at + late_s - newest.queue_s
    return bounded((first.octets - newest.call.octets) * 8 / elapsed_s if elapsed_s > 0 else 0.0)
