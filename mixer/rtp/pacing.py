"""Spreads big pictures over time. Says what to send when; sends nothing itself.

A keyframe of 100 packets to 30 viewers in one go blocks the loop for 180 ms and overruns small buffers on
the way (facts, "pace keyframes"). Pictures of a few packets go at once; bigger ones go in equal handfuls,
``SLOT_S`` apart, within ``SPREAD_S``. Handfuls rather than single packets, so that a timer a slot is
enough and each handful can be one UDP GSO call.

Where the line is known to need longer for a picture, its packets leave no faster than the line takes them: what
waits here can still be dropped, what waits in a router delays the sound too.
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
MAX_DELAY_S: Final = (
    0.8  # a keyframe fills half a second of a line that just carries it; beyond, it is old news
)
SHORT_S: Final = 0.06  # a few packets that a line needs less for go at once: two pictures at 30 fps

T = TypeVar("T")


class Pacer(Generic[T]):
    """The queue of packets of one viewer, in order. ``T`` is whatever a packet is to the caller.

    Overflow: a picture that does not fit whole, or would leave more than ``MAX_DELAY_S`` late, is refused whole
    (``push`` returns False) and ``dropped`` counts its packets; the caller goes on with the next keyframe.
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
        self._free_at = float("-inf")  # when the picture after the last one may begin
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, packets: Sequence[T], now: float, duration_s: float | None = None) -> bool:
        """Queue the packets of one picture. False: no room, or no time; the whole picture was dropped.

        ``duration_s``: what the line needs for it, if that is known.
        """
        begin = max(now, self._free_at)
        duration_s = duration_s or 0.0
        # The first picture is let through whatever it takes: without it, there is nothing to see at all.
        late = bool(self._queue) and begin + duration_s - now > MAX_DELAY_S
        if late or len(self._queue) + len(packets) > self._bound:
            self.dropped += len(packets)
            return False
        if duration_s > self._spread_s and not (begin == now and self._is_short(packets, duration_s)):
            self._queue.extend((begin + duration_s * at / len(packets), p) for at, p in enumerate(packets))
            self._free_at = begin + duration_s
        else:
            self._spread(packets, begin, now)
        return True

    def _is_short(self, packets: Sequence[T], duration_s: float) -> bool:
        return len(packets) <= self._at_once and duration_s <= SHORT_S

    def _spread(self, packets: Sequence[T], begin: float, now: float) -> None:
        # What is late already is not spread again: the delay stays below twice the spread.
        slots = 1 if begin >= now + self._spread_s else self._slots
        handful = max(self._at_once, ceil(len(packets) / slots)) if slots > 1 else max(1, len(packets))
        for index, packet in enumerate(packets):
            self._free_at = begin + index // handful * self._slot_s
            self._queue.append((self._free_at, packet))

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
        self._free_at = float("-inf")
        return count
