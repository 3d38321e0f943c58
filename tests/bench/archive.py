"""How soon a recording is archived after its stop, what sending it costs while it is made, what an outage loses.

Two hours in fast time: the bytes are there as fast as they can be written, and the archiver gets its turns in
between as it would while a room is live. Then the stop is real, and so is the store: SeaweedFS on this machine, or
a folder.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from recording import package
from recording.archive import Archive
from recording.archiver import Archiver
from recording.errors import StoreError
from recording.index import Index
from recording.local import LocalStore
from recording.store import ObjectInfo, ObjectStore, object_sha256
from tests.bench.figures import Figure
from tests.fakes.memory_store import MemoryStore
from tests.recording.longfilm import LongFilm
from tests.weed import new_store, weed_server

HOURS: Final = 2
BYTES_A_SECOND: Final = 200_000  # 1.6 Mbit/s: the high rendition and its sound, at their most
_TURN_S: Final = 10  # of recording between two turns of the archiver; a part is 26 s


def archive(directory: Path) -> list[Figure]:
    """All of it: about two minutes, 3 GB of disk."""
    directory.mkdir(parents=True, exist_ok=True)
    with weed_server(directory / "weed") as weed:
        s3_s, s3_cpu = _stop_to_archived(directory, new_store(weed), HOURS * 3600)
    local_s, local_cpu = _stop_to_archived(directory, LocalStore(directory / "folder"), HOURS * 3600)
    other = _CopyingStore(directory / "other")
    other_s, _ = _stop_to_archived(directory, other, HOURS * 3600)
    lost, after_s = _outage(directory)
    return [
        Figure("stop → archived, S3 on this machine, 2 h", s3_s, "s", 15, digits=1),
        Figure("stop → archived, folder on the same disk, 2 h", local_s, "s", 5, digits=1),
        Figure("stop → archived, folder that must be copied to, 2 h", other_s, "s", 5, digits=1),
        Figure("sending while recording, S3", s3_cpu, "% of a core", 1.0, digits=2),
        Figure("sending while recording, folder", local_cpu, "% of a core", 1.0, digits=2),
        Figure("bytes lost in a store's outage of 6 hours", lost, "bytes", 0),
        Figure("stop → archived after it", after_s, "s", 15, digits=1),
    ]


class _CopyingStore(LocalStore):
    """A folder on another file system."""

    def begin(self, key: str, source: Path | None = None) -> str:
        return super().begin(key, None)

    def _linked(self, source: Path, target: Path) -> bool:
        return False


@contextmanager
def _archiving(
    directory: Path, store: ObjectStore, clock: Callable[[], float] = time.monotonic
) -> Iterator[tuple[Archive, Archiver]]:
    with tempfile.TemporaryDirectory(dir=directory) as name:
        index = Index(Path(name) / "index.sqlite")
        archiver = Archiver(Path(name) / "spool", store, index, clock=clock)
        try:
            yield Archive(Path(name) / "spool", store, index), archiver
        finally:
            archiver.close()
            index.close()


def _stop_to_archived(directory: Path, store: ObjectStore, seconds: int) -> tuple[float, float]:
    """Seconds from the stop to the archived state, and the live uploader's CPU in per cent of a core."""
    cpu_s = 0.0
    with _archiving(directory, store) as (desk, archiver):
        film = LongFilm(desk.create("bench").directory, fragment_bytes=BYTES_A_SECOND)
        for _ in range(seconds // _TURN_S):
            film.grow(_TURN_S)
            before = time.process_time()
            archiver.step()
            cpu_s += time.process_time() - before
        film.close()
        desk.set_state(film.directory.name, "sealing")
        stopped = time.monotonic()
        while desk.get(film.directory.name).state != "archived":
            archiver.step()
        took_s = time.monotonic() - stopped
        info = desk.get(film.directory.name)
        if object_sha256(store, info.key + package.MEDIA) != info.sha256:
            raise AssertionError("what is archived is not what was recorded")
        store.delete_all(info.key)
    return took_s, 100 * cpu_s / seconds


class _Outage(MemoryStore):
    """A store that is not there while ``down``."""

    down = False

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        self._answer()
        return super().put(key, source)

    def begin(self, key: str, source: Path | None = None) -> str:
        self._answer()
        return super().begin(key, source)

    def put_part(self, key: str, upload: str, number: int, offset: int, data: bytes, *, last: bool) -> str:
        self._answer()
        return super().put_part(key, upload, number, offset, data, last=last)

    def _answer(self) -> None:
        if self.down:
            raise StoreError("no route to the store")


def _outage(directory: Path) -> tuple[float, float]:
    """Seven hours of recording of which the store is away for six: bytes that are missing, and the end's length."""
    store, now_s = _Outage(), 1000.0
    with _archiving(directory, store, lambda: now_s) as (desk, archiver):
        film = LongFilm(desk.create("bench").directory, fragment_bytes=BYTES_A_SECOND // 10)
        for minute in range(7 * 60):
            store.down = 30 <= minute < 30 + 360
            film.grow(60)
            archiver.step()
            now_s += 60
        film.close()
        stopped, archived = time.monotonic(), False
        while not archived and time.monotonic() < stopped + 120:
            archived = archiver.step() == 1
            now_s += 1
        info = desk.get(film.directory.name)
        size = store.stat(info.key + package.MEDIA).size if archived else 0
        return float(film.file.size - size), time.monotonic() - stopped
