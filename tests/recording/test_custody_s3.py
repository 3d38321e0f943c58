"""Custody where the store itself binds: SeaweedFS with Object Lock, links, and an archive rebuilt from it alone."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import pytest

from recording import package
from recording.archiver import Archiver
from recording.audit_copy import copy_audit, restore_audit
from recording.errors import Bound, ObjectLocked
from recording.holdings import Holdings
from recording.keys import rfc3339
from recording.s3 import S3Store
from tests.recording.conftest import feed, open_recorder
from tests.recording.media import clip
from tests.weed import Weed, new_store


def archived(holdings: Holdings, folder: Path) -> str:
    made = holdings.archive.create("council", note="Séance")
    recorder = open_recorder(made.directory, clip(3))
    recorder.event("join", 0, participant="p1", name="Zoë")
    feed(recorder, clip(3))
    recorder.close(3 * 90_000)
    holdings.archive.set_state(made.id, "sealing")
    assert Archiver(folder / "spool", holdings.store, holdings.index).step() == 1
    return made.id


@pytest.fixture
def store(weed: Weed) -> S3Store:
    return new_store(weed, lock=True)


def test_what_is_held_is_held_by_the_store_too(store: S3Store, tmp_path: Path) -> None:
    holdings = Holdings.open(tmp_path / "var", store)
    identifier = archived(holdings, tmp_path / "var")
    film = holdings.archive.get(identifier).key + package.MEDIA
    holdings.custody.hold(identifier, by="ann", reason="case 12")
    with pytest.raises(ObjectLocked):
        store.delete(film)  # somebody who comes to the store without us
    with pytest.raises(Bound):
        holdings.custody.delete(identifier, by="bob", reason="x")
    holdings.custody.release(identifier, by="ann")
    until = time.time() + 3600
    assert holdings.custody.retain(identifier, by="ann", until=rfc3339(until)).retention is not None
    with pytest.raises(ObjectLocked):
        store.delete(film)
    with pytest.raises(Bound, match="lock of the store"):
        holdings.custody.retain(identifier, by="ann", until=rfc3339(until - 1800))
    assert holdings.archive.verify(identifier)["ok"]
    holdings.close()


def test_links_deletion_and_a_rebuild_from_the_store_alone(store: S3Store, tmp_path: Path) -> None:
    holdings = Holdings.open(tmp_path / "var", store)
    kept, gone = archived(holdings, tmp_path / "var"), archived(holdings, tmp_path / "var")
    film = holdings.archive.media(kept)
    link = film.link(900, "film.mp4")
    assert link is not None
    request = urllib.request.Request(link, headers={"Range": "bytes=0-99"})
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.status == 206
        assert response.read() == b"".join(film.read(0, 100))
    assert holdings.archive.indexed_media(kept).link(900, "film.mp4") is None, "no store has it so"
    holdings.custody.describe(kept, by="ann", note="Séance du 3 mars")
    holdings.custody.hold(kept, by="ann", reason="case 12")
    key = holdings.archive.get(gone).key
    holdings.custody.delete(gone, by="ann", reason="worthless")
    assert list(store.list(key)) == []
    holdings.audit.add("delete", by="ann", role="archivist", recording=gone)
    copy_audit(holdings.audit, store)
    holdings.close()

    other = Holdings.open(tmp_path / "new", store)
    assert len(other.keys.learn(store)) == 1
    assert restore_audit(other.audit, store) == 1
    assert other.custody.reindex() == (2, [])
    assert (other.archive.get(kept).note, other.archive.get(gone).state) == ("Séance du 3 mars", "deleted")
    with pytest.raises(Bound):
        other.custody.delete(kept, by="bob", reason="x")
    assert other.audit.verify(other.keys).ok
    assert b"".join(other.archive.media(kept).read()) == b"".join(film.read())
    other.close()
