"""The estimator's parts, each with reports made by hand; whole lines are in `tests.mixer.test_weak_lines`."""

from __future__ import annotations

import random

import pytest

from mixer.rtp.bandwidth import BandwidthEstimator
from mixer.rtp.burst import MAX_OPEN, BurstMeter, BurstResult
from mixer.rtp.departures import Departure, Outcome
from mixer.rtp.line import MIN_BPS
from mixer.rtp.overuse import OveruseDetector
from mixer.rtp.probing import GRACE_S, INTERVAL_S, SETTLE_S, Prober


def detector_after(extra_ms: float, *, jitter_ms: float = 0.0, groups: int = 60) -> OveruseDetector:
    """A group each 20 ms, each one ``extra_ms`` later than the one before."""
    detector, source = OveruseDetector(), random.Random(1)
    for index in range(groups):
        delay = 0.05 + index * extra_ms / 1000 + source.uniform(0, jitter_ms / 1000)
        for part in range(2):
            detector.arrived(index * 0.02 + part * 0.001, index * 0.02 + part * 0.001 + delay)
        if index % 4 == 0:
            detector.judge()
    return detector


@pytest.mark.parametrize(
    ("extra_ms", "usage"), [(0.0, "normal"), (3.0, "overuse"), (-3.0, "underuse"), (0.05, "normal")]
)
def test_a_queue_that_fills_or_empties_is_seen(extra_ms: float, usage: str) -> None:
    assert detector_after(extra_ms).usage == usage


def test_jitter_is_no_queue_and_a_silence_starts_afresh() -> None:
    assert detector_after(0.0, jitter_ms=15.0, groups=400).usage != "overuse"
    detector = detector_after(3.0)
    detector.arrived(100.0, 105.0)
    assert detector.usage == "normal"


class Reports:
    """What a receiver behind a line of ``bps`` reports of ``sent_bps`` in packets of 1,000 bytes."""

    def __init__(self, estimator: BandwidthEstimator) -> None:
        self.estimator = estimator
        self.now = 0.0
        self._number = 0
        self._free_at = 0.0
        self._source = random.Random(2)

    def run(self, seconds: float, *, sent_bps: float, line_bps: float = 1e9, loss: float = 0.0) -> None:
        waiting: list[Departure] = []
        next_report, end = self.now + 0.1, self.now + seconds
        lost: list[Departure] = []
        while self.now < end:
            self.now += 8000 / sent_bps
            self._number += 1
            departure = Departure(self._number, self.now, 1000, 0)
            if self._source.random() < loss:
                lost.append(departure)
            else:
                self._free_at = max(self._free_at, self.now) + 8000 / line_bps
                departure.arrived_at = self._free_at + 0.03
                waiting.append(departure)
            if self.now >= next_report:
                next_report += 0.1
                arrived = [d for d in waiting if d.arrived_at is not None and d.arrived_at <= self.now]
                waiting = [d for d in waiting if d not in arrived]
                self.estimator.feedback(Outcome(arrived, lost), self.now)
                lost = []


def measured(bps: float) -> BandwidthEstimator:
    estimator = BandwidthEstimator(measured=True)
    estimator.burst(BurstResult(1, 0.0, bps, bps, 0.0, 0.0), 0.0)
    return estimator


def test_a_full_line_is_found_within_half_a_second() -> None:
    reports = Reports(measured(3e6))
    reports.run(5.0, sent_bps=1.2e6)
    assert reports.estimator.bps == pytest.approx(3e6)  # what was measured stays
    reports.run(0.5, sent_bps=1.2e6, line_bps=150_000)
    assert reports.estimator.bps is not None
    assert 100_000 < reports.estimator.bps < 180_000
    assert reports.estimator.rate.decreases.keys() == {"delay"}


def test_nothing_grows_beyond_half_more_than_what_arrives() -> None:
    reports = Reports(measured(100_000))
    reports.run(60.0, sent_bps=100_000)
    assert reports.estimator.bps == pytest.approx(160_000, rel=0.05)


@pytest.mark.parametrize("loss", [0.02, 0.05, 0.10])
def test_loss_without_delay_is_told_and_borne(loss: float) -> None:
    reports = Reports(measured(3e6))
    reports.run(120.0, sent_bps=1.2e6, loss=loss)
    assert reports.estimator.bps == pytest.approx(3e6)
    assert reports.estimator.state.loss == pytest.approx(loss, abs=0.06)


def test_a_policer_without_a_queue_is_found_by_its_loss() -> None:
    reports = Reports(measured(3e6))
    reports.run(2.0, sent_bps=1.2e6, loss=0.85)
    assert reports.estimator.bps is not None
    assert reports.estimator.bps < 300_000
    assert reports.estimator.rate.decreases.keys() == {"loss"}


def test_no_report_while_we_send_is_a_line_that_is_down() -> None:
    reports = Reports(measured(3e6))
    reports.run(2.0, sent_bps=1.2e6)
    estimator = reports.estimator
    for tick in range(100):
        estimator.poll(1.2e6, 2.0 + tick * 0.1)
    assert estimator.bps == MIN_BPS
    assert estimator.rate.decreases.keys() == {"silence"}


def test_remb_beside_transport_wide_reports_is_a_limit() -> None:
    reports = Reports(measured(3e6))
    reports.run(1.0, sent_bps=1.2e6)
    reports.estimator.remb(700_000)
    assert reports.estimator.bps == 700_000


# --- bursts and tries


def burst(meter: BurstMeter, *, packets: int = 10, gap_s: float, arrive_gap_s: float, lost: int = 0) -> int:
    number = meter.begin(0.0)
    for index in range(packets):
        meter.sent(number)
        departure = Departure(index, index * gap_s, 1000, number, 5.0 + index * arrive_gap_s)
        if index >= packets - lost:
            meter.lost(departure)
        else:
            meter.arrived(departure)
    meter.end(number, packets * gap_s)
    return number


def test_a_burst_measures_by_how_it_is_drawn_out() -> None:
    meter = BurstMeter()
    burst(meter, gap_s=0.005, arrive_gap_s=0.02, lost=2)
    (result,) = meter.results(0.1)
    assert (result.sent_bps, result.arrived_bps) == pytest.approx((1.6e6, 400_000))
    assert (result.saturated, result.loss) == (True, pytest.approx(0.2))
    burst(meter, gap_s=0.005, arrive_gap_s=0.005)
    assert [(r.saturated, round(r.bps)) for r in meter.results(0.1)] == [(False, 1_600_000)]


def test_bursts_that_nobody_reports_on_are_given_up() -> None:
    meter = BurstMeter()
    for _ in range(MAX_OPEN + 3):
        number = meter.begin(0.0)
        meter.sent(number)
        meter.end(number, 0.0)
    assert meter.given_up == 3
    assert meter.results(0.5) == []
    assert meter.results(1.5) == []
    assert meter.given_up == MAX_OPEN + 3


def attempt(prober: Prober, now: float) -> tuple[float, list[int]]:
    """Send one burst to its end; when that was, and the padding."""
    octets, sizes = 0, []
    prober.begin(1, octets, now)
    while prober.ended(now) is None:
        for size in prober.padding(octets, 58, now):
            octets += size + 58
            sizes.append(size)
        now += 0.005
    return now, sizes


def result(arrived_bps: float, sent_bps: float = 500_000, loss: float = 0.0) -> BurstResult:
    late_s = 0.05 * (sent_bps / arrived_bps - 1)
    return BurstResult(1, 0.0, sent_bps, arrived_bps, late_s, loss)


def test_a_try_is_short_first_and_long_only_when_that_came_through() -> None:
    prober = Prober()
    assert not prober.due(100_000, 0.0)  # nobody wants more
    prober.wanted_bps = 450_000
    assert prober.due(100_000, 0.0)
    assert not prober.due(460_000, 0.0)
    now, short = attempt(prober, 0.0)
    assert sum(short) + 58 * len(short) == pytest.approx(0.05 * 1.08 * 450_000 / 8, rel=0.25)
    assert not prober.result(result(490_000), now)
    assert prober.due(100_000, now)
    now, long = attempt(prober, now)
    assert sum(long) + 58 * len(long) == pytest.approx(0.25 * 1.08 * 450_000 / 8, rel=0.1)
    assert prober.result(result(490_000), now)
    assert (prober.tries, prober.passed) == (1, 1)


@pytest.mark.parametrize("outcome", [result(150_000), result(490_000, loss=0.4)])
def test_a_try_that_fails_is_repeated_later(outcome: BurstResult) -> None:
    prober = Prober()
    prober.wanted_bps = 450_000
    now, _ = attempt(prober, 0.0)
    assert prober.disturbs(now)
    assert not prober.result(outcome, now)
    assert prober.disturbs(now + GRACE_S / 2)
    assert not prober.disturbs(now + GRACE_S)
    assert not prober.due(100_000, now + INTERVAL_S - 0.1)
    assert prober.due(100_000, now + INTERVAL_S)


def test_congestion_ends_a_try_and_one_without_an_answer_ends_by_itself() -> None:
    prober = Prober()
    prober.wanted_bps = 450_000
    prober.begin(1, 0, 0.0)
    prober.congested(0.1)
    assert prober.sending is None
    assert not prober.due(100_000, 0.1 + SETTLE_S)
    assert prober.due(100_000, 0.1 + INTERVAL_S)
    prober.begin(2, 0, 10.0)
    prober.poll(11.0)
    assert prober.owns(2)
    prober.poll(12.5)
    assert not prober.owns(2)
