"""The test signal survives what a mixer does to it, and the readings are right."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.media import AUDIO_CLOCK_HZ
from mixer.probe import signal
from mixer.probe.signal import Identity, PipFinder, Plane, Rect, Sound


def tile(
    counter: int, identity: Identity, width: int, height: int, fit: Literal["cover", "contain"]
) -> Plane:
    """Our picture as a mixer shows it: cropped or letterboxed into an I420 of width × height."""
    source = av.VideoFrame.from_ndarray(signal.picture(counter, identity), "yuv420p")
    ratios = (width / signal.WIDTH_PX, height / signal.HEIGHT_PX)
    scale = max(ratios) if fit == "cover" else min(ratios)
    wide, high = round(signal.WIDTH_PX * scale / 2) * 2, round(signal.HEIGHT_PX * scale / 2) * 2
    luma = source.reformat(wide, high).to_ndarray()[:high]
    canvas = np.full((height, width), 16, np.uint8)
    if fit == "cover":
        top, left = (high - height) // 2, (wide - width) // 2
        canvas[:] = luma[top : top + height, left : left + width]
    else:
        top, left = (height - high) // 2, (width - wide) // 2
        canvas[top : top + high, left : left + wide] = luma
    return canvas


@pytest.mark.parametrize("fit", ["cover", "contain"])
@pytest.mark.parametrize(
    ("width", "height"),
    [
        (1280, 720),
        (640, 720),
        (640, 360),
        (426, 240),
        (426, 360),
        (320, 240),
        (256, 144),
        (106, 60),
        (64, 36),
    ],
)
def test_counter_is_read_in_any_tile(width: int, height: int, fit: Literal["cover", "contain"]) -> None:
    for counter in (0, 1, 63, 77, signal.LOOP_FRAMES - 1):
        canvas = np.full((720, 1280), 90, np.uint8)
        place = Rect(1280 - width, 720 - height, width, height)
        canvas[place.y :, place.x :] = tile(counter, Identity(2), width, height, fit)
        assert signal.read_counter(canvas, place, fit) == counter


@pytest.mark.parametrize(("codec", "bitrate"), [("libx264", 300_000), ("libvpx", 200_000)])
def test_counter_survives_a_low_bitrate(codec: str, bitrate: int) -> None:
    """A 3 × 3 grid's tile in a 640 × 360 picture is 212 pixels wide; here one alone at less than its share."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.bit_rate = 640, 360, "yuv420p", bitrate
    encoder.framerate = Fraction(15)
    encoder.options = (
        {"preset": "ultrafast", "tune": "zerolatency"}
        if codec == "libx264"
        else {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    )
    decoder = av.CodecContext.create("h264" if codec == "libx264" else "vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    read = []
    for counter in range(30):
        frame = av.VideoFrame.from_ndarray(signal.picture(counter, Identity(0)), "yuv420p").reformat(640, 360)
        frame.pts = counter
        for packet in encoder.encode(frame):
            for shown in decoder.decode(packet):
                luma = np.frombuffer(memoryview(shown.planes[0]), np.uint8).reshape(360, -1)[:, :640]
                read.append(signal.read_counter(luma, Rect(0, 0, 640, 360)))
    expected = list(range(30))[: len(read)]
    assert len(read) >= 25
    assert read == expected


def test_what_is_not_ours_is_not_read() -> None:
    place = Rect(0, 0, 1280, 720)
    assert signal.read_counter(np.full((720, 1280), 120, np.uint8), place) is None
    rng = np.random.default_rng(7)
    misread = sum(
        signal.read_counter(rng.integers(0, 256, (9, 16), np.uint8).repeat(80, 0).repeat(80, 1), place)
        is not None
        for _ in range(2000)
    )
    assert misread < 20  # chance alone passes 1 in 64 × 4 or so
    shown = signal.picture(5, Identity(0))[: signal.HEIGHT_PX].copy()
    shown[160:240, 560:640] = 255 - shown[160:240, 560:640]  # one cell turned over: the CRC says no
    assert signal.read_counter(shown, place) is None
    assert signal.read_counter(shown, Rect(900, 400, 1280, 720)) is None  # a tile that leaves the canvas


@given(st.integers(0, signal.LOOP_FRAMES - 1), st.integers(0, 13))
def test_any_single_wrong_cell_is_noticed(counter: int, cell: int) -> None:
    bits = signal.cell_bits(counter)
    flipped = tuple(bit ^ (place == cell + 1) for place, bit in enumerate(bits))
    assert all(flipped != signal.cell_bits(other) for other in range(signal.LOOP_FRAMES))


def test_hues_are_told_apart() -> None:
    for index in range(signal.HUES):
        frame = signal.picture(0, Identity(index))
        u = frame[720:900].reshape(360, 640)
        v = frame[900:].reshape(360, 640)
        read = signal.read_chroma(u, v, Rect(0, 0, 1280, 720))
        assert signal.closest_hue((read[0] + 6, read[1] - 6)) == index
    assert signal.closest_hue((128, 130)) is None


def _looped(index: int, seconds: int, offset: int) -> Sound:
    return np.resize(np.roll(signal.tone(Identity(index)), -offset), seconds * AUDIO_CLOCK_HZ)


def _fed(finder: PipFinder, samples: Sound) -> list[float]:
    edges = []
    for start in range(0, samples.size, 960):
        edges += finder.feed(samples[start : start + 960])
    return edges + finder.flush()


def test_pips_are_timed_in_a_mix_of_nine() -> None:
    """Each tone's pips come back within 2 ms although eight others sound and pip at once over noise."""
    offsets = [index * 7919 for index in range(9)]
    mix = np.sum([_looped(index, 12, offset) for index, offset in enumerate(offsets)], axis=0)
    mix = (mix + np.random.default_rng(3).normal(0, 0.003, mix.size)).astype(np.float32)
    for index, offset in enumerate(offsets):
        edges = [edge / AUDIO_CLOCK_HZ for edge in _fed(PipFinder(Identity(index).tone_hz), mix)]
        rises = [
            loop * signal.LOOP_S + pip - offset / AUDIO_CLOCK_HZ
            for loop in range(-1, 5)
            for pip in signal.PIP_TIMES_S
        ]
        wanted = [rise for rise in rises if 0.6 < rise < 11.9]
        for rise in wanted:
            assert min(abs(edge - rise) for edge in edges) < 0.002
        assert len([edge for edge in edges if 0.6 < edge < 11.9]) == len(wanted)


def test_pip_edges_do_not_depend_on_how_samples_are_cut() -> None:
    samples = _looped(4, 8, 12345)
    whole = _fed(PipFinder(Identity(4).tone_hz), samples)
    ragged = PipFinder(Identity(4).tone_hz)
    edges, start = [], 0
    for size in (1, 47, 960, 2881, 5000, 31, 48, 96) * 80:
        edges += ragged.feed(samples[start : start + size])
        start += size
    assert [*edges, *ragged.flush()] == pytest.approx(whole, abs=2.0)


def test_silence_has_no_pips() -> None:
    noise = np.random.default_rng(1).normal(0, 1e-5, AUDIO_CLOCK_HZ * 3).astype(np.float32)
    assert _fed(PipFinder(397), noise) == []
    assert _fed(PipFinder(397), np.zeros(AUDIO_CLOCK_HZ * 2, np.float32)) == []


def test_level_of_one_tone_among_neighbours() -> None:
    time = np.arange(AUDIO_CLOCK_HZ) / AUDIO_CLOCK_HZ
    loud = 0.5 * np.sin(2 * np.pi * Identity(1).tone_hz * time)
    quiet = 0.0005 * np.sin(2 * np.pi * Identity(2).tone_hz * time)
    samples = (loud + quiet).astype(np.float32)
    assert signal.tone_level_db(samples, Identity(1).tone_hz) == pytest.approx(-6.02, abs=0.05)
    assert signal.tone_level_db(samples, Identity(2).tone_hz) == pytest.approx(-66.0, abs=0.2)
    assert signal.tone_level_db(samples, Identity(3).tone_hz) < -95
    assert signal.tone_level_db(samples[:0], 397) == -math.inf


def test_loops_are_seamless() -> None:
    for index in (0, 5, 11):
        loop = signal.tone(Identity(index))
        twice = np.concatenate((loop[-1:], loop[:1]))
        assert (
            abs(float(twice[1] - twice[0]))
            < signal.TONE_LEVEL * 2 * math.pi * Identity(index).tone_hz / 48000 * 1.1
        )


@given(
    delay=st.floats(0.02, 2.5),
    lost=st.sets(st.integers(0, 19), max_size=8),
    clicks=st.lists(st.floats(0, 20), max_size=3),
)
def test_delays_are_matched_by_their_pattern(delay: float, lost: set[int], clicks: list[float]) -> None:
    sent = [loop * signal.LOOP_S + pip for loop in range(5) for pip in signal.PIP_TIMES_S]
    heard = sorted([time + delay for place, time in enumerate(sent) if place not in lost] + clicks)
    delays = signal.match_delays(sent, heard)
    right = [found for found in delays if abs(found - delay) < 0.06]
    assert len(right) >= len(sent) - len(lost)
    assert len(delays) <= len(heard)


def test_nothing_to_match() -> None:
    assert signal.match_delays([], [1.0]) == []
    assert signal.match_delays([5.0], [1.0]) == []


def test_percentile() -> None:
    assert signal.percentile([], 95) is None
    assert signal.percentile([3.0], 95) == 3.0
    assert signal.percentile(list(range(101)), 95) == 95.0


def test_frozen_counts_whole_pauses_only() -> None:
    steady = [i / 30 for i in range(1, 300)]
    assert signal.frozen_s(steady, 0, 10) == 0
    held = [t for t in steady if not 4.0 < t < 5.0]
    assert signal.frozen_s(held, 0, 10) == pytest.approx(1.0, abs=0.05)
    slow = [i / 8 for i in range(1, 80)]  # 8 pictures a second is slow, not frozen
    assert signal.frozen_s(slow, 0, 10) == 0
    assert signal.frozen_s([], 0, 10) == 10
