from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import MalformedPacket
from mixer.rtp.packet import RtpPacket, classify, header_length, parse_rtp, write_header, write_rtp

U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
EXTENSIONS = st.one_of(
    st.dictionaries(st.integers(1, 14), st.binary(min_size=1, max_size=16), max_size=5),
    st.dictionaries(st.integers(1, 255), st.binary(max_size=255), max_size=5),
)
PACKETS = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    marker=st.booleans(),
    sequence=U16,
    timestamp=U32,
    ssrc=U32,
    payload=st.binary(max_size=1200),
    csrcs=st.lists(U32, max_size=15).map(tuple),
    extensions=EXTENSIONS,
)


@given(PACKETS)
def test_what_is_written_is_read_back(packet: RtpPacket) -> None:
    data = write_rtp(packet)
    assert parse_rtp(data) == packet
    assert data[header_length(data) :] == packet.payload


@given(PACKETS, st.integers(1, 255))
def test_padding_is_taken_off(packet: RtpPacket, padding: int) -> None:
    data = bytearray(write_rtp(packet))
    data[0] |= 0x20
    assert parse_rtp(bytes(data) + bytes(padding - 1) + bytes((padding,))) == packet


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        parse_rtp(data)


@given(PACKETS, st.data())
def test_a_broken_packet_is_a_packet_or_malformed(packet: RtpPacket, data: st.DataObject) -> None:
    wire = bytearray(write_rtp(packet))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, min(len(wire), 40) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(wire)))
    with contextlib.suppress(MalformedPacket):
        parse_rtp(bytes(wire[:cut]))


def test_the_header_of_the_fan_out_is_the_same_header() -> None:
    packet = RtpPacket(102, True, 65_535, 2**32 - 1, 7, b"picture")
    assert write_header(102, True, 65_535, 2**32 - 1, 7) + b"picture" == write_rtp(packet)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "shorter"),
        (b"\x80" * 11, "shorter"),
        (b"\x40" + bytes(11), "version"),
        (b"\x82" + bytes(12), "CSRC"),
        (b"\x90" + bytes(13), "extension header"),
        (b"\x90" + bytes(11) + b"\xbe\xde\x00\x02" + bytes(4), "extension is cut"),
        (b"\x90" + bytes(11) + b"\xbe\xde\x00\x01\x1f\x00\x00\x00", "element"),
        (b"\x90" + bytes(11) + b"\x10\x00\x00\x01\x01\x04\x00\x00", "element"),
        (b"\x90" + bytes(11) + b"\x10\x00\x00\x01\x00\x00\x00\x01", "element"),
        (b"\xa0" + bytes(11), "padding"),
        (b"\xa0" + bytes(11) + b"\x00", "padding"),
        (b"\xa0" + bytes(11) + b"\x02", "padding"),
    ],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(MalformedPacket, match=why):
        parse_rtp(data)


def test_extensions_of_other_profiles_and_reserved_identifiers_are_skipped() -> None:
    other = b"\x90" + bytes(11) + b"\x12\x34\x00\x01abcd" + b"payload"
    assert parse_rtp(other).extensions == {}
    assert parse_rtp(other).payload == b"payload"
    stopped = b"\x90" + bytes(11) + b"\xbe\xde\x00\x02\x10A\x00\xf0\x20B\x00\x00" + b"payload"
    assert parse_rtp(stopped).extensions == {1: b"A"}


@pytest.mark.parametrize(
    "packet",
    [
        RtpPacket(128, False, 0, 0, 0, b""),
        RtpPacket(0, False, 2**16, 0, 0, b""),
        RtpPacket(0, False, 0, -1, 0, b""),
        RtpPacket(0, False, 0, 0, 0, b"", csrcs=(0,) * 16),
        RtpPacket(0, False, 0, 0, 0, b"", csrcs=(-1,)),
        RtpPacket(0, False, 0, 0, 0, b"", extensions={0: b"a"}),
        RtpPacket(0, False, 0, 0, 0, b"", extensions={1: bytes(256)}),
    ],
)
def test_what_cannot_be_written(packet: RtpPacket) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any message
        write_rtp(packet)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), "stun"),
        (b"\x00\x01\x00\x04\x21\x12\xa4\x42" + bytes(16), "stun"),
        (b"\x00\x01\x00\x04\x21\x12\xa4\x42" + bytes(12), None),  # length field lies
        (b"\x00\x01\x00\x00\x21\x12\xa4\x43" + bytes(12), None),  # no cookie
        (b"\x16\xfe\xfd" + bytes(10), "dtls"),
        (b"\x16\xfe\xfd" + bytes(9), None),
        (b"\x80\x60" + bytes(10), "rtp"),
        (b"\x80\xe0" + bytes(10), "rtp"),
        (b"\x80\x60" + bytes(9), None),
        (b"\x80\xc8" + bytes(6), "rtcp"),
        (b"\x80\xce" + bytes(10), "rtcp"),
        (b"\x80\x48" + bytes(10), None),  # payload type 72 without marker: neither
        (b"", None),
        (b"\x80" * 1500, "rtp"),
        (b"\x80" * 1501, None),
        (b"\x80" * 1601, None),  # ends a stock aiortc peer
        (b"\x40" + bytes(40), None),  # TURN channel data
        (b"GET / HTTP/1.1\r\n\r\n", None),
    ],
)
def test_datagrams_are_told_apart(data: bytes, kind: str | None) -> None:
    assert classify(data, len(data)) == kind


def test_a_level_alone_is_read_as_among_others() -> None:
    """The short way for one element of one byte, and the long one: the same block with a word of padding behind."""
    header = bytes([0x90, 0, 0, 1]) + bytes(8)
    for head in range(256):
        short = header + b"\xbe\xde\0\1" + bytes([head, 7, 0, 0]) + b"sound"
        long = header + b"\xbe\xde\0\2" + bytes([head, 7, 0, 0]) + bytes(4) + b"sound"
        if (
            head & 0x0F < 3 and 0x10 <= head < 0xF0
        ):  # a longer element is cut in the short block, and 0 is padding
            assert parse_rtp(short).extensions[head >> 4][0] == 7
            assert parse_rtp(short) == parse_rtp(long)
