from __future__ import annotations

import av
import numpy as np
import pytest

from mixer.video.compositor import placement
from mixer.video.frame import frame_of, picture_of
from mixer.video.picture import Picture, yuv_of
from mixer.video.scaler import Scaler
from tests.mixer.video.clips import moving, plain


def test_a_frame_and_a_picture_share_their_memory() -> None:
    picture = moving(64, 48, 0)
    frame = frame_of(picture)
    assert (frame.width, frame.height, frame.format.name) == (64, 48, "yuv420p")
    picture.y[0, 0] ^= 255
    assert picture_of(frame).y[0, 0] == picture.y[0, 0]


def test_a_crop_is_a_frame_without_copying() -> None:
    picture = moving(64, 48, 0)
    shown = picture_of(frame_of(picture.crop(16, 8, 32, 24)))
    for got, plane, half in zip(shown.planes, picture.planes, (1, 2, 2), strict=True):
        assert np.array_equal(got, plane[8 // half : 32 // half, 16 // half : 48 // half])
        assert np.shares_memory(got, plane)


def test_odd_sizes_lose_their_last_row_and_column() -> None:
    frame = av.VideoFrame(63, 47, "yuv420p")
    assert (picture_of(frame).width, picture_of(frame).height) == (62, 46)


def test_scaling_keeps_what_is_where() -> None:
    source = Picture.blank(1280, 720, (255, 0, 0))
    source.crop(640, 0, 640, 720).fill((0, 0, 255))
    small = Scaler().scale(source, 320, 180)
    assert np.abs(small.y[:, :158].astype(int) - yuv_of((255, 0, 0))[0]).max() <= 1
    assert np.abs(small.y[:, 162:].astype(int) - yuv_of((0, 0, 255))[0]).max() <= 1
    assert Scaler().scale(small, 320, 180) is small


def test_cover_takes_the_middle_and_contain_takes_all() -> None:
    source = Picture.blank(640, 480, (255, 255, 255))
    source.crop(0, 60, 640, 360).fill((255, 0, 0))  # what a 16:9 tile shows of it
    cover = Scaler().place(frame_of(source), placement(640, 480, 320, 180, "cover"))
    assert (cover.width, cover.height) == (320, 180)
    assert np.abs(cover.y[2:-2].astype(int) - yuv_of((255, 0, 0))[0]).max() <= 1
    contain = Scaler().place(frame_of(source), placement(640, 480, 320, 180, "contain"))
    assert (contain.width, contain.height) == (240, 180)
    assert contain.y[0, 0] == 235


@pytest.mark.parametrize("name", ["yuv422p", "rgb24", "nv12", "yuv420p10le", "yuva420p"])
def test_other_pixel_formats_are_converted(name: str) -> None:
    frame = plain(64, 48, (200, 40, 40)).reformat(format=name)
    shown = Scaler().place(frame, placement(64, 48, 32, 24, "cover"))
    assert np.abs(shown.to_rgb().astype(int) - (200, 40, 40)).max() <= 6


def test_full_range_becomes_limited() -> None:
    frame = frame_of(
        Picture(*(np.full(s, v, np.uint8) for s, v in (((48, 64), 255), ((24, 32), 128), ((24, 32), 128))))
    )
    frame.color_range = 2
    assert Scaler().place(frame, placement(64, 48, 32, 24, "cover")).y.max() == 235


def test_bt709_becomes_bt601() -> None:
    picture = Picture(
        *(np.full(s, v, np.uint8) for s, v in (((48, 64), 63), ((24, 32), 102), ((24, 32), 240)))
    )
    frame = frame_of(picture)  # red in BT.709
    frame.colorspace = 1
    shown = Scaler().place(frame, placement(64, 48, 32, 24, "cover")).to_rgb()[12, 16]
    assert np.abs(shown.astype(int) - (255, 0, 0)).max() <= 8
    assert frame.colorspace == 1
