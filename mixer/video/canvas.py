"""The frame tick: takes the newest pictures, composes the canvas, encodes every wanted rendition once.

One thread calls ``tick``; everything else may be called from any thread. What other threads ask for waits in
an inbox and is applied together at the beginning of the next tick: no picture ever shows half a change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

from mixer.media import VideoCodec
from mixer.video.encoder import make_encoder
from mixer.video.layout import LayoutBody, Source, Tile
from mixer.video.mailbox import Mailbox
from mixer.video.output import EncoderFactory, Frames, Output, Sink
from mixer.video.picture import Picture
from mixer.video.rendition import APART, RENDITIONS, Rendition
from mixer.video.scene import Feed, Scene

__all__ = ["Canvas", "Mailbox"]

_SMOOTHING: Final = 0.1
_SHARP_SHARE: Final = 0.5  # of the canvas: from there on the shared screen is what people look at
_MAX_INBOX: Final = 64  # changes; with viewers a tick empties it 30 times a second


class Canvas:
    """The composed picture of one room, and its encoders.

    ``images``: what ``image:NAME`` regions show. ``clock``: seconds, monotonic, the one behind ``now``; only
    snapshots and previews read it, since they come without a tick.
    """

    def __init__(
        self,
        body: LayoutBody,
        *,
        renditions: Mapping[str, Rendition] = RENDITIONS,
        images: Mapping[str, Picture] | None = None,
        encoders: EncoderFactory = make_encoder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._renditions = renditions
        self._images = images or {}
        self._encoders = encoders
        self._clock = clock
        self._state = threading.Lock()  # held by whoever draws: the tick, or a snapshot while nothing ticks
        self._inbox_lock = threading.Lock()
        self._inbox: list[Callable[[], None]] = []
        self._wanted: set[tuple[str, VideoCodec]] = set()
        self._scene = Scene(body, self._images)
        self._apart: Scene | None = None
        self._feeds: dict[str, Feed] = {}
        self._outputs: dict[tuple[str, VideoCodec], Output] = {}
        self._frames: dict[str, Frames] = {}
        self._fps = body.canvas.fps
        self._sharp = False
        self._version = 0
        self._last_index: int | None = None
        self._last_now: float | None = None
        self._ticks = {"run": 0, "late": 0, "dropped": 0}
        self._scale_ms = 0.0
        self._compose_ms = 0.0

    # --- what other threads ask for

    @property
    def fps(self) -> int:
        """Ticks a second that ``tick`` expects now; a layout changes it between two ticks."""
        return self._fps

    @property
    def wanted(self) -> bool:
        """Whether anybody takes pictures; without, ``tick`` need not be called."""
        return bool(self._wanted)

    def set_arrangement(
        self, version: int, body: LayoutBody, tiles: Sequence[Tile], sources: Sequence[Source] = ()
    ) -> None:
        """Show ``tiles`` (of ``arrange``) from the next tick on. ``sources``: who is muted, who has video."""

        def apply() -> None:
            self._version = version
            self._scene.arrange(body, tiles, sources)
            self._aim_all()
            self._sharp = _screen_share(body, tiles, sources) >= _SHARP_SHARE
            for output in self._outputs.values():
                output.sharp = self._sharp

        self._post(apply)

    def set_apart(
        self, body: LayoutBody, tiles: Sequence[Tile] | None, sources: Sequence[Source] = ()
    ) -> None:
        """What the rendition ``APART`` shows from the next tick on: another arrangement of the same pictures.

        None: nothing, and it costs nothing.
        """

        def apply() -> None:
            if tiles is None:
                self._apart = None
            else:
                if self._apart is None:
                    self._apart = Scene(body, self._images)
                    self._apart.speaker = self._scene.speaker
                self._apart.arrange(body, tiles, sources)
            self._aim_all()

        self._post(apply)

    def set_speaker(self, participant: str | None) -> None:
        """Who gets the border from the next tick on."""

        def apply() -> None:
            self._scene.speaker = participant
            if self._apart is not None:
                self._apart.speaker = participant

        self._post(apply)

    def add_source(self, source: str) -> Mailbox:
        """A box for the decoded pictures of ``source``; one that was there under this name is forgotten."""
        feed = Feed()

        def apply() -> None:
            self._feeds[source] = feed
            self._aim(source, feed)

        self._post(apply)
        return feed.mailbox

    def remove_source(self, source: str) -> None:
        """Forget its pictures: its tile, if it keeps one, is a placeholder from the next tick on."""
        self._post(lambda: (self._feeds.pop(source, None), None)[1])

    def want(self, rendition: str, codec: VideoCodec, sink: Sink) -> None:
        """Encode ``rendition`` in ``codec`` from the next tick on, beginning with a keyframe.

        ``sink`` is called on the canvas thread. Raises ``ValueError`` for a rendition without a picture.
        """
        chosen = APART if rendition == APART.name else self._renditions[rendition]
        if not chosen.has_video:
            raise ValueError(f"the rendition {rendition} has no picture")
        key = rendition, codec

        def apply() -> None:
            output = self._outputs[key] = Output(chosen, codec, sink, self._encoders)
            output.sharp = self._sharp
            self._frames.setdefault(rendition, Frames(chosen))

        self._post(apply)
        self._wanted.add(key)

    def unwant(self, rendition: str, codec: VideoCodec) -> None:
        """Nobody takes it any more: stop encoding it. A tick that runs now may call the sink once more."""
        key = rendition, codec

        def apply() -> None:
            self._outputs.pop(key, None)
            if all(name != rendition for name, _ in self._outputs):
                self._frames.pop(rendition, None)

        self._wanted.discard(key)
        self._post(apply)

    def force_keyframe(self, rendition: str, codec: VideoCodec) -> None:
        """Make the next picture of that rendition a keyframe."""
        self._post(lambda: self._with_output(rendition, codec, Output.force_keyframe))

    def set_keyframe_interval(self, rendition: str, codec: VideoCodec, interval_s: float | None) -> None:
        """A keyframe at least each ``interval_s`` (a recording wants to be sought); None: only on demand."""

        def apply(output: Output) -> None:
            output.keyframe_interval_s = interval_s

        self._post(lambda: self._with_output(rendition, codec, apply))

    # --- the tick

    def tick(self, index: int, now: float) -> None:
        """Compose frame ``index`` and hand the encoded pictures (pts = index · 90000 / fps) to the sinks.

        ``now``: seconds, monotonic, the clock of ``Mailbox.put``.
        """
        started = perf_counter()
        with self._state:
            self._refresh(now)
            fps, background = self._fps, self._scene.body.canvas.background_rgb
            for (name, _), output in self._outputs.items():
                scene = self._apart if name == APART.name else self._scene
                if scene is not None and output.due(index, fps):
                    picture = self._frames[name].get(scene.canvas, background, index)
                    output.encode(picture, index, fps, now)
            self._count(index, perf_counter() - started)
            # The caller counted this tick at the old rate; it asks for the rate before the next one.
            self._fps = self._scene.body.canvas.fps

    def _refresh(self, now: float) -> None:
        self._apply_inbox()
        elapsed_s = 0.0 if self._last_now is None else max(0.0, now - self._last_now)
        self._last_now = now
        for feed in self._feeds.values():
            feed.update(now, elapsed_s)
        self._scene.draw(self._feeds, now)
        if self._apart is not None:
            self._apart.draw(self._feeds, now)
        self._scale_ms += _SMOOTHING * (self._scene.scale_ms - self._scale_ms)
        self._compose_ms += _SMOOTHING * (self._scene.compose_ms - self._compose_ms)

    def _count(self, index: int, took_s: float) -> None:
        self._ticks["run"] += 1
        self._ticks["late"] += took_s * self._fps > 1
        if self._last_index is not None:
            self._ticks["dropped"] += max(0, index - self._last_index - 1)
        self._last_index = index

    def _post(self, apply: Callable[[], None]) -> None:
        with self._inbox_lock:
            self._inbox.append(apply)
            full = len(self._inbox) >= _MAX_INBOX
        if full and not self._wanted:
            # Nobody watches, so no tick empties it (and none is held up): nothing is dropped, all is applied.
            with self._state:
                self._apply_inbox()

    def _apply_inbox(self) -> None:
        with self._inbox_lock:
            inbox, self._inbox = self._inbox, []
        for apply in inbox:
            apply()

    def _aim_all(self) -> None:
        for name, feed in self._feeds.items():
            self._aim(name, feed)

    def _aim(self, source: str, feed: Feed) -> None:
        """Tell who decodes how large the picture is shown."""
        shown = (*self._scene.tiles, *(self._apart.tiles if self._apart is not None else ()))
        widths = [tile.width for tile in shown if tile.participant == source]
        feed.mailbox.tile_width = max(widths, default=None)

    def _with_output(self, rendition: str, codec: VideoCodec, apply: Callable[[Output], None]) -> None:
        output = self._outputs.get((rendition, codec))
        if output is not None:
            apply(output)

    # --- pictures for people

    def snapshot(self) -> Picture:
        """A copy of the canvas as it is now, composed first if no tick does it. Blocks for a tick at most."""
        with self._state:
            if not self._wanted:
                self._refresh(self._clock())
            return self._scene.canvas.copy()

    def snapshot_png(self) -> bytes:
        """``snapshot`` as a PNG file; takes some 50 ms, so call it beside the event loop."""
        return self.snapshot().to_png()

    def preview_png(self, body: LayoutBody, tiles: Sequence[Tile], sources: Sequence[Source] = ()) -> bytes:
        """The current pictures in another arrangement, as a PNG file. The live canvas is left alone."""
        now = self._clock()
        with self._state:
            if not self._wanted:
                self._refresh(now)
            # Only the references are taken under the lock: nobody writes into a decoded picture.
            feeds = {key: Feed(frame=f.frame, at=f.at, serial=f.serial) for key, f in self._feeds.items()}
            speaker = self._scene.speaker
        scene = Scene(body, self._images)
        scene.speaker = speaker
        scene.arrange(body, tiles, sources)
        scene.draw(feeds, now)
        return scene.canvas.to_png()

    def stats(self) -> dict[str, Any]:
        """Moving averages in ms, tick counters, and for each rendition ("high H264") and source their own."""
        return {
            "version": self._version,
            "scale_ms": round(self._scale_ms, 2),
            "compose_ms": round(self._compose_ms, 2),
            "ticks": dict(self._ticks),
            "failed_tiles": self._scene.failed,
            "renditions": {f"{name} {codec}": o.stats() for (name, codec), o in list(self._outputs.items())},
            "sources": {
                source: {
                    "frozen_ms": round(feed.frozen_s * 1000),
                    "received": feed.mailbox.received,
                    "overwritten": feed.mailbox.overwritten,
                }
                for source, feed in list(self._feeds.items())
            },
        }


def _screen_share(body: LayoutBody, tiles: Sequence[Tile], sources: Sequence[Source]) -> float:
    """How much of the canvas shared screens fill, 0 to 1."""
    screens = {source.id for source in sources if source.screen}
    area = sum(tile.width * tile.height for tile in tiles if tile.participant in screens)
    return area / (body.canvas.width * body.canvas.height)
