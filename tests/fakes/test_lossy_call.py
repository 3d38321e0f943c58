"""Sound and pictures through both lossy lines in simulated time: what the bench measures for ten minutes."""

from __future__ import annotations

import pytest

from tests.fakes.lossy_call import LossyCall
from tests.fakes.netem import Burst
from tests.shaper import bursts


@pytest.mark.parametrize(
    ("loss", "burst", "most"),
    [(0.02, None, 0.004), (0.10, None, 0.015), (0.0, bursts(0.05), 0.025), (0.0, bursts(0.10), 0.045)],
)
def test_repairs_leave_little_to_be_invented(loss: float, burst: Burst | None, most: float) -> None:
    plain, repaired = (
        LossyCall(seed=5, loss=loss, burst=burst, repairs=repairs, pictures=False)
        for repairs in (False, True)
    )
    for call in (plain, repaired):
        call.run(60.0)
    assert repaired.concealed_share < most
    assert repaired.concealed_share < 0.5 * plain.concealed_share


@pytest.mark.parametrize("ppm", [200.0, -200.0])
def test_delay_does_not_creep_and_goes_back_when_the_line_is_good_again(ppm: float) -> None:
    call = LossyCall(seed=5, burst=bursts(0.05), drift_ppm=ppm)
    call.run(120.0)
    assert call.sound_delay_s(90.0, 120.0) - call.sound_delay_s(10.0, 40.0) <= 0.04
    assert call.picture_delay_s(90.0, 120.0) - call.picture_delay_s(10.0, 40.0) <= 0.04
    call.line()
    call.run(140.0)
    good = LossyCall(seed=5, drift_ppm=ppm)
    good.run(30.0)
    assert call.sound_delay_s(130.0, 140.0) <= good.sound_delay_s(10.0, 30.0) + 0.03
    assert call.picture_delay_s(130.0, 140.0) <= good.picture_delay_s(10.0, 30.0) + 0.03


def test_a_line_that_loses_now_and_then_does_not_add_up() -> None:
    """Ten seconds of loss, ten without, ten times."""
    call = LossyCall(seed=5)
    call.run(20.0)
    good = call.sound_delay_s(10.0, 20.0), call.picture_delay_s(10.0, 20.0)
    for turn in range(10):
        begin = 20.0 + 20.0 * turn
        call.line(burst=bursts(0.05))
        call.run(begin + 10.0)
        assert call.mixed_delay_s(begin + 5.0, begin + 10.0) > call.mixed_delay_s(10.0, 20.0) + 0.05
        call.line()
        call.run(begin + 20.0)
        assert call.sound_delay_s(begin + 17.0, begin + 20.0) < good[0] + 0.04
        # a canvas of 30 pictures a second shows one a tick sooner or later
        assert call.picture_delay_s(begin + 17.0, begin + 20.0) < good[1] + 0.03 + 1 / 30


@pytest.mark.parametrize(
    ("loss", "burst", "most"),
    [(0.02, None, 0.02), (0.05, None, 0.02), (0.0, bursts(0.02), 0.015), (0.0, bursts(0.05), 0.02)],
)
def test_pictures_hardly_stop_and_lips_fit(loss: float, burst: Burst | None, most: float) -> None:
    call = LossyCall(seed=7)
    call.run(20.0)
    call.line(loss=loss, burst=burst)
    call.run(82.0)
    assert call.frozen_share(22.0, 82.0) < most
    skews = sorted(abs(skew) for at, skew in call.skews if at > 24.0)
    assert skews[len(skews) // 2] < 0.04


def test_the_delay_of_a_line_that_begins_to_lose_is_found_at_once() -> None:
    """Two seconds later it grows no more: the rare packet that takes another round trip is not waited for."""
    for seed in (7, 107, 207):
        call = LossyCall(seed=seed)
        call.run(20.0)
        call.line(loss=0.02)
        call.run(37.0)
        assert call.mixed_delay_s(29.5, 37.0) - call.mixed_delay_s(22.0, 29.5) < 0.03
