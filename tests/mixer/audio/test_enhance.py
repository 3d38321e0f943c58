"""AGC and noise suppression: what they do to a faint voice and to noise, and that a broken one costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from mixer.audio.bridge import AudioBridge
from mixer.audio.codec import make_encoder
from mixer.audio.enhance import make_enhancer
from mixer.audio.speaker import level_dbov
from tests.mixer.audio.signals import noise, syllables

TALK, PAUSE = slice(300, 400), slice(420, 490)  # ticks


def sound(amplitude: float, noise_amplitude: float) -> np.ndarray:
    """Eight seconds of words, two of pause, in noise."""
    words = syllables(10.0, amplitude)
    words[8 * 48_000 :] = 0
    return words + noise(10.0, noise_amplitude)


def through(pcm: np.ndarray, **wanted: bool) -> list[np.ndarray]:
    enhancer = make_enhancer(**{"agc": False, "noise_suppression": False} | wanted)
    return [enhancer.process(pcm[at : at + 960]) for at in range(0, len(pcm), 960)]


def level(frames: list[np.ndarray], part: slice) -> float:
    return level_dbov(np.concatenate(frames[part]))


def test_noise_falls_by_ten_decibels_and_the_voice_stays() -> None:
    pcm = sound(0.15, 0.01)
    before = [pcm[at : at + 960] for at in range(0, len(pcm), 960)]
    after = through(pcm, noise_suppression=True)
    assert level(after, PAUSE) >= level(before, PAUSE) + 10
    assert level(after, TALK) == pytest.approx(level(before, TALK), abs=2)


def test_a_faint_voice_is_brought_up_and_a_loud_one_left_alone() -> None:
    faint, loud = sound(0.006, 1e-4), sound(0.25, 1e-4)
    assert level(through(faint, agc=True), TALK) < 35 < level_dbov(faint[6 * 48_000 : 8 * 48_000])
    before = level_dbov(loud[6 * 48_000 : 8 * 48_000])
    assert level(through(loud, agc=True), TALK) == pytest.approx(before, abs=4)


def test_it_comes_back_in_step() -> None:
    pcm = sound(0.15, 1e-4)
    out = np.concatenate(through(pcm, noise_suppression=True))
    part = pcm[96_000:192_000]
    lags = range(0, 1_920, 48)
    best = max(lags, key=lambda lag: float(np.dot(out[96_000 + lag : 192_000 + lag], part)))
    assert best <= 15 * 48, "15 ms"


def run(bridge: AudioBridge, pcm: np.ndarray, ticks: range) -> list[np.ndarray]:
    mixed: list[np.ndarray] = []
    bridge.set_recorder(lambda frame, pts: mixed.append(frame.copy()))
    encoder = make_encoder("opus", frames=1, bitrate_bps=32_000)
    for n in ticks:
        data = encoder.encode(pcm[n * 960 : n * 960 + 960])
        bridge.push("ann", sequence=n, timestamp=n * 960, payload=data, codec="opus", now=n * 0.02, ssrc=1)
        bridge.tick(n, n * 0.02 + 0.005)
    return mixed


def test_a_voice_in_the_room_is_polished_from_when_it_is_asked_for_until_not() -> None:
    bridge = AudioBridge()
    bridge.add_input("ann", "opus")
    pcm = np.tile(sound(0.006, 1e-4)[: 6 * 48_000], 2)
    plain = level(run(bridge, pcm, range(200)), slice(100, 200))
    bridge.enhance("ann", make_enhancer(agc=True, noise_suppression=True))
    polished = level(run(bridge, pcm, range(200, 500)), slice(150, 290))
    bridge.enhance("ann", None)
    again = level(run(bridge, pcm, range(500, 600)), slice(0, 90))
    assert polished < plain - 8
    assert again == pytest.approx(plain, abs=4)
    bridge.enhance("nobody", None)


def test_one_that_raises_is_taken_out_and_the_voice_goes_on() -> None:
    class Broken:
        def process(self, frame: np.ndarray) -> np.ndarray:
            raise RuntimeError("cannot be")

    bridge = AudioBridge()
    bridge.add_input("ann", "opus")
    bridge.enhance("ann", Broken())
    assert level(run(bridge, sound(0.15, 1e-4), range(200)), slice(100, 200)) < 30
    assert bridge.stats()["inputs"]["ann"]["enhance_errors"] == 1
