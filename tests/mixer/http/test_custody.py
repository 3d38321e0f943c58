"""Hold, retention, deletion, fixity and the audit log over HTTP: what binds, what is told, what is refused."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from recording.premis import NAMESPACE
from tests.fakes.memory_store import MemoryStore
from tests.mixer.http.site import FILM, Site, token

ARCHIVIST = token("archivist", room="*", sub="rita")
LATER = (datetime.now(UTC) + timedelta(days=30)).isoformat()
SOONER = (datetime.now(UTC) + timedelta(days=3)).isoformat()
UNKNOWN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def acts(site: Site, recording: str | None = None) -> list[str]:
    """What the audit log says, oldest first."""
    query = f"?recording={recording}" if recording else ""
    page = await site.ok("GET", f"/v1/audit{query}", token=ARCHIVIST)
    return [item["act"] for item in reversed(page["items"])]


async def events(site: Site, wanted: str) -> list[dict[str, Any]]:
    return [event.data for event in site.registry.hub._history if event.type == wanted]


async def test_a_hold_is_placed_told_and_ended(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}"
    held = await site.ok("PUT", f"{path}/hold", token=ARCHIVIST, json={"reason": "case 12"})
    assert held["hold"]["reason"] == "case 12"
    assert held["hold"]["by"] == "rita"
    again = await site.ok("PUT", f"{path}/hold", token=ARCHIVIST, json={"reason": "case 12"})
    assert again["hold"] == held["hold"]
    assert (await site.ok("GET", path, token=ARCHIVIST))["hold"] == held["hold"]
    refusal = await site.refused(409, "DELETE", path, token=ARCHIVIST)
    assert "held by rita: case 12" in refusal["detail"]
    free = await site.ok("DELETE", f"{path}/hold", token=ARCHIVIST, json={"reason": "closed"})
    assert free["hold"] is None
    assert (await site.ok("DELETE", f"{path}/hold", token=ARCHIVIST))["hold"] is None
    found = await site.ok("GET", "/v1/recordings?only=held", token=ARCHIVIST)
    assert found["items"] == []
    assert [data["reason"] for data in await events(site, "recording.hold")] == ["case 12", "case 12"]
    assert await acts(site, site.archived) == ["hold", "hold", "delete-refused", "release", "release"]


async def test_retention_is_set_lengthened_shortened(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}"
    kept = await site.ok("PATCH", f"{path}/retention", token=ARCHIVIST, json={"until": LATER})
    assert datetime.fromisoformat(kept["retention"]["until"]) == datetime.fromisoformat(LATER).replace(
        microsecond=datetime.fromisoformat(kept["retention"]["until"]).microsecond
    )
    await site.refused(409, "DELETE", path, token=ARCHIVIST)
    await site.ok("PATCH", f"{path}/retention", token=ARCHIVIST, json={"until": SOONER})
    gone = await site.ok("PATCH", f"{path}/retention", token=ARCHIVIST, json={"until": None})
    assert gone["retention"] is None


async def test_under_compliance_it_is_only_lengthened(tmp_path: Path) -> None:
    site = await Site(tmp_path / "strict", archive={"retention_mode": "compliance"}).start()
    try:
        path = f"/v1/recordings/{site.archived}/retention"
        await site.ok("PATCH", path, json={"until": SOONER})
        await site.ok("PATCH", path, json={"until": LATER})
        for until in (SOONER, None):
            assert (
                "only be made longer"
                in (await site.refused(409, "PATCH", path, json={"until": until}))["detail"]
            )
    finally:
        await site.stop()


async def test_deletion_leaves_a_tombstone_that_anybody_can_check(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}"
    files = await site.ok("GET", f"{path}/files", token=ARCHIVIST)
    told = await site.ok("DELETE", path, token=ARCHIVIST, json={"reason": "end of its time"})
    assert (told["by"], told["reason"]) == ("rita", "end of its time")
    assert told["files"] == files
    tombstone = await site.ok("GET", f"{path}/tombstone", token=ARCHIVIST)
    assert tombstone["act"] == told
    pem = await (await site.ask("GET", "/v1/archive/key", token=ARCHIVIST)).read()
    key = load_pem_public_key(pem)
    assert isinstance(key, Ed25519PublicKey)
    statement = json.dumps(tombstone["act"], sort_keys=True, separators=(",", ":")).encode()
    key.verify(bytes.fromhex(tombstone["signature"]), statement)
    info = await site.ok("GET", path, token=ARCHIVIST)
    assert (info["state"], info["participants"]) == ("deleted", [])
    assert info["deleted"]["reason"] == "end of its time"
    found = await site.ok("GET", "/v1/recordings?state=deleted&q=council", token=ARCHIVIST)
    assert [item["id"] for item in found["items"]] == [site.archived]
    for method, part in (
        ("GET", "/media"),
        ("GET", "/bag"),
        ("POST", "/verify"),
        ("DELETE", ""),
        ("GET", "/files"),
    ):
        await site.refused(409, method, path + part, token=ARCHIVIST)
    await site.refused(409, "PUT", f"{path}/hold", token=ARCHIVIST, json={"reason": "late"})
    premis = ET.fromstring(await (await site.ask("GET", f"{path}/premis", token=ARCHIVIST)).read())
    assert [e.text for e in premis.iter(f"{{{NAMESPACE}}}eventType")] == ["deletion"]


async def test_the_note_can_be_corrected(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}"
    changed = await site.ok("PATCH", path, token=ARCHIVIST, json={"note": "Conseil municipal"})
    assert changed["note"] == "Conseil municipal"
    count = len((await site.ok("GET", "/v1/recordings?q=conseil", token=ARCHIVIST))["items"])
    assert count == 1
    assert (await site.ok("GET", "/v1/recordings?q=council", token=ARCHIVIST))["items"] == []
    assert (await site.ok("POST", f"{path}/verify", token=ARCHIVIST))["ok"], "the package is as it was sealed"
    await site.ok("PATCH", path, token=token("moderator"), json={"note": "by the room's moderator"})
    await site.refused(403, "PATCH", path, token=token("moderator", room="other"), json={"note": "x"})
    await site.refused(403, "PATCH", path, token=ARCHIVIST, json={"state": "stopped"})
    for body in ({"state": "stopped", "note": "x"}, {}, {"note": None}, {"note": "x" * 2001}, {"note": 1}):
        await site.refused(422, "PATCH", path, token=ARCHIVIST, json=body)


@pytest.mark.parametrize(
    ("method", "part", "body"),
    [
        ("PUT", "/hold", {}),
        ("PUT", "/hold", {"reason": ""}),
        ("PUT", "/hold", {"reason": "  "}),
        ("PUT", "/hold", {"reason": "x" * 1001}),
        ("PUT", "/hold", {"reason": "a\0b"}),
        ("PUT", "/hold", {"reason": "x", "by": "me"}),
        ("PATCH", "/retention", {}),
        ("PATCH", "/retention", {"until": "2020-01-01T00:00:00Z"}),
        ("PATCH", "/retention", {"until": "tomorrow"}),
        ("PATCH", "/retention", {"until": "0001-01-01T00:00:00+14:00"}),
        ("DELETE", "", {"reason": ""}),
        ("DELETE", "", []),
    ],
)
async def test_wrong_bodies_are_422(site: Site, method: str, part: str, body: object) -> None:
    problem = await site.refused(
        422, method, f"/v1/recordings/{site.archived}{part}", token=ARCHIVIST, json=body
    )
    assert problem["errors"] or body == []
    assert (await site.ok("GET", f"/v1/recordings/{site.archived}"))["state"] == "archived"


async def test_unknown_recordings_are_404(site: Site) -> None:
    for name in (UNKNOWN, "x", "..%2f..%2fetc", "%00", "a" * 300):
        await site.refused(404, "PUT", f"/v1/recordings/{name}/hold", json={"reason": "x"})
        await site.refused(404, "PATCH", f"/v1/recordings/{name}/retention", json={"until": None})
        await site.refused(404, "DELETE", f"/v1/recordings/{name}")
        for part in ("tombstone", "premis"):
            await site.refused(404, "GET", f"/v1/recordings/{name}/{part}")
    await site.refused(404, "GET", f"/v1/audit?recording={UNKNOWN}")
    await site.refused(409, "GET", f"/v1/recordings/{site.archived}/tombstone")


async def test_a_live_recording_is_not_deleted(site: Site) -> None:
    made = await site.ok("POST", "/v1/rooms/demo/recordings", status=201)
    refusal = await site.refused(409, "DELETE", f"/v1/recordings/{made['id']}", token=ARCHIVIST)
    assert "only an archived or a failed one" in refusal["detail"]


# --- fixity ------------------------------------------------------------------------------------------------


def stream(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        kind, data = block.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_verification_is_told_as_it_goes(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}/verify"
    headers = {"Accept": "text/event-stream"}
    response = await site.ask("POST", path, token=ARCHIVIST, headers=headers)
    assert response.content_type == "text/event-stream"
    *_, (kind, result) = stream(await response.text())
    assert kind == "result"
    assert result["ok"]
    assert result["bytes"] > len(FILM)
    info = await site.ok("GET", f"/v1/recordings/{site.archived}", token=ARCHIVIST)
    assert info["checked"] is not None
    assert info["damaged"] == []


async def test_damage_is_named_in_the_recording_its_premis_and_the_metrics(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}"
    film = next(site.settings.data_dir.rglob("archive/**/recording.mp4"))
    film.chmod(0o600)
    film.write_bytes(FILM[:-1] + b"\x00")
    *_, (_, result) = stream(
        await (await site.ask("POST", f"{path}/verify", headers={"Accept": "text/event-stream"})).text()
    )
    assert not result["ok"]
    assert (await site.ok("GET", path))["damaged"] == ["data/recording.mp4"]
    assert len((await site.ok("GET", "/v1/recordings?only=damaged"))["items"]) == 1
    premis = await (await site.ask("GET", f"{path}/premis", token=ARCHIVIST)).text()
    assert ">fail<" in premis
    assert "data/recording.mp4" in premis
    kept = [item.key for item in site.store.list() if item.key.endswith(".premis/00001.xml")]
    assert len(kept) == 1, "and it lies beside the package"
    metrics = await (await site.ask("GET", "/metrics")).text()
    assert "mosaique_recordings_damaged 1.0" in metrics
    assert 'mosaique_fixity_checks_total{outcome="failed"} 1.0' in metrics


async def test_a_stream_of_what_cannot_be_verified_is_a_409(site: Site) -> None:
    made = await site.ok("POST", "/v1/rooms/demo/recordings", status=201)
    path = f"/v1/recordings/{made['id']}/verify"
    await site.refused(409, "POST", path, token=ARCHIVIST, headers={"Accept": "text/event-stream"})


# --- audit -------------------------------------------------------------------------------------------------


async def test_who_read_what_is_told_once_a_while(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}"
    for _ in range(5):
        await site.ask("GET", f"{path}/media", token=ARCHIVIST, headers={"Range": "bytes=0-99"})
    await site.ask("GET", f"{path}/media", token=token("archivist", room="*", sub="tom"))
    await site.ask("HEAD", f"{path}/media", token=token("archivist", room="*", sub="nobody"))
    await site.ask("GET", f"{path}/files/data/chapters.vtt", token=ARCHIVIST)
    await site.ask("GET", f"{path}/bag", token=ARCHIVIST)
    await site.ok("POST", f"{path}/verify", token=ARCHIVIST)
    page = await site.ok("GET", f"/v1/audit?recording={site.archived}", token=ARCHIVIST)
    told = [(item["act"], item["by"], item["detail"].get("path")) for item in reversed(page["items"])]
    assert told == [
        ("read", "rita", "data/recording.mp4"), ("read", "tom", "data/recording.mp4"),
        ("read", "rita", "data/chapters.vtt"), ("export", "rita", None), ("verify", "rita", None),
    ]  # fmt: skip
    assert all(item["role"] == "archivist" for item in page["items"])
    assert site.holdings.audit.verify(site.holdings.keys).ok


async def test_the_audit_comes_page_by_page(site: Site) -> None:
    path = f"/v1/recordings/{site.archived}/hold"
    for number in range(5):
        await site.ok("PUT", path, json={"reason": f"case {number}"})
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = await site.ok("GET", f"/v1/audit?limit=2&cursor={cursor}", token=ARCHIVIST)
        seen += [item["detail"]["reason"] for item in page["items"]]
        cursor = page["cursor"]
    assert seen == [f"case {number}" for number in (4, 3, 2, 1, 0)]
    for query in ("cursor=x", "cursor=..%2f..-1", "limit=0", "limit=501", "room=x", "cursor=" + "9" * 300):
        await site.refused(422, "GET", f"/v1/audit?{query}", token=ARCHIVIST)


async def test_an_archivist_of_one_room_hears_of_that_room(site: Site) -> None:
    other = site.archive_film("other", b"film")
    for recording in (site.archived, other):
        await site.ok("PUT", f"/v1/recordings/{recording}/hold", json={"reason": "x"})
    mine = token("archivist", room="other")
    page = await site.ok("GET", "/v1/audit", token=mine)
    assert [item["recording"] for item in page["items"]] == [other]
    await site.refused(403, "GET", f"/v1/audit?recording={site.archived}", token=mine)
    await site.refused(403, "PUT", f"/v1/recordings/{site.archived}/hold", token=mine, json={"reason": "x"})
    await site.refused(403, "DELETE", f"/v1/recordings/{site.archived}", token=mine)


async def test_what_cannot_be_logged_is_not_given_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/v1/recordings/{site.archived}"

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for part in ("/media", "/bag", "/files/bagit.txt"):
        problem = await site.refused(503, "GET", path + part, token=ARCHIVIST)
        assert "audit log cannot be written" in problem["detail"]


# --- links -------------------------------------------------------------------------------------------------


class LinkingStore(MemoryStore):
    """Gives links, as an S3 store does."""

    def presign(self, key: str, ttl_s: int, *, filename: str, media_type: str) -> str | None:
        return f"https://store.example/{key}?ttl={ttl_s}&name={filename}&type={media_type}"


async def test_who_can_follow_gets_a_link_of_15_minutes(tmp_path: Path) -> None:
    site = await Site(tmp_path / "links", store=LinkingStore(), archive={"redirect": "auto"}).start()
    try:
        path = f"/v1/recordings/{site.archived}/media"
        response = await site.ask("GET", path, token=ARCHIVIST)
        assert response.status == 302
        assert response.headers["Location"].startswith("https://store.example/demo/")
        assert "ttl=900" in response.headers["Location"]
        assert response.headers["Cache-Control"] == "no-store"
        etag = (await site.ask("HEAD", path, token=ARCHIVIST)).headers["ETag"]
        conditional = await site.ask("GET", path, token=ARCHIVIST, headers={"If-None-Match": etag})
        assert conditional.status == 304
        for mode in ("cors", "no-cors", "same-origin"):  # a page's fetch, and its <video>
            proxied = await site.ask("GET", path, token=ARCHIVIST, headers={"Sec-Fetch-Mode": mode})
            assert (proxied.status, await proxied.read()) == (200, FILM)
        assert await acts(site, site.archived) == ["link", "read"]
    finally:
        await site.stop()


async def test_without_the_setting_there_is_no_link(tmp_path: Path) -> None:
    site = await Site(tmp_path / "off", store=LinkingStore()).start()
    try:
        response = await site.ask("GET", f"/v1/recordings/{site.archived}/media", token=ARCHIVIST)
        assert response.status == 200
    finally:
        await site.stop()
