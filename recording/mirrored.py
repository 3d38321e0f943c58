"""Two stores as one, for reading and for deciding: the first is read, the second when the first cannot.

What is decided (a lock, a deletion, a side object) must be so in both: it is done in the second first, so
that a failure there leaves the first untouched and the request fails as a whole, to be repeated. The
packages themselves come into each store by an uploader of its own, never through here; what was there before
there was a second store is brought by `recording.catch_up`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from recording.errors import LockRefused, ObjectExists, ObjectMissing, StoreError
from recording.store import Capabilities, ObjectInfo, ObjectStore, Part, PendingUpload, read_object


class MirroredStore:
    """`recording.store.ObjectStore` over ``first`` and ``second``."""

    def __init__(self, first: ObjectStore, second: ObjectStore) -> None:
        self.first = first
        self.second = second

    @property
    def capabilities(self) -> Capabilities:
        """Of the first: it is the one that is read."""
        return self.first.capabilities

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        """See the port. In both; the first decides whether the key is free."""
        with suppress(ObjectMissing):
            self.first.stat(key)
            raise ObjectExists(f"{key} is stored already, and objects are never overwritten")
        try:
            self.second.put(key, source)
        except ObjectExists:  # of a try that failed in the first, maybe somebody else's and with other words
            self._replace(key, source)
        return self.first.put(key, source)

    def _replace(self, key: str, source: Path | bytes) -> None:
        """What the second holds under a key that is free in the first was never decided."""
        body = source if isinstance(source, bytes) else source.read_bytes()
        if read_object(self.second, key) != body:
            self.second.delete(key)
            self.second.put(key, body)

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See the port. From the second when the first has not the object, or fails before the first byte."""
        try:
            return self.first.open_range(key, start, end)
        except StoreError as error:
            with suppress(StoreError):
                return self.second.open_range(key, start, end)
            raise error from None

    def stat(self, key: str) -> ObjectInfo:
        """See the port. Of the first, where it answers."""
        try:
            return self.first.stat(key)
        except ObjectMissing:
            raise
        except StoreError as error:
            with suppress(StoreError):
                return self.second.stat(key)
            raise error from None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See the port. Of the first."""
        return self.first.list(prefix)

    def delete(self, key: str) -> None:
        """See the port. In both."""
        self.second.delete(key)
        self.first.delete(key)

    def delete_all(self, prefix: str) -> int:
        """See the port. In both; counts the first's."""
        self.second.delete_all(prefix)
        return self.first.delete_all(prefix)

    def presign(self, key: str, ttl_s: int, *, filename: str, media_type: str) -> str | None:
        """See the port. Of the first."""
        return self.first.presign(key, ttl_s, filename=filename, media_type=media_type)

    def lock(self, key: str, *, until: datetime | None, hold: bool) -> None:
        """See the port. In both, as far as the second has locks and the object already."""
        with suppress(LockRefused, ObjectMissing):
            self.second.lock(key, until=until, hold=hold)
        self.first.lock(key, until=until, hold=hold)

    def begin(self, key: str, source: Path | None = None) -> str:
        """See the port. In the first, as all that follows."""
        return self.first.begin(key, source)

    def put_part(self, key: str, upload: str, number: int, offset: int, data: bytes, *, last: bool) -> str:
        """See the port."""
        return self.first.put_part(key, upload, number, offset, data, last=last)

    def parts(self, key: str, upload: str) -> Sequence[Part]:
        """See the port."""
        return self.first.parts(key, upload)

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> ObjectInfo:
        """See the port."""
        return self.first.complete(key, upload, parts)

    def abort(self, key: str, upload: str) -> None:
        """See the port."""
        self.first.abort(key, upload)

    def uploads(self, prefix: str = "") -> Iterator[PendingUpload]:
        """See the port."""
        return self.first.uploads(prefix)
