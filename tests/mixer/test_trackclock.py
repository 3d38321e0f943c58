"""Clocks that run apart: tracks, and the composed recording, stay in step for hours."""

from __future__ import annotations

import itertools
import random

import pytest

from mixer.trackclock import MIX_S, SenderClock, TrackClock
from tests.fakes.drift import DriftingSender
from tests.fakes.drifting_room import film_skews, track_skews

HOURS_4 = 4 * 3600.0
CLOCKS = [
    (200, -200, 200),
    (-200, 200, -200),
    (200, 200, -200),
    (-200, -200, 0),
]


@pytest.mark.parametrize(("sound", "picture", "ntp"), CLOCKS)
def test_tracks_are_in_step_after_four_hours(sound: int, picture: int, ntp: int) -> None:
    sender = DriftingSender(seed=1, sound_ppm=sound, picture_ppm=picture, ntp_ppm=ntp)
    found = track_skews(sender, HOURS_4, every=25)
    assert abs(found.end_s) <= 0.005, "at the end; without the reports it would be 5.8 s"
    assert max(map(abs, found.skews)) <= 0.010
    assert max(found.late) <= MIX_S + 0.045, "and both are where the mix has them, by the room's clock"
    assert min(found.late) >= MIX_S + 0.015


def test_before_a_report_each_is_placed_by_its_arrival() -> None:
    sender = SenderClock()
    voice, camera = TrackClock(sender, 48_000), TrackClock(sender, 90_000)
    assert voice.place(48_000, None, 10.0) == pytest.approx(10.0 + MIX_S)
    assert camera.place(9_000_000, None, 10.05) == pytest.approx(10.05 + MIX_S)
    assert voice.place(48_960, None, 10.5) == pytest.approx(10.02 + MIX_S), "late: it waited somewhere"
    assert voice.place(96_000, 5001.0, 11.0) == pytest.approx(11.0 + MIX_S)
    assert camera.place(9_090_000, 5001.0, 11.05) == pytest.approx(11.0 + MIX_S), (
        "said and taken at one moment"
    )


def test_a_report_that_is_off_moves_nothing_at_once() -> None:
    clock = TrackClock(SenderClock(), 48_000)
    for n in range(500):
        clock.place(n * 960, 100 + n * 0.02, n * 0.02)
    before = clock.place(500 * 960, 100 + 10.0, 10.0)
    after = clock.place(501 * 960, 100 + 10.02 + 0.05, 10.02)
    assert after - before == pytest.approx(0.02, abs=0.001)


def test_a_clock_that_is_set_is_followed_and_so_is_another_way() -> None:
    clock = TrackClock(SenderClock(), 48_000)
    placed = []
    for n in range(2000):
        ntp = 100.0 if n < 600 else 4000.0 if n < 1000 else 50.0  # set forward by an hour, and back
        way = 0.01 if n < 1500 else 0.12  # the radio changed the mast
        placed.append(clock.place(n * 960, ntp + n * 0.02, n * 0.02 + way))
    steps = [after - before for before, after in itertools.pairwise(placed)]
    assert max(abs(step - 0.02) for step in steps) < 0.002
    assert placed[-1] == pytest.approx(1999 * 0.02 + MIX_S + 0.01, abs=0.03), "ten seconds later it follows"


@pytest.mark.parametrize(("sound", "picture", "ntp"), CLOCKS[:2])
async def test_the_film_is_in_step_though_the_senders_clocks_are_not(
    sound: int, picture: int, ntp: int
) -> None:
    """Ten minutes of it here; ``make bench`` has the four hours."""
    sender = DriftingSender(seed=3, sound_ppm=sound, picture_ppm=picture, ntp_ppm=ntp, sound_hz=8_000)
    skews = film_skews(sender, 600.0, every_s=10)
    assert len(skews) >= 58
    assert max(map(abs, skews[1:])) <= 0.040


def test_whatever_a_sender_says_nothing_is_from_the_future_or_of_long_ago() -> None:
    chance = random.Random(4)
    sender = SenderClock()
    clocks = [TrackClock(sender, 48_000), TrackClock(sender, 90_000)]
    for n in range(3000):
        rtp = chance.choice([n * 960, chance.randrange(1 << 40)])
        taken_s = chance.choice([None, 100 + n * 0.02, chance.uniform(-1e10, 1e10)])
        at = chance.choice(clocks).place(rtp, taken_s, n * 0.02)
        assert n * 0.02 - 2.0 <= at <= n * 0.02 + 0.3
