"""An even pace over a line that loses, and no delay over one that does not."""

from __future__ import annotations

import itertools
import random

from mixer.video.steady import CALM_S, MAX_HOLD_S, Steady

STEP = 3000  # 90 kHz, 30 pictures a second
FREEZE_S = 1 / 30 + 0.150  # W3C webrtc-stats, freezeCount: so much above the usual pause is one


def shown(arrivals: list[tuple[int, float]], steady: Steady | None = None) -> list[float]:
    """When each picture is seen: in order, never before the one before it."""
    steady = steady or Steady()
    times: list[float] = []
    for pts, at in arrivals:
        times.append(max(at + steady.hold(pts, at), times[-1] if times else 0.0))
    return times


def lossy(seconds: int, repair_s: float, share: float, seed: int) -> list[tuple[int, float]]:
    """Pictures of which a share is there only after a repeat, and those behind it no sooner."""
    chance = random.Random(seed)
    arrivals, latest = [], 0.0
    for number in range(seconds * 30):
        at = number / 30 + 0.05 + chance.random() * 0.01
        if chance.random() < share:
            at += repair_s
        latest = max(latest, at)
        arrivals.append((number * STEP + 123_456, latest))
    return arrivals


def frozen_s(times: list[float]) -> float:
    return sum(gap for before, after in itertools.pairwise(times) if (gap := after - before) > FREEZE_S)


def test_a_line_with_repairs_is_even_after_a_moment() -> None:
    arrivals = lossy(60, repair_s=0.19, share=0.04, seed=3)
    raw, even = [at for _, at in arrivals], shown(arrivals)
    assert frozen_s(raw[150:]) > 3.0, "the line does what it is here for"
    assert frozen_s(even[150:]) == 0.0


def test_a_good_line_and_a_single_hiccup_cost_no_delay() -> None:
    arrivals = lossy(30, repair_s=0.0, share=0.0, seed=1)
    assert shown(arrivals) == [at for _, at in arrivals]
    late = [(pts, at + (0.15 if index == 300 else 0.0)) for index, (pts, at) in enumerate(arrivals)]
    steady = Steady()
    assert max(steady.hold(pts, at) for pts, at in late) == 0.0


def test_the_hold_is_bounded_and_goes_when_the_losses_do() -> None:
    steady = Steady()
    worst = max(steady.hold(pts, at) for pts, at in lossy(20, repair_s=1.0, share=0.1, seed=5))
    assert 0 < worst <= MAX_HOLD_S
    calm = [(pts + 20 * 90_000, at + 20) for pts, at in lossy(40, repair_s=0.0, share=0.0, seed=6)]
    holds = [steady.hold(pts, at) for pts, at in calm]
    assert holds[-1] == 0.0
    assert max(before - after for before, after in itertools.pairwise(holds)) < 0.02, "it goes by and by"


def test_another_clock_starts_afresh() -> None:
    steady = Steady()
    for pts, at in lossy(10, repair_s=0.15, share=0.1, seed=2):
        steady.hold(pts, at)
    assert steady.hold_s > 0.1
    for number in range(30 * 20):
        steady.hold(number * STEP, 1000 + number / 30)
    assert steady.hold_s == 0.0


def test_after_many_losses_two_seconds_without_one_are_calm() -> None:
    steady = Steady()
    for pts, at in lossy(20, repair_s=0.2, share=0.1, seed=5):
        steady.hold(pts, at)
    assert steady.hold_s > 0.15
    for number in range(600, 600 + round((CALM_S + 2.5) * 30)):
        steady.hold(number * STEP + 123_456, number / 30 + 0.055)
    assert steady.hold_s == 0.0, "two seconds to go back"


def test_where_losses_are_seldom_the_hold_lasts_from_one_to_the_next() -> None:
    steady, holds = Steady(), []
    for number in range(30 * 30):
        late_s = 0.15 if number % 90 == 0 else 0.0  # each three seconds
        steady.hold(number * STEP, number / 30 + late_s)
        holds.append(steady.hold_s)
    assert min(holds[30 * 12 :]) > 0.13


def test_the_rare_picture_that_takes_twice_as_long_is_not_waited_for() -> None:
    steady, holds = Steady(), []
    for number in range(30 * 30):
        late_s = 0.11 if number % 15 == 0 else 0.0
        late_s = 0.19 if number in {300, 600} else late_s  # ten seconds apart
        steady.hold(number * STEP, number / 30 + late_s)
        holds.append(steady.hold_s)
    assert max(holds) < 0.12
    for number in range(30 * 30, 30 * 36):
        steady.hold(number * STEP, number / 30 + (0.19 if number % 60 == 0 else 0.0))
    assert steady.hold_s > 0.18, "each other second it is no accident"
