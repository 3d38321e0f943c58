"""The HTTP surface as the pages see it, in memory and without media: for work on ``mixer/web``.

``python -m tests.fakes.fake_api [PORT]`` serves the pages with three rooms' worth of invented people and prints the
address. The admin token is ``admin``; room ``closed`` is by invitation. It follows CONTRACT.md section 4, no more.
WHIP and WHEP answer 503, as a full server does: what needs media is tested with the real one.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import sys
from typing import Any, Final

from aiohttp import web
from PIL import Image, ImageDraw

from mixer.http.pages import PageRoutes

TOKEN: Final = "admin"
LAYOUT: Final[dict[str, Any]] = {
    "preset": "grid",
    "canvas": {"width": 1280, "height": 720, "fps": 30, "background": "#101820"},
    "fit": "cover",
    "names": True,
    "speaker_border": True,
    "max_tiles": 25,
    "pins": {},
    "regions": [],
}
PEOPLE: Final = (
    "Ada Lovelace",
    "Jean-Baptiste Grenouille-Delacroix",
    "Ελένη Παπαδοπούλου",
    "Öztürk",
    "+33 1 23 45 67 89",
)
COLOURS: Final = ("#0a6364", "#a5593a", "#31507a", "#6a4a78", "#2e6b46")
RECORDING: Final[dict[str, Any]] = {
    "id": "01JD8Z5K3Q4W5E6R7T8Y9U0P1A",
    "room": "council",
    "state": "archived",
    "started": "2026-11-20T09:00:00+00:00",
    "duration": 3723.4,
    "size": 612_345_678,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "note": "Budget, first reading",
    "hold": None,
    "retention": None,
    "checked": None,
    "damaged": [],
    "deleted": None,
    "loudness": {"integrated_lufs": -23.4, "range_lu": 5.1, "true_peak_dbtp": -1.5},
    "participants": [{"id": str(i), "name": name} for i, name in enumerate(PEOPLE)],
}
TIMELINE: Final = (
    {"t": 0.0, "event": "join", "name": "Ada Lovelace"},
    {"t": 2.5, "event": "speaker", "name": "Ada Lovelace"},
    {"t": 61.0, "event": "layout", "version": 2},
    {"t": 600.2, "event": "pause", "duration": 30},
    {"t": 3723.4, "event": "end"},
)


def token_for(room: str, name: str, role: str) -> str:
    """A JWT whose signature nobody checks."""
    claims = {"sub": "me", "name": name, "room": room, "role": role, "exp": 4_000_000_000}
    parts: tuple[dict[str, Any], ...] = ({"alg": "none"}, claims, {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts)


def picture() -> bytes:
    """A PNG that stands for the canvas."""
    image = Image.new("RGB", (1280, 720), "#101820")
    draw = ImageDraw.Draw(image)
    for index, colour in enumerate(COLOURS):
        x, y = index % 3 * 426, index // 3 * 360
        draw.rectangle((x + 4, y + 4, x + 420, y + 354), fill=colour)
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


class FakeApi:
    """State of the fake; one instance an application."""

    def __init__(self) -> None:
        self.rooms: dict[str, dict[str, Any]] = {}
        self.versions: list[dict[str, Any]] = [
            {"version": 1, "at": "2026-11-22T08:00:00+00:00", "by": "admin", "layout": LAYOUT}
        ]
        self.listeners: set[asyncio.Queue[dict[str, Any]]] = set()
        self.numbers = itertools.count(1)
        self.people = [
            {
                "id": f"p{i}", "name": name, "kind": "phone" if name.startswith("+") else "webrtc", "muted": i == 1,
                "video_muted": i == 3, "volume": 1.0, "speaking": i == 0, "hand": i == 2,
                "joined_at": "2026-11-22T08:00:00+00:00",
            }
            for i, name in enumerate(PEOPLE)
        ]  # fmt: skip
        for name in ("council", "weekly-meeting"):
            self.add_room(name)

    def add_room(self, name: str) -> dict[str, Any]:
        """Make a room."""
        layout = {"version": 1, **LAYOUT}
        self.rooms[name] = {"name": name, "participants": 0, "recording": None, "layout": layout}
        return self.rooms[name]

    def publish(self, kind: str, room: str, **data: Any) -> None:
        """Tell every listener."""
        event = {"id": str(next(self.numbers)), "type": kind, "room": room, "time": "", "data": data}
        for queue in self.listeners:
            queue.put_nowait(event)

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[authorise])
        one = "/v1/rooms/{room}"
        for route in PageRoutes().routes():
            app.router.add_route(route.method, route.path, route.handler)
        for method, path, handler in (
            ("POST", "/join/{room}", self.join),
            ("GET", "/v1/rooms", self.list_rooms),
            ("POST", "/v1/rooms", self.create),
            ("GET", one, self.read),
            ("DELETE", one, self.end),
            ("POST", one + "/tokens", self.token),
            ("GET", one + "/participants", self.participants),
            ("PATCH", one + "/participants/{id}", self.change),
            ("DELETE", one + "/participants/{id}", self.remove),
            ("GET", one + "/layout", self.layout),
            ("PUT", one + "/layout", self.put_layout),
            ("GET", one + "/layout/versions", self.history),
            ("POST", one + "/layout/rollback", self.put_layout),
            ("POST", one + "/layout/preview", self.preview),
            ("GET", one + "/stats", self.stats),
            ("POST", one + "/recordings", self.record),
            ("PATCH", "/v1/recordings/{id}", self.change_recording),
            ("GET", "/v1/recordings", self.recordings),
            ("GET", "/v1/recordings/{id}", self.recording),
            ("GET", "/v1/recordings/{id}/files/data/timeline.jsonl", self.timeline),
            ("POST", "/v1/recordings/{id}/verify", self.verify),
            ("GET", "/v1/ice-servers", self.ice_servers),
            ("GET", "/v1/events", self.events),
            ("POST", "/{direction:whip|whep}/{room}", self.full),
        ):
            app.router.add_route(method, path, handler)
        return app

    def room(self, request: web.Request) -> dict[str, Any]:
        """The room of the path, or 404."""
        try:
            return self.rooms[request.match_info["room"]]
        except KeyError:
            raise problem(404, "there is no such room") from None

    async def join(self, request: web.Request) -> web.Response:
        name = request.match_info["room"]
        if name == "closed":
            raise problem(403, "this room takes an invitation: ask its moderator for a link")
        self.rooms.get(name) or self.add_room(name)
        body = await request.json()
        return web.json_response(
            {"token": token_for(name, body["name"], "moderator"), "sub": "me", "room": name}, status=201
        )

    async def list_rooms(self, request: web.Request) -> web.Response:
        return web.json_response(list(self.rooms.values()))

    async def create(self, request: web.Request) -> web.Response:
        return web.json_response(self.add_room((await request.json())["name"]), status=201)

    async def read(self, request: web.Request) -> web.Response:
        return web.json_response(self.room(request))

    async def end(self, request: web.Request) -> web.Response:
        self.publish("room.ended", self.rooms.pop(self.room(request)["name"])["name"])
        return web.Response(status=204)

    async def token(self, request: web.Request) -> web.Response:
        body = await request.json()
        token = token_for(self.room(request)["name"], body.get("name", ""), body["role"])
        return web.json_response(
            {"token": token, "sub": "me", "expires_at": "2026-11-23T08:00:00+00:00"}, status=201
        )

    async def participants(self, request: web.Request) -> web.Response:
        return web.json_response(self.people)

    async def change(self, request: web.Request) -> web.Response:
        for person in self.people:
            if person["id"] == request.match_info["id"]:
                person.update(await request.json())
                self.publish("participant.updated", self.room(request)["name"], **person)
                return web.json_response(person)
        raise problem(404, "no such participant")

    async def remove(self, request: web.Request) -> web.Response:
        for person in list(self.people):
            if person["id"] == request.match_info["id"]:
                self.people.remove(person)
                self.publish(
                    "participant.left", self.room(request)["name"], reason="removed by a moderator", **person
                )
        return web.Response(status=204)

    async def layout(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.versions[0]["version"], **self.versions[0]["layout"]})

    async def put_layout(self, request: web.Request) -> web.Response:
        body = await request.json()
        for old in self.versions:
            if "preset" not in body and old["version"] == body["version"]:
                body = old["layout"]
        version = len(self.versions) + 1
        self.versions.insert(
            0, {"version": version, "at": "2026-11-22T09:00:00+00:00", "by": "admin", "layout": body}
        )
        self.publish("layout.changed", self.room(request)["name"], version=version, preset=body["preset"])
        return web.json_response({"version": version})

    async def history(self, request: web.Request) -> web.Response:
        return web.json_response(self.versions)

    async def preview(self, request: web.Request) -> web.Response:
        body = await request.json()
        if any(region["width"] == "" for region in body["regions"]):
            raise problem(
                422,
                "the layout has 1 wrong field(s)",
                [{"loc": ["regions", 0, "width"], "msg": "not a fraction"}],
            )
        if "json" in request.headers["Accept"]:
            return web.json_response({"tiles": [{}] * 5, "cost": {"cpu_cores": 0.42, "kbps": 1400}})
        return web.Response(body=picture(), content_type="image/png")

    async def stats(self, request: web.Request) -> web.Response:
        video = {"run": 100, "late": 1, "dropped": 2, "scale_ms": 2.1, "compose_ms": 0.4}
        renditions = {
            "high": {"fps": 29.9, "kbps": 1184, "viewers": 4, "encode_ms": 3.1},
            "low": {"fps": 8, "kbps": 61, "viewers": 1, "encode_ms": 0.4},
        }
        ticks = {"audio": {"run": 100, "late": 0, "dropped": 0}, "video": video}
        return web.json_response({"participants": {}, "renditions": renditions, "ticks": ticks, "queues": {}})

    async def record(self, request: web.Request) -> web.Response:
        room = self.room(request)
        room["recording"] = {"id": f"{room['name']}-1", "state": "recording"}
        self.publish("recording.started", room["name"], recording=room["recording"]["id"])
        return web.json_response(room["recording"], status=201)

    async def change_recording(self, request: web.Request) -> web.Response:
        state = (await request.json())["state"]
        names = {
            "paused": "recording.paused",
            "recording": "recording.resumed",
            "stopped": "recording.stopped",
        }
        for room in self.rooms.values():
            if room["recording"] and room["recording"]["id"] == request.match_info["id"]:
                room["recording"] = None if state == "stopped" else {**room["recording"], "state": state}
                self.publish(names[state], room["name"], recording=request.match_info["id"])
        return web.json_response({"id": request.match_info["id"], "state": state})

    async def recordings(self, request: web.Request) -> web.Response:
        others = [
            {**RECORDING, "id": f"other-{s}", "state": s, "note": ""}
            for s in ("recording", "sealing", "failed")
        ]
        return web.json_response({"items": [RECORDING, *others], "cursor": None})

    async def recording(self, request: web.Request) -> web.Response:
        return web.json_response(RECORDING)

    async def timeline(self, request: web.Request) -> web.Response:
        return web.Response(text="\n".join(json.dumps(line) for line in TIMELINE))

    async def verify(self, request: web.Request) -> web.Response:
        files = [
            {"path": p, "sha256": "", "ok": True}
            for p in ("data/recording.mp4", "data/timeline.jsonl", "bagit.txt")
        ]
        return web.json_response({"ok": True, "files": files})

    async def ice_servers(self, request: web.Request) -> web.Response:
        return web.json_response([])

    async def events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(100)
        self.listeners.add(queue)
        try:
            await response.write(b"retry: 2000\n\n")
            while True:
                event = await queue.get()
                await response.write(
                    f"id: {event['id']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                )
        finally:
            self.listeners.discard(queue)

    async def full(self, request: web.Request) -> web.Response:
        raise problem(503, "this server has no media")


def problem(status: int, detail: str, errors: list[dict[str, Any]] | None = None) -> web.HTTPException:
    """An RFC 9457 answer to raise."""
    classes = {
        401: web.HTTPUnauthorized,
        403: web.HTTPForbidden,
        404: web.HTTPNotFound,
        422: web.HTTPUnprocessableEntity,
    }
    text = json.dumps(
        {"type": "about:blank", "title": detail, "status": status, "detail": detail, "errors": errors or []}
    )
    return classes.get(status, web.HTTPServiceUnavailable)(text=text, content_type="application/problem+json")


@web.middleware
async def authorise(request: web.Request, handler: Any) -> web.StreamResponse:
    """Any JWT and the admin token are good."""
    if request.path.startswith(("/v1", "/wh")):
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token != TOKEN and token.count(".") != 2:
            raise problem(401, "this needs a bearer token")
    response: web.StreamResponse = await handler(request)
    return response


if __name__ == "__main__":
    web.run_app(FakeApi().app(), host="127.0.0.1", port=int((sys.argv[1:] or ["8099"])[0]))
