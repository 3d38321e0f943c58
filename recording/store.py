"""The port behind which objects are kept: a folder today, an S3 bucket tomorrow.

Every implementation passes `recording.store_contract.check_object_store`. All methods block; call them
from a thread. Keys go through `recording.keys.safe_key` in every implementation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

CHUNK_BYTES: Final = 256 * 1024  # large enough that hashing dominates, small enough for a hundred readers


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the store knows about one object: its key and its size in bytes."""

    key: str
    size: int


class ObjectStore(Protocol):
    """Write-once objects under slash-separated keys."""

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
        """Remove the object; that it is not there is not an error."""
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
