"""A bad line, sans-IO: seeded, so that a test of loss is a fast unit test that gives the same result each time.

    line = Netem(seed=7, delay_s=0.05, loss=0.02)
    line.send(packet, now)
    for packet in line.receive(now): ...

Everything that a line does is an argument; time is an argument, too. ``T`` is whatever travels.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

HEADERS_BYTES: Final = 28  # IPv4 20 + UDP 8: what a line carries beside the datagram


@dataclass(frozen=True, slots=True)
class Burst:
    """Losses in a row (Gilbert-Elliott): ``begin`` and ``end`` are chances a packet, ``loss`` inside a burst."""

    begin: float
    end: float
    loss: float = 1.0


def wire_bytes(datagram: Sized) -> int:
    """Bytes that a datagram is on the wire, IP and UDP headers included."""
    return len(datagram) + HEADERS_BYTES


class Netem(Generic[T]):
    """One direction of a line.

    What is not lost waits, where ``rate_bps`` is set, for the narrowest link: first in first out, ``queue_bytes``
    of waiting at most and what finds no room is lost (drop-tail). All but ``bound`` and ``size`` may be set at
    any time: a new rate holds for what has not begun to leave.

    ``jitter_s`` adds up to so much to each packet's ``delay_s`` but keeps the order, as routers do;
    ``reorder`` is the chance that a packet is held back by ``reorder_s`` and so overtaken; ``duplicate``
    the chance that it comes twice. ``bound`` packets are under way at most, more are lost. ``size``: bytes of an
    item on the wire. Counters: ``sent``, ``lost`` (``overflowed`` among them), ``duplicated``, ``reordered``.
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
        rate_bps: float | None = None,
        queue_bytes: int = 64_000,
        bound: int = 10_000,
        size: Callable[[Any], int] = wire_bytes,
    ) -> None:
        self._random = random.Random(seed)
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.loss = loss
        self.burst = burst
        self.reorder = reorder
        self.reorder_s = reorder_s
        self.duplicate = duplicate
        self.rate_bps = rate_bps
        self.queue_bytes = queue_bytes
        self._size = size
        self._bound = bound
        self._waiting: deque[tuple[float, int, T]] = deque()  # came at, bytes, item
        self._waiting_bytes = 0
        self._free_at = 0.0  # when the narrow link has sent what it began
        self._in_burst = False
        self._under_way: list[tuple[float, int, T]] = []
        self._latest = 0.0
        self._count = 0
        self.sent = self.lost = self.overflowed = self.duplicated = self.reordered = 0

    def send(self, item: T, now: float) -> None:
        """Put one packet on the line at ``now`` (seconds)."""
        self._leave(now)
        self.sent += 1
        if self._loses() or len(self._under_way) + len(self._waiting) >= self._bound:
            self.lost += 1
        elif self.rate_bps is None and not self._waiting:
            self._deliver(item, now)
        else:
            self._wait(item, now)

    def receive(self, now: float) -> list[T]:
        """What has arrived by ``now``, in order of arrival."""
        self._leave(now)
        arrived: list[T] = []
        while self._under_way and self._under_way[0][0] <= now:
            arrived.append(heapq.heappop(self._under_way)[2])
        return arrived

    @property
    def next_arrival(self) -> float | None:
        """When to call `receive` next; None while the line is empty."""
        moments = [self._under_way[0][0]] if self._under_way else []
        if self._waiting:
            moments.append(self._first_leaves())
        return min(moments, default=None)

    @property
    def queued_bytes(self) -> int:
        """What waits for the narrow link."""
        return self._waiting_bytes

    def _wait(self, item: T, now: float) -> None:
        size = self._size(item)
        if self._waiting and self._waiting_bytes + size > self.queue_bytes:
            self.lost += 1
            self.overflowed += 1
            return
        self._waiting.append((now, size, item))
        self._waiting_bytes += size

    def _first_leaves(self) -> float:
        came, size, _ = self._waiting[0]
        begins = max(came, self._free_at)
        return begins if self.rate_bps is None else begins + size * 8 / self.rate_bps

    def _leave(self, now: float) -> None:
        """What the narrow link has sent by ``now`` is under way."""
        while self._waiting and (leaves := self._first_leaves()) <= now:
            _, size, item = self._waiting.popleft()
            self._waiting_bytes -= size
            self._free_at = leaves
            self._deliver(item, leaves)

    def _loses(self) -> bool:
        lost = self._random.random() < self.loss
        if self.burst is not None:
            turn = self._random.random()
            self._in_burst = turn >= self.burst.end if self._in_burst else turn < self.burst.begin
            lost = lost or (self._in_burst and self._random.random() < self.burst.loss)
        return lost

    def _deliver(self, item: T, left: float) -> None:
        self._travel(item, left)
        if self._random.random() < self.duplicate:
            self.duplicated += 1
            self._travel(item, left)

    def _travel(self, item: T, left: float) -> None:
        arrival = left + self.delay_s + self._random.random() * self.jitter_s
        if self._random.random() < self.reorder:
            self.reordered += 1
            arrival += self.reorder_s
        else:
            arrival = self._latest = max(arrival, self._latest)
        self._count += 1
        heapq.heappush(self._under_way, (arrival, self._count, item))
