"""The single-threaded inside of a recorder: packets and events of the room in, a package on the disk out.

No thread and no queue here, so that every case can be played through in a test, packet by packet; the thread
is in `recording.recorder`. Room times come in as they are on the wire (90 kHz, 48 kHz) and become instants
(`recording.mediatime`) at the door.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import structlog
from av.error import FFmpegError

from recording import package
from recording.durable import AppendFile, DiskReserve, make_folder
from recording.errors import BadPackage, WrongState
from recording.fragments import AUDIO_TRACK, VIDEO_TRACK, Piece, Tail, scan
from recording.keys import from_rfc3339, rfc3339
from recording.loudness import LoudnessMeter
from recording.mediatime import AUDIO_TICK, INSTANT_HZ, VIDEO_TICK, MediaTime, seconds
from recording.muxer import AAC_FRAME_SAMPLES, AudioFormat, FragmentedMp4, silent_frame
from recording.timeline import TimelineEvent, is_paused, paused_s, read_timeline, sound_lines, write_line
from recording.tracks import TrackFiles, TrackFrame, TrackSource

_log = structlog.get_logger(__name__)

_HELD_AUDIO: Final = 96  # 2 s: sound arrives before the picture of the same instant has been encoded
_PENDING_BYTES: Final = 8 * 1024 * 1024  # about 45 s of the high rendition, waiting for a disk that refuses
_PENDING_EVENT_BYTES: Final = 1024 * 1024
_MAX_GAP_S: Final = 600.0  # a wall clock that was set cannot put more than this into a file
_FRAME: Final = AAC_FRAME_SAMPLES
_ANY_TIME: Final = -(1 << 63)  # before every room time

AlertKind = Literal["disk-full", "io-error", "overflow", "bad-media", "recovered"]


@dataclass(frozen=True, slots=True)
class Alert:
    """Something an operator should know. ``recovered``: the last one is over."""

    kind: AlertKind
    detail: str


@dataclass(frozen=True, slots=True)
class MediaForm:
    """What is recorded: the picture's form, and the AAC track's configuration (None: no sound)."""

    width: int
    height: int
    fps: int
    audio: AudioFormat | None = None

    def anchor(self, started_s: float) -> package.Anchor:
        """As it is kept in the package."""
        config = self.audio.config.hex() if self.audio else ""
        return package.Anchor(
            started=rfc3339(started_s),
            width=self.width,
            height=self.height,
            fps=self.fps,
            audio_config=config,
        )


class PackageWriter:
    """Writes the package in ``directory``, new or left by a writer that died. The caller holds its lock.

    Recording begins at the first keyframe: that is the file's zero. After `pause` and `resume`, and after any
    loss, it goes on at the next keyframe; ``on_keyframe_needed`` asks for one. Holes in the sound are filled
    with silence, because players let sound drift over holes; a hole in the pictures is a picture that stands
    still.
    """

    def __init__(
        self,
        directory: Path,
        form: MediaForm,
        *,
        on_alert: Callable[[Alert], None],
        on_keyframe_needed: Callable[[], None],
        on_track_keyframe_needed: Callable[[TrackSource], None] = lambda _: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._form = form
        self._on_alert = on_alert
        self._need_keyframe = on_keyframe_needed
        self._wall = wall
        make_folder(directory / "data")
        reserve = DiskReserve(directory / package.RESERVE)
        tail = media_on_disk(directory)
        self._anchor = self._known_anchor(tail)
        lines = timeline_on_disk(directory)
        events = read_timeline(lines)
        self._media_file = self._open(package.MEDIA, tail.whole_bytes, _PENDING_BYTES, reserve)
        self._timeline_file = self._open(package.TIMELINE, len(lines), _PENDING_EVENT_BYTES, reserve)
        self._tracks: TrackFiles | None = None  # made with the first of them
        self._track_events = [event for event in events if event.event == "track"]
        self._need_track_keyframe = on_track_keyframe_needed
        self._sequence = tail.sequence
        self._muxer: FragmentedMp4 | None = None
        self._next_audio = tail.ends.get(AUDIO_TRACK, 0)  # samples; the AAC track's timescale is its rate
        # A file that is continued is measured whole when it is sealed: the meter's past died with the writer.
        self._meter = LoudnessMeter(form.audio) if form.audio and not tail.fragments else None
        self._held: deque[tuple[bytes, int]] = deque(maxlen=_HELD_AUDIO)
        self._begin_at: int | None = None if is_paused(events) else _ANY_TIME
        self._paused_on_disk = is_paused(events)
        self._gap_from: int | None = (
            None  # instants of the file; not None: the next picture must be a keyframe
        )
        self._placed = self._accepted = round(tail.duration_s * INSTANT_HZ)
        self._time = MediaTime(media=self._placed)
        self._faults: dict[str, int] = {}
        self._recorded_until_s: float | None = (
            None  # by the wall clock: the room's clock died with the writer
        )
        if tail.fragments:
            self._recorded_until_s = self._started_s() + tail.duration_s + paused_s(events)
            self._fault("interruptions of the recording process")

    # -- what the room sends -------------------------------------------------------------------------------

    def video(self, data: bytes, pts: int, *, keyframe: bool) -> None:
        """One picture, H.264 Annex B, at ``pts`` (room clock, 90 kHz)."""
        room = pts * VIDEO_TICK
        if self._begin_at is not None and room >= self._begin_at and keyframe:
            self._begin(room, data)
        media = self._time.place(room)
        if self._tracks is not None and media is not None:
            self._tracks.sweep(media)
        if media is None or self._muxer is None or (self._gap_from is not None and not keyframe):
            return
        with self._muxing():
            if keyframe and self._gap_from is not None:
                self._end_gap(media)
            self._placed = max(self._placed, media)
            self._muxer.write_video(data, media // VIDEO_TICK, keyframe=keyframe)

    def audio(self, data: bytes, pts: int) -> None:
        """One AAC frame of 1,024 samples at ``pts`` (room clock, 48 kHz)."""
        media = self._time.place(pts * AUDIO_TICK, _FRAME * AUDIO_TICK)
        if media is not None and self._muxer is not None:
            self._audio_at(self._muxer, data, media // AUDIO_TICK)
        elif self._begin_at is not None:
            self._held.append((data, pts))

    def event(self, event: str, pts: int, fields: dict[str, Any]) -> None:
        """Something that happened at ``pts`` (room clock, 90 kHz)."""
        self._write_event(event, self._time.clamp(pts * VIDEO_TICK), fields)

    def track(self, source: TrackSource, frame: TrackFrame, pts: int) -> None:
        """One frame of a participant's own, to be shown or heard at ``pts`` (room clock, 90 kHz)."""
        if self._tracks is None:
            self._tracks = TrackFiles(
                self._directory,
                self._track_events,
                on_event=self._write_event,
                on_keyframe_needed=self._need_track_keyframe,
                on_fault=self._fault,
                on_disk=self._disk,
            )
        media = self._time.place(pts * VIDEO_TICK)
        if media is None:  # before the film's zero, or in a pause
            self._tracks.hole(source)
        else:
            self._tracks.frame(source, frame, media)

    def end_tracks(self, participant: str) -> None:
        """The participant has left."""
        if self._tracks is not None:
            self._tracks.end(participant)

    def pause(self, pts: int) -> None:
        """Cut from ``pts`` (room clock, 90 kHz) on. Paused already: nothing happens."""
        if self._time.running:
            self._time.pause(pts * VIDEO_TICK)
        elif self._begin_at is None:
            return
        self._begin_at = None
        self._held.clear()
        if self._tracks is not None:
            self._tracks.cut(self._time.clamp(pts * VIDEO_TICK))
            self._tracks.holes()
        self._paused_on_disk = True
        self._write_event("pause", self._time.clamp(pts * VIDEO_TICK), {})

    def resume(self, pts: int) -> None:
        """Go on at the first keyframe at or after ``pts`` (room clock, 90 kHz)."""
        if not self._time.running and self._begin_at is None:
            self._begin_at = pts * VIDEO_TICK
            self._need_keyframe()

    def lost(self, pts: int) -> None:
        """Packets from ``pts`` (room clock, 90 kHz) on never reached the writer: a gap until the next
        keyframe.
        """
        self._fault("packets lost in a full queue")
        self._start_gap(self._time.clamp(pts * VIDEO_TICK))

    def close(self, pts: int) -> package.Summary:
        """End at ``pts`` (room clock, 90 kHz): write everything out, then the marker that says so.

        Never raises for a disk that refuses: then the marker is missing, and `recording.recovery` closes the
        package when the disk is well again.
        """
        if self._time.running:
            self._time.pause(pts * VIDEO_TICK)
        if self._muxer is not None:
            with self._muxing():
                self._muxer.close()
        self._end_gap(self._placed)
        if not self._media_file.flush():
            self._fault("the last fragments did not reach the disk")
        tail = media_on_disk(self._directory)
        digests: dict[str, str] = {}
        if self._tracks is not None:
            self._tracks.cut(round(tail.duration_s * INSTANT_HZ))
            digests = self._tracks.close()
            self._tracks = None
        self._write_event("end", round(tail.duration_s * INSTANT_HZ), {})
        summary = summarize(
            self._form, tail, started_s=self._started_s(), ended_s=self._wall(), sha256=self._media_file.sha256(),
            reason="; ".join(f"{what} ({count})" for what, count in self._faults.items()), digests=digests,
            loudness=self._meter.loudness() if self._meter is not None else None,
        )  # fmt: skip
        try:
            package.write_model(self._directory / package.CLOSED, summary)
        except OSError as error:
            self._disk(error)
        self.abandon()
        return summary

    def abandon(self) -> None:
        """Close the files as they are, as a death would: for an error on the way out."""
        if self._tracks is not None:
            self._tracks.abandon()
            self._tracks = None
        for file in (self._media_file, self._timeline_file):
            with suppress(OSError):
                file.close()
        with suppress(OSError):
            (self._directory / package.RESERVE).unlink(missing_ok=True)

    def stats(self) -> dict[str, Any]:
        """Counters: bytes in the file, bytes waiting for the disk, pieces refused, faults; of the tracks, theirs."""
        tracks = self._tracks
        return {
            **({"tracks": tracks.stats()} if tracks is not None else {}),
            "bytes": self._media_file.size,
            "pending_bytes": self._media_file.pending_bytes,
            "refused": self._media_file.refused,
            "faults": sum(self._faults.values()),
        }

    # -- `recording.muxer.PieceSink` -----------------------------------------------------------------------

    def write_piece(self, piece: Piece) -> None:
        """A whole piece from the muxer: to the disk, or to the memory that waits for it."""
        if self._media_file.append(piece.data):
            self._accepted = self._placed
        else:
            self._fault("fragments that the disk refused")
            self._start_gap(self._accepted)

    # -- spans and gaps --------------------------------------------------------------------------------------

    def _begin(self, room: int, keyframe: bytes) -> None:
        """A keyframe that begins a span: the first of all, the first after a pause, or after a dead writer."""
        if self._muxer is None:
            try:
                self._muxer = FragmentedMp4(
                    self,
                    keyframe=keyframe,
                    fps=self._form.fps,
                    audio=self._form.audio,
                    sequence=self._sequence,
                )
            except BadPackage as error:
                self._fault("pictures that cannot be recorded")
                self._on_alert(Alert("bad-media", str(error)))
                self._need_keyframe()
                return
        if self._anchor is None:
            self._anchor = self._form.anchor(self._wall())
            try:
                package.write_model(self._directory / package.ANCHOR, self._anchor)
            except OSError as error:
                self._disk(error)
        missing_s = self._missing_s()
        if missing_s and not self._paused_on_disk:
            # A dead writer's gap stays in the file, as a still picture: nobody decided to cut it out.
            self._write_event("gap", self._placed, {"duration": round(missing_s, 3)})
            jump = round(min(missing_s, _MAX_GAP_S) * INSTANT_HZ)
            self._time = MediaTime(media=(self._placed + jump) // VIDEO_TICK * VIDEO_TICK)
        cut_s = seconds(self._time.start(room))
        if self._paused_on_disk:
            self._write_event("resume", self._time.clamp(room), {"duration": round(missing_s or cut_s, 3)})
            self._paused_on_disk = False
        self._begin_at = None
        held, self._held = list(self._held), deque(maxlen=_HELD_AUDIO)
        for data, pts in held:
            self.audio(data, pts)

    def _start_gap(self, media: int) -> None:
        if self._gap_from is None:
            self._gap_from = media
        self._need_keyframe()

    def _end_gap(self, media: int) -> None:
        if self._gap_from is not None:
            start, self._gap_from = self._gap_from, None
            self._write_event("gap", start, {"duration": round(max(0.0, seconds(media - start)), 3)})

    def _missing_s(self) -> float:
        """Seconds between the end of what a dead writer left and now; 0 when none left anything."""
        until_s, self._recorded_until_s = self._recorded_until_s, None
        return 0.0 if until_s is None else max(self._wall() - until_s, 0.0)

    # -- tracks and files ------------------------------------------------------------------------------------

    def _audio_at(self, muxer: FragmentedMp4, data: bytes, samples: int) -> None:
        audio = self._form.audio
        if audio is None:
            return
        with self._muxing():
            while self._next_audio and samples - self._next_audio >= _FRAME:
                self._audio_frame(muxer, silent_frame(audio.rate_hz, audio.channels), self._next_audio)
                self._next_audio += _FRAME
            self._audio_frame(muxer, data, samples)
            self._next_audio = max(self._next_audio, samples + _FRAME)

    def _audio_frame(self, muxer: FragmentedMp4, data: bytes, samples: int) -> None:
        muxer.write_audio(data, samples)
        if self._meter is not None:
            self._meter.frame(data)

    @contextmanager
    def _muxing(self) -> Iterator[None]:
        try:
            yield
        except (FFmpegError, BadPackage) as error:
            self._fault("packets that could not be muxed")
            self._on_alert(Alert("bad-media", str(error)))
            self._start_gap(self._placed)

    def _write_event(self, event: str, media: int, fields: dict[str, Any]) -> None:
        if not self._timeline_file.append(write_line(TimelineEvent(seconds(media), event, fields))):
            self._fault("timeline lines that the disk refused")

    def _open(self, name: str, keep_bytes: int, pending_bytes: int, reserve: DiskReserve) -> AppendFile:
        return AppendFile(
            self._directory / name, keep_bytes=keep_bytes, max_pending_bytes=pending_bytes,
            reserve=reserve, on_error=self._disk,
        )  # fmt: skip

    def _disk(self, error: OSError | None) -> None:
        if error is None:
            self._on_alert(Alert("recovered", "the disk takes the recording again"))
            return
        kind: AlertKind = "disk-full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "io-error"
        self._on_alert(Alert(kind, error.strerror or "the disk refuses"))

    def _fault(self, what: str) -> None:
        self._faults[what] = self._faults.get(what, 0) + 1

    def _known_anchor(self, tail: Tail) -> package.Anchor | None:
        """The anchor of a file that is being continued; it must be of the same form."""
        anchor = package.read_model(package.Anchor, self._directory / package.ANCHOR)
        if not tail.fragments or anchor is None:
            return None
        if anchor != self._form.anchor(from_rfc3339(anchor.started)):
            raise WrongState(
                "the recording has another picture size, rate or sound; it cannot be continued", "recording"
            )
        return anchor

    def _started_s(self) -> float:
        return from_rfc3339(self._anchor.started) if self._anchor else self._wall()


def summarize(
    form: MediaForm,
    tail: Tail,
    *,
    started_s: float,
    ended_s: float,
    sha256: str,
    reason: str,
    digests: Mapping[str, str] | None = None,
    loudness: package.Loudness | None = None,
) -> package.Summary:
    """What a package is, from what its file says (``tail``); an empty file has no tracks."""
    video = audio = None
    if tail.fragments:
        frames = tail.samples.get(VIDEO_TRACK, 0)
        video = package.VideoFacts(width=form.width, height=form.height, fps=form.fps, frames=frames)
        if form.audio and tail.samples.get(AUDIO_TRACK):
            audio = package.AudioFacts(sample_rate_hz=form.audio.rate_hz, channels=form.audio.channels)
    return package.Summary(
        started=rfc3339(started_s), ended=rfc3339(max(started_s, ended_s)), duration_s=round(tail.duration_s, 3),
        size=tail.whole_bytes if tail.fragments else 0,
        sha256=sha256 if tail.fragments else hashlib.sha256().hexdigest(),
        complete=not reason, reason=reason, video=video, audio=audio, digests=dict(digests or {}),
        loudness=loudness if audio else None,
    )  # fmt: skip


def media_on_disk(directory: Path) -> Tail:
    """Where the media file stands; a file without one whole fragment counts as empty."""
    try:
        with (directory / package.MEDIA).open("rb") as file:
            tail = scan(file)
    except FileNotFoundError:
        return Tail()
    return tail if tail.fragments else Tail()


def timeline_on_disk(directory: Path) -> bytes:
    """The readable lines of the timeline, from its beginning: what follows a torn or spoilt line is not
    trusted.
    """
    try:
        return sound_lines((directory / package.TIMELINE).read_bytes())
    except FileNotFoundError:
        return b""
