"""Rooms, people, layouts, tokens: what the contract says of each, and how each says no."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mixer.http.layouts import prefers_json
from tests.fakes.host import PIXEL
from tests.mixer.http.site import Site, token

# --- rooms -------------------------------------------------------------------------------------------------


async def test_a_room_lives(site: Site) -> None:
    response = await site.ask(
        "POST", "/v1/rooms", json={"name": "north", "pin": "481516234200", "language": "fr"}
    )
    assert (response.status, response.headers["Location"]) == (201, "/v1/rooms/north")
    assert "481516234200" not in await response.text()
    await site.refused(409, "POST", "/v1/rooms", json={"name": "north"})
    assert [room["name"] for room in await site.ok("GET", "/v1/rooms")] == ["demo", "north"]
    changed = await site.ok("PATCH", "/v1/rooms/north", json={"language": "de", "pin": None})
    assert (changed["language"], changed["has_pin"]) == ("de", False)
    await site.ok("DELETE", "/v1/rooms/north", status=204)
    for method in ("GET", "DELETE"):
        await site.refused(404, method, "/v1/rooms/north")
    await site.refused(404, "PATCH", "/v1/rooms/north", json={})


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, ["name"]),
        ({"name": "No Spaces"}, ["name"]),
        ({"name": "x" * 64}, ["name"]),
        ({"name": "a\n"}, None),
        ({"name": "n", "pin": "12"}, ["pin"]),
        ({"name": "n", "pin": 1234}, ["pin"]),
        ({"name": "n", "owner": "me"}, ["owner"]),
        ({"name": "n", "max_participants": 10**400}, ["max_participants"]),
        ({"name": "n", "layout": {"preset": "pile"}}, ["layout", "preset"]),
        ([], []),
        ("n", []),
        (None, []),
    ],
)
async def test_wrong_fields_are_named(site: Site, body: Any, loc: list[str] | None) -> None:
    if loc is None:  # space around a name is taken off
        assert (await site.ok("POST", "/v1/rooms", json=body, status=201))["name"] == "a"
        return
    problem = await site.refused(422, "POST", "/v1/rooms", data=json.dumps(body))
    assert [error["loc"] for error in problem["errors"]] == [loc]
    assert "1234" not in str(problem)


async def test_a_list_shows_what_the_token_covers(site: Site) -> None:
    await site.ok("POST", "/v1/rooms", json={"name": "north"}, status=201)
    mine = await site.ok("GET", "/v1/rooms", token=token("moderator", room="north"))
    assert [room["name"] for room in mine] == ["north"]


async def test_an_admin_of_one_room_makes_no_other(site: Site) -> None:
    own = token("admin", room="north")
    await site.refused(403, "POST", "/v1/rooms", json={"name": "south"}, token=own)
    await site.ok("POST", "/v1/rooms", json={"name": "north"}, token=own, status=201)


async def test_picture_and_figures(site: Site) -> None:
    response = await site.ask("GET", "/v1/rooms/demo/snapshot.png", token=token("viewer"))
    assert (response.status, response.content_type, await response.read()) == (200, "image/png", PIXEL)
    stats = await site.ok("GET", "/v1/rooms/demo/stats", token=token("moderator"))
    assert set(stats) >= {"participants", "renditions", "ticks", "queues"}


# --- tokens ------------------------------------------------------------------------------------------------


async def test_a_token_opens_what_it_was_made_for(site: Site) -> None:
    made = await site.ok(
        "POST",
        "/v1/rooms/demo/tokens",
        json={"role": "moderator", "name": "Mo", "sub": "mo", "ttl": 60},
        status=201,
    )
    assert set(made) == {"token", "sub", "expires_at"}
    assert made["sub"] == "mo"
    assert 0 < (datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)).total_seconds() <= 60
    await site.ok("GET", "/v1/rooms/demo/stats", token=made["token"])
    await site.refused(403, "GET", "/v1/rooms/other/stats", token=made["token"])


async def test_each_token_without_a_subject_is_somebody_new(site: Site) -> None:
    subs = {
        (await site.ok("POST", "/v1/rooms/demo/tokens", json={"role": "viewer"}, status=201))["sub"]
        for _ in range(3)
    }
    assert len(subs) == 3


@pytest.mark.parametrize(
    "body",
    [{}, {"role": "owner"}, {"role": "viewer", "ttl": 0}, {"role": "viewer", "ttl": 10**9},
     {"role": "viewer", "sub": "a/b"}, {"role": "viewer", "sub": ""}, {"role": "viewer", "name": "x" * 81},
     {"role": "viewer", "name": "a\u202eb"}],
)  # fmt: skip
async def test_no_token_for_wrong_fields(site: Site, body: dict[str, Any]) -> None:
    await site.refused(422, "POST", "/v1/rooms/demo/tokens", json=body)
    await site.refused(404, "POST", "/v1/rooms/nowhere/tokens", json={"role": "viewer"})


# --- people ------------------------------------------------------------------------------------------------


async def test_the_roster_and_what_a_moderator_changes(site: Site) -> None:
    await site.publish(token("participant", sub="ann"))
    (ann,) = await site.ok("GET", "/v1/rooms/demo/participants", token=token("viewer"))
    assert {"id", "name", "kind", "muted", "video_muted", "speaking", "hand", "joined_at"} <= set(ann)
    assert (ann["id"], ann["name"], ann["kind"]) == ("ann", "Ann", "webrtc")
    path = "/v1/rooms/demo/participants/ann"
    changed = await site.ok(
        "PATCH", path, json={"muted": True, "volume": 0.5}, token=token("moderator", sub="mo")
    )
    assert (changed["muted"], changed["volume"]) == (True, 0.5)
    await site.ok("DELETE", path, token=token("moderator", sub="mo"), status=204)
    await site.refused(404, "DELETE", path)
    await site.refused(404, "PATCH", path, json={})
    assert await site.ok("GET", "/v1/rooms/demo/participants") == []


async def test_a_participant_speaks_for_themself_only(site: Site) -> None:
    ann, bob = token("participant", sub="ann"), token("participant", sub="bob")
    await site.publish(ann)
    path = "/v1/rooms/demo/participants/ann"
    changed = await site.ok("PATCH", path, json={"hand": True, "muted": True, "name": "Anna"}, token=ann)
    assert (changed["hand"], changed["muted"], changed["name"]) == (True, True, "Anna")
    assert (changed["agc"], changed["noise_suppression"]) == (False, False)
    changed = await site.ok("PATCH", path, json={"agc": True, "noise_suppression": True}, token=ann)
    assert (changed["agc"], changed["noise_suppression"]) == (True, True)
    assert (await site.ok("PATCH", path, json={"recorded": False}, token=ann))["recorded"] is False
    await site.refused(403, "PATCH", path, json={"recorded": True}, token=bob)
    await site.refused(403, "PATCH", path, json={"recorded": True}, token=token("moderator", sub="mo"))
    assert (await site.ok("PATCH", path, json={"recorded": True}, token=ann))["recorded"] is True
    moderated = await site.ok("PATCH", path, json={"recorded": False}, token=token("moderator", sub="mo"))
    assert moderated["recorded"] is False, "a moderator may leave somebody out, not take them in"
    await site.refused(403, "PATCH", path, json={"hand": False}, token=bob)
    await site.refused(403, "PATCH", path, json={"volume": 4}, token=ann)
    await site.refused(403, "DELETE", path, token=ann)
    assert (await site.ok("GET", "/v1/rooms/demo/participants"))[0]["hand"] is True


@pytest.mark.parametrize(
    "body",
    [
        {"agc": "much"},
        {"volume": 5},
        {"volume": "loud"},
        {"name": ""},
        {"name": "a\u0007"},
        {"role": "admin"},
        [],
    ],
)
async def test_wrong_changes_of_people_are_422(site: Site, body: Any) -> None:
    await site.publish(token("participant", sub="ann"))
    await site.refused(422, "PATCH", "/v1/rooms/demo/participants/ann", json=body)


# --- layouts -----------------------------------------------------------------------------------------------


async def test_a_layout_is_replaced_and_rolled_back(site: Site) -> None:
    path = "/v1/rooms/demo/layout"
    first = await site.ok("GET", path, token=token("viewer"))
    assert (first["version"], first["preset"]) == (1, "grid")
    assert await site.ok("PUT", path, json={"preset": "speaker"}, token=token("moderator")) == {"version": 2}
    assert await site.ok("POST", f"{path}/rollback", json={"version": 1}) == {"version": 3}
    versions = await site.ok("GET", f"{path}/versions")
    assert [entry["version"] for entry in versions] == [3, 2, 1]
    assert (await site.ok("GET", path))["preset"] == "grid"
    await site.refused(404, "POST", f"{path}/rollback", json={"version": 99})
    for body in ({}, {"version": "1"}, {"version": 0}, {"version": 1, "x": 1}):
        await site.refused(422, "POST", f"{path}/rollback", json=body)


async def test_what_was_read_may_be_put_back(site: Site) -> None:
    path = "/v1/rooms/demo/layout"
    assert await site.ok("PUT", path, json=await site.ok("GET", path)) == {"version": 2}


@pytest.mark.parametrize(
    "body",
    [
        {"preset": "pile"}, {"canvas": {"width": 1281}}, {"preset": "custom"}, {"max_tiles": 0}, {"colour": "red"},
        {"preset": "custom", "regions": [{"id": "a", "x": "1/2", "width": "1", "height": "1"}]},
        {"preset": "custom", "regions": [{"id": "a", "width": "1/0", "height": "1"}]},
        {"preset": "custom", "regions": [{"id": "a", "width": "1", "height": "1", "source": "cat"}]}, [], 7,
    ],
)  # fmt: skip
async def test_wrong_layouts_are_422_and_change_nothing(site: Site, body: Any) -> None:
    for method, path in (("PUT", "/v1/rooms/demo/layout"), ("POST", "/v1/rooms/demo/layout/preview")):
        problem = await site.refused(422, method, path, json=body)
        assert problem["errors"]
    assert (await site.ok("GET", "/v1/rooms/demo/layout"))["version"] == 1


async def test_a_preview_is_a_picture_or_its_rectangles(site: Site) -> None:
    await site.publish(token("participant", sub="ann"))
    path = "/v1/rooms/demo/layout/preview"
    response = await site.ask("POST", path, json={"preset": "speaker"})
    assert (response.content_type, await response.read()) == ("image/png", PIXEL)
    body = await site.ok("POST", path, json={"preset": "speaker"}, headers={"Accept": "application/json"})
    assert set(body) == {"tiles", "cost"}
    assert set(body["tiles"][0]) >= {"id", "participant", "x", "y", "width", "height", "z"}
    assert set(body["cost"]) == {"cpu_cores", "kbps"}
    assert (await site.ok("GET", "/v1/rooms/demo/layout"))["version"] == 1


@pytest.mark.parametrize(
    ("accept", "as_json"),
    [
        ("*/*", False), ("", False), ("image/png", False), ("application/json", True), ("application/*", True),
        ("application/json, */*", False), ("application/json, */*;q=0.5", True),
        ("image/*, application/json;q=0.9", False), ("application/json;q=nonsense", False), ("text/html", False),
    ],
)  # fmt: skip
def test_accept(accept: str, as_json: bool) -> None:
    assert prefers_json(accept) is as_json


async def test_the_presets(site: Site) -> None:
    presets = await site.ok("GET", "/v1/layouts", token=token("archivist"))
    names = {preset["preset"] for preset in presets}
    assert names == {"grid", "speaker", "spotlight", "side-by-side", "pip", "presentation", "custom"}
