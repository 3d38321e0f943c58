"""What is seen where: chooses picture or placeholder for each tile, scales it, gives it to be composed.

One scene is live on the canvas; a preview is another scene over the same feeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import av

from mixer.video.compositor import Compositor, Content, Overlay, placement
from mixer.video.layout import LayoutBody, Source, Tile
from mixer.video.mailbox import Mailbox
from mixer.video.names import NameArtist
from mixer.video.picture import Picture
from mixer.video.scaler import Scaler

STALE_S: Final = 5.0  # the contract: nothing decoded for 5 s is a placeholder
_SERIALS: Final = itertools.count(1)  # of all feeds: one that comes back under its name is not mistaken
_LONGEST_TICK_S: Final = 0.125  # 8 fps; ticks further apart are a break in the ticks
_FROZEN_S: Final = 0.25  # a picture that stands longer than this is seen to stand


@dataclass(slots=True)
class Feed:
    """The newest picture of one source. Kept after it is shown: a new layout scales it again."""

    mailbox: Mailbox = field(default_factory=Mailbox)
    frame: av.VideoFrame | None = None
    at: float = float("-inf")
    serial: int = 0
    frozen_s: float = 0.0

    def update(self, now: float, elapsed_s: float) -> None:
        """Take what the mailbox has; ``elapsed_s`` since the last update counts as frozen if nothing came.

        A picture is due at the tick that is nearest to its time.
        """
        frame = self.mailbox.take(now + min(elapsed_s, _LONGEST_TICK_S) / 2)
        if frame is not None:
            self.frame, self.at, self.serial = frame, self.mailbox.at, next(_SERIALS)
        elif self.frame is not None and _FROZEN_S < now - self.at <= STALE_S:
            self.frozen_s += elapsed_s

    def live(self, now: float) -> bool:
        """Whether there is a picture young enough to be shown."""
        return self.frame is not None and now - self.at <= STALE_S


@dataclass(slots=True)
class _View:
    """One tile and what was drawn in it last."""

    tile: Tile
    picture: Picture | None = None  # scaled
    x: int = 0
    y: int = 0
    serial: int = -1  # of the feed, when ``picture`` was scaled
    shown: object = None  # what the compositor has; compared to see whether the tile changed

    @property
    def geometry(self) -> tuple[str | None, int, int, str]:
        """Views of equal geometry can hand their picture on when the layout changes."""
        return self.tile.participant, self.tile.width, self.tile.height, self.tile.fit


class Scene:
    """A compositor with its tiles. One thread at a time."""

    def __init__(self, body: LayoutBody, images: Mapping[str, Picture]) -> None:
        self.body = body
        self._images = images
        self._artist = NameArtist()
        self._views: list[_View] = []
        self._scalers: dict[tuple[str | None, int, int], Scaler] = {}
        self._sources: dict[str, Source] = {}
        self._compositor = self._canvas_of(body)
        self.speaker: str | None = None
        self.scale_ms = 0.0
        self.compose_ms = 0.0
        self.failed = 0

    @property
    def canvas(self) -> Picture:
        """The composed picture; valid until the next ``draw``."""
        return self._compositor.canvas

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The arrangement, in drawing order."""
        return tuple(view.tile for view in self._views)

    def arrange(self, body: LayoutBody, tiles: Sequence[Tile], sources: Sequence[Source]) -> None:
        """Take a new arrangement; pictures that keep their place and size are not scaled again."""
        self._sources = {source.id: source for source in sources}
        before, self.body = self.body, body
        if tuple(tiles) == self.tiles and body.canvas == before.canvas:
            return
        if (body.canvas.width, body.canvas.height) != (before.canvas.width, before.canvas.height):
            self._compositor = self._canvas_of(body)
        self._compositor.arrange(tiles, body.canvas.background_rgb)
        old = {view.geometry: view for view in self._views}
        self._views = [_View(tile) for tile in tiles]
        for view in self._views:
            if (kept := old.get(view.geometry)) is not None:
                view.picture, view.x, view.y, view.serial = kept.picture, kept.x, kept.y, kept.serial
        used = {(tile.participant, tile.width, tile.height) for tile in tiles}
        self._scalers = {key: scaler for key, scaler in self._scalers.items() if key in used}

    def draw(self, feeds: Mapping[str, Feed], now: float) -> None:
        """Scale what is new, compose what changed. ``scale_ms`` and ``compose_ms`` say what it took."""
        started = perf_counter()
        several = sum(view.tile.kind == "participant" for view in self._views) > 1
        for index, view in enumerate(self._views):
            border = (
                several
                and self.body.speaker_border
                and view.tile.participant is not None
                and view.tile.participant == self.speaker
            )
            self._update(index, view, feeds, now, border)
        scaled = perf_counter()
        self._compositor.compose()
        self.scale_ms = (scaled - started) * 1000
        self.compose_ms = (perf_counter() - scaled) * 1000

    def _update(self, index: int, view: _View, feeds: Mapping[str, Feed], now: float, border: bool) -> None:
        tile = view.tile
        background = self.body.canvas.background_rgb
        if tile.kind == "participant":
            self._update_participant(index, view, feeds.get(tile.participant or ""), now, border)
        elif view.shown is not None:
            return  # the other kinds never change
        elif tile.kind == "counter":
            card = self._artist.counter(tile.label, tile.width, tile.height, background=background)
            self._show(index, view, "counter", Content(card))
        elif tile.kind == "image" and tile.image is not None and tile.image in self._images:
            image = self._images[tile.image]
            place = placement(image.width, image.height, tile.width, tile.height, tile.fit)
            picture = self._scaler(tile).scale(image.crop(*place.crop), place.width, place.height)
            self._show(index, view, "image", Content(picture, place.x, place.y))
        else:
            self._show(index, view, "empty", Content())

    def _update_participant(
        self, index: int, view: _View, feed: Feed | None, now: float, border: bool
    ) -> None:
        tile = view.tile
        source = self._sources.get(tile.participant or "")
        muted = source is not None and source.muted
        wanted = source is None or source.has_video
        if wanted and feed is not None and feed.live(now):
            self._scale(view, feed)
        else:
            view.picture, view.serial = None, -1
        name = tile.label if self.body.names else ""
        shown = (view.serial, id(view.picture), name, muted, border)
        if shown == view.shown:
            return
        if view.picture is not None:
            content = Content(view.picture, view.x, view.y, self._plates(tile, name, muted), border)
        else:
            card = self._artist.placeholder(
                tile.label,
                tile.width,
                tile.height,
                background=self.body.canvas.background_rgb,
                muted=muted,
                seed=tile.participant,
            )
            content = Content(card, border=border)
        self._show(index, view, shown, content)

    def _scale(self, view: _View, feed: Feed) -> None:
        if view.serial == feed.serial or feed.frame is None:
            return
        tile, frame = view.tile, feed.frame
        view.serial = feed.serial  # also after a failure: the next try is the next picture
        try:
            place = placement(frame.width, frame.height, tile.width, tile.height, tile.fit)
            view.picture = self._scaler(tile).place(frame, place)
            view.x, view.y = place.x, place.y
        except (av.FFmpegError, ValueError, MemoryError):
            self.failed += 1  # one bad picture costs its tile a picture, nobody else anything

    def _plates(self, tile: Tile, name: str, muted: bool) -> tuple[Overlay, ...]:
        plate = self._artist.plate(name, tile.width, tile.height, muted=muted) if name else None
        return () if plate is None else (plate,)

    def _show(self, index: int, view: _View, shown: object, content: Content) -> None:
        view.shown = shown
        self._compositor.show(index, content)

    def _scaler(self, tile: Tile) -> Scaler:
        key = (tile.participant, tile.width, tile.height)
        if key not in self._scalers:
            self._scalers[key] = Scaler()
        return self._scalers[key]

    @staticmethod
    def _canvas_of(body: LayoutBody) -> Compositor:
        return Compositor(body.canvas.width, body.canvas.height, body.canvas.background_rgb)
