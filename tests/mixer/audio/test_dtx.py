"""Senders that pause (DTX, RFC 7587 section 3.1.3): what is heard of their silence, and of the word after it."""

from __future__ import annotations

import numpy as np
import pytest

from mixer.audio.leg import InboundLeg
from mixer.audio.opus import OpusEncoder, _ctl, _encoder
from mixer.audio.playout import MAX_COMFORT, Playout
from tests.mixer.audio.signals import noise, syllables

_SET_DTX = 4_016  # OPUS_SET_DTX_REQUEST of opus_defines.h
SECONDS = 16


def spoken(noise_db: float) -> np.ndarray:
    """Two seconds of words, two of pause, in a microphone's noise."""
    words = syllables(SECONDS)
    words[np.arange(len(words)) / 48_000 % 4 >= 2] = 0
    return words + noise(SECONDS, 10 ** (noise_db / 20))


def through(pcm: np.ndarray, *, dtx: bool) -> tuple[np.ndarray, InboundLeg, int]:
    """As Chromium does it: of the packets of two bytes or less only the first of each pause is sent."""
    encoder = OpusEncoder(32_000, inband_fec=True)
    _encoder.encoder_ctl(encoder._state, _ctl.ctl_set(_SET_DTX), int(dtx))
    leg = InboundLeg("ann", "opus", muted=False, volume=1.0)
    heard, sent, pausing = [], 0, False
    for n in range(len(pcm) // 960):
        payload = encoder.encode(pcm[n * 960 : n * 960 + 960])
        if len(payload) > 2 or not pausing:
            leg.push(sequence=sent, timestamp=n * 960, payload=payload, codec="opus", now=n * 0.02, ssrc=1)
            sent += 1
        pausing = len(payload) <= 2
        frame = leg.take(n * 0.02 + 0.005)
        heard.append(np.zeros(960, np.float32) if frame is None else frame)
    return np.concatenate(heard), leg, sent


def levels_db(pcm: np.ndarray, first_s: float, last_s: float) -> np.ndarray:
    """Of each frame in that part of each four seconds, but for the first four."""
    frames = np.square(pcm.reshape(-1, 960)).mean(axis=1)
    at = np.arange(len(frames)) * 0.02
    return 10 * np.log10(frames[(at % 4 >= first_s) & (at % 4 < last_s) & (at >= 4)] + 1e-12)


@pytest.mark.parametrize("noise_db", [-75, -60, -50])
def test_a_pause_sounds_as_if_it_had_been_sent(noise_db: float) -> None:
    pcm = spoken(noise_db)
    whole, _, all_packets = through(pcm, dtx=False)
    paused, leg, packets = through(pcm, dtx=True)
    assert packets < 0.7 * all_packets
    assert leg.stats()["concealed_samples"] == 0, "nothing was lost"
    before, after = levels_db(whole, 2.9, 3.9), levels_db(paused, 2.9, 3.9)
    assert np.mean(after) == pytest.approx(np.mean(before), abs=2)
    assert after.std() < before.std() + 1.5, "it does not flutter at the pace of the repeats"
    word, dtx_word = levels_db(whole, 0.06, 0.15).mean(), levels_db(paused, 0.06, 0.15).mean()
    assert dtx_word == pytest.approx(word, abs=2.5), "the word begins on time"


def test_a_sender_that_pauses_and_never_comes_back_falls_silent() -> None:
    playout = Playout(clock_hz=48_000, fec=True)
    for n in range(20):
        payload = b"\x08" if n == 19 else b"\x08packet"
        playout.push(n, n * 960, payload, samples=960, now=n * 0.02, dtx=n == 19)
    kinds = [step.kind for n in range(100) for step in playout.pop(n * 0.02 + 0.005).steps]
    assert kinds.count("packet") == 20
    assert kinds.count("comfort") == MAX_COMFORT // 960
    assert kinds[-30:] == ["silence"] * 30
    assert "conceal" not in kinds


def test_a_pause_that_was_not_announced_is_still_taken_for_a_loss_at_first() -> None:
    playout = Playout(clock_hz=48_000, fec=True)
    for n in range(20):
        playout.push(n, n * 960, b"\x08packet", samples=960, now=n * 0.02)
    kinds = [step.kind for n in range(100) for step in playout.pop(n * 0.02 + 0.005).steps]
    assert kinds.count("conceal") == 5
    assert "comfort" not in kinds
