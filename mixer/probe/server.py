"""What the probe asks of the server over HTTP: passes for its callers, and where their tiles are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from mixer.probe.signal import Rect
from mixer.video.layout import LayoutBody, Source, arrange, parse_layout
from mixer.webrtc.client import Refused

TOKEN_TTL_S: Final = 24 * 3600  # outlives any sensible run


@dataclass(frozen=True, slots=True)
class Pass:
    """One participant's right to enter: ``sub`` is its id on the roster."""

    token: str
    sub: str


@dataclass(frozen=True, slots=True)
class Wall:
    """The canvas and who is where on it. ``tiles``: participant id → place."""

    width: int
    height: int
    contain: bool
    tiles: dict[str, Rect]


class ServerApi:
    """A running server, seen with ``token`` (admin or the room's moderator) or, without one, as anybody who
    opens the room's page. Raises ``Refused`` for an answer that is no success, ``aiohttp.ClientError``.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str, room: str, token: str | None) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._room = room
        self._token = token
        self._seer = token  # whoever may read the layout
        self._may_preview = True

    def whip_url(self) -> str:
        return f"{self._url}/whip/{self._room}"

    def whep_url(self, rendition: str) -> str:
        return f"{self._url}/whep/{self._room}?rendition={rendition}"

    async def ensure_room(self) -> None:
        """Make the room if the token may and it is not there yet; the rest is for the server to say later."""
        if self._token is None:
            return
        try:
            await self._call("POST", "/v1/rooms", {"name": self._room})
        except Refused as refusal:
            if refusal.status not in {403, 409}:
                raise

    async def enter(self, name: str, role: str = "participant") -> Pass:
        """A pass for one more person."""
        if self._token is None:
            answer = await self._call("POST", f"/join/{self._room}", {"name": name})
            self._seer = self._seer or answer["token"]  # the first in an empty room moderates it
        else:
            body = {"role": role, "name": name, "ttl": TOKEN_TTL_S}
            answer = await self._call("POST", f"/v1/rooms/{self._room}/tokens", body)
        return Pass(answer["token"], answer["sub"])

    async def wall(self) -> Wall:
        """The canvas now. Without the right to ask for the rectangles they are computed from the roster, which
        is the same as long as the layout does not follow the speaker.
        """
        room = f"/v1/rooms/{self._room}"
        if self._may_preview:
            try:
                current = await self._call("GET", f"{room}/layout")
                body = parse_layout({name: value for name, value in current.items() if name != "version"})
                answer = await self._call("POST", f"{room}/layout/preview", body.model_dump(mode="json"))
                tiles = answer["tiles"]
                return _wall(body, {t["participant"]: _rect(t) for t in tiles if t.get("participant")})
            except Refused as refusal:
                if refusal.status not in {401, 403}:
                    raise
                self._may_preview = False
        body = LayoutBody()
        roster = await self._call("GET", f"{room}/participants")
        sources = [
            Source(id=one["id"], name=one["name"], kind=one["kind"], has_video=not one["video_muted"])
            for one in roster
        ]
        placed = arrange(body, sources, None)
        return _wall(
            body,
            {t.participant: Rect(t.x, t.y, t.width, t.height) for t in placed if t.participant is not None},
        )

    async def stats(self) -> dict[str, Any]:
        """The room's statistics, ``{}`` when this token may not read them."""
        try:
            found: dict[str, Any] = await self._call("GET", f"/v1/rooms/{self._room}/stats")
        except Refused:
            return {}
        return found

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Accept": "application/json"}
        token = self._token or self._seer
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self._http.request(method, self._url + path, json=body, headers=headers) as response:
            if response.status >= 400:
                raise Refused(response.status, await _reason(response))
            return await response.json(content_type=None)


async def _reason(response: aiohttp.ClientResponse) -> str:
    try:
        problem = await response.json(content_type=None)
        return str(problem.get("detail") or problem["title"])
    except (ValueError, KeyError, AttributeError):
        return response.reason or "refused"


def _rect(tile: dict[str, Any]) -> Rect:
    return Rect(tile["x"], tile["y"], tile["width"], tile["height"])


def _wall(body: LayoutBody, tiles: dict[str, Rect]) -> Wall:
    return Wall(body.canvas.width, body.canvas.height, body.fit == "contain", tiles)
