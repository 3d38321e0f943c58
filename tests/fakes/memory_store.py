"""An object store in memory, and one that fails as stores do."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from recording.errors import (
    LockRefused,
    ObjectExists,
    ObjectLocked,
    ObjectMissing,
    StoreError,
    UploadMissing,
)
from recording.keys import package_prefix, safe_key, safe_prefix
from recording.store import CHUNK_BYTES, Capabilities, ObjectInfo, Part, PendingUpload


class MemoryStore:
    """`recording.store.ObjectStore` without a disk; ``objects`` is open to tests that spoil it.

    ``locks``: whether it locks objects; ``held`` and ``retained`` show what it locked.
    """

    def __init__(self, *, locks: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.unfinished: dict[tuple[str, str], dict[int, bytes]] = {}
        self.held: set[str] = set()
        self.retained: dict[str, datetime] = {}
        self._locks = locks
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional=True, lock=self._locks)

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        body = source if isinstance(source, bytes) else source.read_bytes()
        with self._lock:
            if safe_key(key) in self.objects:
                raise ObjectExists(key)
            self.objects[key] = body
        return ObjectInfo(key, len(body))

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        body = self._body(key)[start:end]
        return (body[at : at + CHUNK_BYTES] for at in range(0, len(body), CHUNK_BYTES))

    def stat(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self._body(key)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        safe_prefix(prefix)
        return iter([ObjectInfo(k, len(v)) for k, v in sorted(self.objects.items()) if k.startswith(prefix)])

    def delete(self, key: str) -> None:
        retained = self.retained.get(safe_key(key))
        if key in self.held or (retained is not None and retained > datetime.now(UTC)):
            raise ObjectLocked(key)
        self.objects.pop(key, None)

    def delete_all(self, prefix: str) -> int:
        found = list(self.list(package_prefix(prefix)))
        for info in found:
            self.delete(info.key)
        return len(found)

    def presign(self, key: str, ttl_s: int, *, filename: str, media_type: str) -> str | None:
        safe_key(key)
        return None

    def lock(self, key: str, *, until: datetime | None, hold: bool) -> None:
        if not self._locks:
            raise LockRefused("no locks here")
        self._body(key)
        if until is not None:
            if key in self.retained and until < self.retained[key]:
                raise LockRefused("a lock is not shortened")
            self.retained[key] = until
        (self.held.add if hold else self.held.discard)(key)

    def begin(self, key: str, source: Path | None = None) -> str:
        upload = uuid.uuid4().hex
        self.unfinished[safe_key(key), upload] = {}
        return upload

    def put_part(self, key: str, upload: str, number: int, offset: int, data: bytes, *, last: bool) -> str:
        self._upload(key, upload)[number] = data
        return f"tag-{number}-{len(data)}"

    def parts(self, key: str, upload: str) -> Sequence[Part]:
        return [Part(n, len(d), f"tag-{n}-{len(d)}") for n, d in sorted(self._upload(key, upload).items())]

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> ObjectInfo:
        stored = self._upload(key, upload)
        assert [*parts] == self.parts(key, upload)
        info = self.put(key, b"".join(stored[part.number] for part in parts))
        del self.unfinished[key, upload]
        return info

    def abort(self, key: str, upload: str) -> None:
        self.unfinished.pop((safe_key(key), upload), None)

    def uploads(self, prefix: str = "") -> Iterator[PendingUpload]:
        safe_prefix(prefix)
        found = [PendingUpload(k, u, datetime.now(UTC)) for k, u in self.unfinished if k.startswith(prefix)]
        return iter(found)

    def _upload(self, key: str, upload: str) -> dict[int, bytes]:
        try:
            return self.unfinished[safe_key(key), upload]
        except KeyError:
            raise UploadMissing(upload) from None

    def _body(self, key: str) -> bytes:
        try:
            return self.objects[safe_key(key)]
        except KeyError:
            raise ObjectMissing(key) from None


class FlakyStore(MemoryStore):
    """Fails the puts that ``refuse`` says, and spoils what ``spoil`` says (once each key)."""

    def __init__(self, *, refuse: Callable[[str], bool] = lambda _: False, spoil: str = "") -> None:
        super().__init__()
        self.refuse = refuse
        self.spoil = spoil

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        if self.refuse(key):
            raise StoreError("503 Slow Down")
        info = super().put(key, source)
        if self.spoil and key.endswith(self.spoil):
            self.spoil = ""
            body = self.objects[key]
            self.objects[key] = bytes([body[0] ^ 1]) + body[1:]
        return info
