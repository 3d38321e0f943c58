"""The observer's ear: timing, recovery and concealment over a lossy line."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mixer.audio.opus import OpusEncoder
from mixer.media import FRAME_SAMPLES
from mixer.probe import signal
from mixer.probe.ear import WAIT_S, Ear, carries_fec
from mixer.probe.signal import Identity
from mixer.rtp.packet import RtpPacket

FIRST = 65_500  # numbers wrap on the way


def packets(*, fec: bool, frames: int = 1, bps: int = 32_000, seconds: float = 4.0) -> list[RtpPacket]:
    encoder = OpusEncoder(bps, frames=frames, inband_fec=fec)
    size = frames * FRAME_SAMPLES
    voice = signal.tone(Identity(0)) + signal.speech(Identity(0))
    sound = voice[: int(seconds * 48_000) // size * size].reshape(-1, size)
    return [
        RtpPacket(
            payload_type=111,
            marker=False,
            sequence=(FIRST + number) & 0xFFFF,
            timestamp=(2**32 - 5_000 + number * size) & 0xFFFFFFFF,
            ssrc=1,
            payload=encoder.encode(frame),
        )
        for number, frame in enumerate(sound)
    ]


def test_what_carries_fec_is_seen() -> None:
    # none for the pauses between syllables: libopus spares them
    with_fec = [carries_fec(packet.payload) for packet in packets(fec=True)]
    assert 0.6 * len(with_fec) < sum(with_fec) < 0.9 * len(with_fec)
    assert not any(carries_fec(packet.payload) for packet in packets(fec=False))
    for bps in (14_600, 20_000, 32_000):  # three SILK frames of 20 ms in a packet
        several = [carries_fec(packet.payload) for packet in packets(fec=True, frames=3, bps=bps)]
        assert sum(several) > 0.5 * len(several), bps
        assert not any(carries_fec(packet.payload) for packet in packets(fec=False, frames=3, bps=bps))
    assert not carries_fec(b"")
    assert not carries_fec(b"\x08")


@pytest.mark.parametrize("frames", [1, 3])
def test_a_clean_line_is_heard_as_it_was_sent(frames: int) -> None:
    ear = Ear()
    heard = [ear.feed(packet, at / 50) for at, packet in enumerate(packets(fec=False, frames=frames))]
    assert ear.concealed == 0
    assert sum(map(len, heard)) == ear.samples
    assert ear.arrival(frames * FRAME_SAMPLES + 480) == pytest.approx(
        (1 / 50 + 0.01, (frames * 960 - 4_520) & 0xFFFFFFFF)
    )


@pytest.mark.parametrize("fec", [False, True])
def test_loss_is_recovered_or_invented_and_places_stay(fec: bool) -> None:
    sent = packets(fec=fec)
    dice = random.Random(5)
    kept = [packet for packet in sent[:-1] if packet is sent[0] or dice.random() >= 0.1] + sent[-1:]
    lost = len(sent) - len(kept)
    ear = Ear()
    by_number = {packet.sequence: at * 0.02 for at, packet in enumerate(sent)}
    heard = np.concatenate([ear.feed(packet, by_number[packet.sequence]) for packet in kept])
    heard = np.concatenate((heard, ear.feed(sent[-1], len(sent) * 0.02 + WAIT_S)))
    assert len(heard) == len(sent) * FRAME_SAMPLES, "what was lost is as long as it was"
    share = ear.concealed / FRAME_SAMPLES
    if fec:
        assert share <= lost / 2  # losses in a row and in pauses
        assert signal.tone_level_db(heard, Identity(0).tone_hz) == pytest.approx(-26, abs=3)
    else:
        assert share == lost


def test_what_comes_in_time_is_heard_and_dated_by_its_own_arrival() -> None:
    sent = packets(fec=False)
    ear = Ear()
    ear.feed(sent[0], 0.0)
    assert not len(ear.feed(sent[2], 0.04)), "its predecessor may still come"
    assert len(ear.feed(sent[1], 0.04 + WAIT_S - 0.01)) == 2 * FRAME_SAMPLES
    assert (ear.samples, ear.concealed) == (3 * FRAME_SAMPLES, 0)
    arrivals = [ear.arrival(packet * FRAME_SAMPLES) for packet in range(3)]
    assert [found[0] for found in arrivals if found] == [0.0, 0.04 + WAIT_S - 0.01, 0.04]


def test_late_and_repeated_packets_are_passed_over() -> None:
    sent = packets(fec=False)
    ear = Ear()
    for packet, now in (
        (sent[0], 0.0),
        (sent[2], 0.04),
        (sent[3], 0.04 + WAIT_S),
        (sent[1], 0.2),
        (sent[2], 0.2),
    ):
        ear.feed(packet, now)
    assert ear.samples == 4 * FRAME_SAMPLES
    assert ear.concealed == FRAME_SAMPLES


def test_a_long_pause_is_no_loss() -> None:
    sent = packets(fec=False)
    ear = Ear()
    ear.feed(sent[0], 0.0)
    ear.feed(sent[40], 0.8)
    ear.feed(sent[41], 0.8 + WAIT_S)
    assert ear.concealed == 0
    assert ear.arrival(FRAME_SAMPLES) == pytest.approx((0.8, (2**32 - 5_000 + 40 * 960) & 0xFFFFFFFF))
