"""Recordings: start and stop in a room; find and read what is known of those that the archive keeps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mixer.http.auth import ARCHIVIST, MODERATOR, one_of, require, require_room
from mixer.http.bodies import json_response, read_model, validate_query
from mixer.http.holdings import RECORDING, RECORDINGS, Desk, public, translated
from mixer.http.routing import CALLER, Query, Route, json_answer
from mixer.http.schemas import STARTED
from mixer.registry import Registry
from recording import rows
from recording.archive import MAX_NOTE
from recording.rows import MAX_LIMIT, ONLY, STATES, Only, State

_JSON: Final = "application/json"
_KEEPERS: Final = one_of("moderator", "archivist")


class RecordingStart(BaseModel):
    """Body of ``POST /v1/rooms/{room}/recordings``; may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tracks: bool = Field(
        default=False, description="Keep each participant's own voice, camera and screen beside the film."
    )
    note: Annotated[str, Field(max_length=MAX_NOTE)] = ""


class RecordingChange(BaseModel):
    """Body of ``PATCH /v1/recordings/{id}``: the state of a live one, or the note that any is found by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Literal["paused", "recording", "stopped"] | None = None
    note: Annotated[str, Field(max_length=MAX_NOTE)] | None = None

    @model_validator(mode="after")
    def _one(self) -> RecordingChange:
        if (self.state is None) == (self.note is None):
            raise ValueError("takes either state or note")
        return self


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Search(BaseModel):
    """The query of ``GET /v1/recordings``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    room: Annotated[str, Field(max_length=63)] | None = None
    from_: Annotated[datetime, AfterValidator(_in_utc)] | None = Field(default=None, alias="from")
    to: Annotated[datetime, AfterValidator(_in_utc)] | None = None
    q: Annotated[str, Field(max_length=200)] | None = None
    participant: Annotated[str, Field(max_length=200)] | None = None
    state: State | None = None
    only: Only | None = None
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 50


_QUERY: Final = (
    Query("room", "Only this room's"),
    Query("from", "Not before (RFC 3339)", {"type": "string", "format": "date-time"}),
    Query("to", "Not after (RFC 3339)", {"type": "string", "format": "date-time"}),
    Query(
        "q", "Words, or their beginnings, of the note, the room and of people; case and accents don't count"
    ),
    Query("participant", "Words of a participant's name, or the id"),
    Query(
        "state",
        "Only in this state; incomplete: cut off, archived or not yet",
        {"type": "string", "enum": list(STATES)},
    ),
    Query(
        "only",
        "Under a hold; past the retention, so that they may be deleted; or failed at the last fixity check",
        {"type": "string", "enum": list(ONLY)},
    ),
    Query("cursor", "Where the page before ended"),
    Query(
        "limit", "How many at most", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50}
    ),
)


class RecordingRoutes:
    """See the module."""

    def __init__(self, registry: Registry, desk: Desk) -> None:
        self._registry = registry
        self._desk = desk

    def routes(self) -> list[Route]:
        """The table."""
        one = "/v1/recordings/{id}"
        info = json_answer(200, "The recording", RECORDING)
        tag = "recordings"
        return [
            Route(
                "POST", "/v1/rooms/{room}/recordings", self._start, "Start recording a room", tag, MODERATOR,
                (json_answer(201, "Its id and state", STARTED),), body={_JSON: RecordingStart}, body_required=False,
                errors=(409, 503),
            ),
            Route(
                "PATCH", one, self._change, "Pause, resume or stop a live recording; or give one another note", tag,
                _KEEPERS, (json_answer(200, "Its id and state; with another note the recording", STARTED),),
                body={_JSON: RecordingChange}, errors=(409, 503),
            ),
            Route(
                "GET", "/v1/recordings", self._search, "Search recordings, newest first", tag, ARCHIVIST,
                (json_answer(200, "items, and the cursor of the next page or null", RECORDINGS),), query=_QUERY,
            ),
            Route("GET", one, self._read, "Read a recording", tag, _KEEPERS, (info,)),
        ]  # fmt: skip

    # --- live -----------------------------------------------------------------------------------------------

    async def _start(self, request: web.Request) -> web.Response:
        room = self._registry.room(request.match_info["room"])
        body = await read_model(request, RecordingStart, empty=True)
        with translated():
            made = await self._registry.start_recording(
                room.name, tracks=body.tracks, note=body.note, by=request[CALLER].sub
            )
        return json_response(made, status=201, headers={"Location": f"/v1/recordings/{made['id']}"})

    async def _change(self, request: web.Request) -> web.Response:
        recording_id = request.match_info["id"]
        live = self._registry.recording_room(recording_id)
        get = self._desk.holdings.archive.get
        room = live.name if live is not None else (await self._desk.ask(get, recording_id)).room
        require_room(request[CALLER], room)
        body = await read_model(request, RecordingChange)
        if body.state is None:
            return await self._describe(request, recording_id, body.note or "")
        require(request[CALLER], MODERATOR, room)
        with translated():
            changed = await self._registry.change_recording(recording_id, body.state, by=request[CALLER].sub)
        return json_response(changed)

    # --- kept -----------------------------------------------------------------------------------------------

    async def _describe(self, request: web.Request, recording_id: str, note: str) -> web.Response:
        """The archive's own note; the sealed package keeps the one it has."""
        by = request[CALLER].sub
        info = await self._desk.ask(self._desk.holdings.custody.describe, recording_id, by=by, note=note)
        await self._desk.note(request, "describe", info.id, note=info.note)
        return json_response(public(info))

    async def _search(self, request: web.Request) -> web.Response:
        caller = request[CALLER]
        query = validate_query(request, Search)
        if query.room is not None:
            require_room(caller, query.room)
        wanted = rows.Query(
            room=query.room or (caller.room if caller.room != "*" else None),
            from_=query.from_.isoformat() if query.from_ else None,
            to=query.to.isoformat() if query.to else None,
            q=query.q,
            participant=query.participant,
            state=query.state,
            only=query.only,
            cursor=query.cursor,
            limit=query.limit,
        )
        page = await self._desk.ask(self._desk.holdings.archive.search, wanted)
        headers: dict[str, str] = {}
        if page.cursor is not None:
            headers["Link"] = f'<{request.rel_url.update_query(cursor=page.cursor)}>; rel="next"'
        body = {"items": [public(info) for info in page.recordings], "cursor": page.cursor}
        return json_response(body, headers=headers)

    async def _read(self, request: web.Request) -> web.Response:
        return json_response(public(await self._desk.own(request)))
