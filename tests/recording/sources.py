"""Coded pictures and sound as participants send them, in every codec that a room takes."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
from av.video.frame import PictureType

SIZE = (160, 90)
_LIBRARIES = {"opus": "libopus", "PCMU": "pcm_mulaw", "PCMA": "pcm_alaw", "G722": "g722"}
_RATES = {"opus": 48_000, "PCMU": 8_000, "PCMA": 8_000, "G722": 16_000}


@lru_cache
def _pictures(
    encoder: str, count: int, size: tuple[int, int], key_every: int
) -> tuple[tuple[bytes, bool], ...]:
    codec = av.CodecContext.create(encoder, "w")
    codec.width, codec.height, codec.pix_fmt = *size, "yuv420p"
    codec.framerate, codec.time_base = Fraction(25), Fraction(1, 25)
    codec.options = (
        {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "keyint=infinite:scenecut=0"}
        if encoder == "libx264"
        else {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0"}
    )
    packets = []
    for number in range(count):
        plane = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
        plane[: size[1]] = (number * 5) % 200 + 20
        frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        frame.pict_type = PictureType.I if number % key_every == 0 else PictureType.NONE
        packets += codec.encode(frame)
    packets += codec.encode(None)
    return tuple((bytes(p), p.is_keyframe) for p in packets)


def pictures(
    encoder: str, count: int, *, size: tuple[int, int] = SIZE, key_every: int = 25
) -> list[tuple[bytes, bool]]:
    """``count`` pictures that grow brighter: data, whether it is a keyframe."""
    return list(_pictures(encoder, count, size, key_every))


def sounds(codec: str, count: int, *, hz: float) -> list[bytes]:
    """``count`` RTP payloads of 20 ms of a tone."""
    rate = _RATES[codec]
    encoder = av.CodecContext.create(_LIBRARIES[codec], "w")
    encoder.sample_rate, encoder.layout = rate, "mono"
    encoder.format = "flt" if codec == "opus" else "s16"
    encoder.time_base = Fraction(1, rate)
    length = rate // 50
    packets = []
    for number in range(count + 1):
        time = (np.arange(length) + number * length) / rate
        wave = 0.3 * np.sin(2 * np.pi * hz * time)
        samples = wave.astype(np.float32) if codec == "opus" else (wave * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], "flt" if codec == "opus" else "s16", "mono")
        frame.sample_rate, frame.pts = rate, number * length
        packets += encoder.encode(frame)
    return [bytes(p) for p in packets][:count]
