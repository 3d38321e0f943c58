"""The composed film as a file: x264's picture, AAC sound, written beside its place and put there when it is whole.

Nobody waits for a film, so its encoder may look far ahead. `FILM` is what x264 can save by that: ``veryfast`` with a
cheaper motion search, and a longer lookahead, finer quantisation and smaller dead zones that give back what it lost.
The same quality at the same bit rate for 0.6 of the work; ``docs/compose.md`` has the figures.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Final

import av

from mixer.audio.mix import Pcm
from mixer.compose_io import ComposeFailed
from mixer.media import AUDIO_CLOCK_HZ
from mixer.video.frame import frame_of
from mixer.video.layout import LayoutBody
from mixer.video.picture import Picture

FILM: Final = "film"
PRESETS: Final = (
    FILM, "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip
"""Ours, and x264's own, untouched."""
CONTAINERS: Final = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}

_FILM_PARAMETERS: Final[dict[str, int | float | str]] = {
    "subme": 1, "me": "dia",  # less search: 0.58 of the work; 0.005 of SSIM, 0.6 dB
    "rc-lookahead": 30,  # pictures, `fast` has as many; `veryfast` has 10
    "direct": "auto",
    "aq-mode": 2, "aq-strength": 0.7,
    "deadzone-inter": 11, "deadzone-intra": 6,  # x264: 21 and 11; without trellis they cut fine detail away
}  # fmt: skip
_AAC_FRAME: Final = 1024  # ISO/IEC 14496-3: samples of one AAC-LC frame
_AUDIO_BPS: Final = 96_000
_AVCOL_SPC_SMPTE170M: Final = 6  # BT.601, the canvas' matrix (mixer.video.picture)
_AVCOL_RANGE_MPEG: Final = 1


def encoder_options(preset: str) -> dict[str, str]:
    """libavcodec's options for one of `PRESETS`."""
    if preset != FILM:
        return {"preset": preset}
    return {
        "preset": "veryfast",
        "x264-params": ":".join(f"{key}={value}" for key, value in _FILM_PARAMETERS.items()),
    }


class Writer:
    """One file with the composed picture and, if any input has sound, the mix. ``preset``: one of `PRESETS`."""

    def __init__(self, path: Path, body: LayoutBody, *, sound: bool, bitrate_bps: int, preset: str) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._fifo = av.AudioFifo()
        self._samples = 0
        fps = body.canvas.fps
        kind = CONTAINERS[path.suffix.lower()]
        try:
            self._out = av.open(
                str(self._part),
                "w",
                format=kind,
                options={"movflags": "+faststart"} if kind != "matroska" else {},
            )
            video = self._out.add_stream("libx264", rate=fps, options=encoder_options(preset))
            video.width, video.height, video.pix_fmt = body.canvas.width, body.canvas.height, "yuv420p"
            video.bit_rate = bitrate_bps
            video.codec_context.thread_count = 1
            video.codec_context.colorspace = _AVCOL_SPC_SMPTE170M
            video.codec_context.color_range = _AVCOL_RANGE_MPEG
            self._video = video
            self._audio = self._out.add_stream("aac", rate=AUDIO_CLOCK_HZ, layout="mono") if sound else None
            if self._audio is not None:
                self._audio.bit_rate = _AUDIO_BPS
        except (av.FFmpegError, OSError) as error:
            raise ComposeFailed(f"{path} cannot be written: {error}") from error
        self._tick = Fraction(1, fps)

    def picture(self, canvas: Picture, index: int) -> None:
        """Append the picture of tick ``index``; the canvas may change afterwards."""
        frame = frame_of(canvas)
        frame.pts, frame.time_base = index, self._tick
        self._out.mux(self._video.encode(frame))

    def sound(self, pcm: Pcm) -> None:
        """Append mono samples at 48 kHz, ±1.0."""
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = (
            AUDIO_CLOCK_HZ,
            Fraction(1, AUDIO_CLOCK_HZ),
            self._samples,
        )
        self._samples += len(pcm)
        self._fifo.write(frame)
        while (chunk := self._fifo.read(_AAC_FRAME)) is not None:
            self._encode_sound(chunk)

    def finish(self) -> None:
        """Write what the encoders still hold and put the file in its place."""
        self._out.mux(self._video.encode(None))
        if self._audio is not None:
            rest = self._fifo.read(0, partial=True)
            if rest is not None:
                self._encode_sound(rest)
            self._out.mux(self._audio.encode(None))
        self._out.close()
        self._part.replace(self._path)

    def close(self) -> None:
        """Without ``finish`` before it: leave nothing behind."""
        try:
            self._out.close()
        finally:
            self._part.unlink(missing_ok=True)

    def _encode_sound(self, frame: av.AudioFrame) -> None:
        if self._audio is not None:
            self._out.mux(self._audio.encode(frame))
