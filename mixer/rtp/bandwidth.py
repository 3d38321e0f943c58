"""What a line carries towards one peer. Pure: reports of any kind in, bits a second out.

Three kinds of peers, best first:

transport-cc   tells of each packet when it came: delay, loss, delivered rate, and bursts that measure upwards.
REMB           tells what its own estimate is. It rises a few per cent a second from what we send, so only one
               below that, and not rising, is news.
reports only   tell of loss and round trips each second. Upwards there is only trying.

Loss alone is no congestion: radio loses 10 % and carries everything else in time. It counts when a queue stands
at the same time, or when it is so high that no radio explains it. Decreases follow draft-ietf-rmcat-gcc-02
(0.85 of what is delivered); increases are multiplicative and bounded by what is delivered, or measured.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from mixer.rtp.burst import BurstResult
from mixer.rtp.departures import Departure, Outcome
from mixer.rtp.overuse import OveruseDetector

MIN_BPS: Final = 20_000  # below the `audio` rendition there is nothing left to give up
MAX_BPS: Final = 10_000_000  # nobody needs to know more
BACK_OFF: Final = 0.85  # gcc-02 section 5.5: beta
GROWTH: Final = 1.08  # a second, gcc-02 section 5.5: eta
BLIND_GROWTH: Final = 1.15  # a second, where nothing can be measured and trying is all there is

BLIND_MOST: Final = 6.0  # times what is sent: one rendition up (4 to 5 times as much), and then see

QUEUE_S: Final = 0.08  # of delay that has really grown, and a trend counts: less is jitter or a large picture
TWO_PACKETS_BITS: Final = 19_200  # which need so long themselves on a narrow line
IDLE_QUEUE_S: Final = 0.16  # the same while hardly anything is sent, so that it can't be our doing
DEEP_QUEUE_S: Final = 0.2  # and growing: no need to wait for a trend over twenty groups
CHOKED_QUEUE_S: Final = 0.12  # the same while packets arrive at half the rate at which they were sent
LOSSY: Final = 0.05  # with a standing queue: an overflowing router
STANDING_QUEUE_S: Final = 0.08
VERY_LOSSY: Final = 0.25  # whatever the delay: a policer
HALF: Final = 0.5  # no need to look long
LOSS_PACKETS: Final = 50  # of a quick judgement on loss; bursts of five are a tenth of it
MANY_PACKETS: Final = 400  # of a sure one: 14 % in bursts look like 25 % once in 20 minutes
DECREASE_S: Final = 0.2  # between two: the effect of the first must be seen before the second
SILENCE_S: Final = 1.0  # nothing reported for so long while we send: the line is down or choked
REMB_LAG_S: Final = 1.2  # an estimator looks at a second of what came
RISING: Final = 1.001  # one that follows what we send creeps up; a line that is full, or a limit, does not
REPORT_LAG_S: Final = 1.6  # a report tells of the second before: what it says may be remedied already
RTT_GROWTH_S: Final = 0.3  # over its minimum; for peers that tell nothing better
_RATE_S, _MAX_RATE_S, _RATE_PACKETS = 0.2, 1.0, 6  # the window of the delivered rate
_CHANGED: Final = 2.0  # the short window is noisy at low rates: it counts when it tells of something new
_BASE_DELAY_S: Final = 15.0  # how long a smallest delay is believed; routes change
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


class _Smallest:
    """The smallest value of the last one to two periods."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._since = float("-inf")
        self._now = self._before = float("inf")

    def add(self, value: float, now: float) -> float:
        if now - self._since > self._period_s:
            self._before, self._now, self._since = self._now, value, now
        self._now = min(self._now, value)
        return min(self._before, self._now)


@dataclass(frozen=True, slots=True)
class _Judged:
    loss: float
    queue_s: float  # the shortest: jitter comes and goes, a router's queue that overflows stays


class _LossWindow:
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


class BandwidthEstimator:
    """See the module. ``measured``: bursts can be sent, so there is no need to grow blindly.

    Counters: ``decreases`` by reason.
    """

    def __init__(self, *, measured: bool) -> None:
        self._measured = measured
        self._rate: float | None = None
        self._remb: int | None = None
        self._remb_before: int | None = None
        self._remb_since = 0.0
        self._detector = OveruseDetector()
        self._delivered: deque[tuple[float, float, int]] = deque()  # sent, arrived, bytes; of the last second
        self._delivered_octets = 0
        self._choked = False  # what arrived last was sent twice as fast
        self._base = _Smallest(_BASE_DELAY_S)
        self._base_rtt = _Smallest(_BASE_DELAY_S)
        self._few, self._many = _LossWindow(LOSS_PACKETS), _LossWindow(MANY_PACKETS)
        self._decreased_at = float("-inf")
        self._grown_at: float | None = None
        self._reported_at: float | None = None
        self.rtt_s: float | None = None
        self.queue_s = 0.0
        self.loss = 0.0
        self.decreases: Counter[str] = Counter()

    @property
    def bps(self) -> float | None:
        """The estimate; ``None`` while nothing is known."""
        if self._reported_at is not None and self._remb is not None:
            return self._remb if self._rate is None else min(self._rate, self._remb)
        return self._rate

    @property
    def state(self) -> LineState:
        """All that is known."""
        bps = self.bps
        return LineState(round(bps) if bps is not None else None, self.loss, self.rtt_s, self.queue_s)

    def congested(self, now: float) -> bool:
        """Whether the estimate has just been lowered."""
        return now - self._decreased_at < DECREASE_S

    # --- transport-cc

    def feedback(self, outcome: Outcome, now: float, *, disturbed: bool = False) -> None:
        """One report of what came. ``disturbed``: a burst of our own may explain a growing delay."""
        self._reported_at = now
        before_s, first_s = self.queue_s, None
        for departure in outcome.arrived:
            if departure.arrived_at is not None:
                self._arrived(departure, departure.arrived_at, now)
            first_s = self.queue_s if first_s is None else first_s
        delivered = self._delivered_bps()
        if delivered is None or first_s is None:
            return
        # A radio that was busy lets go of a heap at once, so that delays fall within a report; in a queue they rise.
        rising = self.queue_s > before_s + 0.01 and self.queue_s >= first_s
        choked = self._choked and not disturbed
        growing = rising and self.queue_s > (CHOKED_QUEUE_S if choked else DEEP_QUEUE_S)
        usage = self._detector.judge()
        trend = usage == "overuse" and self.queue_s > self._enough_s(delivered)
        if (trend and not disturbed) or growing:
            self._decrease(BACK_OFF * delivered, now, "delay")
        elif usage == "normal":
            self._grow(GROWTH, now, most=1.5 * delivered + 10_000 if self._measured else MAX_BPS)
        else:
            self._grown_at = now
        arrived = len(outcome.arrived) - sum(departure.reported_lost for departure in outcome.arrived)
        self._judge_loss(arrived, len(outcome.lost), delivered, now)

    def burst(self, result: BurstResult, now: float) -> None:
        """What a burst measured: good news raises the estimate; the first news makes it."""
        if result.began_at < self._decreased_at or result.loss > VERY_LOSSY:
            return
        bps = min(MAX_BPS, max(MIN_BPS, 0.95 * result.bps if result.saturated else result.bps))
        if self._rate is None:
            self._rate, self._grown_at = bps, now
        elif not result.saturated:
            self._rate = max(self._rate, bps)

    def _enough_s(self, delivered_bps: float) -> float:
        """How much delay must have grown before a trend counts."""
        if self._rate is None:
            return QUEUE_S
        idle = delivered_bps < self._rate / 2
        return max(IDLE_QUEUE_S if idle else QUEUE_S, TWO_PACKETS_BITS / self._rate)

    def _arrived(self, departure: Departure, arrived_at: float, now: float) -> None:
        delay = arrived_at - departure.sent_at
        self.queue_s = delay - self._base.add(delay, now)
        self._detector.arrived(departure.sent_at, arrived_at)
        delivered = self._delivered
        delivered.append((departure.sent_at, arrived_at, departure.size))
        self._delivered_octets += departure.size
        while departure.sent_at - delivered[0][0] > _MAX_RATE_S:
            self._delivered_octets -= delivered.popleft()[2]

    def _delivered_bps(self) -> float | None:
        """What arrived in the last second; in the last fifth of it after a line has narrowed."""
        if len(self._delivered) <= _RATE_PACKETS:
            return None
        sent_at, newest, _ = self._delivered[-1]
        octets, short_bps = 0, None
        for packets, (at, arrived_at, size) in enumerate(reversed(self._delivered)):
            span_s = newest - arrived_at
            if packets >= _RATE_PACKETS and span_s >= _RATE_S:
                short_bps = octets * 8 / span_s
                self._choked = span_s > _CHANGED * (sent_at - at)
                break
            octets += size
        if short_bps is None:
            return None
        _, first, size = self._delivered[0]
        long_bps = (self._delivered_octets - size) * 8 / (newest - first) if newest > first else short_bps
        return long_bps if long_bps < _CHANGED * short_bps else short_bps

    # --- REMB and reports

    def remb(self, bps: int, sent_bps: float, now: float) -> None:
        """The peer's own estimate. ``sent_bps``: what we send it, headers included."""
        self._remb = bps = min(MAX_BPS, max(MIN_BPS, bps))
        if self._reported_at is not None:  # transport-cc knows better; this is a limit
            return
        if bps >= 0.9 * sent_bps or self._remb_before is None or bps > RISING * self._remb_before:
            self._remb_before, self._remb_since = bps, now
        elif now - self._remb_since >= REMB_LAG_S:
            self._remb_since = now
            self._decrease(bps, now, "remb")

    def report(self, loss: float, rtt_s: float | None, sent_bps: float, now: float) -> None:
        """A receiver report. ``loss``: share since the report before; ``sent_bps``: what was sent meanwhile."""
        if rtt_s is not None:
            self.rtt_s = rtt_s
        if self._reported_at is not None:
            return
        self.loss += _LOSS_SMOOTHING * (loss - self.loss)
        if rtt_s is not None:
            self.queue_s = rtt_s - self._base_rtt.add(rtt_s, now)
        if now - self._decreased_at < REPORT_LAG_S + (self.rtt_s or 0.0):
            return
        lossy = loss > VERY_LOSSY or (loss > LOSSY and self.queue_s > STANDING_QUEUE_S)
        if lossy or self.queue_s > RTT_GROWTH_S:
            self._decrease(BACK_OFF * sent_bps * (1 - loss), now, "loss" if lossy else "delay")
        else:
            self._grow(BLIND_GROWTH, now, most=BLIND_MOST * sent_bps)

    # --- time

    def poll(self, sent_bps: float, now: float) -> None:
        """Each 100 ms or so: notices that a peer which reports has gone silent while we send."""
        silent = self._reported_at is not None and now - self._reported_at > SILENCE_S
        if silent and sent_bps > 0 and now - self._decreased_at > SILENCE_S / 2:
            self._decrease((self._rate or sent_bps) / 2, now, "silence")

    def _judge_loss(self, arrived: int, lost: int, delivered_bps: float, now: float) -> None:
        few = self._few.add(arrived, lost, self.queue_s)
        many = self._many.add(arrived, lost, self.queue_s)
        if few is not None:
            self.loss += _LOSS_SMOOTHING * (few.loss - self.loss)
        overflowing = few is not None and few.loss > LOSSY and few.queue_s > STANDING_QUEUE_S
        policed = many is not None and many.loss > VERY_LOSSY
        if overflowing or policed or (few is not None and few.loss > HALF):
            self._decrease((1.0 - LOSSY) * delivered_bps, now, "loss")

    def _decrease(self, to_bps: float, now: float, reason: str) -> None:
        if now - self._decreased_at < DECREASE_S:
            return
        self._grown_at = now
        self._decreased_at = now
        to_bps = min(MAX_BPS, max(MIN_BPS, to_bps))
        if self._rate is None or to_bps < self._rate:
            self.decreases[reason] += 1
            self._rate = to_bps

    def _grow(self, growth: float, now: float, *, most: float) -> None:
        if self._rate is not None and self._grown_at is not None:
            elapsed_s = min(1.0, max(0.0, now - self._grown_at))
            self._rate = max(self._rate, min(self._rate * growth**elapsed_s, most, MAX_BPS))
        self._grown_at = now
