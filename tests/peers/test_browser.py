"""The driver itself, against both real browsers: a page, a script, an error, a picture, a loopback call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.browser import BrowserError, BrowserName, launch
from tests.peers.presence import PRESENT

PAGE = "<!doctype html><title>loopback</title><h1>Hello</h1><script>console.log('ready', 7)</script>"
LOOPBACK = """(async () => {
  const stream = await navigator.mediaDevices.getUserMedia({audio: true, video: true});
  const near = new RTCPeerConnection(), far = new RTCPeerConnection();
  near.onicecandidate = e => e.candidate && far.addIceCandidate(e.candidate);
  far.onicecandidate = e => e.candidate && near.addIceCandidate(e.candidate);
  const video = document.createElement('video');
  video.autoplay = true; document.body.append(video);
  far.ontrack = e => { video.srcObject = e.streams[0]; };
  stream.getTracks().forEach(track => near.addTrack(track, stream));
  await near.setLocalDescription(); await far.setRemoteDescription(near.localDescription);
  await far.setLocalDescription(); await near.setRemoteDescription(far.localDescription);
  await new Promise(done => video.addEventListener('timeupdate', () => video.currentTime > 0.3 && done()));
  return {width: video.videoWidth, tracks: video.srcObject.getTracks().length};
})()"""

BROWSERS = [pytest.param(name, marks=pytest.mark.peer(name)) for name in ("chromium", "firefox")]


@pytest.fixture
async def site() -> AsyncIterator[str]:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0)
    await server.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("name", BROWSERS)
async def test_drives_a_page_and_a_call(name: BrowserName, site: str) -> None:
    async with launch(name, language="fr") as page:
        await page.navigate(site)
        assert await page.evaluate("document.title") == "loopback"
        assert await page.evaluate("navigator.language") == "fr"
        assert await page.evaluate("undefined") is None
        await page.wait_for("document.querySelector('h1') !== null")
        assert any("ready 7" in line for line in page.console)
        with pytest.raises(BrowserError, match="nosuch"):
            await page.evaluate("nosuch.thing")
        seen = await page.evaluate(LOOPBACK)
        assert seen["tracks"] == 2
        assert seen["width"] >= 320  # both start small and grow with the estimated bandwidth
        await page.resize(320, 640)
        assert await page.evaluate("window.innerWidth") == 320
        assert (await page.screenshot()).startswith(b"\x89PNG")


async def test_a_missing_browser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BrowserError, match="firefox is not installed"):
        await launch("firefox").__aenter__()


def test_presence_knows_every_marker() -> None:
    assert set(PRESENT) == {"certutil", "chromium", "coturn", "firefox", "gstreamer", "ffmpeg8"}
