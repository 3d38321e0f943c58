"""From packets to a film: opened, decoded, timed; cut anywhere; paused; continued after a death; on a bad disk."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import pytest

from recording import durable, package
from recording.archive import Archive, Recording
from recording.durable import AppendFile, WriterLock
from recording.errors import BadPackage, PackageBusy, RecordingError, WrongState
from recording.fragments import scan
from recording.recorder import Recorder
from recording.recovery import recover
from recording.timeline import read_timeline
from recording.writer import Alert
from tests.recording.conftest import feed, open_recorder
from tests.recording.media import FRAME_90K, clip, decode


def timeline(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / package.TIMELINE).read_text().splitlines()]


def skew_ms(flashes: list[float], beeps: list[float]) -> float:
    assert len(flashes) == len(beeps) > 0
    return max(abs(a - b) for a, b in zip(flashes, beeps, strict=True)) * 1000


def test_film(archive: Archive) -> None:
    media = clip(6)
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, media)
    feed(recorder, media, offset_s=7)  # the room is older than its recording
    summary = recorder.close(13 * 90_000)

    film = decode(recording.directory / package.MEDIA)
    assert film.times[0] == 0
    assert film.video_s == pytest.approx(6, abs=0.001)
    assert film.audio_s == pytest.approx(6, abs=0.05)
    assert (
        skew_ms(film.flashes[1:], film.beeps[1:]) <= 40
    )  # the first beep begins before the first whole AAC frame
    assert (summary.complete, summary.reason) == (True, "")
    assert summary.duration_s == pytest.approx(6, abs=0.05)
    assert summary.video is not None
    assert summary.video.frames == 180
    assert summary.size == (recording.directory / package.MEDIA).stat().st_size
    assert summary.sha256 == durable.file_sha256(recording.directory / package.MEDIA)
    assert timeline(recording.directory)[-1] == {"t": summary.duration_s, "event": "end"}


def test_fragments_are_a_second(archive: Archive) -> None:
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, clip(6))
    feed(recorder, clip(6))
    recorder.close(6 * 90_000)
    with (recording.directory / package.MEDIA).open("rb") as file:
        tail = scan(file)
    assert tail.fragments == 7  # 29 pictures each: with what the muxer waits for, 1 s
    assert tail.duration_s == pytest.approx(6, abs=0.05)


def test_begins_at_the_first_keyframe(archive: Archive) -> None:
    media = clip(4, key_every=60)
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, media)
    recorder.event("join", 10 * FRAME_90K, participant="p", name="P")
    for kind, data, pts, keyframe in media.merged():
        if kind == "audio":
            recorder.write_audio(data, pts)
        elif pts >= FRAME_90K:  # the first keyframe is missed; the next comes at 2 s
            recorder.write_video(data, pts, keyframe)
    recorder.close(4 * 90_000)
    film = decode(recording.directory / package.MEDIA)
    assert film.video_s == pytest.approx(2, abs=0.001)
    assert skew_ms(film.flashes[1:], film.beeps[1:]) <= 40
    assert timeline(recording.directory)[0]["t"] == 0


def test_sound_ahead_of_the_first_picture_is_kept(archive: Archive) -> None:
    """Encoding a picture takes longer than encoding sound: the sound of the first instants comes first."""
    media = clip(2)
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, media)
    for data, pts in media.audio[:20]:
        recorder.write_audio(data, pts)
    for picture in media.video:
        recorder.write_video(*picture)
    for data, pts in media.audio[20:]:
        recorder.write_audio(data, pts)
    recorder.close(2 * 90_000)
    film = decode(recording.directory / package.MEDIA)
    assert film.beeps[0] < 0.03
    assert len(film.beeps) == 2


def test_pause_is_cut_out(archive: Archive) -> None:
    media = clip(6)
    recording = archive.create("salon")
    asked = threading.Event()
    recorder = open_recorder(recording.directory, media, on_keyframe_needed=asked.set)
    for kind, data, pts, keyframe in media.merged():
        if kind == "video" and pts == 2 * 90_000 + 5 * FRAME_90K:
            recorder.pause(pts)
        if kind == "video" and pts == 4 * 90_000 - 5 * FRAME_90K:
            recorder.event("speaker", pts, participant="p")
            recorder.resume(pts)
        if kind == "video":
            recorder.write_video(data, pts, keyframe)
        else:
            recorder.write_audio(data, pts)
    summary = recorder.close(6 * 90_000)
    cut_s = 2 - 5 / 30  # from the pause to the keyframe at 4 s
    film = decode(recording.directory / package.MEDIA)
    assert asked.is_set()
    assert film.video_s == pytest.approx(6 - cut_s, abs=0.001)
    assert len(film.flashes) == 5  # those of the seconds 0, 1, 2, 4 and 5
    assert film.flashes[1] == pytest.approx(1, abs=0.001)
    assert skew_ms(film.flashes[-1:], film.beeps[-1:]) <= 40
    assert summary.complete
    lines = timeline(recording.directory)
    assert [line["event"] for line in lines] == ["pause", "speaker", "resume", "end"]
    assert lines[0]["t"] == lines[1]["t"] == lines[2]["t"] == pytest.approx(2 + 5 / 30, abs=0.001)
    assert lines[2]["duration"] == pytest.approx(cut_s, abs=0.001)


def test_playable_wherever_it_is_cut(record: Callable[..., Recording], tmp_path: Path) -> None:
    recording = record(media=clip(6))
    data = (recording.directory / package.MEDIA).read_bytes()
    with (recording.directory / package.MEDIA).open("rb") as file:
        init = scan(file).init_bytes
    rng = random.Random(5)
    cuts = sorted({init, init + 1, len(data) - 1, *(rng.randrange(init, len(data)) for _ in range(40))})
    cut_file = tmp_path / "cut.mp4"
    for cut in cuts:
        cut_file.write_bytes(data[:cut])
        with cut_file.open("rb") as file:
            tail = scan(file)
        assert tail.whole_bytes <= cut
        if not tail.fragments:
            assert cut < len(data) / 3  # the first second
            continue
        # about 1/6 of the bytes are a second: nothing but the fragment that was cut is missing
        assert tail.samples[1] >= min(180, 30 * int(6 * (cut - init) / len(data)) - 30)
        if data[tail.whole_bytes + 4 : tail.whole_bytes + 8] == b"moof" and cut < _media_start(
            data, tail.whole_bytes
        ):
            cut_file.write_bytes(
                data[: tail.whole_bytes]
            )  # FFmpeg opens no file that ends inside a header: recovery cuts
        with av.open(str(cut_file)) as container:
            assert sum(1 for p in container.demux(video=0) if p.size) >= tail.samples[1]


def _media_start(data: bytes, moof: int) -> int:
    return moof + int.from_bytes(data[moof : moof + 4], "big") + 8


def test_scan_survives_anything(record: Callable[..., Recording], tmp_path: Path) -> None:
    recording = record(media=clip(3))
    data = bytearray((recording.directory / package.MEDIA).read_bytes())
    rng = random.Random(11)
    spoilt = tmp_path / "spoilt.mp4"
    for _ in range(300):
        body = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            body[rng.randrange(0, 4000 if rng.random() < 0.5 else len(body))] = rng.randrange(256)
        spoilt.write_bytes(body)
        with spoilt.open("rb") as file:
            assert 0 <= scan(file).whole_bytes <= len(body)
    for body in (b"", b"\0" * 100, b"moov", os.urandom(1000)):
        spoilt.write_bytes(body)
        with spoilt.open("rb") as file:
            assert scan(file).whole_bytes == 0


def test_killed_then_recovered(archive: Archive, dead: Path) -> None:
    recording = archive.create("salon")
    shutil.copytree(dead, recording.directory, dirs_exist_ok=True)
    assert not (recording.directory / package.CLOSED).exists()
    with (recording.directory / package.MEDIA).open("ab") as file:
        file.write(b"\0\0\1\0moof torn")
    with (recording.directory / package.TIMELINE).open("ab") as file:
        file.write(b'{"t": 3, "eve')

    summary = recover(recording.directory, recording.description)
    assert not summary.complete
    assert summary.started == "2027-01-15T08:00:00.000Z"
    assert summary.duration_s >= 5.0  # 6 s were fed
    assert summary.size == (recording.directory / package.MEDIA).stat().st_size
    assert summary.sha256 == durable.file_sha256(recording.directory / package.MEDIA)
    film = decode(recording.directory / package.MEDIA)
    assert film.video_s == pytest.approx(summary.duration_s, abs=0.06)
    assert [line["event"] for line in timeline(recording.directory)] == ["join", "end"]
    assert recover(recording.directory, recording.description) == summary


def test_killed_then_continued(archive: Archive, dead: Path) -> None:
    recording = archive.create("salon")
    shutil.copytree(dead, recording.directory, dirs_exist_ok=True)
    media = clip(4)
    # The new room's clock began anew; by the wall clock 10 s have passed since the file's zero.
    recorder = open_recorder(recording.directory, media, wall=lambda: 1_800_000_010.0)
    feed(recorder, media, offset_s=1)
    summary = recorder.close(5 * 90_000)

    film = decode(recording.directory / package.MEDIA)
    assert film.video_s == pytest.approx(14, abs=0.05)
    assert film.flashes[-1] == pytest.approx(13, abs=0.05)
    assert skew_ms(film.flashes[-3:], film.beeps[-3:]) <= 40
    assert max(b - a for a, b in pairwise(film.times)) > 4  # the picture stands still meanwhile
    assert not summary.complete
    gap = next(line for line in timeline(recording.directory) if line["event"] == "gap")
    assert 5 <= float(str(gap["t"])) <= 6
    assert float(str(gap["t"])) + float(str(gap["duration"])) == pytest.approx(10, abs=0.05)
    with (recording.directory / package.MEDIA).open("rb") as file:
        tail = scan(file)
    assert tail.whole_bytes == summary.size
    audio_holes = tail.ends[2] - 1024 * tail.samples[2]
    assert audio_holes < 2 * 1024  # filled with silence: players let sound drift over holes


def test_another_form_is_not_continued(archive: Archive, dead: Path) -> None:
    recording = archive.create("salon")
    shutil.copytree(dead, recording.directory, dirs_exist_ok=True)
    with pytest.raises(WrongState):
        Recorder(recording.directory, width=64, height=64, fps=30, audio_extradata=None)
    open_recorder(recording.directory, clip(6)).close(0)  # the lock is free again


def test_closed_is_closed(record: Callable[..., Recording]) -> None:
    recording = record()
    with pytest.raises(WrongState):
        open_recorder(recording.directory, clip(3))


def test_one_recorder_at_a_time(archive: Archive) -> None:
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, clip(3))
    with pytest.raises(PackageBusy):
        WriterLock(recording.directory / package.LOCK)
    recorder.close(0)
    with WriterLock(recording.directory / package.LOCK):
        pass


def test_no_picture_at_all(archive: Archive) -> None:
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, clip(2))
    for data, pts in clip(2).audio:
        recorder.write_audio(data, pts)
    summary = recorder.close(2 * 90_000)
    assert (summary.size, summary.duration_s, summary.video) == (0, 0, None)
    assert recorder.close(0) is summary


def test_without_sound(archive: Archive) -> None:
    recording = archive.create("salon")
    recorder = Recorder(recording.directory, width=160, height=90, fps=30, audio_extradata=None)
    feed(recorder, clip(2))
    summary = recorder.close(2 * 90_000)
    assert summary.audio is None
    assert decode(recording.directory / package.MEDIA).video_s == pytest.approx(2)


def test_sound_that_stops_does_not_stop_the_film(archive: Archive) -> None:
    media = clip(6)
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, media)
    for kind, data, pts, keyframe in media.merged():
        if kind == "video":
            recorder.write_video(data, pts, keyframe)
        elif not 48_000 <= pts < 4 * 48_000:
            recorder.write_audio(data, pts)
    recorder.close(6 * 90_000)
    film = decode(recording.directory / package.MEDIA)
    assert film.video_s == pytest.approx(6)
    assert skew_ms(film.flashes[-2:], film.beeps[-2:]) <= 40


def test_nonsense_packets_cost_only_themselves(archive: Archive) -> None:
    media = clip(3)
    alerts: list[Alert] = []
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, media, on_alert=alerts.append)
    recorder.write_video(b"not a picture", 0, True)
    feed(recorder, media)
    recorder.write_video(media.video[0][0], 0, True)  # a time that was before
    recorder.close(3 * 90_000)
    assert alerts[0].kind == "bad-media"
    assert decode(recording.directory / package.MEDIA).video_s == pytest.approx(3)
    with pytest.raises(BadPackage):
        Recorder(recording.directory, width=1, height=1, fps=1, audio_extradata=b"\xff\xff")


def test_events_are_checked(archive: Archive) -> None:
    recorder = open_recorder(archive.create("salon").directory, clip(2))
    for event, fields in (
        ("dance", {}),
        ("end", {}),
        ("pause", {}),
        ("join", {"t": 3}),
        ("join", {"x": object()}),
    ):
        with pytest.raises((ValueError, TypeError)):
            recorder.event(event, 0, **fields)
    recorder.close(0)


class Disk:
    """The disk under test: ``fail`` makes each write of media raise; ``block`` makes it stand still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        real = os.pwrite

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            self.gate.wait()
            if self.fail is not None:
                real(descriptor, data[: len(data) // 2], offset)  # half of it, as a full disk does
                raise OSError(self.fail, os.strerror(self.fail))
            return real(descriptor, data, offset)

        monkeypatch.setattr(durable.os, "pwrite", pwrite)


def test_disk_full_then_well_again(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    media, alerts = clip(6), list[Alert]()
    disk = Disk(monkeypatch)
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, media, on_alert=alerts.append)
    for kind, data, pts, keyframe in media.merged():
        if kind == "video" and pts in {2 * 90_000, 4 * 90_000}:
            recorder.settle()
            disk.fail = errno.ENOSPC if pts == 2 * 90_000 else None
        if kind == "video":
            recorder.write_video(data, pts, keyframe)
        else:
            recorder.write_audio(data, pts)
    summary = recorder.close(6 * 90_000)
    assert [alert.kind for alert in alerts] == ["disk-full", "recovered"]
    assert summary.complete  # what waited in memory was written when the disk took it
    assert decode(recording.directory / package.MEDIA).video_s == pytest.approx(6)
    assert summary.sha256 == durable.file_sha256(recording.directory / package.MEDIA)


def test_disk_that_never_comes_back(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, clip(6))
    feed(recorder, clip(6))
    recorder.settle()
    disk.fail = errno.EIO
    summary = recorder.close(6 * 90_000)
    assert not summary.complete
    assert "did not reach the disk" in summary.reason
    assert decode(recording.directory / package.MEDIA).video_s == pytest.approx(
        6 * 29 / 30, abs=0.1
    )  # six fragments of 29 pictures


def test_disk_that_stands_still_overflows(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    media, alerts = clip(6), list[Alert]()
    disk = Disk(monkeypatch)
    recording = archive.create("salon")
    recorder = open_recorder(recording.directory, media, on_alert=alerts.append, queue_s=1.5)
    for kind, data, pts, keyframe in media.merged():
        if kind == "video" and pts == 2 * 90_000:
            recorder.settle()
            disk.gate.clear()
        if kind == "video" and pts == 5 * 90_000 - FRAME_90K:
            disk.gate.set()
            recorder.settle()
        if kind == "video":
            recorder.write_video(data, pts, keyframe)
        else:
            recorder.write_audio(data, pts)
    summary = recorder.close(6 * 90_000)
    assert recorder.dropped > 50
    assert "overflow" in [alert.kind for alert in alerts]
    assert not summary.complete
    film = decode(recording.directory / package.MEDIA)
    assert film.video_s == pytest.approx(6)  # the gap stays: the end is where the end was
    assert skew_ms(film.flashes[-1:], film.beeps[-1:]) <= 40
    gap = next(line for line in timeline(recording.directory) if line["event"] == "gap")
    assert 0.4 < float(str(gap["duration"])) < 3.1


def test_close_does_not_wait_for_ever(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    recorder = open_recorder(archive.create("salon").directory, clip(2))
    feed(recorder, clip(2))
    disk.gate.clear()
    recorder.event("notice", 0, name="x")
    with pytest.raises(RecordingError, match="still being written"):
        recorder.close(2 * 90_000, timeout_s=0.05)
    disk.gate.set()
    assert recorder.close(2 * 90_000).complete


def test_refused_pieces_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    heard: list[OSError | None] = []
    file = AppendFile(tmp_path / "f", keep_bytes=0, max_pending_bytes=10, on_error=heard.append)
    assert file.append(b"first ")
    disk.fail = errno.EIO
    assert file.append(b"second")
    assert not file.append(b"third ")
    assert (file.refused, file.pending_bytes) == (1, 6)
    assert (tmp_path / "f").read_bytes() == b"first "
    disk.fail = None
    assert file.append(b"fourth")
    file.close()
    assert (tmp_path / "f").read_bytes() == b"first secondfourth"
    assert [error and error.errno for error in heard] == [errno.EIO, None]


def fill(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(512))
    os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_a_real_full_disk(tmp_path: Path) -> None:
    """A tmpfs that is too small for the film: an alert, no exception, and what was written plays."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", mount], check=False)
    if made.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        directory = mount / "01ARZ3NDEKTSV4RRFFQ69G5FAV"
        directory.mkdir()
        alerts: list[Alert] = []
        media = clip(6)
        recorder = open_recorder(directory, media, on_alert=alerts.append)
        for number, (kind, data, pts, keyframe) in enumerate(media.merged()):
            if number == 200:
                recorder.settle()
                fill(mount / "filler")
            if kind == "video":
                recorder.write_video(data, pts, keyframe)
            else:
                recorder.write_audio(data, pts)
        recorder.close(6 * 90_000)
        assert alerts[0].kind == "disk-full"
        shutil.copy(directory / package.MEDIA, tmp_path / "film.mp4")
        assert decode(tmp_path / "film.mp4").video_s >= 1.9
        assert read_timeline((directory / package.TIMELINE).read_bytes()) is not None
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)
