"""Between ``Picture`` and libav's frames, in both directions without copying."""

from __future__ import annotations

from typing import Final

import av
import numpy as np
from av.video.plane import VideoPlane

from mixer.video.picture import Picture, Plane

PLANAR_420: Final = frozenset({"yuv420p", "yuvj420p"})
"""The pixel formats whose planes a ``Picture`` can be a view of."""


def picture_of(frame: av.VideoFrame) -> Picture:
    """The planes of a 4:2:0 frame as views (even part of an odd size). They live as long as the picture.

    Never write into the picture of a decoded frame: the decoder may still refer to it.
    Raises ``ValueError`` for another pixel format.
    """
    if frame.format.name not in PLANAR_420:
        raise ValueError(f"expected 8-bit 4:2:0, got {frame.format.name}")
    height, width = frame.height // 2 * 2, frame.width // 2 * 2
    y, u, v = frame.planes
    return Picture(
        _view(y, height, width), _view(u, height // 2, width // 2), _view(v, height // 2, width // 2)
    )


def _view(plane: VideoPlane, height: int, width: int) -> Plane:
    return np.ndarray((height, width), np.uint8, memoryview(plane), strides=(plane.line_size, 1))


def frame_of(picture: Picture) -> av.VideoFrame:
    """A frame over the picture's own memory: nothing is copied, the frame keeps the planes alive."""
    return av.VideoFrame.from_dlpack(picture.planes, format="yuv420p")
