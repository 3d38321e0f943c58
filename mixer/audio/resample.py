"""Streaming resampling between 48 kHz and the 8 or 16 kHz of telephone codecs. Pure numpy.

One linear-phase low-pass FIR (Kaiser window) at the higher of the two rates does both jobs: when going up it
interpolates between zeros, when going down it removes what would alias. Both are written polyphase as one
matrix product a block, so that nothing is computed that is thrown away or multiplied by zero.
"""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Pcm = NDArray[np.float32]

_STOPBAND_DB: Final = 70.0  # below the noise of 16-bit telephone codecs (G.711: 38 dB, G.722: 60 dB)
_TRANSITION: Final = 0.15  # of the lower Nyquist frequency: 3.4 kHz passes at 8 kHz, 6.8 kHz at 16 kHz


@functools.lru_cache(maxsize=8)
def low_pass(factor: int) -> Pcm:
    """FIR of unit gain at 0 Hz for a rate change by ``factor``; length a multiple of ``factor``, read-only.

    Stops at the lower Nyquist frequency, passes up to ``1 - _TRANSITION`` of it (Kaiser's formulas).
    """
    width = math.pi * _TRANSITION / factor
    taps = math.ceil((_STOPBAND_DB - 7.95) / (2.285 * width)) + 1
    taps += -taps % factor
    beta = 0.1102 * (_STOPBAND_DB - 8.7)
    centre = (taps - 1) / 2
    cutoff = (1 - _TRANSITION / 2) / factor
    ideal = np.sinc((np.arange(taps) - centre) * cutoff) * np.kaiser(taps, beta)
    fir: Pcm = (ideal / ideal.sum()).astype(np.float32)
    fir.setflags(write=False)
    return fir


class Resampler:
    """Changes the rate of one continuous mono signal; blocks may have any length.

    ``delay_s`` is the constant delay of the filter. Equal rates pass through untouched.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        high, low = max(from_hz, to_hz), min(from_hz, to_hz)
        if low <= 0 or high % low:
            raise ValueError(f"only whole ratios are resampled, not {from_hz} Hz to {to_hz} Hz")
        self._factor = high // low
        self._up = to_hz > from_hz
        fir = low_pass(self._factor) if self._factor > 1 else np.ones(1, np.float32)
        self.delay_s: Final = (len(fir) - 1) / 2 / high
        if self._up:
            # Column p holds the taps that meet the known samples when output phase p is made, oldest first.
            self._taps = (fir.reshape(-1, self._factor)[::-1] * self._factor).astype(np.float32)
        else:
            self._taps = fir[::-1].reshape(-1, 1).copy()
        self._history: Pcm = np.zeros(len(self._taps) - 1, np.float32)

    def process(self, pcm: Pcm) -> Pcm:
        """The samples that these samples complete (float32, 1-D): ``len × ratio`` of them, on average."""
        if self._factor == 1:
            return pcm
        signal = np.concatenate((self._history, pcm))
        taps = len(self._taps)
        step = 1 if self._up else self._factor
        count = max(0, (len(signal) - taps) // step + 1)
        if not count:
            self._history = signal
            return np.empty(0, np.float32)
        windows = sliding_window_view(signal, taps)[: count * step : step]
        self._history = signal[count * step :].copy()
        return np.asarray(windows @ self._taps, np.float32).ravel()

    def reset(self) -> None:
        """Forget the past, as after a jump in the signal."""
        self._history = np.zeros(len(self._taps) - 1, np.float32)
