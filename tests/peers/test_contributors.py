"""What a real browser reads out of the mix: who is heard in it (CSRC)."""

from __future__ import annotations

import asyncio

import pytest

from mixer.audio.contributors import csrc_of
from mixer.webrtc.answer import MIXER_LEVELS
from tests.browser import BrowserName, launch
from tests.peers.test_page import join, sees_motion
from tests.serving import Server

LISTEN = """(async () => {
  const peer = window.listener = new RTCPeerConnection({iceServers: []});
  peer.addTransceiver('audio', {direction: 'recvonly'});
  peer.ontrack = event => { const sound = new Audio(); sound.srcObject = new MediaStream([event.track]);
                            sound.muted = true; sound.play(); window.sound = sound; };
  await peer.setLocalDescription();
  await new Promise(done => peer.iceGatheringState === 'complete' ? done()
                          : peer.addEventListener('icegatheringstatechange', () =>
                              peer.iceGatheringState === 'complete' && done()));
  const answer = await fetch('/whep/ROOM', {method: 'POST', body: peer.localDescription.sdp,
    headers: {'Authorization': 'Bearer TOKEN', 'Content-Type': 'application/sdp'}});
  await peer.setRemoteDescription({type: 'answer', sdp: await answer.text()});
  return answer.status;
})()"""
CONTRIBUTING = "listener.getReceivers()[0].getContributingSources().map(one => one.source)"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.peer(name)) for name in ("chromium", "firefox")]
)
async def test_a_browser_is_told_who_is_heard(server: Server, name: BrowserName) -> None:
    room = server.room(f"csrc-{name}")
    guest = server.enter(room, "viewer")
    async with launch(name) as page:
        await join(page, f"{server.url}/r/{room}", "Anna")
        await sees_motion(page)
        anna = server.call("GET", f"/v1/rooms/{room}/participants")[0]["id"]
        script = LISTEN.replace("ROOM", room).replace("TOKEN", guest["token"])
        assert await page.evaluate(script) == 201
        heard: list[int] = []
        for _ in range(300):
            heard = await page.evaluate(CONTRIBUTING)
            if heard:
                break
            await asyncio.sleep(0.1)  # the fake microphone beeps once a second
        assert heard == [csrc_of(anna)]
        if name == "firefox":  # it agrees on the levels; neither browser shows those of contributing sources
            agreed = await page.evaluate("listener.remoteDescription.sdp")
            assert f"/sendonly {MIXER_LEVELS}" in agreed
