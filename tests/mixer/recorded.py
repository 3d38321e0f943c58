"""A recorded package with tracks, as `recording.tracks` writes them, of people who are a colour and a tone."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av

from mixer.video.frame import frame_of
from mixer.video.picture import Picture, Rgb
from recording import package
from recording.mediatime import INSTANT_HZ
from recording.timeline import TimelineEvent, write_line
from recording.tracks import TrackFiles, TrackFrame, TrackSource
from tests.recording.sources import sounds

FPS = 15
SIZE = (160, 90)


@lru_cache
def _coloured(rgb: Rgb, count: int) -> tuple[tuple[bytes, bool], ...]:
    codec = av.CodecContext.create("libvpx", "w")
    codec.width, codec.height, codec.pix_fmt = *SIZE, "yuv420p"
    codec.framerate, codec.time_base = Fraction(FPS), Fraction(1, FPS)
    codec.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "g": str(FPS)}
    packets = []
    for number in range(count):
        frame = frame_of(Picture.blank(*SIZE, rgb))
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        packets += codec.encode(frame)
    packets += codec.encode(None)
    return tuple((bytes(p), p.is_keyframe) for p in packets)


class Package:
    """Say what happened, in order, then `close`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[TimelineEvent] = []
        (directory / "data").mkdir(parents=True)
        self._tracks = TrackFiles(
            directory,
            [],
            on_event=lambda event, media, fields: self.event(media / INSTANT_HZ, event, **fields),
            on_keyframe_needed=lambda _: None,
            on_fault=lambda what: None,
            on_disk=lambda error: None,
            keep_free_bytes=0,
        )

    def event(self, t: float, event: str, **fields: Any) -> None:
        self.lines.append(TimelineEvent(t, event, fields))

    def join(self, t: float, who: str, **fields: Any) -> None:
        self.event(t, "join", participant=who, name=who.title(), **fields)

    def camera(
        self, who: str, rgb: Rgb, start: float, end: float, *, kind: Any = "camera", wait_ms: int = 40
    ) -> None:
        for number, (data, key) in enumerate(_coloured(rgb, round((end - start) * FPS))):
            frame = TrackFrame(
                "VP8", data, number * 6000, keyframe=key, size=SIZE if key else None, name=who.title(),
                wait_ms=wait_ms,
            )  # fmt: skip
            at = start + number / FPS
            self._tracks.frame(TrackSource(who, kind), frame, round(at * INSTANT_HZ))

    def voice(
        self,
        who: str,
        hz: float,
        start: float,
        end: float,
        *,
        lost: range = range(0),
        wait_ms: int = 40,
        codec: str = "opus",
    ) -> None:
        rate_hz = 48_000 if codec == "opus" else 8_000
        for number, data in enumerate(sounds(codec, round((end - start) * 50), hz=hz)):
            if number not in lost:
                rtp = number * rate_hz // 50 + round(start * rate_hz)
                frame = TrackFrame(codec, data, rtp, name=who.title(), wait_ms=wait_ms)
                self._tracks.frame(
                    TrackSource(who, "voice"), frame, round((start + number / 50) * INSTANT_HZ)
                )

    def end(self, who: str) -> None:
        self._tracks.end(who)

    def close(self, t: float) -> Path:
        self._tracks.close()
        self.event(t, "end")
        lines = sorted(self.lines, key=lambda line: line.t)
        (self.directory / package.TIMELINE).write_bytes(b"".join(map(write_line, lines)))
        return self.directory
