from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.video.compositor import SPEAKER_RGB, Compositor, Content, Overlay, placement
from mixer.video.layout import Fit, LayoutBody, Source, Tile, arrange, parse_layout
from mixer.video.picture import Picture, yuv_of

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (16, 24, 32)
EVEN = st.integers(8, 400).map(lambda n: 2 * n)


def tiles_of(count: int, preset: str = "grid") -> tuple[Tile, ...]:
    people = [Source(f"p{i}", f"Person {i}", "webrtc", True) for i in range(count)]
    return arrange(parse_layout({"preset": preset}), people, None)


def luma(picture: Picture, tile: Tile) -> np.ndarray:
    return picture.crop(tile.x, tile.y, tile.width, tile.height).y


# --- placement


def factors(crop: int, size: int) -> tuple[Fraction, Fraction]:
    """The smallest and the largest factor that scale ``crop`` to ``size`` within rounding."""
    return Fraction(size - 1, crop + 2), Fraction(size + 1, max(1, crop - 2))


@given(st.integers(16, 2000), st.integers(16, 2000), EVEN, EVEN, st.sampled_from(["cover", "contain"]))
def test_nothing_is_ever_stretched(width: int, height: int, tile_w: int, tile_h: int, fit: Fit) -> None:
    place = placement(width, height, tile_w, tile_h, fit)
    x, y, crop_w, crop_h = place.crop
    assert all(value % 2 == 0 for value in (*place.crop, place.width, place.height, place.x, place.y))
    assert 0 <= x <= width - crop_w
    assert 0 <= y <= height - crop_h
    assert place.x + place.width <= tile_w
    assert place.y + place.height <= tile_h
    if fit == "cover":
        assert (place.width, place.height, place.x, place.y) == (tile_w, tile_h, 0, 0)
    # One factor serves both axes, as exactly as pairs of pixels allow: a crop is off by at most a pixel for
    # rounding and one for an odd edge, a picture by one.
    across, down = factors(crop_w, place.width), factors(crop_h, place.height)
    sliver = 2 in (place.width, place.height, crop_w, crop_h)  # nothing is thinner than one pair
    assert sliver or max(across[0], down[0]) <= min(across[1], down[1])


@pytest.mark.parametrize(
    ("source", "tile", "fit", "crop", "size"),
    [
        ((1280, 720), (426, 240), "cover", (0, 0, 1278, 720), (426, 240)),
        ((640, 480), (640, 360), "cover", (0, 60, 640, 360), (640, 360)),
        ((480, 640), (640, 720), "cover", (0, 50, 480, 540), (640, 720)),
        ((640, 480), (640, 360), "contain", (0, 0, 640, 480), (480, 360)),
        ((720, 1280), (320, 180), "contain", (0, 0, 720, 1280), (102, 180)),
    ],
)
def test_placements_of_common_shapes(
    source: tuple[int, int], tile: tuple[int, int], fit: Fit, crop: tuple[int, ...], size: tuple[int, int]
) -> None:
    place = placement(*source, *tile, fit)
    assert place.crop == crop
    assert (place.width, place.height) == size


# --- overlays


def test_an_overlay_blends_by_its_alpha() -> None:
    rgba = np.zeros((4, 8, 4), np.uint8)
    rgba[:, :] = (255, 255, 255, 128)
    rgba[:, 4:, 3] = 0
    tile = Picture.blank(16, 8, (0, 0, 0))
    Overlay.from_rgba(rgba, 2, 2).draw(tile)
    shown = tile.to_rgb()
    assert np.abs(shown[2:6, 2:6].astype(int) - 128).max() <= 3
    assert (shown[2:6, 6:10] == shown[0, 0]).all()


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_blending_never_wraps(alpha: int, ink: int, paper: int) -> None:
    rgba = np.full((2, 2, 4), (ink, ink, ink, alpha), np.uint8)
    tile = Picture.blank(2, 2, (paper,) * 3)
    before, colour = tile.y[0, 0], yuv_of((ink,) * 3)[0]
    Overlay.from_rgba(rgba).draw(tile)
    low, high = min(before, colour), max(before, colour)
    assert low - 1 <= tile.y[0, 0] <= high + 1


# --- the canvas


def test_each_picture_is_in_its_tile_and_nowhere_else() -> None:
    tiles = tiles_of(3)
    compositor = Compositor(1280, 720, GREY)
    compositor.arrange(tiles)
    for index, colour in enumerate((RED, GREEN, BLUE)):
        compositor.show(index, Content(Picture.blank(tiles[index].width, tiles[index].height, colour)))
    assert compositor.compose() == 3
    for tile, colour in zip(tiles, (RED, GREEN, BLUE), strict=True):
        assert (luma(compositor.canvas, tile) == yuv_of(colour)[0]).all()
    assert compositor.canvas.y[719, 0] == yuv_of(GREY)[0]  # beside the centred last row


def test_only_what_changed_is_drawn_again() -> None:
    tiles = tiles_of(4)
    compositor = Compositor(1280, 720, GREY)
    compositor.arrange(tiles)
    assert compositor.compose() == 4
    assert compositor.compose() == 0
    compositor.show(2, Content(Picture.blank(640, 360, RED)))
    assert compositor.compose() == 1


def test_what_lies_over_a_changed_tile_stays_over_it() -> None:
    tiles = tiles_of(2, "pip")
    compositor = Compositor(1280, 720, GREY)
    compositor.arrange(tiles)
    compositor.show(0, Content(Picture.blank(1280, 720, RED)))
    compositor.show(1, Content(Picture.blank(320, 180, BLUE)))
    compositor.compose()
    compositor.show(0, Content(Picture.blank(1280, 720, GREEN)))
    assert compositor.compose() == 2
    assert (luma(compositor.canvas, tiles[1]) == yuv_of(BLUE)[0]).all()
    assert compositor.canvas.y[0, 0] == yuv_of(GREEN)[0]
    compositor.show(1, Content(Picture.blank(320, 180, RED)))
    assert compositor.compose() == 1


def test_bars_are_background_and_are_redrawn_with_the_picture() -> None:
    body = LayoutBody()
    tiles = arrange(body, [Source("p", "", "webrtc", True)], None)
    compositor = Compositor(1280, 720, GREY)
    compositor.arrange(tiles)
    compositor.show(0, Content(Picture.blank(1280, 720, RED)))
    compositor.compose()
    compositor.show(0, Content(Picture.blank(960, 720, BLUE), x=160))
    compositor.compose()
    row = compositor.canvas.y[360]
    assert (row[:160] == yuv_of(GREY)[0]).all()
    assert (row[160:1120] == yuv_of(BLUE)[0]).all()
    assert (row[1120:] == yuv_of(GREY)[0]).all()


def test_the_border_lies_inside_its_tile() -> None:
    tiles = tiles_of(4)
    compositor = Compositor(1280, 720, GREY)
    compositor.arrange(tiles)
    compositor.show(3, Content(Picture.blank(640, 360, RED), border=True))
    compositor.compose()
    edge = yuv_of(SPEAKER_RGB)[0]
    tile = luma(compositor.canvas, tiles[3])
    for side in (tile[:4], tile[-4:], tile[:, :4], tile[:, -4:]):
        assert (side == edge).all()
    assert (tile[4:-4, 4:-4] == yuv_of(RED)[0]).all()
    assert (luma(compositor.canvas, tiles[2]) == yuv_of(GREY)[0]).all()
