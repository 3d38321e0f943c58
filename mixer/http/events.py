"""Server-Sent Events: what happens in rooms, as it happens, resumable by ``Last-Event-ID``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Final

from aiohttp import web

from mixer.errors import InvalidBody, NoCapacity
from mixer.events import EVENTS, Overflow, RoomEvent
from mixer.http.auth import VIEWER, require_room
from mixer.http.routing import CALLER, Answer, Query, Route
from mixer.registry import Registry

HEARTBEAT_S: Final = 15.0  # proxies close what is silent for 30 to 60 s
RETRY_MS: Final = 2000  # how soon a client comes back after the stream ended
MAX_STREAMS: Final = 1000  # each holds a socket and a queue of events

_STREAM: Final = "\n".join(
    (
        "A stream of events; each line of data is {id, type, room, time, data}. Types, and their data:\n",
        *(f"- `{kind}`: {data}" for kind, data in EVENTS.items()),
    )
)


class EventRoutes:
    """``GET /v1/events``. ``close`` ends every stream, so that a server going down does not wait for them."""

    def __init__(self, registry: Registry, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._registry = registry
        self._heartbeat_s = heartbeat_s
        self._streams: set[asyncio.Task[None]] = set()

    @property
    def streams(self) -> int:
        """How many clients listen."""
        return len(self._streams)

    def routes(self) -> list[Route]:
        """The table."""
        return [
            Route(
                "GET", "/v1/events", self._listen, "Server-Sent Events of one room, or of all", "events", VIEWER,
                (Answer(200, _STREAM, {"text/event-stream": None}),),
                query=(Query("room", "Only this room's; default: all that the token covers"),),
                errors=(404, 422, 503), head=False,
            ),
        ]  # fmt: skip

    async def close(self) -> None:
        """End the streams."""
        for task in list(self._streams):
            task.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        room = request.query.get("room") or (caller.room if caller.room != "*" else None)
        if room is not None:
            require_room(caller, room)
            self._registry.room(room)
        after = request.headers.get("Last-Event-ID")
        if after is not None and not (after.isascii() and after.isdecimal() and len(after) <= 18):
            message = "takes the id of an event"
            raise InvalidBody(
                f"Last-Event-ID {message}", [{"loc": ["header", "Last-Event-ID"], "msg": message}]
            )
        if len(self._streams) >= MAX_STREAMS:
            raise NoCapacity(f"{MAX_STREAMS} clients listen to events already")
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        # A task of its own: ending the streams must not cancel the connection's handler, which aiohttp owns.
        task = asyncio.create_task(self._send(request, response, room, after), name="sse")
        self._streams.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._streams.discard(task)
            task.cancel()
        if not task.cancelled():
            task.result()
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, room: str | None, after: str | None
    ) -> None:
        with (
            contextlib.suppress(Overflow, ConnectionError),
            self._registry.hub.subscribe(room, after=after) as subscription,
        ):
            await response.prepare(request)
            await response.write(f"retry: {RETRY_MS}\n\n".encode())
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        event = await subscription.get()
                except TimeoutError:
                    await response.write(b":\n\n")
                else:
                    await response.write(frame(event))


def frame(event: RoomEvent) -> bytes:
    """One event as the WHATWG stream format has it; JSON on one line holds no line break to escape."""
    data = json.dumps(event.public(), ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n".encode()
