"""Ticks never drift, never pile up, and own up to what they drop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mixer.ticks import TickSchedule


def test_ticks_are_origin_plus_n_periods_for_hours() -> None:
    ticks = TickSchedule(origin_s=1000.0, rate_hz=30)
    now = 1000.0
    for n in range(100_000):
        index = ticks.next(now)
        assert index == n
        now = max(now, ticks.due_s(index)) + 0.01
        ticks.begin(index, now - 0.009)
    assert (ticks.run, ticks.late, ticks.dropped, ticks.pauses) == (100_000, 0, 0, 0)
    assert abs(now - (1000.0 + 99_999 / 30) - 0.01) < 1e-6


def test_a_tick_that_missed_its_whole_period_is_dropped_and_counted() -> None:
    ticks = TickSchedule(origin_s=0.0, rate_hz=50)
    ticks.begin(ticks.next(0.0), 0.0)
    stalled_until = 0.1095
    index = ticks.next(stalled_until)
    ticks.begin(index, stalled_until)
    assert index == 5
    assert ticks.stats() == {"run": 2, "late": 1, "dropped": 4, "pauses": 0, "longest_ms": 110}


def test_a_pause_that_people_notice_is_counted_and_one_that_was_meant_is_not() -> None:
    ticks = TickSchedule(origin_s=0.0, rate_hz=50)
    for now in (0.0, 0.02, 0.181, 0.2, 0.37):  # 161 ms, 19 ms, 170 ms
        ticks.begin(ticks.next(now), now)
    assert (ticks.pauses, ticks.stats()["longest_ms"]) == (2, 170)
    ticks.resume(60.0)
    ticks.begin(ticks.next(60.0), 60.0)
    assert ticks.pauses == 2


def test_slack_runs_late_ticks_at_once_and_drops_what_is_later() -> None:
    ticks = TickSchedule(origin_s=0.0, rate_hz=50, slack=2)
    ticks.begin(ticks.next(0.0), 0.0)
    stalled_until = 0.0505
    begun = []
    while ticks.due_s(index := ticks.next(stalled_until)) <= stalled_until:
        ticks.begin(index, stalled_until)
        begun.append(index)
    assert begun == [1, 2]
    assert ticks.dropped == 0
    ticks.begin(ticks.next(1.0), 1.0)
    assert ticks.last == 48, "two periods late, no more"
    assert ticks.dropped == 45


def test_a_pause_that_was_meant_drops_nothing() -> None:
    ticks = TickSchedule(origin_s=0.0, rate_hz=30)
    ticks.begin(ticks.next(0.0), 0.0)
    ticks.resume(60.0)
    index = ticks.next(60.0)
    ticks.begin(index, ticks.due_s(index))
    assert ticks.dropped == 0
    assert index == 1801


@given(st.lists(st.floats(min_value=0.0, max_value=0.5), min_size=1, max_size=50), st.integers(1, 60))
def test_every_tick_is_run_or_counted_as_dropped(delays: list[float], rate: int) -> None:
    ticks = TickSchedule(origin_s=0.0, rate_hz=rate)
    now = 0.0
    begun: list[int] = []
    for delay in delays:
        index = ticks.next(now)
        now = max(now, ticks.due_s(index)) + delay
        index = max(index, ticks.next(now))
        ticks.begin(index, now)
        begun.append(index)
    assert begun == sorted(set(begun))
    assert ticks.run == len(begun)
    assert ticks.run + ticks.dropped == begun[-1] - begun[0] + 1
