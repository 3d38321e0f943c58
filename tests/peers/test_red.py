"""Chromium repeats its sound in RED (RFC 2198): what is lost on the way is heard all the same."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from mixer.webrtc.peer import Peer, PeerFactory
from tests.browser import launch
from tests.mixer.webrtc.support import HOST, PORTS, Recorder, until

PUBLISH = """(async () => {
  const sound = new AudioContext(), tone = sound.createOscillator(), out = sound.createMediaStreamDestination();
  tone.connect(out); tone.start();
  const pc = window.pc = new RTCPeerConnection();
  const sender = pc.addTransceiver(out.stream.getAudioTracks()[0], {direction: 'sendonly'});
  const known = RTCRtpSender.getCapabilities('audio').codecs;
  const rank = codec => ['audio/red', 'audio/opus'].indexOf(codec.mimeType);
  sender.setCodecPreferences(known.filter(codec => rank(codec) >= 0).sort((a, b) => rank(a) - rank(b)));
  await pc.setLocalDescription();
  await new Promise(done => {
    pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done();
    if (pc.iceGatheringState === 'complete') done();
  });
  const answer = await fetch('/offer', {method: 'POST', body: pc.localDescription.sdp});
  await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
})()"""


class LossyPeer(Peer):
    """A tenth of what arrives is lost; the browser does not know."""

    lost = 0
    chance = random.Random(4)

    def _on_rtp(self, data: bytes) -> None:
        if self.chance.random() < 0.1:
            self.lost += 1
        else:
            super()._on_rtp(data)


@pytest.fixture
async def site() -> AsyncIterator[tuple[str, LossyPeer, Recorder]]:
    factory, sink = PeerFactory(host=HOST, ports=PORTS), Recorder()
    await factory.start()
    peer = LossyPeer(factory, sink, send=False, receive=True)

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>red</title>", content_type="text/html")

    async def offer(request: web.Request) -> web.Response:
        return web.Response(text=await peer.accept(await request.text()))

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_post("/offer", offer)
    runner = web.AppRunner(app)
    await runner.setup()
    server = web.TCPSite(runner, HOST, 0)
    await server.start()
    try:
        yield f"http://{HOST}:{runner.addresses[0][1]}/", peer, sink
    finally:
        await runner.cleanup()
        await factory.close()


@pytest.mark.peer("chromium")
async def test_lost_sound_is_found_in_the_next_packet(site: tuple[str, LossyPeer, Recorder]) -> None:
    url, peer, sink = site
    async with launch("chromium") as page:
        await page.navigate(url)
        await page.evaluate(PUBLISH)
        await until(lambda: len(sink.audio) >= 500, "ten seconds of sound", 30)
    assert peer.lost > 20
    assert all(codec == "opus" and packet.payload[0] >> 3 >= 12 for packet, codec, _ in sink.audio)
    # a browser that has just started skips packets of its own
    numbers = [packet.sequence for packet, _, _ in sink.audio][100:]
    missing = len({(numbers[0] + n) & 0xFFFF for n in range(380)} - set(numbers))
    assert missing <= 12, f"{missing} of 380 never heard, though {peer.lost} were lost"
    assert len(numbers) == len(set(numbers)), "nothing comes twice"
    assert peer.stats()["recovered"] > 0.6 * peer.lost
