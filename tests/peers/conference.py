"""One honest caller and one honest viewer in a room, and how long the longest hole in what the viewer gets was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import aiohttp

from mixer.media import EncodedVideo, VideoCodec
from mixer.probe.callers import Caller, Conductor
from mixer.probe.loops import AudioLoop, CameraLoops
from mixer.probe.server import Pass
from mixer.probe.signal import Identity
from mixer.rtp.packet import RtpPacket
from mixer.webrtc.client import WebRtcClient
from tests.serving import Server

LOOK_S: Final = 0.005


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
class Holes:
    """The longest hole in seconds, as far as this process looked often enough to see it."""

    audio_s: float
    video_s: float
    own_s: float  # the longest time that this process did not look


class Conference:
    """See the module. Attackers join by ``client``."""

    def __init__(self, server: Server, room: str, http: aiohttp.ClientSession) -> None:
        self.server, self.room, self._http = server, room, http
        self._audio: list[float] = []
        self._video: list[float] = []
        self._looks: list[float] = []
        self.caller: Client | None = None

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
        """Notes how often this process gets to run: a hole of its own is nobody's fault."""
        loop = asyncio.get_running_loop()
        while True:
            self._looks.append(loop.time())
            await asyncio.sleep(LOOK_S)

    async def holes(self, seconds: float) -> Holes:
        """Watch for so long."""
        for gathered in (self._audio, self._video, self._looks):
            gathered.clear()
        await asyncio.sleep(seconds)
        now = asyncio.get_running_loop().time()
        own = max((b - a for a, b in pairwise(self._looks)), default=seconds)
        start = now - seconds
        return Holes(
            self._longest([start, *self._audio, now]), self._longest([start, *self._video, now]), own
        )

    def _longest(self, times: Iterable[float]) -> float:
        """The longest pause less the time in it that this process was away itself."""
        away = [(a, b) for a, b in pairwise(self._looks) if b - a > 4 * LOOK_S]
        return max(
            end - begin - sum(max(0.0, min(end, b) - max(begin, a)) for a, b in away)
            for begin, end in pairwise(times)
        )

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
        made.caller = made.client("sendonly", entry.token)
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
        async with asyncio.timeout(15):
            while not made._video or not made._audio:  # noqa: ASYNC110 - the first of each
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # playout finds its depth: nobody announces it
        yield made
