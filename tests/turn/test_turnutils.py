"""coturn's own client against our relay: the matrix that coturn's test suite runs, with its traps.

It exits 0 with half of the packets lost, so what it says is counted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.turn.running import SECRET, Running

PEER_PORT = 3480  # what turnutils_peer listens on unless told
BASE = ("-n", "20", "-m", "1")


@pytest.fixture(scope="module", autouse=True)
def peer() -> Iterator[None]:
    """coturn's echo server, on its port 3480. Missing coturn: a failure in CI, a named skip elsewhere."""
    if shutil.which("turnutils_uclient") is None:
        if os.environ.get("CI"):
            pytest.fail("coturn's turnutils_uclient is not installed")
        pytest.skip("coturn's turnutils_uclient is not installed")
    process = subprocess.Popen(
        ["turnutils_peer", "-L", "127.0.0.1", "-L", "::1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            _await_echo(family, address)
        yield
    finally:
        process.kill()
        process.wait()


def _await_echo(family: socket.AddressFamily, address: str) -> None:
    """A client that is quicker than its peer counts what it sends meanwhile as lost."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        for _ in range(150):
            with contextlib.suppress(OSError):  # refused, or no answer yet
                sock.sendto(bytes(100), (address, PEER_PORT))
                if sock.recv(200):
                    return
    pytest.fail(f"turnutils_peer does not answer on {address}")


def uclient(relay: Running, *arguments: str, port: int = 0) -> subprocess.CompletedProcess[str]:
    command = ["turnutils_uclient", *BASE, "-p", str(port or relay.port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "packets"),
    [
        ("-c -e 127.0.0.1 127.0.0.1", 20),
        ("-c -s -e 127.0.0.1 127.0.0.1", 20),
        ("-e 127.0.0.1 127.0.0.1", 40),
        ("-y 127.0.0.1", 80),
        ("-y -s 127.0.0.1", 80),
        ("-y -D 127.0.0.1", 80),
        ("-y -l 1400 127.0.0.1", 80),
        ("-c -g -e 127.0.0.1 127.0.0.1", 20),
        ("-t -c -e 127.0.0.1 127.0.0.1", 20),
        ("-t -S -c -e 127.0.0.1 127.0.0.1", 20),
        ("-y -x ::1", 80),
        ("-x -c -e ::1 ::1", 20),
        ("-Z -e 127.0.0.1 127.0.0.1", 20),
    ],
)
def test_matrix(relay: Running, arguments: str, packets: int) -> None:
    name = re.sub(r"\W", "", arguments)
    port = relay.tls_port if "-S" in arguments else relay.port
    answer = uclient(relay, "-W", SECRET, "-u", name, *arguments.split(), port=port)
    assert answer.returncode == 0, answer.stdout
    sent, received = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", answer.stdout)[-1]
    assert int(sent) == int(received) >= packets, answer.stdout[-2000:]
    assert "Total lost packets 0 " in answer.stdout


@pytest.mark.parametrize(
    "arguments",
    [("-W", "south", "-u", "alice"), ("-u", "alice", "-w", "wonderland"), ("-u", "1:alice", "-w", "expired")],
)
def test_wrong_or_expired_credentials(relay: Running, arguments: tuple[str, ...]) -> None:
    started = time.monotonic()
    answer = uclient(relay, *arguments, "-c", "-e", "127.0.0.1", "127.0.0.1")
    assert answer.returncode == 255, (answer.stdout, time.monotonic() - started)
