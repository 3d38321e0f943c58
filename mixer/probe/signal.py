"""The probe's test signal, both ends of it: pictures with a counter to read back, tones with pips to time.

No clock, no codec, no I/O. A caller's media is a loop of ``LOOP_S`` seconds:

- picture ``n`` (0 … ``LOOP_FRAMES`` - 1) carries ``n`` as a 4 × 4 square of black and white cells in the
  middle of the picture, where neither a tile cropped to ``cover`` nor a name at the bottom hides it: one cell
  always white, one always black (the reader's threshold), 8 bits of counter, 6 bits of CRC. The background's
  hue says which caller it is, and moves, so that encoders and decoders work as they would for a camera.
- the sound is a steady tone of the caller's own frequency with louder pips at uneven times. The edge of a pip
  is found again in a mix of many such tones by demodulating at that frequency.

Counters and pips repeat each ``LOOP_S`` seconds: a delay above that is folded, and not told from a short one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from mixer.media import AUDIO_CLOCK_HZ, FRAME_SAMPLES

Plane = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.float32]

LOOP_S: Final = 4
FPS: Final = 30
LOOP_FRAMES: Final = LOOP_S * FPS
LOOP_SAMPLES: Final = LOOP_S * AUDIO_CLOCK_HZ
LOOP_PACKETS: Final = LOOP_SAMPLES // FRAME_SAMPLES
WIDTH_PX: Final = 1280
HEIGHT_PX: Final = 720

# The square of cells: inside the middle half of the width (a 2 x 1 grid crops a 16:9 picture to that) and
# well above the lower third, where names are drawn.
CELLS: Final = 4
CELL_PX: Final = 80
_CELLS_X: Final = (WIDTH_PX - CELLS * CELL_PX) // 2
_CELLS_Y: Final = 160
_WHITE: Final = 210
_BLACK: Final = 40
_MIN_CONTRAST: Final = 60  # of 170 sent; less than that and what we look at is not our square
_COUNTER_BITS: Final = 8
_CRC_BITS: Final = 6
_CRC_POLYNOMIAL: Final = 0x03  # CRC-6-ITU, x^6 + x + 1 (ITU-T G.704 section 2.1.3.1.2)

HUES: Final = 12  # 30° apart at radius 48: 25 units of chroma between neighbours, encoders move it by under 6
_CHROMA_RADIUS: Final = 48

TONE_LEVEL: Final = (
    0.05  # amplitude; nine at once with one pip stay below full scale, so that no limiter works
)
PIP_LEVEL: Final = 0.15
PIP_S: Final = 0.08
# Uneven, so that a delay is recognised by its pattern; the gaps leave room for 0.7 s of delay between two pips.
PIP_TIMES_S: Final = (0.25, 1.05, 2.15, 3.20)
TONE_BASE_HZ: Final = 397
TONE_STEP_HZ: Final = 107  # both prime, so that harmonics fall between the other tones
_SYLLABLES_HZ: Final = 3.5
_PITCH_HZ: Final = 100
_SPEECH_LEVEL: Final = 0.03
HOP: Final = 48  # 1 ms: the grain of the envelope
HOP_S: Final = HOP / AUDIO_CLOCK_HZ
_WINDOW_HOPS: Final = 40  # a Hann window of 40 ms: neighbours 107 Hz away leak less than -40 dB
_PIP_HOPS: Final = round(PIP_S / HOP_S)
_BLOCK_HOPS: Final = 500  # judged at a time
_MEDIANS: Final = 6  # three seconds of them
_INAUDIBLE: Final = (
    1.5e-3  # -56 dB, 30 below what is sent: codec noise, which crosses any threshold of its own
)
_FLOOR: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Identity:
    """How caller ``index`` is told from the others: hue of its picture, frequency of its tone."""

    index: int

    @property
    def name(self) -> str:
        return f"Probe {self.index + 1}"

    @property
    def chroma(self) -> tuple[int, int]:
        """U and V of the background; callers ``HUES`` apart share one."""
        angle = 2 * math.pi * (self.index * 5 % HUES) / HUES  # 5: neighbours in the grid differ by 150°
        return (
            round(128 + _CHROMA_RADIUS * math.cos(angle)),
            round(128 + _CHROMA_RADIUS * math.sin(angle)),
        )

    @property
    def tone_hz(self) -> int:
        return TONE_BASE_HZ + TONE_STEP_HZ * self.index


@dataclass(frozen=True, slots=True)
class Rect:
    """A tile's place on the canvas, in pixels."""

    x: int
    y: int
    width: int
    height: int


# -- pictures


def _crc6(value: int) -> int:
    crc = 0
    for bit in range(_COUNTER_BITS - 1, -1, -1):
        top = (crc >> (_CRC_BITS - 1)) ^ (value >> bit & 1)
        crc = (crc << 1) & ((1 << _CRC_BITS) - 1)
        if top:
            crc ^= _CRC_POLYNOMIAL
    return crc


def cell_bits(counter: int) -> tuple[int, ...]:
    """The 16 cells of ``counter``, row by row: white, 8 bits of counter, 6 of CRC, black."""
    word = counter << _CRC_BITS | _crc6(counter) ^ 0b101010  # never all black: a dark tile is not counter 0
    bits = (word >> shift & 1 for shift in range(_COUNTER_BITS + _CRC_BITS - 1, -1, -1))
    return (1, *bits, 0)


@lru_cache(maxsize=1)
def _texture() -> Plane:
    """A field twice as wide as the picture, periodic in both directions: soft waves and fine grain."""
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX].astype(np.float32)
    waves = np.sin(2 * np.pi * (x * 3 / WIDTH_PX + y * 2 / HEIGHT_PX)) * 18
    waves += np.sin(2 * np.pi * (x * 11 / WIDTH_PX - y * 5 / HEIGHT_PX)) * 8
    grain = np.random.default_rng(1).normal(0, 3, waves.shape)  # seeded: every run sends the same bits
    field = np.clip(118 + waves + grain, 16, 235).astype(np.uint8)
    return np.tile(field, (2, 2))


def picture(counter: int, identity: Identity) -> Plane:
    """Picture ``counter`` of the loop: I420, uint8, shape (1080, 1280), planes one below the other."""
    if not 0 <= counter < LOOP_FRAMES:
        raise ValueError(f"counter {counter} is not in 0 … {LOOP_FRAMES - 1}")
    frame = np.empty((HEIGHT_PX * 3 // 2, WIDTH_PX), np.uint8)
    luma = frame[:HEIGHT_PX]
    phase = 2 * math.pi * counter / LOOP_FRAMES
    left = round(WIDTH_PX / 2 * (1 + math.sin(phase)) * 0.5)
    top = round(HEIGHT_PX / 2 * (1 + math.cos(phase)) * 0.5)
    luma[:] = _texture()[top : top + HEIGHT_PX, left : left + WIDTH_PX]
    # A bright bar that crosses the picture once a loop: a person sees at once whether it runs smoothly.
    bar = counter * WIDTH_PX // LOOP_FRAMES
    luma[HEIGHT_PX - 200 : HEIGHT_PX - 180, bar : bar + 60] = 225
    for cell, bit in enumerate(cell_bits(counter)):
        row, column = divmod(cell, CELLS)
        y, x = _CELLS_Y + row * CELL_PX, _CELLS_X + column * CELL_PX
        luma[y : y + CELL_PX, x : x + CELL_PX] = _WHITE if bit else _BLACK
    quarter = HEIGHT_PX // 4
    u, v = identity.chroma
    frame[HEIGHT_PX : HEIGHT_PX + quarter] = u
    frame[HEIGHT_PX + quarter :] = v
    return frame


def _cell_centres(tile: Rect, fit: Literal["cover", "contain"]) -> tuple[npt.NDArray[np.intp], ...]:
    """Row and column indices on the canvas of the inner quarter of each cell: shape (16, k, k) each."""
    ratios = (tile.width / WIDTH_PX, tile.height / HEIGHT_PX)
    scale = max(ratios) if fit == "cover" else min(ratios)
    left = tile.x + (tile.width - WIDTH_PX * scale) / 2
    top = tile.y + (tile.height - HEIGHT_PX * scale) / 2
    grain = max(1, int(CELL_PX * scale / 2))
    inner = CELL_PX * (0.25 + 0.5 * (np.arange(grain) + 0.5) / grain)
    rows, columns = np.divmod(np.arange(CELLS * CELLS), CELLS)
    y = top + scale * (_CELLS_Y + rows[:, None] * CELL_PX + inner[None, :])
    x = left + scale * (_CELLS_X + columns[:, None] * CELL_PX + inner[None, :])
    y, x = np.broadcast_arrays(y[:, :, None], x[:, None, :])
    return y.astype(np.intp), x.astype(np.intp)


@lru_cache(maxsize=256)
def _kept_centres(tile: Rect, fit: Literal["cover", "contain"]) -> tuple[npt.NDArray[np.intp], ...]:
    return _cell_centres(tile, fit)


def read_counter(luma: Plane, tile: Rect, fit: Literal["cover", "contain"] = "cover") -> int | None:
    """The counter shown in ``tile`` of a canvas' luma plane, or None when it cannot be read with certainty.

    ``tile`` must hold a whole 16:9 picture of ours, scaled and cropped as the contract's ``fit`` says.
    """
    y, x = _kept_centres(tile, fit)
    if y.min() < 0 or x.min() < 0 or y.max() >= luma.shape[0] or x.max() >= luma.shape[1]:
        return None
    levels = luma[y, x].mean(axis=(1, 2))
    white, black = levels[0], levels[-1]
    if white - black < _MIN_CONTRAST:
        return None
    counter = 0
    for level in levels[1 : 1 + _COUNTER_BITS]:
        counter = counter << 1 | int(level > (white + black) / 2)
    read = tuple(int(level > (white + black) / 2) for level in levels)
    return counter if counter < LOOP_FRAMES and read == cell_bits(counter) else None


def read_chroma(u: Plane, v: Plane, tile: Rect) -> tuple[float, float]:
    """Median U and V of a tile, given the canvas' half-size chroma planes."""
    rows = slice(tile.y // 2, (tile.y + tile.height) // 2)
    columns = slice(tile.x // 2, (tile.x + tile.width) // 2)
    return float(np.median(u[rows, columns])), float(np.median(v[rows, columns]))


def closest_hue(chroma: tuple[float, float]) -> int | None:
    """Lowest caller index whose hue lies nearest to ``chroma``; None when it is grey (no picture of ours)."""
    if math.hypot(chroma[0] - 128, chroma[1] - 128) < _CHROMA_RADIUS / 2:
        return None
    return min(range(HUES), key=lambda index: math.dist(Identity(index).chroma, chroma))


# -- sound


def tone(identity: Identity) -> Sound:
    """One loop of the caller's tone: float32 mono 48 kHz, ``LOOP_SAMPLES`` long, seamless when repeated."""
    time = np.arange(LOOP_SAMPLES) / AUDIO_CLOCK_HZ
    level = np.full(LOOP_SAMPLES, TONE_LEVEL)
    rise_s = 0.004  # a ramp instead of a click: a step would splash into the other callers' bands
    for start in PIP_TIMES_S:
        gate = np.clip((time - start) / rise_s + 0.5, 0, 1) * np.clip(
            (start + PIP_S - time) / rise_s + 0.5, 0, 1
        )
        level += (PIP_LEVEL - TONE_LEVEL) * gate
    return (level * np.sin(2 * np.pi * identity.tone_hz * time)).astype(np.float32)


def speech(identity: Identity) -> Sound:
    """One loop of something that a speech coder takes for a voice: syllables of a hum, in no caller's tone's band
    (of ten callers). A bare tone gets no FEC from libopus, and is concealed worse than any voice."""
    time = np.arange(LOOP_SAMPLES) / AUDIO_CLOCK_HZ
    syllables = np.clip(1.4 * np.sin(np.pi * _SYLLABLES_HZ * time) ** 2 - 0.2, 0, 1)
    pitch_hz = _PITCH_HZ + 2 * (identity.index % 10) + 5 * np.sin(2 * np.pi * time / 2)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / AUDIO_CLOCK_HZ
    voice = np.sum([np.sin(k * phase + k * k) / math.sqrt(k) for k in range(17, 31)], axis=0)
    sound: Sound = (_SPEECH_LEVEL * syllables * voice).astype(np.float32)
    return sound


def tone_level_db(samples: Sound, hz: float) -> float:
    """Level of one frequency in ``samples`` (48 kHz): dB of its amplitude to full scale, Hann window.

    With a whole second the neighbours ``TONE_STEP_HZ`` away leak less than -100 dB.
    """
    if samples.size == 0:
        return -math.inf
    window = np.hanning(samples.size)
    turns = np.exp(-2j * np.pi * hz * np.arange(samples.size) / AUDIO_CLOCK_HZ)
    amplitude = 2 * abs(np.dot(samples * window, turns)) / max(window.sum(), _FLOOR)
    return 20 * math.log10(max(float(amplitude), _FLOOR))


class PipFinder:
    """Finds the pips of one tone in a stream that may hold many: feed samples in order, get edge positions.

    Positions are counted in samples from the first one fed, and mean the middle of the rise (the envelope at
    twice the tone's usual level). The finder is 1 ms grained with linear interpolation between; a steady
    delay of codec and window is the same for a reference stream found by the same class.
    """

    def __init__(self, hz: float) -> None:
        self._turns = np.exp(-2j * np.pi * hz * np.arange(AUDIO_CLOCK_HZ) / AUDIO_CLOCK_HZ).astype(
            np.complex64
        )
        self._position = 0  # samples fed
        self._rest = np.zeros(0, np.float32)
        self._hops: list[npt.NDArray[np.complex64]] = []
        self._pending = np.zeros(0, np.complex64)  # hops not yet judged, with one window of the past
        self._first_hop = 0  # index of _pending[0]
        self._medians: deque[float] = deque(maxlen=_MEDIANS)  # of the envelope, a block each

    def feed(self, samples: Sound) -> list[float]:
        """Take the next samples (any count) and return the edges found since the last call."""
        data = np.concatenate((self._rest, samples)) if self._rest.size else samples
        whole = data.size // HOP * HOP
        self._rest = data[whole:].copy()
        if whole:
            start = self._position % AUDIO_CLOCK_HZ
            turns = np.take(self._turns, np.arange(start, start + whole), mode="wrap")
            self._hops.append((data[:whole] * turns).reshape(-1, HOP).sum(axis=1))
            self._position += whole
        if sum(hops.size for hops in self._hops) < _BLOCK_HOPS:
            return []
        return self._judge()

    def flush(self) -> list[float]:
        """The edges in what is left; a pip that is cut off by the end is none."""
        return self._judge()

    def _judge(self) -> list[float]:
        self._pending = np.concatenate((self._pending, *self._hops))
        self._hops.clear()
        judged = (
            self._pending.size - _WINDOW_HOPS - _PIP_HOPS
        )  # pairs of envelope values whose pip is all there
        if judged <= 0:
            return []
        window = np.hanning(_WINDOW_HOPS + 2)[1:-1]
        envelope = np.abs(np.convolve(self._pending, window / (window.sum() * HOP / 2), mode="valid"))
        # The loudest of the last few medians: pips are too short to move one, a stretch of silence does not count.
        self._medians.append(float(np.median(envelope)))
        usual = max(self._medians)
        edges: list[float] = []
        if usual > _INAUDIBLE:
            threshold = 2 * usual
            rises = np.flatnonzero((envelope[:judged] < threshold) & (envelope[1 : judged + 1] >= threshold))
            for hop in rises:
                if envelope[hop + 1 : hop + 1 + _PIP_HOPS // 2].min() < threshold:
                    continue  # a click: gone again before half a pip's time
                low, high = float(envelope[hop]), float(envelope[hop + 1])
                fraction = (threshold - low) / (high - low)
                edges.append(float(self._first_hop + hop + fraction + _WINDOW_HOPS / 2) * HOP)
        self._first_hop += judged
        self._pending = self._pending[judged:]
        return edges


# -- figures


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Linear-interpolated percentile; None of nothing."""
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent)) if len(values) else None


def match_delays(sent_s: Sequence[float], heard_s: Sequence[float], *, longest_s: float = 3.0) -> list[float]:
    """Delay of each heard pip, given when pips were sent and when pips were heard (same clock, both sorted).

    The delay that most pairs agree on (within 50 ms) is taken as the coarse one, which the uneven spacing
    makes unique; each heard pip then belongs to the sent one nearest to that, if within 0.3 s. What fits
    nothing (a click, a loss) is left out.
    """
    if not sent_s or not heard_s:
        return []
    sent = np.asarray(sent_s)
    gaps = np.asarray(heard_s)[:, None] - sent[None, :]
    candidates = np.sort(gaps[(gaps >= 0) & (gaps <= longest_s)])
    if candidates.size == 0:
        return []
    near = np.searchsorted(candidates, candidates + 0.05, side="right") - np.arange(candidates.size)
    best = int(near.argmax())
    coarse = float(np.median(candidates[best : best + int(near[best])]))
    nearest = np.abs(gaps - coarse).argmin(axis=1)
    delays = gaps[np.arange(gaps.shape[0]), nearest]
    return [float(delay) for delay in delays if delay >= 0 and abs(delay - coarse) <= 0.3]


def frozen_s(changes_s: Sequence[float], start_s: float, end_s: float) -> float:
    """Seconds of ``start_s … end_s`` in which the picture stood still, given when it changed (sorted).

    A pause counts, whole, when it is longer than the usual one by 150 ms and longer than three of them
    (W3C webrtc-stats, ``freezeCount``); the usual one is the median.
    """
    times = np.concatenate(([start_s], np.asarray(changes_s, dtype=np.float64), [end_s]))
    pauses = np.diff(times)
    if len(changes_s) < 2:
        return float(max(0.0, end_s - start_s))
    usual = float(np.median(pauses))
    return float(pauses[pauses > max(3 * usual, usual + 0.150)].sum())
