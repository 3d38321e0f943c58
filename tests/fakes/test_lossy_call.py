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
    assert call.sound_delay_s(130.0, 140.0) <= good.sound_delay_s(10.0, 30.0) + 0.04
    assert call.picture_delay_s(130.0, 140.0) <= good.picture_delay_s(10.0, 30.0) + 0.02
