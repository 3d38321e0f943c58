"""What an audio leg costs, beside Janus' audiobridge in the same run; and a room of 300.

Ours are WebRTC: ICE, DTLS-SRTP both ways. Janus' are plain RTP, which is what it is cheapest at. Three talk, the
others send encoded silence; the cost of a leg is what the server takes more with ``MANY`` than with ``FEW``.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mixer.media import AudioCodec
from mixer.probe.signal import percentile
from tests.bench.figures import Figure
from tests.bench.janus import janus, present
from tests.bench.processes import cpus, pin, usage
from tests.serving import Server, serving

FEW: Final = 20
MANY: Final = 100
CROWD: Final = 300
TALKERS: Final = 3
MEASURE_S: Final = 6.0
CROWD_CPUS: Final = 2
CROWD_S: Final = 12.0
SETTLE_S: Final = 2.0
ANSWER_S: Final = 120.0
JANUS_MS: Final = 140.0  # mouth to ear, where Janus is not there to be measured: what issue 3 says of it
ROOMY: Final = {"rooms.max_participants": "1000"}
CLOSE_TO_ALL: Final = 99.0  # percent of the mix's packets that must arrive for a cost to count


@dataclass(frozen=True, slots=True)
class Cost:
    """``percent``: of a core, a further leg. ``arrived``: percent of the packets due. ``mouth_to_ear_ms``: p95."""

    percent: float
    arrived: float
    mouth_to_ear_ms: float | None
    own_cores: float

    @property
    def honest(self) -> float | None:
        """A server that drops what it should mix is not cheap."""
        return self.percent if self.arrived >= CLOSE_TO_ALL else None


class Driver:
    """A load generator in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, command: str) -> dict[str, Any]:
        """One command, its answer. ``RuntimeError`` when the generator has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator ended (status {self._process.wait(ANSWER_S)})")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def driven(**plan: Any) -> Iterator[Driver]:
    """A load generator; ``plan`` as `tests.bench.load` says."""
    command = [sys.executable, "-m", "tests.bench.load", json.dumps({"talkers": TALKERS, **plan})]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield Driver(process)
        finally:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def legs(directory: Path) -> list[Figure]:
    """All rows; those beside Janus are not measured where it is not installed."""
    ours_opus, theirs_opus = _both(directory, "opus")
    ours_pcmu, theirs_pcmu = _both(directory, "PCMU")
    sparse = _ours(directory / "dtx", "opus", dtx=True)
    return [
        *_beside("Opus", ours_opus, theirs_opus, 0.3),
        Figure("further silent Opus leg with DTX", sparse.honest, "% of a core", digits=3),
        *_beside("PCMU", ours_pcmu, theirs_pcmu, 1.0),
        *_crowd(directory / "crowd"),
    ]


def _both(directory: Path, codec: AudioCodec) -> tuple[Cost, Cost | None]:
    theirs = _janus(directory / f"janus-{codec}", codec) if present() else None
    return _ours(directory / f"legs-{codec}", codec), theirs


def _beside(name: str, ours: Cost, theirs: Cost | None, target: float) -> list[Figure]:
    honest, their_honest = ours.honest, None if theirs is None else theirs.honest
    their_ms = None if theirs is None else theirs.mouth_to_ear_ms
    slowest_ms = JANUS_MS if their_ms is None else their_ms
    ratio = honest / their_honest if honest is not None and their_honest else None
    return [
        Figure(f"further silent {name} leg", honest, "% of a core", digits=3),
        Figure(f"… Janus audiobridge's, plain RTP ({name})", their_honest, "% of a core", digits=3),
        Figure(f"further {name} leg, ratio to Janus'", ratio, "×", target, digits=2),
        Figure(f"mouth to ear, {name}, p95", ours.mouth_to_ear_ms, "ms", round(slowest_ms)),
        Figure(f"… Janus' ({name})", their_ms, "ms"),
        Figure("… packets of the mix that arrived", ours.arrived, "%", CLOSE_TO_ALL, "≥", digits=1),
    ]


def _ours(directory: Path, codec: AudioCodec, *, dtx: bool = False) -> Cost:
    with serving(directory, ROOMY) as server, driven(**_plan(server, codec), dtx=dtx) as driver:
        return _cost(server.process.pid, driver)


def _janus(directory: Path, codec: AudioCodec) -> Cost:
    with janus(directory) as running:
        ahead_s = 2 * (MEASURE_S + SETTLE_S)
        with driven(kind="janus", url=running.url, codec=codec, ahead_s=ahead_s) as driver:
            return _cost(running.process.pid, driver)


def _plan(server: Server, codec: AudioCodec) -> dict[str, Any]:
    room = server.room("legs", max_participants=1000)
    return {
        "kind": "mosaique",
        "url": server.url,
        "room": room,
        "token": server.token,
        "codec": codec,
        "ahead_s": 2 * (MEASURE_S + SETTLE_S),
    }


def _cost(pid: int, driver: Driver) -> Cost:
    used: list[float] = []
    measured: dict[str, Any] = {}
    for count in (FEW, MANY):
        driver.ask(f"grow {count}")
        time.sleep(SETTLE_S)
        before = usage(pid)
        measured = driver.ask(f"measure {MEASURE_S}")
        used.append(usage(pid).cores_since(before))
    return Cost(
        percent=(used[1] - used[0]) / (MANY - FEW) * 100,
        arrived=measured["received"] / measured["expected"] * 100,
        mouth_to_ear_ms=percentile(driver.ask("heard")["delays_ms"], 95),
        own_cores=measured["own_cores"],
    )


def _crowd(directory: Path) -> list[Figure]:
    """300 Opus legs, 3 talking, on two CPUs: every tick in time, everybody served."""
    with serving(directory, ROOMY) as server, driven(**_plan(server, "opus")) as driver:
        pin(server.process.pid, CROWD_CPUS)  # the room's worker is there by now
        driver.ask(f"grow {CROWD}")
        time.sleep(SETTLE_S)
        before, ticks = usage(server.process.pid), _ticks(server)
        measured = driver.ask(f"measure {CROWD_S}")
        used, after = usage(server.process.pid).cores_since(before), _ticks(server)
        allowed = cpus(server.process.pid)
    return [
        Figure(f"{CROWD} Opus legs: audio ticks dropped", after["dropped"] - ticks["dropped"], "", 0),
        Figure("… late", after["late"] - ticks["late"], ""),
        Figure(
            "… packets of the mix that arrived", measured["received"] / measured["expected"] * 100, "%",
            CLOSE_TO_ALL, "≥", digits=1,
        ),
        Figure("… CPUs that the server may use", allowed, "", CROWD_CPUS),
        Figure("… CPU of the server", used, "cores", digits=2),
        Figure("… CPU of the load generator", measured["own_cores"], "cores", digits=2),
        Figure("… generator late, p95", measured["late_p95_ms"], "ms", digits=1),
    ]  # fmt: skip


def _ticks(server: Server) -> dict[str, int]:
    found: dict[str, int] = server.call("GET", "/v1/rooms/legs/stats")["ticks"]["audio"]
    return found
