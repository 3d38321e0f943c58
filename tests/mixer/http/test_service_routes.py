"""Events, figures, health, pages, the open door, and the description of it all."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from openapi_spec_validator import validate

from mixer.http.app import ROUTES
from mixer.http.problems import STATUS, problem_of
from recording.placement import Place, Places
from recording.report import Report, Situation
from tests.mixer.http.site import ADMIN_TOKEN, OFFER, SDP, Site, check_problem, token

# --- events ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(site: Site, query: str = "", **headers: str) -> AsyncIterator[ClientResponse]:
    headers["Authorization"] = f"Bearer {headers.pop('token', ADMIN_TOKEN)}"
    async with asyncio.timeout(60), site.client.get(f"/v1/events{query}", headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert (await response.content.readuntil(b"\n\n")).startswith(b"retry: ")
        yield response


async def next_event(response: ClientResponse) -> dict[str, Any]:
    """The next event; heartbeats are passed over."""
    while True:
        block = (await response.content.readuntil(b"\n\n")).decode().removesuffix("\n\n")
        if not block.startswith(":"):
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            body: dict[str, Any] = json.loads(fields["data"])
            assert (body["id"], body["type"]) == (fields["id"], fields["event"])
            return body


async def test_events_come_as_they_happen(site: Site) -> None:
    async with listening(site, "?room=demo", token=token("viewer")) as stream:
        await site.publish(token("participant", sub="ann"))
        event = await next_event(stream)
        assert (event["type"], event["room"], event["data"]["id"]) == ("participant.joined", "demo", "ann")
        assert {"id", "type", "room", "time", "data"} == set(event)


async def test_a_listener_that_comes_back_misses_nothing(site: Site) -> None:
    async with listening(site, "?room=demo") as stream:
        await site.ok("PATCH", "/v1/rooms/demo", json={"language": "fr"})
        seen = (await next_event(stream))["id"]
    await site.ok("PATCH", "/v1/rooms/demo", json={"language": "de"})
    async with listening(site, "?room=demo", **{"Last-Event-ID": seen}) as stream:
        assert (await next_event(stream))["data"]["language"] == "de"


async def test_silence_is_filled_with_heartbeats(site: Site) -> None:
    async with listening(site) as stream:
        assert (await stream.content.readuntil(b"\n\n")).startswith(b":")


async def test_events_of_other_rooms_are_not_heard(site: Site) -> None:
    await site.ok("POST", "/v1/rooms", json={"name": "other"}, status=201)
    async with listening(site, token=token("viewer")) as stream:  # without a room: the token's own
        await site.ok("PATCH", "/v1/rooms/other", json={"language": "fr"})
        await site.ok("PATCH", "/v1/rooms/demo", json={"language": "nl"})
        assert (await next_event(stream))["data"]["language"] == "nl"
    await site.refused(403, "GET", "/v1/events?room=other", token=token("viewer"))
    await site.refused(404, "GET", "/v1/events?room=nowhere")
    await site.refused(422, "GET", "/v1/events", headers={"Last-Event-ID": "9" * 5000})


async def test_streams_end_when_the_server_does(site: Site) -> None:
    async with listening(site) as stream:
        await site.app.shutdown()
        while chunk := await stream.content.read(1000):
            assert chunk.strip() in {b"", b":"}


# --- health and figures ------------------------------------------------------------------------------------


async def test_the_archivers_word_is_passed_on(site: Site) -> None:
    """What the archiver reports, operators see; the public page learns no more than that something is wrong."""
    assert (await site.ok("GET", "/readyz", token=None))["archive"] == "unknown"
    places = Places(first=Place(folder="/x"), second=Place(folder="/y"))
    Report(site.spool, places).write(Situation(waiting=3, waiting_second=2, second="x is full"), time.time())
    answer = await site.ok("GET", "/readyz", token=None)
    assert answer == {"status": "ready", "archive": "failing"}
    text = await (await site.ask("GET", "/metrics")).text()
    for line in (
        'mosaique_archive_waiting{store="first"} 1.0', 'mosaique_archive_waiting{store="second"} 2.0',
        'mosaique_archive_store_up{store="first"} 1.0', 'mosaique_archive_store_up{store="second"} 0.0',
    ):  # fmt: skip
        assert line in text


async def test_health_needs_no_token_and_readiness_follows_the_registry(site: Site) -> None:
    await site.ok("GET", "/healthz", token=None)
    await site.ok("GET", "/readyz", token=None)
    await site.registry.drain(grace_s=1)
    await site.refused(503, "GET", "/readyz", token=None)
    await site.ok("GET", "/healthz", token=None)
    await site.refused(503, "POST", "/whip/demo", data=OFFER, headers=SDP)


async def test_figures_for_prometheus(site: Site) -> None:
    await site.publish(token("participant", sub="ann"))
    await site.refused(404, "GET", "/v1/rooms/nowhere")
    response = await site.ask("GET", "/metrics")
    text = await response.text()
    assert response.content_type == "text/plain"
    assert "mosaique_rooms 1.0" in text
    assert 'mosaique_participants{kind="webrtc",room="demo"} 1.0' in text
    assert 'mosaique_ticks_total{kind="audio",outcome="run",room="demo"} 1.0' in text
    assert 'mosaique_http_requests_total{method="GET",route="/v1/rooms/{room}",status="404"} 1.0' in text
    assert "nowhere" not in text


async def test_a_worker_that_does_not_answer_is_left_out_of_a_scrape(site: Site) -> None:
    await site.publish(token("participant", sub="ann"))

    async def never(room: str) -> dict[str, Any]:
        raise TimeoutError

    site.registry.stats = never  # type: ignore[method-assign]  # the worker is what is played here
    assert "mosaique_rooms 1.0" in await (await site.ask("GET", "/metrics")).text()


# --- problems ----------------------------------------------------------------------------------------------


async def test_aiohttps_own_errors_are_problems_too(site: Site) -> None:
    await site.refused(404, "GET", "/nothing/here")
    response = await site.ask("PUT", "/v1/rooms")
    await check_problem(response, 405)
    assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}


async def test_a_mistake_of_ours_says_nothing_of_the_inside(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("the inside: /etc/secret")

    site.registry.rooms = broken  # type: ignore[method-assign, assignment]  # a bug, played
    body = await site.refused(500, "GET", "/v1/rooms")
    assert "inside" not in json.dumps(body)
    assert body["instance"].startswith("urn:uuid:")


def test_every_error_that_a_request_can_end_in_has_a_status() -> None:
    for error, (status, title) in STATUS.items():
        assert 400 <= status < 600
        assert title
        assert issubclass(error, Exception)
    with pytest.raises(StopIteration):
        problem_of(ValueError())  # type: ignore[arg-type]  # not of our tree: the middleware never asks for it


async def test_every_answer_carries_the_safe_headers(site: Site) -> None:
    for path in (
        "/",
        "/v1/rooms",
        "/nothing",
        "/openapi.json",
        "/docs",
        f"/v1/recordings/{site.archived}/media",
    ):
        headers = (await site.ask("GET", path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Server"] == "mosaique"
        assert "Cache-Control" in headers


# --- pages -------------------------------------------------------------------------------------------------


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Site]:
    """A site whose pages are known to the test."""
    web = tmp_path / "web"
    (web / "static").mkdir(parents=True)
    (web / "index.html").write_text("<!doctype html>" + "hello " * 100)
    (web / "room.html").write_text("<!doctype html>a room")
    (web / "static" / "app.js").write_text("export {};")
    (web / "static" / ".hidden").write_text("no")
    running = await Site(tmp_path / "data", web_directory=web).start()
    yield running
    await running.stop()


async def test_pages_need_no_token_and_are_kept_by_browsers(small: Site) -> None:
    response = await small.ask("GET", "/", token=None, headers={"Accept-Encoding": "identity"})
    assert (response.status, response.content_type, response.charset) == (200, "text/html", "utf-8")
    tag = response.headers["ETag"]
    again = await small.ask(
        "GET", "/", token=None, headers={"If-None-Match": tag, "Accept-Encoding": "identity"}
    )
    assert (again.status, await again.read()) == (304, b"")
    packed = await small.ask("GET", "/", token=None, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["ETag"] != tag
    assert await packed.read() == await response.read()
    head = await small.ask("HEAD", "/", token=None, headers={"Accept-Encoding": "identity"})
    assert (head.headers["Content-Length"], await head.read()) == (response.headers["Content-Length"], b"")


async def test_static_files_and_nothing_else(small: Site) -> None:
    response = await small.ask("GET", "/static/app.js", token=None)
    assert (response.status, response.content_type) == (200, "text/javascript")
    assert (await small.ask("GET", "/r/any-room", token=None)).status == 200
    for path in (
        "/r/No",
        "/static/.hidden",
        "/static/",
        "/static/../index.html",
        "/static/%2e%2e%2findex.html",
        "/static/a",
    ):
        await small.refused(404, "GET", path, token=None)


async def test_the_shipped_pages_are_served(site: Site) -> None:
    for path in ("/", "/r/demo", "/admin", "/archive"):
        response = await site.ask("GET", path, token=None)
        assert response.status == 200, path
        for asset in re.findall(r'(?:src|href)="(/static/[^"#?]+)', await response.text()):
            assert (await site.ask("GET", asset, token=None)).status == 200, asset


# --- the open door -----------------------------------------------------------------------------------------


async def test_on_ones_own_machine_a_room_is_entered_by_its_page(site: Site) -> None:
    first = await site.ok("POST", "/join/salon", json={"name": "Ann"}, token=None, status=201)
    assert (first["room"], first["role"]) == ("salon", "moderator")
    await site.publish(first["token"], "salon")
    second = await site.ok("POST", "/join/salon", json={"name": "Bob"}, token=None, status=201)
    assert (second["role"], second["sub"] != first["sub"]) == ("participant", True)
    (ann,) = await site.ok("GET", "/v1/rooms/salon/participants", token=second["token"])
    assert ann["name"] == "Ann"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "mixer.example"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=x"},
        {"Host": "evil.test:80"},
        {"Host": "[::"},
    ],
)
async def test_a_proxy_or_another_name_in_front_shuts_it(site: Site, headers: dict[str, str]) -> None:
    await site.refused(403, "POST", "/join/demo", json={"name": "Ann"}, token=None, headers=headers)


async def test_the_operator_decides(tmp_path: Path) -> None:
    shut = await Site(tmp_path / "a", auth={"open_rooms": False}).start()
    await shut.refused(403, "POST", "/join/demo", json={"name": "Ann"}, token=None)
    await shut.stop()
    wide = await Site(tmp_path / "b", auth={"open_rooms": True}).start()
    await wide.ok("POST", "/join/demo", json={}, token=None, headers={"Host": "mixer.example"}, status=201)
    await wide.refused(
        404, "POST", "/join/fresh", json={}, token=None
    )  # rooms.auto_create is another question
    await wide.stop()


async def test_another_sites_form_cannot_join(site: Site) -> None:
    await site.refused(
        415, "POST", "/join/demo", data=b'{"name": "x"}', token=None, headers={"Content-Type": "text/plain"}
    )
    await site.refused(422, "POST", "/join/demo", json={"name": "x" * 81}, token=None)
    await site.refused(404, "POST", "/join/No", json={}, token=None)


# --- the description ---------------------------------------------------------------------------------------


async def test_the_description_is_valid_openapi_3_1_and_complete(site: Site) -> None:
    document = await site.ok("GET", "/openapi.json", token=None)
    validate(document)
    assert document["openapi"].startswith("3.1")
    described = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    registered = {
        (
            route.method,
            re.sub(r"\{(\w+):[^{}]+\}", r"{\1}", route.resource.canonical if route.resource else ""),
        )
        for route in site.app.router.routes()
        if route.method != "HEAD"  # comes with its GET
    }
    assert described == registered == {(route.method, route.template) for route in site.app[ROUTES]}
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


async def test_statuses_that_happen_are_described(site: Site) -> None:
    document = await site.ok("GET", "/openapi.json", token=None)
    for method, path, concrete, kwargs in [
        ("POST", "/v1/rooms", "/v1/rooms", {"json": {}}),
        ("POST", "/v1/rooms", "/v1/rooms", {"data": b"{"}),
        ("POST", "/v1/rooms", "/v1/rooms", {"json": {"name": "demo"}}),
        ("GET", "/v1/rooms/{room}", "/v1/rooms/nowhere", {}),
        ("GET", "/v1/rooms", "/v1/rooms", {"token": None}),
        ("POST", "/whip/{room}", "/whip/demo", {"data": b"x"}),
        ("GET", "/v1/recordings", "/v1/recordings?limit=0", {}),
        (
            "GET",
            "/v1/recordings/{id}/media",
            f"/v1/recordings/{site.archived}/media",
            {"headers": {"Range": "bytes=9999999-"}},
        ),
    ]:
        status = (await site.ask(method, concrete, **kwargs)).status
        assert str(status) in document["paths"][path][method.lower()]["responses"], (method, path, status)


async def test_the_page_of_the_description_needs_no_script(site: Site) -> None:
    response = await site.ask("GET", "/docs", token=None)
    text = await response.text()
    assert "<script" not in text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    for route in site.app[ROUTES]:
        assert f"<code>{route.template}</code>" in text
    problem = await site.refused(404, "GET", "/v1/rooms/nowhere")
    assert f"id='{problem['type'].split('#')[1]}'" in text
