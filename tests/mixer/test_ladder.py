"""Up and down by the table, and FEC by the loss."""

from __future__ import annotations

import pytest

from mixer.ladder import AFTER_DOWN_S, CALM_S, FEC_HOLD_S, START_S, FecPolicy, Ladder, rungs
from mixer.rtp.line import LineState
from mixer.video.rendition import RENDITIONS


def line(kbps: float | None) -> LineState:
    return LineState(None if kbps is None else round(kbps * 1000), 0.0, 0.05, 0.0)


def at(start: str, *, video: bool = True) -> Ladder:
    return Ladder(rungs(video=video), RENDITIONS[start], 0.0)


@pytest.mark.parametrize(
    ("kbps", "name"),
    [
        (5000, "high"), (1120, "high"), (1100, "medium"), (390, "medium"),
        (389, "low"), (100, "low"), (99, "audio"), (0, "audio"),
    ],
)  # fmt: skip
def test_down_is_one_step_to_what_fits_and_at_once(kbps: float, name: str) -> None:
    ladder = at("high")
    assert ladder.update(line(kbps), 0.0).name == name
    assert ladder.moves == (name != "high")


def test_between_a_fifth_less_and_a_seventh_more_nothing_moves() -> None:
    ladder = at("medium")
    for tick in range(1000):
        assert ladder.update(line(320 if tick % 2 else 1600), tick * 0.1).name == "medium"


def test_who_knows_nothing_changes_nothing() -> None:
    ladder = at("high")
    assert [ladder.update(line(None), float(now)).name for now in range(5)] == ["high"] * 5


def test_up_waits_at_the_start_and_then_takes_the_best() -> None:
    ladder = at("low")
    assert ladder.wanted_bps == round(1.15 * 390_000)
    assert ladder.update(line(2000), START_S - 0.01).name == "low"
    assert ladder.update(line(2000), START_S).name == "high"
    assert ladder.wanted_bps is None


def climb(ladder: Ladder, now: float) -> float:
    """When it is back at the top, with a line that carries all."""
    while ladder.update(line(5000), now).name != "high":
        now += 0.1
    return now


def test_a_second_fall_within_a_minute_is_waited_out() -> None:
    ladder = at("high")
    ladder.update(line(130), 0.0)
    assert climb(ladder, 0.0) == pytest.approx(AFTER_DOWN_S, abs=0.2)
    ladder.update(line(130), 10.0)
    assert climb(ladder, 10.0) == pytest.approx(CALM_S, abs=0.2)
    ladder.update(line(130), 61.0)
    assert climb(ladder, 61.0) == pytest.approx(10.0 + CALM_S, abs=0.2)
    ladder.update(line(130), 200.0)  # a long while at the top: the next fall is another story
    assert climb(ladder, 200.0) == pytest.approx(200.0 + AFTER_DOWN_S, abs=0.2)


def test_two_steps_down_are_one_fall() -> None:
    ladder = at("high")
    ladder.update(line(400), 0.0)
    ladder.update(line(130), 0.4)
    assert ladder.rendition.name == "low"
    assert climb(ladder, 0.4) == pytest.approx(0.4 + AFTER_DOWN_S, abs=0.2)


def test_a_line_that_never_is_what_it_seems_moves_nobody_more_than_four_times_a_minute() -> None:
    ladder, moves = at("high"), []
    for tick in range(6000):
        before = ladder.moves
        ladder.update(line(5000 if tick % 70 < 60 else 130), tick * 0.1)
        moves += [tick * 0.1] * (ladder.moves - before)
    assert max(sum(start <= at < start + 60 for at in moves) for start in moves) <= 4


def test_sound_alone_needs_less() -> None:
    assert [step.rendition.name for step in rungs(video=False)] == ["high", "medium", "low", "audio"]
    needs = [step.bps for step in rungs(video=False)]
    assert needs == sorted(needs, reverse=True)
    assert at("high", video=False).update(line(60), 0.0).name == "high"
    assert at("high", video=False).update(line(30), 0.0).name == "low"


def test_fec_comes_with_loss_and_stays_a_while() -> None:
    policy = FecPolicy()
    assert not policy.update(0.009, 0.0)
    assert policy.update(0.01, 1.0)
    assert policy.update(0.006, 30.0)  # still some loss
    assert policy.update(0.0, 30.0 + FEC_HOLD_S - 0.1)
    assert not policy.update(0.0, 30.0 + FEC_HOLD_S)
    assert not policy.update(0.009, 60.0)
