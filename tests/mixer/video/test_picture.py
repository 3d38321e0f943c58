from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mixer.video.picture import Picture, yuv_of

COLOURS = st.tuples(*(st.integers(0, 255),) * 3)


@given(COLOURS)
def test_a_colour_survives_the_round_trip(rgb: tuple[int, int, int]) -> None:
    shown = Picture.blank(4, 2, rgb).to_rgb()
    assert shown.shape == (2, 4, 3)
    # 8-bit limited range has 219 luma steps for 256 levels; chroma rounding adds as much again.
    assert np.abs(shown.astype(int) - np.array(rgb)).max() <= 3


def test_colours_are_bt601_limited_range() -> None:
    assert yuv_of((255, 255, 255)) == (235, 128, 128)
    assert yuv_of((0, 0, 0)) == (16, 128, 128)
    assert yuv_of((255, 0, 0)) == (81, 90, 240)
    assert yuv_of((0, 0, 255)) == (41, 240, 110)


@pytest.mark.parametrize("size", [(3, 2), (2, 3), (0, 2), (-2, 2)])
def test_sizes_are_even_and_positive(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="even"):
        Picture.empty(*size)


def test_a_crop_is_a_view() -> None:
    picture = Picture.blank(8, 8, (0, 0, 0))
    crop = picture.crop(2, 4, 4, 2)
    assert (crop.width, crop.height) == (4, 2)
    crop.fill((255, 255, 255))
    assert (picture.y[4:6, 2:6] == 235).all()
    assert (picture.y == 235).sum() == 8


def test_paste_puts_every_plane_at_its_place() -> None:
    picture = Picture.blank(8, 6, (0, 0, 0))
    picture.paste(Picture.blank(4, 2, (255, 0, 0)), 2, 4)
    rgb = picture.to_rgb()
    assert (rgb[4:6, 2:6, 0] > 250).all()
    assert (rgb[:4] < 5).all()


def test_a_copy_is_independent() -> None:
    picture = Picture.blank(4, 4, (9, 9, 9))
    kept = picture.copy()
    picture.fill((255, 255, 255))
    assert (kept.to_rgb() < 20).all()


def test_from_rgb_averages_chroma_and_cuts_odd_edges() -> None:
    rgb = np.zeros((5, 3, 3), np.uint8)
    rgb[:, 0] = (255, 255, 255)
    picture = Picture.from_rgb(rgb)
    assert (picture.width, picture.height) == (2, 4)
    assert picture.u.shape == (2, 1)
    assert picture.y[0].tolist() == [235, 16]


def test_png_can_be_read_back() -> None:
    image = Image.open(io.BytesIO(Picture.blank(16, 8, (10, 200, 60)).to_png()))
    assert image.size == (16, 8)
    assert np.abs(np.asarray(image).astype(int) - (10, 200, 60)).max() <= 3
