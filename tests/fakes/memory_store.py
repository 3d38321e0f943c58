"""An object store in memory, and one that fails as stores do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from recording.errors import ObjectExists, ObjectMissing, StoreError
from recording.keys import safe_key, safe_prefix
from recording.store import CHUNK_BYTES, ObjectInfo


class MemoryStore:
    """`recording.store.ObjectStore` without a disk; ``objects`` is open to tests that spoil it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

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
        self.objects.pop(safe_key(key), None)

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
