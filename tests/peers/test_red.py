"""Chromium repeats its sound in RED (RFC 2198): what is lost on the way is heard all the same."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from mixer.rtp.packet import parse_rtp
from mixer.rtp.red import parse_red
from mixer.webrtc.peer import Peer
from mixer.webrtc.peers import PeerFactory
from tests.browser import launch
from tests.mixer.webrtc.support import HOST, PORTS, Recorder, until
from tests.peers.lone_peer import answering

PUBLISH = """(async () => {
  const sound = new AudioContext(), tone = sound.createOscillator(), out = sound.createMediaStreamDestination();
  tone.connect(out); tone.start();
  const pc = window.pc = new RTCPeerConnection();
  const sender = pc.addTransceiver(out.stream.getAudioTracks()[0], {direction: 'sendonly'});
  const known = RTCRtpSender.getCapabilities('audio').codecs;
  const rank = codec => ['audio/red', 'audio/opus'].indexOf(codec.mimeType);
  sender.setCodecPreferences(known.filter(codec => rank(codec) >= 0).sort((a, b) => rank(a) - rank(b)));
  await signal(pc);
})()"""


RED = 63  # what Chromium calls it in every offer


class LossyPeer(Peer):
    """A tenth of what arrives is lost; the browser does not know."""

    chance = random.Random(4)

    def __init__(self, factory: PeerFactory, sink: Recorder) -> None:
        super().__init__(factory, sink, send=False, receive=True)
        self.lost: list[int] = []
        self.repeated: set[int] = set()  # what an arrived packet has in it beside its own sound

    def _on_rtp(self, data: bytes) -> None:
        if self.chance.random() < 0.1:
            self.lost.append(int.from_bytes(data[2:4], "big"))
            return
        packet = parse_rtp(data)
        if packet.payload_type == RED and len(blocks := parse_red(packet.payload)) > 1 and blocks[-2].data:
            self.repeated.add((packet.sequence - 1) & 0xFFFF)
        super()._on_rtp(data)


@pytest.fixture
async def site() -> AsyncIterator[tuple[str, LossyPeer, Recorder]]:
    factory, sink = PeerFactory(host=HOST, ports=PORTS), Recorder()
    peer = LossyPeer(factory, sink)
    async with answering(factory, peer) as url:
        yield url, peer, sink


@pytest.mark.peer("chromium")
async def test_lost_sound_is_found_in_the_next_packet(site: tuple[str, LossyPeer, Recorder]) -> None:
    url, peer, sink = site
    async with launch("chromium") as page:
        await page.navigate(url)
        await page.evaluate(PUBLISH)
        await until(lambda: len(sink.audio) >= 500, "ten seconds of sound", 30)
        heard = [packet.sequence for packet, _, _ in sink.audio]
        lost = peer.lost[:-1]  # the one after the last may not have come yet
    assert len(lost) > 20
    assert all(codec == "opus" and packet.payload[0] >> 3 >= 12 for packet, codec, _ in sink.audio)
    assert len(heard) == len(set(heard)), "nothing comes twice"
    # Two in a row are one lost for good; and a packet after a pause repeats nothing: Chromium's, on a busy machine
    # most of all, leaves out a quarter.
    found = set(lost) & peer.repeated
    assert len(found) > len(lost) / 3, "RED is in use"
    assert found <= set(heard), (len(found), len(found - set(heard)), peer.stats())
    assert peer.stats()["recovered"] >= len(found)
