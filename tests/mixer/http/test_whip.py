"""WHIP and WHEP as RFC 9725 has them: headers, conditions, CORS, errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixer.http.whip import FRAGMENT, entity_tag
from tests.fakes.host import ANSWER_SDP
from tests.mixer.http.site import OFFER, SDP, Site, token

TRICKLE = {"Content-Type": FRAGMENT}


@pytest.mark.parametrize("kind", ["whip", "whep"])
async def test_an_offer_makes_a_session_that_can_be_deleted(site: Site, kind: str) -> None:
    response = await site.ask("POST", f"/{kind}/demo", data=OFFER, headers=SDP)
    assert response.status == 201
    assert response.content_type == "application/sdp"
    assert await response.text() == ANSWER_SDP
    location = response.headers["Location"]
    assert location.startswith(f"/{kind}/demo/")
    assert response.headers["ETag"] == entity_tag(location.rsplit("/", 1)[1])
    assert "Link" not in response.headers
    assert (await site.ask("DELETE", location)).status == 200
    await site.refused(404, "DELETE", location)
    await site.refused(404, "PATCH", location, data="a=", headers=TRICKLE)


async def test_the_content_type_may_carry_parameters(site: Site) -> None:
    headers = {"Content-Type": "Application/SDP; charset=utf-8"}
    assert (await site.ask("POST", "/whip/demo", data=OFFER, headers=headers)).status == 201


async def test_candidates_are_added_under_the_right_tag(site: Site) -> None:
    location = await site.publish()
    tag = entity_tag(location.rsplit("/", 1)[1])
    for condition in ({}, {"If-Match": tag}, {"If-Match": "*"}, {"If-Match": f'"x", {tag}'}):
        response = await site.ask("PATCH", location, data="a=mid:0\r\n", headers={**TRICKLE, **condition})
        assert response.status == 204
    await site.refused(412, "PATCH", location, data="a=mid:0\r\n", headers={**TRICKLE, "If-Match": '"x"'})


async def test_what_is_no_sdp_is_refused_by_its_kind(site: Site) -> None:
    location = await site.publish()
    await site.refused(415, "POST", "/whip/demo", data=OFFER, headers={"Content-Type": "text/plain"})
    response = await site.ask("POST", "/whip/demo", json={"sdp": OFFER})
    assert (response.status, response.headers["Accept-Post"]) == (415, "application/sdp")
    response = await site.ask("PATCH", location, data=OFFER, headers=SDP)
    assert (response.status, response.headers["Accept-Patch"]) == (415, FRAGMENT)
    for nonsense in (b"", b" \r\n", b"hello", b"\xff\xfe", b"v=0\r\n\x00"):
        await site.refused(400, "POST", "/whip/demo", data=nonsense, headers=SDP)
    for nonsense in (b"", b"\xff\xfe"):
        await site.refused(400, "PATCH", location, data=nonsense, headers=TRICKLE)


async def test_rooms_that_are_not_there(site: Site) -> None:
    await site.refused(404, "POST", "/whip/nowhere", data=OFFER, headers=SDP)
    await site.refused(404, "POST", "/whep/nowhere", data=OFFER, headers=SDP)
    for name in ("No", "a_b", "-a", "a" * 64, "a%2fb", "a%00b", "%ff"):
        await site.refused(404, "POST", f"/whip/{name}", data=OFFER, headers=SDP)


async def test_a_room_is_made_for_whoever_may_publish_there(tmp_path: Path) -> None:
    site = await Site(tmp_path, rooms={"auto_create": True}).start()
    await site.refused(403, "POST", "/whip/fresh", data=OFFER, headers=SDP, token=token("participant"))
    await site.refused(
        403, "POST", "/whip/fresh", data=OFFER, headers=SDP, token=token("viewer", room="fresh")
    )
    await site.refused(404, "GET", "/v1/rooms/fresh")
    await site.publish(token("participant", room="fresh"), "fresh")
    await site.ok("GET", "/v1/rooms/fresh")
    await site.refused(404, "POST", "/whip/No", data=OFFER, headers=SDP)
    await site.stop()


async def test_renditions_and_whose_voice_is_left_out(site: Site) -> None:
    watch = await site.ask("POST", "/whep/demo?rendition=low&participant=bob", data=OFFER, headers=SDP)
    assert watch.status == 201
    session = watch.headers["Location"].rsplit("/", 1)[1]
    offer = site.host.open_rooms["demo"].sessions[session]
    assert (offer.publish, offer.rendition, offer.minus) == (False, "low", "bob")
    body = await site.refused(422, "POST", "/whep/demo?rendition=huge", data=OFFER, headers=SDP)
    assert body["errors"][0]["loc"] == ["query", "rendition"]
    await site.refused(422, "POST", "/whep/demo?participant=" + "x" * 129, data=OFFER, headers=SDP)


async def test_who_refuses_to_be_recorded_says_so_with_the_offer(site: Site) -> None:
    ann = token("participant", sub="ann")
    first = await site.ask("POST", "/whip/demo?recorded=false", data=OFFER, headers=SDP, token=ann)
    assert first.status == 201
    session = first.headers["Location"].rsplit("/", 1)[1]
    assert site.host.open_rooms["demo"].sessions[session].participant.recorded is False
    again = await site.ask("POST", "/whip/demo", data=OFFER, headers=SDP, token=ann)
    session = again.headers["Location"].rsplit("/", 1)[1]
    assert site.host.open_rooms["demo"].sessions[session].participant.recorded is False, (
        "a reload agrees to nothing"
    )
    assert (await site.ok("GET", "/v1/rooms/demo/participants"))[0]["recorded"] is False
    await site.refused(422, "POST", "/whip/demo?recorded=perhaps", data=OFFER, headers=SDP, token=ann)


async def test_a_session_belongs_to_who_made_it(site: Site) -> None:
    location = await site.publish(token("participant", sub="ann"))
    other = token("participant", sub="bob")
    await site.refused(403, "PATCH", location, data="a=", headers=TRICKLE, token=other)
    await site.refused(403, "DELETE", location, token=other)
    await site.refused(404, "DELETE", location.replace("/demo/", "/other/"), token=token("admin", room="*"))
    assert (await site.ask("DELETE", location, token=token("moderator", sub="mod"))).status == 200


async def test_preflight_and_cors(site: Site) -> None:
    location = await site.publish()
    for path, accepted in (("/whip/demo", "Accept-Post"), (location, "Accept-Patch")):
        response = await site.ask("OPTIONS", path, token=None, headers={"Origin": "https://else.example"})
        assert response.status == 204
        assert response.headers[accepted] in {"application/sdp", FRAGMENT}
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
        assert "PATCH" in response.headers["Access-Control-Allow-Methods"]
    response = await site.ask("POST", "/whep/demo", data=OFFER, headers=SDP)
    assert {"Location", "ETag", "Link"} <= {
        h.strip() for h in response.headers["Access-Control-Expose-Headers"].split(",")
    }
    response = await site.ask("POST", "/whip/demo", token=None, data=OFFER, headers=SDP)
    assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (401, "*")
    assert "Access-Control-Allow-Origin" not in (await site.ask("GET", "/v1/rooms")).headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_reserved_methods_are_405(site: Site, method: str) -> None:
    # RFC 9725 section 4.1: GET, HEAD and PUT on the endpoint
    response = await site.ask(method, "/whip/demo")
    assert response.status == 405
    assert "POST" in response.headers["Allow"]
