from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mixer.room import Room, RoomCreate
from mixer.room_shelf import KeptRoom, RoomShelf
from mixer.video.layout import LayoutBody, Region

AT = datetime(2026, 11, 25, 20, 0, tzinfo=UTC)


def council(name: str = "council") -> Room:
    body = RoomCreate(
        name=name, pin="1234", moderator_pin="987654", record=True, max_recording_minutes=90, language="fr",
        max_participants=7, layout=LayoutBody(preset="speaker"),
    )  # fmt: skip
    room = Room.create(body, AT, by="admin")
    region = Region(id="main", x="0", y="0", width="2/3", height="1", source="speaker")
    room.set_layout(LayoutBody(preset="custom", regions=(region,)), AT, by="moderator")
    return room


def test_a_room_comes_back_as_it_was_but_empty(tmp_path: Path) -> None:
    room = council()
    RoomShelf(tmp_path / "rooms").keep(KeptRoom.of(room))
    (again,) = RoomShelf(tmp_path / "rooms").load()
    assert again == room
    assert stat.S_IMODE((tmp_path / "rooms" / "council.json").stat().st_mode) == 0o600, "there are PINs in it"


def test_the_newest_state_is_kept_and_what_ended_is_forgotten(tmp_path: Path) -> None:
    shelf = RoomShelf(tmp_path)
    for name in ("b", "a", "c"):
        shelf.keep(KeptRoom.of(council(name)))
    changed = council("b")
    changed.pin = None
    shelf.keep(KeptRoom.of(changed))
    shelf.forget("c")
    shelf.forget("never-there")
    assert [(room.name, room.pin) for room in shelf.load()] == [("a", "1234"), ("b", None)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff", b"null", KeptRoom.of(council("elsewhere")).model_dump_json().encode(),
        KeptRoom.of(council("bad")).model_dump_json().replace('"1234"', '"12345678901234"').encode(),
        KeptRoom.of(council("bad")).model_dump_json().replace('"layouts":[', '"layouts":[],"x":[').encode(),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_named_and_left(content: bytes, tmp_path: Path) -> None:
    shelf = RoomShelf(tmp_path)
    shelf.keep(KeptRoom.of(council()))
    (tmp_path / "bad.json").write_bytes(content)
    with capture_logs() as logs:
        assert [room.name for room in shelf.load()] == ["council"]
    (line,) = logs
    assert (line["event"], line["file"], line["log_level"]) == ("room.unreadable", "bad.json", "error")
    assert line["reason"]
    assert "12345678901234" not in str(line), "a PIN is never logged"
    assert (tmp_path / "bad.json").read_bytes() == content
