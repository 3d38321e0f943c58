"""What a sender is asked for: as many pixels as its tiles show, and the bits that such a picture needs. Pure.

A 426×240 tile gains nothing from 1.5 Mbit/s of 720p, which costs the sender its line and us the decoding. So
each source has a demand, made of every tile it is in and of the renditions that somebody takes, and is told
about it (REMB, TMMBR, the simulcast layer). More is asked for at once, because somebody is looking at a blurred
picture; less only when it has been enough for a while, because layouts flicker and encoders that are turned
down and up again show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Final

from mixer.video.layout import Tile
from mixer.video.rendition import RENDITIONS, Rendition

TRICKLE_BPS: Final = 30_000  # of who is not shown: libwebrtc's encoders stop below that
LOWER_AFTER_S: Final = 2.0  # speakers and layouts change more often than once in that time
REFUSED_S: Final = 10.0  # an encoder takes seconds to get smaller, and would grow again as soon as it may
_REFERENCE_BPS: Final = 2_000_000  # a 720p30 picture: browsers send 1.7 to 2.5 Mbit/s by themselves
_REFERENCE_PIXELS: Final = 1280 * 720
_REFERENCE_FPS: Final = 30
# Bits grow more slowly than pixels: 0.75 fits what libwebrtc's simulcast gives its layers (320×180: 200 kbit/s,
# 640×360: 700, 1280×720: 2500) and leaves a 426×240 tile 385 kbit/s.
_PIXELS_EXPONENT: Final = 0.75
_FPS_EXPONENT: Final = 0.5  # half the pictures are twice as different from each other
_USUAL_SHAPE: Final = Fraction(16, 9)  # of a camera of which no picture has been seen yet
_FINE: Final = 16  # shapes are told apart by fractions up to so many: 426×240 is 16:9, too
_THINNEST: Final = Fraction(1, 4)  # a stranger's ribbon is not asked for thousands of lines
_LARGEST: Final = (1920, 1080)  # long and short edge of what is decoded at all
_MOST_BPS: Final = 2_500_000  # more is not seen in a picture that is coded once more on its way out
_SCREEN_LEAST_BPS: Final = 800_000  # text is sharp or it is useless, and it only costs bits while it moves


@dataclass(frozen=True, slots=True)
class Demand:
    """What one source is asked for: a picture of ``width`` × ``height`` pixels (0: it is not shown), of its own shape
    and as large as its tile needs it; ``fps``, bits a second.
    """

    width: int
    height: int
    fps: int
    bitrate_bps: int

    @property
    def shown(self) -> bool:
        """Whether anybody sees it."""
        return self.width > 0

    def covers(self, other: Demand) -> bool:
        """Whether who sends this sends enough for ``other``."""
        return (
            self.width >= other.width
            and self.height >= other.height
            and self.fps >= other.fps
            and self.bitrate_bps >= other.bitrate_bps
        )

    def merged(self, other: Demand) -> Demand:
        """Enough for both."""
        return Demand(
            max(self.width, other.width),
            max(self.height, other.height),
            max(self.fps, other.fps),
            max(self.bitrate_bps, other.bitrate_bps),
        )


UNSEEN: Final = Demand(0, 0, 0, TRICKLE_BPS)
KEPT: Final = Demand(640, 360, 15, 400_000)
"""Of who is not shown while tracks are recorded: a face that is recognised, for a quarter of what a large tile asks."""
FULL: Final = Demand(1280, 720, 30, _REFERENCE_BPS)
"""Before anything is known of the tiles: browsers ramp up to 720p30 and nobody waits for a sharp picture."""


def demands(
    tiles: Iterable[Tile],
    canvas: tuple[int, int, int],
    renditions: Sequence[Rendition],
    screen_suffix: str,
    sizes: Mapping[str, tuple[int, int]],
) -> dict[str, Demand]:
    """The demand of every source that has a tile; who is not in it is ``UNSEEN``.

    ``canvas``: width, height, fps. ``renditions``: those that somebody takes (the recorder too); the largest
    counts. ``screen_suffix``: how the names of shared screens end. ``sizes``: width and height of the pictures that
    sources send now, for their shapes; who is not in it is taken for 16:9.
    """
    # While nobody watches, snapshots and previews are still taken, and the first viewer comes without notice.
    seen = [rendition for rendition in renditions if rendition.has_video] or [RENDITIONS["low"]]
    width, height, fps = canvas
    scale = min(1.0, max(max(r.width / width, r.height / height) for r in seen))
    rate = min(fps, max(r.fps for r in seen))
    found: dict[str, Demand] = {}
    for tile in tiles:
        if tile.kind == "participant" and tile.participant is not None:
            source = tile.participant
            wanted = _of_tile(
                tile, scale, rate, _shape(sizes.get(source)), screen=source.endswith(screen_suffix)
            )
            before = found.get(source)
            found[source] = wanted if before is None else before.merged(wanted)
    return found


def kept(size: tuple[int, int] | None) -> Demand:
    """``KEPT``, upright for a source whose pictures are; ``size``: of those, as in ``demands``."""
    return replace(KEPT, width=KEPT.height, height=KEPT.width) if _shape(size) < 1 else KEPT


@lru_cache(maxsize=256)  # a room's, some times a second; sizes are strangers' words, so not without a bound
def _shape(size: tuple[int, int] | None) -> Fraction:
    """Width over height of a source's pictures."""
    if size is None or min(size) < 1:
        return _USUAL_SHAPE
    shape = min(max(Fraction(*size), _THINNEST), 1 / _THINNEST)
    return shape.limit_denominator(_FINE)


def _of_tile(tile: Tile, scale: float, fps: int, shape: Fraction, *, screen: bool) -> Demand:
    width, height = round(tile.width * scale), round(tile.height * scale)
    if tile.fit == "cover":  # what is seen is part of a larger picture: an upright one is cut above and below
        width, height = max(width, floor(height * shape)), max(height, floor(width / shape))
    else:
        width, height = min(width, ceil(height * shape)), min(height, ceil(width / shape))
    most = min(1.0, _LARGEST[0] / max(width, height), _LARGEST[1] / min(width, height))
    width, height = round(width * most), round(height * most)
    bits = _REFERENCE_BPS * (width * height / _REFERENCE_PIXELS) ** _PIXELS_EXPONENT
    bits *= (fps / _REFERENCE_FPS) ** _FPS_EXPONENT
    least = _SCREEN_LEAST_BPS if screen else TRICKLE_BPS
    return Demand(width, height, fps, max(least, min(round(bits), _MOST_BPS)))


class Asking:
    """What each source has been asked for, and when that changes. ``now``: seconds, monotonic."""

    def __init__(self, lower_after_s: float = LOWER_AFTER_S) -> None:
        self._lower_after_s = lower_after_s
        self._asked: dict[str, Demand] = {}
        self._refused: dict[str, float] = {}  # until when
        # What was wanted since less was enough: the most of it, and since when.
        self._less: dict[str, tuple[Demand, float]] = {}

    def asked(self, source: str) -> Demand:
        """What ``source`` is asked for now."""
        return self._asked.get(source, FULL)

    def forget(self, source: str) -> None:
        """The source is gone."""
        self._asked.pop(source, None)
        self._refused.pop(source, None)
        self._less.pop(source, None)

    def refuse(self, source: str, now: float) -> None:
        """Its pictures are too large to be taken: it gets a trickle, since encoders shrink with their rate."""
        self._refused[source] = now + REFUSED_S

    def update(self, wanted: Mapping[str, Demand], sources: Iterable[str], now: float) -> dict[str, Demand]:
        """Those of ``sources`` to be asked for something else now; call it on every change and now and then."""
        changed: dict[str, Demand] = {}
        for source in sources:
            demand = self._next(source, wanted.get(source, UNSEEN), now)
            if demand != self._asked.get(source):
                self._asked[source] = changed[source] = demand
        return changed

    def _next(self, source: str, wanted: Demand, now: float) -> Demand:
        before = self._asked.get(source)
        if now < self._refused.get(source, now):
            self._less.pop(source, None)
            return UNSEEN
        if before is None or not before.covers(wanted):
            self._less.pop(source, None)
            return wanted
        if before == wanted:
            self._less.pop(source, None)
            return before
        most, since = self._less.get(source, (wanted, now))
        most = most.merged(wanted)
        if now - since < self._lower_after_s:
            self._less[source] = most, since
            return before
        self._less.pop(source, None)
        return most
