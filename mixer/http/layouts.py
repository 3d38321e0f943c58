"""Layouts: the presets, a room's layout with its history, and the preview that changes nothing."""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from mixer.http.auth import ANYONE, MODERATOR, VIEWER
from mixer.http.bodies import json_response, read_json, read_model
from mixer.http.routing import CALLER, Answer, Route, json_answer
from mixer.http.schemas import LAYOUT, LAYOUT_VERSIONS, PRESETS, PREVIEW, VERSION
from mixer.registry import Registry
from mixer.video.layout import LayoutBody, parse_layout, presets

_JSON: Final = "application/json"


class Rollback(BaseModel):
    """Body of ``POST …/layout/rollback``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Annotated[int, Field(ge=1)]


class LayoutRoutes:
    """See the module."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> list[Route]:
        """The table."""
        layout = "/v1/rooms/{room}/layout"
        version = json_answer(200, "The version now in force", VERSION)
        return [
            Route(
                "GET", "/v1/layouts", self._presets, "The presets with their geometry", "layouts", ANYONE,
                (json_answer(200, "Presets", PRESETS),),
            ),
            Route(
                "GET", layout, self._read, "The layout in force, with its version", "layouts", VIEWER,
                (json_answer(200, "The layout body and its version", LAYOUT),),
            ),
            Route(
                "PUT", layout, self._replace, "Replace the layout at the next frame", "layouts", MODERATOR,
                (version,), body={_JSON: LayoutBody},
            ),
            Route(
                "GET", layout + "/versions", self._versions, "The layout's history, newest first", "layouts",
                MODERATOR, (json_answer(200, "Versions", LAYOUT_VERSIONS),),
            ),
            Route(
                "POST", layout + "/rollback", self._roll_back,
                "Put an older version in force again, as a new version", "layouts", MODERATOR,
                (version,), body={_JSON: Rollback},
            ),
            Route(
                "POST", layout + "/preview", self._preview,
                "What a layout would look like now; with Accept: application/json its rectangles and cost", "layouts",
                MODERATOR, (Answer(200, "The preview", {"image/png": None, _JSON: PREVIEW}),),
                body={_JSON: LayoutBody}, errors=(503,),
            ),
        ]  # fmt: skip

    async def _presets(self, request: web.Request) -> web.Response:
        return json_response(presets())

    async def _read(self, request: web.Request) -> web.Response:
        version, body = self._registry.layout(request.match_info["room"])
        return json_response({"version": version, **body.model_dump(mode="json")})

    async def _replace(self, request: web.Request) -> web.Response:
        room = self._registry.room(request.match_info["room"])
        body = parse_layout(_without_version(await read_json(request)))
        return json_response(
            {"version": await self._registry.put_layout(room.name, body, by=request[CALLER].sub)}
        )

    async def _versions(self, request: web.Request) -> web.Response:
        return json_response(self._registry.layout_versions(request.match_info["room"]))

    async def _roll_back(self, request: web.Request) -> web.Response:
        room = self._registry.room(request.match_info["room"])
        body = await read_model(request, Rollback)
        version = await self._registry.roll_back(room.name, body.version, by=request[CALLER].sub)
        return json_response({"version": version})

    async def _preview(self, request: web.Request) -> web.Response:
        room = self._registry.room(request.match_info["room"])
        body = parse_layout(_without_version(await read_json(request)))
        picture = not prefers_json(request.headers.get("Accept", "*/*"))
        preview = await self._registry.preview(room.name, body, picture=picture)
        if picture:
            return web.Response(body=preview.png or b"", content_type="image/png", headers={"Vary": "Accept"})
        return json_response({"tiles": preview.tiles, "cost": preview.cost}, headers={"Vary": "Accept"})


def _without_version(data: object) -> object:
    """What GET returned may be PUT back: the version it came with says nothing about the one it makes."""
    if isinstance(data, dict) and isinstance(data.get("version"), int):
        return {key: value for key, value in data.items() if key != "version"}
    return data


def prefers_json(accept: str) -> bool:
    """Whether an ``Accept`` header likes JSON better than PNG (RFC 9110 section 12.5.1); PNG wins a tie."""
    weights: dict[str, float] = {}
    for item in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = min(max(float(parameter[2:]), 0.0), 1.0)
                except ValueError:
                    weight = 0.0
        weights[media_range] = weight
    any_weight = weights.get("*/*", 0.0)
    json_weight = weights.get(_JSON, weights.get("application/*", any_weight))
    return json_weight > weights.get("image/png", weights.get("image/*", any_weight))
