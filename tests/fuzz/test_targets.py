"""Every fuzz target with hypothesis: seeds as they are, seeds that are damaged, and noise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_has_seeds_and_takes_them(name: str) -> None:
    assert seeds(name)
    for seed in seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_damage_and_noise(name: str) -> None:
    whole = seeds(name)

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def attack(data: st.DataObject) -> None:
        changed = bytearray(data.draw(st.sampled_from(whole)))
        for _ in range(data.draw(st.integers(0, 8))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(changed)))
        TARGETS[name](bytes(changed[:cut]) + data.draw(st.binary(max_size=40)))

    attack()
