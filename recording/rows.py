"""What the index keeps of a recording: the table, the row, and the search of rows. SQL and nothing that blocks.

``rowid`` is made of the recording's ULID (its 63 highest bits), so that rows lie in the order of recording: a page,
newest first, is read from one place, also out of the full text, whichever words are asked for.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from ulid import ULID

from recording.errors import BadQuery
from recording.keys import from_rfc3339, rfc3339
from recording.package import Loudness, Stay

State = Literal["recording", "paused", "sealing", "archived", "incomplete", "failed", "deleted"]
STATES: Final[tuple[State, ...]] = get_args(State)
Only = Literal["held", "expired", "damaged"]
ONLY: Final[tuple[Only, ...]] = get_args(Only)

MAX_LIMIT: Final = 200
SCHEMA_VERSION: Final = 4
_ROWID_SHIFT: Final = 128 - 63  # SQLite's rowid has 63 bits and a sign
_WORD: Final = re.compile(r"[^\W_]+")

SCHEMA: Final = """
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
    seal_sha256 TEXT,
    loudness TEXT,
    hold TEXT,
    retention TEXT,
    retention_ms INTEGER,
    retained INTEGER NOT NULL DEFAULT 0,
    checked TEXT,
    checked_ms INTEGER NOT NULL DEFAULT 0,
    damaged TEXT NOT NULL DEFAULT '[]',
    deleted TEXT,
    purge INTEGER NOT NULL DEFAULT 0,
    bound INTEGER NOT NULL DEFAULT 1,
    ledger INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX one_live_recording_a_room ON recordings(room) WHERE state IN ('recording', 'paused');
CREATE INDEX recordings_by_room ON recordings(room, started_ms);
CREATE INDEX recordings_by_state ON recordings(state, checked_ms);
CREATE INDEX recordings_by_start ON recordings(started_ms);
CREATE INDEX recordings_to_keep ON recordings(retention_ms) WHERE retention_ms IS NOT NULL;
CREATE INDEX recordings_held ON recordings(rowid) WHERE hold IS NOT NULL;
CREATE INDEX recordings_damaged ON recordings(rowid) WHERE damaged <> '[]';
CREATE INDEX recordings_incomplete ON recordings(rowid) WHERE complete = 0;
CREATE INDEX recordings_to_purge ON recordings(rowid) WHERE purge;
CREATE INDEX recordings_to_bind ON recordings(rowid) WHERE state = 'archived' AND NOT bound;
CREATE INDEX recordings_to_retain ON recordings(rowid) WHERE state = 'archived' AND NOT retained;
CREATE VIRTUAL TABLE recordings_text USING fts5(
    words, people, facets, tokenize='unicode61 remove_diacritics 2', prefix='1 2 3'
);
"""


@dataclass(frozen=True, slots=True)
class HoldInfo:
    """A legal hold that is in force: since when (RFC 3339), by whom, why."""

    since: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeletionInfo:
    """When (RFC 3339), by whom and why a recording was deleted. The tombstone tells what there was."""

    time: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecordingInfo:
    """One row: a recording as it is known now. Times are RFC 3339; what is not known yet is None.

    ``retention``: kept at least until then. ``checked``: when every byte was last read again; ``damaged``: the files
    that were not as sealed then.
    """

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
    loudness: Loudness | None
    hold: HoldInfo | None
    retention: str | None
    checked: str | None
    damaged: tuple[str, ...]
    deleted: DeletionInfo | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of search results, newest first; ``cursor`` asks for the next one, None when there is none."""

    recordings: tuple[RecordingInfo, ...]
    cursor: str | None


def rowid_of(identifier: str) -> int:
    """Where a recording's row belongs. Two of one millisecond may want the same place, once in 32,768 times."""
    return int(ULID.from_str(identifier)) >> _ROWID_SHIFT


def read_row(row: sqlite3.Row) -> RecordingInfo:
    """A row of the table as it is told."""
    fields: dict[str, Any] = {name: row[name] for name in RecordingInfo.__slots__}
    fields["participants"] = tuple(Stay(**stay) for stay in json.loads(fields["participants"]))
    fields["tracks"] = bool(fields["tracks"])
    fields["complete"] = None if fields["complete"] is None else bool(fields["complete"])
    fields["loudness"] = (
        None if fields["loudness"] is None else Loudness.model_validate_json(fields["loudness"])
    )
    fields["hold"] = None if fields["hold"] is None else HoldInfo(**json.loads(fields["hold"]))
    fields["deleted"] = None if fields["deleted"] is None else DeletionInfo(**json.loads(fields["deleted"]))
    fields["damaged"] = tuple(json.loads(fields["damaged"]))
    return RecordingInfo(**fields)


def milliseconds(moment: str) -> int:
    """RFC 3339 to Unix milliseconds; ValueError, OverflowError."""
    return round(from_rfc3339(moment) * 1000)


def texts(info: RecordingInfo) -> tuple[str, str, str]:
    """What the full text finds a recording by: words of its own, people (names and ids), and facets."""
    deleted = (info.deleted.reason,) if info.deleted is not None else ()
    words = " ".join((info.id, info.room, info.note, *deleted))
    people = " ".join(word for stay in info.participants for word in (stay.name, stay.id))
    return words, people, f"{_facet('r', info.room)} {_facet('s', info.state)}"


@dataclass(frozen=True, slots=True)
class Query:
    """A search. ``from_`` (inclusive), ``to`` (exclusive): RFC 3339, by the start of the recording. ``q``: every
    word begins a word of the note, the room, a participant or the id; ``participant``: of a participant's name or
    id. Case and accents don't count."""

    room: str | None = None
    from_: str | None = None
    to: str | None = None
    q: str | None = None
    participant: str | None = None
    state: str | None = None
    only: str | None = None
    cursor: str | None = None
    limit: int = 50

    def sql(self, now_ms: int) -> tuple[str, list[str | int]]:
        """The statement and its values; it asks for one row more than ``limit``. Raises BadQuery, naming the
        argument."""
        if not 1 <= self.limit <= MAX_LIMIT:
            raise BadQuery("limit", f"limit is between 1 and {MAX_LIMIT}")
        match = self._match()
        where = [*self._filters(now_ms, indexed=not match)]
        source = "recordings"
        if match:
            # The text leads, newest first, and rows are looked up one by one until the page is full.
            source = "recordings_text CROSS JOIN recordings ON recordings.rowid = recordings_text.rowid"
            where.insert(0, ("recordings_text MATCH ?", match))
        if self.cursor is not None:
            table = "recordings_text" if match else "recordings"
            where.append((f"{table}.rowid < ?", _read_cursor(self.cursor)))
        order = "recordings_text.rowid" if match else "recordings.rowid"
        conditions = " AND ".join(condition for condition, _ in where) or "1"
        statement = f"SELECT recordings.* FROM {source} WHERE {conditions} ORDER BY {order} DESC LIMIT ?"  # noqa: S608 - texts of this module
        return statement, [*(value for _, value in where), self.limit + 1]

    def page(self, rows: list[sqlite3.Row]) -> Page:
        """The page out of what the statement gave."""
        found = rows[: self.limit]
        more = len(rows) > self.limit
        return Page(tuple(map(read_row, found)), _write_cursor(found[-1]["rowid"]) if more else None)

    def _match(self) -> str:
        """The user's words as an FTS5 query: each a quoted prefix, all of them needed. No operator gets through."""
        words = [f'{{words people}} : "{word}"*' for word in _words(self.q)]
        people = [f'people : "{word}"*' for word in _words(self.participant)]
        if not words and not people:
            return ""
        facets = [f'facets : "{_facet("r", self.room)}"'] if self.room is not None else []
        if self.state is not None and self.state != "incomplete":
            facets.append(f'facets : "{_facet("s", self.state)}"')
        return " AND ".join([*facets, *people, *words])

    def _filters(self, now_ms: int, *, indexed: bool) -> Iterator[tuple[str, str | int]]:
        """Conditions on rows. ``indexed``: room and state are among them, not among the facets of the text. What was
        cut off stays incomplete when it is archived, and is found as both."""
        if self.state is not None and self.state not in STATES:
            raise BadQuery("state", f"state is one of {', '.join(STATES)}")
        if indexed and self.room is not None:
            yield "room = ?", self.room
        if self.state == "incomplete":
            yield "(state = ? OR state = 'archived' AND complete = 0)", self.state
        elif indexed and self.state is not None:
            yield "state = ?", self.state
        if self.from_ is not None:
            yield "started_ms >= ?", _moment("from", self.from_)
        if self.to is not None:
            yield "started_ms < ?", _moment("to", self.to)
        match self.only:
            case None:
                pass
            case "held":
                yield "hold IS NOT NULL AND ?", 1
            case "damaged":
                yield "damaged <> '[]' AND ?", 1
            case "expired":
                yield "state = 'archived' AND hold IS NULL AND retention_ms <= ?", now_ms
            case _:
                raise BadQuery("only", f"only is one of {', '.join(ONLY)}")


def _words(text: str | None) -> list[str]:
    return _WORD.findall(text or "")[:20]


def _facet(kind: str, value: str) -> str:
    """One token, whatever the value is made of."""
    return kind + value.encode("utf-8", "replace").hex()


def _moment(field: str, text: str) -> int:
    try:
        return milliseconds(text)
    except (ValueError, OverflowError) as error:
        raise BadQuery(field, f"{field} is a time like {rfc3339(0)}") from error


def _write_cursor(rowid: int) -> str:
    return base64.urlsafe_b64encode(rowid.to_bytes(8, "big")).decode().rstrip("=")


def _read_cursor(cursor: str) -> int:
    try:
        raw = base64.b64decode(cursor + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadQuery("cursor", "cursor is the one that the page before gave") from error
    if len(raw) != 8 or raw[0] & 0x80:
        raise BadQuery("cursor", "cursor is the one that the page before gave")
    return int.from_bytes(raw, "big")
