from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import pytest

from mixer import cli
from mixer.compose_film import FILM, PRESETS, Writer, encoder_options
from mixer.video.frame import picture_of
from mixer.video.layout import parse_layout
from mixer.video.picture import Picture
from tests.mixer.video.clips import moving, psnr_db, slide

WIDTH, HEIGHT, COUNT = 320, 180, 90


@cache
def _page(number: int) -> Picture:
    return slide(160, 90, number)


@cache
def _people(index: int) -> Picture:
    """Three things that move and a page that stands, as a meeting has them."""
    canvas = Picture.blank(WIDTH, HEIGHT, (16, 24, 32))
    canvas.paste(_page(index // 45))
    canvas.paste(moving(160, 90, index), 160, 0)
    canvas.paste(moving(160, 90, -2 * index), 0, 90)
    canvas.paste(moving(160, 90, index // 3), 160, 90)
    return canvas


def _film(path: Path, preset: str, bitrate_bps: int = 150_000) -> Path:
    body = parse_layout({"canvas": {"width": WIDTH, "height": HEIGHT, "fps": 30}})
    writer = Writer(path, body, sound=False, bitrate_bps=bitrate_bps, preset=preset)
    try:
        for index in range(COUNT):
            writer.picture(_people(index), index)
        writer.finish()
    finally:
        writer.close()
    return path


def _quality_db(path: Path) -> float:
    with av.open(str(path)) as container:
        found = [picture_of(frame) for frame in container.decode(video=0)]
    assert len(found) == COUNT
    return sum(psnr_db(made, _people(index)) for index, made in enumerate(found)) / COUNT


def test_ours_are_settings_that_x264_takes(tmp_path: Path) -> None:
    # x264 passes over a name that it doesn't know; what it uses it writes into the stream.
    written = _film(tmp_path / "a.mp4", FILM).read_bytes()
    for setting in (
        b"subme=1 ", b"me=dia ", b"rc_lookahead=30 ", b"direct=3 ", b"aq=2:0.70", b"deadzone=11,6 ",
        b"threads=1 ", b"bframes=3 ", b"mbtree=1 ",
    ):  # fmt: skip
        assert setting in written, setting


def test_a_preset_by_name_is_x264_s_own(tmp_path: Path) -> None:
    written = _film(tmp_path / "a.mp4", "veryfast").read_bytes()
    assert b"subme=2 " in written
    assert b"rc_lookahead=10 " in written
    assert {name: encoder_options(name) for name in PRESETS if name != FILM} == {
        name: {"preset": name} for name in PRESETS[1:]
    }


@pytest.mark.parametrize("bitrate_bps", [80_000, 300_000])
def test_a_film_is_as_good_as_veryfast_and_not_larger(tmp_path: Path, bitrate_bps: int) -> None:
    ours = _film(tmp_path / "ours.mp4", FILM, bitrate_bps)
    theirs = _film(tmp_path / "theirs.mp4", "veryfast", bitrate_bps)
    assert _quality_db(ours) > _quality_db(theirs) - 0.2
    assert ours.stat().st_size < theirs.stat().st_size * 1.05


@pytest.mark.parametrize(
    ("options", "subme"),
    [([], b"subme=1 "), (["--preset", "superfast"], b"subme=1 "), (["--preset", "faster"], b"subme=4 ")],
)
def test_the_command_takes_presets(tmp_path: Path, options: list[str], subme: bytes) -> None:
    source = _film(tmp_path / "in.mp4", "ultrafast")
    out = tmp_path / "out.mp4"
    assert cli.main(["compose", *options, "-o", str(out), str(source)]) == 0
    assert subme in out.read_bytes()
    assert (b"rc_lookahead=30 " in out.read_bytes()) == (not options)


def test_a_preset_that_is_none_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["compose", "--preset", "fastest", "-o", str(tmp_path / "o.mp4"), "a.mp4"])
    assert caught.value.code == 2
    assert "film" in capsys.readouterr().err
