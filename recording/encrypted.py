"""An object store that encrypts: what the inner store gets, its operator cannot read.

Each recording has a key of its own, kept in the store beside the packages, wrapped with the master key
(``KEYS/<ULID>``): the archive can be restored from the store and the master key alone, and erasing that one
small object erases the recording. Format: `recording.crypt`, docs/stores.md.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from recording import crypt
from recording.errors import FixityError, ObjectExists, ObjectMissing
from recording.keys import package_prefix, safe_key, safe_prefix
from recording.store import Capabilities, ObjectInfo, ObjectStore, Part, PendingUpload, read_object

KEYS: Final = "KEYS/"  # upper case: no room's name
_COMMON: Final = "archive"  # the name of the key of whatever belongs to no recording
_PACKAGE: Final = re.compile(r"[a-z0-9-]+/[0-9]{4}/[0-9]{2}/[0-9]{2}/([0-9A-Z]{26})/", re.ASCII)
_KEYS_CACHED: Final = 256
_PIECE_BYTES: Final = 128 * crypt.SEGMENT_BYTES  # 8 MiB: a part of what is put as a file


class EncryptedStore:
    """`recording.store.ObjectStore` over ``inner`` with the 32-byte key ``master``. Sizes are of the plaintext."""

    def __init__(self, inner: ObjectStore, master: bytes) -> None:
        self._inner = inner
        self._master = master
        self._keys: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """The inner store's; but nobody reads without us."""
        return replace(self._inner.capabilities, presign=False)

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        """See the port. A file goes in parts, so that memory stays small."""
        salt = crypt.new_salt()
        if isinstance(source, Path) and source.stat().st_size > _PIECE_BYTES:
            return self._put_file(key, source)
        body = source if isinstance(source, bytes) else source.read_bytes()
        cipher = self._cipher(key, salt, make=True)
        self._inner.put(key, crypt.header(salt) + cipher.seal(body, 0, last=True))
        return ObjectInfo(key, len(body))

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See the port. Raises FixityError, here or on the way, for what is not as it was written."""
        size = self.stat(key).size
        stop = size if end is None else min(end, size)
        salt = crypt.read_header(b"".join(self._inner.open_range(key, 0, crypt.HEADER_BYTES)))
        cipher = self._cipher(key, salt)
        return self._plain(key, cipher, size, start, stop) if start < stop or not size else iter(())

    def stat(self, key: str) -> ObjectInfo:
        """See the port."""
        return ObjectInfo(key, crypt.plain_size(self._inner.stat(_user(key)).size))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See the port."""
        for info in self._inner.list(safe_prefix(prefix)):
            if not info.key.startswith(KEYS):
                try:
                    yield ObjectInfo(info.key, crypt.plain_size(info.size))
                except FixityError:
                    yield ObjectInfo(
                        info.key, 0
                    )  # listed, so that it is found out; reading it says what is wrong

    def delete(self, key: str) -> None:
        """See the port. The recording's key stays: `delete_all` erases it."""
        self._inner.delete(_user(key))

    def delete_all(self, prefix: str) -> int:
        """See the port. The key first: from then on the rest is noise, whatever backups there are of it."""
        found = list(self._inner.list(package_prefix(prefix)))
        match = _PACKAGE.fullmatch(prefix)
        if match:
            # The first object first: if a lock refuses, it does so before the key is gone.
            for info in found[:1]:
                self._inner.delete(info.key)
            self._inner.delete(KEYS + match[1])
            with self._lock:
                self._keys.pop(match[1], None)
        self._inner.delete_all(prefix)
        return len(found)

    def presign(self, key: str, ttl_s: int, *, filename: str, media_type: str) -> str | None:
        """See the port. None: what the store would give is encrypted."""
        _user(key)
        return None

    def lock(self, key: str, *, until: datetime | None, hold: bool) -> None:
        """See the port."""
        self._inner.lock(_user(key), until=until, hold=hold)

    # -- parts -------------------------------------------------------------------------------------------------

    def begin(self, key: str, source: Path | None = None) -> str:
        """See the port. The upload's name carries the object's salt."""
        self._key(_group(_user(key)), make=True)
        return f"{self._inner.begin(key)}.{crypt.new_salt().hex()}"

    def put_part(self, key: str, upload: str, number: int, offset: int, data: bytes, *, last: bool) -> str:
        """See the port."""
        name, salt = _named(upload)
        first = offset // crypt.SEGMENT_BYTES
        sealed = self._cipher(key, salt, make=True).seal(data, first, last=last)
        at = crypt.HEADER_BYTES + first * crypt.SEALED_BYTES
        if offset == 0:
            sealed, at = crypt.header(salt) + sealed, 0
        tag = self._inner.put_part(key, name, number, at, sealed, last=last)
        return f"{len(data)}.{tag}"

    def parts(self, key: str, upload: str) -> Sequence[Part]:
        """See the port. Sizes are of the plaintext; a tag is checked against the stored one's."""
        found = []
        for part in self._inner.parts(_user(key), _named(upload)[0]):
            head = crypt.HEADER_BYTES if part.number == 1 else 0
            count = -(-(part.size - head) // crypt.SEALED_BYTES)
            size = part.size - head - count * crypt.TAG_BYTES
            found.append(Part(part.number, size, f"{size}.{part.tag}"))
        return found

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> ObjectInfo:
        """See the port."""
        name = _named(upload)[0]
        stored = {part.number: part for part in self._inner.parts(_user(key), name)}
        wanted = [
            replace(part, tag=part.tag.partition(".")[2], size=stored[part.number].size) for part in parts
        ]
        self._inner.complete(key, name, wanted)
        return ObjectInfo(key, sum(part.size for part in parts))

    def abort(self, key: str, upload: str) -> None:
        """See the port."""
        self._inner.abort(_user(key), _named(upload)[0])

    def uploads(self, prefix: str = "") -> Iterator[PendingUpload]:
        """See the port. Without the salts, which are not in the store: good for `abort`."""
        return self._inner.uploads(prefix)

    # -- inside ------------------------------------------------------------------------------------------------

    def _put_file(self, key: str, source: Path) -> ObjectInfo:
        upload = self.begin(key)
        parts: list[Part] = []
        size, offset = source.stat().st_size, 0
        try:
            with source.open("rb") as file:
                while offset < size:
                    data = file.read(_PIECE_BYTES)
                    end = offset + len(data)
                    tag = self.put_part(key, upload, len(parts) + 1, offset, data, last=end == size)
                    parts.append(Part(len(parts) + 1, len(data), tag))
                    offset = end
            return self.complete(key, upload, parts)
        except BaseException:
            self.abort(key, upload)
            raise

    def _plain(
        self, key: str, cipher: crypt.ObjectCipher, size: int, start: int, stop: int
    ) -> Iterator[bytes]:
        final = crypt.segments(size) - 1
        number = start // crypt.SEGMENT_BYTES
        until = max(number + 1, -(-stop // crypt.SEGMENT_BYTES))
        skip, left = start - number * crypt.SEGMENT_BYTES, stop - start
        first = crypt.HEADER_BYTES + number * crypt.SEALED_BYTES
        buffer = b""
        for chunk in self._inner.open_range(key, first, crypt.HEADER_BYTES + until * crypt.SEALED_BYTES):
            buffer += chunk
            while len(buffer) >= crypt.SEALED_BYTES and number < final:
                sealed, buffer = buffer[: crypt.SEALED_BYTES], buffer[crypt.SEALED_BYTES :]
                data = cipher.open(sealed, number, last=False)[skip : skip + left]
                skip, left, number = 0, left - len(data), number + 1
                if data:
                    yield data
        if number == final and number < until:
            data = cipher.open(buffer, number, last=True)[skip : skip + left]
            left -= len(data)
            if data:
                yield data
        if left:
            raise FixityError(f"{key} has been cut off in the store")

    def _cipher(self, key: str, salt: bytes, *, make: bool = False) -> crypt.ObjectCipher:
        return crypt.ObjectCipher(self._key(_group(_user(key)), make=make), salt, key)

    def _key(self, group: str, *, make: bool = False) -> bytes:
        """The key of a recording; made when it is not there and ``make``. Raises FixityError once it is erased."""
        with self._lock:
            if group in self._keys:
                self._keys.move_to_end(group)
                return self._keys[group]
            try:
                key = self._read_key(group)
            except ObjectMissing:
                if not make:
                    raise FixityError(
                        f"the key of {group} has been erased, and with it what it opened"
                    ) from None
                key = self._new_key(group)
            self._keys[group] = key
            if len(self._keys) > _KEYS_CACHED:
                self._keys.popitem(last=False)
            return key

    def _read_key(self, group: str) -> bytes:
        return crypt.unwrap(self._master, read_object(self._inner, KEYS + group), group)

    def _new_key(self, group: str) -> bytes:
        key = crypt.new_salt()  # 32 random bytes too
        try:
            self._inner.put(KEYS + group, crypt.wrap(self._master, key, group))
        except ObjectExists:  # another process was first
            return self._read_key(group)
        return key


def _user(key: str) -> str:
    """A key of an object; ours are hidden behind the name of none."""
    return safe_key(key) if not key.startswith(KEYS) else safe_key("")


def _group(key: str) -> str:
    match = _PACKAGE.match(key)
    return match[1] if match else _COMMON


def _named(upload: str) -> tuple[str, bytes]:
    """Upload name of the inner store, and the salt (none for a name that `uploads` gave)."""
    name, _, salt = upload.rpartition(".")
    if len(salt) == 2 * crypt.SALT_BYTES and name:
        return name, bytes.fromhex(salt)
    return upload, b""
