from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from mixer.rtp.unwrap import Unwrapper


@given(st.integers(0, 2**16 - 1), st.lists(st.integers(-3000, 20_000), max_size=200))
def test_follows_any_walk_of_less_than_half_the_range(start: int, steps: list[int]) -> None:
    unwrapper = Unwrapper(16)
    assert unwrapper.unwrap(start) == start
    highest = start
    for step in steps:
        value = highest + step
        assert unwrapper.unwrap(value & 0xFFFF) == value
        highest = max(highest, value)


def test_order_inside_the_window_does_not_matter() -> None:
    values = list(range(2**32 - 500, 2**32 + 500))
    shuffled = [values[0], *random.Random(1).sample(values[1:], len(values) - 1)]
    unwrapper = Unwrapper(32)
    assert [unwrapper.unwrap(value & 0xFFFFFFFF) for value in shuffled] == shuffled


def test_reset_begins_anew() -> None:
    unwrapper = Unwrapper(16)
    unwrapper.unwrap(65_535)
    assert unwrapper.unwrap(0) == 65_536
    unwrapper.reset()
    assert unwrapper.unwrap(7) == 7
