"""A recording composed again from its tracks and its timeline: the live room's scene and bridge, in fast time.

What came from the network comes again at the recording's times, and is decoded, mixed, arranged and composed by the
same code. So the journal's layouts give the picture of the film, and another layout what it would have been.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from mixer.audio.bridge import AudioBridge
from mixer.compose_film import FILM, Writer
from mixer.compose_io import Ahead, Composed, ComposeFailed, Tick
from mixer.compose_package import RecordedPackage
from mixer.compose_tracks import TrackPictures, TrackVoice
from mixer.media import AUDIO_CLOCK_HZ, TICK_S
from mixer.replay import SCREEN_SUFFIX, Replay, Waits
from mixer.trackclock import MIX_S
from mixer.video.layout import CanvasBody, LayoutBody, arrange
from mixer.video.output import Frames
from mixer.video.picture import Picture
from mixer.video.rendition import RENDITIONS
from mixer.video.scene import Feed, Scene

_LEAD_TICKS: Final = 50  # a second before the film's zero, so that nothing happens at a negative time


def compose_recording(
    package: RecordedPackage,
    replay: Replay,
    output: Path,
    canvas: CanvasBody,
    *,
    bitrate_bps: int,
    progress: Callable[[float], None] = lambda _: None,
    preset: str = FILM,
) -> Composed:
    """Compose ``package`` as ``replay`` plays it into ``output``, a film of the form of ``canvas``.

    ``progress`` gets the share done, 0 to 1. Raises ``ComposeFailed`` when there is nothing to compose or the output
    cannot be written. A track that is missing or breaks off is reported in the result, and costs only its tile and
    its voice; nothing is left at ``output`` unless all went well.
    """
    files = _files(replay, package)
    if not files:
        raise ComposeFailed('there are no tracks: record with "tracks": true, or name the folder they are in')
    waits = Waits(package.clocks)
    with ExitStack() as stack:
        pictures = {
            source: stack.enter_context(closing(TrackPictures(paths, _lateness(waits, source))))
            for (source, sound), paths in files.items()
            if not sound
        }
        voices = {
            source: stack.enter_context(closing(TrackVoice(paths)))
            for (source, sound), paths in files.items()
            if sound
        }
        writer = Writer(
            output, LayoutBody(canvas=canvas), sound=bool(voices), bitrate_bps=bitrate_bps, preset=preset
        )
        stack.callback(writer.close)
        stage = _Stage(replay, pictures, canvas)
        mix = _Mix(replay, waits, voices, writer)
        ahead = stack.enter_context(closing(Ahead(list(pictures.values()), canvas.fps)))
        frames = max(1, round(replay.ends_s * canvas.fps))
        try:
            for index in range(frames):
                now = index / canvas.fps
                changed = replay.advance(now)
                picture = stage.draw(ahead.take(), index, now, changed=changed)
                if voices:
                    mix.until((index + 1) / canvas.fps)
                writer.picture(picture, index)
                progress((index + 1) / frames)
            writer.finish()
        except (av.FFmpegError, OSError) as error:
            raise ComposeFailed(f"{output} cannot be written: {error}") from error
    faults = {f"picture of {name}": source.broken for name, source in pictures.items()}
    faults |= {f"voice of {name}": source.broken for name, source in voices.items()}
    missing = {track.file: "is not there" for track in replay.tracks if track.file not in package.tracks}
    broken = {name: fault for name, fault in faults.items() if fault}
    return Composed(frames / canvas.fps, frames, broken | missing)


class _Stage:
    """The scene over the tracks' pictures."""

    def __init__(self, replay: Replay, pictures: dict[str, TrackPictures], canvas: CanvasBody) -> None:
        self._replay = replay
        self._names = list(pictures)
        self._feeds = {name: Feed() for name in pictures}
        self._scene = Scene(replay.body, {})
        self._frames = Frames(replace(RENDITIONS["high"], width=canvas.width, height=canvas.height))

    def draw(self, tick: Tick, index: int, now: float, *, changed: bool) -> Picture:
        """The picture of this tick, in the form of the film."""
        body = self._replay.body
        if changed:
            sources = self._replay.sources()
            self._forget({source.id for source in sources})
            self._scene.speaker = self._replay.speaker
            self._scene.arrange(body, arrange(body, sources, self._replay.speaker), sources)
        for name, frame in zip(self._names, tick.frames, strict=True):
            if frame is not None:
                self._feeds[name].mailbox.put(frame, now)
            self._feeds[name].update(now, 0.0)
        if not self._replay.frozen(now):
            self._scene.draw(self._feeds, now)
        return self._frames.get(self._scene.canvas, body.canvas.background_rgb, index)

    def _forget(self, there: set[str]) -> None:
        """Who comes back begins with a placeholder, not with the picture they left by."""
        for name, feed in self._feeds.items():
            if name not in there and feed.frame is not None:
                self._feeds[name] = Feed()


class _Mix:
    """The live bridge over the tracks' packets."""

    def __init__(self, replay: Replay, waits: Waits, voices: dict[str, TrackVoice], writer: Writer) -> None:
        self._replay = replay
        self._waits = waits
        self._voices = voices
        self._writer = writer
        self._bridge = AudioBridge()
        self._bridge.set_recorder(self._take)
        self._in: set[str] = set()
        self._tick = 0

    def until(self, now: float) -> None:
        """Mix up to ``now`` of the film."""
        while self._tick * TICK_S < now + _LEAD_TICKS * TICK_S:
            at_s = self._tick * TICK_S
            for name, voice in self._voices.items():
                self._feed(name, voice, at_s - _LEAD_TICKS * TICK_S + MIX_S)
            self._bridge.tick(self._tick, at_s)
            self._tick += 1

    def _feed(self, name: str, voice: TrackVoice, due_s: float) -> None:
        """Packets as long before they are heard as the mix waited for them."""
        if name not in self._in and voice.codec is not None:
            self._bridge.add_input(name, voice.codec)
            self._in.add(name)
        person = self._replay.people.get(name)
        if name in self._in and person is not None:
            self._bridge.set_input(name, volume=person.volume)
            self._bridge.delay(name, self._waits.at(name, due_s) * 1000)  # and the pictures, by as much
        for packet in voice.until(due_s):
            self._bridge.push(
                name,
                sequence=packet.sequence,
                timestamp=packet.timestamp,
                payload=packet.payload,
                codec=packet.codec,
                now=packet.at_s - MIX_S + _LEAD_TICKS * TICK_S,
                ssrc=packet.stream,
            )

    def _take(self, pcm: NDArray[np.float32], pts: int) -> None:
        if pts >= _LEAD_TICKS * TICK_S * AUDIO_CLOCK_HZ:
            self._writer.sound(pcm)


def _lateness(waits: Waits, source: str) -> Callable[[float], float]:
    participant = source.removesuffix(SCREEN_SUFFIX)
    return lambda at_s: waits.at(participant, at_s) - MIX_S


def _files(replay: Replay, package: RecordedPackage) -> dict[tuple[str, bool], list[Path]]:
    """The files that are there, in order, by source and whether it is sound."""
    found: dict[tuple[str, bool], list[Path]] = {}
    for track in sorted(replay.tracks, key=lambda track: track.begins_s):
        path = package.tracks.get(track.file)
        if path is not None:
            found.setdefault((track.source, track.kind == "voice"), []).append(path)
    return found
