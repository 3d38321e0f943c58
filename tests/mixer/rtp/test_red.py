"""RFC 2198: what is lost is found in the next packet, and a stranger's blocks break nothing."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import MalformedPacket
from mixer.rtp.packet import RtpPacket
from mixer.rtp.red import (
    MAX_BLOCK_BYTES,
    MAX_BLOCKS,
    MAX_OFFSET,
    Block,
    RedUnpacker,
    parse_red,
    write_red,
)
from tests.fakes.netem import Burst, Netem

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


def test_what_we_write_is_what_is_read() -> None:
    blocks = ((4_800, b"five ago"), (960, b"one ago"))
    written = write_red(OPUS, blocks, b"now")
    assert parse_red(written) == [Block(OPUS, offset, data) for offset, data in blocks] + [
        Block(OPUS, 0, b"now")
    ]
    assert write_red(OPUS, blocks, b"now") is written, "made once, for all viewers"


def test_what_rfc_2198_has_no_room_for_is_left_out() -> None:
    blocks = ((MAX_OFFSET + 1, b"long ago"), (1_920, b"x" * (MAX_BLOCK_BYTES + 1)), (960, b""), (960, b"one"))
    assert parse_red(write_red(OPUS, blocks, b"now")) == [Block(OPUS, 960, b"one"), Block(OPUS, 0, b"now")]


def spaced(sequence: int, backs: tuple[int, ...], *, stamp: int | None = None) -> RtpPacket:
    """A packet that repeats those ``backs`` before it."""
    earlier = tuple((960 * back, b"%d" % (sequence - back)) for back in backs)
    timestamp = 960 * sequence if stamp is None else stamp
    return RtpPacket(RED, False, sequence & 0xFFFF, timestamp, 1, write_red(OPUS, earlier, b"%d" % sequence))


def test_repetitions_of_packets_apart_find_their_places() -> None:
    take = unpacker()
    for sequence in range(10):
        assert words(take.unpack(spaced(sequence, (5, 1)))) == [b"%d" % sequence]
    # 10 to 14 are lost: each of the next five brings back one of them, and the first one two
    found = [take.unpack(spaced(sequence, (5, 1))) for sequence in range(15, 20)]
    assert [words(packets) for packets in found] == [
        [b"10", b"14", b"15"], [b"11", b"16"], [b"12", b"17"], [b"13", b"18"], [b"19"],
    ]  # fmt: skip
    assert all(p.payload == b"%d" % p.sequence == b"%d" % (p.timestamp // 960) for f in found for p in f)
    assert [p.repaired for p in found[0]] == [True, True, False]


def test_before_the_first_packet_nothing_is_missing() -> None:
    take = unpacker()
    take.unpack(spaced(100, ()))
    assert words(take.unpack(spaced(103, (5, 1)))) == [b"102", b"103"]


def test_a_sender_that_paused_repeats_what_was_before_the_pause() -> None:
    take = unpacker()
    take.unpack(spaced(1, (), stamp=960))
    # 2 is lost; then 400 ms of nothing, and 3, whose only repetition is of the packet before it
    stamp = 960 * 2 + 19_200 + 7
    earlier = ((stamp - 960 * 2) & MAX_OFFSET, b"2")
    late = RtpPacket(RED, False, 3, stamp, 1, write_red(OPUS, (earlier,), b"3"))
    assert [(p.sequence, p.payload) for p in take.unpack(late)] == [(2, b"2"), (3, b"3")]


@pytest.mark.parametrize(("burst", "most"), [(None, 0.002), (Burst(begin=0.0105, end=0.2), 0.023)])
def test_five_percent_of_bursts_shrink_by_more_than_half(burst: Burst | None, most: float) -> None:
    line: Netem[RtpPacket] = Netem(seed=7, loss=0.0 if burst else 0.05, burst=burst, delay_s=0.05)
    take, heard, count = unpacker(), set(), 20_000
    for number in range(count):
        line.send(spaced(number, tuple(back for back in (5, 1) if back <= number)), number * 0.02)
        heard |= {p.payload for arrived in line.receive(number * 0.02) for p in take.unpack(arrived)}
    heard |= {p.payload for arrived in line.receive(1e9) for p in take.unpack(arrived)}
    assert (count - len(heard)) / count < most


def test_a_pause_among_the_lost_moves_no_repetition() -> None:
    """Two lost in a row, then a pause: by chance the time between those that came divides into equal steps."""
    out = unpacker()
    stamps = {
        10: 0,
        11: 960,
        12: 1920,
        13: 2880,
        14: 2880 + 4 * 960,
    }  # 14 comes after a pause of three packets

    def sent(number: int) -> RtpPacket:
        before = stamps.get(number - 1)
        blocks = [Block(OPUS, stamps[number] - before, b"%d" % (number - 1))] if before is not None else []
        payload = red(*blocks, Block(OPUS, 0, b"%d" % number))
        return RtpPacket(RED, False, number, stamps[number], 1, payload, (), {})

    for number in (10, 11):
        out.unpack(sent(number))
    found = out.unpack(sent(14))
    assert [(p.sequence, p.timestamp, p.payload) for p in found] == [(13, 2880, b"13"), (14, 6720, b"14")]
