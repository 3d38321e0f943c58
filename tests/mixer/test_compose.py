from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mixer import cli, compose
from mixer.compose import compose_files
from mixer.compose_io import Ahead, ComposeFailed, VideoInput
from mixer.errors import InvalidBody
from mixer.video.compositor import placement
from mixer.video.frame import frame_of, picture_of
from mixer.video.layout import LayoutBody, Source, Tile, arrange, parse_layout
from mixer.video.picture import Picture, Rgb
from mixer.video.scaler import Scaler
from tests.mixer.video.clips import moving

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (40, 60, 220)
SMALL = {"width": 320, "height": 180, "fps": 15}


def clip(
    path: Path,
    *,
    rgb: Rgb | None = None,
    seconds: float = 1.0,
    size: tuple[int, int] = (160, 90),
    fps: int = 15,
    tone_hz: float | None = None,
    tone_s: tuple[float, float] = (0.0, 99.0),
    codec: str = "libx264",
) -> Path:
    """A file with a plain picture, a tone, or both."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=fps) if rgb else None
        audio = (
            out.add_stream("aac" if codec == "libx264" else "libopus", rate=48_000, layout="mono")
            if tone_hz
            else None
        )
        if video is not None and rgb is not None:
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            for index in range(round(seconds * fps)):
                frame = frame_of(Picture.blank(*size, rgb))
                frame.pts, frame.time_base = index, Fraction(1, fps)
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
        if audio is not None and tone_hz is not None:
            t = np.arange(round(seconds * 48_000)) / 48_000
            wave = 0.3 * np.sin(2 * np.pi * tone_hz * t) * ((t >= tone_s[0]) & (t < tone_s[1]))
            fifo = av.AudioFifo()
            sound = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
            sound.sample_rate = 48_000
            sound.pts = 0
            fifo.write(sound)
            while (chunk := fifo.read(960 if codec != "libx264" else 1024)) is not None:
                out.mux(audio.encode(chunk))
            out.mux(audio.encode(None))
    return path


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def sound(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def body(**fields: object) -> LayoutBody:
    return parse_layout({"canvas": SMALL, "names": False, "speaker_border": False} | fields)


def close(one: np.ndarray, other: Rgb) -> bool:
    return bool(np.abs(one.astype(int) - other).max() <= 14)


def power_at(pcm: np.ndarray, hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)))) / len(pcm)
    at = round(hz * len(pcm) / 48_000)
    return float(spectrum[at - 3 : at + 4].max())


def test_every_input_is_in_its_tile_for_its_time(tmp_path: Path) -> None:
    inputs = [
        clip(tmp_path / "ada.mp4", rgb=RED, seconds=2),
        clip(tmp_path / "bob.webm", rgb=GREEN, codec="libvpx", fps=30, size=(120, 160)),
    ]
    seen: list[float] = []
    out = tmp_path / "out.mp4"
    composed = compose_files(inputs, out, body(), fps=15, progress=seen.append)
    assert (composed.frames, composed.duration_s, composed.broken) == (30, 2.0, {})
    assert seen == sorted(seen)
    assert len(seen) == 31
    assert seen[14] == pytest.approx(0.5, abs=0.02)
    assert seen[-1] == 1.0
    frames = pictures(out)
    assert len(frames) == 30
    assert frames[0].shape == (180, 320, 3)
    for frame in (frames[0], frames[12]):
        assert close(frame[90, 80], RED)
        assert close(frame[90, 240], GREEN)
    assert close(frames[25][90, 80], RED)
    assert not close(frames[25][10, 240], GREEN)  # bob's file has ended: a placeholder


def test_voices_are_mixed_and_stay_in_step_with_the_pictures(tmp_path: Path) -> None:
    inputs = [
        clip(tmp_path / "a.mp4", rgb=RED, seconds=2, tone_hz=440),
        clip(tmp_path / "b.webm", seconds=2, tone_hz=1000, tone_s=(1.0, 2.0), codec="libvpx"),
    ]
    out = tmp_path / "out.mp4"
    compose_files(inputs, out, body())
    pcm = sound(out)
    assert 2.0 <= len(pcm) / 48_000 <= 2.1  # the codecs fill up their last frames
    assert np.abs(pcm).max() <= 1.0
    first, second = pcm[4800:43_200], pcm[52_800:91_200]
    assert power_at(second, 440) == pytest.approx(power_at(first, 440), rel=0.2)
    assert power_at(second, 1000) > 30 * power_at(first, 1000)
    assert len(pictures(out)) in (30, 31)
    onset_s = next(n for n in range(90, 200) if power_at(pcm[n * 480 : n * 480 + 960], 1000) > 0.02) / 100
    assert onset_s == pytest.approx(1.0, abs=0.045)  # AAC's priming is 21 ms of it


def test_the_speaker_preset_follows_the_voice(tmp_path: Path) -> None:
    inputs = [
        clip(tmp_path / "a.mp4", rgb=RED, seconds=6, tone_hz=440, tone_s=(0, 2)),
        clip(tmp_path / "b.mp4", rgb=GREEN, seconds=6, tone_hz=600, tone_s=(2.5, 6)),
    ]
    out = tmp_path / "out.mkv"
    compose_files(inputs, out, body(preset="speaker"))
    frames = pictures(out)
    assert close(frames[20][90, 160], RED)
    assert close(frames[80][90, 160], GREEN)


def test_a_region_names_its_file(tmp_path: Path) -> None:
    inputs = [clip(tmp_path / "a.mp4", rgb=RED), clip(tmp_path / "b.mp4", rgb=BLUE)]
    regions = [
        {"id": "l", "width": "1/2", "height": "1", "source": "participant:b"},
        {"id": "r", "x": "1/2", "width": "1/2", "height": "1", "source": "any"},
    ]
    out = tmp_path / "out.mp4"
    compose_files(inputs, out, body(preset="custom", regions=regions))
    frame = pictures(out)[0]
    assert close(frame[90, 80], BLUE)
    assert close(frame[90, 240], RED)
    regions[0]["source"] = "participant:nobody"
    with pytest.raises(InvalidBody):
        compose_files(inputs, out, body(preset="custom", regions=regions))


def test_two_files_of_one_name_are_two_people(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    inputs = [clip(tmp_path / "a.mp4", rgb=RED), clip(tmp_path / "x" / "a.mp4", rgb=BLUE)]
    out = tmp_path / "out.mp4"
    compose_files(inputs, out, body())
    assert close(pictures(out)[0][90, 240], BLUE)


def test_an_input_that_breaks_off_costs_only_its_tile(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.mkv", rgb=RED, seconds=2)
    cut = clip(tmp_path / "b.mkv", rgb=GREEN, seconds=2)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 3])
    out = tmp_path / "out.mp4"
    composed = compose_files([whole, cut], out, body())
    assert composed.frames == 30
    assert close(pictures(out)[29][90, 80], RED)


@pytest.mark.parametrize("content", [b"", b"not a film"])
def test_what_is_no_media_fails_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    wrong = tmp_path / "wrong.mp4"
    wrong.write_bytes(content)
    with pytest.raises(ComposeFailed, match=r"wrong\.mp4"):
        compose_files([wrong], tmp_path / "out.mp4", body())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.mp4"]
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]


def test_an_interrupted_run_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", rgb=RED, seconds=3)
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old one")

    def interrupt(done: float) -> None:
        if done > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compose_files([source], out, body(), progress=interrupt)
    assert out.read_bytes() == b"the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "out.mp4"]
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]


def test_the_tiles_are_those_of_the_live_grid(tmp_path: Path) -> None:
    colours: list[Rgb] = [RED, GREEN, BLUE, (200, 200, 40), (200, 40, 200)]
    inputs = [clip(tmp_path / f"{i}.mp4", rgb=rgb, seconds=0.2) for i, rgb in enumerate(colours)]
    out = tmp_path / "out.mp4"
    compose_files(inputs, out, body())
    frame = pictures(out)[1]
    tiles = arrange(body(), [Source(str(i), "", "webrtc", True) for i in range(5)], None)
    for tile, colour in zip(tiles, colours, strict=True):
        assert close(frame[tile.y + tile.height // 2, tile.x + tile.width // 2], colour)


def test_a_clip_decoded_whole_before_the_first_tick_is_still_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FarAhead(Ahead):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            while not self._ready.full():
                self._thread.join(0.001)

    monkeypatch.setattr(compose, "Ahead", FarAhead)
    out = tmp_path / "out.mp4"
    compose_files([clip(tmp_path / "a.mp4", rgb=RED, seconds=0.2)], out, body())
    assert close(pictures(out)[1][90, 160], RED)


@pytest.mark.parametrize("fit", ["cover", "contain"])
def test_a_picture_that_comes_in_its_tile_s_size_is_the_one_that_the_scene_would_make(
    tmp_path: Path, fit: str
) -> None:
    path = clip(tmp_path / "a.mp4", rgb=RED, size=(222, 124))
    tile = _tile(fit)
    whole, fitted = VideoInput(path), VideoInput(path)
    fitted.tile = tile
    frame, scaled = whole.advance(0.0), fitted.advance(0.0)
    assert frame is not None
    assert scaled is not None
    wanted = Scaler().place(frame, placement(222, 124, tile.width, tile.height, tile.fit))
    again = placement(scaled.width, scaled.height, tile.width, tile.height, tile.fit)
    assert again.crop == (0, 0, wanted.width, wanted.height)  # the scene has nothing left to scale
    for made, plane in zip(Scaler().place(scaled, again).planes, wanted.planes, strict=True):
        assert np.array_equal(made, plane)
    assert picture_of(frame).width == 222
    for source in (whole, fitted):
        source.close()


@pytest.mark.parametrize("keyframes_s", [0.5, 6.0])
@pytest.mark.parametrize("size", [(96, 54), (160, 90), None])
def test_a_small_vp8_tile_is_decoded_without_its_loop_filter_from_the_first_picture_on(
    tmp_path: Path, size: tuple[int, int] | None, keyframes_s: float
) -> None:
    path = _vp8(tmp_path / "a.webm", keyframes_s)
    source = VideoInput(path)
    assert source.has_pictures
    if size is not None:
        source.tile = replace(_tile("cover"), width=size[0], height=size[1])
    got = [picture_of(frame) for n in range(35) if (frame := source.advance((n + 0.5) / 5)) is not None]
    source.close()
    whole, bare = _decoded(path, {}), _decoded(path, {"skip_loop_filter": "nokey"})
    assert len(got) == len(whole) == 35
    assert sum(not np.array_equal(one.y, other.y) for one, other in zip(whole, bare, strict=True)) > 15
    wanted = bare if size == (96, 54) else whole
    if size == (96, 54) and keyframes_s > 5:  # that they are too far apart is known from the second one on
        wanted = bare[:30] + whole[30:]
    for made, picture in zip(got, wanted, strict=True):
        expected = picture
        if size is not None:
            place = placement(picture.width, picture.height, *size, "cover")
            expected = Scaler().place(frame_of(picture), place)
        assert np.array_equal(made.y, expected.y)


def _vp8(path: Path, keyframes_s: float) -> Path:
    with av.open(str(path), "w") as out:
        options = {"deadline": "realtime", "cpu-used": "8", "g": str(round(keyframes_s * 5))}
        video = out.add_stream("libvpx", rate=5, options=options)
        video.width, video.height, video.pix_fmt, video.bit_rate = 320, 180, "yuv420p", 100_000
        for index in range(35):
            frame = frame_of(moving(320, 180, index))
            frame.pts, frame.time_base = index, Fraction(1, 5)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def _decoded(path: Path, options: dict[str, str]) -> list[Picture]:
    """By a decoder of the test's own."""
    decoder = av.CodecContext.create("vp8", "r")
    decoder.thread_count, decoder.options = 1, options
    with av.open(str(path)) as container:
        return [picture_of(frame) for packet in container.demux(video=0) for frame in decoder.decode(packet)]


def _tile(fit: str) -> Tile:
    layout = body(fit=fit)
    return arrange(layout, [Source(str(n), "", "webrtc", True) for n in range(4)], None)[0]


@pytest.mark.parametrize(("size", "ticks"), [((160, 90), 16), ((1920, 1080), 8)])
def test_batches_of_large_pictures_are_short(tmp_path: Path, size: tuple[int, int], ticks: int) -> None:
    source = VideoInput(clip(tmp_path / "a.mp4", rgb=RED, size=size, seconds=2))
    ahead = Ahead([source], 15)
    try:
        assert len(ahead._ready.get()) == ticks
    finally:
        ahead.close()
        source.close()


def test_each_tick_of_a_batch_has_its_own_picture_and_its_own_end(tmp_path: Path) -> None:
    sources = [
        VideoInput(clip(tmp_path / "a.mp4", rgb=RED, seconds=2)),
        VideoInput(clip(tmp_path / "b.mp4", rgb=GREEN, seconds=0.4, fps=5)),
    ]
    ahead = Ahead(sources, 15)
    try:
        taken = [ahead.take() for _ in range(35)]
    finally:
        ahead.close()
        for source in sources:
            source.close()
    shown = [[tick.frames[n] is not None for tick in taken] for n in (0, 1)]
    assert shown[0] == [True] * 30 + [False] * 5
    assert [index for index, there in enumerate(shown[1]) if there] == [0, 3]
    assert [tick.ended for tick in taken] == [[n >= 30, n >= 4] for n in range(35)]


# --- the command


def test_the_command_composes_with_a_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = clip(tmp_path / "a.mp4", rgb=RED)
    layout = tmp_path / "layout.json"
    layout.write_text(json.dumps({"preset": "grid", "names": False, "canvas": {"fps": 15}}))
    out = tmp_path / "out.mp4"
    arguments = ["compose", "--layout", str(layout), "--size", "160x90", "-o", str(out), str(source)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert "100%" in printed.err
    assert "1.0 s, 15 pictures" in printed.out
    assert pictures(out)[0].shape == (90, 160, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layout", "mosaic"], "neither a preset"),
        (["--layout", "custom"], "at least one region"),
        (["--size", "1280"], "WIDTHxHEIGHT"),
        (["--size", "1281x720"], "canvas.width"),
        (["--fps", "0"], "canvas.fps"),
        (["--kbps", "0"], "positive"),
    ],
)
def test_wrong_usage_is_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    source = clip(tmp_path / "a.mp4", rgb=RED, seconds=0.2)
    assert cli.main(["compose", *options, "-o", str(tmp_path / "out.mp4"), str(source)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("output", ["out.avi", "nowhere/out.mp4", "a.mp4"])
def test_an_output_that_cannot_be_is_status_2(tmp_path: Path, output: str) -> None:
    source = clip(tmp_path / "a.mp4", rgb=RED, seconds=0.2)
    assert cli.main(["compose", "-o", str(tmp_path / output), str(source)]) == 2
    assert cli.main(["compose", "-o", str(tmp_path / "out.mp4"), str(tmp_path / "none.mp4")]) == 2


def test_a_file_that_is_no_film_is_status_1(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.mp4"
    wrong.write_bytes(b"x" * 100)
    assert cli.main(["compose", "-o", str(tmp_path / "out.mp4"), str(wrong)]) == 1


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["compose", "--help"])
    assert caught.value.code == 0
    assert "side-by-side" in io.StringIO(capsys.readouterr().out).read()
