"""What of a sound is asked for: found by the next packet, and by the clock on a line that loses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mixer.rtp.gaps import GIVE_UP_S, LOSSY_S, MAX_FORESEEN, MAX_MISSING, SoundGaps
from mixer.rtp.packet import RtpPacket

STEP_S = 0.02


def packet(number: int, *, payload: bytes = b"sound", ssrc: int = 1, stamp: int | None = None) -> RtpPacket:
    timestamp = number * 960 if stamp is None else stamp
    return RtpPacket(111, False, number & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc, payload)


def on_a_lossy_line(*, foresees: bool = True) -> SoundGaps:
    """Packets 0 to 9 came on time but for number 4, which was repeated; the round trip is 100 ms."""
    gaps = SoundGaps(48_000, foresees=foresees)
    gaps.set_rtt(0.1)
    for number in range(10):
        if number != 4:
            gaps.take(packet(number), number * STEP_S)
            gaps.due(number * STEP_S)
    assert gaps.take(packet(4), 0.21), "it came because it was asked for"
    assert gaps.recovered == 1
    return gaps


def test_a_gap_is_asked_for_when_the_next_packet_shows_it() -> None:
    gaps = SoundGaps(48_000, foresees=False)
    assert not gaps.take(packet(0xFFFE), 0.0)
    assert not gaps.waits(0.0)
    assert not gaps.take(packet(0x10001), 0.06)
    assert gaps.waits(0.06)
    assert gaps.due(0.06) == [0xFFFF, 0]
    assert gaps.take(packet(0xFFFF), 0.16)
    assert gaps.take(packet(0x10000), 0.16)
    assert gaps.due(0.3) == []


def test_what_came_inside_another_packet_is_not_asked_for() -> None:
    gaps = SoundGaps(48_000)
    gaps.take(packet(1), 0.0)
    gaps.take(packet(4), 0.06)
    gaps.found(packet(3), 0.06)
    assert gaps.due(0.06) == [2]


def test_on_a_line_that_loses_the_clock_tells_before_the_next_packet() -> None:
    gaps = on_a_lossy_line()
    assert gaps.due(0.205) == [], "packet 10 is a little late"
    assert gaps.due(0.22) == [10]
    assert gaps.due(0.24) == [10, 11], "asked for twice; and its successor is due as well"
    assert gaps.take(packet(11), 0.32)
    assert gaps.take(packet(10), 0.32)
    silence = [number for now in range(33, 100) for number in gaps.due(now / 100)]
    assert max(silence) <= 9 + MAX_FORESEEN, "a line that is gone, or a sender that stopped"


def test_browsers_wait_for_the_next_packet() -> None:
    gaps = on_a_lossy_line(foresees=False)
    assert [number for now in range(20, 100) for number in gaps.due(now / 100)] == []


def test_a_pause_is_no_loss() -> None:
    gaps = on_a_lossy_line()
    gaps.take(packet(10, payload=b"\x08"), 0.2)  # DTX
    assert [number for now in range(20, 60) for number in gaps.due(now / 100)] == []
    gaps.take(packet(11, stamp=10 * 960 + 19_200), 0.6)  # 400 ms later, as libopus does
    assert [number for now in range(60, 90) for number in gaps.due(now / 100)] == []


def test_a_line_that_lost_long_ago_counts_as_good() -> None:
    gaps = on_a_lossy_line()
    for number in range(10, 10 + round((LOSSY_S + 1) / STEP_S)):
        gaps.take(packet(number), number * STEP_S)
    now = number * STEP_S
    assert not gaps.waits(now)
    assert gaps.due(now + 0.1) == []


def test_nobody_asks_for_ever_or_for_too_many() -> None:
    gaps = SoundGaps(48_000, foresees=False)
    gaps.take(packet(1), 0.0)
    gaps.take(packet(3), 0.04)
    asked = [now for now in range(200) if gaps.due(0.04 + now / 100)]
    assert max(asked) / 100 <= GIVE_UP_S
    gaps.take(packet(4 + MAX_MISSING + 1), 1.0)
    assert gaps.due(1.0) == [], "half a second is gone: nobody plays that any more"


def test_another_source_starts_afresh() -> None:
    gaps = on_a_lossy_line()
    gaps.take(packet(500, ssrc=2), 0.2)
    assert gaps.due(0.2) == []
    gaps.take(packet(502, ssrc=2), 0.24)
    assert gaps.due(0.24) == [501]


@given(
    st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1), st.integers(1, 2), st.floats(0, 0.5)),
        max_size=60,
    )
)
def test_whatever_comes_only_few_are_asked_for(stream: list[tuple[int, int, int, float]]) -> None:
    gaps, now = SoundGaps(48_000), 0.0
    for sequence, stamp, ssrc, passed_s in stream:
        now += passed_s
        gaps.take(packet(sequence, ssrc=ssrc, stamp=stamp), now)
        asked = gaps.due(now)
        assert len(asked) == len(set(asked)) <= MAX_MISSING
        assert all(0 <= number <= 0xFFFF for number in asked)
