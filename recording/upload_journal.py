"""What has been sent of every unfinished object: SQLite, beside the packages in the spool.

The store's own list of parts is the truth; this says besides which bytes each part was made of. Rows that
a power cut took away cost a part sent twice, never a wrong object. On a disk that refuses, a full one, the
journal goes on in memory: what is sent is what makes room again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from recording.durable import make_folder
from recording.errors import StoreError

_log = structlog.get_logger(__name__)
_BUSY_TIMEOUT_S: Final = 10.0  # one thread a store writes; each write takes milliseconds
_SCHEMA: Final = """
CREATE TABLE uploads (
    store TEXT NOT NULL,
    key TEXT NOT NULL,
    upload TEXT NOT NULL,
    completed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (store, key)
) STRICT;
CREATE TABLE parts (
    store TEXT NOT NULL,
    key TEXT NOT NULL,
    number INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    tag TEXT NOT NULL,
    verified INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (store, key, number)
) STRICT;
PRAGMA user_version = 1;
"""


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part that the store took: the file's bytes ``offset`` to ``end``, their SHA-256, the store's tag.

    ``verified``: the completed object was read back here, and was the same.
    """

    number: int
    offset: int
    size: int
    sha256: str
    tag: str
    verified: bool = False

    @property
    def end(self) -> int:
        """First byte after the part."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class SentUpload:
    """An upload that was begun; ``completed``: the store has the object."""

    upload: str
    completed: bool


class UploadJournal:
    """The journal in the file ``path``, made when it is not there. Any thread; close it when done."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self._lock = threading.Lock()
        self._in_memory = False
        self._db = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        path.chmod(0o600)
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def get(self, store: str, key: str) -> SentUpload | None:
        """The upload of ``key``, if one was begun."""
        rows = self._rows("SELECT upload, completed FROM uploads WHERE store = ? AND key = ?", store, key)
        return SentUpload(rows[0][0], bool(rows[0][1])) if rows else None

    def parts(self, store: str, key: str) -> list[SentPart]:
        """By number."""
        rows = self._rows(
            "SELECT number, offset, size, sha256, tag, verified FROM parts WHERE store = ? AND key = ?"
            " ORDER BY number",
            store, key,
        )  # fmt: skip
        return [
            SentPart(n, offset, size, sha256, tag, bool(seen)) for n, offset, size, sha256, tag, seen in rows
        ]

    def uploads(self, store: str) -> set[str]:
        """The names of all unfinished uploads of a store."""
        return {row[0] for row in self._rows("SELECT upload FROM uploads WHERE store = ?", store)}

    def begin(self, store: str, key: str, upload: str) -> None:
        """A new upload of ``key``; what was known of another one goes."""
        self.forget(store, key)
        self._rows("INSERT INTO uploads (store, key, upload) VALUES (?, ?, ?)", store, key, upload)

    def sent(self, store: str, key: str, part: SentPart) -> None:
        """The store has taken ``part``."""
        self._rows(
            "INSERT OR REPLACE INTO parts (store, key, number, offset, size, sha256, tag)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            store, key, part.number, part.offset, part.size, part.sha256, part.tag,
        )  # fmt: skip

    def drop(self, store: str, key: str, numbers: Iterable[int]) -> None:
        """These parts are to be sent again."""
        for number in numbers:
            self._rows("DELETE FROM parts WHERE store = ? AND key = ? AND number = ?", store, key, number)

    def completed(self, store: str, key: str) -> None:
        """The store has made the object."""
        self._rows("UPDATE uploads SET completed = 1 WHERE store = ? AND key = ?", store, key)

    def verified(self, store: str, key: str, number: int) -> None:
        """The object's bytes of this part were read back, and compared."""
        self._rows(
            "UPDATE parts SET verified = 1 WHERE store = ? AND key = ? AND number = ?", store, key, number
        )

    def forget(self, store: str, key: str) -> None:
        """Nothing is known of ``key`` any more."""
        self._rows("DELETE FROM parts WHERE store = ? AND key = ?", store, key)
        self._rows("DELETE FROM uploads WHERE store = ? AND key = ?", store, key)

    def forget_all(self, store: str, prefix: str) -> None:
        """The package under ``prefix`` has been archived, or given up."""
        for (key,) in self._rows("SELECT key FROM uploads WHERE store = ?", store):
            if key.startswith(prefix):
                self.forget(store, key)

    def _rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if self._in_memory:
                    raise StoreError(f"the upload journal cannot be kept: {error}") from error
                _log.error("upload_journal_in_memory", detail=str(error))
                self._leave_the_disk()
                return self._db.execute(sql, values).fetchall()

    def _leave_the_disk(self) -> None:
        memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.backup(memory)
        self._db.close()
        self._db, self._in_memory = memory, True
