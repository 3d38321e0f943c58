"""Each participant's own voice, camera and screen, as they came, in files of their own beside the film.

Single-threaded like the writer that owns it, but for fdatasync, which a thread of its own does: fifty files a second
must not hold up the film. Frames wait about a second, so that late packets of sound still find their place, and leave
as one cluster, whole or not at all (`recording.matroska`).

``data/tracks/003.mka`` is the voice of the third who was recorded, ``003.mkv`` the camera, ``003-screen.mkv`` the
screen; whoever comes back, changes codec, or outlives a worker goes on in ``003-2.mkv``. Names are numbers because
ids are strangers' text: the timeline's ``track`` lines, and ``recording.json``, say whose they are. Beside them
``data/tracks.jsonl`` has the clocks (`recording.trackjournal`).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from recording.durable import AppendFile, SyncThread, make_folder
from recording.errors import BadPackage
from recording.matroska import MAX_CLUSTER_MS, Block, TrackForm, cluster, head, scan
from recording.mediatime import INSTANT_HZ, VIDEO_CLOCK_HZ
from recording.timeline import USUAL_WAIT_MS, TimelineEvent, sound_lines
from recording.trackcodecs import audio_form, video_form, video_frame
from recording.trackjournal import TrackJournal

FOLDER: Final = "data/tracks"
JOURNAL: Final = "data/tracks.jsonl"
MAX_OPEN: Final = 300  # files; a hundred participants with voice, camera and screen
MAX_FILES: Final = 5_000  # of a recording: whoever comes and goes each second for an hour
KEEP_FREE_BYTES: Final = 64 * 1024 * 1024  # the film's last seven minutes; below that, tracks give way
_CLUSTER_MS: Final = 1_000
_REORDER_MS: Final = 200  # what the jitter buffer waits at most; what comes later is not heard live
_PENDING_BYTES: Final = 1024 * 1024  # of each file, waiting for a disk that refuses: 4 s of a camera
_WAITING_BYTES: Final = 4 * 1024 * 1024  # of each track, whatever its times say: then it is written at once
_JOURNAL_PENDING_BYTES: Final = 1024 * 1024
_ASK_EVERY_MS: Final = 1_000
_INSTANTS_A_MS: Final = INSTANT_HZ // 1000
_FILE: Final = re.compile(r"([0-9]{3,6})(-screen)?(?:-([0-9]{1,5}))?\.(mka|mkv)", re.ASCII)

TrackKind = Literal["voice", "camera", "screen"]


@dataclass(frozen=True, slots=True)
class TrackSource:
    """Whose track it is, and which: the key of a track."""

    participant: str
    kind: TrackKind


@dataclass(frozen=True, slots=True)
class TrackFrame:
    """One coded picture (H.264 as Annex B), or the payload of one packet of sound, as it was received.

    ``rtp``: the sender's timestamp, unwrapped; sound may come in any order of it. ``taken_s``: the same instant on
    the sender's NTP clock, None before a report. ``size``: pixels, of a keyframe. ``fresh``: what came before was
    left out on purpose (mute): a picture that builds on it is of no use. ``name``: the participant's, for people.
    ``wait_ms``: how long the mix lets the participant's sound wait for its jitter now.
    """

    codec: str
    data: bytes
    rtp: int
    keyframe: bool = True
    size: tuple[int, int] | None = None
    taken_s: float | None = None
    fresh: bool = False
    name: str = ""
    wait_ms: int = USUAL_WAIT_MS


@dataclass(slots=True)
class TrackCounters:
    """Files begun, frames and bytes written, sound that came too late, clusters refused, frames without their start."""

    files: int = 0
    frames: int = 0
    bytes: int = 0
    late: int = 0
    refused: int = 0
    unusable: int = 0


@dataclass(slots=True)
class _Track:
    """One source: the file that is open, and what waits for it."""

    codec: str = ""
    rate_hz: int = VIDEO_CLOCK_HZ
    name: str = ""  # of the file, inside the folder
    title: str = ""
    form: TrackForm | None = None
    file: AppendFile | None = None
    waiting: list[tuple[int, int, TrackFrame]] = field(default_factory=list)  # rtp, milliseconds, frame
    waiting_bytes: int = 0
    last_rtp: int = -(1 << 62)  # written
    last_ms: int = -1
    needs_keyframe: bool = True
    asked_ms: int = -_ASK_EVERY_MS


class TrackFiles:
    """The tracks of one recording, new or continued after a writer that died. Times are instants of the file.

    ``events``: the timeline so far, so that everyone keeps their number. ``on_event`` writes a line of the timeline;
    ``on_keyframe_needed`` asks a sender; ``on_fault`` names what was lost; ``on_disk`` hears the first error of a
    row, and None when it is over.
    """

    def __init__(
        self,
        directory: Path,
        events: Iterable[TimelineEvent],
        *,
        on_event: Callable[[str, int, dict[str, Any]], None],
        on_keyframe_needed: Callable[[TrackSource], None],
        on_fault: Callable[[str], None],
        on_disk: Callable[[OSError | None], None],
        keep_free_bytes: int = KEEP_FREE_BYTES,
    ) -> None:
        self._directory = directory
        self._on_event = on_event
        self._need_keyframe = on_keyframe_needed
        self._on_fault = on_fault
        self._on_disk = on_disk
        self._keep_free_bytes = keep_free_bytes
        self._tracks: dict[TrackSource, _Track] = {}
        self._numbers = _numbers(events)
        self._digests: dict[str, str] = {}
        self._written: dict[str, AppendFile] = {}
        self._full = False
        self._swept_ms = -_CLUSTER_MS
        self.counters = TrackCounters()
        make_folder(directory / FOLDER)
        repair(directory)
        lines = directory / JOURNAL
        kept = len(sound_lines(lines.read_bytes())) if lines.exists() else 0
        self._sync = SyncThread(on_disk)
        self._clocks_file = self._open(JOURNAL, kept, _JOURNAL_PENDING_BYTES)
        self._clocks = TrackJournal(self._write_clock)

    # -- what comes ---------------------------------------------------------------------------------------------

    def frame(self, source: TrackSource, frame: TrackFrame, media: int) -> None:
        """One frame of ``source``, to be shown or heard at ``media``."""
        at_ms = media // _INSTANTS_A_MS
        track = self._tracks.get(source)
        if track is None:
            if len(self._tracks) >= MAX_OPEN:
                self._on_fault("tracks of more sources than can be kept")
                return
            track = self._tracks[source] = _Track()
        if frame.fresh:
            self.hole(source)
        if self._full or not self._usable(source, track, frame, at_ms):
            self.hole(source)
            return
        track.title = frame.name or track.title
        if (not track.name or frame.codec != track.codec) and not self._begin(source, track, frame, media):
            return
        if frame.rtp <= track.last_rtp and source.kind == "voice":
            self.counters.late += 1
            return
        self._clocks.clock(f"{FOLDER}/{track.name}", track.rate_hz, frame.rtp, frame.taken_s, media)
        self._clocks.wait(source.participant, frame.wait_ms, media)
        track.waiting.append((frame.rtp, at_ms, frame))
        track.waiting_bytes += len(frame.data)
        if track.waiting_bytes > _WAITING_BYTES:
            self._write(source, track, up_to_ms=None)
        elif at_ms - track.waiting[0][1] >= _CLUSTER_MS + (_REORDER_MS if source.kind == "voice" else 0):
            self._write(source, track, up_to_ms=at_ms - _REORDER_MS if source.kind == "voice" else None)

    def hole(self, source: TrackSource) -> None:
        """Something of ``source`` is left out: a picture goes on at its next keyframe."""
        track = self._tracks.get(source)
        if track is not None:
            track.needs_keyframe = source.kind != "voice"

    def holes(self) -> None:
        """The same for all: the recording was paused, or packets were lost on the way here."""
        for source in self._tracks:
            self.hole(source)

    def cut(self, media: int) -> None:
        """Nothing from ``media`` on may be kept: a pause began there, or the end."""
        limit_ms = media // _INSTANTS_A_MS
        for track in self._tracks.values():
            track.waiting = [item for item in track.waiting if item[1] < limit_ms]
            track.waiting_bytes = sum(len(frame.data) for _, _, frame in track.waiting)

    def end(self, participant: str) -> None:
        """The participant has left: their files are closed."""
        for source in [source for source in self._tracks if source.participant == participant]:
            track = self._tracks.pop(source)
            self._finish(source, track)

    def sweep(self, media: int) -> None:
        """Write out what has waited long enough though nothing follows it. Cheap; with every picture of the film."""
        now_ms = media // _INSTANTS_A_MS
        if now_ms - self._swept_ms < _CLUSTER_MS:
            return
        self._swept_ms = now_ms
        self._look_at_disk(media)
        for source, track in self._tracks.items():
            if track.waiting and now_ms - track.waiting[0][1] >= 2 * _CLUSTER_MS:
                self._write(source, track, up_to_ms=None)

    def close(self) -> dict[str, str]:
        """Write everything out. Returns the SHA-256 of each file that is whole, by its path in the package."""
        for source, track in self._tracks.items():
            self._finish(source, track)
        self._tracks.clear()
        self._clocks_file.flush(sync=False)
        self._sync.ask(self._clocks_file, close=True)
        self._written[JOURNAL] = self._clocks_file
        self._digests |= {
            path: file.sha256() for path, file in self._written.items() if not file.pending_bytes
        }
        self._sync.stop()
        return self._digests

    def abandon(self) -> None:
        """Close the files as they are."""
        for file in [self._clocks_file, *(track.file for track in self._tracks.values() if track.file)]:
            self._sync.ask(file, close=True)
        self._tracks.clear()
        self._sync.stop()

    def stats(self) -> dict[str, int]:
        """Counters, files open, and bytes that wait for the disk."""
        tracks = list(self._tracks.values())
        counters = self.counters
        return {
            "files": counters.files,
            "open": len(tracks),
            "frames": counters.frames,
            "bytes": counters.bytes,
            "pending_bytes": sum(track.file.pending_bytes for track in tracks if track.file is not None),
            "late": counters.late,
            "refused": counters.refused,
            "unusable": counters.unusable,
        }

    # -- one track ----------------------------------------------------------------------------------------------

    def _usable(self, source: TrackSource, track: _Track, frame: TrackFrame, at_ms: int) -> bool:
        if source.kind == "voice" or frame.keyframe:
            track.needs_keyframe = False
            return True
        if track.needs_keyframe:
            self.counters.unusable += 1
            if abs(at_ms - track.asked_ms) >= _ASK_EVERY_MS:
                track.asked_ms = at_ms
                self._need_keyframe(source)
            return False
        return True

    def _begin(self, source: TrackSource, track: _Track, frame: TrackFrame, media: int) -> bool:
        """A file for what comes from here on; False when there cannot be one."""
        try:
            form = _form(source, frame)
        except BadPackage:
            self.counters.unusable += 1
            track.needs_keyframe = source.kind != "voice"
            return False
        if self.counters.files >= MAX_FILES:
            self._on_fault("tracks past the number of files that is kept")
            return False
        self._finish(source, track)
        track.form, track.codec, track.name = form, frame.codec, self._name(source)
        track.rate_hz = (
            VIDEO_CLOCK_HZ if form.media == "video" else (48_000 if frame.codec == "opus" else 8_000)
        )
        self.counters.files += 1
        # fmt: off
        self._on_event("track", media, {
            "participant": source.participant, "name": track.title, "file": f"{FOLDER}/{track.name}",
            "kind": source.kind, "codec": frame.codec,
        })
        # fmt: on
        return True

    def _write(self, source: TrackSource, track: _Track, *, up_to_ms: int | None) -> None:
        """What waits (before ``up_to_ms``) as one cluster."""
        track.waiting.sort(key=lambda item: item[0])
        due = [item for item in track.waiting if up_to_ms is None or item[1] <= up_to_ms]
        track.waiting = [item for item in track.waiting if up_to_ms is not None and item[1] > up_to_ms]
        track.waiting_bytes = sum(len(frame.data) for _, _, frame in track.waiting)
        blocks: list[Block] = []
        for rtp, at_ms, frame in due:
            if source.kind == "voice" and rtp <= track.last_rtp:
                self.counters.late += 1  # twice, or of before a reordering that was given up
                continue
            # a clock that is set a little back gives no time twice; the next frames make up for it
            at = max(at_ms, track.last_ms + 1)
            if blocks and at - blocks[0].time_ms > MAX_CLUSTER_MS:
                self._append(track, blocks)
                blocks = []
            blocks.append(Block(at, video_frame(frame.codec, frame.data), frame.keyframe))
            track.last_rtp, track.last_ms = rtp, at
        if blocks and not self._append(track, blocks):
            self.counters.refused += 1
            self._on_fault("tracks' clusters that the disk refused")
            self.hole(source)

    def _append(self, track: _Track, blocks: Sequence[Block]) -> bool:
        piece = cluster(blocks)
        if track.file is None:
            if track.form is None:
                return False
            try:
                track.file = self._open(f"{FOLDER}/{track.name}", 0, _PENDING_BYTES)
            except OSError as error:
                self._on_disk(error)
                return False
            piece = head(track.form, title=track.title, uid=secrets.randbits(56) | 1) + piece
        if not track.file.append(piece, sync=False):
            return False
        self._sync.ask(track.file)
        self.counters.frames += len(blocks)
        self.counters.bytes += len(piece)
        return True

    def _finish(self, source: TrackSource, track: _Track) -> None:
        if track.waiting:
            self._write(source, track, up_to_ms=None)
        if track.file is not None:
            if not track.file.flush(sync=False):
                self._on_fault("ends of tracks that the disk refused")
            self._written[f"{FOLDER}/{track.name}"] = track.file
            self._sync.ask(track.file, close=True)
            track.file = None
        self._clocks.forget(f"{FOLDER}/{track.name}")
        track.name, track.last_ms, track.last_rtp = "", -1, -(1 << 62)

    def _write_clock(self, line: bytes) -> None:
        if self._clocks_file.append(line, sync=False):
            self._sync.ask(self._clocks_file)
        else:
            self._on_fault("lines of the tracks' clocks that the disk refused")

    # -- files --------------------------------------------------------------------------------------------------

    def _name(self, source: TrackSource) -> str:
        number = self._numbers.setdefault(source.participant, max(self._numbers.values(), default=0) + 1)
        screen = "-screen" if source.kind == "screen" else ""
        suffix = "mka" if source.kind == "voice" else "mkv"
        part = 1
        while True:
            name = f"{number:03}{screen}{f'-{part}' if part > 1 else ''}.{suffix}"
            path = f"{FOLDER}/{name}"
            taken = path in self._written or any(track.name == name for track in self._tracks.values())
            if not taken and not (self._directory / path).exists():
                return name
            part += 1

    def _open(self, path: str, keep_bytes: int, pending_bytes: int) -> AppendFile:
        return AppendFile(
            self._directory / path,
            keep_bytes=keep_bytes,
            max_pending_bytes=pending_bytes,
            on_error=self._on_disk,
        )

    def _look_at_disk(self, media: int) -> None:
        """Tracks give way before the film has to."""
        space = os.statvfs(self._directory)
        full = space.f_bavail * space.f_frsize < self._keep_free_bytes
        if full == self._full:
            return
        self._full = full
        if full:
            self._on_fault("tracks, while the disk was nearly full")
        self._on_event("notice", media, {"name": "tracks: disk full" if full else "tracks: going on"})
        self.holes()


def repair(directory: Path) -> None:
    """Cut what a dead writer left to its last whole cluster; a file without any is removed. Raises OSError."""
    for path in sorted((directory / FOLDER).glob("*.mk[av]")):
        with path.open("r+b") as file:
            extent = scan(file)
            if extent.whole_bytes != file.seek(0, 2):
                file.truncate(extent.whole_bytes)
                os.fsync(file.fileno())
        if not extent.clusters:
            path.unlink()
    journal = directory / JOURNAL
    with suppress(FileNotFoundError), journal.open("r+b") as file:
        kept = len(sound_lines(file.read()))
        if kept != file.tell():
            file.truncate(kept)
            os.fsync(file.fileno())


def is_track(path: str) -> bool:
    """Whether ``path`` could be a track of ours, as its package names it."""
    folder, _, name = path.rpartition("/")
    return folder == FOLDER and _FILE.fullmatch(name) is not None


def _numbers(events: Iterable[TimelineEvent]) -> dict[str, int]:
    """Participants' numbers in the files' names, from the timeline of a recording that goes on."""
    found: dict[str, int] = {}
    for event in events:
        name = str(event.fields.get("file", "")).rpartition("/")[2]
        match = _FILE.fullmatch(name) if event.event == "track" else None
        if match is not None:
            found.setdefault(str(event.fields.get("participant", "")), int(match[1]))
    return found


def _form(source: TrackSource, frame: TrackFrame) -> TrackForm:
    if source.kind == "voice":
        return audio_form(frame.codec, frame.data)
    width, height = frame.size or (0, 0)
    if not width or not height:
        raise BadPackage("the keyframe does not say its size")
    return video_form(frame.codec, frame.data, width, height)
