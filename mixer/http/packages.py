"""What an archived package holds: film, files, the whole as a bag; read again and compared when asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from mixer.errors import MosaiqueError, NoCapacity
from mixer.http.auth import ARCHIVIST, one_of
from mixer.http.bodies import json_response, validate_query
from mixer.http.holdings import Desk, translated
from mixer.http.problems import problem_of
from mixer.http.ranges import select
from mixer.http.routing import CALLER, Answer, Query, Route, json_answer
from mixer.http.schemas import FILES, VERIFICATION
from recording.archive import StoredFile
from recording.audit import MAX_NAMED
from recording.fixity import Verification, damaged
from recording.rows import RecordingInfo

_FETCH: Final = one_of("archivist", query_token=True)
_STREAM: Final = "text/event-stream"
LINK_S: Final = 900  # contract section 4: a presigned link is good for at most 15 min
MAX_VERIFICATIONS: Final = 2  # at once: each reads as fast as the store and a core can
_PROGRESS_S: Final = 0.25  # how often a person looks


class _Gone(Exception):
    """The client that asked for a verification went away in its middle."""


class MediaQuery(BaseModel):
    """The query of ``GET …/media``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    indexed: bool = False


class PackageRoutes:
    """See the module. ``redirect``: clients that can follow get links to the store, where it gives some."""

    def __init__(self, desk: Desk, *, redirect: bool = False) -> None:
        self._desk = desk
        self._redirect = redirect
        self._verifying = 0

    def routes(self) -> list[Route]:
        """The table."""
        one = "/v1/recordings/{id}"
        tag = "recordings"
        ranged = {"ETag": "Strong", "Accept-Ranges": "bytes", "Content-Range": "With 206"}

        def file(kind: str) -> tuple[Answer, ...]:
            return (
                Answer(200, "The whole file", {kind: None}, ranged),
                Answer(206, "The range asked for", {kind: None}, ranged),
                Answer(302, "A link to the store, good for 15 minutes", {}, {"Location": "The link"}),
                Answer(304, "It has not changed"),
            )

        return [
            Route(
                "GET", one + "/media", self._media, "The composed MP4", tag, _FETCH, file("video/mp4"),
                query=(
                    Query(
                        "indexed", "For players: with an index of the fragments (sidx) put in, so that seeking needs "
                        "no walk through the file; not the sealed bytes, and another ETag", {"type": "boolean"},
                    ),
                ),
                errors=(409, 412, 416, 422, 503),
            ),
            Route(
                "GET", one + "/files", self._files, "All files of the package", tag, ARCHIVIST,
                (json_answer(200, "Files", FILES),), errors=(409,),
            ),
            Route(
                "GET", one + "/files/{path:.+}", self._file, "One file of the package", tag, _FETCH, file("*/*"),
                errors=(409, 412, 416, 503),
            ),
            Route(
                "GET", one + "/bag", self._bag, "The whole package as a BagIt in a ZIP, streamed", tag, _FETCH,
                (Answer(200, "The ZIP", {"application/zip": None}),), errors=(409, 503),
            ),
            Route(
                "POST", one + "/verify", self._verify, "Read every byte again and compare", tag, ARCHIVIST,
                (
                    Answer(
                        200, "Whether all is as it was, and each file; as events: `progress` {path, done, total in "
                        "bytes} now and then, then `result`, or `problem`",
                        {"application/json": VERIFICATION, _STREAM: None},
                    ),
                ),
                errors=(409, 503),
            ),
        ]  # fmt: skip

    async def _media(self, request: web.Request) -> web.StreamResponse:
        info = await self._desk.own(request)
        archive = self._desk.holdings.archive
        indexed = validate_query(request, MediaQuery).indexed
        file = await self._desk.ask(archive.indexed_media if indexed else archive.media, info.id)
        return await self._send(request, info, file, f"{info.room}-{info.id}.mp4")

    async def _files(self, request: web.Request) -> web.Response:
        info = await self._desk.own(request)
        files = await self._desk.ask(self._desk.holdings.archive.files, info.id)
        return json_response([file.model_dump(mode="json") for file in files])

    async def _file(self, request: web.Request) -> web.StreamResponse:
        info = await self._desk.own(request)
        path = request.match_info["path"]
        file = await self._desk.ask(self._desk.holdings.archive.open_file, info.id, path)
        return await self._send(request, info, file, path.rsplit("/", 1)[-1])

    async def _bag(self, request: web.Request) -> web.StreamResponse:
        info = await self._desk.own(request)
        chunks = await self._desk.ask(self._desk.holdings.archive.bag, info.id)
        if request.method != "HEAD":
            await self._desk.note(request, "export", info.id)
        response = web.StreamResponse(
            headers={"Content-Disposition": _disposition("attachment", f"{info.room}-{info.id}.zip")}
        )
        response.content_type = "application/zip"
        await response.prepare(request)
        if request.method != "HEAD":
            await _pump(response, chunks)
        return response

    # --- files ----------------------------------------------------------------------------------------------

    async def _send(
        self, request: web.Request, info: RecordingInfo, file: StoredFile, filename: str
    ) -> web.StreamResponse:
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
        if request.method != "HEAD":
            link = await self._link(request, file, filename)
            if link is not None:
                await self._desk.note(request, "link", info.id, path=file.path, seconds=LINK_S)
                return web.Response(status=302, headers={"Location": link, "Cache-Control": "no-store"})
            await self._desk.note_read(request, info.id, file.path)
        headers["Content-Disposition"] = _disposition("inline", filename)
        if chosen.outcome == "part":
            headers["Content-Range"] = f"bytes {chosen.start}-{chosen.end - 1}/{file.size}"
        response = web.StreamResponse(status=206 if chosen.outcome == "part" else 200, headers=headers)
        response.headers["Content-Type"] = file.media_type
        response.content_length = chosen.end - chosen.start
        with contextlib.suppress(ConnectionError):  # a player that seeks goes away all the time
            await response.prepare(request)
            if request.method != "HEAD":
                await _pump(response, await asyncio.to_thread(file.read, chosen.start, chosen.end))
        return response

    async def _link(self, request: web.Request, file: StoredFile, filename: str) -> str | None:
        """A link to the store for a client that can follow one: programs, and a browser that goes there itself. What
        a page loads (a player, a script) may not leave the page's origin, and gets the bytes from us."""
        if not self._redirect or request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
            return None
        return await self._desk.ask(file.link, LINK_S, _plain(filename))

    # --- verification ---------------------------------------------------------------------------------------

    async def _verify(self, request: web.Request) -> web.StreamResponse:
        info = await self._desk.own(request)
        if self._verifying >= MAX_VERIFICATIONS:
            raise NoCapacity(f"{MAX_VERIFICATIONS} recordings are being read already; try again soon")
        self._verifying += 1
        try:
            if _STREAM in request.headers.get("Accept", ""):
                return await self._verify_telling(request, info)
            return json_response(await self._verified(request, info, _Reading()))
        finally:
            self._verifying -= 1

    async def _verified(self, request: web.Request, info: RecordingInfo, reading: _Reading) -> Verification:
        custody, by = self._desk.holdings.custody, request[CALLER].sub
        try:
            _, found = await self._desk.ask(custody.verify, info.id, by=by, progress=reading)
        except asyncio.CancelledError:
            reading.gone = True
            raise
        await self._desk.note(
            request, "verify", info.id, ok=found["ok"], damaged=list(damaged(found)[:MAX_NAMED])
        )
        return found

    async def _verify_telling(self, request: web.Request, info: RecordingInfo) -> web.StreamResponse:
        """The same as a stream of events. What goes wrong after it began is an event too."""
        with translated():
            await asyncio.to_thread(self._desk.holdings.archive.files, info.id)  # a 409 while it can be one
        reading = _Reading()
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = _STREAM
        response.charset = "utf-8"
        await response.prepare(request)
        task = asyncio.create_task(self._verified(request, info, reading), name="verify")
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_PROGRESS_S)
                if not task.done():
                    await response.write(_event("progress", reading.told()))
            try:
                await response.write(_event("result", task.result()))
            except MosaiqueError as error:
                body = problem_of(error).body
                await response.write(
                    _event("problem", json.loads(body if isinstance(body, bytes) else b"{}"))
                )
            await response.write_eof()
        except ConnectionError:
            pass  # the client went away
        finally:
            reading.gone = True
            if not task.done():
                await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # nobody is left to hear it
        return response


class _Reading:
    """How far a verification is; written by its thread, read by the loop. ``gone``: give it up."""

    def __init__(self) -> None:
        self.gone = False
        self._at = ("", 0, 0)

    def __call__(self, path: str, done: int, total: int) -> None:
        if self.gone:
            raise _Gone
        self._at = (path, done, total)

    def told(self) -> dict[str, Any]:
        """The last that was heard."""
        path, done, total = self._at
        return {"path": path, "done": done, "total": total}


def _event(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


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


def _plain(filename: str) -> str:
    """Names of packages are ours and plain; anything else is left out."""
    return "".join(c for c in filename if c.isascii() and (c.isalnum() or c in "._-"))


def _disposition(kind: Literal["inline", "attachment"], filename: str) -> str:
    return f'{kind}; filename="{_plain(filename)}"'
