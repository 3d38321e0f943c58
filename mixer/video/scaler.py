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
        return picture_of(self._resized(frame_of(picture), width, height))

    def place(self, frame: av.VideoFrame, place: Placement) -> Picture:
        """The part of ``frame`` that ``place`` names, scaled to its size, in the canvas' colours.

        Raises ``av.FFmpegError`` or ``ValueError`` when the frame cannot be scaled.
        """
        return picture_of(self.fitted(frame, place))

    def fitted(self, frame: av.VideoFrame, place: Placement) -> av.VideoFrame:
        """As ``place``, but a frame: ``frame`` itself when there is nothing to do, otherwise one without a time."""
        if frame.format.name not in PLANAR_420:
            frame = self._other().reformat(frame, format="yuv420p", threads=1)
        full_range = frame.color_range == ColorRange.JPEG or frame.format.name == "yuvj420p"
        high_definition = frame.colorspace == _AVCOL_SPC_BT709
        foreign = full_range or high_definition
        if not foreign and place.crop == (0, 0, frame.width, frame.height) == (
            0,
            0,
            place.width,
            place.height,
        ):
            return frame
        # Over the planes alone, without the names of the colours: libswscale then only scales.
        part = frame_of(picture_of(frame).crop(*place.crop))
        if (part.width, part.height) != (place.width, place.height):
            part = self._resized(part, place.width, place.height)
        # At the tile's size, where it costs least.
        return self._to_canvas_colours(part, full_range, high_definition) if foreign else part

    def _resized(self, frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
        shrink = width < frame.width and height < frame.height
        return self._scale.reformat(
            frame,
            width,
            height,
            "yuv420p",
            interpolation=Interpolation.AREA if shrink else Interpolation.BICUBIC,
            threads=1,
        )

    def _to_canvas_colours(
        self, frame: av.VideoFrame, full_range: bool, high_definition: bool
    ) -> av.VideoFrame:
        """From BT.709 or full range to BT.601 limited."""
        return self._other().reformat(
            frame,
            format="yuv420p",
            src_colorspace=Colorspace.ITU709 if high_definition else Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )

    def _other(self) -> VideoReformatter:
        if self._convert is None:
            self._convert = VideoReformatter()
        return self._convert
