"""Whatever a peer reports, its line has a sane estimate and nothing is raised."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mixer.rtp.line import MAX_BPS, MIN_BPS
from mixer.rtp.rtcp import ReportBlock
from mixer.rtp.twcc import TransportFeedback
from mixer.webrtc.downlink import Downlink, TimedLine
from mixer.webrtc.echoed_line import EchoedLine

DELTA = st.one_of(st.none(), st.integers(0, 255), st.integers(-(2**15), 2**15 - 1))
REPORTS = st.one_of(
    st.builds(
        TransportFeedback,
        st.just(1),
        st.just(2),
        st.integers(0, 80),
        st.integers(-(2**23), 2**23 - 1),
        st.integers(0, 255),
        st.lists(DELTA, min_size=1, max_size=60).map(tuple),
    ),
    st.builds(ReportBlock, st.just(22), *[st.integers(0, 255)] * 6),
    st.integers(0, 2**80),  # REMB
    st.just("answer"),
)


@given(st.booleans(), st.lists(st.tuples(REPORTS, st.floats(0, 2.0)), max_size=40))
def test_reports_of_strangers(
    numbered: bool, told: list[tuple[TransportFeedback | ReportBlock | int | str, float]]
) -> None:
    downlink: Downlink = TimedLine(pads=True) if numbered else EchoedLine(pads=True, calls=True)
    now, calls = 0.0, 0
    downlink.seek(1_000_000)
    for report, pause_s in told:
        now += pause_s
        burst = downlink.begin_burst(now)
        for _ in range(5):
            downlink.depart(1000, now, burst)
        downlink.end_burst(burst, now)
        if downlink.call_due(now):
            calls = downlink.called(now)
        match report:
            case TransportFeedback():
                downlink.feedback(report, None, now)
            case ReportBlock():
                downlink.reported([(report, 5)], 0.05, now)
            case int():
                downlink.remb(report, now)
            case _:
                downlink.answered(calls, now)
        downlink.poll(now)
        if downlink.probing:
            assert sum(downlink.padding(20, now)) < 100_000
        downlink.may_repeat(1000, now)
        pacing_s = downlink.pacing_s(10_000, 10)
        assert pacing_s is None or 0 < pacing_s < 10
        estimate = downlink.state.estimate_bps
        assert estimate is None or MIN_BPS <= estimate <= MAX_BPS
        assert 0 <= downlink.state.loss <= 1


def told(downlink: Downlink, seconds: int, *, lost_share: float = 0.0, begin: int = 0) -> None:
    """A megabit a second leaves, and a report each second says that it came but for ``lost_share``."""
    for second in range(begin, begin + seconds):
        for packet in range(125):
            downlink.depart(1000, second + packet / 125)
        sent = 125 * (second + 1)
        lost = round(lost_share * 125 * (second + 1 - begin))
        report = ReportBlock(22, 0, lost, sent, 0, 0, 0)
        downlink.reported([(report, sent)], 0.02, second + 1.0)


def test_who_is_not_called_gets_large_pictures_at_once_until_something_is_lost() -> None:
    """The estimate is then what is sent, and no limit of the line."""
    fixed, called = (EchoedLine(pads=True, calls=calls) for calls in (False, True))
    for downlink in (fixed, called):
        told(downlink, 5)
        assert downlink.state.estimate_bps is not None
    assert fixed.pacing_s(37_000, 32) is None
    assert called.pacing_s(37_000, 32) is not None
    told(fixed, 10, lost_share=0.6, begin=5)
    assert fixed.pacing_s(37_000, 32) is not None, "now it is known to be full"
