"""The box between a decoding thread and the canvas: the newest picture that is due wins, others are counted."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

import av

MAX_HELD: Final = 8
# Pictures that wait for their sound: 240 ms at 30 fps, 11 MB of 720p. At more frames a second the oldest is
# shown a little early.


class Mailbox:
    """``put`` from one thread, ``take`` from another.

    Bound: one picture that is due, and ``MAX_HELD`` that are not yet; overflow: the oldest is due, and of two that
    are due the older is dropped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame: av.VideoFrame | None = None
        self._held: deque[tuple[float, av.VideoFrame]] = deque()
        self.received = 0
        self.overwritten = 0
        self.at = float("-inf")
        """``now`` of the newest ``put``, seconds, monotonic."""
        self.tile_width: int | None = None
        """Of the widest tile that shows the pictures, pixels; the canvas writes it, the decoding reads it."""

    @property
    def held(self) -> int:
        """Pictures that wait for their time."""
        return len(self._held)

    def put(self, frame: av.VideoFrame, now: float, *, due: float = float("-inf")) -> None:
        """Leave a decoded picture, to be shown at ``due``; the box owns it from here on."""
        with self._lock:
            self.received += 1
            self.at = now
            self._held.append((due, frame))
            if len(self._held) > MAX_HELD or (len(self._held) == 1 and due <= now):
                self._ripen()

    def take(self, until: float = float("inf")) -> av.VideoFrame | None:
        """The newest picture that is due at ``until``, once; without, the newest."""
        with self._lock:
            while self._held and self._held[0][0] <= until:
                self._ripen()
            frame, self._frame = self._frame, None
        return frame

    def _ripen(self) -> None:
        self.overwritten += self._frame is not None
        self._frame = self._held.popleft()[1]
