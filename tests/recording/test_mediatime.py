"""The file's clock: exact for any hours and pauses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recording.mediatime import AUDIO_TICK, INSTANT_HZ, VIDEO_TICK, MediaTime


def test_nothing_before_the_start() -> None:
    time = MediaTime()
    assert time.place(5) is None
    assert time.clamp(5) == 0
    time.start(100)
    assert time.place(99) is None
    assert time.clamp(99) == 0
    assert time.place(100) == 0
    assert not MediaTime().running


def test_pause() -> None:
    time = MediaTime()
    time.start(100)
    time.pause(200)
    assert time.place(199) == 99
    assert time.place(199, 2) is None  # it would sound on after the cut
    assert time.place(200) is None
    assert time.clamp(250) == 100
    assert time.start(500) == 300
    assert time.place(500) == 100
    assert time.place(150) == 50  # late, of the span before
    assert time.place(300) is None


@given(
    st.lists(st.tuples(st.integers(1, 10**10), st.integers(0, 10**10)), min_size=1, max_size=8),
    st.integers(0, 10**13),
)
def test_spans_join_without_a_seam(spans: list[tuple[int, int]], origin: int) -> None:
    time, room, total = MediaTime(), origin, 0
    for run, gap in spans:
        time.start(room)
        assert time.place(room) == total
        assert time.place(room + run - 1) == total + run - 1
        room, total = room + run, total + run
        time.pause(room)
        assert time.clamp(room) == total
        room += gap


def test_four_hours_do_not_drift() -> None:
    time = MediaTime()
    time.start(7 * INSTANT_HZ)
    hours = 4 * 3600
    video = time.place((7 + hours) * 90_000 * VIDEO_TICK)
    audio = time.place((7 + hours) * 48_000 * AUDIO_TICK)
    assert video == audio == hours * INSTANT_HZ
