"""Which of many things is due next. Pure: a heap whose stale entries are bounded by what lives.

Lifetimes are mostly prolonged, now and then cut short, and things go before their time. Each change is one push; what
was pushed before is stale and skipped when it surfaces. A client that allocates and lets go in a loop would fill the
heap with stale entries, so it is built anew once half of it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from itertools import count
from typing import Final, Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

_SLACK: Final = 64  # stale entries that are not worth a rebuild


class Deadlines(Generic[Item]):
    """Times are seconds of whatever clock the caller has."""

    def __init__(self) -> None:
        self._when: dict[Item, float] = {}
        self._heap: list[tuple[float, int, Item]] = []
        self._number = count()

    def __len__(self) -> int:
        return len(self._when)

    def set(self, item: Item, when_s: float) -> None:
        """The item is due then, whatever was said before."""
        self._when[item] = when_s
        heapq.heappush(self._heap, (when_s, next(self._number), item))
        if len(self._heap) > _SLACK + 2 * len(self._when):
            self._heap = [(when, next(self._number), item) for item, when in self._when.items()]
            heapq.heapify(self._heap)

    def cancel(self, item: Item) -> None:
        """The item is not due any more."""
        self._when.pop(item, None)

    def next(self) -> float | None:
        """When something is due, None when nothing ever is."""
        while self._heap:
            when, _, item = self._heap[0]
            if self._when.get(item) == when:
                return when
            heapq.heappop(self._heap)
        return None

    def due(self, now_s: float) -> Iterator[Item]:
        """What is due by now, in order; each is forgotten as it is handed out."""
        while (when := self.next()) is not None and when <= now_s:
            item = heapq.heappop(self._heap)[2]
            del self._when[item]
            yield item
