"""What a publisher is told, by the clock of the test."""

from __future__ import annotations

from mixer.rtp.rtcp import (
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    SenderReport,
    SourceDescription,
    TemporaryMaxBitrateRequest,
    parse_rtcp,
    write_rtcp,
)
from mixer.rtp.twcc import TransportFeedback
from mixer.video.demand import FULL, TRICKLE_BPS, UNSEEN, Demand
from mixer.webrtc.answer import TRANSPORT_CC
from mixer.webrtc.feedback import (
    ARRIVALS_BUSY_S,
    ARRIVALS_S,
    PACKET_OVERHEAD,
    REPORT_S,
    SIMULCAST_FACTOR,
    SOUND_BPS,
    Feedback,
)
from mixer.webrtc.incoming import Router
from tests.mixer.webrtc.test_incoming import (
    DELTA,
    KEYFRAME,
    keyframe,
    packet,
    router,
)
from tests.mixer.webrtc.test_offer import MID, SIMULCAST

VP8 = "video 96|a=sendonly|a=rtpmap:96 VP8/90000"
ALL = "|a=rtcp-fb:96 nack|a=rtcp-fb:96 nack pli|a=rtcp-fb:96 ccm fir|a=rtcp-fb:* goog-remb"


def feedback(section: str) -> tuple[Feedback, Router]:
    routes = router(section)
    return Feedback(routes, ssrc=9, cname="us"), routes


def receive(routes: Router, *sequences: int, now: float = 0.0) -> None:
    for sequence in sequences:
        coded = KEYFRAME if sequence == 1 else b"\x11" + bytes(20)
        routed = routes.route(packet(5, sequence=sequence, coded=coded), now)
        assert routed is not None
        routed[0].stats.receive(routed[1], now)
        routed[0].frames(routed[1], now)


def test_a_gap_is_asked_for_again_and_again_and_then_a_keyframe() -> None:
    tell, routes = feedback(VP8 + ALL)
    receive(routes, 1, 2, 4)
    told = [tell.urgent(tick * 0.02, 0.05) for tick in range(20)]
    nacks = [p for packets in told for p in packets if isinstance(p, Nack)]
    assert {(p.media_ssrc, p.lost) for p in nacks} == {(5, (3,))}
    assert (
        len(nacks) == 19
    )  # five times, 12 ms apart, and from the next round trip on again: nearly each poll
    keyframes = [tick for tick, packets in enumerate(told) if PictureLossIndication(9, 5) in packets]
    assert len(keyframes) == 1
    assert keyframes[0] > 10  # 0.2 s: a repeat had its chance


def test_who_repeats_nothing_is_not_asked() -> None:
    tell, routes = feedback(VP8 + "|a=rtcp-fb:96 nack pli")
    receive(routes, 1, 2, 4)
    told = [p for tick in range(40) for p in tell.urgent(tick * 0.02, 0.05)]
    assert told
    assert {type(p) for p in told} == {PictureLossIndication}


def test_fir_for_who_knows_only_that_with_counting_commands() -> None:
    tell, routes = feedback(VP8 + "|a=rtcp-fb:96 ccm fir")
    assert tell.keyframe(screen=False, now=0.0) == []  # nobody there yet; kept for later
    receive(routes, 1)
    told = [tell.keyframe(screen=False, now=now) for now in (1.0, 1.1, 2.0)]
    assert told == [[FullIntraRequest(9, ((5, 1),))], [], [FullIntraRequest(9, ((5, 2),))]]


def test_reports_come_each_second_and_at_once_for_a_new_source() -> None:
    tell, routes = feedback(VP8 + ALL)
    tell.schedule(10.5)
    assert not tell.report_due(10.45)
    receive(routes, 1, now=10.46)
    assert tell.report_due(10.47)
    assert not tell.report_due(10.47 + REPORT_S / 2)
    assert tell.report_due(10.47 + REPORT_S)


def test_a_report_is_one_compound_that_others_can_read() -> None:
    tell, routes = feedback(VP8 + ALL)
    receive(routes, 1, 2)
    ours = SenderReport(77, 1 << 40, 5, 1, 1)
    read = parse_rtcp(write_rtcp(tell.report([ours], 1.0)))
    assert [type(p) for p in read] == [
        SenderReport, ReceiverReport, SourceDescription, SourceDescription, ReceiverEstimatedMaxBitrate,
    ]  # fmt: skip
    assert isinstance(read[1], ReceiverReport)
    assert [block.ssrc for block in read[1].reports] == [5]
    quiet, _ = feedback(VP8 + ALL)
    assert [type(p) for p in quiet.report([], 1.0)] == [ReceiverReport, SourceDescription]


def test_the_limit_is_open_at_first_and_never_shuts() -> None:
    tell, routes = feedback(VP8 + ALL)
    assert tell.limits() == []
    receive(routes, 1)
    assert tell.limits() == [ReceiverEstimatedMaxBitrate(FULL.bitrate_bps, (5,), 9)]
    tell.ask(UNSEEN, screen=False, now=0.0)
    assert tell.limits() == [ReceiverEstimatedMaxBitrate(TRICKLE_BPS, (5,), 9)]
    tell.ask(Demand(2, 2, 1, 0), screen=False, now=0.0)
    assert tell.limits() == [ReceiverEstimatedMaxBitrate(TRICKLE_BPS, (5,), 9)]
    without, unlimited = feedback(VP8)
    receive(unlimited, 1)
    assert without.limits() == []


def test_remb_covers_sound_camera_and_screen_together() -> None:
    routes = router("audio 111|a=sendonly|a=rtpmap:111 opus/48000/2", *(VP8 + ALL + "|" + MID,) * 2)
    tell = Feedback(routes, ssrc=9, cname="us")
    tell.ask(Demand(426, 240, 30, 380_000), screen=False, now=0.0)
    tell.ask(Demand(1280, 720, 30, 2_500_000), screen=True, now=0.0)
    routes.route(packet(5, mid="1"), 0.0)
    assert tell.limits() == [ReceiverEstimatedMaxBitrate(380_000 + SOUND_BPS, (5,), 9)]
    routes.route(packet(6, mid="2"), 0.0)
    assert tell.limits() == [ReceiverEstimatedMaxBitrate(2_880_000 + SOUND_BPS, (5, 6), 9)]
    assert tell.asked_bps == 2_880_000


def test_tmmbr_for_each_source_of_who_offers_it() -> None:
    tell, routes = feedback(VP8 + "|a=rtcp-fb:96 ccm tmmbr")
    receive(routes, 1)
    tell.ask(Demand(426, 240, 30, 380_928), screen=False, now=0.0)
    wanted = TemporaryMaxBitrateRequest(9, ((5, 380_928, PACKET_OVERHEAD),))
    assert tell.limits() == [wanted]
    assert wanted in parse_rtcp(write_rtcp(tell.report([], 1.0)))


def test_what_is_received_is_measured_between_reports() -> None:
    tell, routes = feedback(VP8 + ALL)
    tell.report([], 10.0)
    for sequence in range(1, 31):
        routes.route(packet(5, sequence=sequence, coded=b"\x11" + bytes(995)), 10.0 + sequence / 30)
    tell.report([], 11.0)
    assert abs(tell.received_bps - 30 * 1000 * 8) < 1500
    tell.report([], 12.0)
    assert tell.received_bps == 0


def test_layers_that_nobody_looks_at_are_not_repaired() -> None:
    routes = router(SIMULCAST)
    tell = Feedback(routes, ssrc=9, cname="us")
    tell.ask(Demand(320, 180, 30, 250_000), screen=False, now=0.0)
    for rid, ssrc, height in (("q", 1, 180), ("f", 3, 720)):
        for sequence in (1, 2, 4):
            coded = keyframe(height) if sequence == 1 else DELTA
            routed = routes.route(packet(ssrc, sequence=sequence, mid="0", rid=rid, coded=coded), 0.0)
            assert routed is not None
            tell.layers(routed[0]).pass_on(routed[0], routed[0].frames(routed[1], 0.0), 0.0)
    told = [p for tick in range(20) for p in tell.urgent(tick * 0.02, 0.05)]
    assert {p.media_ssrc for p in told if isinstance(p, Nack | PictureLossIndication)} == {1}
    assert tell.asked_bps == round(250_000 * SIMULCAST_FACTOR)
    assert tell.keyframe(screen=False, now=9.0) == [PictureLossIndication(9, 1)]


NUMBERED = f"{VP8}|a=extmap:6 {TRANSPORT_CC}|a=rtcp-fb:96 transport-cc"


def test_arrivals_are_told_ten_times_a_second_and_less_often_on_a_narrow_line() -> None:
    tell, routes = feedback(NUMBERED + "|a=rtcp-rsize")
    told: list[tuple[float, TransportFeedback]] = []
    for tick in range(100):
        now = tick * 0.02
        numbered = packet(5, sequence=tick + 1)
        numbered.extensions[6] = (65_500 + tick & 0xFFFF).to_bytes(2, "big")
        tell.arrived(numbered, now)
        routes.route(numbered, now)
        for packets in tell.transport(now, busy=tick >= 50):
            (report,) = packets  # reduced size (RFC 5506)
            assert isinstance(report, TransportFeedback)
            told.append((now, report))
    assert {report.media_ssrc for _, report in told} == {5}
    assert sum(len(report.deltas) for _, report in told) >= 90
    assert all(None not in report.deltas for _, report in told)
    quick = [at for at, _ in told if at < 1.0]
    assert 1.0 / ARRIVALS_S / 1.5 <= len(quick) <= 1.0 / ARRIVALS_S + 1
    assert len(told) - len(quick) <= 1.0 / ARRIVALS_BUSY_S + 1


def test_arrivals_are_nobody_s_business_unless_agreed_and_malformed_numbers_are_none() -> None:
    for section in (VP8, f"{VP8}|a=extmap:6 {TRANSPORT_CC}"):  # not at all, and without its feedback
        tell, routes = feedback(section)
        numbered = packet(5)
        numbered.extensions[6] = b"\0\1"
        tell.arrived(numbered, 0.0)
        routes.route(numbered, 0.0)
        assert tell.transport(1.0, busy=False) == []
    tell, routes = feedback(NUMBERED)
    for number in (b"", b"\0", b"\0\0\0"):
        odd = packet(5)
        odd.extensions[6] = number
        tell.arrived(odd, 0.0)
        routes.route(odd, 0.0)
    assert tell.transport(1.0, busy=False) == []
    good = packet(5)
    good.extensions[6] = b"\0\1"
    tell.arrived(good, 1.0)
    (compound,) = tell.transport(1.0, busy=False)  # not reduced: a whole compound
    assert [type(p) for p in compound] == [ReceiverReport, SourceDescription, TransportFeedback]
