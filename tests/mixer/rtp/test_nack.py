from __future__ import annotations

import pytest

from mixer.rtp.nack import AGAIN_S, ASKS, CREDIT, GIVE_UP_S, MAX_MISSING, MIXED_S, REORDER_S, NackSchedule


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


def asks(schedule: NackSchedule, first: int, answers: int, start: float) -> int:
    """How often a packet is asked for before it comes, 0.1 s later, and ``answers`` times more."""
    for _ in range(10):  # on a line that loses a tenth
        schedule.paid()
    schedule.add(first, first + 1, start)
    count = sum(first in schedule.due(start + ms / 1000) for ms in range(100))
    for _ in range(answers):
        schedule.arrived(first, start + 0.1)
    return count


def test_who_insists_asks_five_times_a_round_trip() -> None:
    schedule = NackSchedule(insists=True)
    schedule.set_rtt(0.1)
    schedule.add(5, 6, 0.0)
    asked = [now / 1000 for now in range(200) if schedule.due(now / 1000)]
    once = [AGAIN_S * n for n in range(ASKS)]
    assert asked == pytest.approx([*once, *(0.11 + at for at in once)], abs=0.002)


def test_on_a_short_line_the_requests_of_a_round_fit_into_it() -> None:
    schedule = NackSchedule(insists=True)
    schedule.set_rtt(0.02)
    schedule.add(5, 6, 0.0)
    asked = [now / 1000 for now in range(30) if schedule.due(now / 1000)]
    assert asked == pytest.approx([0.0, 0.006, 0.012, 0.018, 0.024], abs=0.002)


def test_who_answers_each_request_is_not_asked_so_often_until_it_does_no_more() -> None:
    schedule = NackSchedule(insists=True)
    schedule.set_rtt(0.1)
    assert asks(schedule, 0, ASKS, 0.0) == ASKS, "nothing is known of the sender"
    for number in range(1, 20):
        last = asks(schedule, number, 2, number / 2)
    assert last == 2
    for number in range(20, 60):
        last = asks(schedule, number, 1, number / 2)
    assert last == ASKS


def test_a_line_that_loses_nearly_all_is_not_filled_with_repeats() -> None:
    """30 packets a second come, 270 do not: what they pay for is asked for, the oldest first, and no more."""
    schedule = NackSchedule(insists=True)
    schedule.set_rtt(0.1)
    requests = 0
    for number in range(3000):
        now = number / 300
        if number % 10:
            schedule.add(number, number + 1, now)
        else:
            schedule.paid()
        schedule.expire(now)
        requests += len(schedule.due(now))
    assert requests <= CREDIT + 300
    assert requests > 300


def test_what_there_is_no_credit_for_is_asked_for_when_there_is() -> None:
    schedule = NackSchedule()
    assert schedule.add(0, CREDIT + 3, 0.0)
    assert schedule.due(0.0) == list(range(CREDIT))
    assert schedule.due(0.01) == []
    schedule.paid()
    schedule.paid()
    assert schedule.due(0.02) == [CREDIT, CREDIT + 1]


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
