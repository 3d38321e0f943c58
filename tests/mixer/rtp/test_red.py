"""RFC 2198: what is lost is found in the next packet, and a stranger's blocks break nothing."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import MalformedPacket
from mixer.rtp.packet import RtpPacket
from mixer.rtp.red import MAX_BLOCKS, Block, RedUnpacker, parse_red
from tests.fakes.netem import Netem

RED, OPUS = 63, 111


def red(*blocks: Block) -> bytes:
    *earlier, own = blocks
    headers = b"".join(
        bytes([0x80 | b.payload_type]) + (b.offset << 10 | len(b.data)).to_bytes(3, "big") for b in earlier
    )
    return headers + bytes([own.payload_type]) + b"".join(b.data for b in blocks)


def packet(sequence: int, *, repeats: int = 1, ssrc: int = 1) -> RtpPacket:
    """A packet that says its own number, and those of ``repeats`` packets before it."""
    blocks = [Block(OPUS, 960 * back, b"%d" % (sequence - back)) for back in range(repeats, -1, -1)]
    return RtpPacket(
        RED, False, sequence & 0xFFFF, 960 * sequence & 0xFFFFFFFF, ssrc, red(*blocks), (), {1: b"\x30"}
    )


def unpacker() -> RedUnpacker:
    return RedUnpacker(red_type=RED, inner_type=OPUS)


def words(packets: list[RtpPacket]) -> list[bytes]:
    return [p.payload for p in packets]


def test_the_blocks_of_the_rfcs_own_form() -> None:
    assert parse_red(red(Block(5, 960, b"ab"), Block(6, 0, b"c"))) == [
        Block(5, 960, b"ab"),
        Block(6, 0, b"c"),
    ]
    assert parse_red(b"\x6fxyz") == [Block(111, 0, b"xyz")]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xef",  # another header is promised
        b"\xef\0\0\0",  # and the last one is missing
        b"\xef\0\0\x05\x6fabcd",  # a block of five bytes, of which four are there
        b"\xef\0\0\0" * (MAX_BLOCKS + 1) + b"\x6f",
    ],
)
def test_what_is_cut_or_endless_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parse_red(payload)


def test_a_repetition_is_used_only_for_what_is_missing_and_in_order() -> None:
    take = unpacker()
    assert words(take.unpack(packet(10))) == [b"10"], "nothing before the first is missing"
    assert words(take.unpack(packet(11))) == [b"11"]
    found = take.unpack(packet(14, repeats=2))
    assert words(found) == [b"12", b"13", b"14"]
    assert [(p.sequence, p.timestamp, p.payload_type) for p in found] == [
        (n, 960 * n, OPUS) for n in (12, 13, 14)
    ]
    assert [p.extensions for p in found] == [{}, {}, {1: b"\x30"}], "a level is the packet's own"
    assert take.recovered == 2


def test_sequence_and_timestamp_wrap() -> None:
    take = unpacker()
    take.unpack(packet(0xFFFE))
    found = take.unpack(packet(0x10000))
    assert [(p.sequence, p.payload) for p in found] == [(0xFFFF, b"65535"), (0, b"65536")]


def test_a_straggler_marks_its_place_and_bare_packets_count_too() -> None:
    take = unpacker()
    take.unpack(packet(1))
    take.unpack(packet(3, repeats=0))
    bare = RtpPacket(OPUS, False, 2, 1920, 1, b"2")
    assert take.unpack(bare) == [bare]
    assert words(take.unpack(packet(4, repeats=2))) == [b"4"]
    assert take.recovered == 0


def test_another_source_or_numbering_starts_afresh() -> None:
    take = unpacker()
    take.unpack(packet(1))
    assert words(take.unpack(packet(30_000))) == [b"30000"]
    assert words(take.unpack(packet(30_002, ssrc=2))) == [b"30002"]
    assert words(take.unpack(packet(30_004, ssrc=2))) == [b"30003", b"30004"]


def test_a_block_of_another_codec_is_no_sound() -> None:
    take = unpacker()
    take.unpack(packet(1))
    payload = red(Block(5, 960, b"dtmf"), Block(OPUS, 0, b"three"))
    assert words(take.unpack(RtpPacket(RED, False, 3, 2880, 1, payload))) == [b"three"]
    with pytest.raises(MalformedPacket):
        take.unpack(RtpPacket(RED, False, 4, 3840, 1, red(Block(5, 0, b"what"))))


@pytest.mark.parametrize(("repeats", "most"), [(1, 0.006), (2, 0.0015)])
def test_five_percent_of_loss_nearly_vanish(repeats: int, most: float) -> None:
    line: Netem[RtpPacket] = Netem(seed=7, loss=0.05, delay_s=0.05, jitter_s=0.01)
    take, heard, count = unpacker(), set(), 20_000
    for number in range(count):
        line.send(packet(number, repeats=min(number, repeats)), number * 0.02)
        heard |= {p.payload for arrived in line.receive(number * 0.02) for p in take.unpack(arrived)}
    heard |= {p.payload for arrived in line.receive(1e9) for p in take.unpack(arrived)}
    assert (count - len(heard)) / count < most


@given(st.binary(max_size=64) | st.lists(st.binary(min_size=4, max_size=4)).map(b"".join))
def test_only_malformed_packet_leaves_the_parser(payload: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        blocks = parse_red(payload)
        assert 0 < len(blocks) <= MAX_BLOCKS
        assert sum(len(block.data) for block in blocks) < max(1, len(payload))


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 2), st.binary(max_size=24))))
def test_any_packets_in_any_order(stream: list[tuple[int, int, bytes]]) -> None:
    take = unpacker()
    for sequence, ssrc, payload in stream:
        with contextlib.suppress(MalformedPacket):
            found = take.unpack(RtpPacket(RED, False, sequence, 0, ssrc, payload))
            assert len(found) <= MAX_BLOCKS
            assert all(p.payload and p.payload_type == OPUS for p in found)
