"""The room's page in real browsers over a bad line: 5 % loss and 50 ms each way, both ways."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.browser import BrowserError, BrowserName, Page, launch
from tests.peers.publishers import ffmpeg
from tests.peers.spare import with_time_to_spare
from tests.peers.test_page import SHOWN, join
from tests.serving import Server
from tests.shaper import Way, shaping

LINE = Way(delay_s=0.05, loss=0.05)
WATCH_S = 12
LONGEST_PAUSE_S = (
    4.0  # a stop that people would reload the page for; a busy machine makes short ones by itself
)
STILL_SHARE = 0.5
CONCEALED_SHARE = 0.25

# The page's connections, to be asked for their statistics: what a <video> does not tell.
KEEP_CONNECTIONS = """(() => {
  const Native = window.RTCPeerConnection;
  window.connections = [];
  window.RTCPeerConnection = class extends Native {
    constructor(...all) { super(...all); window.connections.push(this); }
  };
})()"""

SEES_BOTH = f"(luma => luma && Math.max(...luma) - Math.min(...luma) > 25)({SHOWN})"

# Ten looks a second: the moments at which further pictures had been decoded, and what had been heard by then.
WATCH = f"""(async () => {{
  const told = async () => {{
    const found = {{framesDecoded: 0, concealedSamples: 0, totalSamplesReceived: 0, totalAudioEnergy: 0}};
    for (const pc of window.connections) if (pc.connectionState === "connected")
      for (const one of (await pc.getStats()).values()) if (one.type === "inbound-rtp")
        for (const name of Object.keys(found)) found[name] += one[name] ?? 0;
    return found;
  }};
  const started = performance.now(), elapsed = () => (performance.now() - started) / 1000;
  const changes = [], sounds = [await told()];
  let before = sounds[0];
  while (elapsed() < {WATCH_S}) {{
    await new Promise(resolve => setTimeout(resolve, 100));
    const now = await told();
    if (now.framesDecoded > before.framesDecoded) changes.push(elapsed());
    before = now;
    if (elapsed() > sounds.length * {WATCH_S} / 3) sounds.push(now);
  }}
  return {{changes, sounds: [...sounds, await told()], seconds: elapsed()}};
}})()"""


async def watched(page: Page) -> dict[str, Any]:
    """What the page decoded for `WATCH_S`."""
    found: dict[str, Any] = await page.evaluate(WATCH, timeout_s=3 * WATCH_S)
    return found


def pauses(found: dict[str, Any]) -> list[float]:
    """Seconds between two looks that found further pictures."""
    times = [0.0, *found["changes"], found["seconds"]]
    return [after - before for before, after in itertools.pairwise(times)]


@pytest.mark.peer("ffmpeg8")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.peer(name)) for name in ("chromium", "firefox")]
)
@with_time_to_spare
async def test_a_person_on_a_bad_line_is_seen_and_sees(
    server: Server, name: BrowserName, tmp_path: Path
) -> None:
    room = server.room(f"shaped-{name}")
    speaker = server.enter(room, name="speaker")
    with (
        shaping(server.url, seed=7, up=LINE, down=LINE) as shaper,
        ffmpeg(
            f"{server.url}/whip/{room}", speaker["token"], tmp_path / "log", rgb=(20, 60, 160), tone_hz=440
        ),
    ):
        async with launch(name) as page:
            await join(page, f"{shaper.url}/r/{room}", "Anna far away", prepare=KEEP_CONNECTIONS)
            try:
                await page.wait_for(SEES_BOTH, timeout_s=60)  # oneself moves, the speaker is one colour
            except BrowserError as error:
                error.add_note(str(server.call("GET", f"/v1/rooms/{room}/stats")))
                raise
            before = server.call("GET", f"/v1/rooms/{room}/stats")["participants"]
            found = await watched(page)
            after = server.call("GET", f"/v1/rooms/{room}/stats")["participants"]
            lines = await asyncio.to_thread(shaper.lines)
    told = f"{found}\n{lines}\n{after}"
    assert sum(line[way]["lost"] for line in lines.values() for way in ("up", "down")) > 50, told

    # what the person sees and hears
    stops = pauses(found)
    assert max(stops) <= LONGEST_PAUSE_S, told
    assert sum(stop for stop in stops if stop > 0.5) <= STILL_SHARE * found["seconds"], told
    first, *_, last = found["sounds"]
    received = last["totalSamplesReceived"] - first["totalSamplesReceived"]
    assert received > 0.8 * WATCH_S * 44_100, told
    assert last["concealedSamples"] - first["concealedSamples"] < CONCEALED_SHARE * received, told
    energies = [sound["totalAudioEnergy"] for sound in found["sounds"]]
    assert energies == sorted(energies), told
    assert energies[-1] > energies[1] > energies[0], told  # to the end there is someone to hear

    # what the room has of the person
    (anna,) = after.keys() - {speaker["sub"]}
    gained = {key: after[anna][key] - before[anna][key] for key in ("decoded", "received", "frozen_ms")}
    assert gained["decoded"] > 5 * WATCH_S, told
    assert gained["received"] > 30 * WATCH_S, told
    assert gained["frozen_ms"] <= STILL_SHARE * 1000 * WATCH_S, told
