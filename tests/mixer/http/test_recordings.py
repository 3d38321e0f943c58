"""Recordings over HTTP: live ones, and the archived package with ranges, files, bag and verification."""

from __future__ import annotations

import hashlib
import io
import zipfile

import pytest

from mixer.http.holdings import RECORDING
from tests.mixer.http.site import FILM, Site, token

ARCHIVIST = token("archivist", room="*")


async def test_start_pause_resume_stop(site: Site) -> None:
    made = await site.ok("POST", "/v1/rooms/demo/recordings", status=201, json={"note": "hello"})
    path = f"/v1/recordings/{made['id']}"
    assert made["state"] == "recording"
    assert (await site.ok("GET", "/v1/rooms/demo"))["recording"]["id"] == made["id"]
    again = await site.refused(409, "POST", "/v1/rooms/demo/recordings", json={})
    assert again["id"] == made["id"]
    for state in ("paused", "recording", "paused"):
        assert (await site.ok("PATCH", path, json={"state": state}))["state"] == state
        assert (await site.ok("GET", path))["state"] == state
    await site.ok("PATCH", path, json={"state": "stopped"})
    assert (await site.ok("GET", path))["state"] == "sealing"
    await site.refused(409, "PATCH", path, json={"state": "recording"})
    await site.refused(409, "GET", f"{path}/media")


async def test_a_moderator_rules_the_recordings_of_the_own_room_only(site: Site) -> None:
    made = await site.ok("POST", "/v1/rooms/demo/recordings", status=201, token=token("moderator"))
    path = f"/v1/recordings/{made['id']}"
    await site.refused(403, "PATCH", path, json={"state": "stopped"}, token=token("moderator", room="other"))
    await site.refused(403, "PATCH", path, json={"state": "stopped"}, token=token("participant"))
    await site.ok("PATCH", path, json={"state": "stopped"}, token=token("moderator"))


@pytest.mark.parametrize("body", [{"state": "gone"}, {}, {"state": "paused", "more": 1}, [], "paused"])
async def test_wrong_changes_are_422(site: Site, body: object) -> None:
    made = await site.ok("POST", "/v1/rooms/demo/recordings", status=201)
    problem = await site.refused(422, "PATCH", f"/v1/recordings/{made['id']}", json=body)
    assert problem["errors"]


async def test_unknown_recordings_are_404(site: Site) -> None:
    for name in ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "x", "..%2f..%2fetc", "%00", "a" * 300):
        for method, part in (
            ("GET", ""),
            ("GET", "/media"),
            ("GET", "/files"),
            ("GET", "/bag"),
            ("POST", "/verify"),
        ):
            await site.refused(404, method, f"/v1/recordings/{name}{part}")


async def test_what_is_known_of_an_archived_one(site: Site) -> None:
    info = await site.ok("GET", f"/v1/recordings/{site.archived}", token=ARCHIVIST)
    assert (info["state"], info["room"], info["duration"], info["size"]) == (
        "archived",
        "demo",
        10,
        len(FILM),
    )
    assert info["sha256"] == hashlib.sha256(FILM).hexdigest()
    assert info["participants"][0]["name"] == "Ann"
    assert (info["retention"], info["hold"], info["note"]) == (None, None, "council meeting")
    assert set(info) == set(RECORDING["properties"]), "what OpenAPI says"
    assert info["loudness"] == {"integrated_lufs": -23.4, "range_lu": 5.1, "true_peak_dbtp": -1.5}
    found = await site.ok("GET", "/v1/recordings", token=ARCHIVIST)
    assert [item["loudness"] for item in found["items"] if item["id"] == site.archived] == [info["loudness"]]


# --- media -------------------------------------------------------------------------------------------------


async def test_the_whole_film(site: Site) -> None:
    response = await site.ask("GET", f"/v1/recordings/{site.archived}/media", token=ARCHIVIST)
    assert (response.status, await response.read()) == (200, FILM)
    assert response.content_type == "video/mp4"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["ETag"].startswith('"')
    assert "private" in response.headers["Cache-Control"]
    assert response.headers["Content-Disposition"] == f'inline; filename="demo-{site.archived}.mp4"'


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=-7", len(FILM) - 7, len(FILM)),
        ("bytes=300000-", 300000, len(FILM)),
    ],
)
async def test_a_part_of_the_film(site: Site, wanted: str, start: int, end: int) -> None:
    response = await site.ask("GET", f"/v1/recordings/{site.archived}/media", headers={"Range": wanted})
    assert (response.status, await response.read()) == (206, FILM[start:end])
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(FILM)}"
    assert int(response.headers["Content-Length"]) == end - start


async def test_a_part_that_is_not_there_is_416(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}/media"
    response = await site.ask("GET", path, headers={"Range": f"bytes={len(FILM)}-"})
    assert response.headers["Content-Range"] == f"bytes */{len(FILM)}"
    await site.refused(416, "GET", path, headers={"Range": f"bytes={len(FILM)}-"})


async def test_conditions(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}/media"
    tag = (await site.ask("HEAD", path)).headers["ETag"]
    part = {"Range": "bytes=0-9"}
    assert (await site.ask("GET", path, headers={"If-None-Match": tag})).status == 304
    assert (await site.ask("GET", path, headers={"If-Range": tag, **part})).status == 206
    assert (await site.ask("GET", path, headers={"If-Range": '"x"', **part})).status == 200
    await site.refused(412, "GET", path, headers={"If-Match": '"x"'})


async def test_head_says_the_same_without_the_body(site: Site) -> None:
    for part in ("media", "files/data/recording.mp4"):
        path = f"/v1/recordings/{site.archived}/{part}"
        head, get = await site.ask("HEAD", path), await site.ask("GET", path)
        assert (head.status, await head.read()) == (200, b"")
        for name in ("Content-Length", "Content-Type", "ETag", "Accept-Ranges"):
            assert head.headers[name] == get.headers[name]
        head = await site.ask("HEAD", path, headers={"Range": "bytes=0-9"})
        assert (head.status, head.headers["Content-Length"]) == (206, "10")


# --- files, bag, verification ------------------------------------------------------------------------------


async def test_every_file_of_the_package(site: Site) -> None:
    files = await site.ok("GET", f"/v1/recordings/{site.archived}/files", token=ARCHIVIST)
    assert {"data/recording.mp4", "data/timeline.jsonl", "bagit.txt", "recording.json"} <= {
        f["path"] for f in files
    }
    for file in files:
        response = await site.ask(
            "GET", f"/v1/recordings/{site.archived}/files/{file['path']}", token=ARCHIVIST
        )
        content = await response.read()
        assert (response.status, len(content)) == (200, file["size"])
        assert hashlib.sha256(content).hexdigest() == file["sha256"]


@pytest.mark.parametrize(
    "path",
    ["..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/recording.json", "data", "data/", "lock", "a%00b", "x" * 3000],
)
async def test_no_other_file(site: Site, path: str) -> None:
    await site.refused(404, "GET", f"/v1/recordings/{site.archived}/files/{path}")


async def test_the_bag_is_a_zip_of_all_of_it(site: Site) -> None:
    response = await site.ask("GET", f"/v1/recordings/{site.archived}/bag", token=ARCHIVIST)
    assert response.content_type == "application/zip"
    bag = zipfile.ZipFile(io.BytesIO(await response.read()))
    assert bag.testzip() is None
    assert bag.read(f"{site.archived}/data/recording.mp4") == FILM


async def test_verify_names_what_was_changed(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}/verify"
    assert (await site.ok("POST", path, token=ARCHIVIST))["ok"] is True
    film = next(site.settings.data_dir.rglob("archive/**/recording.mp4"))
    film.chmod(0o600)
    film.write_bytes(FILM[:-1] + b"\x00")
    report = await site.ok("POST", path, token=ARCHIVIST)
    assert report["ok"] is False
    assert [file["path"] for file in report["files"] if not file["ok"]] == ["data/recording.mp4"]


# --- search ------------------------------------------------------------------------------------------------


async def test_search_newest_first_page_by_page(site: Site) -> None:
    made = [site.archived, *(site.archive_film(film=b"film") for _ in range(4))]
    found: list[str] = []
    path = "/v1/recordings?limit=2&room=demo"
    for _ in range(3):
        response = await site.ask("GET", path, token=ARCHIVIST)
        page = await response.json()
        found += [item["id"] for item in page["items"]]
        if page["cursor"] is None:
            assert "Link" not in response.headers
            break
        path = response.headers["Link"].removeprefix("<").split(">")[0]
    assert sorted(found) == sorted(made)
    assert found[-1] == site.archived


async def test_search_by_what_is_known(site: Site) -> None:
    async def count(query: str) -> int:
        return len((await site.ok("GET", f"/v1/recordings?{query}", token=ARCHIVIST))["items"])

    assert site.archived

    assert (
        await count("q=council")
        == await count("q=ann")
        == await count("state=archived")
        == await count("room=")
        == 1
    )
    assert await count("q=budget") == await count("state=failed") == await count("room=other") == 0
    assert (
        await count("from=2026-11-22T00:00:00Z&to=2099-01-01T00:00:00%2B01:00")
        == await count("from=2026-11-22T00:00:00")
        == 1
    )
    assert await count("to=2026-11-21T00:00:00Z") == 0


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=1000",
        "state=lost",
        "from=yesterday",
        "cursor=nonsense",
        "sort=up",
        "only=lost",
        "cursor=_________98",
        "q=" + "a" * 300,
        "participant=" + "é" * 300,
        "room=" + "a" * 300,
        "cursor=" + "A" * 300,
    ],
)
async def test_wrong_queries_are_422(site: Site, query: str) -> None:
    problem = await site.refused(422, "GET", f"/v1/recordings?{query}")
    assert problem["errors"][0]["loc"] == ["query", query.partition("=")[0]]


@pytest.mark.parametrize(
    "text",
    ["%00", "..%2f..%2fetc", "%22*", "'%20OR%201=1", "NEAR(a%20b)", "a%ef%bf%bf", "%e2%80%a8", "é" * 200],
)
async def test_any_text_may_be_searched_for(site: Site, text: str) -> None:
    assert site.archived
    for name in ("q", "participant", "room"):
        if name != "room" or len(text) <= 63:
            await site.ok("GET", f"/v1/recordings?{name}={text}", token=ARCHIVIST)


async def test_an_archivist_of_one_room_sees_that_room(site: Site) -> None:
    other = site.archive_film("other", b"film")
    mine = await site.ok("GET", "/v1/recordings", token=token("archivist", room="other"))
    assert [item["id"] for item in mine["items"]] == [other]
    await site.refused(403, "GET", "/v1/recordings?room=demo", token=token("archivist", room="other"))
    await site.refused(
        403, "GET", f"/v1/recordings/{site.archived}/media", token=token("archivist", room="other")
    )
