"""One listener's sound out of outputs that follow each other: another bit rate, packet length, FEC. Pure.

Packets of 60 ms begin each 60 ms of room time and packets of 20 ms each 20 ms, so that two outputs overlap
wherever one happens to begin. The old one goes on to the next instant at which packets of both begin; the
listener's timestamps go up by the length of each packet, with neither a hole nor anything said twice.
"""

from __future__ import annotations

from collections.abc import Callable
from math import lcm

from mixer.media import EncodedAudio


class SoundHandover:
    """``send`` gets the sound; ``over(n)`` hears that output ``n`` is not needed any more."""

    def __init__(self, send: Callable[[EncodedAudio], None], over: Callable[[int], None]) -> None:
        self._send = send
        self._over = over
        self._outputs = 0
        self._playing: int | None = None
        self._coming: int | None = None
        self._border: int | None = None  # pts, 48 kHz: where the coming one takes over
        self._samples = 0  # of a packet of the playing one

    def begin(self) -> int:
        """The number of a new output, to give along with each of its packets. One that is still coming is over."""
        self._outputs += 1
        replaced = self._coming
        self._border = None
        if self._playing is None:
            self._playing = self._outputs
        else:
            self._coming = self._outputs
        if replaced is not None:
            self._over(replaced)
        return self._outputs

    def take(self, output: int, frame: EncodedAudio) -> None:
        """A packet of output ``output``, in order."""
        if output == self._coming:
            if self._border is None:
                step = lcm(frame.samples, self._samples or frame.samples)
                self._border = -(-(frame.pts + frame.samples) // step) * step
            if frame.pts < self._border:
                return
            replaced, self._playing, self._coming = self._playing, self._coming, None
            self._samples, self._border = frame.samples, None
            self._send(frame)
            if replaced is not None:
                self._over(replaced)
        elif output == self._playing and (self._border is None or frame.pts < self._border):
            self._samples = frame.samples
            self._send(frame)

    @property
    def outputs(self) -> list[int]:
        """Those that are not over."""
        return [number for number in (self._playing, self._coming) if number is not None]
