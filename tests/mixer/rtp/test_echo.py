"""Round trips as a measure: calls and answers made by hand; whole lines are in `tests.mixer.test_weak_lines`."""

from __future__ import annotations

import pytest

from mixer.rtp.echo import LOST_S, MAX_OPEN, TAIL_S, EchoMeter

RTT_S = 0.06


def echoed(meter: EchoMeter, at: float, octets: int = 0, *, queue_s: float = 0.0) -> None:
    """One call at ``at`` that waits ``queue_s``."""
    meter.answer(meter.call(octets, at), at + RTT_S + queue_s)


def test_what_an_echo_waited_is_the_queue() -> None:
    meter = EchoMeter()
    assert meter.newest is None
    echoed(meter, 0.0)
    echoed(meter, 0.1, queue_s=0.3)
    assert meter.newest is not None
    assert (meter.newest.rtt_s, meter.newest.queue_s) == pytest.approx((0.36, 0.3))
    assert [echo.call.sent_at for echo in meter.since(0.05)] == [0.1]
    before = meter.before(0.05)
    assert before is not None
    assert before.call.sent_at == 0.0


def test_a_call_that_a_later_one_overtakes_is_lost() -> None:
    meter = EchoMeter()
    echoed(meter, 0.0)
    lost, came = meter.call(0, 0.1), meter.call(0, 0.2)
    assert [call.number for call in meter.waiting(0.25)] == [lost, came]
    assert meter.answer(came, 0.26) is not None
    assert meter.waiting(0.27) == []
    assert meter.answer(lost, 0.3) is None  # what comes after all tells nothing new
    assert (meter.answered, meter.lost) == (2, 1)
    assert meter.through(0.05) == 1.0  # of two, nobody can tell
    assert meter.through(0.0) == pytest.approx(2 / 3)


def test_calls_that_nobody_answers_are_bounded_and_given_up() -> None:
    meter = EchoMeter()
    for number in range(MAX_OPEN + 5):
        meter.call(0, number * 0.001)
    assert len(meter.waiting(0.2)) == MAX_OPEN
    assert meter.waiting(LOST_S + 1.0) == []
    assert meter.lost == MAX_OPEN + 5
    meter.call(0, 8.0)
    (call,) = meter.waiting(8.5)
    assert meter.overdue_s(call, 9.0) == 0.0  # nobody knows how long an answer takes


def burst(meter: EchoMeter, at: float, *, octets: int, sent_s: float, line_bps: float | None) -> None:
    """A burst, and the calls after it, on a line that takes ``line_bps``."""
    number = meter.begin_burst(0, at)
    meter.end_burst(number, octets, at + sent_s)
    for late_s in (0.0, 0.005, 0.01):
        through_s = octets * 8 / line_bps if line_bps is not None else 0.0
        queue_s = max(0.0, through_s - sent_s - late_s)
        assert meter.in_tail(at + sent_s + late_s)
        echoed(meter, at + sent_s + late_s, octets, queue_s=queue_s)


def test_a_burst_measures_by_what_the_calls_after_it_wait() -> None:
    meter = EchoMeter()
    echoed(meter, 0.0)
    burst(meter, 1.0, octets=20_000, sent_s=0.03, line_bps=500_000)
    assert meter.measuring(1.03)
    assert meter.results(1.03 + TAIL_S) == []  # a fourth call may come
    (result,) = meter.results(1.5)
    assert result.saturated
    assert result.bps == pytest.approx(500_000, rel=0.05)
    assert result.late_s == pytest.approx(0.28, abs=0.01)
    assert not meter.measuring(1.5)
    burst(meter, 2.0, octets=20_000, sent_s=0.3, line_bps=None)
    (result,) = meter.results(2.5)
    assert not result.saturated
    assert result.bps == pytest.approx(20_000 * 8 / 0.3, rel=0.05)


def test_jitter_before_a_burst_is_not_taken_for_its_doing() -> None:
    meter = EchoMeter()
    for index in range(20):
        echoed(meter, index * 0.1, queue_s=0.03 * (index % 3))
    number = meter.begin_burst(0, 2.5)
    meter.end_burst(number, 10_000, 2.75)
    for late_s in (0.0, 0.005, 0.01):
        echoed(meter, 2.75 + late_s, 10_000, queue_s=0.03)
    (result,) = meter.results(3.0)
    assert (result.late_s, result.saturated) == (0.0, False)


def test_a_burst_whose_calls_are_lost_says_so_or_nothing() -> None:
    meter = EchoMeter()
    echoed(meter, 0.0)
    number = meter.begin_burst(0, 1.0)
    for _ in range(4):
        meter.call(0, 1.1)
    meter.end_burst(number, 10_000, 1.25)
    echoed(meter, 1.25, 10_000)
    (result,) = meter.results(1.4)
    assert result.loss == pytest.approx(0.8)
    number = meter.begin_burst(0, 2.0)
    meter.end_burst(number, 10_000, 2.25)
    meter.call(10_000, 2.25)
    assert meter.results(2.5) == []  # it may still come
    assert meter.results(5.0) == []  # given up
    assert not meter.measuring(5.0)
