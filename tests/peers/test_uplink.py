"""Real browsers send what their tile shows: a large picture while it is large, a small one soon after."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest

from mixer.webrtc.client import WebRtcClient
from tests.browser import BrowserName, Page, launch
from tests.peers.spare import with_time_to_spare
from tests.serving import Server

BROWSERS = [pytest.param(name, marks=pytest.mark.peer(name)) for name in ("chromium", "firefox")]
# A picture that costs bits: noise that jumps about. The browsers' own test pictures are so simple that 300 kbit/s
# of them are 720p already.
PUBLISH: Final = """(async (url, token, encodings) => {
  const noise = new OffscreenCanvas(1600, 900), paint = noise.getContext('2d');
  const image = paint.createImageData(1600, 900);
  for (let i = 0; i < image.data.length; i += 4) {
    image.data[i] = image.data[i + 1] = image.data[i + 2] = 90 + Math.random() * 20; image.data[i + 3] = 255;
  }
  paint.putImageData(image, 0, 0);
  const canvas = document.createElement('canvas'); canvas.width = 1280; canvas.height = 720;
  const ink = canvas.getContext('2d');
  let step = 0;
  setInterval(() => {
    step += 1;
    ink.drawImage(noise, -(step * 7 % 320), -(step * 5 % 180));
    ink.fillStyle = `hsl(${step % 360} 80% 50%)`; ink.fillRect(step * 9 % 1280, 300, 200, 200);
  }, 33);
  const stream = canvas.captureStream(30);
  const pc = window.pc = new RTCPeerConnection();
  const sound = new AudioContext(), tone = sound.createOscillator(), out = sound.createMediaStreamDestination();
  tone.connect(out); tone.start();
  pc.addTrack(out.stream.getAudioTracks()[0], out.stream);
  const options = {direction: 'sendonly', streams: [stream]};
  if (encodings) options.sendEncodings = encodings;
  pc.addTransceiver(stream.getVideoTracks()[0], options);
  await pc.setLocalDescription();
  await new Promise(done => {
    pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done();
    if (pc.iceGatheringState === 'complete') done();
  });
  const answer = await fetch(url, {method: 'POST', body: pc.localDescription.sdp,
    headers: {'Content-Type': 'application/sdp', 'Authorization': `Bearer ${token}`}});
  window.answer = await answer.text();
  await pc.setRemoteDescription({type: 'answer', sdp: window.answer});
  return window.answer;
})"""


def layout(height: int) -> dict[str, Any]:
    """One tile of ``height`` rows on a canvas of 720."""
    share = f"{height}/720"
    return {
        "preset": "custom",
        "regions": [{"id": "one", "x": "0", "y": "0", "width": share, "height": share, "source": "any"}],
    }


class Room:
    """One browser that publishes, and a viewer that takes ``high``, so that somebody looks."""

    def __init__(self, server: Server, name: str, page: Page, sub: str) -> None:
        self.server, self.name, self.page, self.sub = server, name, page, sub

    async def show(self, height: int) -> None:
        await asyncio.to_thread(self.server.call, "PUT", f"/v1/rooms/{self.name}/layout", layout(height))

    async def figures(self) -> dict[str, Any]:
        stats = await asyncio.to_thread(self.server.call, "GET", f"/v1/rooms/{self.name}/stats")
        found: dict[str, Any] = stats["participants"].get(self.sub, {})
        return found

    async def until(self, condition: Callable[[dict[str, Any]], bool], what: str, timeout_s: float) -> float:
        """Seconds until the room's figures of the publisher fulfil ``condition``."""
        started = time.monotonic()
        seen: dict[str, Any] = {}
        while time.monotonic() - started < timeout_s:
            seen = await self.figures()
            if seen and condition(seen):
                return time.monotonic() - started
            await asyncio.sleep(0.25)  # nothing announces a figure
        tail = "\n".join(self.page.console[-5:])
        raise AssertionError(f"after {timeout_s} s still not {what}: {seen}\n{tail}")

    async def undecoded(self) -> int:
        """Pictures decoded so far, once no more are for a second: those under way are done."""
        before = -1
        for _ in range(20):
            decoded = int((await self.figures())["decoded"])
            if decoded == before:
                return decoded
            before = decoded
            await asyncio.sleep(1.0)
        raise AssertionError("what nobody sees is decoded")


@asynccontextmanager
async def publishing(
    server: Server, browser: BrowserName, encodings: Any = None, *, through: str | None = None
) -> AsyncIterator[Room]:
    """``through``: address of a shaper that the publisher, and it alone, is behind."""
    name = server.room(f"uplink-{uuid.uuid4().hex[:8]}")
    entry, guest = server.enter(name, name="Noise"), server.enter(name, "viewer")
    await asyncio.to_thread(server.call, "PUT", f"/v1/rooms/{name}/layout", layout(720))
    async with launch(browser) as page, aiohttp.ClientSession() as http:
        viewer = WebRtcClient(
            http, f"{server.url}/whep/{name}?rendition=high", token=guest["token"], direction="recvonly"
        )
        await viewer.start()
        try:
            await page.navigate(f"{through or server.url}/r/{name}")
            arguments = [f"{through or server.url}/whip/{name}", entry["token"], encodings]
            answer = await page.evaluate(f"{PUBLISH}({', '.join(map(json.dumps, arguments))})")
            assert answer.startswith("v=0"), answer
            yield Room(server, name, page, entry["sub"])
        finally:
            await viewer.close()


@pytest.mark.parametrize("name", BROWSERS)
@with_time_to_spare
async def test_a_browser_sends_less_while_its_tile_is_small_and_more_when_it_grows(
    server: Server, name: BrowserName
) -> None:
    async with publishing(server, name) as room:
        await room.until(lambda seen: seen["received_kbps"] > 900, "a large picture's rate", 60)
        await room.show(240)
        await room.until(lambda seen: seen["asked_kbps"] < 400, "asked for less", 15)
        await room.until(lambda seen: seen["received_kbps"] < 480, "sending less", 45)
        await room.show(720)
        await room.until(lambda seen: seen["asked_kbps"] > 1900, "asked for more at once", 10)
        grown = await room.until(lambda seen: seen["received_kbps"] > 900, "sending more", 60)
        seen = await room.figures()
        print(f"{name}: {seen['height']} rows, {seen['received_kbps']} kbit/s {grown:.1f} s after it grew")


LAYERS: Final = [
    {"rid": "q", "scaleResolutionDownBy": 4},
    {"rid": "h", "scaleResolutionDownBy": 2},
    {"rid": "f"},
]


@pytest.mark.parametrize("name", BROWSERS)
@with_time_to_spare
async def test_of_simulcast_the_layer_that_the_tile_needs_is_decoded(
    server: Server, name: BrowserName
) -> None:
    async with publishing(server, name, LAYERS) as room:
        assert "a=simulcast:recv q;h;f" in await room.page.evaluate("window.answer")
        await room.until(lambda seen: seen["layer"] == "f", "at its largest layer", 60)
        await room.until(lambda seen: seen["height"] > 650, "decoding it", 30)
        await room.show(240)
        await room.until(lambda seen: seen["layer"] == "h", "at the middle layer", 30)
        await room.until(lambda seen: 300 < seen["height"] <= 360, "decoding it", 30)
        await room.show(180)
        await room.until(lambda seen: seen["layer"] == "q", "at the smallest layer", 30)
        before = await room.figures()
        await room.show(720)
        grown = await room.until(lambda seen: seen["layer"] == "f", "back at the largest", 60)
        seen = await room.figures()
        assert seen["frozen_ms"] - before["frozen_ms"] < 1000, (
            "the small picture stays until the large one comes"
        )
        print(f"{name}: at the large layer {grown:.1f} s after the tile grew; plis {seen['plis']}")


@pytest.mark.parametrize("name", BROWSERS)
@with_time_to_spare
async def test_a_camera_that_nobody_sees_sends_a_trickle_and_is_back_soon(
    server: Server, name: BrowserName
) -> None:
    async with publishing(server, name) as room:
        await room.until(lambda seen: seen["received_kbps"] > 900, "a large picture's rate", 60)
        place = f"/v1/rooms/{room.name}/participants/{room.sub}"
        await asyncio.to_thread(server.call, "PATCH", place, {"video_muted": True})
        await room.until(lambda seen: seen["asked_kbps"] == 30, "asked for a trickle", 15)
        await room.until(lambda seen: seen["received_kbps"] < 250, "nearly silent", 45)
        before = await room.undecoded()
        await asyncio.to_thread(server.call, "PATCH", place, {"video_muted": False})
        shown = await room.until(lambda seen: seen["decoded"] > before + 5, "seen again", 30)
        sharp = await room.until(lambda seen: seen["received_kbps"] > 900, "sending more", 60)
        print(f"{name}: seen {shown:.1f} s, at 900 kbit/s {shown + sharp:.1f} s after it was wanted again")
