"""The index of all recordings: SQLite, shared by the control process and the archiver.

The archive itself is the truth: every row of an archived recording can be made again from its
``recording.json``. States change only along `TRANSITIONS`. Methods block, for milliseconds, and may be called
from any thread.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from recording.durable import make_folder
from recording.errors import BadQuery, RecordingLive, RecordingMissing, UnsafePath, WrongState
from recording.keys import from_rfc3339, recording_id, rfc3339
from recording.package import Description, Seal, Stay, Summary

State = Literal["recording", "paused", "sealing", "archived", "incomplete", "failed", "deleted"]
STATES: Final[tuple[State, ...]] = get_args(State)
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

MAX_LIMIT: Final = 200
_BUSY_TIMEOUT_S: Final = 10.0  # writers wait for each other; a transaction here takes milliseconds
_WORD: Final = re.compile(r"\w+")

_SCHEMA: Final = """
CREATE TABLE recordings (
    rowid INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    room TEXT NOT NULL,
    key TEXT NOT NULL,
    state TEXT NOT NULL,
    created TEXT NOT NULL,
    started TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    ended TEXT,
    duration_s REAL,
    size INTEGER,
    sha256 TEXT,
    complete INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL,
    tracks INTEGER NOT NULL,
    language TEXT NOT NULL,
    software TEXT NOT NULL,
    participants TEXT NOT NULL DEFAULT '[]',
    seal_sha256 TEXT
) STRICT;
CREATE UNIQUE INDEX one_live_recording_a_room ON recordings(room) WHERE state IN ('recording', 'paused');
CREATE INDEX recordings_by_room ON recordings(room, id);
CREATE INDEX recordings_by_state ON recordings(state, id);
CREATE INDEX recordings_by_start ON recordings(started_ms);
CREATE VIRTUAL TABLE recordings_text USING fts5(
    text, tokenize='unicode61 remove_diacritics 2', prefix='2 3'
);
PRAGMA user_version = 1;
"""


@dataclass(frozen=True, slots=True)
class RecordingInfo:
    """One row: a recording as it is known now. Times are RFC 3339; what is not known yet is None."""

    id: str
    room: str
    key: str
    state: State
    created: str
    started: str
    ended: str | None
    duration_s: float | None
    size: int | None
    sha256: str | None
    complete: bool | None
    reason: str
    note: str
    tracks: bool
    language: str
    software: str
    participants: tuple[Stay, ...]
    seal_sha256: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of search results, newest first; ``cursor`` asks for the next one, None when there is none."""

    recordings: tuple[RecordingInfo, ...]
    cursor: str | None


class Index:
    """The index in the file ``path``, made when it is not there. Close it when done."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
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
            if version == 0:
                for statement in _SCHEMA.strip().split(";\n"):
                    db.execute(statement)

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
        return _info(row)

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
                    summary.started, _milliseconds(summary.started), summary.ended, summary.duration_s, summary.size,
                    summary.sha256, summary.complete, summary.reason, identifier,
                ),
            )  # fmt: skip

    def archived(self, seal: Seal, seal_sha256: str) -> None:
        """What ``recording.json`` says, whatever the index believed; makes the row when there is none."""
        participants = json.dumps([stay.model_dump() for stay in seal.participants])
        with self._transaction() as db:
            known = db.execute("SELECT 1 FROM recordings WHERE id = ?", (seal.id,)).fetchone()
            if known is None:
                fields = seal.model_dump(include=set(Description.model_fields) - {"tracks"})
                self._insert(db, Description(**fields), "sealing")
            db.execute(
                "UPDATE recordings SET state = 'archived', started = ?, started_ms = ?, ended = ?, duration_s = ?,"
                " size = ?, sha256 = ?, complete = ?, reason = ?, participants = ?, seal_sha256 = ? WHERE id = ?",
                (
                    seal.started, _milliseconds(seal.started), seal.ended, seal.duration_s, seal.size, seal.sha256,
                    seal.complete, seal.reason, participants, seal_sha256, seal.id,
                ),
            )  # fmt: skip
            db.execute(
                "UPDATE recordings_text SET text = ? WHERE rowid = (SELECT rowid FROM recordings WHERE id = ?)",
                (_text(seal.id, seal.room, seal.note, *(stay.name for stay in seal.participants)), seal.id),
            )

    def unsettled(self) -> list[RecordingInfo]:
        """All recordings that a process has still to bring to an end."""
        marks = ", ".join("?" * len(UNSETTLED))
        with self._lock:
            rows = self._connection.execute(
                f"SELECT * FROM recordings WHERE state IN ({marks}) ORDER BY id",  # noqa: S608 - question marks only
                UNSETTLED,
            ).fetchall()
        return [_info(row) for row in rows]

    def search(
        self,
        *,
        room: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        q: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Recordings, newest first. ``from_`` (inclusive), ``to`` (exclusive): RFC 3339, by the start of the
        recording. ``q``: every word begins a word of the note, the room, a participant's name or the id; case
        and accents don't count. Raises BadQuery, naming the argument.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise BadQuery("limit", f"limit is between 1 and {MAX_LIMIT}")
        where: list[tuple[str, str | int]] = []
        if room is not None:
            where.append(("room = ?", room))
        if from_ is not None:
            where.append(("started_ms >= ?", _moment("from", from_)))
        if to is not None:
            where.append(("started_ms < ?", _moment("to", to)))
        if state is not None:
            if state not in STATES:
                raise BadQuery("state", f"state is one of {', '.join(STATES)}")
            where.append(("state = ?", state))
        if q is not None and (match := _match(q)):
            where.append(
                ("rowid IN (SELECT rowid FROM recordings_text WHERE recordings_text MATCH ?)", match)
            )
        if cursor is not None:
            where.append(("id < ?", _read_cursor(cursor)))
        conditions = " AND ".join(condition for condition, _ in where) or "1"
        sql = f"SELECT * FROM recordings WHERE {conditions} ORDER BY id DESC LIMIT ?"  # noqa: S608 - texts above
        with self._lock:
            rows = self._connection.execute(sql, (*(value for _, value in where), limit + 1)).fetchall()
        found = tuple(_info(row) for row in rows[:limit])
        return Page(found, _write_cursor(found[-1].id) if len(rows) > limit else None)

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
        cursor = db.execute(
            "INSERT INTO recordings (id, room, key, state, created, started, started_ms, note, tracks, language,"
            " software) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                description.id, description.room, description.key, state, description.created, description.created,
                _milliseconds(description.created), description.note, description.tracks, description.language,
                description.software,
            ),
        )  # fmt: skip
        db.execute(
            "INSERT INTO recordings_text (rowid, text) VALUES (?, ?)",
            (cursor.lastrowid, _text(description.id, description.room, description.note)),
        )

    def _require_no_other_live(self, db: sqlite3.Connection, info: RecordingInfo) -> None:
        other = db.execute(
            "SELECT id FROM recordings WHERE room = ? AND id <> ? AND state IN ('recording', 'paused')",
            (info.room, info.id),
        ).fetchone()
        if other is not None:
            raise RecordingLive(info.room, other["id"])


def _info(row: sqlite3.Row) -> RecordingInfo:
    fields: dict[str, Any] = {name: row[name] for name in RecordingInfo.__slots__}
    fields["participants"] = tuple(Stay(**stay) for stay in json.loads(fields["participants"]))
    fields["tracks"] = bool(fields["tracks"])
    fields["complete"] = None if fields["complete"] is None else bool(fields["complete"])
    return RecordingInfo(**fields)


def _milliseconds(moment: str) -> int:
    return round(from_rfc3339(moment) * 1000)


def _moment(field: str, text: str) -> int:
    try:
        return _milliseconds(text)
    except (ValueError, OverflowError) as error:
        raise BadQuery(field, f"{field} is a time like {rfc3339(0)}") from error


def _text(*parts: str) -> str:
    return " ".join(parts)


def _match(q: str) -> str:
    """The user's words as an FTS5 query: each a quoted prefix, all of them needed. No operator gets through."""
    return " ".join(f'"{word}"*' for word in _WORD.findall(q)[:20])


def _write_cursor(identifier: str) -> str:
    return base64.urlsafe_b64encode(identifier.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> str:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        return recording_id(text)
    except (binascii.Error, ValueError, UnsafePath) as error:
        raise BadQuery("cursor", "cursor is the one that the page before gave") from error
