"""Adding voices: sum, minus self, soft limiter. Pure numpy; frames are float32 mono, 960 samples, ±1.0.

The sum is made in float32, where 100 full voices leave more than 100 dB of precision, and limited only after
a listener's own voice has been taken out: limiting first and subtracting afterwards would leave an echo.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mixer.media import FRAME_SAMPLES

Pcm = NDArray[np.float32]

CEILING: Final = 0.95  # -0.45 dBFS: up to here the limiter is not there; codecs overshoot a little
_BLOCK: Final = 240  # 5 ms: the limiter's gain moves in straight lines between such points
_BLOCKS: Final = FRAME_SAMPLES // _BLOCK
_RELEASE: Final = 10 ** (6 / 20 / 20)  # +6 dB in 20 blocks (100 ms): fast enough for speech, too slow to pump
_KNEE: Final = 1.0 - CEILING
_RAMP: Final = 240  # 5 ms: a change of volume, mute or gate is a short ramp, never a click

SILENCE: Final[Pcm] = np.zeros(FRAME_SAMPLES, np.float32)
SILENCE.setflags(write=False)

_POSITIONS: Final = np.arange(FRAME_SAMPLES, dtype=np.float32)
_POINTS: Final = np.arange(0, FRAME_SAMPLES + 1, _BLOCK, dtype=np.float32)


def total(rows: NDArray[np.float32]) -> Pcm:
    """The sum of a (legs × 960) matrix, unlimited. No legs: zeros."""
    if not len(rows):
        return SILENCE
    summed: Pcm = np.add.reduce(rows, axis=0, dtype=np.float32)
    return summed


def scaled(pcm: Pcm, before: float, after: float, *, slowly: bool = False) -> Pcm:
    """``pcm`` times a gain that goes from ``before`` to ``after`` in the first 5 ms, or (``slowly``) in all of it."""
    if before == after:
        return pcm if after == 1.0 else pcm * np.float32(after)
    ramp = len(pcm) if slowly else _RAMP
    out = pcm * np.float32(after)
    out[:ramp] = pcm[:ramp] * np.linspace(before, after, ramp, dtype=np.float32)
    return out


class Limiter:
    """Keeps one signal within ±1.0 by turning it down smoothly. A frame under the ceiling passes untouched.

    The gain falls within 5 ms and rises 60 dB a second. What still sticks out in those 5 ms is bent by a tanh
    knee between the ceiling and 1.0, so the output can neither wrap nor clip hard.
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def process(self, pcm: Pcm) -> Pcm:
        """The limited frame; the very same array if nothing had to be done."""
        peak = float(np.max(np.abs(pcm)))
        if self.gain == 1.0 and peak <= CEILING:
            return pcm
        points = self._gain_points(pcm)
        out: Pcm = pcm * np.interp(_POSITIONS, _POINTS, points).astype(np.float32)
        return _bend(out)

    def _gain_points(self, pcm: Pcm) -> list[float]:
        """Gain at the five block borders: never above what both neighbouring blocks can bear."""
        peaks = np.abs(pcm.reshape(_BLOCKS, _BLOCK)).max(axis=1)
        bearable = [min(1.0, CEILING / max(float(peak), CEILING)) for peak in peaks]
        points = [self.gain]
        for at, own in enumerate(bearable):
            following = bearable[at + 1] if at + 1 < _BLOCKS else 1.0
            points.append(min(own, following, points[-1] * _RELEASE))
        self.gain = points[-1]
        return points


def _bend(pcm: Pcm) -> Pcm:
    """Samples beyond the ceiling, bent towards ±1.0; the others unchanged."""
    over = np.abs(pcm) > CEILING
    if over.any():
        loud = pcm[over]
        beyond = np.abs(loud) - np.float32(CEILING)
        pcm[over] = np.sign(loud) * (CEILING + _KNEE * np.tanh(beyond / _KNEE)).astype(np.float32)
    return pcm
