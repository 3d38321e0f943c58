"""A timeline played again: who is there, in which layout, at every instant; and timelines that are none."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.journal import RoomJournal
from mixer.protocol import RosterEntry
from mixer.replay import MAX_TIMELINE_BYTES, BadTimeline, Replay, TrackFile, Waits, parse_events
from mixer.video.layout import LayoutBody, Source, arrange
from recording.timeline import EVENTS, TimelineEvent, write_line


def replay(*lines: tuple[float, str, dict[str, Any]], layout: LayoutBody | None = None) -> Replay:
    data = b"".join(write_line(TimelineEvent(*line)) for line in lines)
    return Replay(parse_events(data), layout)


def ann(**fields: Any) -> dict[str, Any]:
    return {"participant": "ann"} | fields


def test_what_the_journal_wrote_gives_the_tiles_of_the_room() -> None:
    """Everything that a room does, arranged live and again from the lines."""
    lines: list[tuple[float, str, dict[str, Any]]] = []
    now = 0.0
    journal = RoomJournal(lambda event, /, **fields: lines.append((now, event, fields)))
    people = {name: RosterEntry(id=name, name=name.title()) for name in ("ann", "bob", "cid")}
    video, screens, speaker, body = set(people), set[str](), None, LayoutBody()
    live = []

    def sources() -> list[Source]:
        found = []
        for name, entry in people.items():
            found.append(Source(name, entry.name, entry.kind, has_video=name in video, muted=entry.muted))
            if name in screens:
                found.append(Source(f"{name}#screen", entry.name, entry.kind, has_video=True, screen=True))
        return found

    def step() -> None:
        nonlocal now
        journal.sources(sources())
        live.append((now, arrange(body, sources(), speaker), sources()))
        now += 1.0

    journal.layout(1, body)
    for entry in people.values():
        journal.joined(entry)
    step()
    speaker = "bob"
    journal.speaker(speaker)
    body = LayoutBody(preset="speaker")
    journal.layout(2, body)
    step()
    people["bob"] = people["bob"].model_copy(update={"muted": True, "name": "Robert"})
    journal.changed(people["bob"])
    video.discard("ann")
    step()
    screens.add("cid")
    body = LayoutBody(preset="presentation")
    journal.layout(3, body)
    step()
    del people["bob"]
    journal.left("bob")
    speaker = None
    journal.speaker(None)
    body = LayoutBody()
    journal.layout(4, body)
    step()

    played = replay(*lines)
    for at, tiles, there in live:
        assert played.advance(at)
        assert played.sources() == there
        assert arrange(played.body, played.sources(), played.speaker) == tiles


def test_another_layout_instead() -> None:
    played = replay(
        (0, "join", ann(name="Ann")), (0, "layout", {"version": 1, "layout": {"preset": "pip"}}),
        layout=LayoutBody(preset="spotlight"),
    )  # fmt: skip
    played.advance(0)
    assert played.body.preset == "spotlight"


def test_nothing_happens_before_its_time_and_nothing_twice() -> None:
    played = replay((0, "join", ann(name="Ann")), (1.5, "mute", ann()), (2, "leave", ann()))
    assert played.advance(0)
    assert not played.advance(1.4)
    assert not played.people["ann"].muted
    assert played.advance(1.5)
    assert played.people["ann"].muted
    assert not played.advance(1.9)
    assert played.advance(7)
    assert (played.people, played.ends_s) == ({}, 2)


def test_a_gap_stands_still_and_who_is_introduced_again_has_been_there() -> None:
    played = replay(
        (0, "join", ann(name="Ann")), (0, "video-on", ann()), (0, "join", {"participant": "bob", "name": "Bob"}),
        (4, "gap", {"duration": 2.5}), (4, "join", ann(name="Ann")), (9, "end", {}),
    )  # fmt: skip
    assert [played.frozen(t) for t in (3.9, 4.0, 6.4, 6.5)] == [False, True, True, False]
    played.advance(9)
    assert list(played.people) == ["ann", "bob"]
    assert played.people["ann"].camera


def test_waits_are_as_usual_until_a_line_says_otherwise_and_after_rubbish() -> None:
    data = b"".join(
        b'{"t":%s,"event":"wait","participant":"ann","ms":%s}\n' % (t, ms)
        for t, ms in ((b"2", b"90"), (b"4", b"1e9"), (b"6", b'"x"'))
    )
    waits = Waits(b'{"t":0,"event":"clock","file":"f","rtp":7}\n' + data + b'rubbish\n{"t":8,"event":"wait"')
    assert [waits.at("ann", t) for t in (0, 1.9, 2, 3.9, 4, 6, 9)] == [
        0.04,
        0.04,
        0.09,
        0.09,
        0.2,
        0.04,
        0.04,
    ]
    assert waits.at("bob", 5) == Waits().at("ann", 5) == 0.04


@given(st.binary(max_size=100))
def test_any_clocks_are_read(data: bytes) -> None:
    assert 0 <= Waits(data).at("ann", 1.0) <= 0.2


def test_a_timeline_that_says_nothing_of_cameras_has_them_where_it_has_tracks() -> None:
    track = {"file": "data/tracks/001.mkv", "kind": "camera", "codec": "VP8"}
    played = replay((0, "join", ann(name="Ann")), (1, "track", ann(**track)), (9, "end", {}))
    played.advance(0)
    assert not played.sources()[0].has_video
    played.advance(1)
    assert played.sources()[0].has_video
    assert played.tracks == [TrackFile("data/tracks/001.mkv", "ann", "camera", 1.0)]


@pytest.mark.parametrize(
    "file",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "data/tracks/../x.mkv",
        "data/tracks/001.mkv\0",
        "data/tracks/1.mkv",
        7,
        None,
    ],
)
def test_no_track_is_where_none_of_ours_is(file: object) -> None:
    assert replay((0, "track", ann(file=file, kind="camera")), (1, "end", {})).tracks == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b'{"t":0,"event":"end"', "cannot be read"),
        (b'{"t":"x","event":"end"}', "cannot be read"),
        (b'{"t":-1,"event":"end"}', "no time"),
        (b'{"t":1e9,"event":"end"}', "longer than"),
        (b'{"t":0,"event":"layout","layout":{"preset":"mosaic"}}', r"layout of 0\.000 s"),
        (b'{"t":0,"event":"layout","layout":7}', "layout"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_what_is_no_timeline_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadTimeline, match=message):
        Replay(parse_events(data))


def test_a_timeline_without_end_in_bytes_is_refused() -> None:
    with pytest.raises(BadTimeline, match="at most"):
        parse_events(bytes(MAX_TIMELINE_BYTES + 1))


def test_a_crowd_without_end_is_refused() -> None:
    lines = b"".join(b'{"t":0,"event":"join","participant":"%d"}\n' % n for n in range(10_001))
    with pytest.raises(BadTimeline, match="people"):
        Replay(parse_events(lines)).advance(0)


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
fields = st.dictionaries(
    st.sampled_from(["participant", "name", "volume", "kind", "file", "layout", "duration", "version"]),
    values,
)
events = st.builds(
    lambda t, event, more: json.dumps({"t": t, "event": event} | more).encode(),
    st.floats(0, 100), st.sampled_from(sorted(EVENTS)), fields,
)  # fmt: skip


@given(st.lists(events | st.binary(max_size=40), max_size=8))
def test_any_lines_are_played_or_refused(lines: list[bytes]) -> None:
    with contextlib.suppress(BadTimeline):
        played = Replay(parse_events(b"\n".join(lines)))
        for at in (0.0, 50.0, 100.0):
            played.advance(at)
            arrange(played.body, played.sources(), played.speaker)
            played.frozen(at)


def test_who_refuses_to_be_recorded_has_no_tile_while_they_do() -> None:
    lines: list[tuple[float, str, dict[str, Any]]] = []
    now = 0.0
    journal = RoomJournal(lambda event, /, **fields: lines.append((now, event, fields)))
    shy = RosterEntry(id="shy", name="Shy", recorded=False)
    for entry in (RosterEntry(id="ann", name="Ann"), shy):
        journal.joined(entry)
    journal.speaking(["ann", "shy"], now)
    now = 5.0
    journal.changed(shy.model_copy(update={"recorded": True}))
    journal.speaking(["ann", "shy"], now)
    now = 9.0
    journal.changed(shy)
    journal.speaking(["ann", "shy"], now)
    played = replay(*lines)
    for at, expected in ((1.0, ["ann"]), (6.0, ["ann", "shy"]), (9.5, ["ann"])):
        played.advance(at)
        assert [source.id for source in played.sources()] == expected
    said = [
        (t, event)
        for t, event, fields in lines
        if event in {"speaking", "silent"} and fields["participant"] == "shy"
    ]
    assert said == [(5.0, "speaking"), (9.0, "silent")]
