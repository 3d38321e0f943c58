"""Participants' own tracks in a package: what is in them, when, and whatever happens to the writer."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest

from recording import durable, package, tracks
from recording.archive import Archive
from recording.matroska import scan
from recording.mediatime import INSTANT_HZ
from recording.package import Seal
from recording.recorder import Recorder
from recording.recovery import recover
from recording.trackjournal import TrackJournal
from recording.tracks import FOLDER, JOURNAL, TrackFrame, TrackSource
from recording.writer import Alert
from tests.recording.conftest import open_recorder
from tests.recording.media import clip
from tests.recording.sources import SIZE, pictures, sounds

ANN_VOICE, ANN_CAMERA = TrackSource("ann", "voice"), TrackSource("ann", "camera")
SECOND = 90_000


class Call:
    """A film and the tracks of participants, fed by the room's clock; a recording goes from 0 s on."""

    def __init__(self, recorder: Recorder, *, seconds: int = 10) -> None:
        self.recorder = recorder
        self.media = clip(seconds)
        self._film = self.media.merged()
        self._at = 0
        self._voice = sounds("opus", 50 * seconds, hz=440)
        self._camera = pictures("libvpx", 25 * seconds)

    def film(self, until_s: float) -> None:
        """The film up to ``until_s``, room time."""
        while self._at < len(self._film):
            kind, data, pts, keyframe = self._film[self._at]
            if pts >= until_s * (90_000 if kind == "video" else 48_000):
                break
            self._at += 1
            if kind == "video":
                self.recorder.write_video(data, pts, keyframe)
            else:
                self.recorder.write_audio(data, pts)

    def voice(self, start_s: float, end_s: float, source: TrackSource = ANN_VOICE, **fields: Any) -> None:
        for n in range(round(start_s * 50), round(end_s * 50)):
            frame = TrackFrame(
                "opus", self._voice[n], 1000 + n * 960, taken_s=5000 + n * 0.02, name="Ann", **fields
            )
            self.recorder.write_track(source, frame, n * 1800)

    def camera(self, start_s: float, end_s: float, source: TrackSource = ANN_CAMERA, **fields: Any) -> None:
        for n in range(round(start_s * 25), round(end_s * 25)):
            data, key = self._camera[n]
            frame = TrackFrame(
                "VP8", data, 7 + n * 3600, keyframe=key, size=SIZE if key else None,
                taken_s=5000 + n * 0.04, name="Ann",
                **(fields if n == round(start_s * 25) else {}),
            )  # fmt: skip
            self.recorder.write_track(source, frame, n * 3600)

    def all(self, start: int, end: int) -> None:
        """Everything of those whole seconds, as it comes: interleaved."""
        for second in range(start, end):
            self.film(second + 0.5)
            self.voice(second, second + 1)
            self.camera(second, second + 1)
            self.film(second + 1)


def times(path: Path) -> list[float]:
    """Times of the frames that decode, each checked by FFmpeg."""
    with av.open(str(path)) as container:
        return [round(float(frame.time or 0), 3) for frame in container.decode(container.streams[0])]


def packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        return [
            (float(p.pts * p.time_base), bytes(p)) for p in container.demux(container.streams[0]) if p.size
        ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def directory(archive: Archive) -> Path:
    return archive.create("salon", tracks=True).directory


def begin(directory: Path, **options: Any) -> Call:
    return Call(open_recorder(directory, clip(10), **options))


def test_tracks_are_what_was_received_at_the_films_times(directory: Path) -> None:
    call = begin(directory)
    call.all(0, 5)
    summary = call.recorder.close(5 * SECOND)
    assert (summary.complete, summary.reason) == (True, "")
    assert [p.name for p in sorted((directory / FOLDER).iterdir())] == ["001.mka", "001.mkv"]
    heard, seen = packets(directory / FOLDER / "001.mka"), packets(directory / FOLDER / "001.mkv")
    assert [data for _, data in heard] == call._voice[:250], "not a byte is coded again"
    assert [data for _, data in seen] == [data for data, _ in call._camera[:125]]
    assert [t for t, _ in heard] == pytest.approx([n * 0.02 for n in range(250)])
    assert times(directory / FOLDER / "001.mkv") == pytest.approx([n * 0.04 for n in range(125)])
    found = [line for line in lines(directory / package.TIMELINE) if line["event"] == "track"]
    assert [(f["participant"], f["name"], f["file"], f["kind"], f["codec"]) for f in found] == [
        ("ann", "Ann", "data/tracks/001.mka", "voice", "opus"),
        ("ann", "Ann", "data/tracks/001.mkv", "camera", "VP8"),
    ]
    assert summary.digests[f"{FOLDER}/001.mka"] == durable.file_sha256(directory / FOLDER / "001.mka")
    assert set(summary.digests) == {f"{FOLDER}/001.mka", f"{FOLDER}/001.mkv", JOURNAL}


def test_the_clocks_are_journalled(directory: Path) -> None:
    call = begin(directory)
    call.all(0, 3)
    call.recorder.close(3 * SECOND)
    assert lines(directory / JOURNAL) == [
        {"t": 0.0, "event": "clock", "file": f"{FOLDER}/001.mka", "rtp": 1000, "rate": 48_000, "ntp": 5000.0},
        {"t": 0.0, "event": "clock", "file": f"{FOLDER}/001.mkv", "rtp": 7, "rate": 90_000, "ntp": 5000.0},
    ]


def test_a_clock_is_noted_each_minute_where_it_begins_anew_and_no_more_often_than_each_second() -> None:
    noted: list[dict[str, Any]] = []
    journal = TrackJournal(lambda line: noted.append(json.loads(line)))
    for n in range(50 * 130):  # 200 ppm: not worth a line before a minute is over
        journal.clock("f", 48_000, round(n * 960 * 1.0002), 7.0, n * 14_400)
    assert [line["t"] for line in noted] == [0.0, 60.0, 120.0]
    assert abs(noted[1]["rtp"] - 48_000 * 60 * 1.0002) <= 1
    journal.clock("f", 48_000, 5, None, 131 * INSTANT_HZ)
    assert (noted[-1]["t"], noted[-1]["rtp"], "ntp" in noted[-1]) == (131.0, 5, False)
    chance = random.Random(2)
    for n in range(500):  # ten seconds of a sender whose clock is nonsense
        journal.clock("f", 48_000, chance.randrange(1 << 40), 7.0, 131 * INSTANT_HZ + n * 14_400)
    assert len(noted) <= 4 + 10
    journal.forget("f")
    journal.clock("f", 48_000, 9, 7.0, 141 * INSTANT_HZ)
    assert noted[-1]["rtp"] == 9


def test_what_the_mix_let_people_wait_is_journalled(directory: Path) -> None:
    call = begin(directory)
    call.film(5)
    call.voice(0, 1)
    call.voice(1, 2, wait_ms=48)  # less than a third of a picture
    call.voice(2, 3, wait_ms=90)
    call.voice(3, 3.2, wait_ms=130)
    call.voice(3.2, 3.4, wait_ms=150)  # so soon after the last line
    call.voice(3.4, 4, wait_ms=40)
    call.recorder.close(5 * SECOND)
    waits = [
        (line["t"], line["participant"], line["ms"])
        for line in lines(directory / JOURNAL)
        if line["event"] == "wait"
    ]
    assert waits == [(2.0, "ann", 90), (3.0, "ann", 130), (3.5, "ann", 40)]


def test_the_sealed_package_says_whose_tracks_they_are(directory: Path) -> None:
    call = begin(directory)
    call.all(0, 2)
    summary = call.recorder.close(2 * SECOND)
    seal = package.seal(directory, package.read_description(directory), summary)
    assert [(t.file, t.participant, t.kind) for t in seal.tracks] == [
        (f"{FOLDER}/001.mka", "ann", "voice"),
        (f"{FOLDER}/001.mkv", "ann", "camera"),
    ]
    listed = {file.path: file.sha256 for file in seal.files}
    for path in (f"{FOLDER}/001.mka", f"{FOLDER}/001.mkv", JOURNAL):
        assert listed[path] == durable.file_sha256(directory / path)
    again = package.read_model(Seal, directory / package.SEAL)
    assert again is not None
    assert again.tracks == seal.tracks


def test_an_id_never_names_a_file(directory: Path) -> None:
    call = begin(directory)
    call.film(1)
    for participant in ("../../etc/passwd", "a\0b", "n" * 300):
        call.voice(0.5, 1, TrackSource(participant, "voice"))
        call.recorder.end_tracks(participant)
    call.film(2)
    call.recorder.close(2 * SECOND)
    assert [p.name for p in sorted((directory / FOLDER).iterdir())] == ["001.mka", "002.mka", "003.mka"]


def test_nothing_of_a_pause_is_kept(directory: Path) -> None:
    call = begin(directory)
    call.all(0, 2)
    call.film(2.1)
    call.voice(2, 2.2)  # 100 ms of it are due after the pause began
    call.camera(2, 2.2)
    call.recorder.pause(round(2.1 * SECOND))
    call.all(3, 4)
    call.recorder.resume(5 * SECOND)
    call.all(5, 7)
    call.recorder.close(7 * SECOND)
    heard = packets(directory / FOLDER / "001.mka")
    kept = [*range(105), *range(250, 350)]
    assert [data for _, data in heard] == [call._voice[n] for n in kept]
    assert [t for t, _ in heard] == pytest.approx([n * 0.02 for n in range(205)], abs=0.011)
    seen = times(directory / FOLDER / "001.mkv")
    assert seen == pytest.approx(
        [n * 0.04 for n in range(53)] + [2.1 + n * 0.04 for n in range(50)], abs=0.011
    )


def test_pictures_begin_at_a_keyframe_and_one_is_asked_for(directory: Path) -> None:
    asked: list[TrackSource] = []
    call = begin(directory, on_track_keyframe_needed=asked.append)
    call.film(1.5)
    call.camera(0.2, 1.5)  # a keyframe each second
    call.camera(1.5, 2.5, fresh=True)  # the camera was muted in between
    call.film(3)
    call.recorder.close(3 * SECOND)
    assert asked == [ANN_CAMERA, ANN_CAMERA]
    seen = packets(directory / FOLDER / "001.mkv")
    kept = [*range(25, 38), *range(50, 62)]
    assert [data for _, data in seen] == [call._camera[n][0] for n in kept]


def test_sound_in_any_order_is_put_in_order_and_twice_is_once(directory: Path) -> None:
    call = begin(directory)
    call.film(3)
    order = list(range(150))
    chance = random.Random(5)
    for at in range(0, 150, 5):
        part = order[at : at + 5]
        chance.shuffle(part)
        order[at : at + 5] = part
    for n in [*order[:100], 40, *order[100:]]:
        frame = TrackFrame("opus", call._voice[n], n * 960)
        call.recorder.write_track(ANN_VOICE, frame, n * 1800)
        if n == 99:
            call.recorder.write_track(ANN_VOICE, frame, n * 1800)
    call.recorder.settle()
    counters = call.recorder.stats()["tracks"]
    call.recorder.close(3 * SECOND)
    assert [data for _, data in packets(directory / FOLDER / "001.mka")] == call._voice[:150]
    assert counters["late"] == 2, "one that came twice, one that came a second late"


def test_who_comes_back_or_changes_codec_goes_on_in_another_file(directory: Path) -> None:
    call = begin(directory)
    call.all(0, 1)
    h264 = pictures("libx264", 25)
    for n, (data, key) in enumerate(h264):
        frame = TrackFrame("H264", data, n * 3600, keyframe=key, size=SIZE if key else None)
        call.recorder.write_track(ANN_CAMERA, frame, SECOND + n * 3600)
    call.film(2)
    call.recorder.end_tracks("ann")
    call.recorder.write_track(TrackSource("bob", "voice"), TrackFrame("PCMU", bytes(160), 0), 2 * SECOND)
    call.voice(2, 3)
    call.camera(2, 3, TrackSource("ann", "screen"))
    call.film(3)
    call.recorder.close(3 * SECOND)
    found = {line["file"].rpartition("/")[2]: (line["participant"], line["codec"])
             for line in lines(directory / package.TIMELINE) if line["event"] == "track"}  # fmt: skip
    assert found == {
        "001.mka": ("ann", "opus"), "001.mkv": ("ann", "VP8"), "001-2.mkv": ("ann", "H264"),
        "002.mka": ("bob", "PCMU"), "001-2.mka": ("ann", "opus"), "001-screen.mkv": ("ann", "VP8"),
    }  # fmt: skip
    assert len(times(directory / FOLDER / "001-2.mkv")) == 25


def test_a_track_that_stalls_is_written_all_the_same(directory: Path) -> None:
    call = begin(directory)
    call.film(0.5)
    call.voice(0, 0.3)
    call.film(4)
    call.recorder.settle()
    assert len(packets(directory / FOLDER / "001.mka")) == 15, "on the disk while the recording goes on"
    call.recorder.close(4 * SECOND)


def test_a_killed_writer_leaves_whole_clusters_and_the_next_goes_on(directory: Path) -> None:
    first = begin(directory)
    first.all(0, 4)
    first.recorder.settle()
    first.recorder._writer.abandon()  # as a death would
    first.recorder._lock.release()
    voice = directory / FOLDER / "001.mka"
    whole = voice.read_bytes()
    voice.write_bytes(whole + whole[:-7][-300:])  # torn in the middle of a write
    (directory / FOLDER / "002.mkv").write_bytes(whole[:40])  # not one cluster
    with (directory / JOURNAL).open("ab") as file:
        file.write(b'{"t":1')
    then = begin(directory)
    then.recorder.write_video(*then.media.video[0])
    then.film(2)
    then.voice(0.5, 2)
    then.recorder.close(2 * SECOND)
    names = [p.name for p in sorted((directory / FOLDER).iterdir())]
    assert names == ["001-2.mka", "001.mka", "001.mkv"]
    assert voice.read_bytes() == whole
    assert 2.5 < packets(voice)[-1][0] <= 4
    assert packets(directory / FOLDER / "001-2.mka")[0][0] >= 3.9
    assert all(line["event"] == "clock" for line in lines(directory / JOURNAL))


def test_recovery_cuts_tracks_to_their_last_whole_cluster(directory: Path) -> None:
    call = begin(directory)
    call.all(0, 5)
    call.recorder.settle()
    call.recorder._writer.abandon()
    call.recorder._lock.release()
    for path in (directory / FOLDER).iterdir():
        with path.open("ab") as file:
            file.write(os.urandom(99))
    summary = recover(directory, package.read_description(directory))
    assert not summary.complete
    for path in (directory / FOLDER).iterdir():
        with path.open("rb") as file:
            assert scan(file).whole_bytes == path.stat().st_size
        assert len(times(path)) >= 75
    seal = package.seal(directory, package.read_description(directory), summary)
    assert len(seal.tracks) == 2


def test_tracks_give_way_to_the_film_when_the_disk_is_nearly_full(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1 << 40]

    class Space:
        f_frsize = 1

        @property
        def f_bavail(self) -> int:
            return free[0]

    monkeypatch.setattr(tracks.os, "statvfs", lambda _: Space())
    call = begin(directory)
    call.all(0, 2)
    call.recorder.settle()
    free[0] = tracks.KEEP_FREE_BYTES - 1
    call.all(2, 6)
    call.recorder.settle()
    free[0] *= 2
    call.all(6, 10)
    summary = call.recorder.close(10 * SECOND)
    notices = [line["name"] for line in lines(directory / package.TIMELINE) if line["event"] == "notice"]
    assert notices == ["tracks: disk full", "tracks: going on"]
    assert "nearly full" in summary.reason
    assert summary.duration_s == pytest.approx(10, abs=0.1), "the film is whole"
    seen = packets(directory / FOLDER / "001.mkv")
    assert 3 < len(seen) / 25 < 8
    assert seen[-1][0] > 9


def test_a_disk_that_refuses_tracks_does_not_touch_the_film(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.AppendFile._write

    def refuse(self: durable.AppendFile, piece: bytes, *, sync: bool) -> None:
        if not sync:  # the film's pieces are synced one by one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, piece, sync=sync)

    monkeypatch.setattr(durable.AppendFile, "_write", refuse)
    alerts: list[Alert] = []
    call = begin(directory, on_alert=alerts.append)
    call.all(0, 5)
    summary = call.recorder.close(5 * SECOND)
    assert "disk-full" in [alert.kind for alert in alerts]
    assert "disk refused" in summary.reason
    assert summary.duration_s == pytest.approx(5, abs=0.1)
    assert len(lines(directory / package.TIMELINE)) == 3


def test_a_full_queue_of_tracks_drops_tracks_only(directory: Path) -> None:
    call = begin(directory)
    call.film(0.5)
    call.camera(0, 0.4)
    call.recorder.settle()
    huge = TrackFrame("VP8", bytes(1 << 20), 0, keyframe=False)
    with call.recorder._wake:  # the writing thread cannot take
        for _ in range(40):
            call.recorder.write_track(TrackSource("bob", "camera"), huge, SECOND)
        waiting = call.recorder.stats()["tracks"]
        assert (waiting["depth"], waiting["dropped"]) == (32, 8)
        call.recorder._track_bytes += 1 << 20  # full to the last byte
        call.camera(0.4, 0.6)
        call.recorder._track_bytes -= 1 << 20
        call.film(2)
        assert call.recorder.dropped == 0
    call.recorder.settle()
    call.camera(0.6, 1.4)
    call.film(3)
    assert call.recorder.close(3 * SECOND).duration_s == pytest.approx(3, abs=0.1)
    kept = [*range(10), *range(25, 35)]  # on from the next keyframe
    assert [data for _, data in packets(directory / FOLDER / "001.mkv")] == [call._camera[n][0] for n in kept]


_DIES = """
import sys
from pathlib import Path
from tests.recording.test_tracks import begin
call = begin(Path(sys.argv[1]))
call.all(0, 6)
call.recorder.settle()
print("fed", flush=True)
sys.stdin.read()
"""


def test_kill_loses_at_most_a_second_of_tracks(directory: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _DIES, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"fed\n"
        process.kill()
    recover(directory, package.read_description(directory))
    assert packets(directory / FOLDER / "001.mkv")[-1][0] >= 6 - 1.05
    assert packets(directory / FOLDER / "001.mka")[-1][0] >= 6 - 1.25  # and what waits for late packets


def test_cut_anywhere_every_file_still_plays(directory: Path, tmp_path: Path) -> None:
    call = begin(directory)
    call.all(0, 6)
    call.recorder.close(6 * SECOND)
    chance = random.Random(3)
    for name in ("001.mka", "001.mkv"):
        data = (directory / FOLDER / name).read_bytes()
        for _ in range(10):
            cut = tmp_path / name
            size = chance.randrange(1000, len(data))
            cut.write_bytes(data[:size])
            assert packets(cut)[-1][0] >= 6 * size / len(data) - 2.5
