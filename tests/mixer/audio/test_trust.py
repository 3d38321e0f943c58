"""Headers that say what is not so are found out, and honest ones are believed."""

from __future__ import annotations

import random

import pytest

from mixer.audio.trust import PROBATION, LevelTrust


def compare(pairs) -> LevelTrust:
    trust = LevelTrust()
    for header, decoded in pairs:
        trust.compare(header, decoded)
    return trust


def test_nobody_is_believed_in_the_first_second():
    assert not compare([(30, 30)] * (PROBATION - 1)).good
    assert compare([(30, 30)] * PROBATION).good


def test_an_honest_sender_whose_frames_lie_a_little_apart_is_believed():
    rng = random.Random(3)
    levels = [rng.choice([15, 20, 25, 40, 70, 90]) for _ in range(3000)]
    shifted = [levels[n - (rng.random() < 0.3)] + rng.randint(-6, 6) for n in range(3000)]
    assert compare(zip(levels, shifted, strict=True)).good


def test_silence_may_be_called_anything():
    assert compare([(127, 127), (70, 100), (100, 127), (127, 90)] * 50).good


@pytest.mark.parametrize(
    ("header", "decoded"),
    [(0, 127), (10, 90), (127, 20), (100, 40), (127, 75)],
    ids=["loud, is silent", "loud, is quiet", "silent, is loud", "quiet, is loud", "never measured"],
)
def test_a_liar_is_found_out_within_a_second_and_a_half_and_for_good(header, decoded):
    trust = LevelTrust()
    broke = [trust.compare(header, decoded) for _ in range(75)]
    assert sum(broke) == 1, "told once"
    assert not trust.good
    for _ in range(500):
        trust.compare(30, 30)
    assert not trust.good


def test_one_who_begins_to_lie_later_is_found_out_too():
    trust = compare([(30, 30)] * 500)
    assert trust.good
    for _ in range(75):
        trust.compare(127, 30)
    assert trust.broken
