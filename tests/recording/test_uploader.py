"""Upload while recording: what goes when, through any death, any length, any outage."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recording import package
from recording.archive import Archive
from recording.archiver import Archiver
from recording.encrypted import EncryptedStore
from recording.errors import StoreError
from recording.index import Index
from recording.local import LocalStore
from recording.store import MAX_PARTS, MIN_PART_BYTES, ObjectStore, object_sha256
from recording.upload_journal import SentPart, UploadJournal
from recording.uploader import ORPHAN_AGE, Uploader, part_bytes
from tests.fakes.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.fakes.memory_store import MemoryStore
from tests.recording.longfilm import LongFilm
from tests.recording.test_archiver import Clock, Died
from tests.weed import QUICK, Weed, new_store

MEBI = 1024 * 1024


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def film(archive: Archive) -> LongFilm:
    """A live recording of 1 MiB a second: a part is 5 s."""
    return LongFilm(archive.create("salon").directory, fragment_bytes=MEBI)


@pytest.fixture
def archiving(spool: Path, index: Index) -> Iterator[Callable[..., Archiver]]:
    """Makes archivers on one spool, one after the other, as after deaths."""
    made: list[Archiver] = []

    def make(store: ObjectStore, **options: object) -> Archiver:
        made.append(Archiver(spool, store, index, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for archiver in made:
        archiver.close()


def settle(archiver: Archiver, steps: int = 50) -> int:
    """Step until a package has left the spool; how many steps that took."""
    for number in range(1, steps + 1):
        if archiver.step():
            return number
    raise AssertionError(f"not archived: {archiver.detail}")


# -- sizes -------------------------------------------------------------------------------------------------------


def test_any_length_fits_into_a_thousand_parts() -> None:
    sizes = [part_bytes(number) for number in range(1, MAX_PARTS + 1)]
    assert min(sizes) == MIN_PART_BYTES
    assert sum(sizes) > 14 * 86_400 * 200_000  # two weeks at 1.6 Mbit/s
    assert sum(sizes[:450]) > 12 * 3600 * 200_000  # twelve hours
    assert max(sizes) <= 640 * MEBI  # held in memory


# -- while it grows ----------------------------------------------------------------------------------------------


def test_whole_fragments_go_while_the_room_is_live(
    film: LongFilm, archive: Archive, archiving: Callable[..., Archiver]
) -> None:
    store = MemoryStore()
    archiver = archiving(store)
    film.grow(4)
    archiver.step()
    assert not store.unfinished
    film.grow(2)
    archiver.step()
    (parts,) = store.unfinished.values()
    assert [len(data) for data in parts.values()] == [MIN_PART_BYTES]
    film.grow(30)
    for _ in range(9):
        archiver.step()
    sent = sum(map(len, parts.values()))
    assert film.file.size - MIN_PART_BYTES <= sent < film.file.size
    assert not list(store.list())  # nothing shows before it is whole
    film.close()
    assert settle(archiver) == 1
    info = archive.get(film.directory.name)
    assert info.state == "archived"
    assert object_sha256(store, info.key + package.MEDIA) == info.sha256
    assert not store.unfinished
    assert not film.directory.exists()


def test_what_a_dying_writer_tore_is_never_sent(
    film: LongFilm, archive: Archive, archiving: Callable[..., Archiver]
) -> None:
    store, clock = MemoryStore(), Clock()
    archiver = archiving(store, clock=clock)
    film.grow(7)
    whole = film.file.size
    film.die(torn=b"\0\0\0\x40moof" + b"\0" * 9 * MEBI)
    for _ in range(4):
        archiver.step()
    (parts,) = store.unfinished.values() or [{}]
    assert sum(map(len, parts.values())) <= whole
    clock.now += 11
    settle(archiver)
    info = archive.get(film.directory.name)
    assert (info.state, info.complete, info.size) == ("archived", False, whole)


def test_a_file_that_changed_behind_us_is_sent_anew(
    film: LongFilm, archive: Archive, archiving: Callable[..., Archiver]
) -> None:
    """It must not happen; if a disk does it all the same, the archive gets what the recorder meant."""
    store, clock = MemoryStore(), Clock()
    archiver = archiving(store, clock=clock)
    film.grow(12)
    archiver.step()
    ((key, upload),) = store.unfinished
    archiver._uploader._growing[key].digest.update(b"other bytes")
    film.close()
    assert archiver.step() == 0
    assert "not what was recorded" in archive.get(film.directory.name).reason
    assert (key, upload) not in store.unfinished
    clock.now += 2
    settle(archiver)
    info = archive.get(film.directory.name)
    assert object_sha256(store, info.key + package.MEDIA) == info.sha256


@pytest.mark.parametrize("kind", ["memory", "link", "copy", "encrypted"])
def test_killed_at_every_checkpoint(
    kind: str, archive: Archive, archiving: Callable[..., Archiver], spool: Path, tmp_path: Path
) -> None:
    """At each one, on one and the same recording: the next process goes on, and what it makes is whole."""
    store = _store(kind, tmp_path)
    film = LongFilm(archive.create("salon").directory, fragment_bytes=MEBI)
    film.grow(12)
    survived: set[str] = set()

    def die(name: str) -> None:
        generic = re.sub(r"\S*/", "", name)
        if generic not in survived:
            survived.add(generic)
            raise Died

    for _ in range(100):
        try:
            for _ in range(4):
                archiving(store, checkpoint=die).step()
            break
        except Died:
            continue
    assert survived >= {"begin recording.mp4", "begun recording.mp4", "part 1", "sent 1", "part 2", "sent 2"}
    film.grow(8)
    film.close()
    for _ in range(100):
        try:
            settle(archiving(store, checkpoint=die))
            break
        except Died:
            continue
    info = archive.get(film.directory.name)
    assert info.state == "archived"
    assert object_sha256(store, info.key + package.MEDIA) == info.sha256
    assert survived >= {"complete recording.mp4", "completed recording.mp4", "put seal", "index", "remove"}
    assert not list(spool.glob("0*"))
    orphans = archiving(store)
    orphans.abort_orphans(datetime.now(UTC))
    assert not list(store.uploads())


def _store(kind: str, folder: Path, weed: Weed | None = None) -> ObjectStore:
    if kind == "memory":
        return MemoryStore()
    if kind == "encrypted":
        return EncryptedStore(LocalStore(folder / "archive"), b"m" * 32)
    return LocalStore(folder / "archive") if kind == "link" else _Copying(folder / "archive")


class _Copying(LocalStore):
    """A folder on another file system: nothing can be linked to it."""

    def begin(self, key: str, source: Path | None = None) -> str:
        return super().begin(key, None)

    def _linked(self, source: Path, target: Path) -> bool:
        return False


def test_killed_at_every_checkpoint_with_a_real_store(
    weed: Weed, archive: Archive, archiving: Callable[..., Archiver]
) -> None:
    store = new_store(weed)
    film = LongFilm(archive.create("salon").directory, fragment_bytes=MEBI)
    film.grow(12)
    survived: set[str] = set()
    closed = False

    def die(name: str) -> None:
        generic = re.sub(r"\S*/", "", name)
        if "recording.mp4" in generic or generic.startswith(("part", "sent")):
            if generic in survived:
                return
            survived.add(generic)
            raise Died

    for _ in range(60):
        try:
            archiver = archiving(store, checkpoint=die)
            for _ in range(4):
                archiver.step()
            if not closed:
                film.close()
                closed = True
            if film.directory.exists():
                settle(archiver)
            break
        except Died:
            continue
    info = archive.get(film.directory.name)
    assert info.state == "archived"
    assert len(survived) >= 9
    assert object_sha256(store, info.key + package.MEDIA) == info.sha256
    archiving(store).abort_orphans(datetime.now(UTC))
    assert not list(store.uploads())


def test_on_one_file_system_no_byte_is_written_twice(
    film: LongFilm, archive: Archive, archiving: Callable[..., Archiver], tmp_path: Path
) -> None:
    archiver = archiving(LocalStore(tmp_path / "archive"))
    film.grow(12)
    archiver.step()
    inode = (film.directory / package.MEDIA).stat().st_ino
    film.close()
    settle(archiver)
    info = archive.get(film.directory.name)
    assert (tmp_path / "archive" / info.key / package.MEDIA).stat().st_ino == inode


# -- stores that fail --------------------------------------------------------------------------------------------


def test_six_hours_without_a_store(archive: Archive, archiving: Callable[..., Archiver]) -> None:
    """Fast time: a room is recorded through an outage of six hours; nothing is lost, and the end is soon archived."""

    class Outage(MemoryStore):
        down = False
        tries = 0

        def begin(self, key: str, source: Path | None = None) -> str:
            self._try()
            return super().begin(key, source)

        def put_part(
            self, key: str, upload: str, number: int, offset: int, data: bytes, *, last: bool
        ) -> str:
            self._try()
            return super().put_part(key, upload, number, offset, data, last=last)

        def put(self, key: str, source: Path | bytes):  # type: ignore[no-untyped-def]
            self._try()
            return super().put(key, source)

        def _try(self) -> None:
            self.tries += 1
            if self.down:
                raise StoreError("no route to the store")

    store, clock = Outage(), Clock()
    archiver = archiving(store, clock=clock)
    film = LongFilm(archive.create("salon").directory, fragment_bytes=20_000)
    for minute in range(7 * 60):
        store.down = 30 <= minute < 30 + 360
        film.grow(60)
        for _ in range(6):
            archiver.step()
            clock.now += 10
    assert 60 < store.tries < 250
    film.close()
    settle(archiver)
    info = archive.get(film.directory.name)
    assert (info.state, info.complete) == ("archived", True)
    assert info.size == film.file.size
    assert object_sha256(store, info.key + package.MEDIA) == info.sha256


FAULTS = {
    "down": lambda method, path: Fault(503, "SlowDown"),
    "full": lambda method, path: Fault(507, "InsufficientStorage") if method in {"PUT", "POST"} else None,
    "forbidden": lambda method, path: Fault(403, "AccessDenied"),
    "broken": lambda method, path: Fault(500, "InternalError"),
    "clock": lambda method, path: Fault(403, "RequestTimeTooSkewed"),
    "gone bucket": lambda method, path: Fault(404, "NoSuchBucket"),
    "half-open": lambda method, path: Fault(hang=True) if method == "PUT" else None,
    "spoils what it gets": lambda method, path: Fault(flip_up=True) if method == "PUT" else None,
    "spoils what it gives": lambda method, path: (
        Fault(flip_down=True) if method == "GET" and "film" in path else None
    ),
    "forgets uploads": lambda method, path: Fault(404, "NoSuchUpload") if "partNumber=2" in path else None,
}


@pytest.fixture
def proxy(weed: Weed) -> Iterator[FaultyS3]:
    with faulty_s3(weed.endpoint) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost(
    fault: str, weed: Weed, proxy: FaultyS3, archive: Archive, archiving: Callable[..., Archiver]
) -> None:
    """The store fails in the middle of a recording and for as long as it pleases; then all is as it should be."""
    store, clock = new_store(weed, endpoint=proxy.endpoint, **QUICK), Clock()
    archiver = archiving(store, clock=clock)
    film = LongFilm(archive.create("salon").directory, fragment_bytes=MEBI)
    film.grow(6)
    archiver.step()
    proxy.decide = lambda method, path: FAULTS[fault](method, path.replace("recording.mp4", "film"))
    film.grow(6)
    archiver.step()
    film.close()
    clock.now += 400
    assert archiver.step() == 0
    info = archive.get(film.directory.name)
    assert info.state == "sealing"
    assert info.reason.startswith("not archived yet: ")
    assert (film.directory / package.MEDIA).stat().st_size == film.file.size
    proxy.heal()
    for _ in range(20):
        clock.now += 400
        if archiver.step():
            break
    info = archive.get(film.directory.name)
    assert (info.state, info.reason) == ("archived", "")
    assert object_sha256(store, info.key + package.MEDIA) == info.sha256


def test_a_slow_store_gets_its_time(
    weed: Weed, proxy: FaultyS3, archive: Archive, archiving: Callable[..., Archiver]
) -> None:
    store = new_store(weed, endpoint=proxy.endpoint, **QUICK)
    archiver = archiving(store)
    film = LongFilm(archive.create("salon").directory, fragment_bytes=MEBI)
    film.grow(12)
    film.close()
    proxy.decide = lambda method, path: Fault(delay_s=0.5)
    turns = settle(archiver)
    assert turns > 1  # others had their turns between
    assert archive.get(film.directory.name).state == "archived"


def test_orphans(archive: Archive, index: Index, tmp_path: Path) -> None:
    """An upload that no journal knows: ours goes at once, a stranger's only when it is old."""
    store = MemoryStore()
    with_journal = UploadJournal(tmp_path / "journal")
    uploader = Uploader("archive", store, with_journal)
    for key in ("ours/film", "theirs/film", "known/film"):
        store.begin(key)
    known = next(upload for key, upload in store.unfinished if key == "known/film")
    with_journal.begin("archive", "known/film", known)
    now = datetime.now(UTC)
    assert uploader.abort_orphans(lambda key: key.startswith("ours/"), now) == 1
    assert {key for key, _ in store.unfinished} == {"theirs/film", "known/film"}
    assert uploader.abort_orphans(lambda key: False, now + ORPHAN_AGE + timedelta(minutes=1)) == 1
    assert {key for key, _ in store.unfinished} == {"known/film"}
    with_journal.close()


# -- the second store --------------------------------------------------------------------------------------------


def test_the_spool_waits_for_the_second_store(
    film: LongFilm, archive: Archive, archiving: Callable[..., Archiver], tmp_path: Path
) -> None:
    class Second(MemoryStore):
        down = True

        def put(self, key: str, source: Path | bytes):  # type: ignore[no-untyped-def]
            if self.down:
                raise StoreError("the second store is down")
            return super().put(key, source)

    first, second, clock = MemoryStore(), Second(), Clock()
    archiver = archiving(first, second=second, clock=clock)
    assert archiver.second is not None
    film.grow(12)
    archiver.step()
    archiver.second.step()
    assert len(first.unfinished) == len(second.unfinished) == 1
    film.close()
    for _ in range(3):
        archiver.step()
        archiver.second.step()
    info = archive.get(film.directory.name)
    assert info.state == "archived"  # the first has it; people may see it
    assert film.directory.exists()
    situation = archiver.situation()
    assert (situation.waiting, situation.waiting_second, situation.second) == (
        1,
        1,
        "the second store is down",
    )
    again = archiving(first, second=second, clock=clock)  # after a death, too
    again.step()
    assert film.directory.exists()
    second.down = False
    assert again.second is not None
    assert again.second.step() == 1
    assert again.step() == 1
    assert not film.directory.exists()
    assert {i.key: i.size for i in first.list()} == {i.key: i.size for i in second.list()}
    assert object_sha256(second, info.key + package.MEDIA) == info.sha256


# -- the journal -------------------------------------------------------------------------------------------------


def test_journal_outlives_its_process(tmp_path: Path) -> None:
    journal = UploadJournal(tmp_path / "j")
    journal.begin("archive", "k", "u1")
    part = SentPart(1, 0, 5, "00" * 32, '"tag"')
    journal.sent("archive", "k", part)
    journal.begin("second", "k", "u2")
    journal.close()
    again = UploadJournal(tmp_path / "j")
    assert again.parts("archive", "k") == [part]
    assert again.parts("second", "k") == []
    assert again.uploads("second") == {"u2"}
    again.begin("archive", "k", "u3")
    assert again.parts("archive", "k") == []
    again.forget_all("second", "k")
    assert again.uploads("second") == set()
    again.close()


def test_a_full_disk_does_not_stop_the_journal(tmp_path: Path) -> None:
    """What is sent is what makes room: the journal must not be what waits for it."""
    journal = UploadJournal(tmp_path / "j")
    journal.begin("archive", "k", "u1")
    (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count = {pages}")  # from here on: "database or disk is full"
    parts = [SentPart(number, number * 5, 5, "ab" * 32, "t" * 500) for number in range(1, 100)]
    for part in parts:
        journal.sent("archive", "k", part)
    assert journal.parts("archive", "k") == parts
    assert journal.get("archive", "k") is not None
    journal.close()
    again = UploadJournal(tmp_path / "j")  # what did not reach the disk is sent again
    assert again.parts("archive", "k") == parts[: len(again.parts("archive", "k"))]
    again.close()


def test_tracks_go_while_they_grow(
    film: LongFilm, archive: Archive, archiving: Callable[..., Archiver]
) -> None:
    """A track is sent too, a part behind its end, so that recovery may cut it where it likes."""
    store = MemoryStore()
    archiver = archiving(store)
    track = film.directory / "data/tracks/001.mkv"
    track.parent.mkdir()
    body = bytes(range(256)) * (4 * 8 * MEBI // 1024)
    track.write_bytes(body[: 8 * MEBI])
    archiver.step()
    assert not store.unfinished
    film.grow(1)
    with track.open("ab") as file:
        file.write(body)
    archiver.step()
    (parts,) = store.unfinished.values()
    assert [len(data) for data in parts.values()] == [MIN_PART_BYTES]
    film.close()
    settle(archiver)
    info = archive.get(film.directory.name)
    assert (
        object_sha256(store, info.key + "data/tracks/001.mkv") == hashlib.sha256(track_body(body)).hexdigest()
    )


def track_body(body: bytes) -> bytes:
    return body[: 8 * MEBI] + body
