from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import MalformedPacket
from mixer.rtp.rtcp import (
    Bye,
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    SdesChunk,
    SenderReport,
    SourceDescription,
    TemporaryMaxBitrateRequest,
    parse_rtcp,
    write_rtcp,
)
from mixer.rtp.twcc import TransportFeedback

U8 = st.integers(0, 255)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
BLOCKS = st.lists(
    st.builds(ReportBlock, U32, U8, st.integers(-(2**23), 2**23 - 1), U32, U32, U32, U32), max_size=31
).map(tuple)
SOURCES = st.lists(U32, max_size=31).map(tuple)
FEEDBACK = st.builds(
    TransportFeedback,
    U32,
    U32,
    st.integers(0, 2**16 - 1),
    st.integers(-(2**23), 2**23 - 1),
    U8,
    st.lists(
        st.one_of(st.none(), st.integers(0, 255), st.integers(-(2**15), 2**15 - 1)), min_size=1, max_size=200
    ).map(tuple),
)
CHUNK = st.builds(
    SdesChunk, U32, st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=255)), max_size=4).map(tuple)
)
PACKETS: st.SearchStrategy[RtcpPacket] = st.one_of(
    st.builds(SenderReport, U32, U64, U32, U32, U32, BLOCKS),
    st.builds(ReceiverReport, U32, BLOCKS),
    st.builds(SourceDescription, st.lists(CHUNK, max_size=31).map(tuple)),
    st.builds(Bye, SOURCES, st.binary(max_size=255)),
    st.builds(PictureLossIndication, U32, U32),
    st.builds(FullIntraRequest, U32, st.lists(st.tuples(U32, U8), max_size=8).map(tuple)),
    st.builds(ReceiverEstimatedMaxBitrate, st.integers(0, 2**18 - 1), SOURCES, U32),
    FEEDBACK,
    st.builds(
        TemporaryMaxBitrateRequest,
        U32,
        st.lists(st.tuples(U32, st.integers(0, 2**17 - 1), st.integers(0, 511)), max_size=4).map(tuple),
    ),
)


@given(st.lists(PACKETS, min_size=1, max_size=6))
def test_what_is_written_is_read_back(packets: list[RtcpPacket]) -> None:
    assert parse_rtcp(write_rtcp(packets)) == packets


@given(U32, U32, st.lists(st.integers(0, 2**16 - 1), max_size=300))
def test_nack_names_just_those_that_are_lost(sender: int, media: int, lost: list[int]) -> None:
    (nack,) = parse_rtcp(write_rtcp([Nack(sender, media, tuple(lost))]))
    assert isinstance(nack, Nack)
    assert (nack.sender_ssrc, nack.media_ssrc) == (sender, media)
    assert sorted(nack.lost) == sorted(set(lost))


def test_nack_is_one_entry_across_the_wrap() -> None:
    data = write_rtcp([Nack(1, 2, (3, 65_530, 65_535, 0))])
    assert len(data) == 12 + 4
    assert parse_rtcp(data) == [Nack(1, 2, (65_530, 65_535, 0, 3))]


@given(st.integers(0, 2**60))
def test_remb_rounds_down_to_eighteen_bits(bitrate_bps: int) -> None:
    (packet,) = parse_rtcp(write_rtcp([ReceiverEstimatedMaxBitrate(bitrate_bps, (1,))]))
    assert isinstance(packet, ReceiverEstimatedMaxBitrate)
    assert bitrate_bps * (1 - 2**-17) <= packet.bitrate_bps <= bitrate_bps


@given(st.binary(max_size=200))
def test_any_bytes_are_packets_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        parse_rtcp(data)


@given(st.lists(PACKETS, min_size=1, max_size=3), st.data())
def test_a_broken_compound_is_packets_or_malformed(packets: list[RtcpPacket], data: st.DataObject) -> None:
    wire = bytearray(write_rtcp(packets))
    for _ in range(data.draw(st.integers(1, 6))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedPacket):
        parse_rtcp(bytes(wire[: data.draw(st.integers(0, len(wire)))]))


def test_a_captured_compound_is_read() -> None:
    """A receiver report, CNAME and PLI byte by byte after the RFCs' figures."""
    data = bytes.fromhex(
        "81c90007 11223344 55667788 40ffffff 00010002 00000010 aabbccdd 00010000"  # RR, one block
        "81ca0003 11223344 0105 616c696365 00"  # SDES, CNAME "alice"
        "81ce0002 11223344 55667788"  # PLI
    )
    assert parse_rtcp(data) == [
        ReceiverReport(0x11223344, (ReportBlock(0x55667788, 64, -1, 0x10002, 16, 0xAABBCCDD, 65_536),)),
        SourceDescription.of(0x11223344, "alice"),
        PictureLossIndication(0x11223344, 0x55667788),
    ]
    assert write_rtcp(parse_rtcp(data)) == data


def test_a_transport_feedback_is_read_byte_by_byte() -> None:
    """The draft's figures: a run, a vector of single bits and one of two, then the deltas, padding signalled."""
    data = bytes.fromhex(
        "afcd0009 11223344 55667788"  # P: the last byte counts the padding
        "fffe 0019 000102 07"  # 25 packets from 65534, reference 258, eighth report
        "2003"  # a run of three that came in time
        "a0a1"  # 1 bit each: 1,0,0,0,0,0,1,0,1,0,0,0,0,1
        "d801 0001"  # 2 bits each: 1,2,0,0,0,0,1; then a run of one that is lost
        "01 02 03 04 05 06 07 08 ff9c 09 01"
    )
    lost = None
    assert parse_rtcp(data) == [
        TransportFeedback(
            0x11223344, 0x55667788, 65_534, 258, 7,
            (1, 2, 3, 4, *(lost,) * 5, 5, lost, 6, *(lost,) * 4, 7, 8, -100, *(lost,) * 4, 9, lost),
        )
    ]  # fmt: skip


def test_the_unknown_is_skipped_and_padding_taken_off() -> None:
    extended_report = b"\x80\xcf\x00\x01" + bytes(4)
    limit_notice = b"\x84\xcd\x00\x03" + bytes(12)  # TMMBN, RFC 5104 section 4.2.2
    other_application = b"\x8f\xce\x00\x03" + bytes(8) + b"ABCD"
    padded_pli = b"\xa1\xce\x00\x03" + b"\x00\x00\x00\x01\x00\x00\x00\x02" + b"\x00\x00\x00\x04"
    data = extended_report + limit_notice + other_application + padded_pli
    assert parse_rtcp(data) == [PictureLossIndication(1, 2)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\xc9\x00",
        b"\x40\xc9\x00\x01" + bytes(4),  # version 1
        b"\x80\xc9\x00\x02" + bytes(4),  # cut
        b"\x81\xc9\x00\x01" + bytes(4),  # a block is promised
        b"\x80\xc8\x00\x01" + bytes(4),
        b"\x82\xcb\x00\x01" + bytes(4),  # BYE of two with one
        b"\x81\xcb\x00\x02" + bytes(4) + b"\x09abc",  # reason is cut
        b"\x81\xca\x00\x01" + bytes(4),  # chunk without its end
        b"\x81\xca\x00\x02" + bytes(4) + b"\x01\x09ab",
        b"\x81\xcd\x00\x01" + bytes(4),
        b"\xa0\xc9\x00\x01" + bytes(4),  # padding of 0
        b"\xa0\xc9\x00\x01" + bytes(3) + b"\x04" + b"\x80\xc9\x00\x01" + bytes(4),  # padding not at the end
        b"\x84\xce\x00\x03" + bytes(12),  # half a FIR entry
        b"\x8f\xcd\x00\x03" + bytes(12),  # transport-cc about no packet
        b"\x8f\xcd\x00\x05" + bytes(8) + bytes.fromhex("0001 0002 000001 00 6002 0000"),  # reserved symbols
        b"\x8f\xcd\x00\x05" + bytes(8) + bytes.fromhex("0001 0002 000001 00 0000 0000"),  # an empty run
        b"\x8f\xcd\x00\x05" + bytes(8) + bytes.fromhex("0001 0003 000001 00 2003 0101"),  # a delta is missing
        b"\x8f\xcd\x00\x05" + bytes(8) + bytes.fromhex("0001 ffff 000001 00 1fff 1fff"),  # too many packets
        b"\x8f\xcd\x00\x06"
        + bytes(8)
        + bytes.fromhex("0001 0001 000001 00 2001 01 000000 0000"),  # left over
        b"\x8f\xce\x00\x04" + bytes(8) + b"REMB\x02\x00\x00\x00",  # two sources promised
    ],
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parse_rtcp(data)


@pytest.mark.parametrize(
    "packet",
    [
        ReceiverReport(2**32),
        ReceiverReport(1, (ReportBlock(1, 0, 0, 0, 0, 0, 0),) * 32),
        ReceiverEstimatedMaxBitrate(-1, ()),
        ReceiverEstimatedMaxBitrate(2**90, ()),
        SourceDescription((SdesChunk(1, ((1, bytes(256)),)),)),
        Bye((1,), bytes(256)),
        TransportFeedback(1, 2, 0, 0, 0, ()),
        TransportFeedback(1, 2, 0, 0, 0, (40_000,)),
        TransportFeedback(1, 2, 0, 0, 0, (None,) * 2000),
    ],
)
def test_what_cannot_be_written(packet: RtcpPacket) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any message
        write_rtcp([packet])


def test_tmmbr_on_the_wire() -> None:
    """RFC 5104 figure 2: SSRC, six bits of exponent, 17 of mantissa, 9 of overhead."""
    data = write_rtcp([TemporaryMaxBitrateRequest(1, ((2, 380_928, 58),))])
    assert data == bytes.fromhex("83cd0004 00000001 00000000 00000002") + (
        2 << 26 | 95_232 << 9 | 58
    ).to_bytes(4, "big")
    (limit,) = parse_rtcp(write_rtcp([TemporaryMaxBitrateRequest(1, ((2, 2_500_001, 0),))]))
    assert limit == TemporaryMaxBitrateRequest(1, ((2, 2_500_000 // 32 * 32, 0),))
    with pytest.raises(MalformedPacket):
        parse_rtcp(bytes.fromhex("83cd0003 00000001 00000000 00000002"))
