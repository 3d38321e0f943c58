"""The port behind which objects are kept: a folder, or an S3 bucket.

Every implementation passes `recording.store_contract.check_object_store`. All methods block; call them
from a thread. Keys go through `recording.keys.safe_key` in every implementation. An object that grows while
its file does is made of parts: `begin`, `put_part` in order, `complete`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

CHUNK_BYTES: Final = 256 * 1024  # large enough that hashing dominates, small enough for a hundred readers
MIN_PART_BYTES: Final = 5 * 1024 * 1024  # of all parts but the last: S3's rule, everywhere
MAX_PARTS: Final = 1000  # Scaleway's bound; the others allow 10,000
PART_ALIGN: Final = 64 * 1024  # an encrypting store works by segments of this size


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the store knows about one object: its key and its size in bytes."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do beside keeping objects. A figure or a "no" here is not an error anywhere.

    ``conditional``: an object is made only if its key is free, in one step; without, the store is asked
    first. ``lock``: retention and legal hold bind in the store itself (`ObjectStore.lock`). ``presign``:
    `ObjectStore.presign` gives links. ``reads_parts``: each part is read back while it is stored, so that
    the completed object need not be read once more.
    """

    conditional: bool
    lock: bool = False
    presign: bool = False
    reads_parts: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the store has: its number (from 1), its size in bytes, the store's mark for it."""

    number: int
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """An object that was begun and not completed; ``begun``: when, in UTC.

    ``upload``: good for `ObjectStore.abort`; the name that `ObjectStore.begin` gave, or its beginning up to a dot.
    """

    key: str
    upload: str
    begun: datetime


class ObjectStore(Protocol):
    """Write-once objects under slash-separated keys."""

    @property
    def capabilities(self) -> Capabilities:
        """What this store can do."""
        ...

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        """Store a file's content or some bytes, durably and whole, or not at all.

        A file must not change any more: a local store may link it instead of copying it.
        Raises `ObjectExists` when the key is taken, `StoreError` when the store fails, `UnsafePath`.
        """
        ...

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` (exclusive; None = the end) in chunks of at most `CHUNK_BYTES`.

        Ranges past the end give what there is. Raises `ObjectMissing` here, not at the first chunk; an
        object that is deleted while being read stays readable or raises `StoreError`.
        """
        ...

    def stat(self, key: str) -> ObjectInfo:
        """Raises `ObjectMissing`."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix`` (plain text, as in S3), in key order. Never half a
        put.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object, with every version of it; that it is not there is not an error.

        Raises `ObjectLocked` while a retention or a hold of the store binds it.
        """
        ...

    def delete_all(self, prefix: str) -> int:
        """Remove a package: every object under ``prefix`` (ends with a slash), and what is needed to read them.

        An encrypting store erases the package's key first. May be repeated after a failure, and is an error
        for no prefix. Returns how many objects there were. Raises as `delete`.
        """
        ...

    def presign(self, key: str, ttl_s: int, *, filename: str, media_type: str) -> str | None:
        """A link that reads the object for ``ttl_s`` seconds without credentials, as an attachment named
        ``filename``; None where the store gives none, or the object is not readable without us.
        """
        ...

    def lock(self, key: str, *, until: datetime | None, hold: bool) -> None:
        """Bind the object in the store: no deletion before ``until`` (None: leave the date as it is), and
        none while ``hold``. Raises `LockRefused` where the store cannot, or for a date before the present one.
        """
        ...

    def begin(self, key: str, source: Path | None = None) -> str:
        """Begin an object that is made of parts; returns the upload's name. Nothing shows under ``key`` before
        `complete`.

        ``source``: the growing file whose bytes the object's will be, if there is one: a local store may take
        it instead of a copy. Its beginning, up to the end of any part that was put, must not change any more.
        """
        ...

    def put_part(self, key: str, upload: str, number: int, offset: int, data: bytes, *, last: bool) -> str:
        """Store part ``number`` (1 to `MAX_PARTS`), durably: the object's bytes from ``offset`` on.

        All parts but the ``last`` have a multiple of `PART_ALIGN` and at least `MIN_PART_BYTES`. Putting a
        number again replaces the part. Returns the part's tag. Raises `UploadMissing`, `FixityError` when the
        store took other bytes.
        """
        ...

    def parts(self, key: str, upload: str) -> Sequence[Part]:
        """The parts that are stored, by number. Raises `UploadMissing`."""
        ...

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> ObjectInfo:
        """Make the object of all parts. Raises `ObjectExists` (the upload stays), `UploadMissing`."""
        ...

    def abort(self, key: str, upload: str) -> None:
        """Give the upload up and free its space; that it is not there is not an error."""
        ...

    def uploads(self, prefix: str = "") -> Iterator[PendingUpload]:
        """All uploads that were begun under ``prefix``, and neither completed nor aborted."""
        ...


def read_object(store: ObjectStore, key: str) -> bytes:
    """A small object's whole content. For media use `ObjectStore.open_range`."""
    return b"".join(store.open_range(key))


def object_sha256(store: ObjectStore, key: str) -> str:
    """SHA-256, in hex, of the bytes that the store gives back."""
    digest = hashlib.sha256()
    for chunk in store.open_range(key):
        digest.update(chunk)
    return digest.hexdigest()
