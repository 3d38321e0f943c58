"""Rectangles: exact fractions of the canvas, the presets' rules, and the one place that rounds to pixels.

A preset is a rule that gives, for ``n`` people, ``n`` rectangles. Rounding moves *edges* to even pixels
(4:2:0 chroma has half the resolution), never sizes: two tiles that share an edge as a fraction share it as a
pixel, so neighbours never overlap and never leave a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

GRID_SIZES: Final = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (4, 4), (5, 4), (5, 5))
"""(columns, rows), smallest first: the contract's table."""

MAX_TILES: Final = 25

_SPOTLIGHT_SMALL: Final = 7
STRIP_FACES: Final = 5  # a fifth of the width each: 256 × 144 at 720p, exactly 16:9
_PIP_MARGIN: Final = Fraction(1, 40)


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in exact fractions of the canvas, origin top left."""

    x: Fraction
    y: Fraction
    width: Fraction
    height: Fraction
    z: int = 0

    def snap(self, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """(x, y, width, height) in even pixels; shared edges stay shared."""
        left, right = _even(self.x * width_px), _even((self.x + self.width) * width_px)
        top, bottom = _even(self.y * height_px), _even((self.y + self.height) * height_px)
        return left, top, right - left, bottom - top

    def overlaps(self, other: Rect) -> bool:
        """True when the two share an area (a common edge is not an area)."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    def as_json(self) -> dict[str, Any]:
        """The form that a ``custom`` region takes."""
        rect = {"x": self.x, "y": self.y, "width": self.width, "height": self.height}
        return {key: format(value) for key, value in rect.items()} | {"z": self.z}


def _even(value: Fraction) -> int:
    return int(value / 2 + Fraction(1, 2)) * 2  # to the nearest even integer, halves up


def _rect(
    x: Fraction | int, y: Fraction | int, width: Fraction | int, height: Fraction | int, z: int = 0
) -> Rect:
    return Rect(Fraction(x), Fraction(y), Fraction(width), Fraction(height), z)


_FULL: Final = _rect(0, 0, 1, 1)


def _grid(count: int) -> tuple[Rect, ...]:
    columns, rows = next(((c, r) for c, r in GRID_SIZES if c * r >= count), GRID_SIZES[-1])
    width, height = Fraction(1, columns), Fraction(1, rows)
    rects: list[Rect] = []
    # A count such as 3 on 2×2 or 5 on 3×2 leaves the last row short; 13 on 4×4 leaves one tile in it.
    for index in range(count):
        row, column = divmod(index, columns)
        in_row = min(columns, count - row * columns)
        indent = (1 - in_row * width) / 2
        rects.append(_rect(indent + column * width, row * height, width, height))
    return tuple(rects)


def _spotlight(count: int) -> tuple[Rect, ...]:
    if count <= 1:
        return (_FULL,) * count
    parts = 3 if count <= 6 else 4  # 1+5 on thirds, 1+7 on quarters
    unit = Fraction(1, parts)
    large = 1 - unit
    column = [_rect(large, row * unit, unit, unit) for row in range(parts - 1)]
    bottom = [_rect(i * unit, large, unit, unit) for i in range(parts)]
    return (_rect(0, 0, large, large), *column, *bottom)[:count]


def _side_by_side(count: int) -> tuple[Rect, ...]:
    half = Fraction(1, 2)
    return (_FULL,) * count if count <= 1 else (_rect(0, 0, half, 1), _rect(half, 0, half, 1))


def _pip(count: int) -> tuple[Rect, ...]:
    quarter = Fraction(1, 4)
    corner = 1 - quarter - _PIP_MARGIN
    return (_FULL, _rect(corner, corner, quarter, quarter, z=1))[:count]


def _presentation(count: int) -> tuple[Rect, ...]:
    if count <= 1:
        return (_FULL,) * count
    face = Fraction(1, STRIP_FACES)
    strip = [_rect(1 - face, i * face, face, face) for i in range(count - 1)]
    return (_rect(0, 0, 1 - face, 1), *strip)


@dataclass(frozen=True, slots=True)
class Rule:
    """A preset: how many tiles it can show, their rectangles for a count, and what it is for."""

    capacity: int
    rects: Callable[[int], tuple[Rect, ...]]
    counts: tuple[int, ...]
    summary: str


RULES: Final[Mapping[str, Rule]] = {
    "grid": Rule(MAX_TILES, _grid, tuple(c * r for c, r in GRID_SIZES), "everyone, equally large"),
    "speaker": Rule(1, _spotlight, (1,), "the active speaker fills the canvas"),
    "spotlight": Rule(1 + _SPOTLIGHT_SMALL, _spotlight, (1, 6, 8), "the speaker large, others round it"),
    "side-by-side": Rule(2, _side_by_side, (1, 2), "two people, half the canvas each"),
    "pip": Rule(2, _pip, (1, 2), "the active speaker, another one in the corner"),
    "presentation": Rule(1 + STRIP_FACES, _presentation, (1, 6), "the shared screen, faces beside it"),
}
