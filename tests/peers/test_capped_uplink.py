"""Real publishers on a line that narrows on the way in and opens again: pictures go on, no queue stands."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

import aiohttp
import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack

from mixer.webrtc.client import WebRtcClient
from tests.bench.uplink import Look, longest_freeze_s, look_on
from tests.peers.spare import with_time_to_spare
from tests.peers.test_uplink import publishing
from tests.serving import Server
from tests.shaper import Remote, Way, shaping

OPEN: Final = Way(delay_s=0.03)
CAP_BPS: Final = 400_000  # aiortc's VP8 encoder goes no lower than 250 kbit/s
CAP: Final = Way(delay_s=0.03, rate_bps=CAP_BPS, queue_bytes=42_000)  # 0.85 s: a home router's buffer
CAPPED_S, SETTLE_S, LIFTED_S = 25.0, 12.0, 25.0
# with a busy machine's own stops; a publisher that is told nothing stands for as long as the line is narrow
LONGEST_FREEZE_S: Final = 4.0


class Noise(VideoStreamTrack):
    """640×360, 15 a second: blocks of noise, of which an encoder makes 1 Mbit/s or a quarter of it, as it is told."""

    def __init__(self) -> None:
        super().__init__()
        source = np.random.default_rng(1)
        blocks = [source.integers(110, 130, (27, 32), dtype=np.uint8) for _ in range(8)]
        self._pictures = [
            av.VideoFrame.from_ndarray(np.kron(few, np.ones((20, 20), np.uint8)), format="yuv420p")
            for few in blocks
        ]
        self._count = 0
        self._began = time.monotonic()

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(max(0.0, self._began + self._count / 15 - time.monotonic()))
        picture = self._pictures[self._count % len(self._pictures)]
        picture.pts, picture.time_base = self._count * 6000, fractions.Fraction(1, 90_000)
        self._count += 1
        return picture


@contextlib.asynccontextmanager
async def stock_aiortc(server: Server, url: str, room: str) -> AsyncIterator[None]:
    """It publishes through ``url``, and a viewer of ours watches directly."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    entry, guest = [await asyncio.to_thread(server.enter, room, role) for role in ("participant", "viewer")]
    async with aiohttp.ClientSession() as http:
        viewer = WebRtcClient(
            http, f"{server.url}/whep/{room}?rendition=high", token=guest["token"], direction="recvonly"
        )
        try:
            await viewer.start()
            pc.addTrack(Noise())
            await pc.setLocalDescription(await pc.createOffer())
            offer = pc.localDescription.sdp
            assert "goog-remb" in offer
            assert "transport-cc" not in offer
            headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {entry['token']}"}
            async with http.post(f"{url}/whip/{room}", data=offer, headers=headers) as answer:
                assert answer.status == 201
                await pc.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))
            yield
        finally:
            await pc.close()
            await viewer.close()


async def until_large(looks: Sequence[Look], kbps: int, timeout_s: float) -> float:
    """Seconds until pictures of ``kbps`` come."""
    started, seen = time.monotonic(), len(looks)
    while time.monotonic() - started < timeout_s:
        if any(look.received_kbps >= kbps for look in looks[seen:]):
            return time.monotonic() - started
        await asyncio.sleep(0.1)  # nothing announces a figure
    raise AssertionError(f"after {timeout_s} s still not {kbps} kbit/s: {looks[-1] if looks else None}")


async def narrowed_and_opened(server: Server, shaper: Remote, room: str, large_kbps: int, who: str) -> None:
    """The line of a publisher that is there."""
    looks: list[Look] = []
    looking = asyncio.create_task(look_on(server, shaper, room, looks))
    try:
        await until_large(looks, large_kbps, 60)
        await asyncio.to_thread(shaper.shape, up=CAP)
        narrowed = time.monotonic()
        await asyncio.sleep(CAPPED_S)
        await asyncio.to_thread(shaper.shape, up=OPEN)
        lifted = time.monotonic()
        back_s = await until_large(looks, large_kbps, LIFTED_S)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    settled = [look for look in looks if narrowed + SETTLE_S <= look.at < lifted]
    queues = sorted(8 * look.queued_bytes / CAP_BPS for look in settled)
    freeze_s = longest_freeze_s(looks, narrowed, lifted)
    came = max(look.received_kbps for look in settled)
    for look in looks[:: max(1, len(looks) // 60)]:  # pytest shows it with a failure
        print(f"{look.at - narrowed:+.1f} s: {look}")
    print(
        f"{who}: freeze {freeze_s:.1f} s, queue {queues[len(queues) // 2]:.2f} s, at most {came}, back {back_s:.1f} s"
    )
    assert freeze_s < LONGEST_FREEZE_S
    assert queues[len(queues) // 2] < 0.3
    assert 0.4 * CAP_BPS < 1000 * came < 1.2 * CAP_BPS


@with_time_to_spare
async def test_aiortc_that_follows_remb_alone_is_told_what_its_line_carries(server: Server) -> None:
    room = await asyncio.to_thread(server.room, "narrow-in")
    with shaping(server.url, seed=8, up=OPEN, down=OPEN) as shaper:
        async with stock_aiortc(server, shaper.url, room):
            await narrowed_and_opened(server, shaper, room, 800, "aiortc")


@pytest.mark.peer("chromium")
@with_time_to_spare
async def test_a_browser_that_is_told_of_arrivals_finds_out_itself(server: Server) -> None:
    with shaping(server.url, seed=9, up=OPEN, down=OPEN) as shaper:
        async with publishing(server, "chromium", through=shaper.url) as room:
            await narrowed_and_opened(server, shaper, room.name, 800, "chromium")
