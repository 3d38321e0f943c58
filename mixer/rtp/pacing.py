"""Spreads big pictures over a few milliseconds. Says what to send when; sends nothing itself.

A keyframe of 100 packets to 30 viewers in one go blocks the loop for 180 ms and overruns small buffers on
the way (facts, "pace keyframes"). Pictures of a few packets go at once; bigger ones go in equal handfuls,
``SLOT_S`` apart, within ``SPREAD_S``. Handfuls rather than single packets, so that a timer a slot is
enough and each handful can be one UDP GSO call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil
from typing import Final, Generic, TypeVar

SPREAD_S: Final = 0.03  # within one frame interval of 30 fps: the next picture finds an empty queue
SLOT_S: Final = 0.005  # seven handfuls a keyframe
AT_ONCE: Final = 8  # packets; a usual picture of 1.2 Mbit/s at 30 fps has five
MAX_QUEUED: Final = 1024  # packets; more are queued only if nobody polls

T = TypeVar("T")


class Pacer(Generic[T]):
    """The queue of packets of one viewer, in order. ``T`` is whatever a packet is to the caller.

    Overflow: a picture that does not fit whole is refused whole (``push`` returns False) and ``dropped``
    counts its packets; the caller goes on with the next keyframe.
    """

    def __init__(
        self,
        *,
        spread_s: float = SPREAD_S,
        slot_s: float = SLOT_S,
        at_once: int = AT_ONCE,
        bound: int = MAX_QUEUED,
    ) -> None:
        if at_once < 1 or not 0 < slot_s <= spread_s:
            raise ValueError("a pacer needs at least one packet a slot and one slot a spread")
        self._spread_s = spread_s
        self._slot_s = slot_s
        self._slots = int(spread_s / slot_s) + 1
        self._at_once = at_once
        self._bound = bound
        self._queue: deque[tuple[float, T]] = deque()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, packets: Sequence[T], now: float) -> bool:
        """Queue the packets of one picture. False: no room, the whole picture was dropped."""
        if len(self._queue) + len(packets) > self._bound:
            self.dropped += len(packets)
            return False
        begin = max(now, self._queue[-1][0]) if self._queue else now
        # What is late already is not spread again: the delay stays below twice the spread.
        slots = 1 if begin >= now + self._spread_s else self._slots
        handful = max(self._at_once, ceil(len(packets) / slots)) if slots > 1 else max(1, len(packets))
        for index, packet in enumerate(packets):
            self._queue.append((begin + index // handful * self._slot_s, packet))
        return True

    def due(self, now: float) -> list[T]:
        """Take out what is to be sent now, in order."""
        packets: list[T] = []
        queue = self._queue
        while queue and queue[0][0] <= now:
            packets.append(queue.popleft()[1])
        return packets

    @property
    def deadline(self) -> float | None:
        """When `due` has something next; None while the queue is empty."""
        return self._queue[0][0] if self._queue else None

    def clear(self) -> int:
        """Drop what is queued, as when the viewer switches streams; returns and counts how many."""
        count = len(self._queue)
        self.dropped += count
        self._queue.clear()
        return count
