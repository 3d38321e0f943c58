"""One recording while it is made: encoded pictures and sound in, a crash-safe package in the spool out.

The room calls `Recorder`'s methods; they only put into a bounded queue and never block. A thread of its own
takes from there and lets `recording.writer` place each packet on the file's clock, mux it, and write whole
fragments, each fdatasynced. When the process dies, however it dies, everything up to the last fragment is on
the disk, and either the next `Recorder` on the same directory continues the file or `recording.recovery`
closes it.

A recording is never the room's problem: a disk that is slow, full or broken raises alerts and counters here
and nothing else. Nor is the room the recording's: the queue holds about 30 s.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog

from recording import package
from recording.durable import WriterLock
from recording.errors import RecordingError, WrongState
from recording.mediatime import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ
from recording.muxer import AudioFormat
from recording.timeline import EVENTS, TimelineEvent, write_line
from recording.tracks import TrackFrame, TrackSource
from recording.writer import Alert, MediaForm, PackageWriter

_log = structlog.get_logger(__name__)

QUEUE_S: Final = 30  # how long a disk may stand still before anything is lost
_AUDIO_PACKETS_A_SECOND: Final = 47  # 48,000 / 1,024
MAX_TRACK_BYTES: Final = 32 * 1024 * 1024  # of the queue: ten seconds of nine cameras of 2.5 Mbit/s
_MAX_EVENTS: Final = 4096  # of the queue; events are a few a minute: a bound, not a plan
LOCK_WAIT_S: Final = 1.0  # the archiver probes a lock for microseconds; a recovery takes longer and wins
CLOSE_TIMEOUT_S: Final = 8.0  # a drain has 10 s in all; what is not written by then is recovered later
_OWN_EVENTS: Final = frozenset({"track", "pause", "resume", "gap", "end"})  # written by the recorder itself

_Step = Callable[[PackageWriter], object]


@dataclass(frozen=True, slots=True)
class _Item:
    """What waits in the queue: something to do with the writer; ``step`` None ends the thread."""

    step: _Step | None
    packet: bool = (
        False  # of the film, which is what the queue's bound counts; the rest are events and tracks
    )
    track_bytes: int = 0


class Recorder:
    """Records into ``directory``, a package that `recording.archive.Archive.create` made.

    ``width``, ``height`` (pixels), ``fps``: of the pictures. ``audio_extradata``: the AudioSpecificConfig of
    an AAC-LC encoder at 48 kHz, None for a silent film. ``on_alert`` and ``on_keyframe_needed`` are called
    **on the recorder's thread** and must not block. A directory that a dead recorder left is continued, with
    the gap noted.

    Raises PackageBusy (another recorder or a recovery is at it), WrongState (closed already, or of another
    form), BadPackage, OSError (the directory cannot be written at all).

    Overflow: when the queue is full the newest packets are dropped and counted (``dropped``), an alert is
    raised, and recording goes on at the next keyframe, which is asked for; the timeline has the gap. Events
    are kept. Frames of tracks have a bound of their own (``MAX_TRACK_BYTES``), so they never push out the film.
    """

    def __init__(
        self,
        directory: Path,
        *,
        width: int,
        height: int,
        fps: int,
        audio_extradata: bytes | None,
        on_alert: Callable[[Alert], None] | None = None,
        on_keyframe_needed: Callable[[], None] | None = None,
        on_track_keyframe_needed: Callable[[TrackSource], None] | None = None,
        queue_s: float = QUEUE_S,
        wall: Callable[[], float] = time.time,
    ) -> None:
        audio = AudioFormat.parse(audio_extradata) if audio_extradata else None
        if audio and audio.rate_hz != AUDIO_CLOCK_HZ:
            raise WrongState("sound is recorded at 48 kHz", "recording")
        self._alert_listener = on_alert
        self._name = directory.name
        self._alerts: dict[str, int] = {}
        self._lock = WriterLock(directory / package.LOCK, wait_s=LOCK_WAIT_S)
        try:
            _require_open(directory)
            self._writer = PackageWriter(
                directory,
                MediaForm(width, height, fps, audio),
                on_alert=self._alert,
                on_keyframe_needed=on_keyframe_needed or (lambda: None),
                on_track_keyframe_needed=on_track_keyframe_needed or (lambda _: None),
                wall=wall,
            )
        except BaseException:
            self._lock.release()
            raise
        self._max_packets = max(1, round(queue_s * (fps + _AUDIO_PACKETS_A_SECOND)))
        self._queue: deque[_Item] = deque()
        self._packets = 0  # of the queue
        self._track_bytes = 0  # of the queue
        self._tracks_waiting = 0  # of the queue: frames of tracks
        self._track_holes: set[TrackSource] = set()  # their last frames found the queue full
        self._lost_from: int | None = None  # 90 kHz: first packet that found the queue full
        self._wake = threading.Condition()
        self._summary: package.Summary | None = None
        self._closing = False
        self.dropped = 0
        self.tracks_dropped = 0
        self._thread = threading.Thread(target=self._run, name=f"recorder-{directory.name[-6:]}", daemon=True)
        self._thread.start()

    def write_video(self, data: bytes, pts: int, keyframe: bool) -> None:
        """One picture, H.264 Annex B; a keyframe has its SPS and PPS. ``pts``: room clock, 90 kHz. Never
        blocks.
        """
        self._put_packet(lambda writer: writer.video(data, pts, keyframe=keyframe), pts)

    def write_audio(self, data: bytes, pts: int) -> None:
        """One AAC frame of 1,024 samples. ``pts``: room clock, 48 kHz samples; may be before 0. Never blocks."""
        self._put_packet(lambda writer: writer.audio(data, pts), pts * VIDEO_CLOCK_HZ // AUDIO_CLOCK_HZ)

    def write_track(self, source: TrackSource, frame: TrackFrame, pts: int) -> None:
        """One frame of a participant's own, as received; ``pts``: room clock, 90 kHz. Never blocks."""
        size = len(frame.data)
        with self._wake:
            if not size or self._track_bytes + size > MAX_TRACK_BYTES:
                self.tracks_dropped += 1
                self._track_holes.add(source)
                return
            if source in self._track_holes:
                self._track_holes.discard(source)
                frame = replace(frame, fresh=True)
            self._track_bytes += size
            # The thread is not woken: the film's packets do that often enough, and waking it for each of a
            # hundred packets a second costs a room more than all that is done with them.
            self._queue.append(_Item(lambda writer: writer.track(source, frame, pts), track_bytes=size))
            self._tracks_waiting += 1

    def end_tracks(self, participant: str) -> None:
        """The participant has left: their tracks are complete. Never blocks."""
        self._put_event(lambda writer: writer.end_tracks(participant))

    def event(self, event: str, pts_90k: int, /, **fields: Any) -> None:
        """A line of the timeline: ``event("join", pts, participant="p1", name="Ann")``. Never blocks.

        Whoever is in the room when recording starts gets a ``join`` too: the timeline is the list of who is
        there. Raises ValueError for an unknown event, one of the recorder's own, or fields that JSON has no
        form for.
        """
        if event in _OWN_EVENTS or event not in EVENTS:
            raise ValueError(f"{event!r} is not an event of the room")
        write_line(TimelineEvent(0.0, event, fields))
        self._put_event(lambda writer: writer.event(event, pts_90k, fields))

    def pause(self, pts_90k: int) -> None:
        """Leave out what follows ``pts_90k`` (room clock), until `resume`. Never blocks."""
        self._put_event(lambda writer: writer.pause(pts_90k))

    def resume(self, pts_90k: int) -> None:
        """Go on at the first keyframe from ``pts_90k`` (room clock) on; one is asked for. Never blocks."""
        self._put_event(lambda writer: writer.resume(pts_90k))

    def close(self, pts_90k: int, timeout_s: float = CLOSE_TIMEOUT_S) -> package.Summary:
        """End at ``pts_90k`` (room clock), write everything out, release the package. **Blocks**: call it
        from a thread.

        Raises RecordingError when the disk does not take the rest in time: nothing is lost that is on the
        disk, and the archiver closes the package once this process lets go of it. A second call gives the
        same summary.
        """

        def end(writer: PackageWriter) -> None:
            self._summary = writer.close(pts_90k)

        with self._wake:
            if not self._closing:
                self._closing = True
                self._queue.extend((_Item(end), _Item(None)))
                self._wake.notify()
        self._thread.join(timeout_s)
        if self._summary is None:
            raise RecordingError("the recording is still being written; it will be closed by the archiver")
        return self._summary

    def settle(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait until what was put so far has gone through the muxer; False when time was up. **Blocks.**"""
        reached = threading.Event()
        self._put_event(lambda _: reached.set())
        return reached.wait(timeout_s)

    @property
    def queued(self) -> int:
        """Packets and events that wait for the writing thread."""
        return len(self._queue)

    def stats(self) -> dict[str, dict[str, Any]]:
        """Its two queues, each ``{"depth", "bound", "dropped", …}``: ``recorder`` with what became of the film,
        ``tracks`` (bounded in bytes) with what became of those.
        """
        writer = self._writer.stats()
        tracks = writer.pop("tracks", {})
        return {
            "recorder": {
                "depth": len(self._queue) - self._tracks_waiting,
                "bound": self._max_packets + _MAX_EVENTS,
                "dropped": self.dropped,
                **writer,
                "alerts": dict(self._alerts),
            },
            "tracks": {
                "depth": self._tracks_waiting,
                "depth_bytes": self._track_bytes,
                "bound_bytes": MAX_TRACK_BYTES,
                "dropped": self.tracks_dropped,
                **tracks,
            },
        }

    def _put_packet(self, step: _Step, pts_90k: int) -> None:
        with self._wake:
            overflow = self._packets >= self._max_packets
            first = overflow and self._lost_from is None
            if overflow:
                self.dropped += 1
                self._lost_from = pts_90k if self._lost_from is None else min(self._lost_from, pts_90k)
            else:
                if (lost := self._lost_from) is not None:
                    self._lost_from = None
                    self._queue.append(_Item(lambda writer: writer.lost(lost)))
                self._packets += 1
                self._queue.append(_Item(step, packet=True))
                self._wake.notify()
        if first:
            self._alert(Alert("overflow", "the disk does not keep up; packets are dropped"))

    def _put_event(self, step: _Step) -> None:
        with self._wake:
            if len(self._queue) - self._packets - self._tracks_waiting >= _MAX_EVENTS:
                self.dropped += 1
                return
            self._queue.append(_Item(step))
            self._wake.notify()

    def _run(self) -> None:
        try:
            while (item := self._next()).step is not None:
                try:
                    item.step(self._writer)
                except Exception:
                    # A fault in one packet must not end the recording of all that follow.
                    _log.exception("recording_step_failed", recording=self._name)
                    self._alert(Alert("io-error", "a packet could not be recorded; see the log"))
        finally:
            if self._summary is None:
                self._writer.abandon()
            self._lock.release()

    def _next(self) -> _Item:
        with self._wake:
            while not self._queue:
                self._wake.wait()
            item = self._queue.popleft()
            self._packets -= item.packet
            self._tracks_waiting -= item.track_bytes > 0
            self._track_bytes -= item.track_bytes
            return item

    def _alert(self, alert: Alert) -> None:
        self._alerts[alert.kind] = self._alerts.get(alert.kind, 0) + 1
        log = _log.info if alert.kind == "recovered" else _log.error
        log("recording_alert", recording=self._name, kind=alert.kind, detail=alert.detail)
        if self._alert_listener is not None:
            self._alert_listener(alert)


def _require_open(directory: Path) -> None:
    if (directory / package.CLOSED).exists():
        raise WrongState(f"{directory.name} is closed", "sealing")
