"""Puts pictures on the canvas. Pure numpy: rectangles of bytes are copied, little else.

The canvas lives on from tick to tick, so only tiles whose content changed are drawn again, together with
whatever lies over them. Pictures arrive at the size at which they are drawn: ``placement`` says which part of
a source to scale to which size, with one factor for both axes, so that nothing is ever stretched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mixer.video.layout import Fit, Tile
from mixer.video.picture import Picture, Rgb, yuv_of

SPEAKER_RGB: Final[Rgb] = (46, 204, 143)
"""Seen on dark and on light pictures, also by people who confuse red with green (it is light, too)."""


# --- where a source goes in its tile


@dataclass(frozen=True, slots=True)
class Placement:
    """Take ``crop`` (x, y, width, height) of the source, scale it to ``width``×``height``, draw it at (x, y).

    (x, y) counts from the tile's corner. All even pixels.
    """

    crop: tuple[int, int, int, int]
    width: int
    height: int
    x: int
    y: int


def placement(
    source_width: int, source_height: int, tile_width: int, tile_height: int, fit: Fit
) -> Placement:
    """How a source of any size fills an even tile: ``cover`` crops its longer side, ``contain`` leaves bars.

    The pixel aspect is kept to within one pair of pixels, the grid that 4:2:0 can address.
    """
    wide = source_width * tile_height >= tile_width * source_height  # wider than the tile is
    if fit == "cover":
        width = _near(source_height * tile_width, tile_height, source_width) if wide else _floor(source_width)
        height = (
            _floor(source_height) if wide else _near(source_width * tile_height, tile_width, source_height)
        )
        left, top = (source_width - width) // 4 * 2, (source_height - height) // 4 * 2
        return Placement((left, top, width, height), tile_width, tile_height, 0, 0)
    width = tile_width if wide else _near(tile_height * source_width, source_height, tile_width)
    height = _near(tile_width * source_height, source_width, tile_height) if wide else tile_height
    x, y = (tile_width - width) // 4 * 2, (tile_height - height) // 4 * 2
    return Placement((0, 0, _floor(source_width), _floor(source_height)), width, height, x, y)


def _floor(value: int) -> int:
    return max(2, value // 2 * 2)


def _near(numerator: int, denominator: int, most: int) -> int:
    """The even number nearest to the fraction, at least 2, at most ``most``."""
    return max(2, min((numerator + denominator) // (2 * denominator) * 2, _floor(most)))


# --- what lies over a picture


@dataclass(frozen=True, slots=True)
class Overlay:
    """A translucent picture, multiplied by its alpha once and for all.

    ``ink``: (y, u, v), colour × alpha + rounding; ``keep``: 256 − alpha, luma and chroma; all ``uint16``.
    Drawn at even (x, y) of the tile: three numpy calls a plane.
    """

    ink: tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]
    keep: tuple[NDArray[np.uint16], NDArray[np.uint16]]
    x: int = 0
    y: int = 0

    @property
    def width(self) -> int:
        """Luma pixels."""
        return int(self.ink[0].shape[1])

    @property
    def height(self) -> int:
        """Luma rows."""
        return int(self.ink[0].shape[0])

    @classmethod
    def from_rgba(cls, rgba: NDArray[np.uint8], x: int = 0, y: int = 0) -> Overlay:
        """From straight-alpha (height, width, 4) ``uint8`` with even sizes, to be drawn at even (x, y)."""
        alpha = rgba[:, :, 3].astype(np.float32) * (256 / 255)
        half = alpha.reshape(alpha.shape[0] // 2, 2, alpha.shape[1] // 2, 2).mean(axis=(1, 3))
        colours = Picture.from_rgb(rgba[:, :, :3])
        alphas = (alpha, half, half)
        y_ink, u_ink, v_ink = (
            (plane * a + 128).astype(np.uint16) for plane, a in zip(colours.planes, alphas, strict=True)
        )
        keep = ((256 - alpha).round().astype(np.uint16), (256 - half).round().astype(np.uint16))
        return cls((y_ink, u_ink, v_ink), keep, x, y)

    def draw(self, target: Picture) -> None:
        """Blend over ``target``, which is the whole tile."""
        place = target.crop(self.x, self.y, self.width, self.height)
        for plane, ink, keep in zip(place.planes, self.ink, (*self.keep, self.keep[1]), strict=True):
            mixed = np.multiply(plane, keep, dtype=np.uint16)
            mixed += ink
            mixed >>= 8
            plane[:] = mixed


@dataclass(frozen=True, slots=True)
class Content:
    """What a tile shows: a picture at (x, y) inside it, bars where it ends, overlays, perhaps a border."""

    picture: Picture | None = None
    x: int = 0
    y: int = 0
    overlays: tuple[Overlay, ...] = ()
    border: bool = False


# --- the canvas


@dataclass(slots=True)
class _Slot:
    tile: Tile
    over: tuple[int, ...]  # later slots that cover a part of this one
    content: Content = field(default_factory=Content)
    dirty: bool = True


class Compositor:
    """A canvas of one size and the tiles on it. ``show`` what changed, then ``compose`` once a tick."""

    def __init__(self, width: int, height: int, background: Rgb) -> None:
        self.canvas = Picture.blank(width, height, background)
        self._background = background
        self._slots: list[_Slot] = []
        self._border_px = max(2, height // 180 // 2 * 2)  # 4 px at 720p
        self._border_yuv = yuv_of(SPEAKER_RGB)

    def arrange(self, tiles: Sequence[Tile], background: Rgb | None = None) -> None:
        """Replace the tiles (in drawing order). All contents are empty until shown; all is drawn again."""
        self._background = background or self._background
        self.canvas.fill(self._background)
        self._slots = [
            _Slot(tile, tuple(i for i in range(index + 1, len(tiles)) if _overlap(tile, tiles[i])))
            for index, tile in enumerate(tiles)
        ]

    def show(self, index: int, content: Content) -> None:
        """Change what tile ``index`` (as given to ``arrange``) shows from the next ``compose`` on."""
        slot = self._slots[index]
        slot.content, slot.dirty = content, True

    def compose(self) -> int:
        """Draw what changed into ``canvas``; returns how many tiles that was."""
        drawn = 0
        for slot in self._slots:
            if slot.dirty:
                for index in slot.over:
                    self._slots[index].dirty = True
                slot.dirty = False
                self._draw(slot.tile, slot.content)
                drawn += 1
        return drawn

    def _draw(self, tile: Tile, content: Content) -> None:
        place = self.canvas.crop(tile.x, tile.y, tile.width, tile.height)
        picture = content.picture
        if picture is None:
            place.fill(self._background)
        else:
            if (picture.width, picture.height) != (tile.width, tile.height):
                self._bars(place, content, picture)
            place.paste(picture, content.x, content.y)
        for overlay in content.overlays:
            if overlay.x + overlay.width <= tile.width and overlay.y + overlay.height <= tile.height:
                overlay.draw(place)
        if content.border:
            self._border(place)

    def _bars(self, place: Picture, content: Content, picture: Picture) -> None:
        right, bottom = content.x + picture.width, content.y + picture.height
        for x, y, width, height in (
            (0, 0, place.width, content.y),
            (0, bottom, place.width, place.height - bottom),
            (0, content.y, content.x, picture.height),
            (right, content.y, place.width - right, picture.height),
        ):
            if width > 0 and height > 0:
                place.crop(x, y, width, height).fill(self._background)

    def _border(self, place: Picture) -> None:
        for plane, value, edge in zip(
            place.planes, self._border_yuv, (self._border_px, *(self._border_px // 2,) * 2), strict=True
        ):
            plane[:edge] = value
            plane[-edge:] = value
            plane[:, :edge] = value
            plane[:, -edge:] = value


def _overlap(a: Tile, b: Tile) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height
