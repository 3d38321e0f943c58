"""The HTTP application on the real registry and the real archive, with the room host in memory."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jwt
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from jsonschema import Draft202012Validator

from mixer.http.app import build_app
from mixer.http.pages import WEB_DIRECTORY
from mixer.registry import Registry
from mixer.service import ArchiveDesk
from mixer.settings import Settings
from recording.archiver import Archiver
from recording.holdings import Holdings
from recording.local import LocalStore
from recording.package import CLOSED, MEDIA, TIMELINE, Loudness, Summary, write_model
from recording.store import ObjectStore
from tests.contracts import room_host
from tests.fakes.host import MemoryHost

ADMIN_TOKEN = "admin-token-of-the-tests"
DAY_S = (
    86_400  # many tokens are made when the tests are collected, and the last of these runs half an hour later
)
SECRET = "a-secret-of-the-tests-32-bytes-or-more"
OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
SDP = {"Content-Type": "application/sdp"}
FILM = bytes(range(256)) * 4096  # 1 MiB: more than one chunk of any reader


class Described:
    """Holds each answer against what the OpenAPI says of its route: the status, the type, the body."""

    def __init__(self) -> None:
        self._document: dict[str, Any] = {}
        self._paths: list[tuple[re.Pattern[str], dict[str, Any]]] = []

    def read(self, document: dict[str, Any]) -> None:
        """The whole document."""
        self._document = document
        for template in sorted(
            document["paths"], key=lambda path: path.count("{")
        ):  # a fixed path goes first
            pattern = re.sub(
                r"\\{(\w+)\\}", lambda found: ".+" if found[1] == "path" else "[^/]+", re.escape(template)
            )
            self._paths.append((re.compile(pattern), document["paths"][template]))

    async def check(self, method: str, response: ClientResponse) -> None:
        """Raises AssertionError, ValidationError."""
        asked = unquote(response.url.raw_path)
        found = next((item for pattern, item in self._paths if pattern.fullmatch(asked)), None)
        if response.status == 500:
            return  # a fault of ours, played
        operation = (found or {}).get("get" if method == "HEAD" else method.lower())
        if operation is None:
            return
        answers = operation["responses"]
        assert str(response.status) in answers, f"{method} {asked}: {response.status} is not described"
        answer = answers[str(response.status)]
        schema = answer.get("content", {}).get(response.content_type, {}).get("schema")
        if schema and response.content_type == "application/json" and method != "HEAD":
            whole = {**schema, "components": self._document["components"]}
            Draft202012Validator(whole).validate(json.loads(await response.text()))


class Site:
    """One running application. ``room`` exists from the start."""

    room = "demo"

    def __init__(
        self,
        directory: Path,
        *,
        web_directory: Path = WEB_DIRECTORY,
        store: ObjectStore | None = None,
        **settings: Any,
    ) -> None:
        directory.mkdir(exist_ok=True)
        settings.setdefault("auth", {}).update(admin_token=ADMIN_TOKEN, secret=SECRET)
        self.settings = Settings.model_validate({"data_dir": directory, **settings})
        self.host = MemoryHost()
        self.spool = directory / "spool"
        self.store = LocalStore(directory / "archive") if store is None else store
        self.holdings = Holdings.open(directory, self.store, mode=self.settings.archive.retention_mode)
        self.index, self.archive = self.holdings.index, self.holdings.archive
        self.registry = Registry(
            self.host,
            ArchiveDesk(self.archive),
            room_host.SETTINGS,
            auto_create=self.settings.rooms.auto_create,
        )
        self.app = build_app(
            self.registry, self.holdings, self.settings, web_directory=web_directory, heartbeat_s=0.05
        )
        self.client = TestClient(TestServer(self.app))
        self.described = Described()

    @functools.cached_property
    def archived(self) -> str:
        """The id of a sealed recording of the room, made when it is first asked for: it costs a dozen fsyncs."""
        return self.archive_film()

    async def start(self) -> Site:
        await self.registry.start()
        await self.client.start_server()
        async with self.client.get("/openapi.json") as response:
            self.described.read(await response.json())
        await self.ok("POST", "/v1/rooms", json={"name": self.room}, status=201)
        return self

    async def stop(self) -> None:
        await self.client.close()
        await self.registry.drain(grace_s=1)
        self.holdings.close()

    def archive_film(self, room: str = "demo", film: bytes = FILM) -> str:
        """Seal a recording whose film is any bytes; returns its id."""
        recording = self.archive.create(room, note="council meeting")
        (recording.directory / MEDIA).parent.mkdir()
        (recording.directory / MEDIA).write_bytes(film)
        (recording.directory / TIMELINE).write_text(
            json.dumps({"t": 0, "event": "join", "participant": "ann", "name": "Ann"}) + "\n",
            encoding="utf-8",
        )
        summary = Summary(
            started="2026-11-22T10:00:00Z",
            ended="2026-11-22T10:00:10Z",
            duration_s=10,
            size=len(film),
            sha256=hashlib.sha256(film).hexdigest(),
            complete=True,
            loudness=Loudness(integrated_lufs=-23.4, range_lu=5.1, true_peak_dbtp=-1.5),
        )
        write_model(recording.directory / CLOSED, summary)
        self.archive.set_state(recording.id, "sealing")
        assert Archiver(self.spool, self.store, self.index).step() == 1
        return recording.id

    # --- asking ---------------------------------------------------------------------------------------------

    async def ask(
        self, method: str, path: str, *, token: str | None = ADMIN_TOKEN, **kwargs: Any
    ) -> ClientResponse:
        """One request, its body read."""
        headers = dict(kwargs.pop("headers", {}))
        if token is not None:
            headers.setdefault("Authorization", f"Bearer {token}")
        response = await self.client.request(method, path, headers=headers, allow_redirects=False, **kwargs)
        await response.read()
        if response.status != 405:
            await self.described.check(method, response)
        return response

    async def ok(self, method: str, path: str, *, status: int = 200, **kwargs: Any) -> Any:
        """The JSON (None when empty) of a request that must end in ``status``."""
        response = await self.ask(method, path, **kwargs)
        text = await response.text()
        assert response.status == status, text
        return json.loads(text) if text else None

    async def refused(self, status: int, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        """The problem document of a request that must end in ``status``."""
        return await check_problem(await self.ask(method, path, **kwargs), status)

    async def publish(self, token: str = ADMIN_TOKEN, room: str = "demo") -> str:
        """A WHIP session; returns its URL."""
        response = await self.ask("POST", f"/whip/{room}", token=token, data=OFFER, headers=SDP)
        assert response.status == 201, await response.text()
        return response.headers["Location"]


async def check_problem(response: ClientResponse, status: int) -> dict[str, Any]:
    """What contract section 3 asks of every error body."""
    text = await response.text()
    assert response.status == status, text
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = json.loads(text)
    assert {"type", "title", "status", "detail"} <= set(body)
    assert body["status"] == status
    for error in body.get("errors", []):
        assert set(error) == {"loc", "msg"}
    if status == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    if status == 503:
        assert int(response.headers["Retry-After"]) > 0
    return body


def token(role: str | None, *, room: str | None = "demo", sub: Any = "ann", **claims: Any) -> str:
    """A JWT as somebody else's issuer would make it: by the contract alone."""
    now = int(time.time())
    body = {
        "sub": sub,
        "name": str(sub).title(),
        "room": room,
        "role": role,
        "nbf": now - 5,
        "exp": now + DAY_S,
        **claims,
    }
    payload = json.dumps({key: value for key, value in body.items() if value is not None}).encode()
    return jwt.api_jws.encode(
        payload, SECRET, algorithm="HS256"
    )  # signs anything, also what is no set of claims
