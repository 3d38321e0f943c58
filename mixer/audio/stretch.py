"""Making sound a little shorter, a little longer, or up, a pitch period at a time. Pure numpy, 48 kHz mono.

Delay is corrected by cutting out or repeating one pitch period where two copies of the voice fit each other
(WSOLA; the idea behind NetEQ's accelerate and expand), which nobody hears. The same search fills the hole
that a lost packet leaves in a codec without its own concealment (in the manner of G.711 appendix I).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mixer.media import FRAME_SAMPLES

Pcm = NDArray[np.float32]

MIN_PERIOD: Final = 120  # 2.5 ms, a voice of 400 Hz
MAX_PERIOD: Final = 720  # 15 ms, a voice of 67 Hz (G.711 appendix I searches 66 to 200 Hz)
_DECIMATION: Final = 4  # the search runs at 12 kHz: a sixteenth of the work, finely enough for a cross-fade
_OVERLAP: Final = 240  # 5 ms, the length of a cross-fade
_SHORTEN_FROM: Final = 240
_HISTORY: Final = 1_920  # 40 ms: two of the longest periods and the window compared
_HOLD: Final = 480  # concealment stays at full level for 10 ms (G.711 appendix I) ...
_FADE: Final = 2_400  # ... and has faded out 50 ms later

_RISE: Final[Pcm] = np.linspace(0.0, 1.0, _OVERLAP, dtype=np.float32)
_FALL: Final[Pcm] = 1 - _RISE


def _best_period(reference: Pcm, candidates: Pcm) -> int:
    """Offset (samples) at which ``candidates`` resembles ``reference`` most, by normalised correlation."""
    short = reference[::_DECIMATION]
    windows = sliding_window_view(candidates[::_DECIMATION], len(short))
    energy = np.einsum("ij,ij->i", windows, windows)
    score = (windows @ short) / np.sqrt(energy + np.float32(1e-9))
    return int(np.argmax(score)) * _DECIMATION


def shorten(pcm: Pcm, *, quiet: bool) -> Pcm:
    """Two frames (1,920 samples or more) with one pitch period cut out; when ``quiet``, a whole 20 ms."""
    start = _SHORTEN_FROM
    if quiet:
        period = FRAME_SAMPLES
    else:
        window = pcm[start : start + 2 * _OVERLAP]
        nearest = start + MIN_PERIOD
        period = MIN_PERIOD + _best_period(window, pcm[nearest : start + MAX_PERIOD + 2 * _OVERLAP])
    old = pcm[start : start + _OVERLAP]
    new = pcm[start + period : start + period + _OVERLAP]
    return np.concatenate((pcm[:start], old * _FALL + new * _RISE, pcm[start + period + _OVERLAP :]))


def lengthen(pcm: Pcm) -> Pcm:
    """One frame (960 samples or more) with one pitch period repeated: 120 to 720 samples longer."""
    end = FRAME_SAMPLES - _OVERLAP  # from here the signal is heard a second time, one period earlier
    window = pcm[end : end + _OVERLAP]
    earliest = end - MAX_PERIOD
    found = earliest + _best_period(window, pcm[earliest : end - MIN_PERIOD + _OVERLAP])
    again = pcm[found : found + _OVERLAP]
    return np.concatenate((pcm[:end], window * _FALL + again * _RISE, pcm[found + _OVERLAP :]))


class Concealer:
    """Fills holes in the output of a codec that cannot do so itself, by repeating the last pitch period."""

    def __init__(self) -> None:
        self._history: Pcm = np.zeros(_HISTORY, np.float32)
        self._cycle: Pcm | None = None
        self._made = 0  # samples invented since the last real one

    def keep(self, pcm: Pcm) -> Pcm:
        """Remember real sound; the first of it after a hole is cross-faded with what was invented."""
        if self._cycle is not None and len(pcm) >= _OVERLAP:
            invented = self._invent(_OVERLAP)
            pcm = np.concatenate((invented * _FALL + pcm[:_OVERLAP] * _RISE, pcm[_OVERLAP:]))
        self._cycle = None
        self._made = 0
        self._history = np.concatenate((self._history[len(pcm) :], pcm[-_HISTORY:]))
        return pcm

    def conceal(self, samples: int) -> Pcm:
        """``samples`` invented samples that carry on from the last ones and fade out within 60 ms."""
        if self._cycle is None:
            past = self._history
            window = past[-2 * _OVERLAP :]
            found = _best_period(window, past[-2 * _OVERLAP - MAX_PERIOD : -MIN_PERIOD])
            period = MAX_PERIOD - found
            self._cycle = past[-period:].copy()
        return self._invent(samples)

    def _invent(self, samples: int) -> Pcm:
        if self._cycle is None or self._made >= _HOLD + _FADE:
            return np.zeros(samples, np.float32)
        at = np.arange(self._made, self._made + samples)
        self._made += samples
        gain = np.clip(1 - (at - _HOLD) / _FADE, 0.0, 1.0).astype(np.float32)
        return self._cycle[at % len(self._cycle)] * gain
