"""The one-slot box between a decoding thread and the canvas: the newest picture wins, others are counted."""

from __future__ import annotations

import threading

import av


class Mailbox:
    """``put`` from one thread, ``take`` from another. Bound: one picture; overflow: the older is dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame: av.VideoFrame | None = None
        self.received = 0
        self.overwritten = 0
        self.at = float("-inf")
        """``now`` of the newest ``put``, seconds, monotonic."""
        self.tile_width: int | None = None
        """Of the widest tile that shows the pictures, pixels; the canvas writes it, the decoding reads it."""

    def put(self, frame: av.VideoFrame, now: float) -> None:
        """Leave a decoded picture; the box owns it from here on."""
        with self._lock:
            self.received += 1
            self.overwritten += self._frame is not None
            self._frame = frame
            self.at = now

    def take(self) -> av.VideoFrame | None:
        """The newest picture, once."""
        with self._lock:
            frame, self._frame = self._frame, None
        return frame
