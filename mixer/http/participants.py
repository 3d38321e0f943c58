"""The roster: who is there, and what a moderator, or a person themself, may change about it."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from mixer.errors import NotAllowed
from mixer.http.auth import MODERATOR, PARTICIPANT, VIEWER
from mixer.http.bodies import json_response, no_content, read_model
from mixer.http.routing import CALLER, Answer, Route, json_answer
from mixer.http.schemas import PARTICIPANT as PERSON
from mixer.http.schemas import PARTICIPANTS
from mixer.registry import Registry
from mixer.room import ParticipantPatch

OWN_FIELDS: Final = frozenset(
    {"muted", "video_muted", "name", "hand", "agc", "noise_suppression", "recorded"}
)
# What a participant may say of themself; volume is how loud others hear them, which is the moderator's.


class ParticipantRoutes:
    """See the module."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> list[Route]:
        """The table."""
        people = "/v1/rooms/{room}/participants"
        return [
            Route(
                "GET", people, self._list, "The roster, in join order", "participants", VIEWER,
                (json_answer(200, "Participants", PARTICIPANTS),),
            ),
            Route(
                "PATCH", people + "/{id}", self._change,
                "Mute, rename, set the volume, clean the voice, raise a hand, keep out of recordings; "
                "a participant: of themself only",
                "participants", PARTICIPANT, (json_answer(200, "The participant", PERSON),),
                body={"application/json": ParticipantPatch},
            ),
            Route(
                "DELETE", people + "/{id}", self._remove, "Remove somebody from the room", "participants", MODERATOR,
                (Answer(204, "Removed"),),
            ),
        ]  # fmt: skip

    async def _list(self, request: web.Request) -> web.Response:
        return json_response([p.public() for p in self._registry.participants(request.match_info["room"])])

    async def _change(self, request: web.Request) -> web.Response:
        caller, room, participant = request[CALLER], request.match_info["room"], request.match_info["id"]
        if caller.role == "participant" and participant != caller.sub:
            raise NotAllowed("a participant may change only themself")
        self._registry.room(room).participant(participant)
        patch = await read_model(request, ParticipantPatch)
        if caller.role == "participant" and not patch.model_fields_set <= OWN_FIELDS:
            raise NotAllowed(f"a participant may change {', '.join(sorted(OWN_FIELDS))} only")
        if patch.recorded and participant != caller.sub and not caller.is_service:
            raise NotAllowed("only they themself may agree to being recorded")
        return json_response((await self._registry.change_participant(room, participant, patch)).public())

    async def _remove(self, request: web.Request) -> web.Response:
        await self._registry.remove_participant(request.match_info["room"], request.match_info["id"])
        return no_content()
