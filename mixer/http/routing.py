"""The route table: each route says once what it does, who may call it, what goes in and what comes out.

From the same table come the aiohttp routes (``install``), their guards, and the OpenAPI description
(``mixer.http.openapi``), so that none of the three can drift from the others.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel

from mixer.errors import NotFound
from mixer.http.auth import Access, Authenticator, require
from mixer.room import ROOM_NAME
from mixer.sessions import Caller

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CALLER: Final = web.RequestKey("caller", Caller)


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter; ``schema`` is its JSON Schema."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Answer:
    """One successful answer. ``content``: media type → JSON Schema, pydantic model, or None for bytes and text."""

    status: int
    description: str
    content: Mapping[str, type[BaseModel] | Mapping[str, Any] | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. ``access`` None: public. ``errors``: statuses beyond those that follow from the rest."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    access: Access | None
    answers: tuple[Answer, ...]
    body: Mapping[str, type[BaseModel] | None] = field(default_factory=dict)
    body_required: bool = True
    query: tuple[Query, ...] = ()
    errors: tuple[int, ...] = ()
    head: bool = True  # a GET answers HEAD too (RFC 9110 section 9.3.2); a stream of events does not

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it: without the patterns."""
        return re.sub(r"\{(\w+):[^{}]+\}", r"{\1}", self.path)


def json_answer(status: int, description: str, schema: type[BaseModel] | Mapping[str, Any]) -> Answer:
    """An ``application/json`` answer."""
    return Answer(status, description, {"application/json": schema})


def install(app: web.Application, routes: Iterable[Route], auth: Authenticator) -> None:
    """Add each route with its guard."""
    for route in routes:
        handler = _guarded(route, auth)
        for method in ("GET", "HEAD") if route.method == "GET" and route.head else (route.method,):
            app.router.add_route(method, route.path, handler)


def _guarded(route: Route, auth: Authenticator) -> Handler:
    """Authenticate, authorise, and refuse room names that no room can have, before the handler sees the request."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        room = request.match_info.get("room")
        if route.access is not None:
            caller = auth.authenticate(request, route.access)
            request[CALLER] = caller
            require(caller, route.access, room)
        if room is not None and not ROOM_NAME.fullmatch(room):
            raise NotFound("no room can have that name: it takes lower-case letters, digits and hyphens")
        return await route.handler(request)

    return guarded
