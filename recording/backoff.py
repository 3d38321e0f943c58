"""When something that failed is tried again: later and later, a little apart from the others. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

WAITS_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)  # a store that is down for days is asked every 5 minutes
JITTER: Final = 0.25  # packages that failed together don't all come back together


@dataclass(slots=True)
class _Failure:
    attempts: int
    not_before_s: float


class Backoff:
    """What failed, by name. ``now_s``: any clock that only rises."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}

    def ready(self, name: str, now_s: float) -> bool:
        """Whether ``name`` may be tried."""
        failure = self._failures.get(name)
        return failure is None or now_s >= failure.not_before_s

    def failed(self, name: str, now_s: float) -> float:
        """Note a failure; returns the seconds until the next try."""
        attempts = self._failures[name].attempts if name in self._failures else 0
        wait_s = WAITS_S[min(attempts, len(WAITS_S) - 1)] * (1 - random.random() * JITTER)
        self._failures[name] = _Failure(attempts + 1, now_s + wait_s)
        return wait_s

    def worked(self, name: str) -> bool:
        """Forget its failures; True when there were any."""
        return self._failures.pop(name, None) is not None

    def keep(self, names: Collection[str]) -> None:
        """Forget all that are not among ``names``."""
        for name in [name for name in self._failures if name not in names]:
            del self._failures[name]
