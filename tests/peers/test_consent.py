"""Who refuses to be recorded stays in the room and is neither seen nor heard in the recording."""

from __future__ import annotations

import asyncio
import io
import json
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mixer.media import AUDIO_CLOCK_HZ
from mixer.probe import signal
from mixer.probe.run import Plan, opened
from mixer.probe.signal import Rect
from tests.peers import canvas
from tests.peers.spare import with_time_to_spare
from tests.peers.test_recording import fetch_in_ranges, sealed, sound
from tests.serving import Server

AT_ONCE_S = 0.2  # between the word's answer and the first picture and sound without them


def _hues(frame: av.VideoFrame, places: list[Rect]) -> list[int | None]:
    planes = frame.to_ndarray().astype(np.uint8, copy=False)
    u, v = planes[720:900].reshape(360, 640), planes[900:].reshape(360, 640)
    return [signal.closest_hue(signal.read_chroma(u, v, place)) for place in places]


def _tone(samples: NDArray[np.float32], hz: float) -> float:
    """Amplitude of one tone, by correlation with it."""
    t = np.arange(samples.size) / AUDIO_CLOCK_HZ
    return float(2 * abs(np.mean(samples * np.exp(-2j * np.pi * hz * t))))


def _rects(tiles: dict[str, dict[str, Any]]) -> list[Rect]:
    return [Rect(tile["x"], tile["y"], tile["width"], tile["height"]) for tile in tiles.values()]


@with_time_to_spare
async def test_who_refuses_is_in_the_room_and_not_in_the_recording(server: Server) -> None:
    room = server.room("consent")
    path = f"/v1/rooms/{room}"
    plan = Plan(url=server.url, room=room, token=server.token, callers=3, viewers=1)
    async with opened(plan) as probe:
        await probe.measure(1.0)
        shy = probe.callers[0]
        places = _rects(await asyncio.to_thread(canvas.tiles, server, room))
        started = await asyncio.to_thread(server.call, "POST", f"{path}/recordings", {})
        await probe.measure(2.5)
        await asyncio.to_thread(
            server.call, "PATCH", f"{path}/participants/{shy.entry.sub}", {"recorded": False}
        )
        await probe.measure(2.5)
        assert shy.entry.sub in await asyncio.to_thread(canvas.tiles, server, room), (
            "the room sees them as before"
        )
        assert "apart" in (await asyncio.to_thread(server.call, "GET", f"{path}/stats"))["renditions"]
        await asyncio.to_thread(
            server.call, "PATCH", f"{path}/participants/{shy.entry.sub}", {"recorded": True}
        )
        await probe.measure(2.5)
        assert "apart" not in (await asyncio.to_thread(server.call, "GET", f"{path}/stats"))["renditions"], (
            "no second encode for nobody"
        )
        await asyncio.to_thread(server.call, "PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"})
        await sealed(server, started["id"])

    lines = await asyncio.to_thread(
        server.call, "GET", f"/v1/recordings/{started['id']}/files/data/timeline.jsonl"
    )
    events = [json.loads(line) for line in lines.splitlines()]
    notices = {
        e["name"]: e["t"] for e in events if e["event"] == "notice" and e.get("participant") == shy.entry.sub
    }
    assert set(notices) == {"not recorded", "recorded"}
    out, back = notices["not recorded"], notices["recorded"]
    data = await asyncio.to_thread(fetch_in_ranges, server, f"/v1/recordings/{started['id']}/media")

    halves = [Rect(0, 0, 640, 720), Rect(640, 0, 640, 720)]  # two people side by side
    with av.open(io.BytesIO(data), "r") as media:
        frames = [(frame.time or 0.0, frame) for frame in media.decode(video=0)]
    assert max(after - before for (before, _), (after, _) in pairwise(frames)) < 1.0, "the film goes on"
    first, others = shy.identity.index, [caller.identity.index for caller in probe.callers[1:]]
    shown = [(t, _hues(frame, places), _hues(frame, halves)) for t, frame in frames]
    assert any(first in tiles for t, tiles, _ in shown if 0.5 < t < out), "seen before they refused"
    without = [halves for t, _, halves in shown if out + AT_ONCE_S < t < back]
    assert len(without) > 30
    assert not any(first in hues for hues in without), "not one picture of them"
    # the others side by side, but for what a busy machine was too late to decode
    assert sum(set(hues) == set(others) for hues in without) > 0.6 * len(without)
    assert any(first in tiles for t, tiles, _ in shown if t > back + AT_ONCE_S), "and after they agreed"

    with av.open(io.BytesIO(data), "r") as media:
        start, heard = sound(media)
    at = lambda t: round((t - start) * AUDIO_CLOCK_HZ)  # noqa: E731
    before, during = heard[at(0.5) : at(out)], heard[at(out + AT_ONCE_S) : at(back)]
    after = heard[at(back + AT_ONCE_S) :]
    tone, theirs = shy.identity.tone_hz, probe.callers[1].identity.tone_hz
    assert _tone(before, tone) > 0.01
    assert _tone(during, tone) < _tone(before, tone) / 100, "-40 dB: nothing but leakage of the others' tones"
    assert _tone(after, tone) > _tone(before, tone) / 3
    assert _tone(during, theirs) == pytest.approx(_tone(before, theirs), rel=0.5)


async def test_who_refused_before_it_began_is_never_in_it(server: Server) -> None:
    room = server.room("consent-before", record=False)
    path = f"/v1/rooms/{room}"
    plan = Plan(url=server.url, room=room, token=server.token, callers=2, viewers=0)
    async with opened(plan) as probe:
        await probe.measure(1.0)
        shy, other = probe.callers
        await asyncio.to_thread(
            server.call, "PATCH", f"{path}/participants/{shy.entry.sub}", {"recorded": False}
        )
        started = await asyncio.to_thread(server.call, "POST", f"{path}/recordings", {})
        await probe.measure(2.0)
        await asyncio.to_thread(server.call, "PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"})
        await sealed(server, started["id"])
    data = await asyncio.to_thread(fetch_in_ranges, server, f"/v1/recordings/{started['id']}/media")
    with av.open(io.BytesIO(data), "r") as media:
        hues = [_hues(frame, [Rect(0, 0, 1280, 720)])[0] for frame in media.decode(video=0)]
    assert hues
    assert set(hues) <= {other.identity.index, None}
    with av.open(io.BytesIO(data), "r") as media:
        _, heard = sound(media)
    assert _tone(heard, shy.identity.tone_hz) < _tone(heard, other.identity.tone_hz) / 100
