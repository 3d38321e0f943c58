"""A viewer that is no browser: GStreamer's webrtcbin by WHEP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.peers import canvas, publishers
from tests.peers.presence import SYSTEM_PYTHON
from tests.serving import Server

SCRIPT: Final = Path(__file__).parent / "gst_whep.py"
OLIVE: Final = (120, 130, 30)
ENOUGH: Final = 60  # pictures, and buffers of sound: two seconds
TIMEOUT_S: Final = 60.0


@contextlib.contextmanager
def watching(url: str, token: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SCRIPT), url, token],
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.peer("ffmpeg8", "gstreamer")
async def test_gstreamer_watches_though_one_of_its_sections_is_refused(
    server: Server, tmp_path: Path
) -> None:
    room, log = server.room("gst-viewer"), tmp_path / "viewer.log"
    speaker, guest = server.enter(room, name="ffmpeg"), server.enter(room, "viewer")
    with publishers.ffmpeg(
        f"{server.url}/whip/{room}", speaker["token"], tmp_path / "ffmpeg.log", rgb=OLIVE, tone_hz=440
    ):
        await asyncio.to_thread(canvas.await_colour, server, room, speaker["sub"], OLIVE)
        with watching(f"{server.url}/whep/{room}?rendition=medium", guest["token"], log) as viewer:
            deadline = time.monotonic() + TIMEOUT_S
            seen: Counter[str] = Counter()
            while min(seen["picture 640"], seen["sound"]) < ENOUGH:
                said = log.read_text(errors="replace")
                assert viewer.poll() is None, said[-2000:]
                assert time.monotonic() < deadline, f"{seen}\n{said[-2000:]}"
                await asyncio.sleep(0.2)  # its output is a file
                seen = Counter(said.splitlines())
