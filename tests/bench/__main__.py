"""``python -m tests.bench [--json] [--only room,legs,…] [--seconds 20]``"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.bench import archive, crashes, drift, growth, legs, networks, room, search, tracks, turn, uplink
from tests.bench.figures import Figure, table

_ROOM: Final = f"{room.PUBLISHERS} publishers 720p30 VP8, {room.VIEWERS} viewers at high, recording"
TITLES: Final = {
    "ready": "Start",
    "room": f"{_ROOM}; senders follow REMB, as browsers do",
    "deaf": f"{_ROOM}; senders that follow nothing",
    "recording": f"{room.PUBLISHERS} publishers, no viewer, recording",
    "viewers": "A further viewer",
    "legs": f"Audio legs beside Janus' audiobridge: {legs.TALKERS} talk, {legs.FEW} to {legs.MANY} are in",
    "lines": "Weak lines, both ways, 50 ms each; 2 callers, 2 viewers at high",
    "growth": "Ten minutes on weak lines, both ways, 50 ms each, in simulated time",
    "wire": "Bytes on the wire",
    "capped": "A line that narrows: viewers at auto, by what they tell of it",
    "uplink": "A line that narrows on the way in: a publisher that steers by REMB alone",
    "idle": "Idle rooms",
    "cost": "What a recording adds to a room of 4 publishers and 2 viewers at high",
    "archive": "From stop to archived: two hours at 1.6 Mbit/s, recorded in fast time",
    "crashes": "Recorders killed at any moment, recovered, sealed, opened",
    "tracks": f"Tracks of {tracks.PEOPLE} participants, 720p30 VP8 and Opus",
    "drift": f"{drift.HOURS:g} h of clocks that run {drift.PPM} ppm fast and slow, in fast time",
    "search": "Finding recordings",
    "turn": f"Relay beside coturn: {turn.SIZE}-byte ChannelData, {turn.ALLOCATIONS} allocations, {turn.PPS} a second",
    "compose": "mosaique compose beside its peers: nine 720p30 clips",
}
PARTS: Final = tuple(TITLES)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every target is met, 1 when one is missed or could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what is promised.")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--only", default=",".join(PARTS), help="parts, comma-separated (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the full room (default: 20)")
    args = parser.parse_args(argv)
    # an ordinary exit, so that the servers that were started end too
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    groups: list[tuple[str, Sequence[Figure]]] = []
    with tempfile.TemporaryDirectory(prefix="mosaique-bench-") as name:
        directory = Path(name)
        runs: dict[str, Callable[[], list[Figure]]] = {
            "ready": lambda: room.ready(directory),
            "room": lambda: room.full_room(directory / "room", args.seconds, follow=True),
            "deaf": lambda: room.full_room(directory / "deaf", args.seconds, follow=False),
            "recording": lambda: room.recording_only(directory / "recording", args.seconds),
            "viewers": lambda: networks.further_viewers(directory / "viewers"),
            "legs": lambda: legs.legs(directory / "legs"),
            "lines": lambda: networks.weak_lines(directory / "lines"),
            "growth": growth.growth,
            "wire": lambda: networks.wire(directory / "wire"),
            "capped": lambda: networks.capped(directory / "capped"),
            "uplink": lambda: uplink.uplink(directory / "uplink"),
            "idle": lambda: room.idle_rooms(directory),
            "cost": lambda: room.recording_cost(directory / "cost"),
            "archive": lambda: archive.archive(directory / "archive"),
            "crashes": lambda: crashes.crashes(directory / "crashes"),
            "tracks": lambda: tracks.tracks(directory / "tracks"),
            "drift": drift.drift,
            "search": lambda: search.search(directory / "search"),
            "turn": lambda: turn.relay(directory / "turn"),
            "compose": _compose,
        }
        for part in (part for part in PARTS if part in chosen):
            print(f"measuring: {TITLES[part]} …", file=sys.stderr, flush=True)
            groups.append((TITLES[part], _measured(runs[part])))
    missed = [figure.name for _, figures in groups for figure in figures if figure.verdict not in {"ok", ""}]
    if args.json:
        print(json.dumps(_as_json(groups, missed), indent=2))
    else:
        print(f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}\n")
        print(table(groups))
        print(f"\n{'all targets met' if not missed else f'{len(missed)} missed: ' + '; '.join(missed)}")
    return 1 if missed else 0


def _measured(run: Callable[[], list[Figure]]) -> list[Figure]:
    """What a part measures; one that fails is told and missed, and costs the others nothing."""
    try:
        return run()
    except Exception as error:
        traceback.print_exc()
        return [Figure(f"{type(error).__name__}: see standard error", None, "", 0.0)]


def _compose() -> list[Figure]:
    """The comparison with ffmpeg, a program of its own: its table is shown as it comes, its ratios are read."""
    command = [sys.executable, "-m", "tests.bench.compose"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(answer.stdout, file=sys.stderr)
    ratios = {
        match[1]: float(match[2])
        for match in re.finditer(
            r"^(CPU|Tuned|GStreamer|SSIM|Encoder|Same)\b.*? [\d.]+ +[\d.]+ +([\d.]+)",
            answer.stdout,
            re.MULTILINE,
        )
    }
    return [
        Figure("CPU, ratio to ffmpeg xstack", ratios.get("CPU"), "×", 0.75, digits=2),
        Figure("CPU, ratio to ffmpeg with our x264 settings", ratios.get("Tuned"), "×", 0.75, digits=2),
        Figure("CPU, ratio to GStreamer compositor", ratios.get("GStreamer"), "×", 0.55, digits=2),
        Figure("SSIM to the scaled inputs, ratio to ffmpeg's", ratios.get("SSIM"), "×", 0.95, "≥", digits=3),
        Figure(
            "SSIM, ratio to ours with the others' x264 settings",
            ratios.get("Encoder"),
            "×",
            0.998,
            "≥",
            digits=3,
        ),
        Figure("CPU with those settings, ratio to ffmpeg xstack", ratios.get("Same"), "×", digits=2),
    ]


def _as_json(groups: Sequence[tuple[str, Sequence[Figure]]], missed: Sequence[str]) -> dict[str, object]:
    return {
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version()},
        "figures": {title: [figure.as_json() for figure in figures] for title, figures in groups},
        "missed": list(missed),
    }


def _processor() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((row.split(":", 1)[1].strip() for row in rows if row.startswith("model name")), "?")


if __name__ == "__main__":
    raise SystemExit(main())
