import ctypes
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.audio import opus
from mixer.audio.codec import OpusDecoder, OpusEncoder
from mixer.audio.opus import LEAST_FEC_BPS
from mixer.audio.payload import duration_samples, opus_has_fec
from mixer.errors import MalformedPacket
from tests.mixer.audio.signals import syllables, voiced

CODECS = ("opus", "G722", "PCMU", "PCMA")


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
def test_telephone_codecs_have_eight_bytes_a_millisecond(codec):
    assert duration_samples(codec, bytes(160)) == 960
    assert duration_samples(codec, bytes(240)) == 1440


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_opus_durations_are_what_the_decoder_gives_back(frames):
    packet = OpusEncoder(24_000, frames=frames).encode(voiced(0.02 * frames))
    assert duration_samples("opus", packet) == 960 * frames == len(OpusDecoder().decode(packet))


def test_an_opus_packet_of_one_byte_is_a_frame_of_discontinuous_transmission():
    assert duration_samples("opus", bytes([0b01001_000])) == 960  # SILK wideband, 20 ms


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_is_no_packet(codec):
    with pytest.raises(MalformedPacket):
        duration_samples(codec, b"")


def test_opus_packets_end_at_120_ms():
    assert duration_samples("opus", bytes([0b01011_011, 2])) == 5760  # 2 × 60 ms
    with pytest.raises(MalformedPacket):
        duration_samples("opus", bytes([0b01011_011, 3]))
    with pytest.raises(MalformedPacket):
        duration_samples("opus", bytes([0b01011_011, 0]))


@given(st.sampled_from(CODECS), st.binary(max_size=2_000))
def test_any_bytes_have_a_bounded_duration_or_are_malformed(codec, payload):
    try:
        samples = duration_samples(codec, payload)
    except MalformedPacket:
        return
    assert 0 < samples <= 9_600


def _libopus_says(payload: bytes) -> bool:
    """The library's own answer, of the libopus in PyAV's wheel (1.5 or later; Debian 12 has 1.3)."""
    path = opus._shipped_library()
    library = ctypes.CDLL(path) if path else None
    if library is None or not hasattr(library, "opus_packet_has_lbrr"):
        pytest.skip("PyAV's libopus is too old to be asked")
    return library.opus_packet_has_lbrr(payload, len(payload)) == 1


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("bitrate_bps", [LEAST_FEC_BPS, 16_000, 24_000, 32_000])
@pytest.mark.parametrize("fec", [False, True])
def test_fec_is_seen_where_libopus_sees_it(frames, bitrate_bps, fec):
    encoder = OpusEncoder(bitrate_bps, frames=frames, inband_fec=fec)
    sound = syllables(3.0)
    size = 960 * frames
    packets = [encoder.encode(sound[at : at + size]) for at in range(0, len(sound) - size, size)]
    seen = [opus_has_fec(packet) for packet in packets]
    assert seen == [_libopus_says(packet) for packet in packets]
    assert any(seen) == fec


def test_fec_is_seen_in_packets_of_any_shape_as_libopus_does():
    rng = random.Random(9)
    agreed = 0
    for _ in range(30_000):
        packet = bytes([rng.randrange(256)]) + rng.randbytes(rng.randrange(60))
        if _valid(packet):
            agreed += 1
            assert opus_has_fec(packet) == _libopus_says(packet), packet.hex()
    assert agreed > 5_000


def _valid(packet: bytes) -> bool:
    library = ctypes.CDLL(opus._shipped_library() or "")
    sizes, frames = (ctypes.c_int16 * 48)(), (ctypes.c_void_p * 48)()
    return library.opus_packet_parse(packet, len(packet), None, frames, sizes, None) > 0 and sizes[0] > 0


@given(st.binary(max_size=200))
def test_no_bytes_upset_the_search_for_fec(payload):
    assert opus_has_fec(payload) in (True, False)
