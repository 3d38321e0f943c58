"""A stock aiortc viewer: none of our WebRTC code, so that both ends cannot be wrong in the same way."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from av import AudioFrame, VideoFrame

from mixer.probe.signal import Plane, Sound, tone_level_db

KEPT_S = 20


class Watcher:
    """What came so far: ``frame`` the newest picture, ``sound(seconds)`` the newest samples."""

    def __init__(self) -> None:
        self.frame: VideoFrame | None = None
        self.frames = 0
        self.over = (
            False  # set by a test that has the server end the session: there is nothing left to DELETE
        )
        self._sound: deque[Sound] = deque(maxlen=KEPT_S * 50)
        self._heard = asyncio.Condition()
        self._samples = 0

    async def take(self, track: MediaStreamTrack) -> None:
        """Consume one track to its end."""
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, VideoFrame):
                    self.frame = frame
                    self.frames += 1
                elif isinstance(frame, AudioFrame):
                    samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
                    self._sound.append((samples.mean(axis=1) / 32768).astype(np.float32))
                    self._samples += len(samples)
                async with self._heard:
                    self._heard.notify_all()

    async def picture(self, *, after: int = 0, timeout_s: float = 60.0) -> Plane:
        """The newest picture as RGB, once more than ``after`` pictures came."""
        async with asyncio.timeout(timeout_s), self._heard:
            await self._heard.wait_for(lambda: self.frames > after)
        assert self.frame is not None
        return self.frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)

    async def sound(self, seconds: float, *, timeout_s: float = 60.0) -> Sound:
        """The next ``seconds`` of sound, from now."""
        wanted = self._samples + round(seconds * 48_000)
        async with asyncio.timeout(timeout_s + seconds), self._heard:
            await self._heard.wait_for(lambda: self._samples >= wanted)
        return np.concatenate(list(self._sound))[-round(seconds * 48_000) :]

    async def level_db(self, hz: float, seconds: float = 2.0) -> float:
        """Level of one tone in the next ``seconds``."""
        return tone_level_db(await self.sound(seconds), hz)


@contextlib.asynccontextmanager
async def watching(
    url: str, token: str, *, relay: RTCIceServer | None = None, towards: str = "", **query: Any
) -> AsyncIterator[Watcher]:
    """A WHEP session at ``url`` (``…/whep/room``) with aiortc as it comes from PyPI. ``relay``: only by that one.
    ``towards``: of the server's candidates only those with this address.
    """
    watcher = Watcher()
    policy = RTCIceTransportPolicy.ALL if relay is None else RTCIceTransportPolicy.RELAY
    servers = [] if relay is None else [relay]
    peer = RTCPeerConnection(RTCConfiguration(iceServers=servers, iceTransportPolicy=policy))
    tasks: list[asyncio.Task[None]] = []
    peer.on("track", lambda track: tasks.append(asyncio.create_task(watcher.take(track))))
    for kind in ("audio", "video"):
        peer.addTransceiver(kind, direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    async with aiohttp.ClientSession() as http:
        try:
            async with http.post(
                url, data=peer.localDescription.sdp, headers=headers, params=query
            ) as answer:
                assert answer.status == 201, await answer.text()
                location = answer.headers["Location"]
                lines = (await answer.text()).splitlines(keepends=True)
                kept = [
                    line for line in lines if not line.startswith("a=candidate:") or f" {towards}" in line
                ]
                await peer.setRemoteDescription(RTCSessionDescription("".join(kept), "answer"))
            yield watcher
            async with http.delete(str(answer.url.join(_url(location))), headers=headers) as gone:
                assert gone.status == (404 if watcher.over else 200)
        finally:
            await peer.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _url(location: str) -> Any:
    from yarl import URL

    return URL(location)
