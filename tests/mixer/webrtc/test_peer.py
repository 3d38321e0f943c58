"""Peers against stock aiortc clients on loopback: the whole way from offer to pictures and sound."""

from __future__ import annotations

from collections.abc import AsyncIterator

import av
import pytest
import pytest_asyncio

from mixer.webrtc.peer import PeerFactory
from tests.mixer.webrtc.support import (
    HOST,
    PORTS,
    AudioStreamTrack,
    Colour,
    Recorder,
    connection,
    hang_up,
    join,
    prefer,
    until,
)


@pytest_asyncio.fixture
async def factory() -> AsyncIterator[PeerFactory]:
    made = PeerFactory(host=HOST, ports=PORTS)
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_a_publisher_s_pictures_and_sound_arrive_whole(factory: PeerFactory, codec: str) -> None:
    sink, pc = Recorder(), connection()
    pc.addTrack(AudioStreamTrack())
    pc.addTrack(Colour(200))
    prefer(pc, codec, "opus")
    peer = factory.peer(sink, send=False, receive=True)
    answer = await join(peer, pc)
    assert (peer.receives_video, peer.receives_audio, peer.sends_video) == (codec, "opus", None)
    assert "a=setup:passive" in answer

    await until(lambda: len(sink.video) >= 20 and len(sink.audio) >= 20, "20 pictures and 20 packets of sound")
    frames = [frame for frame, screen in sink.video if not screen]
    assert frames[0].keyframe
    decoder = av.CodecContext.create(codec.lower(), "r")
    decoded = [picture for frame in frames for picture in decoder.decode(av.Packet(frame.data))]
    assert len(decoded) >= len(frames) - 2
    luma = decoded[-1].to_ndarray()[: decoded[-1].height].mean()
    assert abs(luma - 200) < 6
    assert {codec for _, codec, _ in sink.audio} == {"opus"}
    stats = peer.stats()
    assert stats["packets"] > 40
    assert stats["lost"] == 0

    await hang_up(pc)
    await until(lambda: sink.closed, "on_closed after the client's close_notify")
    assert sink.closed == ["the peer closed the connection"]
