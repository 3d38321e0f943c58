from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.rtp.pacing import AT_ONCE, MAX_DELAY_S, MAX_QUEUED, SLOT_S, SPREAD_S, Pacer


def drain(pacer: Pacer[int]) -> list[tuple[float, list[int]]]:
    out = []
    while (deadline := pacer.deadline) is not None:
        out.append((deadline, pacer.due(deadline)))
    return out


def test_a_usual_picture_goes_at_once() -> None:
    pacer: Pacer[int] = Pacer()
    assert pacer.push(range(AT_ONCE), 5.0)
    assert pacer.deadline == 5.0
    assert pacer.due(5.0) == list(range(AT_ONCE))
    assert pacer.deadline is None


def test_a_keyframe_is_spread_over_thirty_milliseconds_in_even_handfuls() -> None:
    pacer: Pacer[int] = Pacer()
    pacer.push(range(100), 1.0)
    slots = drain(pacer)
    assert [number for _, packets in slots for number in packets] == list(range(100))
    assert slots[-1][0] - slots[0][0] == pytest.approx(SPREAD_S)
    assert {len(packets) for _, packets in slots[:-1]} == {15}
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(slots)]
    assert gaps == pytest.approx([SLOT_S] * 6)


def test_the_next_picture_waits_its_turn() -> None:
    pacer: Pacer[int] = Pacer()
    pacer.push(range(100), 1.0)
    pacer.push([100, 101], 1.01)
    assert pacer.due(1.01)[-1] < 100
    assert [number for _, packets in drain(pacer) for number in packets][-2:] == [100, 101]


def test_two_big_pictures_do_not_become_one_burst() -> None:
    pacer: Pacer[int] = Pacer()
    pacer.push(range(100), 1.0)
    assert len(pacer.due(1.02)) == 75
    pacer.push(range(100), 1.02)
    slots = drain(pacer)
    assert max(len(packets) for _, packets in slots) <= 25
    assert slots[-1][0] == pytest.approx(1.06)


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 0.05)), max_size=30))
def test_order_is_kept_and_the_delay_bounded(pictures: list[tuple[int, float]]) -> None:
    pacer: Pacer[int] = Pacer(bound=100_000)
    now, number = 0.0, 0
    pushed: list[float] = []
    sent: list[int] = []
    for count, pause in pictures:
        now += pause
        pacer.push(range(number, number + count), now)
        pushed += [now] * count
        number += count
        for _, packets in [(now, pacer.due(now))]:
            sent += packets
    for when, packets in drain(pacer):
        sent += packets
        assert all(when - pushed[packet] <= 2 * SPREAD_S + 1e-9 for packet in packets)
    assert sent == list(range(number))


def test_a_picture_that_does_not_fit_is_dropped_whole_and_counted() -> None:
    pacer: Pacer[int] = Pacer()
    assert pacer.push(range(MAX_QUEUED - 1), 0.0)
    assert not pacer.push([1, 2], 0.0)
    assert (len(pacer), pacer.dropped) == (MAX_QUEUED - 1, 2)
    assert pacer.push([1], 0.0)
    assert pacer.clear() == MAX_QUEUED
    assert (len(pacer), pacer.dropped, pacer.deadline) == (0, MAX_QUEUED + 2, None)


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="pacer"):
        Pacer(at_once=0)
    with pytest.raises(ValueError, match="pacer"):
        Pacer(slot_s=0.05)


def test_a_picture_takes_what_the_line_needs_for_it_and_the_next_one_waits() -> None:
    pacer: Pacer[int] = Pacer()
    assert pacer.push(range(10), 1.0, 0.4)
    assert pacer.push([10], 1.1, 0.02)
    slots = drain(pacer)
    assert [when for when, _ in slots] == pytest.approx([1.0 + 0.04 * n for n in range(11)])
    assert pacer.push([11, 12], 2.0, 0.04)  # a small one on a free line: at once
    assert pacer.due(2.0) == [11, 12]


def test_what_would_leave_too_late_is_dropped_rather_than_delayed() -> None:
    pacer: Pacer[int] = Pacer()
    assert pacer.push(range(10), 0.0, 2 * MAX_DELAY_S)  # the first: without it there is nothing to see
    assert not pacer.push([10, 11], 0.0, 0.1)
    assert pacer.dropped == 2
    assert pacer.clear() == 10
    assert pacer.push([12], 0.0, 0.1)
