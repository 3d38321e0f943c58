"""The recordings that are being made: begun, paused, continued elsewhere, ended when they are due.

At most one a room. The room remembers its order (``Room.recording``), so that another worker carries on with it;
where recordings are kept is behind ``RecordingDesk``. Times are seconds of the loop's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, Literal, Protocol

import structlog

from mixer import protocol
from mixer.errors import AlreadyRecording, MosaiqueError, NoCapacity
from mixer.events import EventHub
from mixer.room import Room
from mixer.workers import Workers

log = structlog.get_logger(__name__)

EMPTY_RECORDING_S: Final = 60.0  # a recording of a room that everybody has left is stopped after this long

DeskState = Literal["recording", "paused", "incomplete", "sealing", "failed"]


class RecordingDesk(Protocol):
    """Where recordings begin and end, from control's side (the archive's front office).

    Blocking: called through a thread. ``create`` makes the entry and its spool directory; raises
    ``AlreadyRecording``, ``NoCapacity``.
    """

    def create(self, room: str, *, note: str, language: str, tracks: bool) -> protocol.RecordingOrder: ...

    def set_state(self, recording_id: str, state: DeskState) -> None: ...


class LiveRecordings:
    """See the module. Single loop."""

    def __init__(self, desk: RecordingDesk, workers: Workers, hub: EventHub) -> None:
        self._desk = desk
        self._workers = workers
        self._hub = hub
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by room
        self._since: dict[str, float] = {}  # by recording
        self._empty_since: dict[str, float] = {}  # by room
        self._draining = False

    async def start(self, room: Room, *, tracks: bool, note: str, by: str) -> dict[str, Any]:
        """Start recording, with ``tracks`` what each participant sends beside it. Raises ``AlreadyRecording``."""
        if self._draining:
            raise NoCapacity("the server is going down")
        if room.recording is not None:
            raise AlreadyRecording(
                f"room {room.name} is being recorded already, as {room.recording.id}", room.recording.id
            )
        async with self._locks[room.name]:
            if room.recording is not None:
                raise AlreadyRecording(f"room {room.name} is being recorded already", room.recording.id)
            order = await asyncio.to_thread(
                self._desk.create, room.name, note=note, language=room.language, tracks=tracks
            )
            try:
                await self._workers.ask(room, protocol.StartRecording(recording=order), protocol.Done)
            except MosaiqueError:
                await asyncio.to_thread(self._desk.set_state, order.id, "failed")
                raise
            room.recording = order
            self._since[order.id] = asyncio.get_running_loop().time()
        self._hub.publish("recording.started", room.name, recording=order.id, by=by)
        return {"id": order.id, "state": "recording"}

    async def start_if_set(self, room: Room) -> None:
        """Start the recording that the room's setting asks for. Failing to is no reason to refuse people."""
        if room.record and room.recording is None:
            try:
                await self.start(room, tracks=False, note="", by="room setting")
            except AlreadyRecording:
                pass
            except MosaiqueError as error:
                log.exception("recording.not_started", room=room.name)
                self._hub.publish(
                    "recording.alert", room.name, recording=None, kind="not-started", reason=str(error)
                )

    async def change(
        self, room: Room, recording_id: str, state: Literal["paused", "recording", "stopped"], *, by: str
    ) -> dict[str, Any]:
        """Pause, resume, stop what ``room`` is being recorded as."""
        if state == "stopped":
            await self.finish(room, f"stopped by {by}")
            return {"id": recording_id, "state": "sealing"}
        await self._workers.ask(room, protocol.ChangeRecording(id=recording_id, state=state), protocol.Done)
        if room.recording is not None:
            room.recording = room.recording.model_copy(update={"paused": state == "paused"})
        await asyncio.to_thread(self._desk.set_state, recording_id, state)
        kind = "recording.paused" if state == "paused" else "recording.resumed"
        self._hub.publish(kind, room.name, recording=recording_id, by=by)
        return {"id": recording_id, "state": state}

    async def finish(self, room: Room, reason: str) -> None:
        """Stop the room's recording, if there is one; what there is gets sealed."""
        order, room.recording = room.recording, None
        if order is None:
            return
        self._since.pop(order.id, None)
        try:
            # A dead worker left its spool behind: the archiver finds and recovers it.
            await self._workers.tell(room.name, protocol.ChangeRecording(id=order.id, state="stopped"))
        finally:
            await asyncio.to_thread(self._desk.set_state, order.id, "sealing")
            self._hub.publish("recording.stopped", room.name, recording=order.id, reason=reason)

    async def lost(self, room: Room, event: protocol.RecordingLost) -> None:
        """The recording cannot be continued: what there is gets archived, and a new one carries on."""
        order = room.recording
        if order is None or order.id != event.id:
            return
        room.recording = None
        self._since.pop(order.id, None)
        await asyncio.to_thread(self._desk.set_state, order.id, "incomplete")
        self._hub.publish("recording.stopped", room.name, recording=order.id, reason=event.reason)
        started = await self.start(room, tracks=order.tracks, note=order.note, by="continuation")
        if order.paused:
            await self.change(room, started["id"], "paused", by="continuation")

    def alert(self, room: Room, event: protocol.RecordingAlert) -> None:
        """Say on what a recorder complains of."""
        told = event.model_dump(include={"kind", "reason"})
        log.error("recording.alert", room=room.name, recording=event.id, **told)
        self._hub.publish("recording.alert", room.name, recording=event.id, **told)

    def not_empty(self, room: Room) -> None:
        """Somebody has come in."""
        self._empty_since.pop(room.name, None)

    async def sweep(self, room: Room, now: float, *, connected: bool, published: bool) -> None:
        """Stop what is too long, and what has been recording an empty room (nobody ``connected``) for too long."""
        await self._stop_overlong(room, now, published=published)
        if room.recording is not None and not connected:
            if now - self._empty_since.setdefault(room.name, now) > EMPTY_RECORDING_S:
                await self.finish(room, "the room was empty")
        else:
            self._empty_since.pop(room.name, None)

    async def _stop_overlong(self, room: Room, now: float, *, published: bool) -> None:
        """Pauses count: what is forgotten is often paused. With the room's setting a new recording begins at once."""
        if room.recording is None:
            return
        since = self._since.setdefault(room.recording.id, now)
        if now - since > 60 * room.max_recording_minutes:
            await self.finish(room, f"{room.max_recording_minutes} minutes are the longest in this room")
            if published:
                await self.start_if_set(room)

    async def drain(self, rooms: Iterable[Room]) -> None:
        """Finish all of them; no other one begins. Idempotent."""
        self._draining = True
        for room in rooms:
            with contextlib.suppress(MosaiqueError):
                await self.finish(room, "the server is going down")

    def forget(self, room: Room) -> None:
        """The room has ended, and its recording with it."""
        self._locks.pop(room.name, None)
        self._empty_since.pop(room.name, None)
