"""What a line carries towards a peer that tells of each packet when it came (transport-cc). Pure: reports in, bits a
second out.

Loss alone is no congestion: radio loses 10 % and carries everything else in time. It counts when a queue stands
at the same time, or when it is so high that no radio explains it (`LossJudge`). Decreases follow
draft-ietf-rmcat-gcc-02 (0.85 of what is delivered); increases are multiplicative and bounded by what is delivered,
or measured. Peers that tell less are `mixer.rtp.roundtrip`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from mixer.rtp.burst import BurstResult
from mixer.rtp.departures import Departure, Outcome
from mixer.rtp.line import LOSSY, MAX_BPS, VERY_LOSSY, LineRate, LineState, LossJudge, Smallest, bounded
from mixer.rtp.overuse import OveruseDetector

BACK_OFF: Final = 0.85  # gcc-02 section 5.5: beta
GROWTH: Final = 1.08  # a second, gcc-02 section 5.5: eta

QUEUE_S: Final = 0.08  # of delay that has really grown, and a trend counts: less is jitter or a large picture
PATIENT_QUEUE_S: Final = 0.12  # the same where jitter of a tenth of a second must lower nothing
TWO_PACKETS_BITS: Final = 19_200  # which need so long themselves on a narrow line
IDLE_QUEUE_S: Final = 0.16  # the same while hardly anything is sent, so that it can't be our doing
DEEP_QUEUE_S: Final = 0.2  # and growing: no need to wait for a trend over twenty groups
CHOKED_QUEUE_S: Final = 0.12  # the same while packets arrive at half the rate at which they were sent
SILENCE_S: Final = 1.0  # nothing reported for so long while we send: the line is down or choked
_RATE_S, _MAX_RATE_S, _RATE_PACKETS = 0.2, 1.0, 6  # the window of the delivered rate
_CHANGED: Final = 2.0  # the short window is noisy at low rates: it counts when it tells of something new
BASE_DELAY_S: Final = 15.0  # how long a smallest delay is believed; routes change


class BandwidthEstimator:
    """See the module. ``measured``: bursts can be sent, so there is no need to grow blindly. ``patient``: of a line
    that no burst measures up again, so that what is lowered in error stays low: more jitter and longer bursts of losses
    are borne.
    """

    def __init__(self, *, measured: bool, patient: bool = False) -> None:
        self._measured = measured
        self._queue_s = PATIENT_QUEUE_S if patient else QUEUE_S
        self._remb: float | None = None
        self._detector = OveruseDetector()
        self._delivered: deque[tuple[float, float, int]] = deque()  # sent, arrived, bytes; of the last second
        self._delivered_octets = 0
        self._choked = False  # what arrived last was sent twice as fast
        self._base = Smallest(BASE_DELAY_S)
        self._judge = LossJudge(patient=patient)
        self._reported_at: float | None = None
        self.rate = LineRate()
        self.rtt_s: float | None = None
        self.queue_s = 0.0

    @property
    def bps(self) -> float | None:
        """The estimate; ``None`` while nothing is known."""
        rate = self.rate.bps
        if self._reported_at is None or self._remb is None:
            return rate
        return self._remb if rate is None else min(rate, self._remb)

    @property
    def state(self) -> LineState:
        """All that is known."""
        bps = self.bps
        return LineState(round(bps) if bps is not None else None, self._judge.loss, self.rtt_s, self.queue_s)

    def feedback(self, outcome: Outcome, now: float, *, disturbed: bool = False) -> None:
        """One report of what came. ``disturbed``: a burst of our own may explain a growing delay."""
        came = len(outcome.arrived) - sum(departure.reported_lost for departure in outcome.arrived)
        self.heard(outcome.arrived, now, came=came, lost=len(outcome.lost), disturbed=disturbed)

    def heard(
        self,
        arrived: Sequence[Departure],
        now: float,
        *,
        came: int,
        lost: int,
        disturbed: bool = False,
        growth: float = GROWTH,
        by_loss_alone: bool = False,
    ) -> None:
        """What ``arrived``, in order of sending. ``came``, ``lost``: packets for the judgement on loss; ``growth``: a
        second, while nothing speaks against it; ``by_loss_alone``: delays prove nothing.
        """
        self._reported_at = now
        before_s, first_s = self.queue_s, None
        for departure in arrived:
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
        if ((trend and not disturbed) or growing) and not by_loss_alone:
            self.rate.decrease(BACK_OFF * delivered, now, "delay")
        elif usage == "normal":
            self.rate.grow(growth, now, most=1.5 * delivered + 10_000 if self._measured else MAX_BPS)
        else:
            self.rate.hold(now)
        if self._judge.full(came, lost, self.queue_s):
            self.rate.decrease((1.0 - LOSSY) * delivered, now, "loss")

    def burst(self, result: BurstResult, now: float) -> None:
        """What a burst measured: good news raises the estimate; the first news makes it."""
        if result.began_at >= self.rate.decreased_at and result.loss <= VERY_LOSSY:
            bps = 0.95 * result.bps if result.saturated else result.bps
            self.rate.measured(bps, now, at_least=not result.saturated)

    def remb(self, bps: int) -> None:
        """The peer's own estimate. Its reports tell us more; this is a limit."""
        self._remb = bounded(bps)

    def poll(self, sent_bps: float, now: float) -> None:
        """Each 100 ms or so: notices that a peer which reports has gone silent while we send."""
        silent = self._reported_at is not None and now - self._reported_at > SILENCE_S
        if silent and sent_bps > 0 and now - self.rate.decreased_at > SILENCE_S / 2:
            self.rate.decrease((self.rate.bps or sent_bps) / 2, now, "silence")

    def _enough_s(self, delivered_bps: float) -> float:
        """How much delay must have grown before a trend counts."""
        rate = self.rate.bps
        if rate is None:
            return self._queue_s
        return max(IDLE_QUEUE_S if delivered_bps < rate / 2 else self._queue_s, TWO_PACKETS_BITS / rate)

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
