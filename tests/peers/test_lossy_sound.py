"""The room's page in real browsers on lines that lose 5 % in bursts of five: sound is repeated, both ways."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser import BrowserName, Page, launch
from tests.peers.publishers import ffmpeg
from tests.peers.spare import with_time_to_spare
from tests.peers.test_page import join
from tests.peers.test_shaped_browsers import KEEP_CONNECTIONS
from tests.serving import Server
from tests.shaper import Way, bursts, shaping

CLEAN = Way(delay_s=0.05)
LINE = Way(delay_s=0.05, burst=bursts(0.05))
BEGIN_S = 4.0  # both sides see that the line loses
WATCH_S = 20.0
# Measured before there were repairs, 20 s each: Chromium 3.5 and 4.7 %, at the server 4.7 and 6.0 %; with them 1.5 %
# and 1.1 %. Firefox takes no RED and asks for nothing, but answers: 5.0 % before, 3.8 after, at the server 5.0 and 2.8.
MOST_CONCEALED = {"chromium": 0.03, "firefox": 0.07}

SOUND = """(async () => {
  const found = {received: 0, concealed: 0, nacks: 0, resent: 0, codecs: []};
  // one that misses an answer in a burst says "disconnected" for a moment, and goes on
  for (const pc of window.connections) if (["connected", "disconnected"].includes(pc.connectionState)) {
    const all = await pc.getStats();
    for (const one of all.values()) if (one.kind === "audio") {
      if (one.type === "inbound-rtp") {
        found.received += one.totalSamplesReceived ?? 0;
        found.concealed += one.concealedSamples ?? 0;
        found.nacks += one.nackCount ?? 0;
        found.codecs.push(all.get(one.codecId)?.mimeType);
      }
      if (one.type === "outbound-rtp") found.resent += one.retransmittedPacketsSent ?? 0;
    }
  }
  return JSON.stringify(found);
})()"""


async def sound(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await page.evaluate(SOUND))
    return found


@pytest.mark.peer("ffmpeg8")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.peer(name)) for name in ("chromium", "firefox")]
)
@with_time_to_spare
async def test_bursts_of_loss_are_mended_both_ways(server: Server, name: BrowserName, tmp_path: Path) -> None:
    room = server.room(f"bursts-{name}")
    speaker = server.enter(room, name="speaker")

    def heard() -> dict[str, Any]:
        return server.call("GET", f"/v1/rooms/{room}/stats")["participants"]  # type: ignore[no-any-return]

    with (
        shaping(server.url, seed=7, up=CLEAN, down=CLEAN) as shaper,
        ffmpeg(
            f"{server.url}/whip/{room}", speaker["token"], tmp_path / "log", rgb=(20, 60, 160), tone_hz=440
        ),
    ):
        async with launch(name) as page:
            await join(page, f"{shaper.url}/r/{room}", "Anna far away", prepare=KEEP_CONNECTIONS)
            await asyncio.to_thread(shaper.shape, up=LINE, down=LINE)
            await asyncio.sleep(BEGIN_S)  # a browser and a line: seen from outside only
            before, heard_before = await sound(page), await asyncio.to_thread(heard)
            await asyncio.sleep(WATCH_S)
            after, heard_after = await sound(page), await asyncio.to_thread(heard)
    (anna,) = heard_after.keys() - {speaker["sub"]}
    told = f"{before}\n{after}\n{heard_after[anna]}"
    received = after["received"] - before["received"]
    assert received > 0.8 * WATCH_S * 44_100, told
    assert (after["concealed"] - before["concealed"]) / received < MOST_CONCEALED[name], told
    invented = heard_after[anna]["concealed_samples"] - heard_before[anna]["concealed_samples"]
    assert invented / (WATCH_S * 48_000) < 0.04, told
    assert after["resent"] - before["resent"] > 10, f"the browser answers our requests: {told}"
    if name == "chromium":
        assert after["nacks"] > before["nacks"], f"it asks for what it lost: {told}"
