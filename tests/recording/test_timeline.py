"""The journal and what is derived from it."""

from __future__ import annotations

import io

import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from recording.errors import BadPackage
from recording.timeline import (
    EVENTS,
    TimelineEvent,
    chapters,
    is_paused,
    paused_s,
    presences,
    read_line,
    read_timeline,
    sound_lines,
    write_chapters,
    write_line,
)

T0 = 1_800_000_000.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3), max_leaves=5
)


def e(t: float, event: str, /, **fields: object) -> TimelineEvent:
    return TimelineEvent(t, event, fields)


@given(
    st.floats(0, 1e6).map(lambda t: round(t, 3)),
    st.sampled_from(sorted(EVENTS)),
    st.dictionaries(st.text(max_size=10).filter(lambda k: k not in {"t", "event"}), JSON, max_size=4),
)
def test_round_trip(t: float, event: str, fields: dict[str, object]) -> None:
    line = write_line(TimelineEvent(t, event, fields))
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert read_line(line) == TimelineEvent(t, event, fields)


@given(st.binary(max_size=80))
def test_reading_anything(line: bytes) -> None:
    try:
        read_line(line)
    except BadPackage:
        return


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"3", b'{"t":1}', b'{"t":-1,"event":"x"}', b'{"t":NaN,"event":"x"}', b"[" * 9999]
)
def test_bad_lines(line: bytes) -> None:
    with pytest.raises(BadPackage):
        read_line(line)


def test_torn_end() -> None:
    good = write_line(e(0, "join", participant="a")) + write_line(e(1, "leave", participant="a"))
    assert sound_lines(good + b'{"t": 2, "ev') == good
    assert sound_lines(good + b"\0\0\0\n" + good) == good
    assert len(read_timeline(good)) == 2
    with pytest.raises(BadPackage):
        read_timeline(good + b"\0\n")


def test_who_was_there_through_a_pause() -> None:
    events = [
        e(0, "join", participant="a", name="Ann"),
        e(10, "pause"),
        e(10, "resume", duration=60.0),
        e(20, "leave", participant="a"),
        e(25, "join", participant="a", name="Ann B"),
        e(25, "join", participant="a", name="twice"),
        e(26, "leave", participant="nobody"),
        e(30, "end"),
    ]
    stays = presences(events, T0)
    assert [(s.name, s.joined[-13:], s.left and s.left[-13:]) for s in stays] == [
        ("Ann", "08:00:00.000Z", "08:01:20.000Z"),
        ("Ann B", "08:01:25.000Z", "08:01:30.000Z"),
    ]
    assert presences(events[:1], T0)[0].left is None
    assert paused_s(events) == 60
    assert is_paused(events[:2])
    assert not is_paused(events)


def test_chapters() -> None:
    events = [
        e(1, "join", participant="a", name="Ann <b> & co"),
        e(1, "join", participant="b", name="Bob\n-->\x00evil"),
        e(5, "speaker", participant="a"),
        e(17, "speaker", participant="b"),
        e(19, "speaker", participant="a"),  # Bob said "yes"
        e(50, "resume", duration=9),
        e(70, "speaker", participant="b"),
        e(99, "end"),
    ]
    marks = chapters(events, 100.0, "fr")
    assert [start for start, _ in marks] == [0, 5, 50, 70]
    parsed = webvtt.from_buffer(io.BytesIO(write_chapters(marks, 100.0)))
    assert [(c.start, c.end) for c in parsed][-2:] == [
        ("00:00:50.000", "00:01:10.000"),
        ("00:01:10.000", "00:01:40.000"),
    ]
    assert [c.raw_text for c in parsed] == [
        "Début",
        "Ann &lt;b&gt; &amp; co",
        "Après une pause",
        "Bob --&gt; evil",
    ]


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.sampled_from(["speaker", "gap", "resume"]), st.text(max_size=5)),
        max_size=20,
    ),
    st.floats(0, 1e5),
)
def test_chapters_are_always_valid(raw: list[tuple[float, str, str]], duration: float) -> None:
    events = [e(t, event, participant=name) for t, event, name in sorted(raw)]
    body = write_chapters(chapters(events, duration), duration)
    cues = list(webvtt.from_buffer(io.BytesIO(body)))
    assert cues[0].start_in_seconds == 0
    assert all(a.start < a.end for a in cues)
    assert [c.start for c in cues] == sorted({c.start for c in cues})


def test_a_chapter_has_the_name_of_its_time_and_nothing_else_is_a_name() -> None:
    events = [
        e(0, "join", participant="a", name="Ann"),
        e(0, "notice", participant="a", name="not recorded"),
        e(1, "track", participant="a", name="Ann", file="data/tracks/001.mka"),
        e(5, "speaker", participant="a"),
        e(30, "speaker"),
        e(30, "rename", participant="a", name="Anne"),
        e(50, "speaker", participant="a"),
    ]
    assert chapters(events, 80) == [(0, "Start"), (5, "Ann"), (50, "Anne")]


def test_writing_is_strict() -> None:
    for event in (
        e(0, "dance"),
        e(-1, "end"),
        e(float("nan"), "end"),
        e(0, "end", t=3),
        e(0, "end", x=float("inf")),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - any of its kinds
            write_line(event)
