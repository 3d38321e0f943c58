from __future__ import annotations

from pathlib import Path

from mixer.homecoming import Homecoming
from recording.archive import Archive
from recording.index import Index
from recording.local import LocalStore


def test_each_recording_comes_home_once_as_what_it_became(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.db")
    archive = Archive(tmp_path / "spool", LocalStore(tmp_path / "archive"), index)
    homecoming = Homecoming(index)
    assert homecoming.step() == []
    first, second = archive.create("salon"), archive.create("council")
    assert homecoming.step() == []
    archive.set_state(first.id, "sealing")
    assert homecoming.step() == [], "on its way"
    archive.set_state(first.id, "failed", "nothing was recorded")
    assert [(info.id, info.state, info.reason) for info in homecoming.step()] == [
        (first.id, "failed", "nothing was recorded")
    ]
    assert homecoming.step() == []
    archive.set_state(second.id, "sealing")
    index.close()
    again = Homecoming(Index(tmp_path / "index.db"))  # what was under way when the server began
    again.step()
    Index(tmp_path / "index.db").set_state(second.id, "failed", "x")
    assert [info.id for info in again.step()] == [second.id]
