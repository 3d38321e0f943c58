"""What a ``kill -9`` costs a recording: 200 recorders, each killed at another moment, recovered, sealed and opened.

    python -m tests.bench.crashes DIRECTORY

is one such recorder: it records a clip into the package ``DIRECTORY`` at the speed of life, and keeps in
``DIRECTORY/handed`` (memory-mapped, so that it outlives the process) how far it has handed the media over.
"""

from __future__ import annotations

import mmap
import random
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import bagit

from recording import package
from recording.archive import Archive
from recording.durable import make_folder
from recording.index import Index
from recording.local import LocalStore
from recording.recovery import recover
from tests.bench.figures import Figure
from tests.recording.conftest import open_recorder
from tests.recording.media import clip

ROUNDS: Final = 200
AT_ONCE: Final = 6  # small pictures, ready-made: six take a tenth of a core
LONGEST_S: Final = 6.0
CLIP_S: Final = 10
LOST_S: Final = 1.0  # the issue: at most
_HANDED: Final = "handed"


@dataclass(frozen=True, slots=True)
class _Round:
    """``handed_s`` of media were given to the recorder; ``kept_s`` could be played afterwards."""

    handed_s: float
    kept_s: float
    opens: bool

    @property
    def lost_s(self) -> float:
        return self.handed_s - self.kept_s


def crashes(directory: Path, rounds: int = ROUNDS, seed: int = 5) -> list[Figure]:
    """200 rounds. A recorder that dies before its first second has nothing to open, which is less than 1 s lost."""
    moments = random.Random(seed)
    clip(CLIP_S)
    with closing(Index(directory / "index.sqlite")) as index, ThreadPoolExecutor(AT_ONCE) as pool:
        archive = Archive(directory / "spool", LocalStore(directory / "archive"), index)
        packages = [archive.create(f"room-{number}") for number in range(rounds)]
        jobs = [
            pool.submit(_round, item.directory, item.description, moments.uniform(0.0, LONGEST_S))
            for item in packages
        ]
        done = [job.result() for job in jobs]
    lost = [one.lost_s for one in done]
    opened = 100 * sum(one.opens for one in done) / len(done)
    return [
        Figure(f"packages that open after kill -9, of {rounds}", opened, "%", 100, "≥", digits=1),
        Figure("tail lost, worst", max(lost), "s", LOST_S, digits=2),
        Figure("tail lost, mean", sum(lost) / len(lost), "s", digits=2),
        Figure("killed while nothing was whole yet", sum(one.kept_s == 0 for one in done), ""),
    ]


def _round(directory: Path, description: package.Description, lives_s: float) -> _Round:
    (directory / _HANDED).write_bytes(bytes(8))
    command = [sys.executable, "-m", "tests.bench.crashes", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it records
        time.sleep(lives_s)
        process.send_signal(signal.SIGKILL)
    (handed_90k,) = struct.unpack("<q", (directory / _HANDED).read_bytes())
    (directory / _HANDED).unlink()
    summary = recover(directory, description)
    if not summary.size:
        return _Round(handed_90k / 90_000, 0.0, opens=True)
    package.seal(directory, description, summary)
    return _Round(handed_90k / 90_000, summary.duration_s, _opens(directory, summary))


def _opens(directory: Path, summary: package.Summary) -> bool:
    """A valid bag, and a film that decodes from end to end and is as long as it says."""
    bag = directory.with_name(directory.name + ".bag")
    make_folder(bag)
    seal = package.read_model(package.Seal, directory / package.SEAL)
    assert seal is not None
    for file in seal.files:
        target = bag / file.path
        make_folder(target.parent)
        target.write_bytes((directory / file.path).read_bytes())
    try:
        bagit.Bag(str(bag)).validate()
        with av.open(str(bag / package.MEDIA)) as film:
            ends = [float(frame.time or 0) for frame in film.decode(video=0)]
    except (bagit.BagError, av.FFmpegError) as error:
        print(f"{directory.name}: {error}", file=sys.stderr)
        return False
    return bool(ends) and abs(ends[-1] - summary.duration_s) < 0.1


def _record(directory: Path) -> None:
    """Until killed. The clip's own clock is the room's."""
    media = clip(CLIP_S)
    recorder = open_recorder(directory, media)
    with (directory / _HANDED).open("r+b") as file:
        handed = mmap.mmap(file.fileno(), 8)
    begun = time.monotonic()
    print("recording", flush=True)
    for kind, data, pts, keyframe in media.merged():
        at_90k = pts if kind == "video" else pts * 90_000 // 48_000
        time.sleep(max(0.0, begun + at_90k / 90_000 - time.monotonic()))
        if kind == "video":
            recorder.write_video(data, pts, keyframe)
            handed[:] = struct.pack("<q", at_90k + 3000)
        else:
            recorder.write_audio(data, pts)
    sys.stdin.read()


if __name__ == "__main__":
    _record(Path(sys.argv[1]))
