"""The archive behind the HTTP API: its methods in threads, its errors in our tree, its readers in the audit log.

``recording`` blocks (disk, SQLite, network) and knows nothing of ``mixer``; here the two meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from aiohttp import web

from mixer.errors import AlreadyRecording, Conflict, InvalidBody, MosaiqueError, NoCapacity, NotFound
from mixer.http.auth import require_room
from mixer.http.routing import CALLER
from mixer.http.schemas import MAYBE_TEXT, MOMENT, TEXT
from mixer.sessions import Caller
from recording.errors import (
    BadEntry,
    BadQuery,
    BadTerms,
    Bound,
    FixityError,
    LockRefused,
    ObjectLocked,
    ObjectMissing,
    RecordingError,
    RecordingLive,
    RecordingMissing,
    StoreError,
    UnsafePath,
    WrongState,
)
from recording.holdings import Holdings
from recording.rows import STATES, RecordingInfo

P = ParamSpec("P")
T = TypeVar("T")

READ_AGAIN_S: Final = 900.0  # a player asks for hundreds of ranges: one line says that somebody watched
_REMEMBERED: Final = 4096  # readers; past that the oldest is told of once more


_MAYBE_MOMENT: Final = {"type": ["string", "null"], "format": "date-time"}
_MAYBE_OBJECT: Final = {"type": ["object", "null"]}


def _measure(description: str, *, always: bool = False) -> dict[str, Any]:
    return {"type": "number" if always else ["number", "null"], "description": description}


# What `public` tells of a recording.
RECORDING: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["id", "room", "state", "duration", "size", "sha256", "participants", "retention", "hold", "loudness"],
    "properties": {
        "id": TEXT,
        "room": TEXT,
        "state": {"type": "string", "enum": list(STATES)},
        "created": MOMENT,
        "started": MOMENT,
        "ended": _MAYBE_MOMENT,
        "duration": _measure("Seconds, of the film"),
        "size": {"type": ["integer", "null"], "description": "Bytes, of the film"},
        "sha256": {**MAYBE_TEXT, "description": "Of the film, hex"},
        "complete": {"type": ["boolean", "null"], "description": "Closed in order, and nothing lost on the way"},
        "reason": {**TEXT, "description": "Why it is not complete, or not archived yet; empty when all is well"},
        "note": TEXT,
        "tracks": {"type": "boolean", "description": "Each participant's own tracks are kept, too"},
        "language": TEXT,
        "participants": {"type": "array", "items": {"type": "object"}},
        "retention": {**_MAYBE_OBJECT, "properties": {"until": MOMENT}},
        "loudness": {
            **_MAYBE_OBJECT,
            "description": "As measured (EBU R128); the sound is left as it was. Null: no sound, or not archived yet",
            "properties": {
                "integrated_lufs": _measure("Programme loudness, LUFS; null for silence"),
                "range_lu": _measure("Loudness range, LU", always=True),
                "true_peak_dbtp": _measure("Highest true peak, dBTP; null for silence"),
            },
        },
        "hold": {**_MAYBE_OBJECT, "properties": {"reason": TEXT, "by": TEXT, "since": MOMENT}},
        "checked": {**_MAYBE_MOMENT, "description": "When every byte was last read again"},
        "damaged": {"type": "array", "items": TEXT, "description": "Files that were not as sealed then"},
        "deleted": {**_MAYBE_OBJECT, "properties": {"time": MOMENT, "by": TEXT, "reason": TEXT}},
    },
}  # fmt: skip
RECORDINGS: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["items", "cursor"],
    "properties": {"items": {"type": "array", "items": RECORDING}, "cursor": MAYBE_TEXT},
}


class Desk:
    """What the routes of recordings share: ``holdings`` by way of threads, whose recording it is, who read what."""

    def __init__(self, holdings: Holdings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.holdings = holdings
        self._clock = clock
        self._reads: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    @staticmethod
    async def ask(method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what blocks, in a thread."""
        with translated():
            return await asyncio.to_thread(method, *args, **kwargs)

    async def own(self, request: web.Request) -> RecordingInfo:
        """The recording of the path, if it is of a room that the token covers."""
        info = await self.ask(self.holdings.archive.get, request.match_info["id"])
        caller: Caller = request[CALLER]
        require_room(caller, info.room)
        return info

    async def note(self, request: web.Request, act: str, recording: str | None, **detail: Any) -> None:
        """A line of the audit log. Raises ``NoCapacity`` when it cannot be written: then nothing is given out."""
        caller: Caller = request[CALLER]
        await self.ask(
            self.holdings.audit.add, act, by=caller.sub, role=caller.role, recording=recording, **detail
        )

    async def note_read(self, request: web.Request, recording: str, path: str) -> None:
        """The same for a file that is read, once in a while for each reader of each file."""
        who = (request[CALLER].sub, recording, path)
        now_s = self._clock()
        if now_s - self._reads.get(who, float("-inf")) < READ_AGAIN_S:
            return
        await self.note(request, "read", recording, path=path)
        self._reads[who] = now_s
        self._reads.move_to_end(who)
        if len(self._reads) > _REMEMBERED:
            self._reads.popitem(last=False)


def public(info: RecordingInfo) -> dict[str, Any]:
    """The contract's JSON of a recording. What is not known yet is null; ``duration`` is in seconds."""
    hold, deleted = info.hold, info.deleted
    return {
        "id": info.id,
        "room": info.room,
        "state": info.state,
        "created": info.created,
        "started": info.started,
        "ended": info.ended,
        "duration": info.duration_s,
        "size": info.size,
        "sha256": info.sha256,
        "complete": info.complete,
        "reason": info.reason,
        "note": info.note,
        "tracks": info.tracks,
        "language": info.language,
        "participants": [stay.model_dump(mode="json") for stay in info.participants],
        "retention": None if info.retention is None else {"until": info.retention},
        "loudness": None if info.loudness is None else info.loudness.model_dump(mode="json"),
        "hold": None if hold is None else {"reason": hold.reason, "by": hold.by, "since": hold.since},
        "checked": info.checked,
        "damaged": list(info.damaged),
        "deleted": None
        if deleted is None
        else {"time": deleted.time, "by": deleted.by, "reason": deleted.reason},
    }


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """What the archive raises, as our own error of the same meaning."""
    try:
        yield
    except RecordingError as error:
        raise translate(error) from error


def translate(error: RecordingError) -> MosaiqueError:
    """One error of ``recording.errors`` in our tree. What is nobody's fault but ours stays a plain one (500)."""
    text = str(error)
    match error:
        case RecordingMissing() | UnsafePath() | ObjectMissing():
            return NotFound(text)
        case RecordingLive():
            return AlreadyRecording(text, error.recording_id)
        case WrongState() | Bound() | BadEntry() | ObjectLocked() | LockRefused():
            return Conflict(text)
        case BadQuery() | BadTerms():
            loc = ["query", error.field] if isinstance(error, BadQuery) else [error.field]
            return InvalidBody(text, [{"loc": loc, "msg": text}])
        case StoreError() if not isinstance(error, FixityError):
            return NoCapacity(f"the archive does not answer as it should: {text}")
        case _:
            return MosaiqueError(text)
