"""The relay beside coturn: CPU a packet over UDP, TCP and TLS, loss at a high rate, memory, latency.

Both relays run at once, each with its own 50 allocations, and are loaded in turn, A B A B: a machine that slows down
slows both. CPU is user and system time of the relay's threads. The load is in a process of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import Figure
from tests.turn.running import Running, coturn, ours

ALLOCATIONS: Final = 50
SIZE: Final = 1000
PPS: Final = 10_000
FAST_PPS: Final = 50_000
MANY: Final = 500
ROUNDS: Final = 4
SECONDS: Final = 2.0
_OPTIONS: Final = ("--allow-peer", "127.0.0.1", "--bandwidth", "1000000")
_WAYS: Final = ("to_peer", "to_client")


class _Load:
    """``tests.bench.turn_load``, spoken with over its standard input and output."""

    def __init__(self, relay: Running, kind: str, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.turn_load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        port = relay.tls_port if kind == "tls" else relay.port
        self.ask(port=port, kind=kind, count=count, size=SIZE)

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator has ended; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def _load(relay: Running, kind: str, count: int = ALLOCATIONS) -> Iterator[_Load]:
    load = _Load(relay, kind, count)
    try:
        yield load
    finally:
        load.close()


def relay(directory: Path) -> list[Figure]:
    """All of the relay's figures."""
    directory.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    for kind, target in (("udp", 1.2), ("tcp", 1.3), ("tls", 1.3)):
        figures += _beside_coturn(directory, kind, target)
    return [*figures, *_alone(directory)]


def _beside_coturn(directory: Path, kind: str, target: float) -> list[Figure]:
    """Medians of the rounds' ratios: a round that something else on the machine spoiled does not count."""
    with ExitStack() as stack:
        for name in ("ours", "coturn"):
            (directory / name).mkdir(exist_ok=True)
        mine = stack.enter_context(ours(directory / "ours", *_OPTIONS))
        theirs = stack.enter_context(coturn(directory / "coturn"))
        sides = [(each, stack.enter_context(_load(each, kind))) for each in (mine, theirs)]
        costs: dict[tuple[str, str], list[float]] = {
            (each.name, way): [] for each, _ in sides for way in _WAYS
        }
        for _ in range(ROUNDS):
            for way in _WAYS:
                for each, load in sides:
                    before = each.cpu_s()
                    got = load.ask(way=way, pps=PPS, seconds=SECONDS)
                    costs[each.name, way].append((each.cpu_s() - before) / max(1, got["received"]) * 1e6)
    found = []
    for way in _WAYS:
        pairs = zip(costs[mine.name, way], costs[theirs.name, way], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        name = f"{kind} {way.replace('_', ' ')}"
        found.append(Figure(f"CPU a packet, {name}, ratio to coturn", ratio, "×", target, digits=2))
        found.append(
            Figure(f"CPU a packet, {name}", statistics.median(costs[mine.name, way]), "µs", digits=1)
        )
    return found


def _alone(directory: Path) -> list[Figure]:
    """Latency beside the bare loopback, loss at a high rate, memory of many allocations.

    Of latency and loss the best round counts: whatever else the machine does only adds to both.
    """
    (directory / "alone").mkdir(exist_ok=True)
    added, lost = [], []
    with ours(directory / "alone", *_OPTIONS) as running, _load(running, "udp") as load:
        for _ in range(ROUNDS):
            direct = load.ask(way="direct", pps=PPS, seconds=SECONDS)["p99_ms"]
            through = load.ask(way="to_peer", pps=PPS, seconds=SECONDS)["p99_ms"]
            added.append(through - direct if through and direct else 1000.0)
            got = load.ask(way="to_peer", pps=FAST_PPS, seconds=SECONDS)
            lost.append((got["sent"] - got["received"], got["sent"] / SECONDS))
    with ours(directory / "alone", *_OPTIONS) as running:
        empty_mb = running.pss_mb()
        with _load(running, "udp", MANY):
            full_mb = running.pss_mb()
    best_lost, rate = min(lost)
    return [
        Figure("added latency p99, 10,000 packets/s, best round", min(added), "ms", 1.0, digits=2),
        Figure("lost of 50,000 packets/s, best round", best_lost, "packets", 0),
        Figure("rate that the load reached there", rate, "/s", 45_000, "≥"),
        Figure("memory of the process with 500 allocations (PSS)", full_mb, "MB", 30, digits=1),
        Figure("of that, for the allocations", full_mb - empty_mb, "MB", digits=1),
    ]
