"""The steps: down when there is too much to do, up when there is room, and nobody in while it is tight."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from mixer.overload import EASY_S, MAX_EASY_S, RECORDED_STEPS, STEPS, WHOLE_S, Overload, Sample, reduced
from mixer.video.layout import LayoutBody, parse_layout

CALM = Sample(
    elapsed_s=1.0,
    canvas_s=0.2,
    frames=30,
    frames_dropped=0,
    decoding_s=0.3,
    decoders=1,
    loop_s=0.1,
    sound_dropped=0,
    cpu_s=0.8,
    cores=2.0,
)


def run(overload: Overload, seconds: int, load: Callable[[Overload], Sample], start: int = 0) -> list[int]:
    """The step after each second."""
    taken = []
    for second in range(start, start + seconds):
        overload.update(load(overload), float(second))
        taken.append(overload.index)
    return taken


@pytest.mark.parametrize(
    ("cause", "sample"),
    [
        ("canvas", replace(CALM, canvas_s=0.99)),
        ("frames", replace(CALM, frames=26, frames_dropped=4)),
        ("decoding", replace(CALM, decoding_s=0.97)),
        ("decoding", replace(CALM, decoding_s=2.95, decoders=3)),
        ("loop", replace(CALM, loop_s=0.96)),
        ("sound", replace(CALM, sound_dropped=1)),
        ("cores", replace(CALM, cpu_s=1.95)),
    ],
)
def test_each_cause_leads_down_and_is_named(cause: str, sample: Sample) -> None:
    overload = Overload()
    assert run(overload, 4, lambda _: sample) == [0, 0, 0, 1]
    assert overload.cause == cause


def test_one_bad_second_changes_nothing() -> None:
    overload = Overload()
    seconds = itertools.count()
    bad = replace(CALM, sound_dropped=3, canvas_s=1.4)
    assert set(run(overload, 60, lambda _: CALM if next(seconds) % 3 else bad)) == {0}
    assert overload.pressure < 1


def test_it_goes_down_step_by_step_to_where_the_load_fits_and_stays_there() -> None:
    """A machine that carries two thirds of the pictures."""
    overload = Overload()

    def load(at: Overload) -> Sample:
        return replace(CALM, decoding_s=1.2 * at.step.fps / 30 if at.index else 1.2)

    taken = run(overload, 120, load)
    assert taken[:8] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert taken[-1] == 1
    assert overload.moves == 1  # 0.8 of the time is neither too much nor little enough to go up again


def test_it_never_ends_below_the_last_step() -> None:
    overload = Overload()
    run(overload, 60, lambda _: replace(CALM, decoding_s=3.0))
    assert overload.step is STEPS[-1]


def test_it_comes_back_when_the_load_is_gone() -> None:
    overload = Overload()
    run(overload, 9, lambda _: replace(CALM, cpu_s=2.0))
    down = overload.index
    assert down >= 2
    taken = run(overload, round((EASY_S + 5) * down), lambda _: CALM, start=9)
    assert taken[-1] == 0
    assert all(before - after in {0, 1} for before, after in itertools.pairwise(taken))
    assert not overload.full


def test_a_step_up_that_fails_is_tried_less_and_less() -> None:
    overload = Overload()
    # full quality is too much, one step down is nothing at all: the worst case for hysteresis
    taken = run(overload, 600, lambda at: CALM if at.index else replace(CALM, canvas_s=1.1))
    ups = [second for second, (a, b) in enumerate(itertools.pairwise(taken)) if b < a]
    gaps = [after - before for before, after in itertools.pairwise(ups)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= MAX_EASY_S
    assert overload.moves <= 2 * 600 / MAX_EASY_S + 8


def test_the_door_closes_before_anything_is_given_up() -> None:
    overload = Overload()
    run(overload, 10, lambda _: replace(CALM, decoding_s=0.88))
    assert (overload.index, overload.full) == (0, True)
    run(overload, 3, lambda _: replace(CALM, decoding_s=0.7), start=10)
    assert overload.full, "it stays closed until there is room for one more"
    run(overload, 1, lambda _: replace(CALM, decoding_s=0.6), start=13)
    assert not overload.full


@pytest.mark.parametrize("jump", [0.96, 1.5, 5.0])
def test_after_a_jump_of_any_height_the_door_is_closed_two_seconds_before_a_step(jump: float) -> None:
    overload = Overload()
    run(overload, 10, lambda _: replace(CALM, canvas_s=0.84))
    assert not overload.full
    closed, stepped = None, None
    for second in range(10, 30):
        overload.update(replace(CALM, canvas_s=jump), float(second))
        closed = second if closed is None and overload.full else closed
        stepped = second if stepped is None and overload.index else stepped
    assert closed is not None
    assert stepped is not None
    assert stepped - closed == 2


def test_a_recorded_room_keeps_its_canvas_and_everybody_on_it() -> None:
    overload = Overload()
    overload.set_recorded(True)
    layout = LayoutBody()
    for second in range(60):
        overload.update(replace(CALM, canvas_s=2.0), float(second))
        held = reduced(layout, overload.step)
        assert (held.canvas.width, held.canvas.height) == (1280, 720)
        assert held.max_tiles == layout.max_tiles
        assert held.canvas.fps >= 15
    assert overload.step is RECORDED_STEPS[-1]
    assert [step.viewers for step in RECORDED_STEPS] == ["high", "high", "high", "medium", "low"]


def test_a_recording_that_begins_gives_the_canvas_back_at_once() -> None:
    overload = Overload()
    run(overload, 60, lambda _: replace(CALM, canvas_s=2.0))
    assert overload.step is STEPS[-1]
    overload.set_recorded(True)
    assert overload.step is RECORDED_STEPS[-1]
    assert overload.full
    overload.set_recorded(False)
    assert overload.step is STEPS[len(RECORDED_STEPS) - 1]


def test_pictures_left_out_are_told_until_there_have_been_none_for_a_while() -> None:
    overload = Overload(acts=False)
    run(overload, 3, lambda _: CALM)
    assert not overload.holes
    run(overload, 1, lambda _: replace(CALM, frames=27, frames_dropped=3), start=3)
    assert overload.holes
    run(overload, round(WHOLE_S) - 1, lambda _: replace(CALM, frames=29, frames_dropped=1), start=4)
    assert overload.holes
    run(overload, 1, lambda _: CALM, start=8)
    assert not overload.holes


def test_nobody_comes_in_while_something_is_given_up() -> None:
    overload = Overload()
    run(overload, 4, lambda _: replace(CALM, canvas_s=1.0))
    run(overload, 2, lambda _: CALM, start=4)
    assert overload.index == 1
    assert overload.full


@pytest.mark.parametrize(
    "body",
    [
        {"preset": "grid"},
        {"preset": "speaker", "canvas": {"width": 640, "height": 360, "fps": 10}},
        {"preset": "grid", "canvas": {"width": 162, "height": 90, "fps": 60}, "max_tiles": 2},
        {"preset": "grid", "canvas": {"width": 1920, "height": 1080, "fps": 30}, "max_tiles": 16},
    ],
)
def test_every_step_makes_a_layout_that_is_valid_and_not_larger(body: dict[str, object]) -> None:
    layout = parse_layout(body)
    before = layout
    for step in STEPS:
        made = reduced(layout, step)
        assert LayoutBody.model_validate(made.model_dump()) == made
        assert made.canvas.fps <= min(layout.canvas.fps, step.fps)
        assert made.canvas.width <= before.canvas.width
        assert made.canvas.height <= before.canvas.height
        assert made.max_tiles <= before.max_tiles
        before = made
    assert reduced(layout, STEPS[0]) is layout


def test_where_it_only_tells_it_never_moves_and_is_never_full() -> None:
    overload = Overload(acts=False)
    assert run(overload, 30, lambda _: replace(CALM, canvas_s=2.0)) == [0] * 30
    assert (overload.pressure, overload.cause, overload.full) == (2.0, "canvas", False)
