"""Lines as people have them: loss, delay and a cap through the shaper; bytes on the wire; what a viewer costs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp

from mixer.probe.report import Figures
from mixer.probe.run import Plan, Probe, opened
from mixer.probe.server import ServerApi
from mixer.video.rendition import RENDITIONS
from mixer.webrtc.client_offer import Tells
from tests.bench.figures import Figure
from tests.bench.processes import usage
from tests.bench.watchers import Eye, watching
from tests.serving import Server, serving
from tests.shaper import Remote, Way, bursts, shaping

SEED: Final = 11
DELAY_S: Final = 0.05
CLEAN: Final = Way(delay_s=DELAY_S)
CLEAN_S: Final = 8.0
LOSSY_S: Final = 30.0  # one stop of a quarter of a second is 0.8 % of that
KNOWN_S: Final = 8.0  # the jitter buffers on both sides have met the line by then: growth is what comes after
RELAX_S: Final = 6.0  # a jitter buffer may take that long to trust the line again
# The line, and what may be concealed and frozen at most, percent of the time
LINES: Final = (
    ("2 % random loss", Way(delay_s=DELAY_S, loss=0.02), 2, 2),
    ("5 % random loss", Way(delay_s=DELAY_S, loss=0.05), 4, 5),
    ("10 % random loss", Way(delay_s=DELAY_S, loss=0.10), 8, 12),
    ("2 % loss in bursts of 5", Way(delay_s=DELAY_S, burst=bursts(0.02)), 2, 2),
    ("5 % loss in bursts of 5", Way(delay_s=DELAY_S, burst=bursts(0.05)), 4, 5),
    ("10 % loss in bursts of 5", Way(delay_s=DELAY_S, burst=bursts(0.10)), 8, 12),
)
WIRE_S: Final = 16.0
CAP_BPS: Final = 150_000
CAP_QUEUE_BYTES: Final = 16_000  # 0.85 s of the cap: a home router's buffer, not an endless one
AUTO_S: Final = 8.0  # until `auto` has found what an open line takes
CAPPED_S: Final = 20.0
LIFTED_S: Final = 18.0
KINDS: Final[dict[Tells, str]] = {
    "transport-cc": "tells when each packet came",
    "remb": "tells its own estimate (REMB)",
    "losses": "tells of losses only",
}
FURTHER: Final = 30
VIEWED_S: Final = 8.0
TURNS: Final = 2


def weak_lines(directory: Path) -> list[Figure]:
    """Two callers that speak and one room, everything through one shaper; each line in turn, both ways."""

    async def run(server: Server, shaper: Remote) -> list[Figure]:
        plan = _plan(server, shaper.url, callers=2, viewers=2, voiced=True)
        async with opened(plan) as probe:
            await _shape(shaper, CLEAN)
            before = await probe.measure(CLEAN_S)
            rows = [row for line in LINES for row in await _weak(probe, shaper, *line)]
            await _shape(shaper, CLEAN)
            await asyncio.sleep(RELAX_S)
            after = await probe.measure(CLEAN_S)
        return [
            *rows,
            Figure(
                "delay of sound after all that, more than before", _grown(before, after, "audio"), "ms", 40
            ),
            Figure("delay of pictures after all that", _grown(before, after, "video"), "ms", 40),
        ]

    return _through_a_shaper(directory, run)


async def _weak(
    probe: Probe, shaper: Remote, name: str, way: Way, concealed: int, frozen: int
) -> list[Figure]:
    await _shape(shaper, way)
    await asyncio.sleep(KNOWN_S)
    found = await probe.measure(LOSSY_S)
    ways = found.concealed_in_percent, found.concealed_out_percent
    both = None if ways[0] is None or ways[1] is None else ways[0] + ways[1]
    return [
        Figure(f"{name}: sound concealed, in + out", both, "% of time", concealed, digits=1),
        Figure("… of it on the way in", ways[0], "% of time", digits=1),
        Figure("… pictures frozen", found.frozen_percent, "% of time", frozen, digits=1),
        Figure("… stalled, without a player's jitter buffer", found.stalled_percent, "% of time", digits=1),
        Figure("… growth of the sound's delay", found.audio_growth_ms, "ms", 40),
        Figure("… pictures p95", found.video_p95_ms, "ms"),
        Figure("… sound p95", found.audio_p95_ms, "ms"),
    ]


def _grown(before: Figures, after: Figures, kind: str) -> float | None:
    first, last = (getattr(figures, f"{kind}_p50_ms") for figures in (before, after))
    return None if first is None or last is None else last - first


def wire(directory: Path) -> list[Figure]:
    """Bytes that each rendition's viewer is sent, IP and UDP headers, RTCP and STUN included."""

    async def run(server: Server, shaper: Remote) -> list[Figure]:
        plan = _plan(server, server.url, callers=2, viewers=0, voiced=True)
        names = list(RENDITIONS)
        async with opened(plan) as probe, aiohttp.ClientSession() as http:
            api = ServerApi(http, shaper.url, probe.plan.room, server.token)
            async with watching(http, api, names):
                await asyncio.sleep(3.0)
                before = await asyncio.to_thread(shaper.lines)
                started = time.monotonic()
                await asyncio.sleep(WIRE_S)
                after = await asyncio.to_thread(shaper.lines)
                elapsed = time.monotonic() - started
        # a line a viewer, in the order of their joining
        sent = [after[line]["down"]["wire_bytes"] - before[line]["down"]["wire_bytes"] for line in after]
        return [
            Figure(
                f"`{name}` on the wire, headers included", size * 8 / 1000 / elapsed, "kbit/s",
                RENDITIONS[name].wire_bps / 1000, digits=1,
            )
            for name, size in zip(names, sent, strict=True)
        ]  # fmt: skip

    return _through_a_shaper(directory, run)


def capped(directory: Path) -> list[Figure]:
    """Viewers that leave the choice to the server, on lines that narrow to 150 kbit/s and open again: each tells of
    its line what another kind of peer tells."""

    async def run(server: Server, shaper: Remote) -> list[Figure]:
        plan = _plan(server, server.url, callers=2, viewers=0)
        narrow = Way(delay_s=DELAY_S, rate_bps=CAP_BPS, queue_bytes=CAP_QUEUE_BYTES)
        async with (
            opened(plan) as probe,
            aiohttp.ClientSession() as http,
            contextlib.AsyncExitStack() as stack,
        ):
            await _shape(shaper, CLEAN)
            api = ServerApi(http, shaper.url, probe.plan.room, server.token)
            eyes: dict[Tells, Eye] = {}
            for tells in KINDS:
                (client,) = await stack.enter_async_context(watching(http, api, ["auto"], tells=tells))
                eyes[tells] = Eye(client)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            looking = [group.create_task(eye.look()) for eye in eyes.values()]
            for eye in eyes.values():
                eye.client.request_keyframe()
            moments = []
            for way, seconds in ((None, AUTO_S), (narrow, CAPPED_S), (CLEAN, LIFTED_S)):
                if way is not None:
                    await asyncio.to_thread(shaper.shape, down=way)
                moments.append(time.monotonic())
                await asyncio.sleep(seconds)
            moments.append(time.monotonic())
            for task in looking:
                task.cancel()
        return [figure for tells, eye in eyes.items() for figure in _adapted(KINDS[tells], eye, moments)]

    return _through_a_shaper(directory, run)


def _adapted(kind: str, eye: Eye, moments: Sequence[float]) -> list[Figure]:
    """``moments``: joined, capped, lifted, ended."""
    _, narrowed, lifted, ended = moments
    high, low = RENDITIONS["high"].width, RENDITIONS["low"].width
    down, up = eye.settled_s(low, narrowed, lifted), eye.settled_s(high, lifted, ended)
    pauses = eye.longest_pause_s(narrowed, lifted), eye.longest_pause_s(lifted, ended)
    return [
        Figure(f"{kind}: on an open line after {AUTO_S:g} s", eye.width_at(narrowed), "px wide", high, "≥"),
        Figure("… capped to 150 kbit/s: settles at `low` after", down, "s", 10, digits=1),
        Figure("… longest freeze", pauses[0], "s", 2, digits=1),
        Figure("… cap lifted: back at `high` after", up, "s", 15, digits=1),
        Figure("… longest freeze", pauses[1], "s", 2, digits=1),
    ]


def further_viewers(directory: Path) -> list[Figure]:
    """One viewer at `medium` against 31, in turn, two publishers: what a viewer costs does not depend on those."""
    with serving(directory) as server:
        return asyncio.run(_further(server))


async def _further(server: Server) -> list[Figure]:
    used: dict[int, list[float]] = {1: [], 1 + FURTHER: []}
    async with (
        opened(_plan(server, server.url, callers=2, viewers=0)) as probe,
        aiohttp.ClientSession() as http,
    ):
        api = ServerApi(http, server.url, probe.plan.room, server.token)
        for _ in range(TURNS):
            for count, cores in used.items():
                async with watching(http, api, ["medium"] * count) as clients:
                    for client in clients:
                        client.stop_assembling()
                    await asyncio.sleep(2.0)
                    before = await asyncio.to_thread(usage, server.process.pid)
                    await asyncio.sleep(VIEWED_S)
                    cores.append((await asyncio.to_thread(usage, server.process.pid)).cores_since(before))
    few, many = (median(cores) for cores in used.values())
    return [
        Figure("further viewer at `medium`", (many - few) / FURTHER * 100, "% of a core", 0.3, digits=3),
        Figure("… server with one viewer", few, "cores", digits=2),
        Figure("… server with 31", many, "cores", digits=2),
    ]


def _through_a_shaper(directory: Path, run: Callable[[Server, Remote], Any]) -> list[Figure]:
    with serving(directory) as server, shaping(server.url, seed=SEED) as shaper:
        found: list[Figure] = asyncio.run(run(server, shaper))
        return found


async def _shape(shaper: Remote, way: Way) -> None:
    await asyncio.to_thread(shaper.shape, up=way, down=way)


def _plan(server: Server, url: str, *, callers: int, viewers: int, voiced: bool = False) -> Plan:
    room = server.room("lines")
    return Plan(url=url, room=room, token=server.token, callers=callers, viewers=viewers, voiced=voiced)
