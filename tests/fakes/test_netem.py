"""The bad line itself: its narrow link. (Loss, order and delay are held by the tests that use it.)"""

from __future__ import annotations

import pytest

from tests.fakes.netem import HEADERS_BYTES, Netem

RATE_BPS = 80_000  # 10 bytes a millisecond
PACKET = bytes(100 - HEADERS_BYTES)  # 10 ms of it


def test_a_narrow_link_sends_one_after_another() -> None:
    line: Netem[bytes] = Netem(seed=1, delay_s=0.05, rate_bps=RATE_BPS)
    for _ in range(3):
        line.send(PACKET, 1.0)
    assert line.next_arrival == pytest.approx(1.01)
    assert line.receive(1.01) == []  # the first has left, and is 50 ms under way
    assert line.next_arrival == pytest.approx(1.02)
    assert [len(line.receive(at)) for at in (1.059, 1.0601, 1.0701, 1.0801)] == [0, 1, 1, 1]
    assert line.next_arrival is None


def test_what_finds_no_room_is_lost_and_counted() -> None:
    line: Netem[bytes] = Netem(seed=1, rate_bps=RATE_BPS, queue_bytes=300)
    for _ in range(5):
        line.send(PACKET, 0.0)
    assert (line.queued_bytes, line.lost, line.overflowed) == (300, 2, 2)
    assert len(line.receive(10.0)) == 3
    assert line.queued_bytes == 0


def test_a_packet_longer_than_the_queue_still_passes_an_empty_one() -> None:
    line: Netem[bytes] = Netem(seed=1, rate_bps=RATE_BPS, queue_bytes=50)
    line.send(PACKET, 0.0)
    assert line.receive(0.011) == [PACKET]


def test_a_new_rate_holds_at_once_and_keeps_the_order() -> None:
    line: Netem[bytes] = Netem(seed=1, rate_bps=RATE_BPS)
    for number in range(10):
        line.send(PACKET + bytes([number]), 0.0)
    assert len(line.receive(0.05)) == 4
    line.rate_bps = RATE_BPS * 100
    assert [packet[-1] for packet in line.receive(0.052)] == list(range(4, 10))
    line.rate_bps = None
    line.send(PACKET, 0.06)
    assert line.receive(0.06) == [PACKET]


@pytest.mark.parametrize("rate_bps", [150_000, 500_000, 3_000_000])
def test_the_rate_is_kept(rate_bps: int) -> None:
    line: Netem[bytes] = Netem(seed=3, rate_bps=rate_bps, queue_bytes=20_000)
    arrived = 0
    for tick in range(10_000):  # 10 s; offered is half as much again
        now = tick / 1000
        if tick * rate_bps * 1.5 // 8_000_000 > (tick - 1) * rate_bps * 1.5 // 8_000_000:
            line.send(bytes(1000 - HEADERS_BYTES), now)
        arrived += sum(len(packet) + HEADERS_BYTES for packet in line.receive(now))
    assert arrived * 8 / 10 == pytest.approx(rate_bps, rel=0.03)
    assert line.overflowed > 0
