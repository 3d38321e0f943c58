from __future__ import annotations

import contextlib
from fractions import Fraction

import av
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mixer.errors import MalformedPacket
from mixer.media import VideoCodec
from mixer.video.frame import frame_of
from mixer.video.headers import announced, picture_size
from mixer.video.picture import Picture
from tests.mixer.video.clips import coded

CODECS: tuple[VideoCodec, ...] = ("H264", "VP8", "VP9")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(320, 180), (64, 48), (1280, 720), (180, 320), (426, 240)])
def test_the_size_of_a_real_keyframe(codec: VideoCodec, size: tuple[int, int]) -> None:
    first, second = coded(codec, *size, 2)
    assert picture_size(codec, first.data) == size
    assert picture_size(codec, second.data) is None


@pytest.mark.parametrize("profile", ["baseline", "main", "high", "high10", "high422", "high444"])
def test_every_profile_of_h264(profile: str) -> None:
    formats = {"high10": "yuv420p10le", "high422": "yuv422p", "high444": "yuv444p"}
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 362, 202, formats.get(profile, "yuv420p")
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.options = {
        "profile": profile,
        "tune": "zerolatency",
        "preset": "ultrafast",
        "x264-params": "cqm=jvt",
    }
    frame = frame_of(Picture.blank(362, 202, (9, 9, 9))).reformat(format=context.pix_fmt)
    frame.pts = 0
    data = b"".join(bytes(packet) for packet in context.encode(frame))
    assert picture_size("H264", data) == (362, 202)


def test_a_picture_of_nothing_but_parameter_sets_is_bounded_work() -> None:
    sps = b"\0\0\1" + coded("H264", 64, 48, 1)[0].data.split(b"\0\0\1")[1].rstrip(b"\0")
    assert sps[3] & 0x1F == 7
    assert picture_size("H264", sps * 32) == (64, 48)
    with pytest.raises(MalformedPacket, match="more SPS"):
        picture_size("H264", sps * 33)


def test_the_largest_of_several_sizes_is_the_picture_s() -> None:
    small, large = (coded("H264", *size, 1)[0].data for size in ((64, 48), (320, 180)))
    assert picture_size("H264", small + large) == picture_size("H264", large + small) == (320, 180)
    assert [size.coded for size in announced("H264", small + large)] == [(64, 48), (320, 192)]


@given(st.sampled_from(CODECS), st.binary(max_size=64))
@example("H264", b"\0\0\1\x67")
@example("VP8", b"\0\0\0\x9d\x01\x2a\0\0\0\0")
def test_noise_is_malformed_or_has_a_size(codec: VideoCodec, data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        size = picture_size(codec, data)
        assert size is None or min(size) >= 0


@given(st.data(), st.sampled_from(CODECS))
def test_a_damaged_keyframe_is_malformed_or_has_a_size(data: st.DataObject, codec: VideoCodec) -> None:
    whole = bytearray(coded(codec, 64, 48, 2)[0].data[:64])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedPacket):
        picture_size(codec, bytes(whole[: data.draw(st.integers(0, len(whole)))]))
