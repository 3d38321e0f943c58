"""The viewer's jitter buffer in the probe."""

from __future__ import annotations

import random

import pytest

from mixer.probe.display import LONGEST_WAIT_S, Display
from mixer.probe.signal import frozen_s

PERIOD_S = 1 / 30


def test_without_jitter_nothing_waits() -> None:
    display = Display()
    for number in range(100):
        at = 5 + number * PERIOD_S
        assert display.show(at, number * PERIOD_S) == pytest.approx(at)


def run(share: float, repeat_s: float, seconds: int = 40) -> tuple[float, float]:
    """Share of time frozen, as it came and as it is shown, when each ``share`` picture waits for a repeat."""
    dice = random.Random(3)
    display = Display()
    came: list[float] = []
    shown: list[float] = []
    newest = 0.0
    for number in range(seconds * 30):
        media = number * PERIOD_S
        at = media + 0.05 + (repeat_s if dice.random() < share else 0.0)
        newest = max(newest, at)  # a picture refers to the one before it
        came.append(newest)
        shown.append(display.show(newest, media))
    assert shown == sorted(shown)
    assert all(late >= early for early, late in zip(came, shown, strict=True))

    def frozen(times: list[float]) -> float:
        half = seconds / 2
        return frozen_s([at for at in times if at >= half], half, seconds) / half

    return frozen(came), frozen(shown)


def test_repeats_are_waited_for() -> None:
    came, shown = run(0.06, repeat_s=0.18)
    assert came > 0.1
    assert shown == 0.0


def test_no_player_waits_for_ever() -> None:
    _, shown = run(0.06, repeat_s=0.8)
    assert shown > 0.1
    assert LONGEST_WAIT_S < 0.8


def test_a_line_that_is_clean_again_is_trusted_again() -> None:
    display = Display()
    for number in range(300):
        media = number * PERIOD_S
        display.show(media + (0.2 if number % 10 == 0 else 0.0), media)
    delays = []
    for number in range(300, 700):
        media = number * PERIOD_S
        delays.append(display.show(media, media) - media)
    assert delays[0] > 0.1
    assert delays[-1] == pytest.approx(0.0, abs=1e-6)
