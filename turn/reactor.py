"""The loop of a relay: epoll, a handler a descriptor, a nap under load. Edge.

asyncio makes a relayed packet 1.25 to 1.6 times as dear as coturn's, for services that no packet needs (measured). A
handler here takes one packet and returns; the kernel then tells who has more. That is fair, too: nobody is served
twice before everybody was served once.

*The nap.* To sleep and be woken for each packet costs about as much as to relay it. So while packets come, the loop
dozes a quarter of a millisecond whenever it finds nothing, and finds several the next time. It is a delay of at most
that.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final

NAP_S: Final = 0.00025
_BUSY_S: Final = 0.002  # packets further apart than that gain nothing from a nap
_TICK_S: Final = 0.1
_ALL: Final = 4096  # events a round

Handler = Callable[[], None]


class Reactor:
    """``now_s``: time.monotonic() at the beginning of the round. ``tick`` is called ten times a second at least."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._stopped = False

    def add(self, descriptor: int, handler: Handler) -> None:
        """Call ``handler`` whenever there is something to read."""
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, select.EPOLLIN)

    def writable_too(self, descriptor: int, *, wanted: bool) -> None:
        """Call the handler, too, when there is room to write."""
        self._epoll.modify(descriptor, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def remove(self, descriptor: int) -> None:
        """Before the descriptor is closed: its number is given away again."""
        del self._handlers[descriptor]
        self._epoll.unregister(descriptor)

    def stop(self) -> None:
        self._stopped = True

    def run(self, tick: Callable[[float], None]) -> None:
        """Until ``stop``."""
        poll, find, clock = self._epoll.poll, self._handlers.get, time.monotonic
        last_s = tick_s = clock()
        busy = False
        while not self._stopped:
            events = poll(0, _ALL)
            now_s = clock()
            if not events:
                if busy:
                    time.sleep(NAP_S)
                events = poll(_TICK_S, _ALL)
                now_s = clock()
            self.now_s = now_s
            if now_s >= tick_s:
                tick_s = now_s + _TICK_S
                tick(now_s)
            for descriptor, _ in events:
                if (handler := find(descriptor)) is not None:
                    handler()
            if events:
                busy = now_s - last_s < _BUSY_S
                last_s = now_s
