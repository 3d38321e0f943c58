"""Who is named in a packet, and how often."""

from __future__ import annotations

from mixer.audio.contributors import MAX_CONTRIBUTORS, MAX_ON_THIN_LINES, Naming, csrc_of, loudest


def test_a_participant_keeps_its_number_everywhere():
    assert csrc_of("ann") == csrc_of("ann") != csrc_of("bob")
    assert 0 <= csrc_of("ann") < 2**32


def test_of_several_ticks_each_is_named_once_with_its_loudest_level():
    ticks = [((7, 40), (9, 20)), ((7, 30),), ((8, 25),)]
    assert loudest(ticks) == ((9, 20), (8, 25), (7, 30))
    assert loudest(ticks, without=9) == ((8, 25), (7, 30))


def test_more_than_fifteen_do_not_fit_and_the_loudest_stay():
    crowd = tuple((number, 60 - number) for number in range(30))
    named = loudest([crowd])
    assert len(named) == MAX_CONTRIBUTORS
    assert named[0] == (29, 31)


def test_a_change_is_told_at_once_and_what_stays_now_and_then():
    naming = Naming(frames=1)
    told = [naming.of(((7, 20),) if n < 20 else ((7, 20), (8, 30))) for n in range(40)]
    assert [n for n, said in enumerate(told) if said] == [0, 5, 10, 15, 20, 25, 30, 35]
    assert told[20] == ((7, 20), (8, 30))


def test_other_levels_are_no_change():
    naming = Naming(frames=1)
    assert sum(bool(naming.of(((7, n),))) for n in range(10)) == 2


def test_long_packets_name_few_and_seldom():
    naming = Naming(frames=3)
    crowd = tuple((number, 30) for number in range(10))
    told = [naming.of(crowd) for _ in range(16)]
    assert [len(said) for said in told if said] == [MAX_ON_THIN_LINES] * 2
    assert [n for n, said in enumerate(told) if said] == [0, 8]


def test_when_all_are_silent_nothing_is_said():
    naming = Naming(frames=1)
    assert [naming.of(()) for _ in range(20)] == [()] * 20
