"""What participants' tracks add to a recorder: CPU of the whole process, off and on in turn, by media time."""

from __future__ import annotations

import gc
import random
import statistics
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from mixer.media import EncodedVideo
from mixer.protocol import RosterEntry
from mixer.track_tap import TrackTap
from recording.archive import Archive
from recording.index import Index
from recording.local import LocalStore
from tests.bench.figures import Figure
from tests.recording.conftest import open_recorder
from tests.recording.media import clip

PEOPLE: Final = 9
SECONDS: Final = 30
ROUNDS: Final = 3
FRAME_BYTES: Final = 6_250  # 1.5 Mbit/s at 30 pictures a second
SOUND_BYTES: Final = 80  # 32 kbit/s
_KEY: Final = b"\x10\x02\x00\x9d\x01\x2a\x00\x05\xd0\x02"  # VP8, 1280×720


def tracks(directory: Path) -> list[Figure]:
    """Nine who send 720p30 of 1.5 Mbit/s and Opus, beside the film of the same room."""
    directory.mkdir()
    added, shares = [], []
    with closing(Index(directory / "index.db")) as index:
        archive = Archive(directory / "spool", LocalStore(directory / "archive"), index)
        for number in range(ROUNDS):
            without, _ = _round(archive, f"off{number}", people=0)
            busy, share = _round(archive, f"on{number}", people=PEOPLE)
            added.append((busy - without) / SECONDS)
            shares.append(share)
    return [
        Figure(
            f"tracks of {PEOPLE}, beyond the film", 100 * statistics.median(added), "% of a core", 5, digits=1
        ),
        Figure("written, of what came", min(shares), "×", 0.99, "≥", digits=3),
    ]


def _round(archive: Archive, room: str, people: int) -> tuple[float, float]:
    """CPU seconds of ``SECONDS`` of a room, and how much of its tracks was written."""
    film = clip(SECONDS)
    items = film.merged()
    recorder = open_recorder(archive.create(room, tracks=bool(people)).directory, film)
    sent = 0

    tap = TrackTap(recorder.write_track, origin_s=0.0)
    chance = random.Random(1)
    delta, key = chance.randbytes(FRAME_BYTES), _KEY + chance.randbytes(40_000)
    sound = b"\x78" + chance.randbytes(SOUND_BYTES)
    for person in range(people):
        tap.join(RosterEntry(id=f"p{person}", name=f"P {person}"))
    gc.collect()
    started = time.process_time()
    at = 0
    for tick in range(SECONDS * 150):  # 150 is what 30 pictures and 50 packets share
        now = tick / 150
        while at < len(items) and items[at][2] / (90_000 if items[at][0] == "video" else 48_000) <= now:
            kind, data, pts, keyframe = items[at]
            recorder.write_video(data, pts, keyframe) if kind == "video" else recorder.write_audio(data, pts)
            at += 1
        for person in range(people):
            if tick % 3 == 0:
                packet: Any = SimpleNamespace(ssrc=1, timestamp=tick * 320 & 0xFFFFFFFF, payload=sound)
                tap.heard(f"p{person}", packet, "opus", taken_s=4e9 + now, now=now, wait_ms=40.0)
                sent += 1
            if tick % 5 == 0:
                keyframe = tick % 1500 == 0 or tick == 5
                frame = EncodedVideo("VP8", key if keyframe else delta, tick * 600, keyframe)
                tap.saw(f"p{person}", frame, screen=False, taken_s=4e9 + now, now=now)
                sent += 1
        if tick % 75 == 0:
            recorder.settle()  # a room gives it time; here the queue would run over
    recorder.settle()
    tracks = recorder._writer._tracks
    recorder.close(SECONDS * 90_000)
    busy = time.process_time() - started
    return busy, (tracks.counters.frames / sent if tracks is not None else 1.0)
