"""CPU time, memory and CPUs of a process and all its descendants, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """``cpu_s``: user and system, of live processes. ``pss_mb``: each shared page counted once in all."""

    at_s: float
    cpu_s: float
    pss_mb: float
    processes: int

    def cores_since(self, earlier: Usage) -> float:
        """Cores in use, mean, since an earlier reading of the same tree."""
        return (self.cpu_s - earlier.cpu_s) / (self.at_s - earlier.at_s)


def _stat(pid: int) -> tuple[int, float] | None:
    """Parent and CPU seconds (its reaped children's too); None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # proc(5): the name may hold spaces and brackets
    return int(fields[1]), sum(int(field) for field in fields[11:15]) * _TICK_S


def _pss_mb(pid: int) -> float:
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0
    return next((int(row.split()[1]) / 1024 for row in rows if row.startswith("Pss:")), 0.0)


def tree(root: int) -> list[int]:
    """``root`` and all its living descendants."""
    parents = {
        int(entry.name): stat[0]
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None
    }
    found = [root]
    for pid in found:  # grows while we walk: breadth first
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def usage(root: int) -> Usage:
    """A reading of the tree under ``root``, now."""
    pids = tree(root)
    cpu_s = sum(stat[1] for pid in pids if (stat := _stat(pid)) is not None)
    at_s = time.monotonic()
    return Usage(at_s, cpu_s, sum(_pss_mb(pid) for pid in pids), len(pids))


def _threads(root: int) -> list[int]:
    found: list[int] = []
    for pid in tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    return found


def pin(root: int, count: int) -> None:
    """Let the tree run on ``count`` CPUs of ours at most; what it starts from now on inherits that."""
    chosen = sorted(os.sched_getaffinity(0))[:count]
    for thread in _threads(root):  # the call is about one thread: sched_setaffinity(2)
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, chosen)


def cpus(root: int) -> int:
    """How many CPUs the tree may run on now, all its threads together."""
    allowed: set[int] = set()
    for thread in _threads(root):
        with contextlib.suppress(ProcessLookupError):
            allowed |= os.sched_getaffinity(thread)
    return len(allowed)
