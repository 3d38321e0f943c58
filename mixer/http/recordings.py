"""Recordings: start and stop in a room; find, read, fetch and verify what the archive keeps.

The archive's methods block (disk, SQLite, one day a network), so each is called in a thread. What it raises is
translated into our tree here, since ``recording`` knows nothing of ``mixer``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, ParamSpec, TypeVar

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mixer.errors import AlreadyRecording, Conflict, InvalidBody, MosaiqueError, NoCapacity, NotFound
from mixer.http.auth import ARCHIVIST, MODERATOR, one_of, require_room
from mixer.http.bodies import json_response, read_model, validate
from mixer.http.ranges import select
from mixer.http.routing import CALLER, OBJECT, OBJECTS, Answer, Query, Route, json_answer
from mixer.registry import Caller, Registry
from recording.archive import MAX_NOTE, Archive, StoredFile
from recording.errors import (
    BadQuery,
    FixityError,
    ObjectMissing,
    RecordingError,
    RecordingLive,
    RecordingMissing,
    StoreError,
    UnsafePath,
    WrongState,
)
from recording.index import MAX_LIMIT, STATES, RecordingInfo, State

P = ParamSpec("P")
T = TypeVar("T")

_JSON: Final = "application/json"
_FETCH: Final = one_of("archivist", query_token=True)


class RecordingStart(BaseModel):
    """Body of ``POST /v1/rooms/{room}/recordings``; may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tracks: bool = False
    note: Annotated[str, Field(max_length=MAX_NOTE)] = ""


class RecordingChange(BaseModel):
    """Body of ``PATCH /v1/recordings/{id}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Literal["paused", "recording", "stopped"]


class Search(BaseModel):
    """The query of ``GET /v1/recordings``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    room: Annotated[str, Field(max_length=63)] | None = None
    from_: Annotated[datetime, AfterValidator(lambda t: t if t.tzinfo else t.replace(tzinfo=UTC))] | None = (
        Field(default=None, alias="from")
    )
    to: Annotated[datetime, AfterValidator(lambda t: t if t.tzinfo else t.replace(tzinfo=UTC))] | None = None
    q: Annotated[str, Field(max_length=200)] | None = None
    state: State | None = None
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 50


def public(info: RecordingInfo) -> dict[str, Any]:
    """The contract's JSON of a recording. What is not known yet is null; ``duration`` is in seconds."""
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
        "retention": None,
        "hold": None,
    }


class RecordingRoutes:
    """See the module."""

    def __init__(self, registry: Registry, archive: Archive) -> None:
        self._registry = registry
        self._archive = archive

    def routes(self) -> list[Route]:
        """The table."""
        one = "/v1/recordings/{id}"
        info = json_answer(200, "The recording", OBJECT)
        ranged = {"ETag": "Strong", "Accept-Ranges": "bytes", "Content-Range": "With 206"}
        query = (
            Query("room", "Only this room's"),
            Query("from", "Not before (RFC 3339)", {"type": "string", "format": "date-time"}),
            Query("to", "Not after (RFC 3339)", {"type": "string", "format": "date-time"}),
            Query("q", "Words of the note and of names"),
            Query("state", "Only in this state", {"type": "string", "enum": list(STATES)}),
            Query("cursor", "Where the page before ended"),
            Query(
                "limit",
                "How many at most",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50},
            ),
        )
        tag = "recordings"
        return [
            Route(
                "POST", "/v1/rooms/{room}/recordings", self._start, "Start recording a room", tag, MODERATOR,
                (json_answer(201, "Its id and state", OBJECT),), body={_JSON: RecordingStart}, body_required=False,
                errors=(409, 503),
            ),
            Route(
                "PATCH", one, self._change, "Pause, resume or stop a live recording", tag, MODERATOR, (info,),
                body={_JSON: RecordingChange}, errors=(409, 503),
            ),
            Route(
                "GET", "/v1/recordings", self._search, "Search recordings, newest first", tag, ARCHIVIST,
                (json_answer(200, "items, and the cursor of the next page or null", OBJECT),), query=query,
            ),
            Route("GET", one, self._read, "Read a recording", tag, one_of("moderator", "archivist"), (info,)),
            Route(
                "GET", one + "/media", self._media, "The composed MP4", tag, _FETCH,
                (
                    Answer(200, "The whole file", {"video/mp4": None}, ranged),
                    Answer(206, "The range asked for", {"video/mp4": None}, ranged),
                    Answer(304, "It has not changed"),
                ),
                errors=(409, 412, 416),
            ),
            Route(
                "GET", one + "/files", self._files, "All files of the package", tag, ARCHIVIST,
                (json_answer(200, "Files", OBJECTS),), errors=(409,),
            ),
            Route(
                "GET", one + "/files/{path:.+}", self._file, "One file of the package", tag, _FETCH,
                (
                    Answer(200, "The whole file", {"*/*": None}, ranged),
                    Answer(206, "The range asked for", {"*/*": None}, ranged),
                    Answer(304, "It has not changed"),
                ),
                errors=(409, 412, 416),
            ),
            Route(
                "GET", one + "/bag", self._bag, "The whole package as a BagIt in a ZIP, streamed", tag, _FETCH,
                (Answer(200, "The ZIP", {"application/zip": None}),), errors=(409,),
            ),
            Route(
                "POST", one + "/verify", self._verify, "Read every byte again and compare", tag, ARCHIVIST,
                (json_answer(200, "Whether all is as it was, and each file", OBJECT),), errors=(409,),
            ),
        ]  # fmt: skip

    # --- live -----------------------------------------------------------------------------------------------

    async def _start(self, request: web.Request) -> web.Response:
        room = self._registry.room(request.match_info["room"])
        body = await read_model(request, RecordingStart, empty=True)
        with _translated():
            made = await self._registry.start_recording(
                room.name, tracks=body.tracks, note=body.note, by=request[CALLER].sub
            )
        return json_response(made, status=201, headers={"Location": f"/v1/recordings/{made['id']}"})

    async def _change(self, request: web.Request) -> web.Response:
        recording_id = request.match_info["id"]
        live = self._registry.recording_room(recording_id)
        room = live.name if live is not None else (await self._ask(self._archive.get, recording_id)).room
        require_room(request[CALLER], room)
        body = await read_model(request, RecordingChange)
        with _translated():
            changed = await self._registry.change_recording(recording_id, body.state, by=request[CALLER].sub)
        return json_response(changed)

    # --- kept -----------------------------------------------------------------------------------------------

    async def _search(self, request: web.Request) -> web.Response:
        caller = request[CALLER]
        query = _query(request)
        if query.room is not None:
            require_room(caller, query.room)
        page = await self._ask(
            self._archive.search,
            room=query.room or (caller.room if caller.room != "*" else None),
            from_=query.from_.isoformat() if query.from_ else None,
            to=query.to.isoformat() if query.to else None,
            q=query.q,
            state=query.state,
            cursor=query.cursor,
            limit=query.limit,
        )
        headers: dict[str, str] = {}
        if page.cursor is not None:
            headers["Link"] = f'<{request.rel_url.update_query(cursor=page.cursor)}>; rel="next"'
        body = {"items": [public(info) for info in page.recordings], "cursor": page.cursor}
        return json_response(body, headers=headers)

    async def _read(self, request: web.Request) -> web.Response:
        return json_response(public(await self._own(request)))

    async def _media(self, request: web.Request) -> web.StreamResponse:
        info = await self._own(request)
        file = await self._ask(self._archive.media, info.id)
        return await _send_file(request, file, f"{info.room}-{info.id}.mp4")

    async def _files(self, request: web.Request) -> web.Response:
        info = await self._own(request)
        files = await self._ask(self._archive.files, info.id)
        return json_response([file.model_dump(mode="json") for file in files])

    async def _file(self, request: web.Request) -> web.StreamResponse:
        info = await self._own(request)
        path = request.match_info["path"]
        file = await self._ask(self._archive.open_file, info.id, path)
        return await _send_file(request, file, path.rsplit("/", 1)[-1])

    async def _bag(self, request: web.Request) -> web.StreamResponse:
        info = await self._own(request)
        chunks = await self._ask(self._archive.bag, info.id)
        response = web.StreamResponse(
            headers={"Content-Disposition": _disposition("attachment", f"{info.room}-{info.id}.zip")}
        )
        response.content_type = "application/zip"
        await response.prepare(request)
        if request.method != "HEAD":
            await _pump(response, chunks)
        return response

    async def _verify(self, request: web.Request) -> web.Response:
        info = await self._own(request)
        return json_response(await self._ask(self._archive.verify, info.id))

    async def _own(self, request: web.Request) -> RecordingInfo:
        """The recording of the path, if it is of a room that the token covers."""
        info = await self._ask(self._archive.get, request.match_info["id"])
        caller: Caller = request[CALLER]
        require_room(caller, info.room)
        return info

    @staticmethod
    async def _ask(method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _translated():
            return await asyncio.to_thread(method, *args, **kwargs)


def _query(request: web.Request) -> Search:
    try:
        return validate(Search, {k: v for k, v in request.query.items() if v != "" and k != "access_token"})
    except InvalidBody as error:
        errors = [{"loc": ["query", *item["loc"]], "msg": item["msg"]} for item in error.errors]
        raise InvalidBody(f"the query has {len(errors)} wrong parameter(s)", errors) from None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
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
        case WrongState():
            return Conflict(text)
        case BadQuery():
            return InvalidBody(text, [{"loc": ["query", error.field], "msg": text}])
        case StoreError() if not isinstance(error, FixityError):
            return NoCapacity(f"the archive does not answer as it should: {text}")
        case _:
            return MosaiqueError(text)


async def _send_file(request: web.Request, file: StoredFile, filename: str) -> web.StreamResponse:
    """The file, or the part of it that the request asks for (RFC 9110 sections 13 and 14)."""
    chosen = select(request.headers, size=file.size, etag=file.etag)
    headers = {"ETag": file.etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    if chosen.outcome == "not-modified":
        return web.Response(status=304, headers=headers)
    if chosen.outcome == "precondition-failed":
        raise web.HTTPPreconditionFailed(text="If-Match names another version of this file.")
    if chosen.outcome == "unsatisfiable":
        raise web.HTTPRequestRangeNotSatisfiable(
            text=f"This file has {file.size} bytes.",
            headers={"Content-Range": f"bytes */{file.size}", **headers},
        )
    headers["Content-Disposition"] = _disposition("inline", filename)
    if chosen.outcome == "part":
        headers["Content-Range"] = f"bytes {chosen.start}-{chosen.end - 1}/{file.size}"
    response = web.StreamResponse(status=206 if chosen.outcome == "part" else 200, headers=headers)
    response.headers["Content-Type"] = file.media_type
    response.content_length = chosen.end - chosen.start
    await response.prepare(request)
    if request.method != "HEAD":
        await _pump(response, await asyncio.to_thread(file.read, chosen.start, chosen.end))
    return response


async def _pump(response: web.StreamResponse, chunks: Iterator[bytes]) -> None:
    """Write a blocking iterator's chunks; each is read in a thread. A client that goes away ends it quietly;
    a store that fails in the middle breaks the connection, for a short body must not look like a whole one."""
    try:
        while (chunk := await _next(chunks)) is not None:
            await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        pass
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            await asyncio.to_thread(close)


async def _next(chunks: Iterator[bytes]) -> bytes | None:
    """The next chunk, None at the end. A cancelled request waits for its thread, which nothing can cancel: the
    iterator must not be closed while it runs."""
    reading = asyncio.create_task(asyncio.to_thread(next, chunks, None))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait([reading])
        raise


def _disposition(kind: Literal["inline", "attachment"], filename: str) -> str:
    """``Content-Disposition``; names of packages are ours and plain, anything else is left out of the header."""
    safe = "".join(c for c in filename if c.isascii() and (c.isalnum() or c in "._-"))
    return f'{kind}; filename="{safe}"'
