"""Arrivals on one side, departures on the other, and the report between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.rtp.arrivals import ArrivalLog
from mixer.rtp.departures import MAX_IN_FLIGHT, Departures
from mixer.rtp.rtcp import parse_rtcp, write_rtcp
from mixer.rtp.twcc import MAX_PACKETS, TICK_S, TransportFeedback
from tests.fakes.netem import Burst, Netem


def reports(log: ArrivalLog, now: float) -> list[TransportFeedback]:
    """As they come out of the wire."""
    read = parse_rtcp(write_rtcp(log.report(sender_ssrc=1, media_ssrc=2, now=now))) if log.waiting else []
    return [packet for packet in read if isinstance(packet, TransportFeedback)]


@pytest.mark.parametrize("seed", range(5))
def test_every_packet_is_settled_once_as_it_really_went(seed: int) -> None:
    line: Netem[int] = Netem(
        seed=seed,
        delay_s=0.05,
        jitter_s=0.02,
        loss=0.05,
        burst=Burst(0.01, 0.3),
        reorder=0.05,
        duplicate=0.02,
    )
    departures, log = Departures(), ArrivalLog()
    departures._next = 65_000  # wraps soon
    came: dict[int, float] = {}
    arrived: dict[int, float] = {}
    lost: set[int] = set()
    sent: dict[int, float] = {}
    for tick in range(4000):
        now = 1000.0 + tick * 0.005  # any clock
        if tick < 3900:
            sequence = departures.depart(100, now)
            sent[65_000 + tick] = now
            assert sequence == (65_000 + tick) & 0xFFFF
            line.send(65_000 + tick, now)
        for number in line.receive(now):
            log.record(number & 0xFFFF, now)
            came.setdefault(number, now)
        if tick % 20 == 19:
            for feedback in reports(log, now):
                outcome = departures.resolve(feedback)
                for departure in outcome.arrived:
                    assert departure.number not in arrived
                    assert departure.arrived_at is not None
                    arrived[departure.number] = departure.arrived_at
                    assert departure.sent_at == sent[departure.number]
                lost |= {departure.number for departure in outcome.lost}
    assert arrived.keys() == came.keys()
    shift = {round(arrived[number] - came[number], 3) for number in came}
    assert max(shift) - min(shift) <= 2 * TICK_S
    assert lost - arrived.keys() <= sent.keys() - came.keys()  # what was called lost and did not come late
    assert len((sent.keys() - came.keys()) - lost) <= 3  # the very last ones nobody can know of


def test_silence_in_between_makes_two_reports() -> None:
    log = ArrivalLog()
    log.record(1, 5.0)
    log.record(2, 20.0)
    assert [r.deltas for r in reports(log, 20.0)] == [(32,), (128,)]
    assert not log.waiting
    assert log.report(sender_ssrc=1, media_ssrc=2, now=21.0) == []


def test_what_is_overtaken_corrects_the_report_before() -> None:
    departures, log = Departures(), ArrivalLog()
    numbers = [departures.depart(50, 0.0) for _ in range(3)]
    for number in (numbers[0], numbers[2]):
        log.record(number, 0.1)
    (first,) = (departures.resolve(r) for r in reports(log, 0.1))
    assert ([d.number for d in first.arrived], [d.number for d in first.lost]) == ([0, 2], [1])
    log.record(numbers[1], 0.15)
    (second,) = (departures.resolve(r) for r in reports(log, 0.2))
    assert [(d.number, d.reported_lost) for d in second.arrived] == [(1, True)]
    assert second.lost == []


def test_memory_is_bounded_on_both_sides() -> None:
    departures, log = Departures(), ArrivalLog()
    for _ in range(3 * MAX_IN_FLIGHT):
        departures.depart(100, 0.0)
    assert len(departures) == MAX_IN_FLIGHT
    assert departures.forgotten == 2 * MAX_IN_FLIGHT
    for number in range(3 * MAX_PACKETS):
        log.record(number, number * 0.001)
    assert log.dropped == 2 * MAX_PACKETS
    assert sum(len(report.deltas) for report in reports(log, 4.0)) == MAX_PACKETS
    log.record(30_000, 5.0)  # a sender that started again: no report about 26,000 lost packets
    assert [len(r.deltas) for r in reports(log, 5.0)] == [1]


PATH_BYTES = 1200  # what is taken to fit every path, before anybody has measured it (RFC 8831 section 5)


@pytest.mark.parametrize(
    "arrivals",
    [
        [(number, number * 0.070) for number in range(1024)],  # no small delta among them
        [(899 - number, number * 0.0001) for number in range(900)],
        [(number ^ 1, number * 0.0001) for number in range(1000)],  # pairs that overtook one another
        [(number * 2, number * 0.070) for number in range(512)],  # each second one lost
        [(0, 0.0), *((1000 + number, 9.0 + number * 0.0001) for number in range(24))],
    ],
)
def test_a_report_fits_every_path(arrivals: list[tuple[int, float]]) -> None:
    log = ArrivalLog()
    for number, at in arrivals:
        log.record(number, at)
    found = reports(log, arrivals[-1][1])
    assert all(len(write_rtcp([report])) <= PATH_BYTES for report in found)
    told = [
        (report.base_sequence + place) & 0xFFFF
        for report in found
        for place, delta in enumerate(report.deltas)
        if delta is not None
    ]
    assert told == sorted(number for number, _ in arrivals)


@given(st.lists(st.tuples(st.integers(0, 65_535), st.floats(0, 30)), max_size=60))
def test_any_order_of_any_numbers_can_be_reported(packets: list[tuple[int, float]]) -> None:
    log, now = ArrivalLog(), 0.0
    for index, (sequence, at) in enumerate(packets):
        now = max(now, at)
        log.record(sequence, at)
        if index % 7 == 6:
            reports(log, now)
    reports(log, now)


@given(st.binary(min_size=8, max_size=60))
def test_reports_of_strangers_settle_nothing_twice(body: bytes) -> None:
    from mixer.errors import MalformedPacket
    from mixer.rtp.twcc import read_feedback

    departures = Departures()
    for _ in range(50):
        departures.depart(10, 0.0)
    try:
        feedback = read_feedback(1, 2, body)
    except MalformedPacket:
        return
    first, second = departures.resolve(feedback), departures.resolve(feedback)
    assert not second.arrived
    assert not second.lost
    assert len(departures) == 50 - len(first.arrived)
