"""Numbering, header extension, retransmission and sender reports of one outgoing stream."""

from __future__ import annotations

import pytest

from mixer.rtp.history import unwrap_rtx
from mixer.rtp.packet import parse_rtp
from mixer.webrtc.outgoing import REPEATS_PER_S, OutgoingStream, abs_send_time, ntp_time


def stream(
    *, stamp_id: int | None = 3, rtx: tuple[int, int] | None = (97, 77), history: int = 64
) -> OutgoingStream:
    return OutgoingStream(
        ssrc=5, payload_type=96, clock_hz=90_000, stamp_id=stamp_id, rtx=rtx, history=history
    )


def test_packets_are_numbered_and_keep_the_distance_of_room_time() -> None:
    out = stream()
    first, second, third = (
        parse_rtp(out.packet(bytes([i]), pts, marker=i == 1, now=10.0)) for i, pts in enumerate((0, 0, 3000))
    )
    assert (second.sequence - first.sequence) & 0xFFFF == 1
    assert second.timestamp == first.timestamp
    assert (third.timestamp - first.timestamp) & 0xFFFFFFFF == 3000
    assert [p.marker for p in (first, second, third)] == [False, True, False]
    assert {(p.ssrc, p.payload_type) for p in (first, second, third)} == {(5, 96)}
    assert (first.payload, out.packets, out.octets) == (b"\0", 3, 3)


def test_the_send_time_is_in_the_extension_and_only_when_agreed() -> None:
    packet = parse_rtp(stream().packet(b"x", 0, marker=True, now=100.25))
    assert packet.extensions == {3: abs_send_time(100.25).to_bytes(3, "big")}
    assert int.from_bytes(packet.extensions[3], "big") == (100 % 64) * 2**18 + 2**16  # 6.18 fixed point
    assert parse_rtp(stream(stamp_id=None).packet(b"x", 0, marker=True, now=1.0)).extensions == {}


@pytest.mark.parametrize("levels_id", [None, 2])
@pytest.mark.parametrize("count", [1, 3, 4, 15])
def test_a_mixed_packet_names_its_contributors_and_their_levels(levels_id: int | None, count: int) -> None:
    out = OutgoingStream(ssrc=5, payload_type=111, clock_hz=48_000, levels_id=levels_id, history=0)
    contributors = tuple((0xF0000000 + n, 20 + n) for n in range(count))
    made = out.packet(b"sound", 960, marker=True, now=1.0, contributors=contributors)
    assert len(made) == out.header_size + out.naming_size(count) + len(b"sound")
    packet = parse_rtp(made)
    assert packet.csrcs == tuple(csrc for csrc, _ in contributors)
    assert packet.extensions == ({2: bytes(level for _, level in contributors)} if levels_id else {})
    assert (packet.payload, packet.marker, packet.ssrc, packet.payload_type) == (b"sound", True, 5, 111)
    following = parse_rtp(out.packet(b"more", 1920, marker=False, now=1.0))
    assert (following.csrcs, following.extensions, following.payload) == ((), {}, b"more")
    assert out.octets == 9, "RFC 3550 section 6.4.1: payload octets, without header"


def test_a_repeat_is_rtx_with_its_own_numbers_and_a_fresh_send_time() -> None:
    out = stream()
    original = parse_rtp(out.packet(b"payload", 9000, marker=True, now=1.0))
    repeats = [parse_rtp(out.repeat(original.sequence, now) or b"") for now in (2.0, 2.5)]
    assert [(p.payload_type, p.ssrc) for p in repeats] == [(97, 77)] * 2
    assert (repeats[1].sequence - repeats[0].sequence) & 0xFFFF == 1
    assert repeats[1].extensions == {3: abs_send_time(2.5).to_bytes(3, "big")}
    restored = unwrap_rtx(repeats[0], payload_type=96, ssrc=5)
    assert restored is not None
    assert (restored.sequence, restored.timestamp, restored.payload, restored.marker) == (
        original.sequence, original.timestamp, b"payload", True,
    )  # fmt: skip


def test_without_rtx_a_repeat_is_the_same_bytes() -> None:
    out = stream(rtx=None)
    packet = out.packet(b"payload", 0, marker=True, now=1.0)
    assert out.repeat(parse_rtp(packet).sequence, 2.0) == packet


def test_what_is_gone_or_asked_too_often_is_refused() -> None:
    out = stream(history=2)
    sequences = [parse_rtp(out.packet(b"x", i, marker=True, now=0.0)).sequence for i in range(3)]
    assert out.repeat(sequences[0], 0.5) is None
    asked = [out.repeat(sequences[2], 0.5) for _ in range(REPEATS_PER_S + 5)]
    assert sum(packet is not None for packet in asked) <= REPEATS_PER_S
    assert asked[-1] is None
    assert out.repeat(sequences[2], 2.0) is not None  # a second later


def test_a_sender_report_ties_ntp_to_the_timestamps_sent() -> None:
    out = stream()
    sent = parse_rtp(out.packet(b"four", 90_000, marker=True, now=1.0))  # room second 1
    report = out.report(room_s=1.5, unix_s=1_700_000_000.5)
    assert (report.rtp_time - sent.timestamp) & 0xFFFFFFFF == 45_000
    assert report.ntp_time / 2**32 == pytest.approx(1_700_000_000.5 + 2_208_988_800)
    assert report.ntp_time == ntp_time(1_700_000_000.5)
    assert (report.ssrc, report.packet_count, report.octet_count) == (5, 1, 4)


def test_a_transport_wide_number_takes_the_place_of_the_send_time() -> None:
    out = OutgoingStream(
        ssrc=5, payload_type=96, clock_hz=90_000, stamp_id=3, transport_id=7, rtx=(97, 77), history=64
    )
    raw = out.packet(b"payload", 0, marker=True, now=1.0, transport=0xABCD)
    assert len(raw) == out.header_size + 7
    original = parse_rtp(raw)
    assert original.extensions == {7: b"\xab\xcd"}
    assert out.repeat_size(original.sequence) == len(raw) + 2
    again = out.repeat(original.sequence, 2.0, 0x0102)
    assert again is not None
    assert len(again) == len(raw) + 2
    repeated = parse_rtp(again)
    assert (repeated.ssrc, repeated.extensions) == (77, {7: b"\x01\x02"})
    out.forget()
    assert out.repeat_size(original.sequence) is None
    assert out.repeat(original.sequence, 2.5) is None


def test_padding_is_of_the_repair_stream_and_counted_in_its_last_byte() -> None:
    out = stream(stamp_id=None)
    sent = parse_rtp(out.packet(b"x", 4500, marker=True, now=0.0))
    raw = [out.padding(size, 1.0) for size in (1, 255)]
    assert [len(packet) for packet in raw] == [12 + 1, 12 + 255]
    first, second = (parse_rtp(packet) for packet in raw)
    assert (first.payload, first.timestamp, first.ssrc, first.marker) == (b"", sent.timestamp, 77, False)
    assert (second.sequence - first.sequence) & 0xFFFF == 1
    assert unwrap_rtx(first, payload_type=96, ssrc=5) is None
    with pytest.raises(ValueError, match="RTX"):
        stream(rtx=None).padding(100, 1.0)
