"""What a sender is asked for, by the clock of the test."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.video.demand import (
    FULL,
    KEPT,
    LOWER_AFTER_S,
    REFUSED_S,
    TRICKLE_BPS,
    UNSEEN,
    Asking,
    Demand,
    demands,
    kept,
)
from mixer.video.layout import Fit, LayoutBody, Source, Tile, arrange
from mixer.video.rendition import RENDITIONS

CANVAS = (1280, 720, 30)
HIGH = [RENDITIONS["high"]]


def tile(width: int, height: int, who: str = "a", fit: Fit = "cover") -> Tile:
    return Tile("t", who, 0, 0, width, height, 0, fit, "", "participant")


def of(
    *tiles: Tile,
    names: tuple[str, ...] = ("high",),
    canvas: tuple[int, int, int] = CANVAS,
    sizes: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> Demand:
    wanted = demands(tiles, canvas, [RENDITIONS[name] for name in names], "#screen", sizes)
    return wanted[tiles[0].participant or ""]


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [((426, 240), 350, 400), ((1280, 720), 1700, 2500), ((640, 360), 500, 800), ((320, 180), 150, 260)],
)
def test_a_tile_has_its_price(size: tuple[int, int], least: int, most: int) -> None:
    wanted = of(tile(*size))
    assert (wanted.width, wanted.height, wanted.fps) == (*size, 30)
    assert least <= wanted.bitrate_bps / 1000 <= most


def test_nine_in_a_grid_together_cost_what_one_and_a_half_alone_do() -> None:
    people = [Source(f"p{n}", "", "webrtc", has_video=True) for n in range(9)]
    wanted = demands(arrange(LayoutBody(), people, None), CANVAS, HIGH, "#screen", {})
    assert set(wanted) == {f"p{n}" for n in range(9)}
    assert sum(demand.bitrate_bps for demand in wanted.values()) < 3_700_000


def test_the_largest_rendition_that_somebody_takes_counts() -> None:
    assert of(tile(1280, 720), names=("medium", "low")) == of(tile(640, 360), canvas=(640, 360, 15))
    assert of(tile(1280, 720), names=("medium", "low")).height == 360
    assert of(tile(1280, 720), names=("audio", "high")).height == 720
    assert 0 < of(tile(1280, 720), names=()).height <= 180, (
        "a snapshot may be taken, the first viewer may come"
    )
    assert of(tile(640, 360), canvas=(640, 360, 30)).height == 360, "a small canvas is never asked for more"


def test_all_tiles_of_a_source_count_and_a_crop_needs_more_than_is_seen() -> None:
    assert of(tile(320, 180), tile(1280, 720)) == of(tile(1280, 720))
    assert of(tile(640, 720)).width == 1280, "the half of a 16:9 picture"
    assert of(tile(640, 720, fit="contain")).width == 640


@pytest.mark.parametrize(
    ("fit", "size", "wanted"),
    [
        ("cover", (360, 640), (426, 757)),  # as wide as the tile, cut above and below
        ("contain", (360, 640), (135, 240)),  # as high as the tile, bars beside it
        ("cover", (640, 480), (426, 319)),
        ("contain", (640, 480), (320, 240)),
        ("cover", (640, 360), (426, 240)),
        ("contain", (640, 360), (426, 240)),
        ("cover", (426, 240), (426, 240)),
        ("cover", (0, 0), (426, 240)),
    ],
)
def test_a_tile_is_filled_by_a_picture_of_the_source_s_own_shape(
    fit: Fit, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    found = of(tile(426, 240, fit=fit), sizes={"a": size, "b": (1, 1)})
    assert (found.width, found.height) == wanted


def test_an_upright_camera_is_asked_for_the_bits_of_what_is_cut_away() -> None:
    lying, upright = of(tile(426, 240)), of(tile(426, 240), sizes={"a": (720, 1280)})
    assert 1.8 < upright.bitrate_bps / lying.bitrate_bps < 3.16
    assert of(tile(426, 240, fit="contain"), sizes={"a": (720, 1280)}).bitrate_bps < lying.bitrate_bps
    assert of(tile(1280, 720), sizes={"a": (720, 1280)}).height <= 1920


def test_who_is_kept_unseen_is_kept_upright() -> None:
    assert kept((0, 0)) == kept(None) == kept((1280, 720)) == KEPT
    assert (kept((720, 1280)).width, kept((720, 1280)).height) == (KEPT.height, KEPT.width)


EDGE = st.integers(2, 1920)


@given(
    EDGE,
    EDGE,
    st.sampled_from([(2, 2), (426, 240), (1280, 720), (240, 720)]),
    st.sampled_from(["cover", "contain"]),
)
def test_no_shape_is_asked_for_what_is_not_decoded(
    width: int, height: int, edges: tuple[int, int], fit: Fit
) -> None:
    found = of(tile(*edges, fit=fit), sizes={"a": (width, height)})
    assert min(found.width, found.height) >= 1
    assert max(found.width, found.height) <= 1920
    assert min(found.width, found.height) <= 1080
    assert TRICKLE_BPS <= found.bitrate_bps <= 2_500_000


def test_a_screen_is_asked_for_enough_to_read() -> None:
    small, large = of(tile(426, 240, "a#screen")), of(tile(1280, 720, "a#screen"))
    assert small.bitrate_bps >= 800_000
    assert large.bitrate_bps >= of(tile(1280, 720)).bitrate_bps


def test_images_and_counters_ask_nobody() -> None:
    counter = Tile("c", None, 0, 0, 100, 100, 0, "cover", "+3", "counter")
    assert demands([counter], CANVAS, HIGH, "#screen", {}) == {}


BIG, SMALL = Demand(1280, 720, 30, 2_000_000), Demand(320, 180, 30, 250_000)


def test_more_is_asked_for_at_once_and_less_after_a_while() -> None:
    asking = Asking()
    assert asking.asked("a") == FULL
    assert asking.update({"a": SMALL}, ["a"], 0.0) == {"a": SMALL}
    assert asking.update({"a": SMALL}, ["a"], 0.2) == {}
    assert asking.update({"a": BIG}, ["a"], 0.4) == {"a": BIG}
    assert asking.update({"a": SMALL}, ["a"], 0.5) == {}
    assert asking.update({"a": SMALL}, ["a"], 0.5 + LOWER_AFTER_S - 0.01) == {}
    assert asking.update({"a": SMALL}, ["a"], 0.5 + LOWER_AFTER_S) == {"a": SMALL}
    assert asking.asked("a") == SMALL


def test_a_flickering_layout_asks_nobody_twice() -> None:
    asking = Asking()
    asking.update({"a": BIG}, ["a"], 0.0)
    told = [asking.update({"a": (SMALL, BIG)[step % 2]}, ["a"], step * 1.0) for step in range(1, 30)]
    assert told == [{}] * 29


def test_what_was_wanted_in_between_is_what_it_falls_to() -> None:
    asking, middle = Asking(), Demand(640, 360, 30, 700_000)
    asking.update({"a": BIG}, ["a"], 0.0)
    for step, wanted in enumerate((SMALL, middle, SMALL), 1):
        assert asking.update({"a": wanted}, ["a"], step * 0.5) == {}
    assert asking.update({"a": SMALL}, ["a"], 0.5 + LOWER_AFTER_S) == {"a": middle}
    assert asking.update({"a": SMALL}, ["a"], 0.6 + LOWER_AFTER_S) == {}
    assert asking.update({"a": SMALL}, ["a"], 0.7 + 2 * LOWER_AFTER_S) == {"a": SMALL}


def test_who_is_not_shown_sends_a_trickle_and_who_is_new_is_told_at_once() -> None:
    asking = Asking()
    assert asking.update({}, ["a"], 0.0) == {"a": UNSEEN}
    assert TRICKLE_BPS >= 30_000
    assert not UNSEEN.shown
    assert asking.update({"a": SMALL}, ["a", "b"], 0.1) == {"a": SMALL, "b": UNSEEN}
    asking.forget("a")
    assert asking.update({"a": SMALL}, ["a"], 0.2) == {"a": SMALL}, "another connection knows of nothing"


def test_who_sends_too_large_pictures_gets_a_trickle_for_a_while() -> None:
    asking = Asking()
    asking.update({"a": BIG}, ["a"], 0.0)
    asking.refuse("a", 1.0)
    assert asking.update({"a": BIG}, ["a"], 1.0) == {"a": UNSEEN}
    asking.refuse("a", 3.0)
    assert asking.update({"a": BIG}, ["a"], 2.0 + REFUSED_S) == {}
    assert asking.update({"a": BIG}, ["a"], 3.0 + REFUSED_S) == {"a": BIG}
