"""The spool's disk is full in the middle of a recording: an alert, and the room goes on as if nothing were."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import av
import pytest

from mixer.probe.run import Plan, opened
from tests.peers.spare import with_time_to_spare
from tests.peers.test_overload import Events
from tests.peers.test_recording import fetch_in_ranges, sealed
from tests.serving import serving

ALERT_S = 10.0  # the issue: at most
SPOOL = "16m"  # of which a recording holds 4 MiB back for its end


@pytest.fixture
def small_spool(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 16 MB where the server will have its spool."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    spool = tmp_path / "var" / "spool"
    spool.mkdir(parents=True, mode=0o700)
    (tmp_path / "var").chmod(0o700)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SPOOL}", "tmpfs", spool], check=False)
    if made.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield spool
    subprocess.run(["umount", "--lazy", spool], check=True)


def fill(path: Path) -> None:
    """All that is left, to the last block."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@with_time_to_spare
async def test_a_full_spool_is_told_at_once_and_the_room_goes_on(tmp_path: Path, small_spool: Path) -> None:
    (small_spool / "filler").unlink(missing_ok=True)
    with serving(tmp_path) as server:
        room = server.room("full")
        plan = Plan(url=server.url, room=room, token=server.token, callers=2, viewers=1)
        headers = {"Authorization": f"Bearer {server.token}"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=60)) as http,
            http.get(f"{server.url}/v1/events?room={room}", headers=headers) as stream,
            opened(plan) as probe,
        ):
            events = Events(stream.content)
            started = await asyncio.to_thread(server.call, "POST", f"/v1/rooms/{room}/recordings", {})
            await probe.measure(3.0)
            fill(small_spool / "filler")
            begun = time.monotonic()
            told = await events.next("recording.alert", within_s=ALERT_S)
            assert (told["recording"], told["kind"]) == (started["id"], "disk-full"), told
            assert time.monotonic() - begun < ALERT_S
            figures = await probe.measure(4.0)
            assert figures.fps is not None
            assert figures.fps > 20, "nobody in the room notices"
            ticks = (await asyncio.to_thread(server.call, "GET", f"/v1/rooms/{room}/stats"))["ticks"]["audio"]
            assert ticks["dropped"] <= ticks["run"] / 50
            (small_spool / "filler").unlink()
            told = await events.next("recording.alert", within_s=ALERT_S)
            assert told["kind"] == "recovered"
            await probe.measure(2.0)
            await asyncio.to_thread(
                server.call, "PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"}
            )
        described = await sealed(server, started["id"])
        film = await asyncio.to_thread(fetch_in_ranges, server, f"/v1/recordings/{started['id']}/media")
    with av.open(io.BytesIO(film)) as container:
        last = [float(frame.time or 0) for frame in container.decode(video=0)][-1]
    assert last == pytest.approx(described["duration"], abs=0.2)
    assert last > 9.0, "what waited for the disk while it was full is in the film"
