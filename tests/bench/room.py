"""The server's figures: start-up, a full room, joins, idle rooms. Each is measured on a real server process."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
import urllib.error
from pathlib import Path
from typing import Any, Final

from mixer.probe.run import Plan, Probe, opened
from mixer.probe.signal import percentile
from tests.bench.figures import Figure
from tests.bench.processes import Usage, usage
from tests.serving import Server, serving

PUBLISHERS: Final = 9
VIEWERS: Final = 9
JOINS: Final = 20
JOINS_S: Final = 40.0  # a server that is drowned takes 15 s to fail each
STARTS: Final = 3
IDLE_ROOMS: Final = 50
IDLE_S: Final = 10.0
SETTLE_S: Final = 3.0
COST_TURNS: Final = 5
COST_S: Final = 6.0


def ready(directory: Path) -> list[Figure]:
    """From exec to the first 200 of /readyz; the median of three, each with an empty data directory."""
    times = []
    for number in range(STARTS):
        with serving(directory / f"start-{number}") as server:
            times.append(server.ready_s)
    return [Figure("serve: ready after start, median of 3", statistics.median(times), "s", 5, digits=2)]


def full_room(directory: Path, seconds: float, *, follow: bool) -> list[Figure]:
    """9 publishers 720p30 VP8, 9 viewers at `high`, recording; then 20 more joins, one after another.

    ``follow``: publishers send what they are asked for, as browsers do; else 720p30 at 1.5 Mbit/s always.
    """
    with serving(directory) as server:
        return asyncio.run(_full_room(server, seconds, follow))


def recording_only(directory: Path, seconds: float) -> list[Figure]:
    """The same nine, recorded, with nobody who watches: what others run a browser for (1.3 to 1.7 cores)."""
    with serving(directory) as server:
        return asyncio.run(_recording_only(server, seconds))


async def _recording_only(server: Server, seconds: float) -> list[Figure]:
    room = server.room("bench")
    plan = Plan(url=server.url, room=room, token=server.token, callers=PUBLISHERS, viewers=0)
    call = asyncio.to_thread
    async with opened(plan):
        recording = await call(server.call, "POST", f"/v1/rooms/{room}/recordings", {})
        await asyncio.sleep(SETTLE_S)
        before = await call(usage, server.process.pid)
        await asyncio.sleep(seconds)
        after = await call(usage, server.process.pid)
        recorded = await call(_sealed, server, recording["id"])
    return [
        Figure("CPU of the server, all processes", after.cores_since(before), "cores", 1.3, digits=2),
        Figure("memory (PSS) of the server", after.pss_mb, "MB"),
        Figure("recording stopped and archived", float(recorded), "", 1, "≥"),
    ]


def recording_cost(directory: Path) -> list[Figure]:
    """What a recording adds to a room that is watched at `high`: off and on in turn, the medians compared."""
    with serving(directory) as server:
        return asyncio.run(_recording_cost(server))


async def _recording_cost(server: Server) -> list[Figure]:
    room = server.room("bench")
    plan = Plan(url=server.url, room=room, token=server.token, callers=4, viewers=2)
    call = asyncio.to_thread
    off, on, apart, tracks = [], [], [], []
    async with opened(plan) as probe:
        shy = f"/v1/rooms/{room}/participants/{probe.callers[0].entry.sub}"
        await asyncio.sleep(SETTLE_S)
        for _ in range(COST_TURNS):
            off.append(await _cores(server))
            recording = await call(server.call, "POST", f"/v1/rooms/{room}/recordings", {})
            on.append(await _cores(server))
            await call(server.call, "PATCH", shy, {"recorded": False})
            apart.append(await _cores(server))
            await call(server.call, "PATCH", shy, {"recorded": True})
            await call(_sealed, server, recording["id"])
            recording = await call(server.call, "POST", f"/v1/rooms/{room}/recordings", {"tracks": True})
            tracks.append(await _cores(server))
            await call(_sealed, server, recording["id"])
    added = statistics.median(with_it - without for without, with_it in zip(off, on, strict=True))
    with_tracks = statistics.median(with_them - film for film, with_them in zip(on, tracks, strict=True))
    refused = statistics.median(with_it - without for without, with_it in zip(off, apart, strict=True))
    return [
        Figure("recording, beyond the room", 100 * added, "% of a core", 5, digits=1),
        Figure("everybody's tracks, beyond the recording", 100 * with_tracks, "% of a core", 5, digits=1),
        Figure("... while somebody refuses to be in it", 100 * refused, "% of a core", digits=1),
        Figure("the room without it", statistics.median(off), "cores", digits=2),
    ]


async def _cores(server: Server) -> float:
    await asyncio.sleep(1.0)  # what starting or sealing takes is over
    before = await asyncio.to_thread(usage, server.process.pid)
    await asyncio.sleep(COST_S)
    return (await asyncio.to_thread(usage, server.process.pid)).cores_since(before)


async def _full_room(server: Server, seconds: float, follow: bool) -> list[Figure]:
    room = server.room("bench")
    plan = Plan(
        url=server.url, room=room, token=server.token, callers=PUBLISHERS, viewers=VIEWERS, follow=follow
    )
    async with opened(plan) as probe:
        await asyncio.sleep(SETTLE_S)
        call = asyncio.to_thread
        recording = await call(server.call, "POST", f"/v1/rooms/{room}/recordings", {})
        ticks_before = _ticks(await call(server.call, "GET", f"/v1/rooms/{room}/stats"))
        readings: list[Usage] = [usage(server.process.pid)]
        own_before, own_at = time.process_time(), time.monotonic()
        sampler = asyncio.create_task(_sample(server.process.pid, readings))
        measured = await probe.measure(seconds)
        sampler.cancel()
        readings.append(await call(usage, server.process.pid))
        own_cores = (time.process_time() - own_before) / (time.monotonic() - own_at)
        ticks_after = _ticks(await call(server.call, "GET", f"/v1/rooms/{room}/stats"))
        joins = await _joins(probe)
        recorded = await call(_sealed, server, recording["id"])
    dropped = {kind: ticks_after[kind] - ticks_before[kind] for kind in ticks_after}
    return [
        Figure(
            "CPU of the server, all processes",
            readings[-1].cores_since(readings[0]),
            "cores",
            0.8 if follow else None,
            digits=2,
        ),
        Figure("pictures delivered a second", measured.fps, "fps", 28, "≥", digits=1),
        Figure("audio ticks dropped", dropped["audio"], "", 0),
        Figure("video ticks dropped", dropped["video"], ""),
        Figure("memory (PSS) of the server, peak", max(reading.pss_mb for reading in readings), "MB", 700),
        Figure("added latency, video p95", measured.video_p95_ms, "ms", 120),
        Figure("added latency, video p50", measured.video_p50_ms, "ms"),
        Figure("added latency, audio p95", measured.audio_p95_ms, "ms", 80),
        Figure("added latency, audio p50", measured.audio_p50_ms, "ms"),
        Figure("WHEP POST to first decoded picture, p95", percentile(joins, 95), "s", 0.5, digits=2),
        Figure("recording stopped and archived", float(recorded), "", 1, "≥"),
        Figure("A/V skew, worst caller", _size(measured.skew_ms), "ms", 40),
        Figure("own voice in the mix back", measured.echo_db, "dB", -30),
        Figure("loss, worst way", measured.loss_percent, "%", digits=2),
        Figure("frozen", measured.frozen_percent, "%", digits=2),
        Figure("rate a viewer", measured.kbps_per_viewer, "kbit/s", 1400),
        Figure("callers seen and heard", measured.seen + measured.heard, "", 2 * PUBLISHERS - 1, "≥"),
        Figure("CPU of this load generator (same machine)", own_cores, "cores", digits=2),
        Figure("generator late, p95", measured.late_p95_ms, "ms", digits=1),
        Figure("load of this machine, 1 min", os.getloadavg()[0], "", digits=1),
    ]


async def _sample(pid: int, readings: list[Usage]) -> None:
    while True:
        await asyncio.sleep(2.0)
        readings.append(await asyncio.to_thread(usage, pid))


async def _joins(probe: Probe) -> list[float]:
    """Seconds of each; a join that failed counts as what it waited. At most ``JOINS_S`` in all."""
    found: list[float] = []
    began = time.monotonic()
    while len(found) < JOINS and time.monotonic() - began < JOINS_S:
        started = time.monotonic()
        joined = await probe.time_a_join()
        found.append(time.monotonic() - started if joined is None else joined)
    return found


def _sealed(server: Server, recording: str) -> bool:
    """Stop the recording; whether the archive has it within 20 s."""
    try:
        server.call("PATCH", f"/v1/recordings/{recording}", {"state": "stopped"})
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if server.call("GET", f"/v1/recordings/{recording}")["state"] == "archived":
                return True
            time.sleep(0.2)
    except urllib.error.HTTPError as refusal:
        print(f"recording: {refusal} {getattr(refusal, '__notes__', '')}", file=sys.stderr)
    print(server.log_tail(), file=sys.stderr)
    return False


def _size(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _ticks(stats: dict[str, Any]) -> dict[str, int]:
    return {kind: int(stats["ticks"][kind]["dropped"]) for kind in ("audio", "video")}


def idle_rooms(directory: Path) -> list[Figure]:
    """What 50 rooms that nobody is in cost beyond a server without rooms."""
    with serving(directory / "idle") as server:
        pid = server.process.pid
        time.sleep(SETTLE_S)
        empty_start = usage(pid)
        time.sleep(IDLE_S)
        empty = usage(pid)
        for number in range(IDLE_ROOMS):
            server.room(f"idle-{number}")
        time.sleep(SETTLE_S)
        full_start = usage(pid)
        time.sleep(IDLE_S)
        full = usage(pid)
    share = (full.cores_since(full_start) - empty.cores_since(empty_start)) * 100
    return [
        Figure("50 idle rooms, CPU beyond none", max(0.0, share), "% of a core", 2, digits=2),
        Figure("50 idle rooms, memory beyond none", full.pss_mb - empty.pss_mb, "MB", 150, digits=1),
        Figure("server without rooms, memory", empty.pss_mb, "MB"),
    ]
