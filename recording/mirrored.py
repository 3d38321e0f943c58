"""Two stores as one, for reading and for deciding: the first is read, the second when the first cannot.

What is decided (a lock, a deletion, a side object) must be so in both: it is done in the second first, so
that a failure there leaves the first untouched and the request fails as a whole, to be repeated. The
packages themselves come into each store by an uploader of its own, never through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from recording.errors import LockRefused, ObjectExists, ObjectMissing, StoreError
from recording.store import Capabilities, ObjectInfo, ObjectStore, Part, PendingUpload


class MirroredStore:
    """`recording.store.ObjectStore` over ``first`` and ``second``."""

    def __init__(self, first: ObjectStore, second: ObjectStore) -> None:
        self._first = first
        self._second = second

    @property
    def capabilities(self) -> Capabilities:
        """Of the first: it is the one that is read."""
        return self._first.capabilities

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        """See the port. In both; the first decides whether the key is free."""
        with suppress(ObjectMissing):
            self._first.stat(key)
            raise ObjectExists(f"{key} is stored already, and objects are never overwritten")
        with suppress(ObjectExists):  # of a try that failed in the first
            self._second.put(key, source)
        return self._first.put(key, source)

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See the port. From the second when the first has not the object, or fails before the first byte."""
        try:
            return self._first.open_range(key, start, end)
        except StoreError as error:
            with suppress(StoreError):
                return self._second.open_range(key, start, end)
            raise error from None

    def stat(self, key: str) -> ObjectInfo:
        """See the port. Of the first, where it answers."""
        try:
            return self._first.stat(key)
        except ObjectMissing:
            raise
        except StoreError as error:
            with suppress(StoreError):
                return self._second.stat(key)
            raise error from None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See the port. Of the first."""
        return self._first.list(prefix)

    def delete(self, key: str) -> None:
        """See the port. In both."""
        self._second.delete(key)
        self._first.delete(key)

    def delete_all(self, prefix: str) -> int:
        """See the port. In both; counts the first's."""
        self._second.delete_all(prefix)
        return self._first.delete_all(prefix)

    def presign(self, key: str, ttl_s: int, *, filename: str, media_type: str) -> str | None:
        """See the port. Of the first."""
        return self._first.presign(key, ttl_s, filename=filename, media_type=media_type)

    def lock(self, key: str, *, until: datetime | None, hold: bool) -> None:
        """See the port. In both, as far as the second has locks and the object already."""
        with suppress(LockRefused, ObjectMissing):
            self._second.lock(key, until=until, hold=hold)
        self._first.lock(key, until=until, hold=hold)

    def begin(self, key: str, source: Path | None = None) -> str:
        """See the port. In the first, as all that follows."""
        return self._first.begin(key, source)

    def put_part(self, key: str, upload: str, number: int, offset: int, data: bytes, *, last: bool) -> str:
        """See the port."""
        return self._first.put_part(key, upload, number, offset, data, last=last)

    def parts(self, key: str, upload: str) -> Sequence[Part]:
        """See the port."""
        return self._first.parts(key, upload)

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> ObjectInfo:
        """See the port."""
        return self._first.complete(key, upload, parts)

    def abort(self, key: str, upload: str) -> None:
        """See the port."""
        self._first.abort(key, upload)

    def uploads(self, prefix: str = "") -> Iterator[PendingUpload]:
        """See the port."""
        return self._first.uploads(prefix)
