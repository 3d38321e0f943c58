"""Who has a place in the mix: free places at once, taken ones only by the patient and loud."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from mixer.audio.loudest import Loudest

STEP = 0.02


def run(loudest: Loudest, ticks: range, level: Callable[[int], dict[str, int]]) -> list[set[str]]:
    return [set(loudest.update(level(n), n * STEP)) for n in ticks]


def test_everyone_has_a_place_at_once_while_there_are_enough():
    loudest = Loudest(places=3)
    assert run(loudest, range(1), lambda n: {"a": 60, "b": 20, "c": 40}) == [{"a", "b", "c"}]


def test_the_quietest_is_the_one_without_a_place():
    loudest = Loudest(places=2)
    assert run(loudest, range(1), lambda n: {"a": 60, "b": 20, "c": 40}) == [{"b", "c"}]


def test_a_louder_voice_gets_the_quietest_place_after_a_while_and_not_before():
    loudest = Loudest(places=2)
    chosen = run(loudest, range(100), lambda n: {"a": 30, "b": 20} | ({"c": 20} if n >= 20 else {}))
    first = next(n for n, names in enumerate(chosen) if "c" in names)
    assert first == 50  # a second after `a` got its place; the challenge of 0.4 s is over
    assert chosen[-1] == {"b", "c"}
    assert loudest.swaps == 1


def test_a_cough_takes_no_place():
    loudest = Loudest(places=1)
    chosen = run(loudest, range(200), lambda n: {"a": 30, "c": 10 if n % 50 in range(20, 28) else 70})
    assert all(names == {"a"} for names in chosen)


def test_a_voice_that_is_hardly_louder_takes_no_place():
    loudest = Loudest(places=1)
    assert run(loudest, range(500), lambda n: {"a": 30} | ({"b": 28} if n else {}))[-1] == {"a"}


def test_nobody_is_cut_off_between_two_syllables():
    """Syllables of 160 ms, pauses of 160 ms; the other one is 6 dB quieter, and louder only in the pauses."""
    loudest = Loudest(places=1)
    chosen = run(loudest, range(500), lambda n: {"a": 20 if n % 16 < 8 else 60} | ({"b": 28} if n else {}))
    assert all(names == {"a"} for names in chosen)


def test_a_louder_voice_gets_its_place_though_it_pauses_between_syllables():
    loudest = Loudest(places=1)
    chosen = run(
        loudest, range(200), lambda n: {"hum": 40} | ({"b": 20 if n % 16 < 8 else 70} if n >= 60 else {})
    )
    assert chosen[-1] == {"b"}


def test_two_who_take_turns_do_not_flap():
    loudest = Loudest(places=1)
    chosen = run(loudest, range(1500), lambda n: {"a": 20 + (n // 15) % 2 * 8, "b": 28 - (n // 15) % 2 * 8})
    changes = sum(before != after for before, after in itertools.pairwise(chosen))
    assert changes <= 30 * 1.0 + 1, "at most one a second"
    assert all(len(names) == 1 for names in chosen)


def test_who_falls_silent_gives_its_place_back_at_once():
    loudest = Loudest(places=1)
    chosen = run(loudest, range(20), lambda n: {"b": 40} | ({"a": 20} if n < 10 else {}))
    assert chosen[9] == {"a"}
    assert chosen[10] == {"b"}
