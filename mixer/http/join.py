"""``POST /join/{room}``: how somebody who opens a room's page becomes a participant without an invitation.

Only where the operator allows it (``auth.open_rooms``). Left to its default that is where ``http.host`` is
loopback, and then only for callers that really are on this machine: a proxy in front, or a page of another
site whose name was pointed at 127.0.0.1, would otherwise open every room to whoever finds it.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, field_validator
from yarl import URL

from mixer.errors import Conflict, NotAllowed, NotFound
from mixer.http.auth import DEFAULT_TTL_S, Authenticator
from mixer.http.bodies import json_response, read_model
from mixer.http.rooms import new_subject
from mixer.http.routing import Route, json_answer
from mixer.registry import Registry
from mixer.room import MAX_NAME, Role, RoomCreate
from mixer.settings import Settings


class Join(BaseModel):
    """Body of ``POST /join/{room}``: the name to show."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: Annotated[str, Field(max_length=MAX_NAME)] = ""

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("control characters are not allowed in a name")
        return value


class Joined(BaseModel):
    """Answer of ``POST /join/{room}``."""

    token: str
    sub: str
    room: str
    role: Role


class JoinRoutes:
    """See the module."""

    def __init__(self, registry: Registry, auth: Authenticator, settings: Settings) -> None:
        self._registry = registry
        self._auth = auth
        self._settings = settings

    def routes(self) -> list[Route]:
        """The table."""
        return [
            Route(
                "POST", "/join/{room}", self._join, "Enter an open room without an invitation", "pages", None,
                (json_answer(201, "A token for this visit", Joined),), body={"application/json": Join},
                errors=(403, 404, 415, 503),
            ),
        ]  # fmt: skip

    async def _join(self, request: web.Request) -> web.Response:
        if not self._is_open(request):
            raise NotAllowed("this room takes an invitation: ask its moderator for a link")
        # Another site's page can post a form here, but not JSON without a preflight, which we do not answer.
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="This body is application/json.")
        name = request.match_info["room"]
        body = await read_model(request, Join)
        await self._ensure_room(name)
        role: Role = "participant" if self._registry.participants(name) else "moderator"
        made = self._auth.issue(sub=new_subject(), name=body.name, role=role, room=name, ttl_s=DEFAULT_TTL_S)
        return json_response({"token": made.token, "sub": made.sub, "room": name, "role": role}, status=201)

    def _is_open(self, request: web.Request) -> bool:
        setting = self._settings.auth.open_rooms
        if setting is not None:
            return setting
        return self._settings.http.is_loopback and is_local(request)

    async def _ensure_room(self, name: str) -> None:
        try:
            self._registry.room(name)
        except NotFound:
            # Where rooms are open by default, that is on somebody's own machine, opening a page is enough.
            if not self._settings.rooms.auto_create and self._settings.auth.open_rooms is not None:
                raise
            with contextlib.suppress(Conflict):  # somebody else was quicker
                await self._registry.create_room(RoomCreate(name=name), by="join")


def is_local(request: web.Request) -> bool:
    """Whether the request was made on this machine, to this machine, with nothing in between."""
    proxied = {"Forwarded", "Via", "X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host"} & set(request.headers)
    try:
        host = URL.build(scheme="http", authority=request.host).host or ""
        named_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
        peer_local = request.remote is not None and ipaddress.ip_address(request.remote).is_loopback
    except ValueError:
        return False
    return named_local and peer_local and not proxied
