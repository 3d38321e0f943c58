"""Names, initials and counters, drawn with Pillow and the font beside this file, once, and kept.

Everything is drawn at three times its size and scaled down, so that discs and icons are as smooth as letters.
Results are kept in a bounded cache: a tick never draws text twice.
"""

from __future__ import annotations

import re
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from hashlib import blake2s
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixer.video.compositor import Overlay
from mixer.video.picture import Picture, Rgb

_FONTS: Final = Path(__file__).parent / "fonts"
_CACHE_ENTRIES: Final = 256  # a plate is some 20 kB, a placeholder of a 5×5 grid 50 kB
_OVERSAMPLE: Final = 3
_HAIRLINE_PX: Final = 2
_MAX_NAME: Final = 80  # characters looked at; far more than any tile can show

_INK: Final[Rgb] = (255, 255, 255)
_PLATE: Final = (10, 15, 20, 176)
_MUTED: Final[Rgb] = (255, 107, 107)
_DISCS: Final[tuple[Rgb, ...]] = (
    (44, 107, 163), (21, 128, 113), (150, 84, 36), (122, 82, 158),
    (178, 66, 92), (78, 112, 44), (64, 92, 130), (140, 98, 20),
)  # fmt: skip
"""Disc colours; white text on each reaches a contrast of at least 4.5 (WCAG 2.1, 1.4.3)."""

# What the shipped subset of Inter holds; OFL.txt says how it was made. A run of anything else becomes one box.
_COVERED: Final = r"\u0020-\u007e\u00a0-\u03ff\u0400-\u052f\u1e00-\u1fff\u2000-\u206f\u20a0-\u20bf"
_UNCOVERED: Final = re.compile(f"[^{_COVERED}]+")
_MISSING: Final = "\N{WHITE SQUARE}"

_T = TypeVar("_T")


class NameArtist:
    """Draws and keeps what is made of text. Not thread-safe: one a canvas."""

    def __init__(self, entries: int = _CACHE_ENTRIES) -> None:
        self._entries = entries
        self._kept: OrderedDict[Hashable, Overlay | Picture] = OrderedDict()

    def plate(self, name: str, width: int, height: int, *, muted: bool = False) -> Overlay | None:
        """The name for the lower left corner of a ``width``×``height`` tile; None when that is too small."""
        size = _text_px(height)
        if not name.strip() or width < size * 4 or height < size * 3:
            return None
        return self._keep(("plate", name, width, height, muted), lambda: _plate(name, width, height, muted))

    def placeholder(
        self,
        name: str,
        width: int,
        height: int,
        *,
        background: Rgb,
        muted: bool = False,
        seed: str | None = None,
    ) -> Picture:
        """A tile without a picture: initials in a disc and, below it, the name.

        ``seed`` (default: the name) chooses the disc's colour, so that it stays when a person is renamed.
        """
        key = ("placeholder", name, width, height, background, muted, seed)
        return self._keep(key, lambda: _placeholder(name, width, height, background, muted, seed or name))

    def counter(self, label: str, width: int, height: int, *, background: Rgb) -> Picture:
        """The tile that stands for those who have none: "+12"."""
        key = ("counter", label, width, height, background)
        return self._keep(key, lambda: _counter(label, width, height, background))

    def _keep(self, key: Hashable, make: Callable[[], _T]) -> _T:
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = make()  # type: ignore[assignment]  # the key's first word names the type
            if len(self._kept) > self._entries:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return kept  # type: ignore[return-value]


def initials(name: str) -> str:
    """One or two capitals: the first letters of the first and of the last word; "#" for a phone number."""
    words = [word for word in _clean(name).replace("-", " ").split() if any(c.isalnum() for c in word)]
    letters = [next(c for c in word if c.isalnum()) for word in words]
    if not letters:
        return "?"
    if letters[0].isdigit() and sum(c.isdigit() for c in name) > 4:
        return "#"  # a telephone
    chosen = letters[0] if len(letters) == 1 else letters[0] + letters[-1]
    return chosen.upper()[:2]


def _clean(name: str) -> str:
    """Without control, format (bidi overrides, joiners) and surrogate characters, white space made single.

    What the font lacks becomes a box: a name that is not shown whole should not look as if it were.
    """
    kept = (c if unicodedata.category(c)[0] != "C" else " " for c in name[:_MAX_NAME])
    composed = unicodedata.normalize("NFC", " ".join("".join(kept).split()))
    return _UNCOVERED.sub(_MISSING, composed)


@lru_cache(maxsize=32)
def _font(weight: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(
        str(_FONTS / f"Inter-{weight}.otf"), size_px, layout_engine=ImageFont.Layout.BASIC
    )


def _text_px(tile_height: int) -> int:
    return max(12, min(24, round(tile_height * 0.065)))


def _elide(text: str, font: ImageFont.FreeTypeFont, room_px: float) -> str:
    if font.getlength(text) <= room_px:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits with its ellipsis
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle].rstrip() + "…") <= room_px:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def _up_even(value: float) -> int:
    return -(-int(np.ceil(value)) // 2) * 2


def _plate(name: str, width: int, height: int, muted: bool) -> Overlay:
    size = _text_px(height)
    pad, icon = round(size * 0.5), round(size * 1.05) if muted else 0
    margin = max(4, _up_even(size * 0.4))
    font = _font("Medium", size * _OVERSAMPLE)
    room = width - 2 * margin - 2 * pad - icon
    text = _elide(_clean(name), font, room * _OVERSAMPLE)
    plate_width = min(width - 2 * margin, _up_even(font.getlength(text) / _OVERSAMPLE + 2 * pad + icon))
    plate_height = _up_even(size * 1.6)
    scale = _OVERSAMPLE
    image = Image.new("RGBA", (plate_width * scale, plate_height * scale), (*_PLATE[:3], 0))
    draw = ImageDraw.Draw(image)
    box = (0, 0, image.width - 1, image.height - 1)
    draw.rounded_rectangle(box, radius=plate_height * scale * 0.25, fill=_PLATE)
    if muted:
        _microphone_off(draw, pad * scale, image.height / 2, size * scale)
    draw.text(((pad + icon) * scale, image.height / 2), text, font=font, fill=(*_INK, 255), anchor="lm")
    small = image.resize((plate_width, plate_height), Image.Resampling.BOX)
    y = (height - margin - plate_height) // 2 * 2
    return Overlay.from_rgba(np.asarray(small), margin, y)


def _placeholder(name: str, width: int, height: int, background: Rgb, muted: bool, seed: str) -> Picture:
    scale = _OVERSAMPLE
    radius = min(width * 0.2, height * 0.24) * scale
    size = _text_px(height)
    named = height >= 72 and width >= size * 4
    font = _font("Medium", round(size * 1.1) * scale)
    icon = size * 1.3 * scale if muted else 0.0
    text = _elide(_clean(name), font, width * scale * 0.88 - icon) if named else ""
    text_width = font.getlength(text) + icon if named else 0.0
    # What is not flat: the disc, and the name below it with room for its descenders.
    below = radius + (size * 2.3 * scale if named else 0.0)
    middle = height * (0.43 if named else 0.5) * scale
    card = _Card(width, height, background, max(2 * radius, text_width), middle - radius, middle + below)
    x, y = card.centre, middle - card.top
    colour = _DISCS[blake2s(seed.encode("utf-8", "replace")).digest()[0] % len(_DISCS)]
    card.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    letters = initials(name)
    large = _font("SemiBold", max(6, round(radius * (0.95 if len(letters) == 1 else 0.8))))
    card.draw.text((x, y), letters, font=large, fill=_INK, anchor="mm")
    if named:
        left, text_y = x - text_width / 2, y + radius + size * 1.3 * scale
        if muted:
            _microphone_off(card.draw, left, text_y, size * 1.1 * scale)
        card.draw.text((left + icon, text_y), text, font=font, fill=_INK, anchor="lm")
    return card.finish()


def _counter(label: str, width: int, height: int, background: Rgb) -> Picture:
    font = _font("SemiBold", max(6, round(min(width * 0.22, height * 0.3) * _OVERSAMPLE)))
    middle = height * _OVERSAMPLE / 2
    card = _Card(width, height, background, font.getlength(label), middle - font.size, middle + font.size)
    card.draw.text((card.centre, middle - card.top), label, font=font, fill=_INK, anchor="mm")
    return card.finish()


class _Card:
    """A panel a little lighter than the canvas, with a hairline so that neighbours stay apart.

    Most of it is flat. Only its middle, ``across`` wide and from ``top`` to ``bottom`` (of the large drawing), is
    drawn and scaled down: a whole card of 1280×720 took the canvas 100 ms, three ticks. ``draw`` counts from the
    middle's corner, which is at ``top``; ``centre`` is the card's, across.
    """

    def __init__(
        self, width: int, height: int, background: Rgb, across: float, top: float, bottom: float
    ) -> None:
        lift = 16 if sum(background) < 3 * 200 else -60  # white text needs a dark card on a light canvas
        dark = sum(background) < 3 * 110
        red, green, blue = (max(0, min(255, c + lift)) if dark else min(c, 70) for c in background)
        colour = (red, green, blue)
        self._picture = Picture.blank(
            width, height, (min(255, red + 18), min(255, green + 18), min(255, blue + 18))
        )
        if width > 2 * _HAIRLINE_PX and height > 2 * _HAIRLINE_PX:
            inner = width - 2 * _HAIRLINE_PX, height - 2 * _HAIRLINE_PX
            self._picture.crop(_HAIRLINE_PX, _HAIRLINE_PX, *inner).fill(colour)
        # whole pairs of pixels, inside the hairline
        half = min(_up_even(across / _OVERSAMPLE / 2 + 2), width // 4 * 2 - _HAIRLINE_PX)
        self._x = width // 4 * 2 - half
        self._y = max(_HAIRLINE_PX, int(top / _OVERSAMPLE - 2) // 2 * 2)
        end = min(height - _HAIRLINE_PX, _up_even(bottom / _OVERSAMPLE + 2)) // 2 * 2
        self._image = Image.new(
            "RGB", (max(2, 2 * half) * _OVERSAMPLE, max(2, end - self._y) * _OVERSAMPLE), colour
        )
        self.draw = ImageDraw.Draw(self._image)
        self.centre = (width / 2 - self._x) * _OVERSAMPLE
        self.top = self._y * _OVERSAMPLE

    def finish(self) -> Picture:
        """The whole card."""
        middle = Picture.from_rgb(np.asarray(self._image.reduce(_OVERSAMPLE)))
        if self._x + middle.width <= self._picture.width and self._y + middle.height <= self._picture.height:
            self._picture.paste(middle, self._x, self._y)
        return self._picture


def _microphone_off(draw: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    """A crossed-out microphone, ``size`` high, its left edge at ``x``, its middle at ``y``."""
    stroke = max(1, round(size * 0.11))
    middle, top = x + size * 0.38, y - size * 0.5
    head = (middle - size * 0.16, top, middle + size * 0.16, top + size * 0.56)
    draw.rounded_rectangle(head, radius=size * 0.16, fill=_MUTED)
    cup = (middle - size * 0.3, top + size * 0.1, middle + size * 0.3, top + size * 0.74)
    draw.arc(cup, 10, 170, fill=_MUTED, width=stroke)
    draw.line((middle, top + size * 0.72, middle, top + size * 0.95), fill=_MUTED, width=stroke)
    draw.line(
        (middle - size * 0.18, top + size * 0.95, middle + size * 0.18, top + size * 0.95), _MUTED, stroke
    )
    slash = (x + size * 0.02, top + size * 0.06, x + size * 0.74, top + size * 0.9)
    draw.line(slash, fill=(10, 15, 20), width=stroke * 3)
    draw.line(slash, fill=_MUTED, width=stroke)
