"""A conference of two synthetic callers is recorded, fetched by ranges, and opened with PyAV."""

from __future__ import annotations

import asyncio
import io
import time
import urllib.request
from typing import Any

import av
import numpy as np
import pytest

from mixer.media import AUDIO_CLOCK_HZ
from mixer.probe import signal
from mixer.probe.callers import Caller
from mixer.probe.run import Plan, opened
from mixer.probe.signal import PipFinder, Rect
from tests.peers import canvas
from tests.peers.spare import with_time_to_spare
from tests.serving import Server

SECONDS = 8.0
SKEW_S = 0.040  # the issue


def fetch_in_ranges(server: Server, path: str, piece: int = 200_000) -> bytes:
    """The whole file, a Range at a time, as a player seeks; every answer checked."""
    whole, size, etag = b"", None, None
    while size is None or len(whole) < size:
        request = urllib.request.Request(
            server.url + path,
            headers={
                "Authorization": f"Bearer {server.token}",
                "Range": f"bytes={len(whole)}-{len(whole) + piece - 1}",
            },
        )
        with urllib.request.urlopen(request, timeout=15) as response:
            assert response.status == 206
            span, total = response.headers["Content-Range"].removeprefix("bytes ").split("/")
            assert span.startswith(f"{len(whole)}-")
            assert response.headers["ETag"] == (etag or response.headers["ETag"])
            etag, size = response.headers["ETag"], int(total)
            whole += response.read()
    return whole


async def sealed(server: Server, recording: str) -> dict[str, Any]:
    """Wait until the archive has it."""
    deadline = time.monotonic() + 60
    found: dict[str, Any] = {}
    while time.monotonic() < deadline:
        found = await asyncio.to_thread(server.call, "GET", f"/v1/recordings/{recording}")
        if found["state"] == "archived":
            return found
        assert found["state"] in {"recording", "sealing"}, found
        await asyncio.sleep(0.2)  # another process seals it
    pytest.fail(f"not archived: {found}\n{server.log_tail()}")


def pictures(media: av.container.InputContainer) -> list[tuple[float, av.VideoFrame]]:
    return [(frame.time or 0.0, frame) for frame in media.decode(video=0)]


def sound(media: av.container.InputContainer) -> tuple[float, signal.Sound]:
    """Time of the first sample, and all samples, mono 48 kHz."""
    resampler = av.AudioResampler("flt", "mono", AUDIO_CLOCK_HZ)
    frames = list(media.decode(audio=0))
    start = frames[0].time or 0.0
    blocks = [out.to_ndarray()[0] for frame in frames for out in resampler.resample(frame)]
    return start, np.concatenate(blocks).astype(np.float32)


def video_offsets(shown: list[tuple[float, av.VideoFrame]], caller: Caller, tile: Rect) -> list[float]:
    """Recording's time less sending time, for every counter of the last loop that appears for the first time.

    Only pictures of the loop's last round are in ``sent_at``, so only the last ``LOOP_S`` seconds are used.
    """
    offsets, last = [], None
    for at, frame in shown:
        luma = frame.to_ndarray()[: frame.height].astype(np.uint8, copy=False)
        counter = signal.read_counter(luma, tile)
        if counter is not None and counter != last:
            last = counter
            sent = caller.sent_at[counter]
            if sent is not None:
                offsets.append(at - sent)
    newest = max(offsets, default=0.0)
    return [offset for offset in offsets if abs(offset - newest) < 1.0]


@with_time_to_spare
async def test_what_is_recorded_can_be_fetched_and_is_in_step(server: Server) -> None:
    room = server.room("recorded")
    plan = Plan(url=server.url, room=room, token=server.token, callers=2, viewers=1)
    async with opened(plan) as probe:
        await probe.measure(1.0)  # everybody is in and settled
        started = await asyncio.to_thread(
            server.call, "POST", f"/v1/rooms/{room}/recordings", {"note": "test"}
        )
        assert started["state"] == "recording"
        begun = time.monotonic()
        await probe.measure(SECONDS - 2.0)
        places = await asyncio.to_thread(canvas.tiles, server, room)
        await asyncio.to_thread(server.call, "PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"})
        lasted = time.monotonic() - begun
        callers = probe.callers
    described = await sealed(server, started["id"])
    assert described["duration"] == pytest.approx(lasted, abs=0.7)

    data = await asyncio.to_thread(fetch_in_ranges, server, f"/v1/recordings/{started['id']}/media")
    assert len(data) > 100_000
    with av.open(io.BytesIO(data), "r") as media:
        video, audio = media.streams.video[0], media.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", 1280, 720)
        assert audio.codec_context.name == "aac"
        shown = pictures(media)
    with av.open(io.BytesIO(data), "r") as media:
        first_sample_at, heard = sound(media)
    assert shown[-1][0] - shown[0][0] == pytest.approx(lasted, abs=0.7)
    assert heard.size / AUDIO_CLOCK_HZ == pytest.approx(lasted, abs=0.7)
    assert len(shown) / lasted > 20, "about 30 pictures a second, even on a busy machine"

    middle = shown[len(shown) // 2][1]
    planes = middle.to_ndarray().astype(np.uint8, copy=False)
    u = planes[720:900].reshape(360, 640)
    v = planes[900:].reshape(360, 640)
    for caller in callers:
        tile = places[caller.entry.sub]
        place = Rect(tile["x"], tile["y"], tile["width"], tile["height"])
        assert signal.closest_hue(signal.read_chroma(u, v, place)) == caller.identity.index

        finder = PipFinder(caller.identity.tone_hz)
        edges = finder.feed(heard) + finder.flush()
        pips = [first_sample_at + edge / AUDIO_CLOCK_HZ for edge in edges]
        # the recording's clock starts anywhere before sending's: shift it well below, so that delays are positive
        video_lag = signal.percentile(video_offsets(shown, caller, place), 50)
        assert video_lag is not None, "the counter is readable"
        shift = video_lag - 1.0
        delays = signal.match_delays(list(caller.pips_sent), [pip - shift for pip in pips])
        assert len(delays) >= 4, "the tone is there"
        audio_lag = signal.percentile(delays, 50)
        assert audio_lag is not None
        assert abs(1.0 - audio_lag) <= SKEW_S, f"picture {(1.0 - audio_lag) * 1000:+.0f} ms after sound"
