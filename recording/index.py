"""The index of all recordings: SQLite, shared by the control process, the archiver and the command.

The archive itself is the truth: every row of an archived recording can be made again from its
``recording.json`` and its ledger. States change only along `TRANSITIONS`. Methods block, for milliseconds, and may be
called from any thread.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from recording.durable import make_folder
from recording.errors import RecordingLive, RecordingMissing, UnsafePath, WrongState
from recording.keys import recording_id
from recording.ledger import Standing
from recording.package import Description, Seal, Summary
from recording.rows import (
    SCHEMA,
    SCHEMA_VERSION,
    DeletionInfo,
    HoldInfo,
    Page,
    Query,
    RecordingInfo,
    State,
    milliseconds,
    read_row,
    rowid_of,
    texts,
)

LIVE: Final[tuple[State, ...]] = ("recording", "paused")
UNSETTLED: Final[tuple[State, ...]] = ("recording", "paused", "incomplete", "sealing")

# From each state, the states that may follow. "incomplete" is what a dead process leaves until it is sealed;
# "failed" can still become "archived", because what a store holds counts for more than what the index
# believes.
TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    "recording": frozenset({"paused", "sealing", "incomplete", "failed"}),
    "paused": frozenset({"recording", "sealing", "incomplete", "failed"}),
    "incomplete": frozenset({"sealing", "archived", "failed"}),
    "sealing": frozenset({"incomplete", "archived", "failed"}),
    "archived": frozenset({"deleted"}),
    "failed": frozenset({"archived", "deleted"}),
    "deleted": frozenset(),
}

_BUSY_TIMEOUT_S: Final = 10.0  # writers wait for each other; a transaction here takes milliseconds


class Index:
    """The index in the file ``path``, made when it is not there. Close it when done."""

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        make_folder(path.parent)
        self._wall = wall
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(
            "PRAGMA synchronous = NORMAL"
        )  # a lost last row is made again from the spool
        path.chmod(0o600)
        with self._transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version != SCHEMA_VERSION:
                _migrate(db, version)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, description: Description) -> RecordingInfo:
        """A new recording, in state ``recording``. Raises RecordingLive when its room has a live one."""
        with self._transaction() as db:
            live = db.execute(
                "SELECT id FROM recordings WHERE room = ? AND state IN ('recording', 'paused')",
                (description.room,),
            ).fetchone()
            if live is not None:
                raise RecordingLive(description.room, live["id"])
            self._insert(db, description, "recording")
        return self.get(description.id)

    def adopt(self, description: Description) -> RecordingInfo:
        """The row of a package found in the spool; made, as ``incomplete``, when the index has lost it."""
        with self._transaction() as db:
            known = db.execute("SELECT 1 FROM recordings WHERE id = ?", (description.id,)).fetchone()
            if known is None:
                self._insert(db, description, "incomplete")
        return self.get(description.id)

    def get(self, identifier: str) -> RecordingInfo:
        """Raises RecordingMissing."""
        try:
            identifier = recording_id(identifier)
        except UnsafePath as error:
            raise RecordingMissing("there is no such recording") from error
        with self._lock:
            row = self._connection.execute("SELECT * FROM recordings WHERE id = ?", (identifier,)).fetchone()
        if row is None:
            raise RecordingMissing(f"there is no recording {identifier}")
        return read_row(row)

    def set_state(self, identifier: str, state: State, reason: str | None = None) -> RecordingInfo:
        """Move along `TRANSITIONS`; the state it has already is no error. Raises WrongState,
        RecordingMissing.
        """
        with self._transaction() as db:
            info = self.get(identifier)
            if state != info.state:
                if state not in TRANSITIONS[info.state]:
                    raise WrongState(f"a recording that is {info.state} cannot become {state}", info.state)
                if state in LIVE:
                    self._require_no_other_live(db, info)
                db.execute("UPDATE recordings SET state = ? WHERE id = ?", (state, info.id))
                self._write_texts(db, info.id)
            if reason is not None:
                db.execute("UPDATE recordings SET reason = ? WHERE id = ?", (reason, info.id))
        return self.get(identifier)

    def closed(self, identifier: str, summary: Summary) -> None:
        """What the closed package turned out to be, before it is archived."""
        with self._transaction() as db:
            db.execute(
                "UPDATE recordings SET started = ?, started_ms = ?, ended = ?, duration_s = ?, size = ?, sha256 = ?,"
                " complete = ?, reason = ? WHERE id = ?",
                (
                    summary.started, milliseconds(summary.started), summary.ended, summary.duration_s, summary.size,
                    summary.sha256, summary.complete, summary.reason, identifier,
                ),
            )  # fmt: skip

    def archived(self, seal: Seal, seal_sha256: str) -> None:
        """What ``recording.json`` says, whatever the index believed; makes the row when there is none. A deleted
        recording stays deleted."""
        participants = json.dumps([stay.model_dump() for stay in seal.participants])
        with self._transaction() as db:
            known = db.execute("SELECT state FROM recordings WHERE id = ?", (seal.id,)).fetchone()
            if known is None:
                fields = seal.model_dump(include=set(Description.model_fields) - {"tracks"})
                self._insert(db, Description(**fields), "sealing")
            elif known["state"] == "deleted":
                return
            db.execute(
                "UPDATE recordings SET state = 'archived', started = ?, started_ms = ?, ended = ?, duration_s = ?,"
                " size = ?, sha256 = ?, complete = ?, reason = ?, participants = ?, seal_sha256 = ?, loudness = ?,"
                " checked_ms = max(checked_ms, ?) WHERE id = ?",
                (
                    seal.started, milliseconds(seal.started), seal.ended, seal.duration_s, seal.size, seal.sha256,
                    seal.complete, seal.reason, participants, seal_sha256,
                    None if seal.loudness is None else seal.loudness.model_dump_json(),
                    milliseconds(seal.ended),  # what is archived has been read back
                    seal.id,
                ),
            )  # fmt: skip
            self._write_texts(db, seal.id)

    def stand(self, identifier: str, standing: Standing) -> RecordingInfo:
        """What the recording's ledger says. An older fold than the one that is known changes nothing."""
        hold, deletion = standing.hold, standing.deletion
        fields: dict[str, Any] = {
            "hold": None if hold is None else _json(HoldInfo(hold.time, hold.by, hold.reason)),
            "retention": standing.until,
            "retention_ms": None if standing.until is None else milliseconds(standing.until),
            "retained": standing.retained,
            "damaged": json.dumps(standing.damaged),
            "ledger": standing.number,
        }
        if standing.checked is not None:
            fields |= {"checked": standing.checked, "checked_ms": milliseconds(standing.checked)}
        if standing.note is not None:
            fields["note"] = standing.note
        if deletion is not None:
            gone = DeletionInfo(deletion.time, deletion.by, deletion.reason)
            fields |= {"state": "deleted", "participants": "[]", "deleted": _json(gone), "purge": 1}
        with self._transaction() as db:
            info = self.get(identifier)
            terms = (fields["hold"] is None, fields["retention"])
            if terms != (info.hold is None, info.retention):
                fields["bound"] = 0
            sets = ", ".join(f"{name} = ?" for name in fields)
            changed = db.execute(
                f"UPDATE recordings SET {sets} WHERE id = ? AND ledger < ?",  # noqa: S608 - names above
                (*fields.values(), info.id, standing.number),
            )
            if changed.rowcount:
                self._write_texts(db, info.id)
        return self.get(identifier)

    def spoilt(self, identifier: str, damaged: Sequence[str], checked: str) -> RecordingInfo:
        """What a check found that no ledger can hold any more, because the ledger itself is spoilt."""
        with self._transaction() as db:
            db.execute(
                "UPDATE recordings SET damaged = ?, checked = ?, checked_ms = ? WHERE id = ?",
                (json.dumps(list(damaged)), checked, milliseconds(checked), identifier),
            )
        return self.get(identifier)

    def bury(self, description: Description, standing: Standing) -> None:
        """The row of a recording of which only the tombstone is left; made when there is none."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM recordings WHERE id = ?", (description.id,)).fetchone() is None:
                self._insert(db, description, "failed")
            gone = standing.deletion
            if gone is not None:
                db.execute(
                    "UPDATE recordings SET started = ?, started_ms = ?, ended = ?, duration_s = ?, size = ?"
                    " WHERE id = ?",
                    (gone.started, milliseconds(gone.started), gone.ended, gone.duration_s, gone.size, gone.recording),
                )  # fmt: skip
        self.stand(description.id, standing)

    def purged(self, identifier: str) -> None:
        """All objects of a deleted recording are gone from the store."""
        with self._transaction() as db:
            db.execute("UPDATE recordings SET purge = 0 WHERE id = ? AND state = 'deleted'", (identifier,))

    def to_purge(self, limit: int = 100) -> list[RecordingInfo]:
        """Deleted recordings of which the store may still hold objects."""
        return self._select("purge ORDER BY rowid LIMIT ?", limit)

    def bound(self, identifier: str) -> None:
        """The store's own locks say what the ledger says."""
        with self._transaction() as db:
            db.execute("UPDATE recordings SET bound = 1 WHERE id = ?", (identifier,))

    def to_bind(self, limit: int = 100) -> list[RecordingInfo]:
        """Archived recordings whose hold or retention the store's own locks don't know of yet."""
        return self._select("state = 'archived' AND NOT bound ORDER BY rowid LIMIT ?", limit)

    def to_retain(self, limit: int = 100) -> list[RecordingInfo]:
        """Archived recordings about whose retention nobody has decided."""
        return self._select("state = 'archived' AND NOT retained ORDER BY rowid LIMIT ?", limit)

    def to_check(self, before_s: float) -> RecordingInfo | None:
        """Of the archived recordings that were last read before ``before_s`` (Unix time), the one that has waited
        longest."""
        found = self._select(
            "state = 'archived' AND checked_ms < ? ORDER BY checked_ms LIMIT 1", round(before_s * 1000)
        )
        return found[0] if found else None

    def months(self) -> list[str]:
        """The prefixes ``<room>/<yyyy>/<mm>/`` under which there are recordings, or were, in key order."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT DISTINCT substr(key, 1, length(room) + 9) AS month FROM recordings ORDER BY month"
            ).fetchall()
        return [row["month"] for row in rows]

    def count(self) -> int:
        """How many recordings there are, deleted ones included."""
        with self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM recordings").fetchone()
        return int(count)

    def count_damaged(self) -> int:
        """How many archived recordings have a file that is not as it was sealed."""
        with self._lock:
            (count,) = self._connection.execute(
                "SELECT count(*) FROM recordings WHERE damaged <> '[]'"
            ).fetchone()
        return int(count)

    def unsettled(self) -> list[RecordingInfo]:
        """All recordings that a process has still to bring to an end."""
        marks = ", ".join("?" * len(UNSETTLED))
        return self._select(f"state IN ({marks}) ORDER BY id", *UNSETTLED)

    def search(self, query: Query) -> Page:
        """Recordings, newest first. Raises BadQuery, naming the argument."""
        statement, values = query.sql(round(self._wall() * 1000))
        with self._lock:
            rows = self._connection.execute(statement, values).fetchall()
        return query.page(rows)

    def _select(self, condition: str, *values: str | int) -> list[RecordingInfo]:
        with self._lock:
            rows = self._connection.execute(
                f"SELECT * FROM recordings WHERE {condition}",  # noqa: S608 - texts of this module
                values,
            ).fetchall()
        return [read_row(row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time, across threads and processes; nests into the transaction that runs."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _insert(self, db: sqlite3.Connection, description: Description, state: State) -> None:
        rowid = rowid_of(description.id)
        while db.execute("SELECT 1 FROM recordings WHERE rowid = ?", (rowid,)).fetchone() is not None:
            rowid += 1
        created_ms = milliseconds(description.created)
        db.execute(
            "INSERT INTO recordings (rowid, id, room, key, state, created, started, started_ms, checked_ms, note,"
            " tracks, language, software) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                rowid, description.id, description.room, description.key, state, description.created,
                description.created, created_ms, created_ms, description.note, description.tracks,
                description.language, description.software,
            ),
        )  # fmt: skip
        self._write_texts(db, description.id)

    def _write_texts(self, db: sqlite3.Connection, identifier: str) -> None:
        row = db.execute("SELECT * FROM recordings WHERE id = ?", (identifier,)).fetchone()
        db.execute(
            "INSERT OR REPLACE INTO recordings_text (rowid, words, people, facets) VALUES (?, ?, ?, ?)",
            (row["rowid"], *texts(read_row(row))),
        )

    def _require_no_other_live(self, db: sqlite3.Connection, info: RecordingInfo) -> None:
        other = db.execute(
            "SELECT id FROM recordings WHERE room = ? AND id <> ? AND state IN ('recording', 'paused')",
            (info.room, info.id),
        ).fetchone()
        if other is not None:
            raise RecordingLive(info.room, other["id"])


def _json(fact: HoldInfo | DeletionInfo) -> str:
    return json.dumps(asdict(fact))


def _migrate(db: sqlite3.Connection, version: int) -> None:
    """The tables of this version. Rows of an older one are kept, for they tell of recordings that are still in the
    spool; what they know nothing of (version 1: ledgers, of which there were none; 2: loudness) comes with the next
    `mosaique archive reindex`. Version 3 lacked an index."""
    old: list[dict[str, Any]] = []
    if version:
        old = [dict(row) for row in db.execute("SELECT * FROM recordings")]
        db.execute("DROP TABLE recordings")
        db.execute("DROP TABLE recordings_text")
    for statement in SCHEMA.strip().split(";\n"):
        db.execute(statement)
    for kept in old:
        since_ms = milliseconds(kept["ended"] or kept["created"])
        row = {"rowid": rowid_of(kept["id"]), "checked_ms": since_ms, **kept}  # version 1 had neither
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT INTO recordings ({names}) VALUES ({marks})", tuple(row.values()))  # noqa: S608
    for found in db.execute("SELECT * FROM recordings").fetchall():
        db.execute(
            "INSERT INTO recordings_text (rowid, words, people, facets) VALUES (?, ?, ?, ?)",
            (found["rowid"], *texts(read_row(found))),
        )
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
