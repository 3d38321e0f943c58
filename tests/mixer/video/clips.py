"""Small moving pictures for the tests, coded by the encoders of libavcodec."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from importlib.resources import files

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixer.media import EncodedVideo, VideoCodec
from mixer.video.encoder import make_encoder
from mixer.video.frame import frame_of
from mixer.video.picture import Picture, Rgb

FONTS = files("mixer.video") / "fonts"


def moving(width: int, height: int, index: int) -> Picture:
    """A diagonal wave that moves by a few pixels a picture; smooth enough for every codec."""
    x = np.arange(width)[None, :] + np.arange(height)[:, None] + 4 * index
    wave = (128 + 90 * np.sin(x / 17)).astype(np.uint8)
    return Picture.from_rgb(np.stack([wave, 255 - wave, np.full_like(wave, 90)], axis=2))


def plain(width: int, height: int, rgb: Rgb) -> av.VideoFrame:
    """A decoded picture of one colour."""
    return frame_of(Picture.blank(width, height, rgb))


@cache
def coded(codec: VideoCodec, width: int, height: int, count: int) -> tuple[EncodedVideo, ...]:
    """``count`` coded pictures at 30 fps, the first of them a keyframe."""
    if codec == "VP9":
        return _vp9(width, height, count)
    encoder = make_encoder(codec, width, height, 30, 1_000_000)
    frames = [encoder.encode(moving(width, height, i), i * 3000) for i in range(count)]
    return tuple(frame for frame in frames if frame is not None)


def _vp9(width: int, height: int, count: int) -> tuple[EncodedVideo, ...]:
    context = av.CodecContext.create("libvpx-vp9", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 90_000), Fraction(30)
    context.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    packets: list[EncodedVideo] = []
    for index in range(count):
        frame = frame_of(moving(width, height, index))
        frame.pts, frame.time_base = index * 3000, Fraction(1, 90_000)
        packets += [
            EncodedVideo("VP9", bytes(packet), index * 3000, packet.is_keyframe)
            for packet in context.encode(frame)
        ]
    return tuple(packets)


def psnr_db(one: Picture, other: Picture) -> float:
    """Peak signal to noise of luma, dB."""
    error = float(((one.y.astype(np.float32) - other.y) ** 2).mean())
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def slide(width: int, height: int, number: int) -> Picture:
    """Dark text on white, another one for each ``number``; the smallest letters are a fiftieth of the height."""
    image = Image.new("RGB", (width, height), (250, 250, 250))
    draw = ImageDraw.Draw(image)
    text = (
        "who reads this slide on a telephone line of the slowest kind must still tell one word from another"
    )
    words = np.random.default_rng(number).permutation(text.split())
    top = height // 20
    for share in (10, 16, 16, 20, 20, 25, 25):
        font = ImageFont.truetype(str(FONTS / "Inter-Medium.otf"), height // share)
        draw.text((width // 20, top), " ".join(words[:12]), font=font, fill=(20, 30, 60))
        words = np.roll(words, 3)
        top += height // share * 3 // 2
    return Picture.from_rgb(np.asarray(image))
