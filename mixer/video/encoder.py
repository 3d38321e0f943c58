"""The encoders of the mix: H.264 constrained baseline and VP8, tuned for one encode that many people watch.

No B frames, no lookahead: a picture goes out in the tick in which it was composed. Keyframes come on demand
only; the rate buffer bounds them, because thirty viewers get them in the same moment.

``sharp`` encoders are for a shared screen: few pictures a second, more work and more bits for each, so that text
is legible at once. Measured on slides beside five moving faces, SSIM of the slide when it has just changed:
`medium` 0.963 → 0.992, `low` 0.930 → 0.956; half a second later 0.991 → 0.995 and 0.970 → 0.978.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Final, Literal

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from mixer.errors import MosaiqueError
from mixer.media import VIDEO_CLOCK_HZ, EncodedVideo, VideoCodec
from mixer.video.frame import frame_of
from mixer.video.picture import Picture

_TIME_BASE: Final = Fraction(1, VIDEO_CLOCK_HZ)
_BUFFER_S: Final = 0.5  # a keyframe is at most this long on a line of the rendition's own rate
_NEVER: Final = 1 << 24  # pictures between automatic keyframes: six days
_SHARP_PRESET_MAX_PX: Final = (
    640 * 360
)  # above it bits are plenty, and the slower preset costs 5 ms a picture

# Another slide: more than 4 % of every eighth pixel of every eighth row moved by more than 24 levels. Faces in a
# strip beside the screen stay below; a film on the screen does not, hence the pause.
_SLIDE_STEP_PX: Final = 8
_SLIDE_LEVELS: Final = 24
_SLIDE_SHARE: Final = 0.04
_SLIDE_PAUSE: Final = 2 * VIDEO_CLOCK_HZ


class EncodeFailed(MosaiqueError):
    """Ours: the encoder refused a picture. The caller makes a new encoder."""

    code = "encode-failed"


class VideoEncoder(ABC):
    """One encoder of one rendition. ``encode`` runs on the calling thread and keeps no picture."""

    codec: VideoCodec

    def __init__(self, width: int, height: int, fps: int, bitrate_bps: int, *, sharp: bool = False) -> None:
        self.width, self.height, self.fps, self.bitrate_bps = width, height, fps, bitrate_bps
        self.sharp = sharp
        self._context = self._open()

    @abstractmethod
    def _options(self) -> tuple[Literal["libx264", "libvpx"], dict[str, str]]:
        """(libavcodec's name of the encoder, its options)."""

    @abstractmethod
    def set_bitrate(self, bitrate_bps: int) -> None:
        """Change the target at the next picture, never above the rate the encoder was made for."""

    def _open(self) -> av.VideoCodecContext:
        name, options = self._options()
        context = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base, context.framerate = _TIME_BASE, Fraction(self.fps)
        context.bit_rate = self.bitrate_bps
        context.gop_size = _NEVER
        context.thread_count = 1
        context.options = options | {
            "maxrate": str(self.bitrate_bps),
            "bufsize": str(round(self.bitrate_bps * _BUFFER_S)),
        }
        context.open()
        return context

    def encode(self, picture: Picture, pts: int, *, keyframe: bool = False) -> EncodedVideo | None:
        """Encode ``picture`` (the encoder's own size) shown at ``pts`` (90 kHz, increasing).

        None when the encoder drops the picture to keep its rate. Raises ``EncodeFailed``.
        """
        frame = frame_of(picture)
        frame.pts, frame.time_base = pts, _TIME_BASE
        if keyframe:
            frame.pict_type = PictureType.I
        try:
            packets = self._context.encode(frame)
        except av.FFmpegError as error:
            raise EncodeFailed(f"{self.codec} encoder: {error}") from error
        if not packets:
            return None
        data = b"".join(bytes(packet) for packet in packets)
        return EncodedVideo(self.codec, data, pts, keyframe=packets[0].is_keyframe)


class H264Encoder(VideoEncoder):
    """x264, constrained baseline level 3.1 (``42c01f``), Annex B, parameter sets before each keyframe."""

    codec: VideoCodec = "H264"

    def _options(self) -> tuple[Literal["libx264", "libvpx"], dict[str, str]]:
        level = "3.1" if self.width * self.height * self.fps <= 1280 * 720 * 30 else "4.2"
        parameters: dict[str, str | int] = {
            "keyint": "infinite", "scenecut": 0, "repeat-headers": 1, "annexb": 1,
            "threads": 1, "sliced-threads": 0, "slices": 1, "bframes": 0, "ref": 1,
            "no-deblock": 0,  # `ultrafast` with its deblocking: 3.7 ms, 34.1 dB; `superfast` 5.0 ms, 33.5 dB
            "colormatrix": "smpte170m",  # as mixer.video.picture says
        }  # fmt: skip
        preset = "ultrafast"
        if self.sharp and self.width * self.height <= _SHARP_PRESET_MAX_PX:
            preset = "medium"
            parameters |= {"psy": 0, "aq-mode": 1}  # psychovisual noise is no help in reading
        return "libx264", {
            "preset": preset,
            "tune": "zerolatency",
            "profile": "baseline",  # x264 sets constraint_set1 with it: constrained baseline
            "level": level,
            "forced-idr": "1",
            "x264-params": ":".join(f"{key}={value}" for key, value in parameters.items()),
        }

    def set_bitrate(self, bitrate_bps: int) -> None:
        # With a rate buffer, libavcodec hands a changed bit_rate to x264 before the next picture.
        self._context.bit_rate = min(bitrate_bps, self.bitrate_bps)


class Vp8Encoder(VideoEncoder):
    """libvpx in realtime mode. A new bit rate takes a new encoder, so it starts with a keyframe.

    ``speed`` is negative: a fixed speed. A positive one lets libvpx choose by the time it takes, which on a
    busy machine makes pictures, not only timing, depend on the load.
    """

    codec: VideoCodec = "VP8"

    def __init__(
        self, width: int, height: int, fps: int, bitrate_bps: int, *, sharp: bool = False, speed: int = -8
    ) -> None:
        self._speed = speed
        self._slide: NDArray[np.int16] | None = None
        self._slide_pts = 0
        super().__init__(width, height, fps, bitrate_bps, sharp=sharp)

    def _options(self) -> tuple[Literal["libx264", "libvpx"], dict[str, str]]:
        return "libvpx", {
            "deadline": "realtime",
            "cpu-used": str(self._speed),
            "lag-in-frames": "0",
            "auto-alt-ref": "0",
            "static-thresh": "100",
            # Where a still slide is refined further than anyone sees, its bits come in bursts of two seconds' worth.
            "qmin": "16" if self.sharp else "4",
            "qmax": "63" if self.sharp else "56",
            # Per cent of an average picture's bits: half a second's worth, like x264's buffer.
            "max-intra-rate": str(round(100 * self.fps * _BUFFER_S)),
            "undershoot-pct": "95",
        }

    def encode(self, picture: Picture, pts: int, *, keyframe: bool = False) -> EncodedVideo | None:
        """As its parent; ``sharp``: another slide is a keyframe, since libvpx bounds those alone. At `low` a new
        slide was one picture of 14 kB, over a second of the line; as a keyframe it takes 5.6 kB.
        """
        if self.sharp and self._is_another_slide(picture, pts):
            keyframe = True
        return super().encode(picture, pts, keyframe=keyframe)

    def _is_another_slide(self, picture: Picture, pts: int) -> bool:
        sample = picture.y[::_SLIDE_STEP_PX, ::_SLIDE_STEP_PX].astype(np.int16)
        before, self._slide = self._slide, sample
        if before is None or pts - self._slide_pts < _SLIDE_PAUSE:
            return False
        if float((np.abs(sample - before) > _SLIDE_LEVELS).mean()) < _SLIDE_SHARE:
            return False
        self._slide_pts = pts
        return True

    def set_bitrate(self, bitrate_bps: int) -> None:
        if bitrate_bps != self._context.bit_rate:
            self.bitrate_bps = bitrate_bps
            self._context = self._open()


def make_encoder(
    codec: VideoCodec, width: int, height: int, fps: int, bitrate_bps: int, *, sharp: bool = False
) -> VideoEncoder:
    """The encoder for ``codec``. Raises ``ValueError`` for VP9, which we only decode."""
    match codec:
        case "H264":
            return H264Encoder(width, height, fps, bitrate_bps, sharp=sharp)
        case "VP8":
            return Vp8Encoder(width, height, fps, bitrate_bps, sharp=sharp)
        case _:
            raise ValueError(f"the mix is not encoded as {codec}")
