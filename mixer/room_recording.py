"""The recording of one live room: started, paused, continued after a worker's death, sealed; and its journal."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import structlog

from mixer import protocol
from mixer.audio.bridge import AudioBridge
from mixer.distribution import RECORDED, Distribution
from mixer.errors import AlreadyRecording, Conflict
from mixer.intake import Intake
from mixer.recorder_tap import RecorderTap
from mixer.track_tap import TrackTap
from mixer.video.rendition import RENDITIONS
from recording.errors import RecordingError
from recording.tracks import TrackSource

log = structlog.get_logger(__name__)


class RoomRecording:
    """At most one at a time. ``say`` sends an event to control; ``pts`` is now, 90 kHz of the room clock, whose zero
    is at ``origin_s``.
    """

    def __init__(
        self,
        bridge: AudioBridge,
        distribution: Distribution,
        intake: Intake,
        say: Callable[[protocol.Event], None],
        pts: Callable[[], int],
        *,
        origin_s: float,
    ) -> None:
        self._bridge = bridge
        self._intake = intake
        self._origin_s = origin_s
        self._distribution = distribution
        self._say = say
        self._pts = pts
        self._loop = asyncio.get_running_loop()
        self._tap: RecorderTap | None = None
        self._left_out: frozenset[str] = frozenset()

    @property
    def live(self) -> bool:
        """Whether a recording is being made, or paused."""
        return self._tap is not None

    def leave_out(self, participants: frozenset[str]) -> None:
        """Who must be neither heard nor seen in this recording and the next, from this instant on."""
        self._left_out = participants
        self._bridge.leave_out_of_recording(participants)
        self._distribution.record_apart(bool(participants))

    async def start(self, order: protocol.RecordingOrder, introduce: Callable[[], None]) -> None:
        """Open the spool and record from the next keyframe on. ``introduce`` notes how things stand now.

        Raises ``AlreadyRecording``, and ``RecordingError`` or ``OSError`` when the spool does not take it.
        """
        if self._tap is not None:
            raise AlreadyRecording("this room is being recorded already", self._tap.id)

        def alert(kind: str, reason: str) -> None:
            event = protocol.RecordingAlert(id=order.id, kind=kind, reason=reason)
            self._loop.call_soon_threadsafe(self._say, event)

        tap = await asyncio.to_thread(
            RecorderTap,
            order,
            RENDITIONS[RECORDED[0]],
            on_alert=alert,
            on_keyframe_needed=self._distribution.force_recorded_keyframe,
            on_track_keyframe_needed=self._ask_for_keyframe,
        )
        self._tap = tap
        if order.paused:
            tap.pause(self._pts())
        introduce()
        if order.tracks:
            self._intake.record(TrackTap(tap.track, self._origin_s))
        self._bridge.set_recorder(tap.audio)
        self._distribution.record(tap.video, apart=bool(self._left_out))

    async def carry_on(self, order: protocol.RecordingOrder, introduce: Callable[[], None]) -> None:
        """Go on where a lost worker stopped; a spool that cannot be continued must not keep the room away."""
        try:
            await self.start(order, introduce)
        except (RecordingError, OSError) as error:
            log.exception("recording.not_continued", recording=order.id)
            self._say(protocol.RecordingLost(id=order.id, reason=str(error)))

    async def change(self, recording: str, state: str) -> None:
        """``paused``, ``recording`` or ``stopped``. ``Conflict`` when ``recording`` is not the live one."""
        tap = self._tap
        if tap is None or tap.id != recording:
            raise Conflict(f"recording {recording} is not live in this room")
        if state == "stopped":
            await self.stop()
        elif state == "paused" and not tap.paused:
            tap.pause(self._pts())
        elif state == "recording" and tap.paused:
            tap.resume(self._pts())
            self._distribution.force_recorded_keyframe()

    async def stop(self) -> None:
        """Put everything on the disk. Nothing happens when nothing is recorded."""
        tap, self._tap = self._tap, None
        if tap is None:
            return
        self._intake.record(None)
        self._bridge.set_recorder(None)
        self._distribution.stop_recording()
        await asyncio.to_thread(tap.close, self._pts())

    def left(self, participant: str) -> None:
        """Their tracks are complete."""
        if self._tap is not None:
            self._tap.end_tracks(participant)

    def _ask_for_keyframe(self, source: TrackSource) -> None:
        """On the recorder's thread."""
        ask = functools.partial(
            self._intake.request_keyframe, source.participant, screen=source.kind == "screen"
        )
        self._loop.call_soon_threadsafe(ask)

    def note(self, event: str, /, **fields: Any) -> None:
        """One line of the timeline, if there is one."""
        if self._tap is not None:
            self._tap.event(event, self._pts(), **fields)

    def stats(self) -> dict[str, dict[str, Any]]:
        """The recorder's queues, for the contract's ``queues``; none while nothing is recorded."""
        return self._tap.stats() if self._tap is not None else {}
