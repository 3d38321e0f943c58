"""Put the peers that the tests speak with on this machine: ``python -m tests.peers.install``.

Quick when all is there (one ``dpkg-query``, no network). As root with apt it installs what is missing;
otherwise it says what is missing and goes on: those tests are then skipped by name. It never fails a run by
itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Final

PACKAGES: Final = (
    "chromium",
    "coturn",  # its client and peer, and the relay for the bench
    "firefox-esr",
    "gir1.2-gst-plugins-bad-1.0",
    "gir1.2-gstreamer-1.0",
    "gstreamer1.0-libav",  # what decodebin takes for H.264 on a desktop: the bench's compositor
    "gstreamer1.0-nice",
    "gstreamer1.0-plugins-bad",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-ugly",
    "gstreamer1.0-tools",
    "gstreamer1.0-x",
    "janus",  # its audiobridge, for the bench
    "libnss3-tools",  # certutil: a browser that trusts a test's certificate
    "libopus0",
    "python3-gst-1.0",
)
APT_TIMEOUT_S: Final = 900  # a slow mirror and 400 MB of browsers


def missing() -> list[str]:
    """Names of the packages that dpkg does not list as installed."""
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *PACKAGES]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    installed = {line.split()[0] for line in answer.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in PACKAGES if package not in installed]


def _apt(*arguments: str) -> bool:
    command = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", *arguments]
    try:
        answer = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
            timeout=APT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        print(f"peers: {' '.join(command)} took more than {APT_TIMEOUT_S} s", file=sys.stderr)
        return False
    if answer.returncode:
        print(f"peers: {' '.join(command)}\n{answer.stderr[-2000:]}", file=sys.stderr)
    return answer.returncode == 0


def main() -> int:
    """Install what is missing where this machine allows it; always 0, the tests name what they lack."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        print("peers: no apt on this machine; tests of absent peers are skipped by name")
        return 0
    wanted = missing()
    if not wanted:
        print("peers: all there")
        return 0
    if os.geteuid() != 0:
        print(f"peers: missing {', '.join(wanted)}; run `sudo apt-get install {' '.join(wanted)}`")
        return 0
    print(f"peers: installing {', '.join(wanted)}", flush=True)
    done = _apt("update") and _apt("install", "--no-install-recommends", *wanted)
    print("peers: installed" if done else f"peers: could not install {', '.join(missing())}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
