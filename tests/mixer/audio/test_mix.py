import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.audio.mix import CEILING, Limiter, scaled, total
from tests.mixer.audio.signals import distortion_db, level_db, noise, tone, voiced


def _limited(pcm: np.ndarray, limiter: Limiter | None = None) -> np.ndarray:
    limiter = limiter or Limiter()
    return np.concatenate([limiter.process(pcm[at : at + 960]) for at in range(0, len(pcm), 960)])


def test_the_sum_of_no_voices_is_silence():
    assert not total(np.empty((0, 960), np.float32)).any()


def test_minus_self_is_exact_among_a_hundred_loud_voices():
    rows = np.stack([noise(0.02, 0.3, seed) for seed in range(100)])
    without = total(rows) - rows[17]
    expected = np.delete(rows, 17, axis=0).astype(np.float64).sum(axis=0)
    assert np.abs(without - expected).max() < 1e-4  # -80 dB of a voice, whatever the crowd


def test_what_stays_below_the_ceiling_is_the_same_array():
    pcm = tone(440, 0.02, CEILING - 0.001)
    assert Limiter().process(pcm) is pcm


def test_twenty_full_voices_neither_wrap_nor_leave_the_range():
    pcm = sum(tone(200 + 37 * n, 1.0, 1.0) for n in range(20))
    assert np.abs(pcm).max() > 15
    out = _limited(pcm)
    assert np.abs(out).max() <= 1.0
    assert np.all(np.sign(out[np.abs(pcm) > 1]) == np.sign(pcm[np.abs(pcm) > 1]))


def test_a_tone_of_twenty_times_full_scale_stays_a_tone():
    out = _limited(tone(440, 1.0, 20.0))
    assert level_db(out[9600:], 440) == pytest.approx(20 * np.log10(CEILING), abs=0.3)
    assert distortion_db(out[9600:], 440) < -40  # hard clipping: -7 dB; a wrapping sum: above 0


def test_loud_voices_are_distorted_less_than_by_the_codec():
    pcm = 5 * voiced(2.0)  # peaks of 2.5
    out = _limited(pcm)[4800:]
    clean = pcm[4800:] * (out @ pcm[4800:] / (pcm[4800:] @ pcm[4800:]))
    assert 10 * np.log10(np.sum((out - clean) ** 2) / np.sum(clean**2)) < -25  # Opus at 32 kbit/s: -25


def test_after_a_shout_the_gain_comes_back():
    limiter = Limiter()
    _limited(tone(440, 0.1, 10.0), limiter)
    assert limiter.gain < 0.2
    quiet = tone(440, 0.6, 0.2)
    out = _limited(quiet, limiter)
    assert limiter.gain == 1.0
    assert np.array_equal(out[-960:], quiet[-960:])
    assert np.abs(np.diff(out)).max() < 0.02  # and without a step on the way


@given(st.lists(st.floats(0.0, 50.0, width=32), min_size=1, max_size=8), st.integers(0, 1_000))
def test_no_sequence_of_levels_gets_past_the_limiter(amplitudes, seed):
    limiter = Limiter()
    for at, amplitude in enumerate(amplitudes):
        assert np.abs(limiter.process(noise(0.02, amplitude, seed + at))).max() <= 1.0


def test_a_change_of_volume_is_a_ramp():
    pcm = np.full(960, 0.5, np.float32)
    out = scaled(pcm, 1.0, 0.0)
    assert out[0] == pytest.approx(0.5)
    assert not out[240:].any()
    assert np.abs(np.diff(out)).max() < 0.01
    assert scaled(pcm, 1.0, 1.0) is pcm
