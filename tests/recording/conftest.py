"""Packages in a temporary spool, made by the code under test."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recording import package
from recording.archive import Archive, Recording
from recording.durable import WriterLock
from recording.errors import PackageBusy
from recording.index import Index
from recording.local import LocalStore
from recording.recorder import Recorder
from tests.recording.media import FPS, HEIGHT, WIDTH, Clip, clip
from tests.weed import Weed, weed_server

_DIES = """
import os, sys
from pathlib import Path
from tests.recording.conftest import feed, open_recorder
from tests.recording.media import clip
recorder = open_recorder(Path(sys.argv[1]), clip(6), wall=lambda: 1_800_000_000.0)
recorder.event("join", 0, participant="p1", name="Ann")
feed(recorder, clip(6))
recorder.settle()
print("fed", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process leaves that recorded 6 s from 2027-01-15T08:00Z on and was killed before it closed anything.

    Copy it over a package: ``shutil.copytree(dead, directory, dirs_exist_ok=True)``.
    """
    directory = tmp_path_factory.mktemp("dead")
    command = [sys.executable, "-c", _DIES, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"fed\n"
        with pytest.raises(PackageBusy):
            WriterLock(directory / package.LOCK)
        process.send_signal(signal.SIGKILL)
    return directory


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    rows = Index(tmp_path / "index.db")
    yield rows
    rows.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "archive")


@pytest.fixture
def archive(tmp_path: Path, store: LocalStore, index: Index) -> Archive:
    return Archive(tmp_path / "spool", store, index, software="mosaique test")


@pytest.fixture
def record(archive: Archive) -> Callable[..., Recording]:
    """Record a clip from start to close; returns the closed recording."""

    def make(
        room: str = "salon", *, media: Clip | None = None, note: str = "", close: bool = True
    ) -> Recording:
        media = media or clip(3)
        recording = archive.create(room, note=note)
        recorder = open_recorder(recording.directory, media)
        recorder.event("join", 0, participant="p1", name="Zoë <Ann>")
        feed(recorder, media)
        if close:
            recorder.close(media.seconds * 90_000)
            archive.set_state(recording.id, "sealing")
        return recording

    return make


def open_recorder(directory: Path, media: Clip, **options: object) -> Recorder:
    return Recorder(
        directory,
        width=WIDTH,
        height=HEIGHT,
        fps=FPS,
        audio_extradata=media.extradata,
        **options,  # type: ignore[arg-type]
    )


def feed(recorder: Recorder, media: Clip, *, offset_s: int = 0) -> None:
    for kind, data, pts, keyframe in media.merged(offset_s=offset_s):
        if kind == "video":
            recorder.write_video(data, pts, keyframe)
        else:
            recorder.write_audio(data, pts)


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """A real S3 server, for all tests that want one."""
    with weed_server(tmp_path_factory.mktemp("weed")) as running:
        yield running
