"""A publisher on a line that narrows and opens again, who steers by REMB alone: is its tile alive, its queue short?

It plays loops of 1,500, 350 and 120 kbit/s, beside 58 of sound, and takes the best that it is told it may send: 250
kbit/s leave the smallest. What its tile shows is seen in the server's figures, ten times a second.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from mixer.probe.run import Plan, opened
from mixer.probe.server import ServerApi
from tests.bench.figures import Figure
from tests.bench.watchers import watching
from tests.serving import Server, serving
from tests.shaper import Remote, Way, shaping

SEED: Final = 12
OPEN: Final = Way(delay_s=0.05)
CAP_BPS: Final = 250_000
CAP: Final = Way(delay_s=0.05, rate_bps=CAP_BPS, queue_bytes=27_000)  # 0.85 s, as in `networks`
OPEN_S, CAPPED_S, LIFTED_S = 8.0, 30.0, 20.0
SETTLE_S: Final = 10.0
LOOK_S: Final = 0.1
LARGE_KBPS: Final = 1000  # of pictures that came: the large loop


@dataclass(frozen=True, slots=True)
class Look:
    """At one moment: pictures decoded so far, kbit/s that are asked for and come, what waits on its line."""

    at: float
    decoded: int
    asked_kbps: int
    received_kbps: int
    queued_bytes: int


def uplink(directory: Path) -> list[Figure]:
    """One publisher through the shaper, a viewer at `high` beside it."""
    with serving(directory) as server, shaping(server.url, seed=SEED, up=OPEN, down=OPEN) as shaper:
        looks, moments = asyncio.run(_run(server, shaper))
    return figures(looks, moments)


async def _run(server: Server, shaper: Remote) -> tuple[list[Look], list[float]]:
    room = server.room("uplink")
    plan = Plan(url=shaper.url, room=room, token=server.token, callers=1, viewers=0)
    looks: list[Look] = []
    async with opened(plan), aiohttp.ClientSession() as http:
        api = ServerApi(http, server.url, room, server.token)
        async with watching(http, api, ["high"]):
            looking = asyncio.create_task(look_on(server, shaper, room, looks))
            moments = []
            for way, seconds in ((OPEN, OPEN_S), (CAP, CAPPED_S), (OPEN, LIFTED_S)):
                await asyncio.to_thread(shaper.shape, up=way)
                moments.append(time.monotonic())
                await asyncio.sleep(seconds)
            moments.append(time.monotonic())
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    return looks, moments


async def look_on(server: Server, shaper: Remote, room: str, looks: list[Look]) -> None:
    """A look each ``LOOK_S`` at a room's only publisher, until cancelled."""
    while True:
        stats = await asyncio.to_thread(server.call, "GET", f"/v1/rooms/{room}/stats")
        lines: dict[str, Any] = await asyncio.to_thread(shaper.lines)
        queued = sum(line["up"]["queued_bytes"] for line in lines.values())
        looks += [
            Look(
                time.monotonic(),
                figures["decoded"],
                figures["asked_kbps"],
                figures["received_kbps"],
                queued,
            )
            for figures in stats["participants"].values()
        ]
        await asyncio.sleep(LOOK_S)


def figures(looks: Sequence[Look], moments: Sequence[float]) -> list[Figure]:
    """``moments``: open, capped, lifted, ended."""
    began, narrowed, lifted, ended = moments
    settled = [look for look in looks if narrowed + SETTLE_S <= look.at < lifted]
    queues = sorted(look.queued_bytes for look in settled)
    standing = 8000 * queues[len(queues) // 2] / CAP_BPS if queues else None
    before = [look.received_kbps for look in looks if began <= look.at < narrowed]
    down = _first(looks, narrowed, lifted, lambda look: look.asked_kbps * 1000 <= CAP_BPS)
    back = _first(looks, lifted, ended, lambda look: look.received_kbps >= LARGE_KBPS)
    return [
        Figure("open line: pictures that come", max(before, default=None), "kbit/s", LARGE_KBPS, "≥"),
        Figure(
            f"capped to {CAP_BPS // 1000} kbit/s on the way in: asked for less after", down, "s", 5, digits=1
        ),
        Figure("… longest freeze of the tile", longest_freeze_s(looks, narrowed, lifted), "s", 2, digits=1),
        Figure("… its queue, from 10 s on, median", standing, "ms", 200),
        Figure("cap lifted: large pictures again after", back, "s", 15, digits=1),
        Figure("… longest freeze of the tile", longest_freeze_s(looks, lifted, ended), "s", 2, digits=1),
    ]


def longest_freeze_s(looks: Sequence[Look], start: float, end: float) -> float:
    """The longest time without a picture decoded, as far as looks tell."""
    within = [look for look in looks if start <= look.at <= end]
    changes = [after.at for before, after in itertools.pairwise(within) if after.decoded != before.decoded]
    return max(after - before for before, after in itertools.pairwise([start, *changes, end]))


def _first(looks: Sequence[Look], start: float, end: float, met: Callable[[Look], bool]) -> float | None:
    return next((look.at - start for look in looks if start <= look.at <= end and met(look)), None)
