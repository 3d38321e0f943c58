"""A conference server of a hundred lines for the probe's own tests: what one publisher sends, everybody gets.

WHIP and WHEP are real (``mixer.webrtc.peer`` on the loopback); there is no mixer, so only one voice is passed
on: of the participant ``speaks``, held back by ``delay_s``. A test can see whether the probe finds both.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from mixer.errors import BadOffer
from mixer.fanout import Fanout
from mixer.media import AudioCodec, EncodedAudio, EncodedVideo
from mixer.rtp.packet import RtpPacket
from mixer.webrtc.peer import Peer
from mixer.webrtc.peers import PeerFactory


class Sink:
    """One session's events. Only the methods that this server needs do anything."""

    def __init__(self, server: Reflector, subject: str) -> None:
        self.server = server
        self.subject = subject
        self.peer: Peer | None = None

    def on_connected(self) -> None:
        self.server.connected(self)

    def on_audio(self, packet: RtpPacket, codec: AudioCodec, now: float) -> None:
        self.server.sound(self, packet)

    def on_video(self, frame: EncodedVideo, screen: bool) -> None:
        self.server.fanout.publish(frame)

    def on_keyframe_request(self) -> None:
        self.server.want_keyframe()

    def on_line(self, line: object, now: float) -> None:
        pass

    def on_closed(self, reason: str) -> None:
        self.server.gone(self)


class Reflector:
    """One room, one publisher at a time in the picture."""

    def __init__(self, *, delay_s: float = 0.0, speaks: str = "p2") -> None:
        self.delay_s = delay_s
        self.speaks = speaks
        self.shows = True  # whether the layout has a tile for "p1"
        self.factory = PeerFactory(host="127.0.0.1", ports=range(40000, 41000))
        self.fanout = Fanout(request_keyframe=self.want_keyframe)
        self.publishers: list[Sink] = []
        self.watchers: list[Sink] = []
        self.sessions: dict[str, Peer] = {}
        self.passes = itertools.count(1)
        self.url = ""
        self._first_timestamps: dict[str, int] = {}

    def connected(self, sink: Sink) -> None:
        peer = sink.peer
        if peer is not None and peer.sends_video:
            self.watchers.append(sink)
            self.fanout.add(peer)
        elif peer is not None:
            self.publishers.append(sink)

    def want_keyframe(self) -> None:
        for sink in self.publishers:
            if sink.peer is not None:
                sink.peer.request_keyframe()

    def sound(self, sender: Sink, packet: RtpPacket) -> None:
        if sender.subject != self.speaks:
            return
        first = self._first_timestamps.setdefault(sender.subject, packet.timestamp)
        pts = (packet.timestamp - first) & 0xFFFFFFFF
        frame = EncodedAudio("opus", packet.payload, pts, 960)
        asyncio.get_running_loop().call_later(self.delay_s, self._pass_on, frame)

    def _pass_on(self, frame: EncodedAudio) -> None:
        for watcher in self.watchers:
            if watcher.peer is not None:
                watcher.peer.send_audio(frame)

    def gone(self, sink: Sink) -> None:
        for group in (self.publishers, self.watchers):
            if sink in group:
                group.remove(sink)
        if sink.peer is not None:
            self.fanout.remove(sink.peer)

    # -- HTTP

    async def enter(self, request: web.Request) -> web.Response:
        subject = f"p{next(self.passes)}"
        return web.json_response({"token": subject, "sub": subject, "room": "r"}, status=201)

    async def offer(self, request: web.Request) -> web.Response:
        publishes = request.path.startswith("/whip/")
        sink = Sink(self, request.headers["Authorization"].removeprefix("Bearer "))
        sink.peer = self.factory.peer(sink, send=not publishes, receive=publishes)
        try:
            answer = await sink.peer.accept(await request.text())
        except BadOffer as error:
            return web.json_response({"detail": str(error)}, status=400)
        name = f"/session/{len(self.sessions)}"
        self.sessions[name] = sink.peer
        return web.Response(
            text=answer, status=201, content_type="application/sdp", headers={"Location": name}
        )

    async def hang_up(self, request: web.Request) -> web.Response:
        await self.sessions.pop(request.path).close()
        return web.Response()

    async def layout(self, request: web.Request) -> web.Response:
        return web.json_response({"version": 1, "preset": "grid"})

    async def preview(self, request: web.Request) -> web.Response:
        tiles: list[dict[str, Any]] = [
            {"id": "t", "participant": "p1", "x": 0, "y": 0, "width": 1280, "height": 720, "z": 0}
        ]
        return web.json_response({"tiles": tiles if self.shows else [], "cost": {}})


@contextlib.asynccontextmanager
async def reflecting(**options: Any) -> AsyncIterator[Reflector]:
    """The server, listening; its ``url`` is set."""
    server = Reflector(**options)
    app = web.Application()
    app.router.add_post("/join/{room}", server.enter)
    app.router.add_post("/whip/{room}", server.offer)
    app.router.add_post("/whep/{room}", server.offer)
    app.router.add_delete("/session/{number}", server.hang_up)
    app.router.add_get("/v1/rooms/{room}/layout", server.layout)
    app.router.add_post("/v1/rooms/{room}/layout/preview", server.preview)
    await server.factory.start()
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await server.factory.close()
        await runner.cleanup()
