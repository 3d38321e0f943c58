"""One object from one store into another: in parts where it is large, read back, and compared by its SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress

from recording.errors import FixityError, ObjectExists, StoreError
from recording.store import MIN_PART_BYTES, ObjectStore, Part, object_sha256
from recording.uploader import part_bytes


def copy_object(
    source: ObjectStore, target: ObjectStore, key: str, *, sha256: str | None, pace: Callable[[int], None]
) -> int | None:
    """Copy ``key``; returns its size in bytes, None when ``target`` has got it meanwhile. Memory holds two parts.

    ``sha256``: what it has to be, if anybody vouched for it. ``pace`` is called with the number of bytes of each piece,
    and may sleep, or raise to end the copy. Raises FixityError for bytes that are not as they should be, read or
    stored: then nothing is left in ``target``. Raises StoreError.
    """
    copy = _Copy(source, target, key, pace)
    try:
        size, found = copy.whole(sha256) if source.stat(key).size <= MIN_PART_BYTES else copy.parts(sha256)
    except ObjectExists:
        return None
    if object_sha256(target, key) != found:
        with suppress(StoreError):
            target.delete(key)
        raise FixityError(f"{key} was stored otherwise than it was sent; the copy was removed")
    return size


class _Copy:
    def __init__(
        self, source: ObjectStore, target: ObjectStore, key: str, pace: Callable[[int], None]
    ) -> None:
        self._chunks = source.open_range(key)
        self._target = target
        self._key = key
        self._pace = pace
        self._digest = hashlib.sha256()
        self._rest = b""

    def whole(self, sha256: str | None) -> tuple[int, str]:
        body = self._read(None)
        self._check(sha256)
        self._target.put(self._key, body)
        return len(body), self._digest.hexdigest()

    def parts(self, sha256: str | None) -> tuple[int, str]:
        # Nobody else sends what has left the spool: what lies there was begun here, and a death cut it off.
        for left in list(self._target.uploads(self._key)):
            if left.key == self._key:
                self._target.abort(self._key, left.upload)
        upload = self._target.begin(self._key)
        try:
            stored: list[Part] = []
            offset = 0
            data = self._read(part_bytes(1))
            while data:
                number = len(stored) + 1
                more = self._read(part_bytes(number + 1))
                tag = self._target.put_part(self._key, upload, number, offset, data, last=not more)
                stored.append(Part(number, len(data), tag))
                offset, data = offset + len(data), more
            self._check(sha256)
            self._target.complete(self._key, upload, stored)
        except BaseException:
            with suppress(StoreError):
                self._target.abort(self._key, upload)
            raise
        return offset, self._digest.hexdigest()

    def _read(self, size: int | None) -> bytes:
        """The next ``size`` bytes, less at the end; all of them for None."""
        pieces = bytearray(self._rest)
        while size is None or len(pieces) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._digest.update(chunk)
            self._pace(len(chunk))
            pieces += chunk
        cut = len(pieces) if size is None else size
        self._rest = bytes(pieces[cut:])
        return bytes(pieces[:cut])

    def _check(self, sha256: str | None) -> None:
        if sha256 is not None and self._digest.hexdigest() != sha256:
            raise FixityError(f"{self._key} is not what was sealed; it was not copied")
