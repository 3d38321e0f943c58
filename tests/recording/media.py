"""Test media: flashes and beeps at the same instants, encoded as the room encodes, on the room's clock."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType

FPS = 30
WIDTH, HEIGHT = 160, 90
FRAME_90K = 90_000 // FPS


@dataclass(frozen=True)
class Clip:
    """Encoded pictures (data, pts 90 kHz, keyframe) and sound (data, pts 48 kHz) of ``seconds`` from 0."""

    video: tuple[tuple[bytes, int, bool], ...]
    audio: tuple[tuple[bytes, int], ...]
    extradata: bytes
    seconds: int

    def merged(self, *, offset_s: int = 0) -> list[tuple[str, bytes, int, bool]]:
        """Both tracks as a room sends them: in time order, moved by ``offset_s``."""
        items = [(pts / 90_000, "video", data, pts + offset_s * 90_000, key) for data, pts, key in self.video]
        items += [(pts / 48_000, "audio", data, pts + offset_s * 48_000, True) for data, pts in self.audio]
        return [item[1:] for item in sorted(items, key=lambda item: item[0])]


@lru_cache
def clip(seconds: int = 6, *, key_every: int = FPS) -> Clip:
    """White and a 1 kHz tone for the first 100 ms of each second; black and silence else."""
    audio, extradata = _sound(seconds)
    return Clip(_pictures(seconds, key_every), audio, extradata, seconds)


def _pictures(seconds: int, key_every: int) -> tuple[tuple[bytes, int, bool], ...]:
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    codec.framerate, codec.time_base = Fraction(FPS), Fraction(1, 90_000)
    codec.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x264-params": "keyint=infinite:scenecut=0",
    }
    packets = []
    for number in range(seconds * FPS):
        plane = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        plane[:HEIGHT] = 235 if number % FPS < 3 else 16
        frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
        frame.pts, frame.time_base = number * FRAME_90K, Fraction(1, 90_000)
        frame.pict_type = PictureType.I if number % key_every == 0 else PictureType.NONE
        packets += codec.encode(frame)
    packets += codec.encode(None)
    return tuple((bytes(p), int(p.pts or 0), p.is_keyframe) for p in packets)


def _sound(seconds: int) -> tuple[tuple[tuple[bytes, int], ...], bytes]:
    codec = av.CodecContext.create("aac", "w")
    codec.sample_rate, codec.layout, codec.format = 48_000, "mono", "fltp"
    codec.bit_rate, codec.time_base = 64_000, Fraction(1, 48_000)
    codec.open()
    time = np.arange(seconds * 48_000)
    samples = np.where(time % 48_000 < 4_800, 0.5 * np.sin(2 * np.pi * 1000 * time / 48_000), 0).astype(
        np.float32
    )
    packets = []
    for at in range(0, len(samples) - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, at : at + 1024].copy(), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
        packets += codec.encode(frame)
    packets += codec.encode(None)
    return tuple((bytes(p), int(p.pts or 0)) for p in packets), bytes(codec.extradata or b"")


@dataclass(frozen=True)
class Decoded:
    """What a player would show and play: picture times and brightness, onsets of light and of sound, in seconds."""

    times: list[float]
    luma: list[float]
    flashes: list[float]
    beeps: list[float]
    video_s: float
    audio_s: float


def decode(path: Path) -> Decoded:
    """Decode the whole file; any corruption that FFmpeg notices is an exception."""
    times: list[float] = []
    luma: list[float] = []
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        for frame in container.decode(video=0):
            times.append(float(frame.time or 0))
            luma.append(float(frame.to_ndarray()[:HEIGHT].mean()))
    loud: list[float] = []
    audio_end = 0.0
    with av.open(str(path)) as container:
        for sound in container.decode(audio=0) if container.streams.audio else ():
            start, samples = float(sound.time or 0), np.abs(sound.to_ndarray()[0])
            loud += list(start + np.flatnonzero(samples > 0.1) / 48_000)
            audio_end = start + sound.samples / 48_000
    flashes = [t for i, t in enumerate(times) if luma[i] > 128 and (i == 0 or luma[i - 1] < 128)]
    beeps = [t for i, t in enumerate(loud) if i == 0 or t - loud[i - 1] > 0.3]
    return Decoded(times, luma, flashes, beeps, times[-1] + 1 / FPS if times else 0.0, audio_end)
