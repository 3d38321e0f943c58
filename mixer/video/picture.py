"""Raw pictures: three numpy planes of 4:2:0, sliced without copying.

Colours are BT.601 with limited range (luma 16-235, chroma 16-240): what VP8 prescribes (RFC 6386 section 9.2)
and what browsers' cameras deliver; our H.264 says so in its VUI.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.uint8]
Rgb = tuple[int, int, int]

# ITU-R BT.601-7 section 2.5.1 for 8 bits, applied to RGB scaled to 0..1.
_RGB_TO_YUV = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], dtype=np.float32
)
_YUV_TO_RGB = np.linalg.inv(_RGB_TO_YUV).astype(np.float32) * 255
_OFFSET = np.array([16.0, 128.0, 128.0], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Picture:
    """An I420 picture: ``y`` is (height, width), ``u`` and ``v`` are (height/2, width/2), all ``uint8``.

    Width and height are even. The planes may be views of something larger: ``crop`` copies nothing, and
    writing into a crop writes into its parent.
    """

    y: Plane
    u: Plane
    v: Plane

    @property
    def width(self) -> int:
        """Luma pixels in a row."""
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        """Luma rows."""
        return int(self.y.shape[0])

    @property
    def planes(self) -> tuple[Plane, Plane, Plane]:
        """(y, u, v)."""
        return self.y, self.u, self.v

    @classmethod
    def empty(cls, width: int, height: int) -> Picture:
        """A picture of undefined content. Raises ``ValueError`` for an odd or non-positive size."""
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"4:2:0 pictures have even sizes, not {width}×{height}")
        chroma = (height // 2, width // 2)
        return cls(
            np.empty((height, width), np.uint8), np.empty(chroma, np.uint8), np.empty(chroma, np.uint8)
        )

    @classmethod
    def blank(cls, width: int, height: int, rgb: Rgb) -> Picture:
        """A picture of one colour (8-bit sRGB)."""
        picture = cls.empty(width, height)
        picture.fill(rgb)
        return picture

    @classmethod
    def from_rgb(cls, rgb: NDArray[np.uint8]) -> Picture:
        """From (height, width, 3) ``uint8``; an odd last row or column is cut off."""
        height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
        yuv = rgb[:height, :width].astype(np.float32) @ (_RGB_TO_YUV.T / 255) + _OFFSET
        chroma = yuv[:, :, 1:].reshape(height // 2, 2, width // 2, 2, 2).mean(axis=(1, 3))
        return cls(_to_u8(yuv[:, :, 0]), _to_u8(chroma[:, :, 0]), _to_u8(chroma[:, :, 1]))

    def crop(self, x: int, y: int, width: int, height: int) -> Picture:
        """The rectangle as a view. All four are even luma pixels."""
        left, top, right, bottom = x // 2, y // 2, (x + width) // 2, (y + height) // 2
        return Picture(
            self.y[y : y + height, x : x + width],
            self.u[top:bottom, left:right],
            self.v[top:bottom, left:right],
        )

    def paste(self, other: Picture, x: int = 0, y: int = 0) -> None:
        """Copy ``other`` into this picture with its top left corner at even (x, y). It must lie inside."""
        target = self.crop(x, y, other.width, other.height)
        np.copyto(target.y, other.y)
        np.copyto(target.u, other.u)
        np.copyto(target.v, other.v)

    def fill(self, rgb: Rgb) -> None:
        """Paint everything with one colour."""
        for plane, value in zip(self.planes, yuv_of(rgb), strict=True):
            plane.fill(value)

    def copy(self) -> Picture:
        """An independent picture of the same content."""
        return Picture(self.y.copy(), self.u.copy(), self.v.copy())

    def to_rgb(self) -> NDArray[np.uint8]:
        """As (height, width, 3) ``uint8`` sRGB; chroma is repeated, not interpolated."""
        yuv = np.empty((self.height, self.width, 3), np.float32)
        yuv[:, :, 0] = self.y
        yuv[:, :, 1] = self.u.repeat(2, axis=0).repeat(2, axis=1)
        yuv[:, :, 2] = self.v.repeat(2, axis=0).repeat(2, axis=1)
        return _to_u8((yuv - _OFFSET) @ _YUV_TO_RGB.T)

    def to_png(self) -> bytes:
        """As a PNG file."""
        out = io.BytesIO()
        # Level 3 is a third of the default's time for 10 % more bytes, and someone is waiting for it.
        Image.fromarray(self.to_rgb()).save(out, "PNG", compress_level=3)
        return out.getvalue()


def yuv_of(rgb: Rgb) -> tuple[int, int, int]:
    """One 8-bit sRGB colour as 8-bit (y, u, v)."""
    y, u, v = _to_u8(_RGB_TO_YUV @ (np.array(rgb, np.float32) / 255) + _OFFSET)
    return int(y), int(u), int(v)


def _to_u8(values: NDArray[np.floating[Any]]) -> Plane:
    rounded: Plane = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return rounded
