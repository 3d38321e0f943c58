"""Rooms: make, list, read, change, end; tokens for them; snapshot and figures of one."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, field_validator

from mixer.http.auth import (
    ADMIN,
    DEFAULT_TTL_S,
    MAX_TTL_S,
    MODERATOR,
    VIEWER,
    Authenticator,
    Subject,
    covers,
    require_room,
)
from mixer.http.bodies import json_response, no_content, read_model
from mixer.http.routing import CALLER, Answer, Route, json_answer
from mixer.http.schemas import ROOM, ROOMS, STATS
from mixer.registry import Registry
from mixer.room import MAX_NAME, Role, RoomCreate, RoomPatch

PNG: Final = "image/png"


class TokenRequest(BaseModel):
    """Body of ``POST /v1/rooms/{room}/tokens``. ``ttl`` in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    role: Role
    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    sub: Subject | None = None
    ttl: Annotated[int, Field(ge=1, le=MAX_TTL_S)] = DEFAULT_TTL_S

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("control characters are not allowed in a name")
        return value


class TokenCreated(BaseModel):
    """Answer of ``POST /v1/rooms/{room}/tokens``."""

    token: str
    sub: str
    expires_at: datetime


def new_subject() -> str:
    """A participant id nobody has. 48 bits: two of a million rooms' guests still never meet."""
    return secrets.token_hex(6)


class RoomRoutes:
    """See the module."""

    def __init__(self, registry: Registry, auth: Authenticator) -> None:
        self._registry = registry
        self._auth = auth

    def routes(self) -> list[Route]:
        """The table."""
        one = "/v1/rooms/{room}"
        room = json_answer(200, "The room", ROOM)
        return [
            Route(
                "POST", "/v1/rooms", self._create, "Make a room", "rooms", ADMIN,
                (Answer(201, "The room", {"application/json": ROOM}, {"Location": "The room's URL"}),),
                body={"application/json": RoomCreate}, errors=(409, 503),
            ),
            Route(
                "GET", "/v1/rooms", self._list, "The rooms that the token covers, by name", "rooms", MODERATOR,
                (json_answer(200, "Rooms", ROOMS),),
            ),
            Route("GET", one, self._read, "Read a room", "rooms", VIEWER, (room,)),
            Route(
                "PATCH", one, self._change, "Change a room's settings", "rooms", ADMIN, (room,),
                body={"application/json": RoomPatch},
            ),
            Route(
                "DELETE", one, self._end, "End a room: recordings sealed, everybody hung up", "rooms", ADMIN,
                (Answer(204, "Ended"),),
            ),
            Route(
                "POST", one + "/tokens", self._token, "Make a token for one person", "rooms", ADMIN,
                (json_answer(201, "The token", TokenCreated),), body={"application/json": TokenRequest},
            ),
            Route(
                "GET", one + "/snapshot.png", self._snapshot, "The canvas as it is now", "rooms", VIEWER,
                (Answer(200, "The picture", {PNG: None}),), errors=(503,),
            ),
            Route(
                "GET", one + "/stats", self._stats, "Counters of participants, renditions, ticks and queues", "rooms",
                MODERATOR, (json_answer(200, "Counters", STATS),), errors=(503,),
            ),
        ]  # fmt: skip

    async def _create(self, request: web.Request) -> web.Response:
        body = await read_model(request, RoomCreate)
        caller = request[CALLER]
        require_room(caller, body.name)
        room = await self._registry.create_room(body, by=caller.sub)
        return json_response(room.public(), status=201, headers={"Location": f"/v1/rooms/{room.name}"})

    async def _list(self, request: web.Request) -> web.Response:
        caller = request[CALLER]
        return json_response([room.public() for room in self._registry.rooms() if covers(caller, room.name)])

    async def _read(self, request: web.Request) -> web.Response:
        return json_response(self._registry.room(request.match_info["room"]).public())

    async def _change(self, request: web.Request) -> web.Response:
        name = request.match_info["room"]
        self._registry.room(name)
        patch = await read_model(request, RoomPatch)
        return json_response((await self._registry.change_room(name, patch)).public())

    async def _end(self, request: web.Request) -> web.Response:
        await self._registry.end_room(request.match_info["room"])
        return no_content()

    async def _token(self, request: web.Request) -> web.Response:
        room = self._registry.room(request.match_info["room"])
        body = await read_model(request, TokenRequest)
        made = self._auth.issue(
            sub=body.sub or new_subject(), name=body.name, role=body.role, room=room.name, ttl_s=body.ttl
        )
        answer: dict[str, Any] = {
            "token": made.token,
            "sub": made.sub,
            "expires_at": datetime.fromtimestamp(made.expires_at_s, UTC).isoformat(),
        }
        return json_response(answer, status=201)

    async def _snapshot(self, request: web.Request) -> web.Response:
        return web.Response(body=await self._registry.snapshot(request.match_info["room"]), content_type=PNG)

    async def _stats(self, request: web.Request) -> web.Response:
        return json_response(await self._registry.stats(request.match_info["room"]))
