"""``mosaique archive`` on a real archive: what it prints, writes and finds, and how it ends."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import bagit
import pytest

from mixer.cli import main
from recording.archive import Recording
from recording.archiver import Archiver
from recording.holdings import Holdings
from recording.local import LocalStore
from recording.package import CLOSED
from tests.recording.conftest import feed, open_recorder
from tests.recording.media import clip

Ends = Callable[..., int]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration but the test's own: data and archive in ./var."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kept() -> str:
    """The id of a recording in ./var, archived."""
    return make("salon", "Conseil d'été")


def make(room: str, note: str, *, cut_off: bool = False) -> str:
    holdings = Holdings.open(Path("var"), LocalStore(Path("var/archive")))
    recording: Recording = holdings.archive.create(room, note=note)
    recorder = open_recorder(recording.directory, clip(3))
    recorder.event("join", 0, participant="p1", name="Zoë Müller")
    feed(recorder, clip(3))
    recorder.close(3 * 90_000)
    if cut_off:  # as the archiver finds it after a crash
        closed = recording.directory / CLOSED
        closed.write_text(
            json.dumps(json.loads(closed.read_text()) | {"complete": False, "reason": "a crash"})
        )
    holdings.archive.set_state(recording.id, "sealing")
    assert Archiver(Path("var/spool"), holdings.store, holdings.index).step() == 1
    holdings.close()
    return recording.id


def ends(*argv: str) -> int:
    try:
        return main(["archive", *argv])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def film(identifier: str) -> Path:
    return next(Path("var/archive").rglob(f"{identifier}/data/recording.mp4"))


def test_list_and_show(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    make("other", "budget")
    capsys.readouterr()
    assert ends("ls", "--q", "ete") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(kept)
    assert "archived" in line
    assert line.endswith("Conseil d'été")
    assert ends("ls", "--json", "--limit", "0") == 0
    assert [item["room"] for item in json.loads(capsys.readouterr().out)] == ["other", "salon"]
    for query in (["--participant", "muller"], ["--room", "salon", "--from", "2020-01-01"], ["--limit", "1"]):
        assert ends("ls", *query) == 0
        assert len(capsys.readouterr().out.splitlines()) == (2 if "muller" in query else 1)
    assert ends("show", kept) == 0
    shown = capsys.readouterr().out
    assert "participants: Zoë Müller" in shown
    assert "data/recording.mp4" in shown
    assert ends("show", kept, "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == kept


def test_what_was_cut_off_is_marked_and_found(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    cut = make("salon", "storm", cut_off=True)
    capsys.readouterr()
    assert ends("ls", "--state", "incomplete") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(cut)
    assert line.endswith("[INCOMPLETE] storm")
    assert ends("ls", "--state", "archived") == 0
    assert capsys.readouterr().out.count("[INCOMPLETE]") == 1, kept
    assert ends("show", cut) == 0
    assert "reason: a crash" in capsys.readouterr().out


def test_usage_and_failures_are_told_apart(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        [], ["dance"], ["show"], ["ls", "--limit", "x"], ["ls", "--from", "yesterday"], ["ls", "--state", "lost"],
        ["verify"], ["verify", kept, "--all"], ["get", kept, "-o", "nowhere"], ["get", kept, "x", "--zip"],
        ["retain", kept, "--until", "2001-01-01"], ["hold", kept], ["hold", kept, "--reason", " "],
    ):  # fmt: skip
        assert ends(*argv) == 2, argv
    capsys.readouterr()
    for argv in (["show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], ["show", "../x"], ["get", kept, "../../etc/passwd"]):
        assert ends(*argv) == 1, argv
        assert capsys.readouterr().err.startswith("mosaique: ")
    assert ends("ls", "--set", "archive.url=http://x") == 2


def test_a_bare_date_is_the_whole_day(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("show", kept, "--json") == 0
    started = datetime.fromisoformat(json.loads(capsys.readouterr().out)["started"]).astimezone()
    day = started.date().isoformat()
    assert ends("ls", "--from", day, "--to", day) == 0
    assert kept in capsys.readouterr().out
    assert ends("ls", "--from", day, "--to", f"{day}T00:00:00") == 0
    assert kept not in capsys.readouterr().out
    assert ends("retain", kept, "--until", "2090-12-31") == 0
    capsys.readouterr()
    assert ends("show", kept, "--json") == 0
    until = json.loads(capsys.readouterr().out)["retention"]["until"]
    assert datetime.fromisoformat(until) == datetime(2090, 12, 31, 23, 59, 59).astimezone()


def test_the_package_is_fetched_and_is_a_bag(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("get", kept) == 0
    bagit.Bag(kept).validate()
    assert ends("get", kept) == 1, "nothing is overwritten"
    shutil.rmtree(kept)
    Path("out").mkdir()
    assert ends("get", kept, "--zip", "-o", "out") == 0
    with zipfile.ZipFile(f"out/salon-{kept}.zip") as bag:
        bag.extractall("unpacked")
    bagit.Bag(f"unpacked/{kept}").validate()
    capsys.readouterr()
    assert ends("get", kept, "data/recording.mp4", "-o", "out") == 0
    assert capsys.readouterr().out == "out/recording.mp4\n"
    assert Path("out/recording.mp4").read_bytes() == film(kept).read_bytes()


def test_what_is_damaged_is_not_kept(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("verify", "--all") == 0
    body = bytearray(film(kept).read_bytes())
    body[len(body) // 2] ^= 1
    film(kept).write_bytes(body)
    assert ends("get", kept, "data/recording.mp4") == 1
    assert "not what was sealed" in capsys.readouterr().err
    assert not Path("recording.mp4").exists()
    assert [path for path in Path().iterdir() if path.name.startswith(".")] == []
    assert ends("verify", kept) == 1
    assert f"{kept}  DAMAGED: data/recording.mp4" in capsys.readouterr().out
    assert ends("verify", kept, "--json") == 1
    assert json.loads(capsys.readouterr().out)[0]["ok"] is False
    assert ends("ls", "--only", "damaged") == 0
    assert "[DAMAGED]" in capsys.readouterr().out


def test_the_archive_survives_the_machine(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    gone = make("gone", "old")
    assert ends("hold", kept, "--reason", "case 12") == 0
    assert ends("retain", kept, "--until", "2090-01-01T00:00:00Z") == 0
    assert ends("delete", kept, "--reason", "x") == 1
    assert "held by account:" in capsys.readouterr().err
    assert ends("delete", gone, "--reason", "worthless") == 0
    assert ends("audit", "--verify") == 0, "and copies the log into the archive"
    capsys.readouterr()
    assert ends("key", "--json") == 0
    fingerprint = json.loads(capsys.readouterr().out)["fingerprint"]

    Path("new").mkdir()
    Path("var/archive").rename("new/archive")
    there = ["--set", "data_dir=new"]
    assert ends("reindex", *there, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"recordings": 2, "keys": [fingerprint], "audit_logs": 1, "problems": []}
    assert ends("ls", *there) == 0
    listed = capsys.readouterr().out
    assert "[held] [kept until 2090-01-01]" in listed
    assert "deleted" in listed
    assert ends("audit", *there, "--recording", gone) == 0
    assert "delete " in capsys.readouterr().out
    assert ends("audit", *there, "--verify") == 0
    assert ends("delete", kept, "--reason", "x", *there) == 1


def test_a_changed_audit_log_is_found(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        assert ends("hold", kept, "--reason", f"case {number}") == 0
    (path,) = Path("var/audit").rglob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"case 1", b"case 9"))
    capsys.readouterr()
    assert ends("audit", "--verify") == 1
    out, err = capsys.readouterr()
    assert "NOT OK" in out
    assert "was altered" in err
