"""One honest caller and one honest viewer in a room, and how long the longest hole in what the viewer gets was.

Three clocks tell whose hole it was: this process's own (when it did not look), the system's (when the room's process
waited for a processor), and the server's, which counts the pauses between its ticks.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import aiohttp
import numpy as np
from PIL import Image

from mixer.media import EncodedVideo, VideoCodec
from mixer.probe.callers import Caller, Conductor
from mixer.probe.loops import AudioLoop, CameraLoops
from mixer.probe.server import Pass
from mixer.probe.signal import Identity
from mixer.rtp.packet import RtpPacket
from mixer.webrtc.client import WebRtcClient
from tests.peers.scheduling import Scheduling, Span, uncovered_s
from tests.serving import Server, workers

LOOK_S: Final = 0.005
WINDOW_S: Final = 0.2
BORDER_PX: Final = 16  # of a tile: who speaks has one


class Client(WebRtcClient):
    """A client that keeps the answer, and what it sent as it went over the wire (at most ``kept`` datagrams)."""

    answer = ""
    kept = 300

    async def _post(self, offer: str) -> str:
        self.answer = await super()._post(offer)
        self.wire: list[bytes] = []
        opened = self._port.sockets[0]
        self.raw, flush = opened.sendto, opened.flush

        def sendto(data: bytes, destination: tuple[str, int]) -> bool:
            self._note(data, destination)
            return self.raw(data, destination)

        def flushed() -> None:
            for posted in opened.outbox.waiting():
                self._note(*posted)
            flush()

        opened.sendto, opened.flush = sendto, flushed  # type: ignore[method-assign]
        return self.answer

    def _note(self, data: bytes, destination: tuple[str, int]) -> None:
        self.server = destination
        if len(self.wire) < self.kept:
            self.wire.append(data)


@dataclass(frozen=True, slots=True)
class Ticks:
    """Of the server's, in the time that was watched: how many were left out, and pauses of over 160 ms between two."""

    dropped: int
    pauses: int


@dataclass(frozen=True, slots=True)
class Holes:
    """The longest hole in seconds that is the server's: less what this process did not look, and less what the
    system kept from the room's process.
    """

    audio_s: float
    video_s: float
    own_s: float  # the longest time that this process did not look
    kept_s: float  # of the worst ``WINDOW_S``: so long the room's process waited for a processor
    sound: Ticks
    pictures: Ticks


class Conference:
    """See the module. Attackers join by ``client``."""

    def __init__(self, server: Server, room: str, http: aiohttp.ClientSession) -> None:
        self.server, self.room, self._http = server, room, http
        self._audio: list[float] = []
        self._video: list[float] = []
        self._looks: list[float] = []
        self._scheduling: Scheduling | None = None
        self.caller: Client | None = None
        self.honest = ""  # the caller's id

    def client(
        self,
        direction: Literal["sendonly", "recvonly", "sendrecv"],
        token: str,
        video: tuple[VideoCodec, ...] = ("VP8",),
    ) -> Client:
        """Not started yet."""
        way = "whep" if direction == "recvonly" else "whip"
        query = "?rendition=high" if direction == "recvonly" else ""
        return Client(
            self._http,
            f"{self.server.url}/{way}/{self.room}{query}",
            token=token,
            direction=direction,
            video=video,
            assemble=direction == "recvonly",
        )

    def enter(self, name: str, role: str = "participant") -> Pass:
        entry = self.server.enter(self.room, role, name)
        return Pass(entry["token"], entry["sub"])

    def heard(self, packet: RtpPacket, now: float) -> None:
        self._audio.append(now)

    def seen(self, frame: EncodedVideo, now: float) -> None:
        self._video.append(now)

    async def look(self) -> None:
        """Notes how often this process gets to run, and the room's: holes of theirs are nobody's fault."""
        loop = asyncio.get_running_loop()
        self._scheduling = scheduling = Scheduling(workers(self.server, self.room)[-1]["pid"])
        while True:
            now = loop.time()
            self._looks.append(now)
            scheduling.look(now)
            await asyncio.sleep(LOOK_S)

    async def holes(self, seconds: float, work: Awaitable[None] | None = None) -> Holes:
        """Watch for so long, and until ``work`` is done."""
        before = await self._ticks()
        assert self._scheduling is not None
        waits = self._scheduling.waits
        for gathered in (self._audio, self._video, self._looks, waits):
            gathered.clear()
        start = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        if work is not None:
            await work
        now = asyncio.get_running_loop().time()
        looks = list(pairwise(self._looks))
        away = [(a, b) for a, b in looks if b - a > 4 * LOOK_S] + list(waits)
        audio_s, video_s = (self._longest([start, *times, now], away) for times in (self._audio, self._video))
        after = await self._ticks()
        sound, pictures = (
            Ticks(*(after[kind][name] - before[kind][name] for name in ("dropped", "pauses")))
            for kind in ("audio", "video")
        )
        own_s = max((b - a for a, b in looks), default=now - start)
        kept_s = max((WINDOW_S - uncovered_s((end - WINDOW_S, end), waits) for _, end in waits), default=0.0)
        return Holes(audio_s, video_s, own_s, kept_s, sound, pictures)

    @staticmethod
    def _longest(times: Iterable[float], away: list[Span]) -> float:
        """The longest pause less the time in it that somebody was away."""
        near = [span for span in pairwise(times) if span[1] - span[0] > 4 * LOOK_S]
        return max((uncovered_s(span, away) for span in near), default=0.0)

    async def _ticks(self) -> dict[str, dict[str, int]]:
        body = await asyncio.to_thread(self.server.call, "GET", f"/v1/rooms/{self.room}/stats")
        return dict(body["ticks"])

    async def tile(self, sub: str) -> np.ndarray:
        """What the canvas shows of a participant now, without the border: (height, width, 3) of RGB."""
        room, call = f"/v1/rooms/{self.room}", self.server.call
        placed = await asyncio.to_thread(call, "POST", f"{room}/layout/preview", {"preset": "grid"})
        at = next(tile for tile in placed["tiles"] if tile["participant"] == sub)
        png = await asyncio.to_thread(call, "GET", f"{room}/snapshot.png")
        left, top = at["x"] + BORDER_PX, at["y"] + BORDER_PX
        right, bottom = at["x"] + at["width"] - BORDER_PX, at["y"] + at["height"] - BORDER_PX
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.int16)[top:bottom, left:right]

    @contextlib.asynccontextmanager
    async def events(self, kind: str) -> AsyncIterator[list[dict[str, Any]]]:
        """The data of the room's events of that ``kind``, as they come."""
        found: list[dict[str, Any]] = []
        headers = {"Authorization": f"Bearer {self.server.token}", "Accept": "text/event-stream"}

        async def listen(response: aiohttp.ClientResponse) -> None:
            async for line in response.content:
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    if event["type"] == kind:
                        found.append(event["data"])

        async with self._http.get(
            f"{self.server.url}/v1/events?room={self.room}", headers=headers
        ) as response:
            assert response.status == 200
            task = asyncio.create_task(listen(response))
            try:
                yield found
            finally:
                task.cancel()

    async def stats(self) -> dict[str, dict[str, object]]:
        """The room's figures, participants by id."""
        body = await asyncio.to_thread(self.server.call, "GET", f"/v1/rooms/{self.room}/stats")
        return dict(body["participants"])


@contextlib.asynccontextmanager
async def conference(
    server: Server, room: str, camera: CameraLoops, sound: AudioLoop
) -> AsyncIterator[Conference]:
    """The caller plays, the viewer has its first picture."""
    async with aiohttp.ClientSession() as http, contextlib.AsyncExitStack() as stack:
        made = Conference(server, server.room(room), http)
        entry = made.enter("Honest")
        made.caller, made.honest = made.client("sendonly", entry.token), entry.sub
        viewer = made.client("recvonly", made.enter("Viewer", "viewer").token, ("H264",))
        viewer.on_audio, viewer.on_video = made.heard, made.seen
        for client in (made.caller, viewer):
            stack.push_async_callback(client.close)
            await client.start()
        conductor = Conductor(asyncio.get_running_loop().time)
        conductor.add([Caller(Identity(0), entry, made.caller, camera, sound)])
        for work in (conductor.play(), made.look()):
            task = asyncio.create_task(work)
            stack.callback(task.cancel)
        async with asyncio.timeout(30):
            while not made._video or not made._audio:  # noqa: ASYNC110 - the first of each
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # playout finds its depth: nobody announces it
        yield made
