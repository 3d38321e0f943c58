import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.audio.resample import Resampler
from tests.mixer.audio.signals import distortion_db, level_db, tone

PAIRS = [(8_000, 48_000), (16_000, 48_000), (48_000, 8_000), (48_000, 16_000)]


def _through(resampler: Resampler, pcm: np.ndarray, block: int) -> np.ndarray:
    return np.concatenate([resampler.process(pcm[at : at + block]) for at in range(0, len(pcm), block)])


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.84])
def test_what_a_telephone_carries_passes_within_a_tenth_of_a_decibel(from_hz, to_hz, share):
    hz = share * min(from_hz, to_hz) / 2
    out = _through(Resampler(from_hz, to_hz), tone(hz, 1.0, 0.5, from_hz), from_hz // 50)[to_hz // 10 :]
    assert level_db(out, hz, to_hz) == pytest.approx(level_db(tone(hz, 1.0, 0.5), hz), abs=0.1)
    assert distortion_db(out, hz, to_hz) < -65  # images, when going up, would be counted here


@pytest.mark.parametrize("low_hz", [8_000, 16_000])
def test_what_would_alias_is_gone(low_hz):
    for hz in (low_hz * 0.51, low_hz * 0.75, low_hz * 1.1):
        out = _through(Resampler(48_000, low_hz), tone(hz, 0.5, 1.0), 960)[low_hz // 10 :]
        assert 20 * np.log10(np.abs(out).max() + 1e-12) < -60


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_a_tick_in_is_a_tick_out(from_hz, to_hz):
    resampler = Resampler(from_hz, to_hz)
    assert [len(resampler.process(np.zeros(from_hz // 50, np.float32))) for _ in range(3)] == [
        to_hz // 50
    ] * 3


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_the_delay_is_the_one_it_states(from_hz, to_hz):
    pulse = np.zeros(from_hz // 10, np.float32)
    pulse[from_hz // 100] = 1.0
    resampler = Resampler(from_hz, to_hz)
    peak_s = int(np.argmax(resampler.process(pulse))) / to_hz
    assert peak_s == pytest.approx(0.01 + resampler.delay_s, abs=1 / to_hz)


@given(st.sampled_from(PAIRS), st.lists(st.integers(0, 700), min_size=1, max_size=12))
def test_blocks_may_have_any_length(pair, lengths):
    rng = np.random.default_rng(7)
    pcm = rng.standard_normal(sum(lengths)).astype(np.float32)
    whole = Resampler(*pair).process(pcm)
    resampler = Resampler(*pair)
    at = 0
    parts = []
    for length in lengths:
        parts.append(resampler.process(pcm[at : at + length]))
        at += length
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_only_whole_ratios():
    with pytest.raises(ValueError, match="44100"):
        Resampler(44_100, 48_000)
