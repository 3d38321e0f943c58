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
        self._coming_samples = 0
        self._silenced = False  # the playing one has come to the border
        self._from: int | None = None  # pts of the first packet of a playing one that has sent none
        self._samples = 0  # of a packet of the playing one; 0 before it has given one

    def begin(self) -> int:
        """The number of a new output, to give along with each of its packets. One that gave nothing yet is over."""
        self._outputs += 1
        if self._silenced and self._coming is not None:  # the border is passed: it has the word already
            replaced, self._playing, self._coming = self._playing, self._coming, self._outputs
            self._from, self._samples = self._border, self._coming_samples
        elif self._samples:
            replaced, self._coming = self._coming, self._outputs
        else:
            replaced, self._playing = self._playing, self._outputs
        self._border, self._silenced = None, False
        if replaced is not None:
            self._over(replaced)
        return self._outputs

    def take(self, output: int, frame: EncodedAudio) -> None:
        """A packet of output ``output``, in order."""
        if output == self._playing and self._border is None and self._from is None:
            self._samples = frame.samples
            self._send(frame)
        elif output == self._coming:
            self._coming_samples = frame.samples
            if self._border is None and self._samples:
                step = lcm(frame.samples, self._samples)
                self._border = -(-(frame.pts + frame.samples) // step) * step
            if self._border is not None and frame.pts >= self._border:
                replaced, self._playing, self._coming = self._playing, self._coming, None
                self._border, self._silenced = None, False
                self._play(frame)
                if replaced is not None:
                    self._over(replaced)
        elif output == self._playing:
            if self._border is not None and frame.pts >= self._border:
                self._silenced = True
            elif self._from is None or frame.pts >= self._from:
                self._play(frame)

    def _play(self, frame: EncodedAudio) -> None:
        self._from = None
        self._samples = frame.samples
        self._send(frame)

    @property
    def outputs(self) -> list[int]:
        """Those that are not over."""
        return [number for number in (self._playing, self._coming) if number is not None]
