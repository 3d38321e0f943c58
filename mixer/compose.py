"""``mosaique compose``: files in, one composed file out, by the same scene, compositor and mixer as a live room.

Two threads: one decodes all pictures a few ticks ahead, the other composes, mixes and encodes. Time is
the files' own: every input starts at zero, tick n is shown at n / fps, the picture shown is the newest that
is not in the future.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, get_args

import av
import numpy as np
from tqdm import tqdm

from mixer.audio.mix import Limiter, total
from mixer.audio.speaker import Speakers, level_dbov
from mixer.compose_film import CONTAINERS, FILM, PRESETS, Writer
from mixer.compose_io import Ahead, AudioInput, Composed, ComposeFailed, Tick, VideoInput
from mixer.errors import ConfigError, InvalidBody
from mixer.media import TICK_S
from mixer.video.layout import CanvasBody, LayoutBody, Preset, Source, Tile, arrange, check, parse_layout
from mixer.video.picture import Picture
from mixer.video.rendition import RENDITIONS
from mixer.video.scene import Feed, Scene

_SIZE: Final = re.compile(r"([0-9]{2,4})x([0-9]{2,4})", re.ASCII)


# --- composing


def compose_files(
    inputs: Sequence[Path],
    output: Path,
    body: LayoutBody,
    *,
    fps: int | None = None,
    progress: Callable[[float], None] = lambda _: None,
    bitrate_bps: int | None = None,
    preset: str = FILM,
) -> Composed:
    """Compose ``inputs`` (participants in join order, named by their files) into ``output`` (.mp4, .mov, .mkv).

    ``fps`` overrides the body's. ``progress`` gets the share done, 0 to 1. ``bitrate_bps`` defaults to the
    rendition ``high``'s for the same number of pixels. Raises ``InvalidBody`` for a layout that doesn't fit the
    inputs, ``ComposeFailed`` for files that cannot be opened. An input that breaks off later is reported in the
    result and leaves its tile; nothing is left at ``output`` unless all went well.
    """
    if fps is not None:
        body = body.model_copy(update={"canvas": body.canvas.model_copy(update={"fps": fps})})
    names = _names(inputs)
    check(body, participants=names, images=())
    with ExitStack() as stack:
        videos = [stack.enter_context(closing(VideoInput(path))) for path in inputs]
        audios = {
            name: stack.enter_context(closing(AudioInput(path)))
            for name, path, video in zip(names, inputs, videos, strict=True)
            if video.has_sound
        }
        writer = Writer(
            output,
            body,
            sound=bool(audios),
            bitrate_bps=bitrate_bps or _default_bps(body.canvas),
            preset=preset,
        )
        stack.callback(writer.close)
        mosaic = _Mosaic(body, names, videos)
        if body.preset == "grid":  # where nobody changes places
            for name, video in zip(names, videos, strict=True):
                video.tile = mosaic.tile_of(name)
        # From here on the pictures belong to the decoding thread.
        ahead = stack.enter_context(closing(Ahead(videos, body.canvas.fps)))
        try:
            frames = _run(mosaic, ahead, audios, writer, _fraction(progress, videos))
            if frames == 0:
                raise ComposeFailed("the inputs hold neither pictures nor sound")
            writer.finish()
            progress(1.0)
        except (av.FFmpegError, OSError) as error:
            raise ComposeFailed(f"{output} cannot be written: {error}") from error
    faults = {name: video.broken for name, video in zip(names, videos, strict=True)}
    faults |= {name: audio.broken for name, audio in audios.items() if audio.broken}
    broken = {name: fault for name, fault in faults.items() if fault}
    return Composed(frames / body.canvas.fps, frames, broken)


class _Mosaic:
    """The scene over the inputs' pictures."""

    def __init__(self, body: LayoutBody, names: Sequence[str], videos: Sequence[VideoInput]) -> None:
        self.body = body
        self._scene = Scene(body, {})
        self._feeds = {name: Feed() for name in names}
        self._sources = [
            Source(name, name, "webrtc", video.has_pictures)
            for name, video in zip(names, videos, strict=True)
        ]
        self._speaker: str | None = None
        self._rearrange()

    def tile_of(self, name: str) -> Tile | None:
        """Where the input is shown now; None when it isn't."""
        return next((tile for tile in self._scene.tiles if tile.participant == name), None)

    def draw(self, tick: Tick, speaker: str | None, now: float) -> Picture:
        """The canvas of this tick."""
        changed = speaker != self._speaker
        self._speaker = speaker
        for index, (feed, frame) in enumerate(zip(self._feeds.values(), tick.frames, strict=True)):
            if frame is not None:
                feed.mailbox.put(frame, now)
            elif not tick.ended[index]:
                feed.at = now  # a file's picture stands until its next one, however long
            source = self._sources[index]
            if tick.ended[index] and frame is None and source.has_video:
                self._sources[index] = Source(source.id, source.name, source.kind, False)
                changed = True
            feed.update(now, 0.0)
        if changed:
            self._rearrange()
        self._scene.draw(self._feeds, now)
        return self._scene.canvas

    def _rearrange(self) -> None:
        self._scene.speaker = self._speaker
        self._scene.arrange(self.body, arrange(self.body, self._sources, self._speaker), self._sources)


def _run(
    mosaic: _Mosaic,
    ahead: Ahead,
    audios: dict[str, AudioInput],
    writer: Writer,
    progress: Callable[[float], None],
) -> int:
    """Tick until every input has ended; returns how many pictures were written."""
    fps = mosaic.body.canvas.fps
    speakers, limiter = Speakers(), Limiter()
    index = sounds = 0
    while True:
        tick = ahead.take()
        if all(tick.ended) and not any(tick.frames) and all(audio.ended for audio in audios.values()):
            return index
        while audios and sounds * fps < (index + 1) / TICK_S:
            rows = np.stack([audio.read() for audio in audios.values()])
            speakers.update(
                {name: level_dbov(row) for name, row in zip(audios, rows, strict=True)}, sounds * TICK_S
            )
            writer.sound(limiter.process(total(rows)))
            sounds += 1
        writer.picture(mosaic.draw(tick, speakers.active(), index / fps), index)
        index += 1
        progress(index / fps)


def _fraction(progress: Callable[[float], None], videos: Sequence[VideoInput]) -> Callable[[float], None]:
    """From seconds composed to the share done; containers may announce less than they hold."""
    longest_s = max((video.duration_s for video in videos), default=0.0)
    return lambda done_s: progress(min(1.0, done_s / longest_s) if longest_s else 0.0)


def _names(inputs: Sequence[Path]) -> list[str]:
    """Participant ids: the files' names without suffix, made unique in order."""
    names: list[str] = []
    for path in inputs:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem} ({number})", number + 1
        names.append(name)
    return names


def _default_bps(canvas: CanvasBody) -> int:
    high = RENDITIONS["high"]
    share = canvas.width * canvas.height * canvas.fps / (high.width * high.height * high.fps)
    return max(150_000, round(high.video_bps * share))


# --- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mosaique compose``."""
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="IN",
        help="video or sound files, in join order; "
        "or a recording's folder or bag (.zip), or its tracks with --timeline",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.mp4", help="file to write")
    parser.add_argument(
        "--timeline", type=Path, metavar="timeline.jsonl",
        help="journal of a recording with tracks: everyone comes, goes, speaks as they did (default: the package's)",
    )  # fmt: skip
    parser.add_argument(
        "--layout", metavar="PRESET|FILE.json",
        help=f"{', '.join(p for p in get_args(Preset) if p != 'custom')}, or a file with a layout body "
        "(default: the timeline's layouts, each in its time; without a timeline grid)",
    )  # fmt: skip
    parser.add_argument(
        "--size", metavar="WxH", help="canvas in pixels, both even (default: the layout's, or 1280x720)"
    )
    parser.add_argument(
        "--fps", type=int, metavar="N", help="pictures a second (default: the layout's, or 30)"
    )
    parser.add_argument(
        "--kbps", type=int, metavar="N", help="video bit rate (default: by size, 1200 for 720p30)"
    )
    parser.add_argument(
        "--preset", default=FILM, dest="encoder_preset", metavar="NAME", choices=PRESETS,
        help="speed of the encoder, as x264 names it (default: %(default)s, the quality of veryfast for less)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Compose as the arguments say, with a progress bar on stderr. Raises ``ConfigError`` for wrong usage."""
    inputs: list[Path] = args.inputs
    output: Path = args.output
    recorded = args.timeline is not None or any(
        path.is_dir() or path.suffix.lower() == ".zip" for path in inputs
    )
    for path in [*inputs, *([args.timeline] if args.timeline is not None else [])]:
        if not path.is_file() and not (recorded and path.is_dir()):
            raise ConfigError(f"there is no file {path}")
        if output.exists() and output.samefile(path):
            raise ConfigError(f"{output} is an input too; name another output")
    if output.suffix.lower() not in CONTAINERS:
        raise ConfigError(f"{output}: the output ends in one of {', '.join(CONTAINERS)}")
    if not output.parent.is_dir():
        raise ConfigError(f"there is no directory {output.parent}")
    if args.kbps is not None and args.kbps < 1:
        raise ConfigError("--kbps takes a positive number")
    try:
        body = _layout(args.layout or "grid", args.size, args.fps)
        check(body, participants=None if recorded else _names(inputs), images=())
    except InvalidBody as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors)
        raise ConfigError(f"layout: {faults}") from None
    gc.freeze()  # what is imported is never garbage; looking through it at each collection costs 1 % of the whole
    with tqdm(
        total=1.0, desc="compose", bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    ) as bar:
        compose = _compose_recorded if recorded else _compose_files
        composed = compose(args, body, lambda done: _advance(bar, done))
    for name, reason in composed.broken.items():
        sys.stderr.write(f"mosaique: {name} breaks off early: {reason}\n")
    sys.stdout.write(f"{output}: {composed.duration_s:.1f} s, {composed.frames} pictures\n")
    return 0


def _compose_files(args: argparse.Namespace, body: LayoutBody, progress: Callable[[float], None]) -> Composed:
    return compose_files(
        args.inputs,
        args.output,
        body,
        progress=progress,
        bitrate_bps=args.kbps * 1000 if args.kbps else None,
        preset=args.encoder_preset,
    )


def _compose_recorded(
    args: argparse.Namespace, body: LayoutBody, progress: Callable[[float], None]
) -> Composed:
    # Files that are just composed start faster without what replays a recording.
    from mixer.compose_package import RecordedPackage
    from mixer.compose_timeline import compose_recording
    from mixer.replay import Replay, parse_events

    with RecordedPackage.open(args.inputs, args.timeline) as package:
        if not package.timeline:
            raise ConfigError("there is no data/timeline.jsonl in what was given; name it with --timeline")
        replay = Replay(parse_events(package.timeline), body if args.layout is not None else None)
        return compose_recording(
            package,
            replay,
            args.output,
            body.canvas,
            progress=progress,
            bitrate_bps=args.kbps * 1000 if args.kbps else _default_bps(body.canvas),
            preset=args.encoder_preset,
        )


def _advance(bar: tqdm[Any], done: float) -> None:
    bar.update(done - bar.n)


def _layout(layout: str, size: str | None, fps: int | None) -> LayoutBody:
    data: Any = {"preset": layout}
    if layout not in get_args(Preset):
        try:
            data = json.loads(Path(layout).read_text(encoding="utf-8"))
        except FileNotFoundError:
            presets = ", ".join(get_args(Preset))
            raise ConfigError(f"--layout {layout}: neither a preset ({presets}) nor a file") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"--layout {layout}: {error}") from None
    if isinstance(data, dict) and (size is not None or fps is not None):
        canvas = dict(data.get("canvas") or {})
        if size is not None:
            match = _SIZE.fullmatch(size)
            if match is None:
                raise ConfigError(f"--size {size}: takes WIDTHxHEIGHT, such as 1280x720")
            canvas |= {"width": int(match[1]), "height": int(match[2])}
        if fps is not None:
            canvas["fps"] = fps
        data = data | {"canvas": canvas}
    return parse_layout(data)
