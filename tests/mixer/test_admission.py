"""Who is let in: by what is measured, and by what is on its way in and cannot have been measured yet."""

from __future__ import annotations

import pytest

from mixer.admission import LEG_CORES, SHOWS_S, Admission, newcomer
from mixer.errors import NoCapacity
from mixer.overload import FULL_AT
from mixer.protocol import LoadChanged
from mixer.video.layout import Cost, LayoutBody

VOICE = newcomer(LayoutBody(), 3, shows=False, first=False)
PICTURE = newcomer(LayoutBody(), 3, shows=True, first=False)


def load(*, pressure: float = 0.3, cores: float = 0.5, full: bool = False) -> LoadChanged:
    return LoadChanged(pressure=pressure, cause="canvas", step=0, name="full", full=full, cores=cores)


def come(admission: Admission, cost: Cost, now: float = 0.0, room: str = "r", most: int = 1000) -> int:
    """How many are let in before the first is refused."""
    for number in range(most):
        try:
            with admission.place(room, cost, now):
                pass
        except NoCapacity:
            return number
    return most


def test_a_picture_costs_more_than_a_voice_and_the_first_one_pays_for_the_encoding() -> None:
    first = newcomer(LayoutBody(), 0, shows=True, first=True)
    assert LEG_CORES == VOICE.cpu_cores < PICTURE.cpu_cores < first.cpu_cores
    assert (VOICE.decoding_cores, VOICE.canvas_cores) == (0.0, 0.0)
    assert PICTURE.decoding_cores > 0 < PICTURE.canvas_cores


def test_who_has_no_tile_costs_a_voice() -> None:
    full = LayoutBody(max_tiles=4)
    assert newcomer(full, 9, shows=True, first=False).cpu_cores == pytest.approx(LEG_CORES, abs=0.002)


def test_a_burst_on_a_loaded_machine_is_let_in_up_to_what_fits_before_anything_is_measured() -> None:
    admission = Admission(cores=2.0, decoders=1)
    admission.measured("r", load(pressure=0.7, cores=1.0))
    let_in = come(admission, PICTURE)
    assert 1 <= let_in < 10
    assert 0.7 + (let_in + 1) * PICTURE.decoding_cores >= FULL_AT > 0.7 + let_in * PICTURE.decoding_cores


def test_an_idle_machine_takes_a_meeting_that_begins() -> None:
    admission = Admission(cores=2.0, decoders=1)
    admission.measured("r", load(pressure=0.1, cores=0.2))
    assert come(admission, PICTURE, most=9) == 9
    large = Admission(cores=8.0, decoders=7)
    large.measured("r", load(pressure=0.1, cores=0.2))
    assert come(large, PICTURE, most=25) == 25


def test_two_cores_take_a_class_that_comes_at_once() -> None:
    """Its tiles are small, and browsers send what a tile shows."""
    admission = Admission(cores=2.0, decoders=1)
    for present in range(25):
        for cost in (
            newcomer(LayoutBody(), present, shows=True, first=present == 0),
            newcomer(LayoutBody(), present + 1, shows=False, first=False),
        ):
            with admission.place("r", cost, present / 100):
                pass


def test_all_rooms_together_count_those_on_their_way_into_any() -> None:
    admission = Admission(cores=2.0, decoders=1)
    admission.measured("one", load(cores=1.2))
    admission.measured("two", load(cores=0.3))
    costs = PICTURE.cpu_cores
    into_one = come(admission, PICTURE, room="one", most=2)
    let_in = into_one + come(admission, PICTURE, room="two")
    assert 1.5 + let_in * costs < FULL_AT * 2.0 <= 1.5 + (let_in + 1) * costs


def test_what_the_measuring_has_seen_is_not_counted_twice() -> None:
    admission = Admission(cores=2.0, decoders=1)
    admission.measured("r", load(pressure=0.5, cores=0.6))
    assert come(admission, PICTURE, now=0.0, most=4) == 4
    share = PICTURE.decoding_cores
    admission.measured("r", load(pressure=0.5 + 3 * share, cores=0.6 + 3 * PICTURE.cpu_cores))
    left = int((FULL_AT - 0.5) / share) - 4
    assert come(admission, PICTURE, now=2.0) == left
    # and when it has seen them all, only what it says counts
    admission.measured("r", load(pressure=0.5, cores=0.6))
    assert come(admission, PICTURE, now=2.0 + SHOWS_S) == left + 4


def test_who_came_before_a_load_that_nobody_predicted_does_not_make_room() -> None:
    fresh, used = Admission(cores=2.0, decoders=1), Admission(cores=2.0, decoders=1)
    fresh.measured("r", load(pressure=0.7))
    with used.place("r", PICTURE, 0.0):
        used.measured("r", load(pressure=0.7))
    assert come(used, PICTURE, now=1.0) == come(fresh, PICTURE, now=1.0)


def test_who_could_not_be_let_in_takes_no_place() -> None:
    admission = Admission(cores=2.0, decoders=1)
    admission.measured("r", load(pressure=0.7))
    fits = come(admission, PICTURE)
    admission.lost("r")
    admission.measured("r", load(pressure=0.7))
    for _ in range(20):
        with pytest.raises(ValueError, match="not SDP"), admission.place("r", PICTURE, 0.0):
            raise ValueError("not SDP")
    assert come(admission, PICTURE) == fits


def test_places_are_held_while_offers_are_answered() -> None:
    admission = Admission(cores=2.0, decoders=1)
    admission.measured("r", load(pressure=FULL_AT - 1.5 * PICTURE.decoding_cores))
    with (
        admission.place("r", PICTURE, 0.0),
        pytest.raises(NoCapacity, match="coming in"),
        admission.place("r", PICTURE, 0.0),
    ):
        raise AssertionError("there was one place")


def test_a_room_that_says_it_is_full_takes_nobody_and_others_do() -> None:
    admission = Admission(cores=2.0, decoders=1)
    admission.measured("r", load(full=True))
    with (
        pytest.raises(NoCapacity, match=r"room r is at the limit .* \(canvas\)"),
        admission.place("r", VOICE, 0.0),
    ):
        pass
    assert come(admission, VOICE, room="other", most=1) == 1


def test_into_a_server_where_nobody_is_one_may_come_however_small_it_is() -> None:
    admission = Admission(cores=0.1, decoders=1)
    assert come(admission, newcomer(LayoutBody(), 0, shows=True, first=True)) == 1
