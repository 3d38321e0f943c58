"""From the spool to the archive: whole, once, and through any death on the way."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import bagit
import pytest
import webvtt

from recording import package
from recording.archive import Archive, Recording
from recording.archiver import Archiver
from recording.archiver_process import run
from recording.errors import (
    FixityError,
    PackageBusy,
    RecordingLive,
    RecordingMissing,
    UnsafePath,
    WrongState,
)
from recording.index import Index
from recording.local import LocalStore
from recording.package import Seal
from tests.fakes.memory_store import FlakyStore, MemoryStore
from tests.recording.conftest import open_recorder
from tests.recording.media import clip, decode


class Died(BaseException):
    """The archiver's process ended here."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_the_contracts_package(
    archive: Archive,
    record: Callable[..., Recording],
    store: LocalStore,
    index: Index,
    spool: Path,
    tmp_path: Path,
) -> None:
    recording = record(note="Réunion\nBag-Size: forged")
    Archiver(spool, store, index).step()
    info = archive.get(recording.id)
    assert info.state == "archived"
    assert info.complete
    assert info.key == f"salon/{info.created[:4]}/{info.created[5:7]}/{info.created[8:10]}/{info.id}/"
    assert [p.name for p in info.participants] == ["Zoë <Ann>"]
    assert info.participants[0].left is not None
    assert not list(spool.glob("0*"))

    bag = tmp_path / "archive" / info.key
    assert sorted(p.relative_to(bag).as_posix() for p in bag.rglob("*") if p.is_file()) == [
        "bag-info.txt", "bagit.txt", "data/chapters.vtt", "data/recording.mp4", "data/recording.sidx",
        "data/timeline.jsonl",
        "manifest-sha256.txt", "recording.json", "tagmanifest-sha256.txt",
    ]  # fmt: skip
    checked = bagit.Bag(str(bag))
    checked.validate()
    assert checked.info["External-Description"] == "Réunion Bag-Size: forged"
    assert "Bag-Size" not in checked.info
    assert webvtt.read(bag / "data/chapters.vtt")[0].start == "00:00:00.000"
    film = decode(bag / "data/recording.mp4")
    seal = Seal.model_validate_json((bag / "recording.json").read_bytes())
    assert seal.duration_s == pytest.approx(film.video_s, abs=0.05) == info.duration_s
    assert seal.sha256 == hashlib.sha256((bag / "data/recording.mp4").read_bytes()).hexdigest() == info.sha256
    assert seal.software == "mosaique test"


STEPS = [
    "closed", "seal", "put .*chapters.vtt", "put .*recording.mp4", "read back .*recording.mp4",
    "put .*tagmanifest-sha256.txt", "put seal", "read back .*recording.json", "index", "remove",
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step(
    step: str,
    archive: Archive,
    record: Callable[..., Recording],
    store: LocalStore,
    index: Index,
    spool: Path,
) -> None:
    recording = record()
    reached = []

    def die(name: str) -> None:
        if re.fullmatch(step, name.replace(archive.get(recording.id).key, "/")):
            reached.append(name)
            raise Died

    with pytest.raises(Died):
        Archiver(spool, store, index, checkpoint=die).step()
    assert reached
    state = archive.get(recording.id).state
    assert (state == "archived") == (step == "remove")
    assert recording.directory.exists()
    assert Archiver(spool, store, index).step() == 1
    assert archive.get(recording.id).state == "archived"
    assert archive.verify(recording.id)["ok"]
    assert not list(spool.glob("0*"))


def test_killed_inside_sealing(
    archive: Archive,
    record: Callable[..., Recording],
    store: LocalStore,
    index: Index,
    spool: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording = record()
    real, writes = package.write_whole, []

    def die_later(path: Path, data: bytes) -> None:
        real(path, data)
        writes.append(path)
        if len(writes) == dies_at:
            raise Died

    for dies_at in range(1, 7):  # noqa: B007 - die_later reads it
        writes.clear()
        monkeypatch.setattr(package, "write_whole", die_later)
        with pytest.raises(Died):
            Archiver(spool, store, index).step()
        monkeypatch.setattr(package, "write_whole", real)
        assert not list(store.list())  # nothing leaves before the seal
    Archiver(spool, store, index).step()
    assert archive.verify(recording.id)["ok"]


def test_live_recordings_are_left_alone(
    archive: Archive, store: LocalStore, index: Index, spool: Path
) -> None:
    clock = Clock()
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, clip(2))
    archiver = Archiver(spool, store, index, clock=clock)
    for _ in range(5):
        clock.now += 1000
        assert archiver.step() == 0
    assert archive.get(recording.id).state == "recording"
    recorder.close(0)


def test_an_orphan_is_recovered_and_archived(
    archive: Archive, store: LocalStore, index: Index, spool: Path, tmp_path: Path, dead: Path
) -> None:
    clock = Clock()
    recording = archive.create("salon")
    shutil.copytree(dead, recording.directory, dirs_exist_ok=True)
    archiver = Archiver(spool, store, index, clock=clock)
    assert archiver.step() == 0
    clock.now += 9
    assert archiver.step() == 0
    clock.now += 2
    assert archiver.step() == 1
    info = archive.get(recording.id)
    assert (info.state, info.complete) == ("archived", False)
    assert "without closing" in info.reason
    assert info.duration_s is not None
    assert info.duration_s >= 5
    assert archive.verify(recording.id)["ok"]
    assert decode(tmp_path / "archive" / info.key / package.MEDIA).video_s >= 5
    archive.create("salon")  # the room is free


def test_a_worker_that_comes_back_in_time_goes_on(
    archive: Archive, store: LocalStore, index: Index, spool: Path
) -> None:
    clock = Clock()
    recording = archive.create("salon")
    archiver = Archiver(spool, store, index, clock=clock)
    archiver.step()
    clock.now += 9
    recorder = open_recorder(recording.directory, clip(2))
    archiver.step()
    recorder._lock.release()  # as a death would, a second time
    clock.now += 5
    archiver.step()
    assert archive.get(recording.id).state == "recording"
    recorder.close(0)


def test_nothing_recorded_is_failed(archive: Archive, store: LocalStore, index: Index, spool: Path) -> None:
    recording = archive.create("salon")
    open_recorder(recording.directory, clip(2)).close(0)
    Archiver(spool, store, index).step()
    info = archive.get(recording.id)
    assert (info.state, info.reason) == ("failed", "no picture was ever recorded")
    assert not list(store.list())
    assert not recording.directory.exists()


def test_spoilt_in_the_store_is_put_again(
    archive: Archive, record: Callable[..., Recording], index: Index, spool: Path
) -> None:
    clock, store = Clock(), FlakyStore(spoil=package.MEDIA)
    recording = record()
    archiver = Archiver(spool, store, index, clock=clock)
    assert archiver.step() == 0
    info = archive.get(recording.id)
    assert info.state == "sealing"
    assert "other bytes" in info.reason
    assert recording.directory.exists()
    assert archiver.step() == 0  # not at once
    clock.now += 1.1
    assert archiver.step() == 1
    assert archive.get(recording.id).state == "archived"
    assert archive.get(recording.id).reason == ""


def test_spoilt_in_the_spool_is_not_archived(
    archive: Archive, record: Callable[..., Recording], index: Index, spool: Path
) -> None:
    """A disk that gives back other bytes than were written: the recorder's own digest knows."""
    recording = record()
    media = recording.directory / package.MEDIA
    body = bytearray(media.read_bytes())
    body[2000] ^= 1
    media.write_bytes(body)
    Archiver(spool, MemoryStore(), index).step()
    assert archive.get(recording.id).state == "sealing"
    assert recording.directory.exists()


def test_a_store_that_is_down_for_long(
    archive: Archive, record: Callable[..., Recording], index: Index, spool: Path
) -> None:
    clock, down = Clock(), True
    tries: list[str] = []

    def refuse(key: str) -> bool:
        tries.append(key)
        return down

    store = FlakyStore(refuse=refuse)
    recording = record()
    archiver = Archiver(spool, store, index, clock=clock)
    for _ in range(6 * 360):
        archiver.step()
        clock.now += 10
    assert 60 < len(tries) < 100  # 6 hours at every 5 minutes
    assert "503 Slow Down" in archive.get(recording.id).reason
    down = False
    clock.now += 300
    assert archiver.step() == 1
    assert archive.get(recording.id).state == "archived"


def test_states_without_files_are_settled(
    archive: Archive,
    record: Callable[..., Recording],
    store: LocalStore,
    index: Index,
    spool: Path,
    tmp_path: Path,
) -> None:
    clock = Clock()
    recording = record()
    archiver = Archiver(spool, store, index, clock=clock)
    archiver.step()
    lost = archive.create("other")
    lost.directory.rename(tmp_path / "gone")
    index._connection.execute("UPDATE recordings SET state = 'sealing' WHERE id = ?", (recording.id,))
    archiver.step()
    assert archive.get(lost.id).state == "recording"  # looked at once a minute
    clock.now += 61
    archiver.step()
    assert archive.get(lost.id).state == "failed"
    assert archive.get(recording.id).state == "archived"


def test_a_lost_index_is_made_again(
    archive: Archive,
    record: Callable[..., Recording],
    store: LocalStore,
    index: Index,
    spool: Path,
    tmp_path: Path,
) -> None:
    first = record()
    Archiver(spool, store, index).step()
    second = record(room="other")  # still in the spool
    fresh = Index(tmp_path / "fresh.db")
    again = Archive(spool, store, fresh)
    assert again.reindex() == 1
    assert again.get(first.id) == archive.get(first.id)
    Archiver(spool, store, fresh).step()
    assert again.get(second.id).state == "archived"
    fresh.close()


def test_nonsense_in_the_spool(archive: Archive, store: LocalStore, index: Index, spool: Path) -> None:
    (spool / "lost+found").mkdir(parents=True)
    spoilt = spool / "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    spoilt.mkdir()
    (spoilt / package.DESCRIPTION).write_text("{")
    (spoilt / package.CLOSED).write_text("{}")
    (spool / ".removed-x").mkdir()
    assert Archiver(spool, store, index).step() == 0
    assert spoilt.exists()
    assert not (spool / ".removed-x").exists()


# -- reading ----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(
    archive: Archive, record: Callable[..., Recording], store: LocalStore, index: Index, spool: Path
) -> Recording:
    recording = record()
    Archiver(spool, store, index).step()
    return recording


def test_reading_media(archive: Archive, kept: Recording, tmp_path: Path) -> None:
    media = archive.media(kept.id)
    whole = b"".join(media.read())
    assert len(whole) == media.size
    assert media.etag == f'"{hashlib.sha256(whole).hexdigest()}"'
    assert media.media_type == "video/mp4"
    assert b"".join(media.read(100, 200)) == whole[100:200]
    readers = [media.read(n * 100, n * 100 + 50) for n in range(20)]
    assert [b"".join(reader) for reader in readers] == [whole[n * 100 : n * 100 + 50] for n in range(20)]


def test_no_path_leads_out(archive: Archive, kept: Recording) -> None:
    for path in (
        "../index.db",
        "/etc/passwd",
        "data/../../x",
        "data/\0",
        "x" * 300,
        "nothing",
        "",
        "package.json",
        "lock",
    ):
        with pytest.raises(RecordingMissing):
            archive.open_file(kept.id, path)
    with pytest.raises(RecordingMissing):
        archive.media("../../etc")
    assert [file.path for file in archive.files(kept.id)][-1] == "recording.json"
    for file in archive.files(kept.id):
        body = b"".join(archive.open_file(kept.id, file.path).read())
        assert (len(body), hashlib.sha256(body).hexdigest()) == (file.size, file.sha256)


def test_not_archived_yet(archive: Archive, record: Callable[..., Recording]) -> None:
    recording = record()
    for read in (archive.media, archive.files, archive.verify, archive.bag):
        with pytest.raises(WrongState) as caught:
            read(recording.id)
        assert caught.value.state == "sealing"


@pytest.mark.parametrize(
    "path", ["data/recording.mp4", "data/timeline.jsonl", "manifest-sha256.txt", "recording.json"]
)
def test_verify_names_a_flipped_byte(path: str, archive: Archive, kept: Recording, tmp_path: Path) -> None:
    assert archive.verify(kept.id)["ok"]
    file = tmp_path / "archive" / archive.get(kept.id).key / path
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 0x20
    file.write_bytes(body)
    heard: list[str] = []
    verdict = archive.verify(kept.id, lambda name, done, total: heard.append(name))
    assert not verdict["ok"]
    assert [check["path"] for check in verdict["files"] if not check["ok"]] == [path]
    assert len(set(heard)) == 9
    if path == "recording.json":
        with pytest.raises(FixityError):
            archive.media(kept.id)


def test_verify_names_missing_and_strange_files(archive: Archive, kept: Recording, tmp_path: Path) -> None:
    folder = tmp_path / "archive" / archive.get(kept.id).key
    (folder / "data/chapters.vtt").unlink()
    (folder / "data/extra").write_text("x")
    bad = [check["path"] for check in archive.verify(kept.id)["files"] if not check["ok"]]
    assert bad == ["data/chapters.vtt", "data/extra"]


def test_bag(archive: Archive, kept: Recording, tmp_path: Path) -> None:
    target = tmp_path / "bag.zip"
    with target.open("wb") as file:
        for chunk in archive.bag(kept.id):
            file.write(chunk)
    with zipfile.ZipFile(target) as bag:
        assert bag.testzip() is None
        bag.extractall(tmp_path / "out")
    bagit.Bag(str(tmp_path / "out" / kept.id)).validate()


def test_create_is_strict(archive: Archive, spool: Path) -> None:
    for room in ("", "../x", "UPPER", "a/b", "a\0"):
        with pytest.raises(UnsafePath):
            archive.create(room)
    with pytest.raises(ValueError, match="2000"):
        archive.create("salon", note="x" * 2001)
    first = archive.create("salon")
    with pytest.raises(RecordingLive) as caught:
        archive.create("salon")
    assert caught.value.recording_id == first.id
    assert [p.name for p in spool.iterdir()] == [first.id]
    assert archive.directory(first.id) == first.directory


# -- the process ------------------------------------------------------------------------------------------------


def test_process(archive: Archive, record: Callable[..., Recording], spool: Path, tmp_path: Path) -> None:
    """The real process: archives what is closed, refuses a second one, ends on SIGTERM after what is closed then."""
    command = [sys.executable, "-m", "recording.archiver_process", "--spool", str(spool)]
    command += ["--archive", f"file:{tmp_path}/archive", "--index", str(tmp_path / "index.db")]
    first = record()
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        assert (line["event"], line["level"]) == ("recording_archived", "info")
        assert archive.get(first.id).state == "archived"
        with pytest.raises(PackageBusy):
            run(spool, str(tmp_path / "archive"), tmp_path / "index.db", threading.Event())
        second = record()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stderr.read()
    assert archive.get(second.id).state == "archived"
    assert subprocess.run([*command[:3], "--spool"], check=False, capture_output=True).returncode == 2
    refused = subprocess.run(
        [*command[:5], "--archive", "ftp://x/y", *command[7:]], check=False, capture_output=True
    )
    assert refused.returncode == 1
    assert b"not a kind of archive" in refused.stderr
