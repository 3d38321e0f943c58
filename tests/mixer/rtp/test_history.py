from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from mixer.errors import MalformedPacket
from mixer.rtp.history import History, unwrap_rtx, wrap_rtx
from mixer.rtp.packet import RtpPacket, parse_rtp, write_rtp
from tests.mixer.rtp.test_packet import PACKETS


def test_the_latest_are_there_and_older_ones_overwritten() -> None:
    history = History(capacity=100)
    for number in range(65_500, 65_700):
        history.add(number & 0xFFFF, b"%d" % number)
    kept = [history.get(number & 0xFFFF) for number in range(65_640, 65_700)]
    assert kept == [b"%d" % number for number in range(65_640, 65_700)]
    assert history.get(65_500) is None
    assert history.get(999) is None
    assert history.missed == 2
    history.clear()
    assert history.get(65_699 & 0xFFFF) is None
    with pytest.raises(ValueError, match="at least one"):
        History(capacity=0)


@given(PACKETS)
def test_rtx_carries_the_packet(packet: RtpPacket) -> None:
    wrapped = parse_rtp(wrap_rtx(write_rtp(packet), payload_type=97, ssrc=99, sequence=7))
    assert (wrapped.payload_type, wrapped.ssrc, wrapped.sequence) == (97, 99, 7)
    assert (wrapped.marker, wrapped.timestamp) == (packet.marker, packet.timestamp)
    assert wrapped.payload == packet.sequence.to_bytes(2, "big") + packet.payload
    found = unwrap_rtx(wrapped, payload_type=packet.payload_type, ssrc=packet.ssrc)
    assert found == replace(packet, repaired=True)


def test_rtx_probes_and_rubbish() -> None:
    probe = RtpPacket(97, False, 1, 2, 3, b"")
    assert unwrap_rtx(probe, payload_type=96, ssrc=1) is None
    with pytest.raises(MalformedPacket):
        unwrap_rtx(RtpPacket(97, False, 1, 2, 3, b"x"), payload_type=96, ssrc=1)
