from __future__ import annotations

import pytest

from mixer.rtp.nack import GIVE_UP_S, MAX_MISSING, MIXED_S, REORDER_S, TWICE_S, NackSchedule


def test_on_a_line_that_mixes_up_packets_a_late_one_is_not_asked_for() -> None:
    schedule = NackSchedule()
    schedule.add(1, 2, 0.0)
    assert schedule.due(0.0) == [1], "nothing is known of the line"
    assert not schedule.arrived(1, REORDER_S), "it was only late"
    schedule.add(5, 7, 1.0)
    assert schedule.due(1.0 + REORDER_S / 2) == []
    assert not schedule.arrived(5, 1.0 + REORDER_S / 2)
    assert not schedule.arrived(6, 1.0 + REORDER_S / 2)
    assert schedule.due(2.0) == []
    assert (schedule.recovered, schedule.lost) == (0, 0)
    schedule.add(7, 8, 1.1 + MIXED_S)
    assert schedule.due(1.1 + MIXED_S) == [7], "that is long ago"


def test_after_a_round_trip_then_each_half_of_one_until_it_comes() -> None:
    schedule = NackSchedule()
    schedule.set_rtt(0.05)
    schedule.add(5, 6, 0.0)
    asked = [now / 1000 for now in range(300) if schedule.due(now / 1000)]
    assert asked == pytest.approx([0.0, *(0.061 + 0.03 * n for n in range(8))], abs=0.002)
    assert schedule.arrived(5, 0.31)
    assert schedule.due(1.0) == []
    assert schedule.recovered == 1


def test_each_request_goes_out_twice_where_one_may_be_lost() -> None:
    schedule = NackSchedule(twice=True)
    schedule.set_rtt(0.1)
    schedule.add(5, 6, 0.0)
    asked = [now / 1000 for now in range(200) if schedule.due(now / 1000)]
    assert asked == pytest.approx([0.0, TWICE_S, 0.11, 0.13, 0.165, 0.185], abs=0.002)


def test_given_up_after_a_while() -> None:
    schedule = NackSchedule()
    schedule.add(5, 7, 0.0)
    schedule.add(9, 10, 0.5)
    assert schedule.expire(GIVE_UP_S - 0.01) == []
    assert schedule.expire(GIVE_UP_S) == [5, 6]
    assert schedule.due(GIVE_UP_S) == [9]
    assert (len(schedule), schedule.lost) == (1, 2)


def test_too_many_at_once_are_all_given_up() -> None:
    schedule = NackSchedule()
    assert schedule.add(0, MAX_MISSING, 0.0)
    assert not schedule.add(MAX_MISSING, MAX_MISSING + 1, 0.0)
    assert (len(schedule), schedule.lost) == (0, MAX_MISSING + 1)
    assert schedule.due(1.0) == []


def test_what_nobody_waits_for_is_forgotten() -> None:
    schedule = NackSchedule()
    schedule.add(5, 10, 0.0)
    schedule.forget_below(8)
    assert schedule.due(1.0) == [8, 9]
    assert schedule.lost == 3
    schedule.clear()
    assert (len(schedule), schedule.lost) == (0, 5)
