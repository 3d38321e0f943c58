from __future__ import annotations

import contextlib
import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import InvalidBody
from mixer.video.geometry import GRID_SIZES, RULES, Rect
from mixer.video.layout import (
    LayoutBody,
    Source,
    Tile,
    arrange,
    check,
    parse_layout,
    predict_cost,
    presets,
)
from mixer.video.rendition import RENDITIONS

CONTRACT_BODY: dict[str, Any] = {
    "preset": "grid",
    "canvas": {"width": 1280, "height": 720, "fps": 30, "background": "#101820"},
    "fit": "cover",
    "names": True,
    "speaker_border": True,
    "max_tiles": 25,
    "pins": {"PARTICIPANT": 0},
    "regions": [
        {
            "id": "main",
            "x": "0",
            "y": "0",
            "width": "2/3",
            "height": "1",
            "z": 0,
            "source": "speaker",
            "fit": "contain",
        }
    ],
}


def people(count: int, **overrides: Any) -> list[Source]:
    fields: dict[str, Any] = {"kind": "webrtc", "has_video": True} | overrides
    return [Source(f"p{i}", f"Person {i}", **fields) for i in range(count)]


def custom(*regions: dict[str, Any], **fields: Any) -> LayoutBody:
    whole = {"x": "0", "y": "0", "width": "1", "height": "1"}
    listed = [{"id": f"r{i}"} | whole | region for i, region in enumerate(regions)]
    return parse_layout({"preset": "custom", "regions": listed} | fields)


def boxes(tiles: tuple[Tile, ...]) -> list[tuple[int, int, int, int]]:
    return [(tile.x, tile.y, tile.width, tile.height) for tile in tiles]


def who(tiles: tuple[Tile, ...]) -> list[str | None]:
    return [tile.participant for tile in tiles]


def covered(tiles: tuple[Tile, ...]) -> int:
    return sum(tile.width * tile.height for tile in tiles)


def disjoint(tiles: tuple[Tile, ...]) -> bool:
    return not any(
        a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height
        for i, a in enumerate(tiles)
        for b in tiles[:i]
    )


# --- the body


def test_the_contracts_body_survives_the_round_trip_exactly() -> None:
    body = parse_layout(CONTRACT_BODY)
    assert json.loads(body.model_dump_json()) == CONTRACT_BODY
    check(body, participants=[], images=[])


def test_an_empty_body_is_the_default_grid() -> None:
    assert parse_layout({}) == LayoutBody()
    assert LayoutBody().preset == "grid"


@pytest.mark.parametrize(
    ("wrong", "loc"),
    [
        ({"preset": "mosaic"}, ["preset"]),
        ({"colour": "red"}, ["colour"]),
        ({"canvas": {"width": 1281}}, ["canvas", "width"]),
        ({"canvas": {"width": "1280"}}, ["canvas", "width"]),
        ({"canvas": {"fps": 0}}, ["canvas", "fps"]),
        ({"canvas": {"background": "red"}}, ["canvas", "background"]),
        ({"max_tiles": 26}, ["max_tiles"]),
        ({"names": "yes"}, ["names"]),
        ({"pins": {"a": -1}}, ["pins", "a"]),
        ({"regions": [{"id": "a", "width": "1/0", "height": "1"}]}, ["regions", 0, "width"]),
        ({"regions": [{"id": "a", "width": "1e9", "height": "1"}]}, ["regions", 0, "width"]),
        ({"regions": [{"id": "a", "width": "-1", "height": "1"}]}, ["regions", 0, "width"]),
        ({"regions": [{"id": "a", "width": "1", "height": "1", "source": "tv"}]}, ["regions", 0, "source"]),
        ({"preset": "custom"}, []),
        ([], []),
        (None, []),
    ],
)
def test_a_wrong_field_is_named(wrong: object, loc: list[str | int]) -> None:
    with pytest.raises(InvalidBody) as caught:
        parse_layout(wrong)
    assert [error["loc"] for error in caught.value.errors] == [loc]
    assert caught.value.errors[0]["msg"]
    json.dumps(caught.value.details())


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_nothing_but_invalid_body_comes_out_of_any_json(data: object) -> None:
    with contextlib.suppress(InvalidBody):
        parse_layout({"regions": data, "pins": data, "canvas": data})


@given(st.from_regex(r"[0-9]{1,7}([/.][0-9]{1,10})?", fullmatch=True) | st.text(max_size=8) | st.floats())
def test_a_coordinate_is_kept_as_written_or_refused(text: str | float) -> None:
    try:
        body = custom({"width": text})
    except InvalidBody:
        return
    assert Fraction(body.regions[0].width) >= 0
    if isinstance(text, str):
        assert body.regions[0].width == text


def test_check_lists_every_fault() -> None:
    body = custom(
        {"x": "1/2", "width": "2/3"},
        {"id": "r0", "height": "1/2", "source": "participant:ghost"},
        {"y": "3/4", "height": "1/4", "source": "image:logo"},
        {"height": "1/100"},
    )
    with pytest.raises(InvalidBody) as caught:
        check(body, participants=["p0"], images=["other"])
    places = [tuple(error["loc"]) for error in caught.value.errors]
    assert ("regions", 0, "width") in places  # leaves the canvas
    assert ("regions", 1, "id") in places  # twice
    assert ("regions", 1, "source") in places
    assert ("regions", 1, "x") in places  # overlaps r0
    assert ("regions", 2, "source") in places
    assert ("regions", 3, "height") in places  # 7 pixels


def test_regions_may_overlap_at_another_z_and_touch_at_the_same() -> None:
    check(custom({}, {"width": "1/4", "height": "1/4", "z": 1}), participants=None, images=[])
    check(custom({"width": "1/3"}, {"x": "1/3", "width": "2/3"}), participants=None, images=[])


def test_anyone_may_come_later_when_participants_are_unknown() -> None:
    body = custom({"source": "participant:someone"})
    check(body, participants=None, images=[])
    check(body, participants=["someone"], images=[])


# --- geometry

SIZES = st.tuples(st.integers(80, 960).map(lambda n: 2 * n), st.integers(45, 960).map(lambda n: 2 * n))


@given(st.integers(1, 25), SIZES)
def test_grid_tiles_are_even_disjoint_and_inside(count: int, size: tuple[int, int]) -> None:
    body = parse_layout({"canvas": {"width": size[0], "height": size[1]}})
    tiles = arrange(body, people(count), None)
    assert len(tiles) == count
    assert disjoint(tiles)
    for tile in tiles:
        assert tile.x % 2 == tile.y % 2 == tile.width % 2 == tile.height % 2 == 0
        assert 0 <= tile.x <= size[0] - tile.width
        assert 0 <= tile.y <= size[1] - tile.height


@given(st.sampled_from(GRID_SIZES), SIZES)
def test_a_full_grid_covers_every_pixel(grid: tuple[int, int], size: tuple[int, int]) -> None:
    body = parse_layout({"canvas": {"width": size[0], "height": size[1]}})
    tiles = arrange(body, people(grid[0] * grid[1]), None)
    assert disjoint(tiles)
    assert covered(tiles) == size[0] * size[1]


@pytest.mark.parametrize(
    ("count", "grid"),
    [(1, (1, 1)), (2, (2, 1)), (3, (2, 2)), (4, (2, 2)), (5, (3, 2)), (7, (3, 3)), (10, (4, 3)), (13, (4, 4)),
     (17, (5, 4)), (21, (5, 5)), (25, (5, 5))],
)  # fmt: skip
def test_the_smallest_grid_that_holds_them(count: int, grid: tuple[int, int]) -> None:
    tiles = arrange(parse_layout({"canvas": {"width": 1200, "height": 1200}}), people(count), None)
    assert (tiles[0].width, tiles[0].height) == (1200 // grid[0], 1200 // grid[1])


def test_tiles_are_in_join_order_and_a_short_last_row_is_centred() -> None:
    tiles = arrange(LayoutBody(), people(5), None)
    assert who(tiles) == ["p0", "p1", "p2", "p3", "p4"]
    assert boxes(tiles) == [
        (0, 0, 426, 360), (426, 0, 428, 360), (854, 0, 426, 360), (214, 360, 426, 360), (640, 360, 426, 360),
    ]  # fmt: skip


@pytest.mark.parametrize("preset", sorted(RULES))
@pytest.mark.parametrize("count", range(0, 31, 3))
def test_every_preset_takes_any_number_of_people(preset: str, count: int) -> None:
    body = parse_layout({"preset": preset})
    tiles = arrange(body, people(count), "p1")
    assert bool(tiles) == bool(count)
    assert len({tile.id for tile in tiles}) == len(tiles)
    regions = [
        {
            "id": tile.id,
            "x": f"{tile.x}/1280",
            "y": f"{tile.y}/720",
            "width": f"{tile.width}/1280",
            "height": f"{tile.height}/720",
            "z": tile.z,
        }
        for tile in tiles
    ]
    if regions:
        check(custom(*regions), participants=None, images=[])


def test_presets_are_listed_with_geometry_that_parses_as_regions() -> None:
    listing = {entry["preset"]: entry for entry in presets()}
    assert set(listing) == {"grid", "speaker", "spotlight", "side-by-side", "pip", "presentation", "custom"}
    assert [size["count"] for size in listing["grid"]["sizes"]] == [1, 2, 4, 6, 9, 12, 16, 20, 25]
    for entry in listing.values():
        for size in entry["sizes"]:
            regions = [{"id": str(i), **region} for i, region in enumerate(size["regions"])]
            check(parse_layout({"preset": "custom", "regions": regions}), participants=None, images=[])
            assert len(regions) == size["count"]


@given(st.fractions(0, 1), st.fractions(0, 1), st.fractions(0, 1))
def test_rectangles_that_share_an_edge_share_it_in_pixels(a: Fraction, b: Fraction, c: Fraction) -> None:
    first, second, third = sorted((a, b, c))
    one, zero = Fraction(1), Fraction(0)
    left = Rect(first, zero, second - first, one).snap(1280, 720)
    right = Rect(second, zero, third - second, one).snap(1280, 720)
    assert left[0] + left[2] == right[0]


# --- who sits where


def test_speaker_fills_the_canvas_and_falls_back_to_a_picture() -> None:
    body = parse_layout({"preset": "speaker"})
    sources = [*people(1, has_video=False), *people(3)[1:]]
    assert who(arrange(body, sources, "p2")) == ["p2"]
    assert who(arrange(body, sources, "gone")) == ["p1"]
    assert boxes(arrange(body, sources, None)) == [(0, 0, 1280, 720)]


@pytest.mark.parametrize(
    ("count", "large"), [(2, (852, 480)), (6, (854, 480)), (7, (960, 540)), (8, (960, 540))]
)
def test_spotlight_chooses_one_plus_five_or_one_plus_seven(count: int, large: tuple[int, int]) -> None:
    tiles = arrange(parse_layout({"preset": "spotlight"}), people(count), "p1")
    assert tiles[0].participant == "p1"
    assert abs(tiles[0].width - large[0]) <= 2
    assert tiles[0].height == large[1]
    assert disjoint(tiles)
    if count in (6, 8):
        assert covered(tiles) == 1280 * 720


def test_presentation_shows_the_screen_whole_with_faces_beside_it() -> None:
    sources = [*people(3), Source("s", "Ada's screen", "webrtc", True, screen=True)]
    tiles = arrange(parse_layout({"preset": "presentation"}), sources, "p2")
    assert who(tiles) == ["s", "p0", "p1", "p2"]
    assert tiles[0].fit == "contain"
    assert boxes(tiles)[:2] == [(0, 0, 1024, 720), (1024, 0, 256, 144)]
    crowd = arrange(parse_layout({"preset": "presentation"}), [*people(20), sources[-1]], "p19")
    assert who(crowd) == ["s", "p19", "p0", "p1", "p2", None]
    assert crowd[-1].label == "+16"


def test_pip_puts_another_one_in_the_corner_on_top() -> None:
    tiles = arrange(parse_layout({"preset": "pip"}), people(4), "p2")
    assert [(tile.participant, tile.z) for tile in tiles] == [("p2", 0), ("p0", 1)]
    assert not disjoint(tiles)


def test_side_by_side_swaps_nobody_while_both_are_seen() -> None:
    body = parse_layout({"preset": "side-by-side"})
    assert who(arrange(body, people(3), "p0")) == ["p0", "p1"]
    assert who(arrange(body, people(3), "p1")) == ["p0", "p1"]
    assert who(arrange(body, people(3), "p2")) == ["p0", "p2"]


def test_pins_take_their_slot_and_the_others_close_up() -> None:
    body = parse_layout({"pins": {"p3": 0, "p0": 99 % 25, "absent": 1}})
    assert who(arrange(body, people(4), None)) == ["p3", "p1", "p2", "p0"]
    spot = parse_layout({"preset": "spotlight", "pins": {"p4": 0}})
    assert who(arrange(spot, people(6), "p1")) == ["p4", "p1", "p0", "p2", "p3", "p5"]


def test_two_pins_on_one_slot_are_seated_in_join_order() -> None:
    assert who(arrange(parse_layout({"pins": {"p2": 0, "p1": 0}}), people(3), None)) == ["p1", "p2", "p0"]


def test_phones_past_the_last_tile_are_one_counter() -> None:
    phones = [Source(f"t{i}", f"+33 {i}", "phone", False) for i in range(6)]
    sources = [*phones[:3], *people(5), *phones[3:]]
    tiles = arrange(parse_layout({"max_tiles": 9}), sources, None)
    assert who(tiles) == ["t0", "t1", "t2", "p0", "p1", "p2", "p3", "p4", None]
    assert (tiles[-1].kind, tiles[-1].label) == ("counter", "+3")


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40), st.integers(1, 25), st.integers(0, 39))
def test_nobody_is_lost_or_shown_twice(kinds: list[tuple[bool, bool]], most: int, pinned: int) -> None:
    sources = [
        Source(f"p{i}", "", "phone" if phone else "webrtc", video and not phone)
        for i, (phone, video) in enumerate(kinds)
    ]
    tiles = arrange(parse_layout({"max_tiles": most, "pins": {f"p{pinned}": 3}}), sources, None)
    assert len(tiles) == min(most, len(sources))
    shown = [participant for participant in who(tiles) if participant]
    assert len(set(shown)) == len(shown)
    counted = sum(int(tile.label) for tile in tiles if tile.kind == "counter")
    if most > 2:
        assert len(shown) + counted == len(sources)
        if pinned < len(sources):
            assert f"p{pinned}" in shown


def test_custom_seats_each_kind_of_source() -> None:
    half = {"width": "1/2", "height": "1/4"}
    body = custom(
        {"source": "speaker", "height": "1/4", "width": "1/2"},
        {"source": "presentation", "x": "1/2"} | half,
        {"source": "participant:p2", "y": "1/4"} | half,
        {"source": "participant:gone", "x": "1/2", "y": "1/4"} | half,
        {"source": "any", "y": "1/2"} | half,
        {"source": "any", "x": "1/2", "y": "1/2"} | half,
        {"source": "image:logo", "y": "3/4", "fit": "contain"} | half,
    )
    sources = [*people(4), Source("s", "screen", "webrtc", True, screen=True)]
    tiles = {tile.id: tile for tile in arrange(body, sources, "p1")}
    assert [tiles[f"r{i}"].participant for i in range(7)] == ["p1", "s", "p2", None, "p0", "p3", None]
    assert tiles["r3"].kind == "empty"
    assert (tiles["r6"].kind, tiles["r6"].image, tiles["r6"].fit) == ("image", "logo", "contain")


def test_custom_comes_in_drawing_order() -> None:
    tiles = arrange(custom({"z": 5}, {"z": -1}, {"z": 5}), people(3), None)
    assert [tile.id for tile in tiles] == ["r1", "r0", "r2"]


# --- cost


def test_cost_grows_with_people_and_renditions() -> None:
    body = LayoutBody()
    few, many = (arrange(body, people(n), None) for n in (2, 9))
    high, low = RENDITIONS["high"], RENDITIONS["low"]
    assert predict_cost(body, few, [high]).cpu_cores < predict_cost(body, many, [high]).cpu_cores
    both = predict_cost(body, many, [high, low])
    assert both.cpu_cores > predict_cost(body, many, [high]).cpu_cores
    assert both.kbps == 1232 + 80


def test_cost_is_that_of_the_pictures_that_come() -> None:
    body = LayoutBody()
    tiles, high = arrange(body, people(9), None), [RENDITIONS["high"]]
    small = {tile.participant or "": 426 * 240 for tile in tiles}
    unknown, known = predict_cost(body, tiles, high), predict_cost(body, tiles, high, small)
    assert known.cpu_cores < 0.6 * unknown.cpu_cores
    assert predict_cost(body, tiles, high, dict.fromkeys(small, 1280 * 720)) == unknown
