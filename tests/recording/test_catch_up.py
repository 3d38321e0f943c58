"""What the second store lacks comes into it: from before it was there, and after it was away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recording import catch_up, package
from recording.archiver import Archiver
from recording.audit_copy import AUDIT_PREFIX, copy_audit
from recording.catch_up import EVERY_S, RETRY_S, CatchUp
from recording.encrypted import EncryptedStore
from recording.errors import FixityError, StoreError
from recording.holdings import Holdings
from recording.keeper import Keeper, Policy
from recording.ledger import entry_key, ledger_prefix
from recording.local import LocalStore
from recording.mirrored import MirroredStore
from recording.object_copy import copy_object
from recording.signing import KEYS_PREFIX
from recording.store import MIN_PART_BYTES, ObjectInfo, ObjectStore, read_object
from recording.store_contract import check_object_store
from tests.fakes.faulty_s3 import Fault, faulty_s3
from tests.fakes.memory_store import FlakyStore, MemoryStore
from tests.recording.longfilm import LongFilm
from tests.recording.test_archiver import Clock
from tests.weed import QUICK, Weed, new_store

RUN = threading.Event()


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {item.key: read_object(store, item.key) for item in store.list() if item.key != "PROBE"}


class Desk:
    """An archive of one store with some recordings in it, in which things were decided."""

    def __init__(self, folder: Path, first: ObjectStore) -> None:
        self.folder = folder
        self.first = first
        self.clock = Clock()
        self.holdings = Holdings.open(folder, first)
        self.held, self.gone, self.large = self.make("council"), self.make("salon"), self.make("salon", 7)
        custody = self.holdings.custody
        custody.hold(self.held, by="ann", reason="case 12")
        custody.delete(self.gone, by="bob", reason="list 7")
        custody.verify(self.large, by="ann")
        self.holdings.audit.add("delete", by="bob", role="archivist", recording=self.gone)
        copy_audit(self.holdings.audit, first)

    def make(self, room: str, seconds: int = 1) -> str:
        recording = self.holdings.archive.create(room)
        film = LongFilm(recording.directory, fragment_bytes=1 << 20)
        film.grow(seconds)
        film.close()
        self.holdings.archive.set_state(recording.id, "sealing")
        archiver = Archiver(self.folder / "spool", self.first, self.holdings.index)
        assert archiver.step() == 1
        archiver.close()
        return recording.id

    def package(self, identifier: str) -> str:
        return self.holdings.archive.get(identifier).key

    def follow(self, second: ObjectStore) -> CatchUp:
        index, spool = self.holdings.index, self.folder / "spool"
        return CatchUp(self.first, second, index, spool, bytes_s=1e12, clock=self.clock)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "var", LocalStore(tmp_path / "archive"))
    yield made
    made.holdings.close()


def test_a_second_folder_gets_all_that_was_there_before_it(desk: Desk, tmp_path: Path) -> None:
    second = LocalStore(tmp_path / "second")
    follower = desk.follow(second)
    follower.step(RUN)
    assert contents(second) == contents(desk.first)
    for part in (ledger_prefix(desk.package(desk.gone)), AUDIT_PREFIX, KEYS_PREFIX, desk.package(desk.large)):
        assert list(second.list(part)), part
    assert read_object(second, desk.package(desk.held) + "data/recording.sidx")
    figures = follower.figures
    assert (figures.rounds, figures.failed, figures.differing) == (1, 0, 0)
    assert figures.copied == len(contents(desk.first))
    assert figures.copied_bytes == sum(map(len, contents(desk.first).values()))

    desk.holdings.custody.describe(desk.held, by="ann", note="Séance")  # while the second was not there again
    desk.clock.now += EVERY_S - 1
    follower.step(RUN)
    assert contents(second) != contents(desk.first), "not all the time"
    desk.clock.now += 1
    follower.step(RUN)
    assert contents(second) == contents(desk.first)
    assert figures.copied == len(contents(desk.first)), "each once"
    other = Holdings.open(tmp_path / "new", second)
    other.keys.learn(second)
    assert other.custody.reindex() == (3, []), "an archive can be made again from the second alone"
    assert other.archive.get(desk.held).note == "Séance"
    other.close()


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_a_bucket_that_was_down_gets_it_when_it_is_back(
    desk: Desk, weed: Weed, tmp_path: Path, kind: str
) -> None:
    with faulty_s3(weed.endpoint) as proxy:
        bucket: ObjectStore = new_store(weed, endpoint=proxy.endpoint, **QUICK)
        if kind == "encrypted":
            bucket = EncryptedStore(bucket, b"k" * 32)
        check_object_store(bucket, tmp_path)
        proxy.decide = lambda method, path: Fault(503, "SlowDown")
        follower = desk.follow(bucket)
        with pytest.raises(StoreError):
            follower.step(RUN)
        assert follower.figures.rounds == 0
        proxy.decide = lambda method, path: Fault(500, "InternalError") if method in {"PUT", "POST"} else None
        with pytest.raises(StoreError):
            follower.step(RUN)
        assert follower.figures.failed == catch_up.MAX_FAILED, "not every object is tried in vain"
        proxy.heal()
        follower.step(RUN)
        assert follower.figures.rounds == 1
        desk.clock.now += RETRY_S
        follower.step(RUN)
        before = contents(desk.first)
        assert {key: body for key, body in contents(bucket).items() if key in before} == before
        assert not list(bucket.uploads("salon/"))


def test_what_was_deleted_while_the_second_was_away_goes_there_too(desk: Desk, tmp_path: Path) -> None:
    second = LocalStore(tmp_path / "second")
    desk.follow(second).step(RUN)
    assert list(second.list(desk.package(desk.large)))
    desk.holdings.custody.delete(desk.large, by="bob", reason="list 8")
    follower = desk.follow(second)
    follower.step(RUN)
    assert not list(second.list(desk.package(desk.large)))
    assert follower.figures.purged > 5
    assert contents(second) == contents(desk.first), "the tombstone is there"


def test_the_seal_comes_last_and_only_of_a_whole_package(desk: Desk) -> None:
    film = desk.package(desk.large) + package.MEDIA
    second = FlakyStore(refuse=lambda key: key.endswith("timeline.jsonl") and key.startswith("salon/"))
    order: list[str] = []
    put = second.put

    def noted(key: str, source: Path | bytes) -> ObjectInfo:
        order.append(key)
        return put(key, source)

    second.put = noted  # type: ignore[method-assign]
    follower = desk.follow(second)
    follower.step(RUN)
    inside = desk.package(desk.large)
    assert film in second.objects
    assert inside + package.SEAL not in second.objects
    assert desk.package(desk.held) + package.SEAL in second.objects, "others are not kept waiting"
    second.refuse = lambda key: False
    desk.clock.now += RETRY_S
    follower.step(RUN)
    assert [key for key in order if key.startswith(inside)][-1] == inside + package.SEAL
    assert contents(second) == contents(desk.first)


def test_what_is_damaged_is_not_spread(desk: Desk, tmp_path: Path) -> None:
    inside = desk.package(desk.large)
    path = tmp_path / "archive" / inside / package.MEDIA
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(6_000_000)
        file.write(b"\xff\x00\xff")
    second = MemoryStore()
    follower = desk.follow(second)
    follower.step(RUN)
    assert inside + package.MEDIA not in second.objects
    assert inside + package.SEAL not in second.objects
    assert not second.unfinished
    assert follower.figures.failed == 1
    assert desk.package(desk.held) + package.SEAL in second.objects


def test_what_differs_is_said_and_left_alone(desk: Desk) -> None:
    second = MemoryStore()
    key = entry_key(desk.package(desk.held), 1)
    second.put(key, b"somebody else's")
    follower = desk.follow(second)
    follower.step(RUN)
    assert second.objects[key] == b"somebody else's"
    assert follower.figures.differing == 1


def test_what_is_still_in_the_spool_is_the_archivers(desk: Desk) -> None:
    (desk.folder / "spool" / desk.held).mkdir()
    second = MemoryStore()
    desk.follow(second).step(RUN)
    assert not list(second.list(desk.package(desk.held)))
    assert list(second.list(desk.package(desk.large)))


def test_a_step_is_bounded_and_a_stop_leaves_nothing_half(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "STEP_BYTES", 1 << 20)
    second, stop = MemoryStore(), threading.Event()
    follower = desk.follow(second)
    steps, most = 0, 0
    while not follower.figures.rounds:
        before = follower.figures.copied_bytes
        follower.step(stop)
        most = max(most, follower.figures.copied_bytes - before)
        steps += 1
        assert steps < 20
    assert steps >= 3
    assert most < 9 << 20, "one object more than it should, at most"

    stop.set()
    another = MemoryStore()
    follower = desk.follow(another)
    follower.step(stop)
    assert not another.objects
    assert not another.unfinished


def test_what_is_held_is_locked_in_the_second_store_as_well(desk: Desk) -> None:
    second = MemoryStore(locks=True)
    desk.follow(second).step(RUN)
    assert desk.package(desk.held) + package.MEDIA in second.held
    assert not any(key.startswith(desk.package(desk.large)) for key in second.held)


def test_an_upload_that_a_death_cut_off_is_given_up(desk: Desk) -> None:
    second = MemoryStore()
    film = desk.package(desk.large) + package.MEDIA
    second.put_part(film, second.begin(film), 1, 0, b"x" * MIN_PART_BYTES, last=False)
    desk.follow(second).step(RUN)
    assert second.objects[film] == read_object(desk.first, film)
    assert not second.unfinished


def test_a_copy_that_was_stored_otherwise_is_removed(desk: Desk) -> None:
    key = entry_key(desk.package(desk.held), 1)
    second = FlakyStore(spoil="00001.json")
    with pytest.raises(FixityError):
        copy_object(desk.first, second, key, sha256=None, pace=lambda _: None)
    assert not second.objects
    assert copy_object(desk.first, second, key, sha256=None, pace=lambda _: None)
    assert copy_object(desk.first, second, key, sha256=None, pace=lambda _: None) is None


def test_the_keeper_does_it(desk: Desk, tmp_path: Path) -> None:
    both = MirroredStore(desk.first, LocalStore(tmp_path / "second"))
    held = Holdings.open(desk.folder, both)
    keeper = Keeper(held.custody, held.audit, held.store, held.index, Policy(), catch_up=held.catch_up)
    keeper.step(threading.Event())
    keeper.close()
    assert held.catch_up is not None
    assert held.catch_up.figures.rounds == 1
    assert contents(both.second) == contents(desk.first)
    assert desk.holdings.catch_up is None, "one store has nothing to catch up with"
    held.close()


def test_what_was_never_decided_does_not_stay_in_the_second_store() -> None:
    first, second = FlakyStore(refuse=lambda _: True), MemoryStore()
    both = MirroredStore(first, second)
    with pytest.raises(StoreError):
        both.put("ledger/00001.json", b"a hold")
    first.refuse = lambda _: False
    both.put("ledger/00001.json", b"a deletion")
    assert (first.objects, second.objects) == (second.objects, {"ledger/00001.json": b"a deletion"})
