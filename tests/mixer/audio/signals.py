"""Test sounds and how they are measured. Levels are relative to a sine of amplitude 1.0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]
RATE = 48_000


def tone(hz: float, seconds: float, amplitude: float = 0.2, rate: int = RATE) -> Pcm:
    at = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hz * at)).astype(np.float32)


def voiced(seconds: float, amplitude: float = 0.15) -> Pcm:
    """A hum of 24 harmonics whose pitch moves between 110 and 130 Hz: what Opus takes for a voice."""
    at = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 10 * np.sin(2 * np.pi * 3 * at)) / RATE
    return (amplitude * sum(np.sin(k * phase) / k for k in range(1, 25))).astype(np.float32)


def syllables(seconds: float, amplitude: float = 0.15) -> Pcm:
    """The hum in 3.3 syllables a second: libopus takes a hum that never ends for noise, and spends no FEC on it."""
    at = np.arange(round(seconds * RATE)) / RATE
    return (voiced(seconds, amplitude) * np.clip(np.sin(2 * np.pi * 3.3 * at) + 0.55, 0.02, 1.0)).astype(
        np.float32
    )


def noise(seconds: float, amplitude: float, seed: int = 1) -> Pcm:
    rng = np.random.default_rng(seed)
    return (amplitude * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def level_db(pcm: Pcm, hz: float, rate: int = RATE) -> float:
    """Level of one frequency (Goertzel's sum with a Hann window), dB against a full-scale sine."""
    window = np.hanning(len(pcm))
    line = np.exp(-2j * np.pi * hz * np.arange(len(pcm)) / rate)
    amplitude = 2 * abs(np.dot(pcm * window, line)) / window.sum()
    return float(20 * np.log10(amplitude + 1e-12))


def distortion_db(pcm: Pcm, hz: float, rate: int = RATE) -> float:
    """Everything but the tone at ``hz``, against the tone, in dB (the tone is fitted and subtracted)."""
    at = 2 * np.pi * hz * np.arange(len(pcm)) / rate
    basis = np.stack([np.sin(at), np.cos(at)])
    weights, *_ = np.linalg.lstsq(basis.T, pcm, rcond=None)
    fitted = weights @ basis
    return float(10 * np.log10(np.sum((pcm - fitted) ** 2) / np.sum(fitted**2) + 1e-15))
