"""Only what was shown can stand still."""

from __future__ import annotations

from mixer.probe.signal import Rect
from mixer.probe.stay import MOVES_IN_S, Stay

HERE, THERE = Rect(0, 0, 640, 360), Rect(640, 0, 640, 360)


def stay(*looks: tuple[float, Rect | None]) -> Stay:
    made = Stay()
    for now, place in looks:
        made.look(place, now)
    return made


def test_shown_all_the_time() -> None:
    assert stay((0, HERE), (2, HERE), (4, HERE), (6, HERE)).within(3, 5) == [(3, 5)]


def test_shown_from_when_it_came_to_the_last_look_that_found_it() -> None:
    looks = ((0, None), (2, HERE), (4, HERE), (6, HERE), (8, None), (10, HERE), (12, HERE))
    assert stay(*looks).within(0, 12) == [(2 + MOVES_IN_S, 6), (10 + MOVES_IN_S, 12)]


def test_a_tile_that_moved_is_not_read_until_the_next_look() -> None:
    assert stay((0, HERE), (2, HERE), (4, THERE), (6, THERE)).within(0, 6) == [
        (MOVES_IN_S, 2),
        (4 + MOVES_IN_S, 6),
    ]


def test_never_shown_or_seen_but_once() -> None:
    assert stay((0, None), (2, None)).within(0, 9) == []
    assert stay((0, HERE), (2, None)).within(0, 9) == []
    assert stay((0, HERE), (MOVES_IN_S / 2, HERE)).within(0, 9) == []
