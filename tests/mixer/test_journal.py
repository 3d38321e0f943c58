"""What the timeline says of a room."""

from __future__ import annotations

from typing import Any

import pytest

from mixer.audio.speaker import SPEAKING_HOLD_S
from mixer.journal import RoomJournal
from mixer.protocol import RosterEntry
from mixer.video.layout import LayoutBody, Source

ANN, BOB = RosterEntry(id="ann", name="Ann"), RosterEntry(id="bob", name="Bob", kind="phone")


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def journal(lines: list[dict[str, Any]]) -> RoomJournal:
    def note(event: str, /, **fields: Any) -> None:
        lines.append({"event": event} | fields)

    return RoomJournal(note)


def camera(entry: RosterEntry, *, on: bool = True) -> Source:
    return Source(entry.id, entry.name, entry.kind, has_video=on)


def test_everything_that_changes_is_a_line(journal: RoomJournal, lines: list[dict[str, Any]]) -> None:
    journal.joined(ANN)
    journal.changed(ANN.model_copy(update={"muted": True, "video_muted": True}))
    journal.changed(ANN.model_copy(update={"name": "Anne", "volume": 0.5}))
    journal.sources([camera(ANN), Source("ann#screen", "Ann", "webrtc", True, screen=True)])
    journal.sources([camera(ANN, on=False)])
    journal.speaker("ann")
    journal.speaker("ann")
    journal.speaker(None)
    journal.left("ann")
    journal.left("ann")
    assert [(line["event"], line.get("participant"), line.get("name")) for line in lines] == [
        ("join", "ann", "Ann"), ("mute", "ann", None), ("video-mute", "ann", None), ("rename", "ann", "Anne"),
        ("unmute", "ann", None), ("video-unmute", "ann", None), ("volume", "ann", None), ("video-on", "ann", None),
        ("share", "ann", None), ("video-off", "ann", None), ("unshare", "ann", None), ("speaker", "ann", None),
        ("speaker", None, None), ("leave", "ann", "Anne"),
    ]  # fmt: skip


def test_a_recording_that_begins_hears_how_things_stand(
    journal: RoomJournal, lines: list[dict[str, Any]]
) -> None:
    body = LayoutBody(preset="speaker")
    journal.layout(3, body)
    journal.joined(ANN.model_copy(update={"muted": True}))
    journal.joined(BOB)
    journal.sources([camera(ANN)])
    journal.speaker("bob")
    journal.speaking(["bob"], 5.0)
    lines.clear()
    journal.introduce(9.0)
    assert [(line["event"], line.get("participant")) for line in lines] == [
        ("join", "ann"), ("mute", "ann"), ("join", "bob"), ("layout", None), ("notice", None), ("video-on", "ann"),
        ("speaker", "bob"), ("speaking", "bob"),
    ]  # fmt: skip
    layout = next(line for line in lines if line["event"] == "layout")
    assert (layout["version"], LayoutBody.model_validate(layout["layout"])) == (3, body)
    assert lines[2]["kind"] == "phone"
    journal.speaking([], 10.0 + SPEAKING_HOLD_S)
    assert lines[-1] == {"event": "silent", "participant": "bob", "duration": 1.0}


def test_who_spoke_when_without_the_mixers_hold(journal: RoomJournal, lines: list[dict[str, Any]]) -> None:
    journal.joined(ANN)
    journal.joined(BOB)
    lines.clear()
    journal.speaking(["ann"], 1.0)
    journal.speaking(["ann"], 1.02)
    journal.speaking(["ann", "bob"], 2.0)
    journal.speaking(["bob"], 3.0 + SPEAKING_HOLD_S)
    journal.changed(BOB.model_copy(update={"muted": True}))
    journal.speaking([], 4.5)
    assert [line for line in lines if line["event"] in {"speaking", "silent"}] == [
        {"event": "speaking", "participant": "ann"},
        {"event": "speaking", "participant": "bob"},
        {"event": "silent", "participant": "ann", "duration": 2.0},
        {"event": "silent", "participant": "bob", "duration": 2.5},
    ]
