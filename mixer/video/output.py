"""One rendition in one codec: the canvas scaled to its size, at its rate, encoded once, given to one sink."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final, Protocol

from mixer.media import VIDEO_CLOCK_HZ, EncodedVideo, VideoCodec
from mixer.video.compositor import placement
from mixer.video.encoder import EncodeFailed, VideoEncoder, make_encoder
from mixer.video.picture import Picture, Rgb
from mixer.video.rendition import Rendition
from mixer.video.scaler import Scaler

Sink = Callable[[EncodedVideo], None]


class EncoderFactory(Protocol):
    """Makes an encoder of a codec: width, height, pictures a second, bits a second; see ``make_encoder``."""

    def __call__(
        self, codec: VideoCodec, width: int, height: int, fps: int, bitrate_bps: int, *, sharp: bool
    ) -> VideoEncoder: ...


_SMOOTHING: Final = 0.1  # of the moving averages: about the last ten values


class Frames:
    """The canvas in the size of one rendition, made at most once a tick however many codecs want it."""

    def __init__(self, rendition: Rendition) -> None:
        self._size = rendition.width, rendition.height
        self._scaler = Scaler()
        self._frame: Picture | None = None
        self._index = -1

    def get(self, canvas: Picture, background: Rgb, index: int) -> Picture:
        """The picture of tick ``index``; bars where the canvas has another shape than the rendition."""
        width, height = self._size
        if (canvas.width, canvas.height) == self._size:
            return canvas
        if self._frame is None or self._index != index:
            place = placement(canvas.width, canvas.height, width, height, "contain")
            scaled = self._scaler.scale(canvas.crop(*place.crop), place.width, place.height)
            if (scaled.width, scaled.height) == self._size:
                self._frame = scaled
            else:
                self._frame = Picture.blank(width, height, background)
                self._frame.paste(scaled, place.x, place.y)
            self._index = index
        return self._frame


class Output:
    """See the module. Lives on the canvas thread."""

    def __init__(
        self,
        rendition: Rendition,
        codec: VideoCodec,
        sink: Sink,
        factory: EncoderFactory = make_encoder,
    ) -> None:
        self.rendition, self.codec, self.sink = rendition, codec, sink
        self.keyframe_interval_s: float | None = None
        self.sharp = False
        """Whether a shared screen fills the canvas: fewer pictures, each of them sharper."""
        self.encode_ms = 0.0
        self.fps = 0.0
        self.kbps = 0.0
        self.encoded = 0
        self.keyframes = 0
        self.failed = 0
        self._factory = factory
        self._encoder: VideoEncoder | None = None
        self._force = True
        self._slot: int | None = None
        self._last_pts = -1
        self._keyframe_pts = 0
        self._window: tuple[float, int, int] | None = None  # since when, pictures, bytes

    def force_keyframe(self) -> None:
        """The next picture is a keyframe."""
        self._force = True

    def due(self, index: int, fps: int) -> bool:
        """Whether tick ``index`` of a canvas at ``fps`` is one of this rendition's, evenly spread."""
        # A forced keyframe doesn't wait for the slower rate: at 8 fps that would add 125 ms to every join.
        return self._slot != self._slot_of(index, fps) or self._force

    def encode(self, picture: Picture, index: int, fps: int, now: float) -> None:
        """Encode the picture of tick ``index`` and hand it to the sink. A failed encoder is replaced."""
        self._slot = self._slot_of(index, fps)
        pts = round(index * VIDEO_CLOCK_HZ / fps)
        if pts <= self._last_pts:
            return
        started = perf_counter()
        encoder = self._encoder_at(self._rate(fps))
        due_s = self.keyframe_interval_s
        keyframe = self._force or (due_s is not None and pts - self._keyframe_pts >= due_s * VIDEO_CLOCK_HZ)
        try:
            frame = encoder.encode(picture, pts, keyframe=keyframe)
        except EncodeFailed:
            self.failed += 1
            self._encoder, self._force = None, True
            return
        self._last_pts = pts
        self.encode_ms += _SMOOTHING * ((perf_counter() - started) * 1000 - self.encode_ms)
        if frame is None:
            return
        self.encoded += 1
        if frame.keyframe:
            self.keyframes += 1
            self._force, self._keyframe_pts = False, pts
        self._measure(len(frame.data), now)
        self.sink(frame)

    def _encoder_at(self, rate: int) -> VideoEncoder:
        """The encoder, another one when the rate or the kind of content changed.

        x264 spends its bits by the rate it was opened with: at a third of it, a third of the bits.
        """
        encoder = self._encoder
        if encoder is None or (encoder.fps, encoder.sharp) != (rate, self.sharp):
            size = self.rendition
            encoder = self._factory(
                self.codec, size.width, size.height, rate, size.video_bps, sharp=self.sharp
            )
            self._encoder, self._force = encoder, True
        return encoder

    def _rate(self, fps: int) -> int:
        return min(self.rendition.sharp_fps if self.sharp else self.rendition.fps, fps)

    def _slot_of(self, index: int, fps: int) -> int:
        return index * self._rate(fps) // fps

    def _measure(self, size: int, now: float) -> None:
        since, pictures, octets = self._window or (now, 0, 0)
        pictures, octets = pictures + 1, octets + size
        elapsed = now - since
        if elapsed >= 1:
            # The picture that closes the window opens the next one, hence one less.
            self.fps, self.kbps = (pictures - 1) / elapsed, (octets - size) * 8 / 1000 / elapsed
            since, pictures, octets = now, 1, size
        self._window = since, pictures, octets

    def stats(self) -> dict[str, float | int]:
        """fps, kbps (measured over the last second), encode_ms (moving average), counters."""
        return {
            "fps": round(self.fps, 1),
            "kbps": round(self.kbps, 1),
            "encode_ms": round(self.encode_ms, 2),
            "encoded": self.encoded,
            "keyframes": self.keyframes,
            "failed": self.failed,
        }
