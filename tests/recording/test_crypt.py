"""The encrypted object's format: any range reads, nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import crypt
from recording.encrypted import KEYS, EncryptedStore
from recording.errors import FixityError, ObjectLocked
from recording.store import read_object
from recording.store_contract import check_object_store
from tests.fakes.memory_store import MemoryStore

MASTER = b"m" * 32
PACKAGE = "salon/2026/11/25/01ARZ3NDEKTSV4RRFFQ69G5FAV/"
FILM = PACKAGE + "data/recording.mp4"
SEGMENT, SEALED, HEAD = crypt.SEGMENT_BYTES, crypt.SEALED_BYTES, crypt.HEADER_BYTES
BODY = bytes(range(256)) * 700  # 2 segments and most of a third


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(inner: MemoryStore) -> EncryptedStore:
    made = EncryptedStore(inner, MASTER)
    made.put(FILM, BODY)
    return made


@pytest.mark.parametrize("locks", [False, True])
def test_contract(locks: bool, tmp_path: Path) -> None:
    check_object_store(EncryptedStore(MemoryStore(locks=locks), MASTER), tmp_path)


@given(st.integers(0, 5 * SEGMENT))
def test_sizes_both_ways(plain: int) -> None:
    assert crypt.plain_size(crypt.stored_size(plain)) == plain


@given(st.integers(-5, 3 * SEALED))
def test_a_size_that_no_object_has_is_refused(stored: int) -> None:
    try:
        plain = crypt.plain_size(stored)
    except FixityError:
        return
    assert crypt.stored_size(plain) == stored


@given(st.binary(max_size=100))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    try:
        salt = crypt.read_header(data)
    except FixityError:
        return
    assert crypt.header(salt) == data


@given(st.integers(0, len(BODY) + 9), st.integers(0, len(BODY) + 9))
def test_any_range(start: int, end: int) -> None:
    store = EncryptedStore(MemoryStore(), MASTER)
    store.put(FILM, BODY)
    assert b"".join(store.open_range(FILM, start, end)) == BODY[start:end]


def _cut(body: bytes) -> bytes:
    return body[: HEAD + 2 * SEALED]


def _cut_inside(body: bytes) -> bytes:
    return body[:-100]


def _swapped(body: bytes) -> bytes:
    first, second = body[HEAD : HEAD + SEALED], body[HEAD + SEALED : HEAD + 2 * SEALED]
    return body[:HEAD] + second + first + body[HEAD + 2 * SEALED :]


def _repeated(body: bytes) -> bytes:
    return body[: HEAD + SEALED] + body[HEAD:]


def _flipped(body: bytes) -> bytes:
    return body[: HEAD + 70_000] + bytes([body[HEAD + 70_000] ^ 1]) + body[HEAD + 70_001 :]


def _another_salt(body: bytes) -> bytes:
    return body[:8] + bytes(32) + body[HEAD:]


@pytest.mark.parametrize("spoil", [_cut, _cut_inside, _swapped, _repeated, _flipped, _another_salt])
def test_what_was_changed_does_not_open(spoil: object, store: EncryptedStore, inner: MemoryStore) -> None:
    inner.objects[FILM] = spoil(inner.objects[FILM])  # type: ignore[operator]
    with pytest.raises(FixityError):
        read_object(store, FILM)


def test_one_object_in_anothers_place(store: EncryptedStore, inner: MemoryStore) -> None:
    other = PACKAGE + "data/timeline.jsonl"
    inner.objects[other] = inner.objects[FILM]
    with pytest.raises(FixityError):
        read_object(store, other)


def test_the_archive_is_restored_from_the_store_and_the_master_key(
    inner: MemoryStore, store: EncryptedStore
) -> None:
    assert read_object(EncryptedStore(inner, MASTER), FILM) == BODY
    with pytest.raises(FixityError, match="another archive"):
        read_object(EncryptedStore(inner, b"x" * 32), FILM)


def test_a_key_a_recording(inner: MemoryStore, store: EncryptedStore) -> None:
    other = PACKAGE.replace("FAV", "FAW") + "data/recording.mp4"
    store.put(other, BODY)
    store.put("LEDGER/x", b"side")
    assert sorted(key for key in inner.objects if key.startswith(KEYS)) == [
        "KEYS/01ARZ3NDEKTSV4RRFFQ69G5FAV", "KEYS/01ARZ3NDEKTSV4RRFFQ69G5FAW", "KEYS/archive",
    ]  # fmt: skip
    stolen = dict(inner.objects)
    assert store.delete_all(PACKAGE) == 1
    inner.objects.update({key: body for key, body in stolen.items() if not key.startswith(KEYS)})
    with pytest.raises(
        FixityError, match="has been erased"
    ):  # a backup of the objects is of no use without it
        read_object(EncryptedStore(inner, MASTER), FILM)
    assert read_object(store, other) == BODY
    assert read_object(store, "LEDGER/x") == b"side"


def test_a_lock_refuses_before_the_key_is_gone() -> None:
    inner = MemoryStore(locks=True)
    store = EncryptedStore(inner, MASTER)
    store.put(FILM, BODY)
    store.lock(FILM, until=None, hold=True)
    with pytest.raises(ObjectLocked):
        store.delete_all(PACKAGE)
    assert read_object(EncryptedStore(inner, MASTER), FILM) == BODY


def test_no_links(store: EncryptedStore) -> None:
    assert store.presign(FILM, 60, filename="film.mp4", media_type="video/mp4") is None


def test_a_large_file_goes_in_parts(tmp_path: Path, inner: MemoryStore, store: EncryptedStore) -> None:
    source = tmp_path / "large"
    body = b"abcdefgh" * (3 * 1024 * 1024)
    source.write_bytes(body)
    store.put(PACKAGE + "data/tracks/a.mkv", source)
    assert read_object(store, PACKAGE + "data/tracks/a.mkv") == body
    assert not inner.unfinished
