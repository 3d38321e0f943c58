import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.audio.codec import OpusDecoder, OpusEncoder
from mixer.audio.payload import duration_samples
from mixer.errors import MalformedPacket
from tests.mixer.audio.signals import voiced

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
