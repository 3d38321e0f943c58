"""Every store keeps the port's contract; the checker itself notices broken promises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recording.errors import ObjectExists, StoreError
from recording.local import LocalStore
from recording.store import ObjectInfo, ObjectStore
from recording.store_contract import check_object_store
from recording.stores import open_store
from tests.fakes.memory_store import MemoryStore


@pytest.mark.parametrize("kind", ["local", "memory", "locking"])
def test_contract(kind: str, tmp_path: Path) -> None:
    store: ObjectStore
    store = LocalStore(tmp_path / "store") if kind == "local" else MemoryStore(locks=kind == "locking")
    check_object_store(store, tmp_path)


def test_contract_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    check_object_store(LocalStore(tmp_path / "store"), tmp_path)


def test_checker_notices_overwriting(tmp_path: Path) -> None:
    class Overwriting(MemoryStore):
        def put(self, key: str, source: Path | bytes) -> ObjectInfo:
            self.objects.pop(key, None)
            return super().put(key, source)

    with pytest.raises(AssertionError, match="second put"):
        check_object_store(Overwriting(), tmp_path)


def test_private_and_tidy(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put("room/2026/file", b"x")
    with pytest.raises(ObjectExists):
        store.put("room/2026/file", b"y")
    modes = {p.relative_to(tmp_path).as_posix(): p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert modes["store/room/2026/file"] == 0o600
    assert modes["store/room"] == modes["store"] == 0o700
    assert not list((tmp_path / "store/.incoming").iterdir())
    store.delete("room/2026/file")
    assert not (tmp_path / "store/room").exists()


def test_link_instead_of_copy(tmp_path: Path) -> None:
    source = tmp_path / "film"
    source.write_bytes(b"media")
    LocalStore(tmp_path / "store").put("film", source)
    assert os.stat(tmp_path / "store/film").st_ino == source.stat().st_ino


def test_urls(tmp_path: Path) -> None:
    for url in (f"file:{tmp_path}/a", f"file://{tmp_path}/a", f"{tmp_path}/a"):
        assert not list(open_store(url).list())
    assert (tmp_path / "a").is_dir()
    for url in ("s3://bucket/prefix", "file://elsewhere/x", "file:"):
        with pytest.raises(StoreError):
            open_store(url)


def test_an_iterator_that_nobody_begins_holds_no_file(tmp_path: Path) -> None:
    """A client that goes away before the first byte; it happens all day."""
    store = LocalStore(tmp_path)
    source = tmp_path / "source"
    source.write_bytes(b"film")
    store.put("room/film", source)
    before = len(os.listdir("/proc/self/fd"))
    waiting = [store.open_range("room/film") for _ in range(10)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert b"".join(waiting[0]) == b"film"
