"""When packets left, and the bounds of the estimate; whole lines are in `tests.mixer.webrtc.test_uplink`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.rtp.line import MIN_BPS
from mixer.rtp.packet import RtpPacket
from mixer.rtp.sendtimes import MAX_SOURCES, SendTimes
from mixer.rtp.uplink import MAX_WAITING, UplinkEstimator


def packet(ssrc: int = 5, *, timestamp: int = 0, stamp: bytes | None = None, sequence: int = 1) -> RtpPacket:
    extensions = {} if stamp is None else {3: stamp}
    return RtpPacket(96, False, sequence, timestamp & 0xFFFFFFFF, ssrc, bytes(1000), (), extensions)


def stamped(seconds: float) -> RtpPacket:
    return packet(stamp=(round(seconds * 2**18) & 0xFFFFFF).to_bytes(3, "big"))


def test_stamps_go_on_when_they_wrap_after_64_seconds() -> None:
    times = SendTimes(3)
    told = [times.sent_at(stamped(60.0 + step), 0.0, picture=True) for step in range(0, 70, 10)]
    assert told == pytest.approx([60.0 + step for step in range(0, 70, 10)])


def test_who_says_nothing_was_under_way_as_long_as_the_last() -> None:
    times = SendTimes(3)
    assert times.sent_at(packet(), 9.0, picture=True) is None
    assert times.sent_at(stamped(5.0), 10.0, picture=True) == 5.0
    for malformed in (None, b"", b"\0", b"\0\0\0\0"):
        assert times.sent_at(packet(stamp=malformed), 10.5, picture=True) == 5.5


def test_without_stamps_the_first_packet_of_a_picture_tells() -> None:
    times = SendTimes(None)
    assert not times.exact
    assert times.sent_at(packet(timestamp=-1500), 10.0, picture=True) == 10.0
    assert times.sent_at(packet(timestamp=1500), 10.05, picture=True) == pytest.approx(10.0 + 3000 / 90_000)
    late = 10.05 - 10.0 - 3000 / 90_000
    for same in (1500, -1500):  # the rest of it, and one that was overtaken
        assert times.sent_at(packet(timestamp=same), 10.2, picture=True) == pytest.approx(10.2 - late)
    assert times.sent_at(packet(7, timestamp=99), 10.3, picture=False) == pytest.approx(10.3 - late)
    # another camera's clock is laid beside it
    assert times.sent_at(packet(6, timestamp=1 << 31), 10.4, picture=True) == pytest.approx(10.4 - late)


def test_clocks_are_bounded() -> None:
    times = SendTimes(None)
    for ssrc in range(10 * MAX_SOURCES):
        assert times.sent_at(packet(ssrc), 1.0, picture=True) == 1.0
    assert len(times._clocks) <= MAX_SOURCES


def test_what_waits_is_bounded_and_counted() -> None:
    uplink = UplinkEstimator(3)
    for number in range(MAX_WAITING + 10):
        uplink.arrived(stamped(number / 1e4), 1000, number / 1e4, picture=True)
    assert uplink.dropped == 10
    uplink.judge(MAX_WAITING, 0, 1.0)
    assert not uplink.due(2.0)


@given(
    st.lists(
        st.tuples(st.binary(max_size=4), st.floats(0, 0.5), st.integers(-50, 50), st.booleans()), max_size=60
    )
)
def test_whatever_strangers_stamp_the_estimate_stays_within_bounds(
    rows: list[tuple[bytes, float, int, bool]],
) -> None:
    for stamp_id in (3, None):
        uplink, now = UplinkEstimator(stamp_id), 0.0
        for stamp, step, lost, picture in rows:
            now += step
            uplink.arrived(
                packet(timestamp=int.from_bytes(stamp, "big"), stamp=stamp), 1000, now, picture=picture
            )
            if uplink.due(now):
                uplink.judge(1, lost, now)
        assert uplink.bps is None or uplink.bps >= MIN_BPS
