"""Both ways over a bad line, 50 ms each: how much of a voice had to be invented, and whether the delay grows.

One talks, one listens; the mixer is between them. What is counted is sound for which nothing had come: neither the
packet, nor the copy of it in the next one (in-band FEC).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from mixer.audio.bridge import AudioBridge
from mixer.audio.codec import make_encoder
from mixer.audio.leg import InboundLeg
from tests.fakes.netem import Burst, Netem
from tests.mixer.audio.signals import syllables

SECONDS = 30


@dataclass
class Call:
    concealed: float  # share of the time, both ways together
    recovered: int
    lost: int
    delays_ms: list[float]  # of both jitter buffers together, from the fifth second on


def call(*, fec: bool, loss: float = 0.0, burst: Burst | None = None, jitter_s: float = 0.0) -> Call:
    up, down = (Netem(seed=seed, delay_s=0.05, loss=loss, burst=burst, jitter_s=jitter_s) for seed in (5, 6))
    sound = syllables(10.0)
    encoder = make_encoder("opus", frames=1, bitrate_bps=32_000, fec=fec)
    bridge = AudioBridge()
    bridge.add_input("ann", "opus")
    made: list[tuple[int, bytes]] = []
    bridge.add_output(
        "bob", lambda packet: made.append((packet.pts, packet.data)), codec="opus", minus=None, fec=fec
    )
    bob = InboundLeg("bob", "opus", muted=False, volume=1.0)
    delays_ms = []
    for n in range(SECONDS * 50):
        now, at = n * 0.02, n * 960 % len(sound)
        up.send((n, n * 960, encoder.encode(sound[at : at + 960])), now)
        for number, stamp, data in up.receive(now):
            bridge.push("ann", sequence=number, timestamp=stamp, payload=data, codec="opus", now=now, ssrc=1)
        bridge.tick(n, now + 0.004)
        while made:
            pts, data = made.pop()
            down.send((pts // 960, pts, data), now + 0.004)
        for number, stamp, data in down.receive(now + 0.01):
            bob.push(sequence=number, timestamp=stamp, payload=data, codec="opus", now=now + 0.01, ssrc=2)
        bob.take(now + 0.012)
        if n > 250:
            delays_ms.append(bridge.stats()["inputs"]["ann"]["delay_ms"] + bob.stats()["delay_ms"])
    first, second = bridge.stats()["inputs"]["ann"], bob.stats()
    return Call(
        concealed=(first["concealed_samples"] + second["concealed_samples"]) / (SECONDS * 48_000),
        recovered=first["recovered"] + second["recovered"],
        lost=first["lost"] + second["lost"],
        delays_ms=delays_ms,
    )


@pytest.mark.parametrize(("loss", "most"), [(0.02, 0.02), (0.05, 0.04), (0.10, 0.08)])
def test_random_loss_both_ways_with_fec(loss: float, most: float) -> None:
    one = call(fec=True, loss=loss)
    assert one.lost > 1.5 * loss * SECONDS * 50
    assert one.recovered > 0.5 * one.lost
    assert one.concealed <= most
    assert max(one.delays_ms) < 110, (
        "two buffers of about 45 ms: mouth to ear stays below 140 ms on a short line"
    )


def test_without_fec_all_that_is_lost_is_invented_and_said_so() -> None:
    one = call(fec=False, loss=0.05)
    assert one.recovered == 0
    assert one.concealed == pytest.approx(0.05 * 2, abs=0.03)


def test_bursts_of_five_are_concealed_and_add_no_delay() -> None:
    one = call(fec=True, burst=Burst(begin=0.002, end=0.2))
    assert one.lost > 20
    assert one.concealed <= 0.02
    assert np.median(one.delays_ms[-100:]) <= np.median(one.delays_ms[:100]) + 5


def test_loss_with_jitter_adds_no_more_delay_than_the_jitter() -> None:
    one = call(fec=True, loss=0.05, jitter_s=0.03)
    assert one.concealed <= 0.04
    assert max(one.delays_ms) < 170
    assert np.median(one.delays_ms[-100:]) <= np.median(one.delays_ms[:100]) + 20
