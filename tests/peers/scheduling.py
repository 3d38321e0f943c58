"""How long the system kept another process from a processor: what it does not do meanwhile is not its fault. Linux.

The kernel adds up for each thread what it waited, runnable, for a processor (``/proc/PID/task/TID/schedstat``), and
tells of a wait when that is over; and for the whole machine what a hypervisor gave to others (``/proc/stat``, steal).
Whoever looks every few milliseconds knows when each wait was.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mixer.priority import CANVAS_NICE

Span = tuple[float, float]  # seconds, from and to

LEAST_S: Final = 0.002  # shorter waits are a scheduler's daily business
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Scheduling:
    """Of a room's process: the waits of its loop and of its canvas; each may have held the interpreter's lock."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._nice = os.getpriority(os.PRIO_PROCESS, pid)
        self._waited_s: dict[str, float] = {}
        self.waits: list[Span] = []

    def look(self, now: float) -> None:
        """``now``: seconds, on the clock that ``waits`` are to be on."""
        for name, waited_s in self._all():
            wait_s = waited_s - self._waited_s.setdefault(name, waited_s)
            self._waited_s[name] = waited_s
            if wait_s >= LEAST_S:
                self.waits.append((now - wait_s, now))

    def _all(self) -> Iterable[tuple[str, float]]:
        for task in os.listdir(f"/proc/{self._pid}/task"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if task == str(self._pid) or self._draws(int(task)):
                    waited_ns = Path(f"/proc/{self._pid}/task/{task}/schedstat").read_text().split()[1]
                    yield task, int(waited_ns) / 1e9
        steal = Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]
        yield "steal", int(steal) / _TICKS

    def _draws(self, thread: int) -> bool:
        return os.getpriority(os.PRIO_PROCESS, thread) == min(19, self._nice + CANVAS_NICE)


def uncovered_s(span: Span, spans: Iterable[Span]) -> float:
    """Seconds of ``span`` that are in none of ``spans``."""
    reached, end = span
    left = 0.0
    for begin, finish in sorted(spans):
        left += max(0.0, min(begin, end) - reached)
        reached = max(reached, min(finish, end))
    return left + end - reached
