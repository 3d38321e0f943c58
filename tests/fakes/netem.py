"""A bad line, sans-IO: seeded, so that a test of loss is a fast unit test that gives the same result each time.

    line = Netem(seed=7, delay_s=0.05, loss=0.02)
    line.send(packet, now)
    for packet in line.receive(now): ...

Everything that a line does is an argument; time is an argument, too. ``T`` is whatever travels.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Burst:
    """Losses in a row (Gilbert-Elliott): ``begin`` and ``end`` are chances a packet, ``loss`` inside a burst."""

    begin: float
    end: float
    loss: float = 1.0


class Netem(Generic[T]):
    """One direction of a line.

    ``jitter_s`` adds up to so much to each packet's ``delay_s`` but keeps the order, as routers do;
    ``reorder`` is the chance that a packet is held back by ``reorder_s`` and so overtaken; ``duplicate``
    the chance that it comes twice. ``bound`` packets are under way at most, more are lost.
    Counters: ``sent``, ``lost``, ``duplicated``, ``reordered``.
    """

    def __init__(
        self,
        *,
        seed: int,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        burst: Burst | None = None,
        reorder: float = 0.0,
        reorder_s: float = 0.01,
        duplicate: float = 0.0,
        bound: int = 10_000,
    ) -> None:
        self._random = random.Random(seed)
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.loss = loss
        self.burst = burst
        self.reorder = reorder
        self.reorder_s = reorder_s
        self.duplicate = duplicate
        self._bound = bound
        self._in_burst = False
        self._under_way: list[tuple[float, int, T]] = []
        self._latest = 0.0
        self._count = 0
        self.sent = self.lost = self.duplicated = self.reordered = 0

    def send(self, item: T, now: float) -> None:
        """Put one packet on the line at ``now`` (seconds)."""
        self.sent += 1
        if self._loses() or len(self._under_way) >= self._bound:
            self.lost += 1
            return
        self._deliver(item, now)
        if self._random.random() < self.duplicate:
            self.duplicated += 1
            self._deliver(item, now)

    def receive(self, now: float) -> list[T]:
        """What has arrived by ``now``, in order of arrival."""
        arrived: list[T] = []
        while self._under_way and self._under_way[0][0] <= now:
            arrived.append(heapq.heappop(self._under_way)[2])
        return arrived

    @property
    def next_arrival(self) -> float | None:
        """When `receive` has something next; None while the line is empty."""
        return self._under_way[0][0] if self._under_way else None

    def _loses(self) -> bool:
        lost = self._random.random() < self.loss
        if self.burst is not None:
            turn = self._random.random()
            self._in_burst = turn >= self.burst.end if self._in_burst else turn < self.burst.begin
            lost = lost or (self._in_burst and self._random.random() < self.burst.loss)
        return lost

    def _deliver(self, item: T, now: float) -> None:
        arrival = now + self.delay_s + self._random.random() * self.jitter_s
        if self._random.random() < self.reorder:
            self.reordered += 1
            arrival += self.reorder_s
        else:
            arrival = self._latest = max(arrival, self._latest)
        self._count += 1
        heapq.heappush(self._under_way, (arrival, self._count, item))
