"""A sender that knows REMB alone, on lines as people have them: minutes of simulated time, all of what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from mixer.rtp.packet import RtpPacket
from mixer.rtp.rtcp import ReceiverEstimatedMaxBitrate, TemporaryMaxBitrateRequest
from mixer.video.demand import FULL, TRICKLE_BPS, UNSEEN
from mixer.webrtc.answer import TRANSPORT_CC
from mixer.webrtc.feedback import PACKET_OVERHEAD, SOUND_BPS, Feedback
from mixer.webrtc.outgoing import abs_send_time
from tests.fakes.remb_sender import CAMERA, FULL_BPS, OFFER, STAMP_ID, STAMPED, RembSender
from tests.mixer.webrtc.test_incoming import router
from tests.shaper import bursts

CAP_S, LIFT_S, END_S = 20.0, 60.0, 80.0
ROUTER_S = 0.85  # of queue: a home router's buffer


def sender(*, stamped: bool = True, **options: Any) -> RembSender:
    offer = (row + STAMPED if stamped else row for row in OFFER)
    return RembSender(router(*offer), stamped=stamped, **{"seed": 1, "delay_s": 0.05, **options})


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("cap_bps", [150_000, 500_000])
@pytest.mark.parametrize("stamped", [True, False])
def test_a_line_that_narrows_is_used_and_not_drowned_and_its_end_is_found(
    stamped: bool, cap_bps: int, seed: int
) -> None:
    call = sender(stamped=stamped, seed=seed)
    call.run(CAP_S)
    assert call.least_told(2.0, CAP_S) == FULL_BPS
    call.line.rate_bps, call.line.queue_bytes = cap_bps, round(ROUTER_S * cap_bps / 8)
    call.run(LIFT_S - CAP_S)
    call.line.rate_bps = None
    call.run(END_S - LIFT_S)
    # what it was sending fills the buffer before anybody can know
    queues = call.queues_s(CAP_S + 10.0, LIFT_S)
    assert queues[len(queues) // 2] < 0.06  # it does not stand
    assert queues[int(0.9 * len(queues))] < 0.45
    assert call.arrived_bps(CAP_S + 10.0, LIFT_S) > 0.7 * cap_bps
    assert call.longest_pause_s(CAP_S, LIFT_S) < 0.5
    back_s = call.told_after_s(0.9 * FULL_BPS, LIFT_S)
    assert back_s is not None
    assert back_s < 15.0


@pytest.mark.parametrize("stamped", [True, False])
def test_who_takes_the_limit_for_pictures_alone_is_told_less_than_its_line_carries(stamped: bool) -> None:
    call = sender(stamped=stamped, greedy=True)
    call.run(CAP_S)
    call.line.rate_bps, call.line.queue_bytes = 500_000, round(ROUTER_S * 500_000 / 8)
    call.run(LIFT_S - CAP_S)
    queues = call.queues_s(CAP_S + 10.0, LIFT_S)
    assert queues[len(queues) // 2] < 0.1
    assert call.arrived_bps(CAP_S + 10.0, LIFT_S) > 0.8 * 500_000


LINES = {
    "clean": {},
    "2 %": {"loss": 0.02},
    "5 %": {"loss": 0.05},
    "10 %": {"loss": 0.10},
    "2 % in bursts": {"burst": bursts(0.02)},
    "5 % in bursts": {"burst": bursts(0.05)},
    "10 % in bursts": {"burst": bursts(0.10)},
    "jitter of 20 ms": {"jitter_s": 0.02},
    "jitter of 100 ms": {"jitter_s": 0.1},
    "jitter and loss": {"jitter_s": 0.05, "loss": 0.1},
    "reordering": {"reorder": 0.05},
}


@pytest.mark.parametrize("most_bps", [2.5e6, 300_000])  # a camera that sends what it may, one that can't
@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_not_full_lowers_nothing(line: str, stamped: bool, most_bps: float) -> None:
    call = sender(stamped=stamped, most_bps=most_bps, seed=3, **LINES[line])
    seconds = 60.0 if LINES[line] else 240.0
    call.run(seconds)
    assert call.least_told(2.0, seconds) == FULL_BPS


def test_a_policer_without_a_queue_is_found_by_its_losses() -> None:
    call = sender()
    call.run(5.0)
    call.line.rate_bps, call.line.queue_bytes = 300_000, 3000
    call.run(25.0)
    assert call.arrived_bps(15.0, 30.0) > 100_000
    told = sorted(sample.told_bps for sample in call.between(10.0, 30.0))
    assert told[len(told) // 2] < 500_000  # it is tried again each eight seconds, and sure in two


def test_a_longer_way_is_no_queue() -> None:
    call = sender()
    call.run(20.0)
    call.line.delay_s = 0.15
    call.run(60.0)
    assert call.least_told(2.0, 80.0) == FULL_BPS
    call.line.rate_bps, call.line.queue_bytes = 500_000, 50_000
    call.run(10.0)
    call.line.rate_bps, call.line.delay_s = None, 0.4  # and with an estimate: it may cost some seconds
    call.run(40.0)
    assert call.told_after_s(0.9 * FULL_BPS, 91.0) is not None


def full_line(
    tell: Feedback, *, ssrc: int, stamp_id: int | None, seconds: float, bps: float = 100_000
) -> None:
    """Packets of a camera that sends 1 Mbit/s through ``bps``."""
    size = 1000
    wire_bits = (size + PACKET_OVERHEAD) * 8
    for number in range(int(seconds * bps / wire_bits)):
        sent_at, now = number * wire_bits / 1e6, 10.0 + number * wire_bits / bps
        extensions = {} if stamp_id is None else {stamp_id: abs_send_time(sent_at).to_bytes(3, "big")}
        packet = RtpPacket(96, False, number, round(sent_at * 90_000), ssrc, b"\x90" * size, (), extensions)
        if tell.notes_arrivals:
            tell.arrived(packet, now)
        tell.urgent(now, 0.1)


def test_tmmbr_is_lowered_as_well_and_a_trickle_always_may_come() -> None:
    section = OFFER[1].replace("goog-remb", "ccm tmmbr") + STAMPED
    routes = router(section)
    tell = Feedback(routes, ssrc=9, cname="us")
    routes.route(RtpPacket(96, False, 0, 0, CAMERA, b"\x90" * 50), 9.0)
    full_line(tell, ssrc=CAMERA, stamp_id=STAMP_ID, seconds=5.0)
    (limit,) = tell.limits()
    assert isinstance(limit, TemporaryMaxBitrateRequest)
    ((ssrc, bitrate_bps, _),) = limit.entries
    assert ssrc == CAMERA
    assert TRICKLE_BPS <= bitrate_bps < 110_000
    assert tell.asked_bps == bitrate_bps
    tell.ask(UNSEEN, screen=False, now=20.0)
    assert tell.asked_bps == TRICKLE_BPS


def test_less_is_told_at_once_and_not_at_the_next_report() -> None:
    call = sender()
    call.run(CAP_S)
    before = len(call.told)
    call.line.rate_bps, call.line.queue_bytes = 150_000, 16_000
    call.run(1.0)
    lowered = [bps for bps in call.told[before:] if bps < FULL_BPS / 2]
    assert lowered
    assert call.least_told(CAP_S, CAP_S + 1.0) < FULL_BPS / 2


def test_who_is_told_of_arrivals_looks_after_its_own_line() -> None:
    numbered = f"|a=extmap:6 {TRANSPORT_CC}|a=rtcp-fb:96 transport-cc"
    routes = router(OFFER[1] + STAMPED + numbered)
    tell = Feedback(routes, ssrc=9, cname="us")
    routes.route(RtpPacket(96, False, 0, 0, CAMERA, b"\x90" * 50), 9.0)
    full_line(tell, ssrc=CAMERA, stamp_id=STAMP_ID, seconds=5.0)
    assert tell.asked_bps == FULL.bitrate_bps


def test_who_can_t_be_told_costs_nothing() -> None:
    routes = router("video 96|a=sendonly|a=rtpmap:96 VP8/90000|a=rtcp-fb:96 nack")
    assert not Feedback(routes, ssrc=9, cname="us").notes_arrivals


def test_sound_s_share_is_left_when_pictures_are_limited() -> None:
    call = sender()
    call.run(CAP_S)
    call.line.rate_bps, call.line.queue_bytes = 500_000, 50_000
    call.run(20.0)
    (limit,) = call.feedback.limits()
    assert isinstance(limit, ReceiverEstimatedMaxBitrate)
    assert limit.bitrate_bps < 800_000
    assert limit.bitrate_bps - call.feedback.asked_bps == pytest.approx(SOUND_BPS, abs=1)
