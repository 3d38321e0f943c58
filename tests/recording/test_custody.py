"""Holds, retention, deletion and fixity of archived recordings: what is decided, what of it outlives the machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import package
from recording.archive import Archive, Recording
from recording.archiver import Archiver
from recording.custody import Custody
from recording.errors import BadEntry, BadTerms, Bound, RecordingMissing, StoreError, WrongState
from recording.index import Index
from recording.keys import rfc3339
from recording.ledger import Hold, Release, entry_key, ledger_prefix, read_entry, write_entry
from recording.local import LocalStore
from recording.rows import Query
from recording.signing import KeyRing, Signer
from recording.store import read_object

NOW_S = 1_900_000_000.0
DAY_S = 86_400.0


@dataclass
class Clock:
    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "archive-key.pem")


@pytest.fixture
def custody(archive: Archive, store: LocalStore, index: Index, signer: Signer, clock: Clock) -> Custody:
    return Custody(archive, store, index, signer, KeyRing(signer.public), wall=clock)


@pytest.fixture
def kept(
    archive: Archive, record: Callable[..., Recording], store: LocalStore, index: Index, tmp_path: Path
) -> str:
    """The id of an archived recording with one participant."""
    recording = record(note="council")
    assert Archiver(tmp_path / "spool", store, index).step() == 1
    return recording.id


def on_disk(tmp_path: Path, archive: Archive, identifier: str) -> Path:
    return tmp_path / "archive" / archive.get(identifier).key


def test_a_hold_binds_until_it_is_released(
    custody: Custody, archive: Archive, kept: str, tmp_path: Path
) -> None:
    held = custody.hold(kept, by="ann", reason="  case\n 12 ")
    assert held.hold is not None
    assert (held.hold.by, held.hold.reason) == ("ann", "case 12")
    with pytest.raises(Bound, match="held by ann: case 12"):
        custody.delete(kept, by="bob", reason="tidying up")
    assert on_disk(tmp_path, archive, kept).joinpath("recording.json").exists()
    again = custody.hold(kept, by="bob", reason="case 12")
    assert again.hold == held.hold, "the same hold twice is one hold"
    assert custody.hold(kept, by="bob", reason="case 13").hold.reason == "case 13"  # type: ignore[union-attr]
    assert custody.release(kept, by="ann").hold is None
    assert custody.release(kept, by="ann").hold is None
    custody.delete(kept, by="bob", reason="tidying up")


def test_retention_binds_until_its_date(custody: Custody, clock: Clock, kept: str) -> None:
    until = rfc3339(NOW_S + DAY_S)
    assert custody.retain(kept, by="ann", until=until).retention == until
    with pytest.raises(Bound, match="kept until 2030-03-18"):
        custody.delete(kept, by="ann", reason="x")
    assert custody.retain(kept, by="ann", until=rfc3339(NOW_S + 60)).retention == rfc3339(NOW_S + 60)
    clock.now_s += 61
    assert custody.delete(kept, by="ann", reason="over").recording == kept


def test_what_no_terms_can_be(custody: Custody, kept: str) -> None:
    for field, call in (
        ("until", lambda: custody.retain(kept, by="a", until=rfc3339(NOW_S - 1))),
        ("until", lambda: custody.retain(kept, by="a", until="tomorrow")),
        ("until", lambda: custody.retain(kept, by="a", until="2040-01-01T00:00:00")),
        ("reason", lambda: custody.hold(kept, by="a", reason=" \0 ")),
        ("reason", lambda: custody.hold(kept, by="a", reason="x" * 1001)),
        ("reason", lambda: custody.delete(kept, by="a", reason="")),
        ("note", lambda: custody.describe(kept, by="a", note="x" * 2001)),
    ):
        with pytest.raises(BadTerms) as caught:
            call()
        assert caught.value.field == field
    for unknown in ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "../x", "\0"):
        with pytest.raises(RecordingMissing):
            custody.hold(unknown, by="a", reason="x")


def test_under_compliance_a_date_only_moves_away(
    archive: Archive, store: LocalStore, index: Index, signer: Signer, clock: Clock, kept: str
) -> None:
    strict = Custody(archive, store, index, signer, KeyRing(signer.public), mode="compliance", wall=clock)
    lax = Custody(archive, store, index, signer, KeyRing(signer.public), wall=clock)
    strict.retain(kept, by="ann", until=rfc3339(NOW_S + 2 * DAY_S))
    for custody in (strict, lax):  # another configuration does not soften what was decided
        for until in (rfc3339(NOW_S + DAY_S), None):
            with pytest.raises(Bound, match="only be made longer"):
                custody.retain(kept, by="ann", until=until)
    assert lax.retain(kept, by="ann", until=rfc3339(NOW_S + 3 * DAY_S)).retention == rfc3339(
        NOW_S + 3 * DAY_S
    )
    clock.now_s += 4 * DAY_S
    assert lax.retain(kept, by="ann", until=None).retention is None


def test_deletion_leaves_a_signed_tombstone(
    custody: Custody, archive: Archive, index: Index, store: LocalStore, kept: str, tmp_path: Path
) -> None:
    files = {file.path: file.sha256 for file in archive.files(kept)}
    folder = on_disk(tmp_path, archive, kept)
    tombstone = custody.delete(kept, by="ann", reason="end of its retention")
    assert not folder.exists()
    assert {file.path: file.sha256 for file in tombstone.files} == files
    assert (tombstone.by, tombstone.reason, tombstone.note) == ("ann", "end of its retention", "council")
    info = archive.get(kept)
    assert info.state == "deleted"
    assert info.deleted is not None
    assert info.deleted.reason == "end of its retention"
    assert info.participants == (), "names go with the recording"
    assert [found.id for found in index.search(Query(q="retention", state="deleted")).recordings] == [kept]
    assert index.search(Query(q="zoe")).recordings == ()
    body, _ = custody.tombstone_entry(kept)
    assert read_entry(body, custody.keys).act == tombstone
    for path in ("verify", "media"):
        with pytest.raises(WrongState):
            getattr(archive, path)(kept)
    for change in (
        lambda: custody.delete(kept, by="ann", reason="again"),
        lambda: custody.hold(kept, by="ann", reason="too late"),
        lambda: custody.retain(kept, by="ann", until=rfc3339(NOW_S + 1)),
    ):
        with pytest.raises(WrongState):
            change()


def test_only_what_is_archived_is_deleted(custody: Custody, record: Callable[..., Recording]) -> None:
    live = record(close=False)
    with pytest.raises(WrongState, match="recording; only"):
        custody.delete(live.id, by="ann", reason="x")
    assert custody.hold(live.id, by="ann", reason="evidence").hold is not None, "a hold may come early"
    with pytest.raises(WrongState, match="not deleted"):
        custody.tombstone(live.id)


def test_a_hold_and_a_deletion_at_once(
    custody: Custody,
    archive: Archive,
    store: LocalStore,
    index: Index,
    signer: Signer,
    clock: Clock,
    kept: str,
) -> None:
    """The hold comes between the deletion's look at the ledger and its entry: the deletion looks again."""

    class Late(LocalStore):
        armed = True

        def put(self, key: str, source: Path | bytes) -> object:  # type: ignore[override]
            if self.armed and ".ledger/" in key:
                self.armed = False
                custody.hold(kept, by="court", reason="case 9")
            return super().put(key, source)

    slow = Custody(archive, Late(store._root), index, signer, KeyRing(signer.public), wall=clock)
    with pytest.raises(Bound, match="case 9"):
        slow.delete(kept, by="ann", reason="x")
    assert archive.get(kept).state == "archived"
    assert archive.verify(kept)["ok"]


def test_a_deletion_that_the_store_cuts_short_is_finished_later(
    archive: Archive, store: LocalStore, index: Index, signer: Signer, clock: Clock, kept: str, tmp_path: Path
) -> None:
    class Broken(LocalStore):
        left = 2

        def delete(self, key: str) -> None:
            if not self.left:
                raise StoreError("503")
            self.left -= 1
            super().delete(key)

    custody = Custody(archive, Broken(store._root), index, signer, KeyRing(signer.public), wall=clock)
    folder = on_disk(tmp_path, archive, kept)
    custody.delete(kept, by="ann", reason="x")
    assert archive.get(kept).state == "deleted"
    assert not (folder / "recording.json").exists(), "what makes it archived goes first"
    assert folder.exists()
    (pending,) = index.to_purge()
    Custody(archive, store, index, signer, KeyRing(signer.public), wall=clock).purge(pending)
    assert not folder.exists()
    assert index.to_purge() == []


def test_all_of_it_survives_the_loss_of_the_machine(
    custody: Custody, archive: Archive, record: Callable[..., Recording], store: LocalStore, index: Index,
    clock: Clock, kept: str, tmp_path: Path,
) -> None:  # fmt: skip
    gone, damaged = record(room="gone", note="old"), record(room="bad")
    assert Archiver(tmp_path / "spool", store, index).step() == 2
    custody.hold(kept, by="ann", reason="case 12")
    custody.retain(kept, by="ann", until=rfc3339(NOW_S + DAY_S))
    custody.describe(kept, by="ann", note="town council")
    custody.delete(gone.id, by="ann", reason="worthless")
    (on_disk(tmp_path, archive, damaged.id) / package.MEDIA).write_bytes(b"x")
    custody.verify(damaged.id, by="ann")
    before = [archive.get(identifier) for identifier in (kept, gone.id, damaged.id)]

    fresh = Index(tmp_path / "other.db")
    again = Archive(tmp_path / "spool2", store, fresh)
    new = Signer(tmp_path / "another-machine.pem")
    keys = KeyRing(new.public, tmp_path / "believed")
    other = Custody(again, store, fresh, new, keys, wall=clock)
    assert len(other.reindex()[1]) == 3, "no key is believed because it lies in the store"
    assert keys.learn(store) == [custody._signer.fingerprint]
    assert other.reindex() == (3, [])
    after = [again.get(identifier) for identifier in (kept, gone.id, damaged.id)]
    for old, new in zip(before, after, strict=True):
        for field in (
            "state",
            "hold",
            "retention",
            "note",
            "deleted",
            "damaged",
            "checked",
            "size",
            "participants",
        ):
            assert getattr(old, field) == getattr(new, field), field
    with pytest.raises(Bound):
        other.delete(kept, by="bob", reason="x")
    assert other.tombstone(gone.id).reason == "worthless"
    fresh.close()


def test_the_package_stays_as_it_was_sealed(custody: Custody, archive: Archive, kept: str) -> None:
    custody.hold(kept, by="ann", reason="x")
    custody.describe(kept, by="ann", note="other")
    assert archive.verify(kept)["ok"]
    info, verification = custody.verify(kept, by="ann")
    assert verification["ok"]
    assert info.damaged == ()
    assert info.checked == rfc3339(NOW_S)


@pytest.mark.parametrize("spoil", ["change", "remove", "swap", "foreign", "replaced", "garbage"])
def test_a_ledger_that_was_tampered_with_decides_nothing(
    custody: Custody, archive: Archive, store: LocalStore, kept: str, tmp_path: Path, spoil: str
) -> None:
    custody.hold(kept, by="ann", reason="case 12")
    custody.release(kept, by="bob", reason="closed")
    custody.hold(kept, by="ann", reason="case 13")
    info = archive.get(kept)
    folder = tmp_path / "archive" / ledger_prefix(info.key)
    first, second, third = (folder / f"{n:05}.json" for n in (1, 2, 3))
    match spoil:
        case "change":
            body = json.loads(third.read_text())
            body["act"]["reason"] = "case 14"
            third.write_text(json.dumps(body))
        case "remove":
            second.unlink()
        case "swap":
            first_body = first.read_bytes()
            first.write_bytes(third.read_bytes())
            third.write_bytes(first_body)
        case "foreign":
            key = Signer(tmp_path / "stranger.pem")
            key.publish(store)  # who can write to the store can do that
            now = custody.entries(info)[1]
            act = Release(recording=kept, number=4, time=rfc3339(NOW_S), by="mallory", previous=now.sha256)
            store.put(entry_key(info.key, 4), write_entry(act, key))
        case "replaced":  # signed by us, in its place, and still not what the next entry follows
            entry = read_entry(second.read_bytes(), custody.keys)
            other = entry.act.model_copy(update={"reason": "another"})
            second.write_bytes(write_entry(other, custody._signer))
        case "garbage":
            third.write_bytes(b"\xff{")
    with pytest.raises(BadEntry, match="can't be believed"):
        custody.delete(kept, by="mallory", reason="x")
    with pytest.raises(BadEntry):
        custody.release(kept, by="mallory")
    found, verification = custody.verify(kept, by="ann")
    assert not verification["ok"]
    assert found.damaged == (f"{kept}.ledger/",), "the check names it"
    assert archive.get(kept).hold is not None


def test_a_ledger_put_elsewhere_is_seen(
    custody: Custody, archive: Archive, record: Callable[..., Recording], store: LocalStore, index: Index,
    kept: str, tmp_path: Path,
) -> None:  # fmt: skip
    other = record(room="other")
    assert Archiver(tmp_path / "spool", store, index).step() == 1
    custody.hold(other.id, by="ann", reason="x")
    source = tmp_path / "archive" / ledger_prefix(archive.get(other.id).key)
    target = tmp_path / "archive" / ledger_prefix(archive.get(kept).key)
    shutil.copytree(source, target)
    with pytest.raises(BadEntry, match="belongs to recording"):
        custody.delete(kept, by="ann", reason="x")


def test_entries_are_readable_by_people(
    custody: Custody, archive: Archive, store: LocalStore, kept: str
) -> None:
    custody.hold(kept, by="ann", reason="affaire n° 12, été")
    body = read_object(store, entry_key(archive.get(kept).key, 1))
    assert "affaire n° 12, été" in body.decode()
    entry = read_entry(body, custody.keys)
    assert isinstance(entry.act, Hold)
    with pytest.raises(BadEntry, match="not believed"):
        read_entry(body, KeyRing())


@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["act", "key", "signature", "number", "time", "reason"]), inner, max_size=4),
    max_leaves=10,
).map(lambda tree: json.dumps(tree).encode())))  # fmt: skip
def test_any_bytes_are_an_entry_or_refused(body: bytes) -> None:
    with pytest.raises(BadEntry):
        read_entry(body, KeyRing())


def test_two_processes_make_one_key(tmp_path: Path) -> None:
    first, second = Signer(tmp_path / "k" / "key.pem"), Signer(tmp_path / "k" / "key.pem")
    assert first.fingerprint == second.fingerprint
    assert (tmp_path / "k" / "key.pem").stat().st_mode & 0o777 == 0o600
    (tmp_path / "bad.pem").write_text("no key")
    with pytest.raises(StoreError, match=r"bad\.pem cannot be used"):
        Signer(tmp_path / "bad.pem")
