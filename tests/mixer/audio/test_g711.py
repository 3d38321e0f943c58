import numpy as np
import pytest

from mixer.audio import g711

# (16-bit sample, µ-law, A-law). The A-law codes and both expansions agree with CPython 3.11's audioop on every
# sample; the µ-law codes of negative samples follow ITU-T G.191, where audioop follows Sun's coder.
VECTORS = [
    (0, 0xFF, 0xD5),
    (-1, 0x7F, 0x55),
    (8, 0xFE, 0xD5),
    (-8, 0x7E, 0x55),
    (100, 0xF2, 0xD3),
    (-100, 0x73, 0x53),
    (1_000, 0xCE, 0xFA),
    (-1_000, 0x4E, 0x7A),
    (10_000, 0x9C, 0xB6),
    (-10_000, 0x1C, 0x36),
    (32_767, 0x80, 0xAA),
    (-32_768, 0x00, 0x2A),
]


def _pcm(sample: int) -> np.ndarray:
    return np.array([sample / 32_768], np.float32)


@pytest.mark.parametrize(("sample", "mu_law", "a_law"), VECTORS)
def test_known_codes(sample, mu_law, a_law):
    assert g711.encode_pcmu(_pcm(sample))[0] == mu_law
    assert g711.encode_pcma(_pcm(sample))[0] == a_law


@pytest.mark.parametrize(
    ("decode", "code", "sample"),
    [
        (g711.decode_pcmu, 0x00, -32_124),
        (g711.decode_pcmu, 0x80, 32_124),
        (g711.decode_pcmu, 0xFF, 0),
        (g711.decode_pcma, 0x2A, -32_256),
        (g711.decode_pcma, 0xAA, 32_256),
        (g711.decode_pcma, 0xD5, 8),
        (g711.decode_pcma, 0x55, -8),
    ],
)
def test_known_amplitudes(decode, code, sample):
    assert round(float(decode(bytes([code]))[0]) * 32_768) == sample


@pytest.mark.parametrize(
    ("encode", "decode"), [(g711.encode_pcmu, g711.decode_pcmu), (g711.encode_pcma, g711.decode_pcma)]
)
class TestBothLaws:
    def test_every_amplitude_encodes_to_itself(self, encode, decode):
        amplitudes = decode(bytes(range(256)))
        assert np.array_equal(decode(encode(amplitudes)), amplitudes)

    def test_negative_samples_are_the_ones_complement_of_positive_ones(self, encode, decode):
        samples = np.arange(32_768, dtype=np.int32)
        positive = np.frombuffer(encode((samples / 32_768).astype(np.float32)), np.uint8)
        negative = np.frombuffer(encode((~samples / 32_768).astype(np.float32)), np.uint8)
        assert np.array_equal(positive ^ 0x80, negative)

    def test_the_error_is_a_small_share_of_the_amplitude(self, encode, decode):
        pcm = np.linspace(-0.98, 0.98, 10_001, dtype=np.float32)
        error = np.abs(decode(encode(pcm)) - pcm)
        assert np.all(error <= np.maximum(np.abs(pcm) / 16, 10 / 32_768))

    def test_too_loud_is_clipped_and_never_wraps(self, encode, decode):
        out = decode(encode(np.array([-7.0, -1.0, 1.0, 7.0], np.float32)))
        assert np.all(out[:2] < -0.97)
        assert np.all(out[2:] > 0.97)
