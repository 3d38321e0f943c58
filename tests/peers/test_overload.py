"""A real server that may use less than its callers cost: it says what it gives up, takes nobody in, records on."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any, get_args

import aiohttp
import av
import numpy as np
import pytest

from mixer.overload import RECORDED_STEPS, Cause
from mixer.probe.run import Plan, opened
from mixer.webrtc.client import Refused, WebRtcClient
from tests.peers.spare import with_time_to_spare
from tests.peers.test_recording import fetch_in_ranges, sealed
from tests.serving import Server, serving

CALLERS = 3
CORES = 0.4  # with CALM these callers are predicted to take 0.3; with BUSY they take 0.6 on the fastest machine seen
CALM = {"canvas": {"width": 640, "height": 360, "fps": 10}}
BUSY = {"canvas": {"width": 1280, "height": 720, "fps": 60}}
BURST = 20  # of publishers, the first of whom are predicted to take 0.05 each
MAX_GAP_S = 0.5  # of the film's pictures: several of those at 15 a second, and a busy machine's hiccup


class Events:
    """What ``/v1/events`` says of one room, from now on."""

    def __init__(self, stream: aiohttp.StreamReader) -> None:
        self._stream = stream
        self.seen: list[dict[str, Any]] = []

    async def next(self, kind: str, within_s: float) -> dict[str, Any]:
        """The next event of that kind; others are kept in ``seen``."""
        async with asyncio.timeout(within_s):
            while True:
                line = (await self._stream.readline()).decode()
                if line.startswith("data: "):
                    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
                    self.seen.append(event)
                    if event["type"] == kind:
                        return event["data"]


async def joining(server: Server, http: aiohttp.ClientSession, room: str) -> None:
    """One more caller; left again at once when it is let in."""
    someone = await asyncio.to_thread(server.enter, room)
    client = WebRtcClient(http, f"{server.url}/whip/{room}", token=someone["token"], direction="sendonly")
    try:
        await client.start()
    finally:
        await client.close()


@pytest.mark.timeout(400)
@with_time_to_spare
async def test_steps_are_told_the_door_is_closed_and_the_recording_is_whole(tmp_path: Path) -> None:
    with serving(tmp_path, {"media.cpu_cores": str(CORES), "media.overload": "act"}) as server:
        room = server.room("narrow")
        server.call("PUT", f"/v1/rooms/{room}/layout", CALM)
        headers = {"Authorization": f"Bearer {server.token}"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=60)) as http,
            http.get(f"{server.url}/v1/events?room={room}", headers=headers) as stream,
        ):
            events = Events(stream.content)
            plan = Plan(
                url=server.url, room=room, token=server.token, callers=CALLERS, viewers=1, follow=False
            )
            async with opened(plan):
                started = await asyncio.to_thread(server.call, "POST", f"/v1/rooms/{room}/recordings", {})
                # by who is let in it cannot come to that any more: a moderator does it
                await asyncio.to_thread(server.call, "PUT", f"/v1/rooms/{room}/layout", BUSY)
                told = await events.next("room.degraded", within_s=60)
                assert told["step"] == 1
                assert told["name"] == "fps-20"
                # neighbours may make another cause worse; that the cores are exceeded is what was arranged
                assert told["cause"] in get_args(Cause)
                load = (await asyncio.to_thread(server.call, "GET", f"/v1/rooms/{room}/stats"))["load"]
                assert load["cores"] > CORES / 2, "a step down from what was too much"
                assert load["step"] >= 1
                assert load["full"]
                with pytest.raises(Refused, match="limit of what this machine carries") as refusal:
                    await joining(server, http, room)
                assert refusal.value.status == 503
                given_up = {
                    event["data"]["name"] for event in events.seen if event["type"] == "room.degraded"
                }
                assert given_up <= {step.name for step in RECORDED_STEPS}
            ticks = (await asyncio.to_thread(server.call, "GET", f"/v1/rooms/{room}/stats"))["ticks"]["audio"]
            assert ticks["dropped"] <= ticks["run"] / 50, "sound is not what is given up"
            await events.next("room.restored", within_s=60)
            await asyncio.to_thread(
                server.call, "PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"}
            )
            await sealed(server, started["id"])
            film = await asyncio.to_thread(fetch_in_ranges, server, f"/v1/recordings/{started['id']}/media")
    check_film(film)


@pytest.mark.timeout(200)
@with_time_to_spare
async def test_of_a_burst_of_joins_some_are_refused_and_no_step_is_taken(tmp_path: Path) -> None:
    with serving(tmp_path, {"media.cpu_cores": "0.7", "media.overload": "act"}) as server:
        room = server.room("burst")
        plan = Plan(url=server.url, room=room, token=server.token, callers=1, viewers=1)
        async with aiohttp.ClientSession() as http, opened(plan):
            came = await asyncio.gather(
                *(joining(server, http, room) for _ in range(BURST)), return_exceptions=True
            )
            refused = [answer for answer in came if isinstance(answer, Refused)]
            assert {answer.status for answer in refused} == {503}
            assert all(answer is None or answer in refused for answer in came)
            assert 0 < len(refused) < BURST
            load = (await asyncio.to_thread(server.call, "GET", f"/v1/rooms/{room}/stats"))["load"]
            assert (load["step"], load["full"]) == (0, False), (
                "refused by what was to come, not by what was felt"
            )
        assert "room.degraded" not in await asyncio.to_thread(server.log.read_text)


def check_film(film: bytes) -> None:
    """One size from start to end, pictures and sound without a gap."""
    with av.open(io.BytesIO(film)) as container:
        video = container.streams.video[0]
        sizes, shown = set(), []
        for frame in container.decode(video):
            sizes.add((frame.width, frame.height))
            shown.append(float(frame.pts * frame.time_base))
    assert sizes == {(1280, 720)}
    assert np.diff(shown).min() > 0
    assert np.diff(shown).max() < MAX_GAP_S
    with av.open(io.BytesIO(film)) as container:
        heard = [
            float(packet.pts * packet.time_base)
            for packet in container.demux(container.streams.audio[0])
            if packet.pts is not None
        ]
    assert np.diff(heard).max() < 0.05  # AAC frames are 21 ms
