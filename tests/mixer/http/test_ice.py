"""Which relay clients are told of: as JSON, as links, to whom, and under which address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mixer.http.ice import IceServers
from mixer.relay import Listening
from mixer.relay_book import CREDENTIAL_S, RelayBook
from mixer.settings import Settings
from tests.mixer.http.site import OFFER, SDP, Site, token


@pytest.fixture
async def relayed(tmp_path: Path) -> AsyncIterator[Site]:
    turn = {
        "urls": "stun:relay.example:3478,turn:relay.example:3478?transport=udp,turns:relay.example:5349",
        "secret": "s",
    }
    running = await Site(tmp_path, turn=turn).start()
    yield running
    await running.stop()


async def test_ice_servers_come_as_links_and_as_json(relayed: Site) -> None:
    stun, turn = await relayed.ok("GET", "/v1/ice-servers", token=token("viewer", sub="ann"))
    assert stun == {"urls": ["stun:relay.example:3478"]}
    assert len(turn["urls"]) == 2
    assert turn["username"].endswith(":ann")
    response = await relayed.ask(
        "POST", "/whip/demo", data=OFFER, headers=SDP, token=token("participant", sub="ann")
    )
    links = response.headers.getall("Link")
    assert links[0] == '<stun:relay.example:3478>; rel="ice-server"'
    assert len(links) == 3
    assert 'credential-type="password"' in links[2]
    assert links[2].startswith("<turns:relay.example:5349>")


async def test_another_sites_page_may_read_the_links(relayed: Site) -> None:
    response = await relayed.ask(
        "POST",
        "/whip/demo",
        data=OFFER,
        headers={**SDP, "Origin": "https://else.example"},
        token=token("participant"),
    )
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Link" in response.headers["Access-Control-Expose-Headers"].split(", ")


@pytest.mark.parametrize(
    ("path", "who", "links"),
    [
        ("/whip/demo", None, 0),
        ("/whip/demo", "nonsense", 0),
        ("/whip/demo", token("viewer"), 0),  # who may not publish gets no servers to publish by
        ("/whip/demo", token("participant", room="else"), 0),
        ("/whip/demo", token("participant"), 3),
        ("/whep/demo", token("viewer"), 3),
    ],
)
async def test_options_name_the_servers_to_whom_they_are_for(
    relayed: Site, path: str, who: str | None, links: int
) -> None:
    response = await relayed.ask("OPTIONS", path, token=who)
    assert response.status == 204, "a preflight is answered, whatever its token"
    assert len(response.headers.getall("Link", [])) == links


async def test_callers_with_the_admin_token_share_neither_quota_nor_end(relayed: Site) -> None:
    names = [(await relayed.ok("GET", "/v1/ice-servers"))[1]["username"] for _ in range(2)]
    subjects = {name.partition(":")[2] for name in names}
    assert len(subjects) == 2
    response = await relayed.ask("POST", "/whip/demo", data=OFFER, headers=SDP)
    guest = (await relayed.ok("GET", "/v1/rooms/demo/participants"))[0]["id"]
    assert f':{guest}"' in response.headers.getall("Link")[2]


class _Running:
    """The embedded relay as the HTTP side sees it."""

    is_up = True
    restarts = 0

    def __init__(self, *sockets: tuple[str, int]) -> None:
        self.figures = None
        self.listening: list[Listening] = [(kind, "0.0.0.0", port) for kind, port in sockets]


ALL_WAYS = (("tls", 5349), ("udp", 3478), ("tls", 443), ("tcp", 3478))


@pytest.mark.parametrize(
    ("settings", "sockets", "asked", "urls"),
    [
        (
            {}, ALL_WAYS, "meet.example:8443",
            ["turn:meet.example:3478?transport=udp", "turn:meet.example:3478?transport=tcp",
             "turns:meet.example:443?transport=tcp"],
        ),
        ({}, [("udp", 1)], "[2001:db8::1]:80", ["turn:[2001:db8::1]:1?transport=udp"]),
        ({"media": {"public_ip": "198.51.100.7"}}, [("udp", 1)], "x", ["turn:198.51.100.7:1?transport=udp"]),
        (
            {"media": {"public_ip": "198.51.100.7"}, "turn": {"public_host": "relay.example"}}, [("udp", 1)], "x",
            ["turn:relay.example:1?transport=udp"],
        ),
        ({"media": {"public_ip": "2001:db8::7"}}, [("udp", 1)], "x", ["turn:[2001:db8::7]:1?transport=udp"]),
        ({"turn": {"urls": "turn:else.example"}}, ALL_WAYS, "x", ["turn:else.example"]),
        (
            {"turn": {"mode": "coturn"}}, [], "meet.example",
            ["turn:meet.example:3478?transport=udp", "turn:meet.example:3478?transport=tcp"],
        ),
        ({}, [], "meet.example", []),  # not up yet
        ({}, ALL_WAYS, 'x>; rel="y"', []),  # a host that is none
        ({"turn": {"mode": "off"}}, ALL_WAYS, "x", []),
        ({"turn": {"enabled": False}}, ALL_WAYS, "x", []),
    ],
)  # fmt: skip
def test_urls_follow_from_what_listens_and_what_the_relay_is_called(
    settings: dict[str, Any], sockets: list[tuple[str, int]], asked: str, urls: list[str]
) -> None:
    tree = Settings.model_validate({**settings, "turn": {"secret": "s", **settings.get("turn", {})}})
    servers = IceServers(tree, _Running(*sockets), RelayBook(), clock=lambda: 0.0).servers("ann", asked)
    assert [url for server in servers for url in server["urls"]] == urls
    assert all(server["username"] == f"{CREDENTIAL_S}:ann" for server in servers)


async def test_no_relay_is_an_empty_list(site: Site) -> None:
    assert await site.ok("GET", "/v1/ice-servers") == []
