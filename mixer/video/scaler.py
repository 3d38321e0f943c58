"""Scales a decoded picture straight to its place in a tile, with one kept libswscale context a tile."""

from __future__ import annotations

from typing import Final

import av
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from mixer.video.compositor import Placement
from mixer.video.frame import PLANAR_420, frame_of, picture_of
from mixer.video.picture import Picture

_AVCOL_SPC_BT709: Final = 1  # libavutil/pixfmt.h, enum AVColorSpace


class Scaler:
    """One kept context. Use one for each tile and thread: a change of size costs a new context."""

    def __init__(self) -> None:
        self._scale = VideoReformatter()
        self._convert: VideoReformatter | None = None

    def scale(self, picture: Picture, width: int, height: int) -> Picture:
        """``picture`` at ``width``×``height`` (even); itself when it has that size already.

        Shrinking averages areas: every source pixel counts, so that text and hair don't flicker.
        """
        if (picture.width, picture.height) == (width, height):
            return picture
        shrink = width < picture.width and height < picture.height
        scaled = self._scale.reformat(
            frame_of(picture),
            width,
            height,
            "yuv420p",
            interpolation=Interpolation.AREA if shrink else Interpolation.BICUBIC,
            threads=1,
        )
        return picture_of(scaled)

    def place(self, frame: av.VideoFrame, place: Placement) -> Picture:
        """The part of ``frame`` that ``place`` names, scaled to its size, in the canvas' colours.

        Raises ``av.FFmpegError`` or ``ValueError`` when the frame cannot be scaled.
        """
        if frame.format.name not in PLANAR_420:
            frame = self._other().reformat(frame, format="yuv420p", threads=1)
        scaled = self.scale(picture_of(frame).crop(*place.crop), place.width, place.height)
        return self._to_canvas_colours(scaled, frame)

    def _to_canvas_colours(self, scaled: Picture, frame: av.VideoFrame) -> Picture:
        """From BT.709 or full range to BT.601 limited. At the tile's size, where it costs least."""
        full_range = frame.color_range == ColorRange.JPEG or frame.format.name == "yuvj420p"
        high_definition = frame.colorspace == _AVCOL_SPC_BT709
        if not full_range and not high_definition:
            return scaled
        converted = self._other().reformat(
            frame_of(scaled),
            format="yuv420p",
            src_colorspace=Colorspace.ITU709 if high_definition else Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        return picture_of(converted)

    def _other(self) -> VideoReformatter:
        if self._convert is None:
            self._convert = VideoReformatter()
        return self._convert
