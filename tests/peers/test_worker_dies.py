"""A codec takes its process with it: the room comes back with its state, the others don't notice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.peers import canvas, publishers
from tests.peers.watcher import watching
from tests.serving import Server, workers

GREEN, PURPLE = (40, 170, 60), (130, 50, 170)


@pytest.mark.peer("ffmpeg8")
async def test_a_killed_worker_is_replaced_with_the_rooms_state(server: Server, tmp_path: Path) -> None:
    struck, calm = server.room("struck"), server.room("calm")
    victim, bystander = server.enter(struck, name="Ida"), server.enter(calm, name="Tom")
    guest = server.enter(calm, "viewer")
    with (
        publishers.ffmpeg(
            f"{server.url}/whip/{struck}", victim["token"], tmp_path / "a.log", rgb=GREEN, tone_hz=440
        ),
        publishers.ffmpeg(
            f"{server.url}/whip/{calm}", bystander["token"], tmp_path / "b.log", rgb=PURPLE, tone_hz=660
        ),
    ):
        await asyncio.to_thread(canvas.await_colour, server, struck, victim["sub"], GREEN)
        await asyncio.to_thread(canvas.await_colour, server, calm, bystander["sub"], PURPLE)
        layout = {"preset": "speaker", "canvas": {"background": "#204060"}, "fit": "contain"}
        version = server.call("PUT", f"/v1/rooms/{struck}/layout", layout)["version"]
        before = workers(server, struck)

        async with watching(f"{server.url}/whep/{calm}", guest["token"]) as watcher:
            await watcher.picture(after=10)
            frames = watcher.frames
            os.kill(before[-1]["pid"], signal.SIGKILL)
            killed = time.monotonic()
            while len(workers(server, struck)) == len(before):
                # within a second, says the house; the log is read by a process that shares its cores with all others
                assert time.monotonic() - killed < 6, server.log_tail()
                await asyncio.sleep(0.05)  # another process notices, and says so in its log
            after = workers(server, struck)[-1]
            assert after["pid"] != before[-1]["pid"]
            assert after["epoch"] == before[-1]["epoch"] + 1

            kept = server.call("GET", f"/v1/rooms/{struck}/layout")
            assert (kept["version"], kept["preset"], kept["fit"]) == (version, "speaker", "contain")
            assert kept["canvas"]["background"] == "#204060"
            assert canvas.snapshot(server, struck).shape == (720, 1280, 3)

            # The same person comes back with the same token and is who they were.
            with publishers.ffmpeg(
                f"{server.url}/whip/{struck}", victim["token"], tmp_path / "c.log", rgb=GREEN, tone_hz=440
            ):
                await asyncio.to_thread(canvas.await_colour, server, struck, victim["sub"], GREEN)
                roster = server.call("GET", f"/v1/rooms/{struck}/participants")
                assert [(one["id"], one["name"]) for one in roster] == [(victim["sub"], "Ida")]

            assert len(workers(server, calm)) == 1
            await watcher.picture(after=frames + 10)
            assert canvas.near(
                canvas.colour(await watcher.picture(), {"x": 0, "y": 0, "width": 1280, "height": 720}), PURPLE
            )
