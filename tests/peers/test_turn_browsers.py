"""Browsers that may use a relay only join by UDP, by TCP, by TLS, and find the way that is open by themselves."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Final

import pytest

from mixer.settings import TurnSettings
from tests.browser import BrowserName, Page, launch
from tests.peers.relays import Relayed
from tests.peers.test_page import join, sees_motion

# Keeps the connections that the page makes, for their statistics, and changes the URLs that it was given: a firewall
# is played by what is left of them.
SPY: Final = """(() => {{
  window.connections = [];
  const change = {change};
  window.RTCPeerConnection = class extends RTCPeerConnection {{
    constructor(options) {{
      const changed = options.iceServers.map(s => ({{...s, urls: s.urls.flatMap(change)}}));
      const iceServers = changed.filter(s => s.urls.length);
      super({{...options, iceServers}});
      this.urls = iceServers.flatMap(s => s.urls);
      connections.push(this);
    }}
  }};
}})()"""

# Of each connection that is in use: how its datagrams leave, `host` or by which transport they reach the relay.
WAYS: Final = """(async () => Promise.all(connections.filter(c => c.connectionState === "connected").map(async c => {
  const stats = [...(await c.getStats()).values()];
  const chosen = stats.find(s => s.type === "transport")?.selectedCandidatePairId;
  const pair = stats.find(s => chosen ? s.id === chosen : s.type === "candidate-pair" && s.selected);
  const local = stats.find(s => s.id === pair?.localCandidateId);
  return local?.candidateType === "relay" ? local.relayProtocol : local?.candidateType;
})))()"""


async def _joined(page: Page, relayed: Relayed, room: str, change: str) -> None:
    room = relayed.server.room(room)
    spy = SPY.format(change=change)
    await join(page, f"{relayed.server.url}/r/{room}?relay=1", f"{page.name} {room}", prepare=spy)
    await sees_motion(page)


async def _goes_by(page: Page, way: str) -> None:
    """Watching and publishing both, once both are connected and their statistics have been gathered."""
    found: list[str] = []
    for _ in range(200):
        found = await page.evaluate(WAYS)
        if found == [way, way]:
            return
        await asyncio.sleep(0.1)  # a browser's figures come when they do
    pytest.fail(f"{page.name} goes by {found}, not by {way}")


@pytest.mark.peer("certutil")
@pytest.mark.parametrize("way", ["udp", "tcp", "tls"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.peer(name)) for name in ("chromium", "firefox")]
)
async def test_a_browser_joins_by_the_relay_only(relayed: Relayed, name: BrowserName, way: str) -> None:
    ending = {"udp": "transport=udp", "tcp": "transport=tcp", "tls": "transport=tcp"}[way]
    scheme = "turns:" if way == "tls" else "turn:"
    change = f"url => url.startsWith({json.dumps(scheme)}) && url.endsWith({json.dumps(ending)}) ? [url] : []"
    async with launch(name, authority=relayed.authority) as page:
        await _joined(page, relayed, f"{name}-{way}", change)
        assert await page.evaluate("connections.map(c => c.urls.length)") == [1, 1]
        await _goes_by(page, way)


@pytest.fixture
def hole() -> Iterator[int]:
    """A port on which UDP and TCP are swallowed, as firewalls that are shut do: bound, and never read."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(16)
        udp.bind(tcp.getsockname())
        yield tcp.getsockname()[1]


@pytest.mark.peer("certutil", "chromium")
async def test_with_only_tls_open_the_page_gets_there_by_itself(relayed: Relayed, hole: int) -> None:
    change = f"url => [url.startsWith('turns:') ? url : url.replace(/:[0-9]+[?]/, ':{hole}?')]"
    async with launch("chromium", authority=relayed.authority) as page:
        await _joined(page, relayed, "closed", change)
        urls: list[list[str]] = await page.evaluate("connections.map(c => c.urls)")
        assert [len(each) for each in urls] == [3, 3]
        assert all(f":{hole}?" in url for each in urls for url in each[:2])
        await _goes_by(page, "tls")


@pytest.mark.peer("certutil", "chromium")
@pytest.mark.parametrize("relayed", ["embedded"], indirect=True)
async def test_a_page_that_needs_no_relay_stays_within_its_quota(relayed: Relayed) -> None:
    """A browser allocates by each URL, for each connection, on each interface, before it knows what it needs."""
    async with launch("chromium", authority=relayed.authority) as page:
        room = relayed.server.room("many")
        await join(page, f"{relayed.server.url}/r/{room}", "Anna")
        await sees_motion(page)
        text: bytes = relayed.server.call("GET", "/metrics", accept="text/plain")
        figures = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
        held = float(figures["mosaique_relay_allocations"])
        print(f"a page of Chromium's holds {held:.0f} allocations")
        assert 0 < held <= TurnSettings().user_quota
        assert not [name for name in figures if 'reason="user quota"' in name], figures
