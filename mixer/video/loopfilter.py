"""Whether a stream is decoded without its deblocking filter, which is a quarter of what decoding VP8 costs. Pure.

Leaving it out makes the reference pictures wrong, and the error grows until the next keyframe. Measured on
720p30 at 1.5 Mbit/s shown at a third of its size (a tile of 3×3), against the decoder with its filter:

- VP8, three camera-like clips, 40 s without a keyframe: luma never below 38 dB, SSIM never below 0.976, and in
  the pictures nobody tells which is which. A saturated zoom into a fractal, the worst we found: 36 dB after 4 s,
  32 dB after 10 s, 25 dB after 20 s. Hence `KEYFRAME_S`.
- H.264: 39 dB after half a second, 34 dB after 2 s. Visible, so it keeps its filter.
"""

from __future__ import annotations

from typing import Final

from mixer.media import VideoCodec

SMALL: Final = 0.34  # of the source's width: a third, and the two pixels that even edges add to it
KEYFRAME_S: Final = 5.0
SETTLE_S: Final = 2.0  # a tile that was small for that long is worth a keyframe: layouts come in bursts
ASK_AGAIN_S: Final = 1.0


class LoopFilterPolicy:
    """One VP8 stream. ``now``: seconds on any steady clock. Pictures of other codecs keep their filter."""

    def __init__(self) -> None:
        self.skips = False
        self._keyframe_at = float("-inf")
        self._asked_at = float("-inf")
        self._small_since: float | None = None

    def keyframe(self, codec: VideoCodec, source_width: int, tile_width: int | None, now: float) -> bool:
        """A keyframe is about to be decoded: whether the pictures from it on go without the filter.

        ``tile_width``: of the widest tile that shows the stream, pixels; None when it isn't known.
        """
        self._keyframe_at = now
        self.skips = codec == "VP8" and tile_width is not None and tile_width <= SMALL * source_width
        return self.skips

    def wants_keyframe(
        self, codec: VideoCodec, source_width: int, tile_width: int | None, now: float
    ) -> bool:
        """After any other picture: True when the sender should be asked for a keyframe now."""
        small = codec == "VP8" and tile_width is not None and tile_width <= SMALL * source_width
        if not small:
            self._small_since = None
        elif self._small_since is None:
            self._small_since = now
        if self.skips:
            # A tile that grew shows what was left out: at once. Otherwise when the error has grown for long.
            wanted = not small or now - self._keyframe_at >= KEYFRAME_S
        else:
            wanted = self._small_since is not None and now - self._small_since >= SETTLE_S
        if not wanted or now - self._asked_at < ASK_AGAIN_S:
            return False
        self._asked_at = now
        return True
