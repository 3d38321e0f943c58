"""When a viewer would show a picture that came at a given moment: the jitter buffer that every player has. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

LONGEST_WAIT_S: Final = (
    0.25  # libwebrtc adds one round trip, 200 ms at most, to its jitter once packets are repeated
)
_MEMORY: Final = 300  # pictures, ten seconds of them: how long a bad moment is remembered
_REVIEW: Final = 10  # pictures between two looks at the past
_PERCENTILE: Final = 97


class Display:
    """Waits so long that nearly all pictures of the last ten seconds would have come in time, and never less
    than it takes to show them in order. A line without jitter waits for nothing.
    """

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=_MEMORY)
        self._wait_s = 0.0
        self._count = 0
        self._shown = 0.0

    def show(self, at_s: float, media_s: float) -> float:
        """The moment that a picture of media time ``media_s`` is shown which is decoded at ``at_s``."""
        self._late.append(at_s - media_s)
        fastest = min(self._late)
        if self._count % _REVIEW == 0:
            usual = float(np.percentile(np.asarray(self._late), _PERCENTILE)) - fastest
            self._wait_s = min(usual, LONGEST_WAIT_S)
        self._count += 1
        self._shown = max(self._shown, at_s, media_s + fastest + self._wait_s)
        return self._shown
