"""The thread of the canvas: calls ``Canvas.tick`` at the canvas's rate while anybody wants its pictures."""

from __future__ import annotations

import threading
import time

import structlog

from mixer import priority
from mixer.ticks import TickSchedule
from mixer.video.canvas import Canvas

log = structlog.get_logger(__name__)


class FrameClock:
    """See the module. ``start`` and ``stop`` once each; ``wake`` after every new ``canvas.want``."""

    def __init__(self, canvas: Canvas, origin_s: float) -> None:
        self._canvas = canvas
        self._ticks = TickSchedule(origin_s, canvas.fps)
        self._stopping = False
        self._wake = threading.Event()
        self.busy_s = 0.0  # of all ticks so far
        self._thread = threading.Thread(target=self._run, name="canvas", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Somebody wants pictures now."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; blocks for at most one tick."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def stats(self) -> dict[str, int]:
        """Ticks run, late, dropped."""
        return self._ticks.stats()

    def _run(self) -> None:
        priority.lower(priority.CANVAS_NICE)
        ticks = self._ticks
        ticks.resume(time.monotonic())
        while not self._stopping:
            if not self._canvas.wanted:
                self._wake.wait()
                self._wake.clear()
                ticks.resume(time.monotonic())
                continue
            if self._canvas.fps != ticks.rate_hz:
                ticks.resume(time.monotonic(), self._canvas.fps)
            index = ticks.next(time.monotonic())
            delay = ticks.due_s(index) - time.monotonic()
            if delay > 0:
                time.sleep(delay)
            now = time.monotonic()
            index = max(index, ticks.next(now))  # a whole period late: that tick is dropped
            ticks.begin(index, now)
            try:
                self._canvas.tick(index, now)
            except Exception:
                # The canvas isolates its tiles; what reaches here is a bug of ours and must not end the picture.
                log.exception("canvas.tick_failed")
            self.busy_s += time.monotonic() - now
