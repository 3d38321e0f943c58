"""The estimate from echoes and reports made by hand; whole lines are in `tests.mixer.test_weak_lines`."""

from __future__ import annotations

import pytest

from mixer.rtp.echo import EchoMeter
from mixer.rtp.line import MIN_BPS
from mixer.rtp.roundtrip import Report, RoundTripEstimator

RTT_S = 0.06
SENT_BPS = 1.2e6


class Calls:
    """A call each 100 ms beside ``SENT_BPS``; what it waits is the test's."""

    def __init__(self, *, bps: float | None = 3e6) -> None:
        self.meter = EchoMeter()
        self.estimator = RoundTripEstimator(self.meter, measured=True)
        self.estimator.rate.bps = bps
        self.now = 0.0
        self.octets = 0

    def run(self, *queues_s: float, disturbed: bool = False, every_s: float = 0.1) -> None:
        """Calls one after the other, each answered before the next: only what they say counts."""
        for queue_s in queues_s:
            self.now += every_s
            self.octets += int(SENT_BPS * every_s / 8)
            before = self.meter.newest
            echo = self.meter.answer(self.meter.call(self.octets, self.now), self.now + RTT_S + queue_s)
            assert echo is not None
            self.estimator.echo(echo, before, SENT_BPS, self.now + RTT_S + queue_s, disturbed=disturbed)


def test_a_queue_that_grows_from_echo_to_echo_is_a_full_line() -> None:
    calls = Calls()
    calls.run(0.0, 0.0, 0.0, 0.18)
    assert calls.estimator.suspects
    assert not calls.estimator.rate.decreases  # once is jitter
    calls.run(0.5)
    assert calls.estimator.rate.decreases.keys() == {"delay"}
    # 120 kbit took 0.42 s
    assert calls.estimator.bps == pytest.approx(0.85 * 120_000 / 0.42, rel=0.01)


@pytest.mark.parametrize("queues_s", [(0.4, 0.3, 0.2, 0.1), (0.0, 0.05, 0.02, 0.06) * 10, (0.25, 0.0) * 10])
def test_a_heap_after_a_pause_and_jitter_are_no_queue(queues_s: tuple[float, ...]) -> None:
    calls = Calls()
    calls.run(0.0, 0.0, *queues_s)
    assert not calls.estimator.rate.decreases


def test_a_queue_that_stands_is_a_full_line_and_one_that_empties_is_none() -> None:
    calls = Calls()
    calls.run(0.0, *[0.13, 0.14] * 6)
    assert calls.estimator.rate.decreases.keys() == {"delay"}
    calls = Calls()
    calls.run(0.0, *[0.9 - step * 0.05 for step in range(15)])
    assert not calls.estimator.rate.decreases


def test_our_own_burst_is_no_congestion() -> None:
    calls = Calls()
    calls.run(0.0, 0.0, 0.1, 0.3, 0.5, disturbed=True)
    assert not calls.estimator.rate.decreases


def test_what_was_called_before_a_fall_says_nothing_about_it() -> None:
    calls = Calls()
    calls.run(0.0, 0.0, 0.18, 0.5)
    fallen = calls.estimator.bps
    assert fallen is not None
    calls.estimator.rate.decreased_at = calls.now + 10.0
    calls.run(0.6, 0.7, 0.8, 0.9)
    assert calls.estimator.bps == fallen


def test_no_answer_to_many_calls_is_a_line_that_is_full_or_down() -> None:
    calls = Calls()
    calls.run(0.0, 0.0, 0.0)
    at = calls.now
    for step in range(1, 9):  # dense, as calls are once one is late
        calls.octets += int(SENT_BPS * 0.025 / 8)
        calls.meter.call(calls.octets, at + step * 0.025)
    calls.estimator.poll(at + 0.25, disturbed=False)
    assert not calls.estimator.rate.decreases
    calls.estimator.poll(at + 0.5, disturbed=False)
    assert calls.estimator.rate.decreases.keys() == {"silence"}
    assert calls.estimator.bps is not None
    assert calls.estimator.bps < 200_000  # 30 kbit did not come through in 0.4 s
    assert calls.estimator.queue_s > 0.3


def test_a_few_lost_calls_are_nothing() -> None:
    calls = Calls()
    calls.run(0.0, 0.0, 0.0)
    for step in range(1, 4):
        calls.meter.call(calls.octets, calls.now + step * 0.1)
    calls.estimator.poll(calls.now + 1.0, disturbed=False)
    assert not calls.estimator.rate.decreases


def test_loss_counts_with_a_queue_or_when_it_is_heavy() -> None:
    calls = Calls()
    calls.run(0.0, 0.0)
    calls.estimator.report(Report(2.0, 90, 10, 1.1e6), RTT_S, 3.0)
    assert not calls.estimator.rate.decreases
    assert calls.estimator.state.loss > 0.02
    calls.estimator.report(Report(3.0, 20, 80, 240_000), RTT_S, 4.0)
    assert calls.estimator.rate.decreases.keys() == {"loss"}
    assert calls.estimator.bps == pytest.approx(0.95 * 240_000)
    calls.estimator.report(Report(4.0, 10, 90, 100_000), RTT_S, 5.0)  # of what was sent before the fall
    assert calls.estimator.bps == pytest.approx(0.95 * 240_000)


def test_remb_is_heard_of_a_peer_that_answers_no_call_only() -> None:
    calls = Calls()
    calls.run(0.0, 0.0)
    for tick in range(20):
        calls.estimator.remb(40_000, SENT_BPS, tick * 0.5)
    assert calls.estimator.bps is not None
    assert calls.estimator.bps >= 3e6
    deaf = RoundTripEstimator(EchoMeter(), measured=True)
    for tick in range(20):
        deaf.remb(400_000 + 5_000 * tick, SENT_BPS, tick * 0.5)
    assert deaf.bps is None  # it follows
    for tick in range(20, 23):
        deaf.remb(480_000, SENT_BPS, tick * 0.5)
    assert deaf.bps == 480_000


def test_a_peer_that_answers_no_call_is_followed_by_its_reports_and_tried_blindly() -> None:
    deaf = RoundTripEstimator(EchoMeter(), measured=True)
    deaf.report(Report(0.0, 50, 0, 400_000), RTT_S, 1.0)
    assert deaf.bps == 400_000
    for second in range(2, 12):
        deaf.report(Report(second - 1, 50, 0, 400_000), RTT_S, float(second))
    assert deaf.bps > 1.2e6
    deaf.report(Report(12.0, 50, 0, 150_000), 1.0, 13.0)
    assert deaf.bps == pytest.approx(0.85 * 150_000)
    assert deaf.bps > MIN_BPS
