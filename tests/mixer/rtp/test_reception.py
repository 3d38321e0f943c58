from __future__ import annotations

import pytest

from mixer.rtp.packet import RtpPacket
from mixer.rtp.reception import ReceptionStats
from mixer.rtp.rtcp import SenderReport


def packet(sequence: int, timestamp: int | None = None, ssrc: int = 7) -> RtpPacket:
    return RtpPacket(
        96, False, sequence & 0xFFFF, (sequence * 960 if timestamp is None else timestamp), ssrc, b"x"
    )


def test_a_perfect_stream_over_the_wrap() -> None:
    stats = ReceptionStats(48_000)
    for index in range(100):
        stats.receive(packet(65_500 + index, index * 960), index * 0.02)
    block = stats.report_block(2.0)
    assert (stats.received, stats.lost) == (100, 0)
    assert stats.jitter_ms == pytest.approx(0.0, abs=0.001)
    assert block.ssrc == 7
    assert block.highest_sequence == 65_599  # one cycle and 63
    assert (block.fraction_lost, block.packets_lost) == (0, 0)
    assert (block.last_sr, block.delay_since_last_sr) == (0, 0)


def test_loss_is_counted_in_all_and_since_the_last_report() -> None:
    stats = ReceptionStats(48_000)
    for index in range(100):
        if index % 4:
            stats.receive(packet(index), index * 0.02)
    assert stats.lost == 24  # the first packet was never expected
    assert stats.report_block(2.0).fraction_lost == 24 * 256 // 99
    for index in range(100, 200):
        stats.receive(packet(index), index * 0.02)
    block = stats.report_block(4.0)
    assert (block.fraction_lost, block.packets_lost) == (0, 24)


def test_repeats_bring_the_loss_down_and_duplicates_below_zero() -> None:
    stats = ReceptionStats(48_000)
    for sequence in (1, 2, 5, 3, 4, 5):
        stats.receive(packet(sequence), 0.0)
    assert stats.lost == -1
    assert stats.report_block(0.0).packets_lost == -1


def test_jitter_is_that_of_the_appendix() -> None:
    stats = ReceptionStats(8000)
    expected, late = 0.0, 0.0
    for index in range(50):
        delay = 0.005 if index % 2 else 0.0
        stats.receive(packet(index, index * 160), index * 0.02 + delay)
        if index:
            expected += (abs(delay - late) * 8000 - expected) / 16
        late = delay
    assert stats.report_block(1.0).jitter == int(expected)
    assert stats.jitter_ms == pytest.approx(expected / 8)


def test_packets_of_one_picture_and_late_ones_are_no_jitter() -> None:
    stats = ReceptionStats(90_000)
    sequence = 0
    for frame in range(20):
        for part in range(5):
            stats.receive(packet(sequence, frame * 3000), frame / 30 + part * 0.003)
            sequence += 1
        stats.receive(packet(sequence - 20, (frame - 4) * 3000 & 0xFFFFFFFF), frame / 30 + 0.02)
    assert stats.jitter_ms == pytest.approx(0.0, abs=0.01)


def test_a_stray_number_changes_nothing_and_a_restart_is_followed() -> None:
    stats = ReceptionStats(48_000)
    for sequence in (10, 11, 40_000, 12):
        stats.receive(packet(sequence), 0.0)
    assert (stats.received, stats.lost) == (3, 0)
    for sequence in (40_000, 40_001, 40_002):
        stats.receive(packet(sequence), 0.0)
    assert (stats.received, stats.lost) == (2, 0)
    assert stats.report_block(0.0).highest_sequence == 40_002


def test_a_new_source_counts_from_its_first_packet() -> None:
    stats = ReceptionStats(48_000)
    stats.receive(packet(10), 0.0)
    stats.receive(packet(500, ssrc=8), 0.0)
    assert (stats.received, stats.lost) == (1, 0)
    assert stats.report_block(0.0).ssrc == 8


def test_sender_reports_give_round_trips_and_a_common_clock() -> None:
    stats = ReceptionStats(48_000)
    assert stats.sender_time(0) is None
    stats.receive(packet(1), 0.0)
    ntp = (3_900_000_000 << 32) | 0x80000000
    stats.sender_report(SenderReport(8, 1 << 32, 0, 0, 0), 9.0)  # of another source
    stats.sender_report(SenderReport(7, ntp, 2**32 - 48_000, 0, 0), 10.0)
    block = stats.report_block(10.25)
    assert block.last_sr == ntp >> 16 & 0xFFFFFFFF
    assert block.delay_since_last_sr == 16_384
    assert stats.sender_time(2**32 - 48_000) == 3_900_000_000.5
    assert stats.sender_time(48_000) == pytest.approx(3_900_000_002.5)


def test_nothing_received_is_a_report_of_nothing() -> None:
    assert ReceptionStats(48_000).report_block(1.0).packets_lost == 0
