"""Viewers for the benches: any number, at any rendition, that decode what they are asked to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import av

from mixer.media import EncodedVideo, VideoCodec
from mixer.probe.server import ServerApi
from mixer.video.decoder import DecodeFailed, VideoDecoder
from mixer.webrtc.client import WebRtcClient
from mixer.webrtc.client_offer import Tells

QUEUE: Final = 60  # pictures that wait for the decoder
ASK_AGAIN_S: Final = 0.5
PAUSE_S: Final = 2.0  # longer, and it is no picture


@dataclass(slots=True)
class Eye:
    """Decodes all that comes: ``seen`` is when each picture was there, and its width."""

    client: WebRtcClient
    seen: list[tuple[float, int]] = field(default_factory=list)
    _queue: asyncio.Queue[EncodedVideo] = field(default_factory=lambda: asyncio.Queue(QUEUE))

    def __post_init__(self) -> None:
        self.client.on_video = self._take

    def _take(self, frame: EncodedVideo, now: float) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(frame)

    async def look(self) -> None:
        """Until cancelled."""
        decoder: VideoDecoder | None = None
        ask_at = 0.0
        while True:
            frame = await self._queue.get()
            if decoder is None and not frame.keyframe:
                if time.monotonic() >= ask_at:  # the request, or its keyframe, may be lost
                    ask_at = time.monotonic() + ASK_AGAIN_S
                    self.client.request_keyframe()
                continue
            decoder = decoder or VideoDecoder(frame.codec)
            try:
                pictures: list[av.VideoFrame] = await asyncio.to_thread(decoder.decode, frame)
            except DecodeFailed:
                decoder = None
                self.client.request_keyframe()
                continue
            self.seen += [(time.monotonic(), picture.width) for picture in pictures]

    def longest_pause_s(self, start: float, end: float) -> float:
        """The longest time between two pictures within ``start … end``."""
        times = [start, *(at for at, _ in self.seen if start <= at <= end), end]
        return max(after - before for before, after in itertools.pairwise(times))

    def width_at(self, at: float) -> int | None:
        """Of the newest picture then."""
        return next((width for seen, width in reversed(self.seen) if seen <= at), None)

    def settled_s(self, width: int, start: float, end: float) -> float | None:
        """Seconds from ``start`` to when pictures were ``width`` wide, and came, until ``end``; None: they weren't."""
        within = [(at, seen) for at, seen in self.seen if start <= at <= end]
        settled: float | None = None
        before = start
        for at, seen in [*within, (end, width)]:
            if seen != width:
                settled = None
            elif settled is None or at - before > PAUSE_S:
                settled = at
            before = at
        return settled - start if settled is not None and settled < end else None


@contextlib.asynccontextmanager
async def watching(
    http: aiohttp.ClientSession,
    api: ServerApi,
    renditions: Sequence[str],
    *,
    codecs: tuple[VideoCodec, ...] = ("H264", "VP8"),
    tells: Tells = "transport-cc",
) -> AsyncIterator[list[WebRtcClient]]:
    """A viewer for each of ``renditions``, all in; they leave at the end. They count packets, and no more."""
    clients = [
        WebRtcClient(
            http,
            api.whep_url(rendition),
            token=(await api.enter(f"watcher {number}", "viewer")).token,
            direction="recvonly",
            video=() if rendition == "audio" else codecs,
            assemble=True,
            tells=tells,
        )
        for number, rendition in enumerate(renditions)
    ]
    try:
        for client in clients:
            await client.start()
        yield clients
    finally:
        await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)
