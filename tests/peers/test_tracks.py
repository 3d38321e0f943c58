"""A conference of two synthetic callers is recorded with its tracks, fetched as a bag, and composed again."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import signal as signals
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mixer import cli
from mixer.media import AUDIO_CLOCK_HZ
from mixer.probe import signal
from mixer.probe.callers import Caller
from mixer.probe.run import Plan, opened
from mixer.probe.signal import PipFinder, Rect
from tests.browser import BrowserName
from tests.peers import canvas, publishers
from tests.peers.spare import FULL, TRIES, Machine, with_time_to_spare
from tests.peers.test_recording import sealed, sound
from tests.peers.test_uplink import BROWSERS, LAYERS, publishing
from tests.peers.test_worker_dies import GREEN
from tests.serving import Server, workers

SECONDS = 10.0
FRAMES = 2  # of 1/30 s: live, a picture is shown at the tick nearest to its sound, which waits 30 to 50 ms
GRID = {0: Rect(0, 0, 640, 720), 1: Rect(640, 0, 640, 720)}
WHOLE = Rect(0, 0, 1280, 720)

Gray = NDArray[np.uint8]


@dataclass
class Conference:
    bag: Path
    timeline: list[dict[str, Any]]
    film: bytes
    tracks: dict[str, bytes]  # by their path in the package
    callers: list[Caller]


@pytest.fixture(scope="module")
def conference(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Conference:
    """Of a room that had time: what a full machine leaves out live, composing has, and the two are not the same."""
    for _ in range(TRIES):
        machine = Machine()
        made = asyncio.run(recorded(server, server.room("tracks"), tmp_path_factory.mktemp("bag")))
        if machine.used() < FULL:
            break
    return made


async def recorded(server: Server, room: str, into: Path) -> Conference:
    plan = Plan(url=server.url, room=room, token=server.token, callers=2, viewers=0)
    async with opened(plan) as probe:
        await probe.measure(1.0)
        started = await asyncio.to_thread(
            server.call, "POST", f"/v1/rooms/{room}/recordings", {"tracks": True}
        )
        await probe.measure(SECONDS / 2 - 2.0)  # it settles for two
        await asyncio.to_thread(server.call, "PUT", f"/v1/rooms/{room}/layout", {"preset": "speaker"})
        await probe.measure(SECONDS / 2 - 2.0)
        queues = (await asyncio.to_thread(server.call, "GET", f"/v1/rooms/{room}/stats"))["queues"]
        assert (queues["recorder"]["dropped"], queues["tracks"]["dropped"], queues["tracks"]["refused"]) == (
            0,
            0,
            0,
        )
        assert queues["tracks"]["open"] == 4
        await asyncio.to_thread(server.call, "PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"})
        callers = probe.callers
    await sealed(server, started["id"])
    bag = into / "bag.zip"
    bag.write_bytes(await asyncio.to_thread(server.call, "GET", f"/v1/recordings/{started['id']}/bag"))
    with zipfile.ZipFile(bag) as files:
        content = {name.partition("/")[2]: files.read(name) for name in files.namelist()}
    return Conference(
        bag,
        [json.loads(line) for line in content["data/timeline.jsonl"].splitlines()],
        content["data/recording.mp4"],
        {path: data for path, data in content.items() if path.startswith("data/tracks/")},
        callers,
    )


def lumas(source: Any) -> list[tuple[float, Gray]]:
    with av.open(source) as media:
        return [
            (float(f.time or 0), f.to_ndarray(format="gray").astype(np.uint8)) for f in media.decode(video=0)
        ]


def counters(shown: list[tuple[float, Gray]], rect: Rect, start: float, end: float) -> dict[int, list[float]]:
    """When each of the caller's numbered pictures is seen first, in each round of the loop."""
    found: dict[int, list[float]] = {}
    for at, luma in shown:
        number = signal.read_counter(luma, rect) if start <= at < end else None
        if number is not None:
            times = found.setdefault(number, [])
            if not times or at - times[-1] > signal.LOOP_S / 2:
                times.append(at)
    return found


def change_at(conference: Conference) -> float:
    return float(next(line["t"] for line in conference.timeline if line.get("version") == 2))


def test_the_tracks_are_what_the_callers_sent(conference: Conference) -> None:
    told = {line["file"]: line for line in conference.timeline if line["event"] == "track"}
    assert told.keys() == conference.tracks.keys()
    assert sorted(Path(path).suffix for path in told) == [".mka", ".mka", ".mkv", ".mkv"]
    assert {line["participant"] for line in told.values()} == {c.entry.sub for c in conference.callers}
    length_s = conference.timeline[-1]["t"]
    for path, data in conference.tracks.items():
        with av.open(io.BytesIO(data)) as media:
            stream = media.streams[0]
            times = [float(frame.time or 0) for frame in media.decode(stream)]
            assert stream.codec_context.name == {"voice": "opus", "camera": "vp8"}[told[path]["kind"]]
        assert times[0] < 1.0
        assert times[-1] == pytest.approx(length_s, abs=0.2)
        assert len(times) / (times[-1] - times[0]) > (45 if path.endswith("mka") else 20)


def test_composed_again_it_is_the_film(conference: Conference, tmp_path: Path) -> None:
    out = tmp_path / "again.mp4"
    assert cli.main(["compose", "-o", str(out), str(conference.bag)]) == 0
    film, again = lumas(io.BytesIO(conference.film)), lumas(str(out))
    assert again[-1][0] == pytest.approx(film[-1][0], abs=0.1)
    change = change_at(conference)

    # the same pictures, at the same time, in the same places
    for rect in GRID.values():
        live, anew = (counters(shown, rect, 1.0, change - 0.2) for shown in (film, again))
        both = live.keys() & anew.keys()
        assert len(both) >= 0.8 * len(live) > 20
        apart = [min(abs(at - other) for other in anew[n]) * 30 for n in both for at in live[n]]
        assert signal.percentile(apart, 95) is not None
        assert (signal.percentile(apart, 95) or 0) <= FRAMES + 0.1
    live, anew = (counters(shown, WHOLE, change + 0.5, 99.0) for shown in (film, again))
    assert len(live.keys() & anew.keys()) >= 0.8 * len(live) > 20

    # the layout changes at the same picture
    assert abs(biggest_change(film, change) - biggest_change(again, change)) * 30 <= FRAMES + 0.1

    # and look the same
    quality = [best_psnr(luma, again, rect, at) for at, luma in film[40::15] for rect in rects(at, change)]
    assert len(quality) > 20
    # on a busy machine the room leaves out a picture now and then; composing does not
    assert float(np.mean(np.array(quality) >= 30)) >= 0.9
    assert float(np.median(quality)) >= 35


def biggest_change(shown: list[tuple[float, Gray]], near: float) -> float:
    """Time of the picture that differs most from the one before it, within a second of ``near``."""
    steps = [
        (float(np.mean(np.abs(after.astype(int) - before))), at)
        for (_, before), (at, after) in itertools.pairwise(shown)
        if abs(at - near) < 1.0
    ]
    return max(steps)[1]


def rects(at: float, change: float) -> list[Rect]:
    if abs(at - change) < 0.3:
        return []
    return list(GRID.values()) if at < change else [WHOLE]


def best_psnr(luma: Gray, again: list[tuple[float, Gray]], rect: Rect, at: float) -> float:
    """In dB, of a tile beside its nearest in time."""
    crop = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
    errors = [
        float(np.mean((luma[crop].astype(np.float32) - other[crop]) ** 2))
        for when, other in again
        if abs(when - at) <= (FRAMES + 0.5) / 30
    ]
    return float(10 * np.log10(255**2 / max(0.1, min(errors))))


def test_the_voices_are_there_and_in_time(conference: Conference, tmp_path: Path) -> None:
    out = tmp_path / "again.mp4"
    arguments = [
        "--layout",
        "side-by-side",
        "--size",
        "320x180",
        "--fps",
        "10",
        "-o",
        str(out),
        str(conference.bag),
    ]
    assert cli.main(["compose", *arguments]) == 0
    with av.open(str(out)) as media:
        assert (media.streams.video[0].width, float(media.streams.video[0].average_rate or 0)) == (320, 10)
        anew_at, anew = sound(media)
    with av.open(io.BytesIO(conference.film)) as media:
        live_at, live = sound(media)
    for caller in conference.callers:
        pips = []
        for start, pcm in ((live_at, live), (anew_at, anew)):
            finder = PipFinder(caller.identity.tone_hz)
            pips.append([start + edge / AUDIO_CLOCK_HZ for edge in finder.feed(pcm) + finder.flush()])
        assert len(pips[0]) >= 5
        apart = [min(abs(at - other) for other in pips[1]) for at in pips[0][1:-1]]
        assert max(apart) <= 0.040


# --- the room's process dies


def frames_kept(server: Server, room: str) -> int:
    queues = server.call("GET", f"/v1/rooms/{room}/stats")["queues"]
    return int(queues.get("tracks", {}).get("frames", 0))


async def until_kept(server: Server, room: str, frames: int) -> None:
    deadline = time.monotonic() + 60
    while await asyncio.to_thread(frames_kept, server, room) < frames:
        assert time.monotonic() < deadline, server.log_tail()
        await asyncio.sleep(0.2)  # it is live: frames come at their own pace


@pytest.mark.peer("ffmpeg8")
async def test_tracks_go_on_in_a_second_file_when_the_rooms_process_is_killed(
    server: Server, tmp_path: Path
) -> None:
    room = server.room("tracks-struck")
    ida = server.enter(room, name="Ida")

    def publishing(log: str) -> Any:
        return publishers.ffmpeg(
            f"{server.url}/whip/{room}", ida["token"], tmp_path / log, rgb=GREEN, tone_hz=440
        )

    with publishing("a.log"):
        await asyncio.to_thread(canvas.await_colour, server, room, ida["sub"], GREEN)
        started = server.call("POST", f"/v1/rooms/{room}/recordings", {"tracks": True})
        await until_kept(server, room, 150)
        os.kill(workers(server, room)[-1]["pid"], signals.SIGKILL)
    with publishing("b.log"):
        await until_kept(server, room, 150)
    server.call("PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"})
    described = await sealed(server, started["id"])
    bag = tmp_path / "bag.zip"
    bag.write_bytes(await asyncio.to_thread(server.call, "GET", f"/v1/recordings/{started['id']}/bag"))
    with zipfile.ZipFile(bag) as files:
        content = {name.partition("/")[2]: files.read(name) for name in files.namelist()}
    names = sorted(path for path in content if path.startswith("data/tracks/"))
    assert names == [f"data/tracks/001{part}.{kind}" for part in ("-2", "") for kind in ("mka", "mkv")]
    ends = {}
    for path in names:
        with av.open(io.BytesIO(content[path])) as media:
            times = [float(frame.time or 0) for frame in media.decode(media.streams[0])]
            ends[path] = times[0], times[-1]
            assert media.streams[0].codec_context.name in {"opus", "h264", "vp8"}
    timeline = [json.loads(line) for line in content["data/timeline.jsonl"].splitlines()]
    gap = next(line for line in timeline if line["event"] == "gap")
    assert ends["data/tracks/001.mkv"][1] == pytest.approx(gap["t"], abs=1.5)
    assert ends["data/tracks/001-2.mkv"][0] >= gap["t"] + gap["duration"] - 0.5
    told = json.loads(content["recording.json"])["tracks"]
    assert {track["file"]: track["name"] for track in told} == dict.fromkeys(names, "Ida")
    out = tmp_path / "again.mp4"
    assert cli.main(["compose", "--size", "320x180", "--fps", "10", "-o", str(out), str(bag)]) == 0
    with av.open(str(out)) as media:
        assert float((media.duration or 0) / av.time_base) == pytest.approx(described["duration"], abs=0.3)


# --- real browsers


def at_its_largest(seen: dict[str, Any]) -> bool:
    """A browser on a busy machine starts small in its largest layer too, or leaves it for seconds."""
    return seen["layer"] == "f" and seen["height"] > 650


@pytest.mark.parametrize("name", BROWSERS)
@with_time_to_spare
async def test_a_browsers_layers_come_one_after_the_other_in_one_file(
    server: Server, tmp_path: Path, name: BrowserName
) -> None:
    """Each layer has clocks and sizes of its own; the track is what the room looked at, and it goes on."""
    async with publishing(server, name, LAYERS) as room:
        await room.until(at_its_largest, "at its largest layer", 60)
        started = server.call("POST", f"/v1/rooms/{room.name}/recordings", {"tracks": True})
        await until_kept(server, room.name, 150)
        await room.until(at_its_largest, "still at its largest layer", 60)
        await until_kept(server, room.name, await asyncio.to_thread(frames_kept, server, room.name) + 150)
        await room.show(240)
        await room.until(lambda seen: seen["layer"] == "h", "at the middle layer", 30)
        await until_kept(server, room.name, await asyncio.to_thread(frames_kept, server, room.name) + 150)
        server.call("PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"})
    described = await sealed(server, started["id"])
    bag = tmp_path / "bag.zip"
    bag.write_bytes(await asyncio.to_thread(server.call, "GET", f"/v1/recordings/{started['id']}/bag"))
    with zipfile.ZipFile(bag) as files:
        content = {name.partition("/")[2]: files.read(name) for name in files.namelist()}
    assert sorted(path for path in content if path.startswith("data/tracks/")) == [
        "data/tracks/001.mka",
        "data/tracks/001.mkv",
    ]
    with av.open(io.BytesIO(content["data/tracks/001.mkv"])) as media:
        seen = [(float(frame.time or 0), frame.height) for frame in media.decode(video=0)]
    with av.open(io.BytesIO(content["data/tracks/001.mka"])) as media:
        heard = [float(frame.time or 0) for frame in media.decode(audio=0)]
    assert max(height for _, height in seen) > 650
    assert 150 < seen[-1][1] <= 360, "the middle layer, or what a busy browser makes of it"
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(seen)]
    assert max(gaps) < 5.0, (
        "a browser may stop a layer before the next one has its keyframe; its clock is another"
    )
    assert min(gaps) > 0
    assert seen[-1][0] == pytest.approx(described["duration"], abs=1.0)
    assert max(after - before for before, after in itertools.pairwise(heard)) < 0.5
    assert heard[-1] == pytest.approx(described["duration"], abs=0.5)
    print(f"{name}: {len(seen)} pictures, longest hole {max(gaps):.2f} s")
