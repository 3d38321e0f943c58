"""A recorded room composed again: who is seen and heard, when; whatever is cut, missing or wrong."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mixer import cli
from mixer.compose_io import Composed
from mixer.compose_package import RecordedPackage
from mixer.compose_timeline import compose_recording
from mixer.replay import Replay, parse_events
from mixer.video.layout import CanvasBody, LayoutBody, parse_layout
from tests.mixer.recorded import Package
from tests.mixer.test_compose import BLUE, GREEN, RED, close, pictures, power_at, sound

CANVAS = CanvasBody(width=320, height=180, fps=15)
PLAIN = {"names": False, "speaker_border": False, "canvas": {"width": 320, "height": 180, "fps": 15}}
LEFT, RIGHT, MIDDLE = (90, 80), (90, 240), (90, 160)


def compose(directory: Path, out: Path, layout: LayoutBody | None = None) -> Composed:
    with RecordedPackage.open([directory], None) as found:
        replay = Replay(parse_events(found.timeline), layout)
        return compose_recording(found, replay, out, CANVAS, bitrate_bps=400_000)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Six seconds: Ann is red and 440 Hz, Bob comes at 2 s, green and 1000 Hz, hides at 4 s, and leaves at 5 s."""
    package = Package(tmp_path / "package")
    package.event(0, "layout", version=1, layout=PLAIN | {"preset": "grid"})
    package.join(0, "ann")
    package.event(0, "video-on", participant="ann")
    package.camera("ann", RED, 0, 6)
    package.voice("ann", 440, 0, 6)
    package.join(2, "bob")
    package.event(2, "video-on", participant="bob")
    package.camera("bob", GREEN, 2, 4)
    package.voice("bob", 1000, 2, 3)  # then he is muted: nothing of it was kept
    package.event(3, "mute", participant="bob")
    package.event(3, "layout", version=2, layout=PLAIN | {"preset": "speaker"})
    package.event(3.5, "speaker", participant="bob")
    package.event(4, "video-off", participant="bob")
    package.event(5, "leave", participant="bob")
    package.event(5, "layout", version=3, layout=PLAIN | {"preset": "grid"})
    return package.close(6)


def test_everyone_is_seen_as_they_were(talk: Path, tmp_path: Path) -> None:
    composed = compose(talk, tmp_path / "out.mp4")
    assert (composed.frames, composed.duration_s, composed.broken) == (90, 6.0, {})
    frames = pictures(tmp_path / "out.mp4")
    assert len(frames) == 90
    alone, both = frames[15], frames[40]
    assert close(alone[MIDDLE], RED)
    assert close(both[LEFT], RED)
    assert close(both[RIGHT], GREEN)
    assert close(frames[50][MIDDLE], RED), "the speaker's layout, before he has the floor"
    assert close(frames[56][MIDDLE], GREEN)
    assert not close(frames[70][20, 20], GREEN), "a placeholder"
    assert not close(frames[70][20, 20], RED)
    assert close(frames[80][MIDDLE], RED)


def test_a_layout_changes_at_the_picture_of_its_time(talk: Path, tmp_path: Path) -> None:
    compose(talk, tmp_path / "out.mp4")
    frames = pictures(tmp_path / "out.mp4")
    assert close(frames[44][RIGHT], GREEN)
    assert close(frames[45][RIGHT], RED), "3.0 s"
    assert not close(frames[29][RIGHT], GREEN)
    assert any(close(frames[n][RIGHT], GREEN) for n in (30, 31)), "he came at 2.0 s"


def test_voices_are_mixed_as_they_were_and_in_time(talk: Path, tmp_path: Path) -> None:
    compose(talk, tmp_path / "out.mp4")
    pcm = sound(tmp_path / "out.mp4")
    assert len(pcm) / 48_000 == pytest.approx(6.0, abs=0.06)
    before, while_, after = (pcm[int(s * 48_000) :][:33_600] for s in (1.0, 2.2, 3.4))
    assert power_at(before, 440) > 0.05
    assert power_at(while_, 1000) > 0.05
    assert power_at(after, 440) > 0.05
    assert power_at(before, 1000) < 0.02 * power_at(while_, 1000) > 20 * power_at(after, 1000)
    onset = next(n for n in range(150, 300) if power_at(pcm[n * 480 : n * 480 + 960], 1000) > 0.02) / 100
    assert onset == pytest.approx(2.0, abs=0.05)


def test_another_layout_for_the_same_people(talk: Path, tmp_path: Path) -> None:
    layout = parse_layout(PLAIN | {"preset": "side-by-side"})
    compose(talk, tmp_path / "out.mp4", layout)
    frames = pictures(tmp_path / "out.mp4")
    for number in (40, 50, 56):
        assert close(frames[number][LEFT], RED)
        assert close(frames[number][RIGHT], GREEN)


@pytest.mark.parametrize("codec", ["G722", "PCMU", "PCMA"])
def test_a_telephone_is_heard_too(tmp_path: Path, codec: str) -> None:
    package = Package(tmp_path / "package")
    package.join(0, "ann", kind="phone")
    package.voice("ann", 440, 0.5, 2.5, codec=codec)
    composed = compose(package.close(3), tmp_path / "out.mp4")
    assert (composed.duration_s, composed.broken) == (3.0, {})
    pcm = sound(tmp_path / "out.mp4")
    assert power_at(pcm[48_000:96_000], 440) > 0.05 > 20 * power_at(pcm[2_000:20_000], 440)


def test_lost_packets_are_concealed_and_pauses_are_silent(tmp_path: Path) -> None:
    package = Package(tmp_path / "package")
    package.join(0, "ann")
    package.voice("ann", 440, 0, 4, lost=range(100, 103))
    package.voice("ann", 440, 5, 6)
    compose(package.close(6), tmp_path / "out.mp4")
    pcm = sound(tmp_path / "out.mp4")
    levels = [float(np.abs(pcm[n * 960 : (n + 1) * 960]).max()) for n in range(len(pcm) // 960)]
    assert min(levels[60:190]) > 0.02, "not a hole where some were lost"
    assert max(levels[225:245]) < 0.01
    assert max(levels[260:295]) > 0.2


def test_whom_the_mix_let_wait_is_as_late_as_in_the_film(tmp_path: Path) -> None:
    package = Package(tmp_path / "package")
    package.event(0, "layout", version=1, layout=PLAIN | {"preset": "grid"})
    package.join(0, "ann")
    package.event(0, "video-on", participant="ann")
    package.voice("ann", 440, 0, 2)
    package.camera("ann", RED, 0, 2)
    package.voice("ann", 440, 2, 4, wait_ms=160)  # the line has become bad
    package.camera("ann", RED, 2, 4, wait_ms=160)
    package.voice("ann", 1000, 4, 6, wait_ms=160)
    package.camera("ann", BLUE, 4, 6, wait_ms=160)
    compose(package.close(6), tmp_path / "out.mp4")
    pcm, frames = sound(tmp_path / "out.mp4"), pictures(tmp_path / "out.mp4")
    onset = next(n for n in range(350, 500) if power_at(pcm[n * 480 : n * 480 + 960], 1000) > 0.02) / 100
    assert onset == pytest.approx(4.12, abs=0.05)
    assert next(n for n, frame in enumerate(frames) if close(frame[MIDDLE], BLUE)) / 15 == pytest.approx(
        4.12, abs=0.05
    )


def test_who_comes_back_does_not_begin_with_the_picture_they_left_by(tmp_path: Path) -> None:
    package = Package(tmp_path / "package")
    package.event(0, "layout", version=1, layout=PLAIN | {"preset": "grid"})
    package.join(0, "ann")
    package.event(0, "video-on", participant="ann")
    package.camera("ann", RED, 0, 1)
    package.event(1, "leave", participant="ann")
    package.join(2, "ann")
    package.event(2, "video-on", participant="ann")
    compose(package.close(3), tmp_path / "out.mp4")
    frames = pictures(tmp_path / "out.mp4")
    assert close(frames[10][20, 20], RED)
    assert not close(frames[35][20, 20], RED)


def test_a_gap_is_a_picture_that_stands_still(tmp_path: Path) -> None:
    package = Package(tmp_path / "package")
    package.event(0, "layout", version=1, layout=PLAIN | {"preset": "grid"})
    package.join(0, "ann")
    package.event(0, "video-on", participant="ann")
    package.camera("ann", RED, 0, 2)
    package.end("ann")  # the worker died; the next one writes another file
    package.event(2, "gap", duration=6.0)
    package.event(2, "join", participant="ann", name="Ann")
    package.camera("ann", BLUE, 8, 10)
    compose(package.close(10), tmp_path / "out.mp4")
    frames = pictures(tmp_path / "out.mp4")
    assert [close(frames[n][MIDDLE], RED) for n in (10, 60, 118)] == [True] * 3, "5 s are long over"
    assert close(frames[125][MIDDLE], BLUE)


def test_a_shared_screen_has_its_tile(tmp_path: Path) -> None:
    package = Package(tmp_path / "package")
    package.event(0, "layout", version=1, layout=PLAIN | {"preset": "grid"})
    package.join(0, "ann")
    package.event(0, "video-on", participant="ann")
    package.camera("ann", RED, 0, 3)
    package.event(1, "share", participant="ann")
    package.camera("ann", BLUE, 1, 2, kind="screen")
    package.event(2, "unshare", participant="ann")
    compose(package.close(3), tmp_path / "out.mp4")
    frames = pictures(tmp_path / "out.mp4")
    assert close(frames[25][LEFT], RED)
    assert close(frames[25][RIGHT], BLUE)
    assert close(frames[40][MIDDLE], RED)


def test_cut_files_are_composed_to_the_cut(talk: Path, tmp_path: Path) -> None:
    chance = random.Random(11)
    whole = {path: path.read_bytes() for path in (talk / "data/tracks").iterdir()}
    for _ in range(6):
        for path, data in whole.items():
            path.write_bytes(data[: chance.randrange(len(data))])
        composed = compose(talk, tmp_path / "out.mp4")
        assert composed.frames == 90
        frames = pictures(tmp_path / "out.mp4")
        share = (talk / "data/tracks/001.mkv").stat().st_size / len(whole[talk / "data/tracks/001.mkv"])
        if share > 0.5:
            assert close(frames[15][MIDDLE], RED)


def test_a_track_that_is_missing_or_rubbish_costs_only_itself(talk: Path, tmp_path: Path) -> None:
    (talk / "data/tracks/002.mkv").write_bytes(b"rubbish" * 100)
    (talk / "data/tracks/001.mka").unlink()
    composed = compose(talk, tmp_path / "out.mp4")
    assert sorted(composed.broken) == ["data/tracks/001.mka", "picture of bob"]
    frames = pictures(tmp_path / "out.mp4")
    assert close(frames[40][LEFT], RED)
    assert power_at(sound(tmp_path / "out.mp4")[110_000:140_000], 1000) > 0.05


# --- the command


def bagged(directory: Path, out: Path, extra: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(out, "w") as bag:
        for path in directory.rglob("*"):
            if path.is_file():
                bag.write(path, Path("01KABC") / path.relative_to(directory))
        for name, data in (extra or {}).items():
            bag.writestr(name, data)
    return out


def test_a_folder_a_bag_and_single_tracks_give_the_same(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = bagged(talk, tmp_path / "bag.zip", {"01KABC/data/tracks/../../../evil.mkv": b"x", "/abs.mkv": b"x"})
    tracks = [str(path) for path in sorted((talk / "data/tracks").iterdir())]
    timeline = str(talk / "data/timeline.jsonl")
    form = ["--size", "320x180", "--fps", "15"]
    ways = {
        "folder": [str(talk)],
        "bag": [str(bag)],
        "tracks": ["--timeline", timeline, *tracks],
        "data": ["--timeline", timeline, str(talk / "data/tracks")],
    }
    for name, inputs in ways.items():
        assert cli.main(["compose", *form, "-o", str(tmp_path / f"{name}.mp4"), *inputs]) == 0
        printed = capsys.readouterr()
        assert "100%" in printed.err
        assert "6.0 s, 90 pictures" in printed.out
    first = (tmp_path / "folder.mp4").read_bytes()
    assert all((tmp_path / f"{name}.mp4").read_bytes() == first for name in ways)
    assert not (tmp_path / "evil.mkv").exists()
    assert cli.main(["compose", "--layout", "pip", *form, "-o", str(tmp_path / "pip.mp4"), str(bag)]) == 0
    assert (tmp_path / "pip.mp4").read_bytes() != first


@pytest.mark.parametrize(
    ("make", "status", "message"),
    [
        (lambda d: [str(d / "nothing")], 2, "no file"),
        (lambda d: ["--timeline", str(d / "nothing"), str(d)], 2, "no file"),
        (lambda d: [str(d / "empty")], 2, "--timeline"),
        (lambda d: [str(d / "film.zip")], 1, "cannot be read"),
        (lambda d: ["--timeline", str(d / "film.zip"), str(d / "package")], 1, "cannot be read"),
        (
            lambda d: ["--timeline", str(d / "package/data/timeline.jsonl"), str(d / "film.zip.txt")],
            1,
            "no track",
        ),
        (lambda d: ["--timeline", str(d / "package/data/timeline.jsonl"), str(d / "empty")], 1, "no tracks"),
    ],
)
def test_wrong_input_is_named(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: object, status: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "film.zip").write_bytes(b"not a zip")
    (tmp_path / "film.zip.txt").write_bytes(b"x")
    arguments = make(tmp_path)  # type: ignore[operator]
    assert cli.main(["compose", "-o", str(tmp_path / "out.mp4"), *arguments]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
    assert not list(tmp_path.glob(".*"))
