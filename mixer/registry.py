"""The rooms of this server: every command of the outside arrives here, every event of a worker too.

The registry owns the rooms' state (``Room``). It leaves to ``Attendance`` who comes into a room and who has left it, to
``Workers`` when a room has a worker, to ``Sessions`` whose a connection is, to ``LiveRecordings`` what is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import structlog

from mixer import protocol
from mixer.attendance import Attendance
from mixer.errors import Conflict, MosaiqueError, NoCapacity, NotFound
from mixer.events import EventHub
from mixer.host.port import RoomHost
from mixer.live_recordings import LiveRecordings, RecordingDesk
from mixer.relay_book import RelayBook
from mixer.room import Participant, ParticipantPatch, Room, RoomCreate, RoomPatch
from mixer.room_shelf import KeptRoom, RoomShelf
from mixer.sessions import Caller, Session, SessionCreated, Sessions
from mixer.video.layout import LayoutBody, check
from mixer.workers import Workers

log = structlog.get_logger(__name__)

ABSENT_S: Final = (
    30.0  # a participant whose worker died may come back this long; browsers retry within seconds
)
SWEEP_S: Final = 1.0
MAX_ROOMS: Final = 1000


class Registry:
    """See the module. Single loop; ``start`` first, ``drain`` last. ``shelf``: where rooms outlive the server."""

    def __init__(
        self,
        host: RoomHost,
        desk: RecordingDesk,
        settings: protocol.WorkerSettings,
        *,
        auto_create: bool = False,
        max_participants: int = 100,
        relay_book: RelayBook | None = None,
        shelf: RoomShelf | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._host = host
        self._auto_create = auto_create
        self._now = now
        self._book = relay_book or RelayBook()
        self.hub = EventHub()
        self._rooms: dict[str, Room] = {}
        self._shelf = shelf
        self._shelving = asyncio.Lock()  # one file at a time, so that the newest state is the one that stays
        self._sessions = Sessions(self._book)
        self._workers = Workers(host, settings, self._book, self.hub)
        self._recordings = LiveRecordings(desk, self._workers, self.hub)
        self._attendance = Attendance(
            self._sessions, self._workers, self._recordings, self._book, self.hub, max_participants, now
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self.restarts = 0

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the rooms from the shelf, begin to listen to workers and to sweep."""
        if self._shelf is not None:
            self._rooms |= {room.name: room for room in await asyncio.to_thread(self._shelf.load)}
        self._tasks = [
            asyncio.create_task(self._listen(), name="registry events"),
            asyncio.create_task(self._sweep_forever(), name="registry sweep"),
        ]

    @property
    def ready(self) -> bool:
        """Takes sessions."""
        return bool(self._tasks) and not self._draining

    async def drain(self, *, grace_s: float) -> None:
        """No new sessions; recordings sealed, workers ended, listeners told. Idempotent."""
        self._draining = True
        await self._recordings.drain(list(self._rooms.values()))
        await self._workers.shutdown(grace_s=grace_s)
        self.hub.close()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    # --- rooms ----------------------------------------------------------------------------------------------

    def rooms(self) -> list[Room]:
        """All rooms, by name."""
        return sorted(self._rooms.values(), key=lambda room: room.name)

    def room(self, name: str) -> Room:
        """One room. Raises ``NotFound``."""
        try:
            return self._rooms[name]
        except KeyError:
            raise NotFound(f"there is no room {name!r}") from None

    async def create_room(self, body: RoomCreate, *, by: str = "admin") -> Room:
        """Make a room. Raises ``Conflict`` when the name is taken, ``InvalidBody``, ``NoCapacity``."""
        if self._draining:
            raise NoCapacity("the server is going down")
        if body.name in self._rooms:
            raise Conflict(f"there is a room {body.name!r} already")
        if len(self._rooms) >= MAX_ROOMS:
            raise NoCapacity(f"this server keeps {MAX_ROOMS} rooms at most; end some")
        check(body.layout, participants=None, images=())
        room = Room.create(body, self._now(), by=by)
        self._rooms[body.name] = room
        self.hub.publish("room.created", room.name, **room.public())
        await self._keep(room)
        return room

    async def change_room(self, name: str, patch: RoomPatch) -> Room:
        """Apply what the patch names."""
        room = self.room(name)
        for key in patch.model_fields_set:
            value = getattr(patch, key)
            if value is not None or key in {"pin", "moderator_pin"}:
                setattr(room, key, value)
        self.hub.publish("room.updated", name, **room.public())
        await self._keep(room)
        return room

    async def end_room(self, name: str) -> None:
        """End a room: recording sealed, everybody hung up, the name free again."""
        room = self.room(name)
        with contextlib.suppress(MosaiqueError):
            await self._recordings.finish(room, "the room was ended")
        self._rooms.pop(name, None)
        await self._workers.end(room)
        self._sessions.drop_all(self._sessions.in_room(name), self._clock())
        self._recordings.forget(room)
        self.hub.publish("room.ended", name)
        await self._keep(room)

    async def _keep(self, room: Room) -> None:
        """Put the room on the shelf as it is, or take it off when it has ended. A disk that refuses ends no meeting."""
        if self._shelf is None:
            return
        async with self._shelving:
            now = self._rooms.get(room.name)  # by now the name may be free, or another room's
            try:
                if now is None:
                    await asyncio.to_thread(self._shelf.forget, room.name)
                else:
                    await asyncio.to_thread(self._shelf.keep, KeptRoom.of(now))
            except OSError as error:
                log.error("room.not_kept", room=room.name, reason=str(error))  # noqa: TRY400 - the reason is said

    # --- sessions -------------------------------------------------------------------------------------------

    async def offer(
        self,
        room_name: str,
        direction: Literal["whip", "whep"],
        caller: Caller,
        sdp: str,
        *,
        rendition: str = "auto",
        minus: str | None = None,
        recorded: bool = True,
    ) -> SessionCreated:
        """Answer a WHIP or WHEP offer. ``recorded`` false: the publisher refuses to be recorded, from the first packet.

        Raises ``NotFound``, ``NoCapacity``, ``BadOffer``, ``UnsupportedOffer``, ``WorkerLost``. Nobody is
        admitted, and nothing that runs is touched, unless the offer could be answered.
        """
        if self._draining:
            raise NoCapacity("the server is going down; another one will take you")
        if room_name not in self._rooms and self._auto_create and caller.room in {"*", room_name}:
            return await self._offer_to_new_room(
                room_name, direction, caller, sdp, rendition, minus, recorded
            )
        room = self.room(room_name)
        return await self._attendance.let_in(
            room, direction, caller, sdp, rendition=rendition, minus=minus, recorded=recorded
        )

    async def trickle(self, session_id: str, fragment: str, caller: Caller) -> None:
        """Add remote candidates. Raises ``NotFound``, ``NotAllowed``, ``BadOffer``."""
        session = self._sessions.owned(session_id, caller)
        word = protocol.Trickle(session=session_id, fragment=fragment)
        await self._workers.ask(self.room(session.room), word, protocol.Done)

    async def hang_up(self, session_id: str, caller: Caller) -> None:
        """End a session for good: who has no other one has left. Raises ``NotFound``, ``NotAllowed``."""
        session = self._sessions.owned(session_id, caller)
        self._sessions.drop(session_id, self._clock())
        await self._workers.tell(session.room, protocol.HangUp(session=session_id))
        await self._left_behind(session, "hung up")

    def session_room(self, session_id: str) -> str:
        """The room of a session. Raises ``NotFound``."""
        return self._sessions.room_of(session_id)

    async def _left_behind(self, session: Session, reason: str) -> None:
        room = self._rooms.get(session.room)
        if room is not None:
            await self._attendance.left_behind(room, session, reason)

    async def _offer_to_new_room(
        self,
        name: str,
        direction: Literal["whip", "whep"],
        caller: Caller,
        sdp: str,
        rendition: str,
        minus: str | None,
        recorded: bool,
    ) -> SessionCreated:
        """`rooms.auto_create`: the room comes with its first session, and not with an offer that is refused."""
        await self.create_room(RoomCreate(name=name), by=caller.sub)
        try:
            return await self.offer(
                name, direction, caller, sdp, rendition=rendition, minus=minus, recorded=recorded
            )
        except MosaiqueError:
            with contextlib.suppress(NotFound):
                if not self.room(name).participants:
                    await self.end_room(name)
            raise

    # --- participants ---------------------------------------------------------------------------------------

    def participants(self, room_name: str) -> list[Participant]:
        """In join order."""
        return list(self.room(room_name).participants.values())

    async def change_participant(
        self, room_name: str, participant_id: str, patch: ParticipantPatch
    ) -> Participant:
        """Mute, rename, set the volume, raise or lower the hand."""
        return await self._attendance.change(self.room(room_name), participant_id, patch)

    async def remove_participant(self, room_name: str, participant_id: str) -> None:
        """Hang up everything of theirs."""
        await self._attendance.remove(self.room(room_name), participant_id)

    # --- layout and pictures --------------------------------------------------------------------------------

    def layout(self, room_name: str) -> tuple[int, LayoutBody]:
        """Version in force and its body."""
        current = self.room(room_name).layout
        return current.version, current.body

    def layout_versions(self, room_name: str) -> list[dict[str, Any]]:
        """History, newest first."""
        return [entry.public() for entry in reversed(self.room(room_name).layouts)]

    async def put_layout(self, room_name: str, body: LayoutBody, *, by: str) -> int:
        """Replace the layout at the next frame. Raises ``InvalidBody``."""
        room = self.room(room_name)
        self._check_layout(room, body)
        version = room.set_layout(body, self._now(), by=by).version
        await self._workers.tell(room.name, protocol.SetLayout(version=version, layout=body))
        self.hub.publish("layout.changed", room_name, version=version, preset=body.preset, by=by)
        await self._keep(room)
        return version

    async def roll_back(self, room_name: str, version: int, *, by: str) -> int:
        """Put an older version in force again, as a new version."""
        body = self.room(room_name).layout_at(version).body
        return await self.put_layout(room_name, body, by=by)

    async def preview(self, room_name: str, body: LayoutBody, *, picture: bool) -> protocol.Preview:
        """What ``body`` would look like now; changes nothing."""
        room = self.room(room_name)
        self._check_layout(room, body)
        return await self._workers.ask(
            room, protocol.GetPreview(layout=body, picture=picture), protocol.Preview
        )

    async def snapshot(self, room_name: str) -> bytes:
        """PNG of the canvas."""
        answer = await self._workers.ask(self.room(room_name), protocol.GetSnapshot(), protocol.Snapshot)
        return answer.png

    async def stats(self, room_name: str) -> dict[str, Any]:
        """The contract's stats; an idle room has all of them at zero."""
        return await self._workers.stats(self.room(room_name))

    def _check_layout(self, room: Room, body: LayoutBody) -> None:
        # A person may be laid out before they arrive, so only the shape of `participant:ID` is checked.
        check(body, participants=None, images=())

    # --- recordings -----------------------------------------------------------------------------------------

    async def start_recording(self, room_name: str, *, tracks: bool, note: str, by: str) -> dict[str, Any]:
        """Start recording, with ``tracks`` what each participant sends beside it. Raises ``AlreadyRecording``."""
        return await self._recordings.start(self.room(room_name), tracks=tracks, note=note, by=by)

    async def change_recording(
        self, recording_id: str, state: Literal["paused", "recording", "stopped"], *, by: str
    ) -> dict[str, Any]:
        """Pause, resume, stop. Raises ``Conflict`` for a recording that is not live."""
        room = self.recording_room(recording_id)
        if room is None:
            raise Conflict(f"recording {recording_id} is not live any more")
        return await self._recordings.change(room, recording_id, state, by=by)

    def recording_room(self, recording_id: str) -> Room | None:
        """The room that is being recorded under this id, if any."""
        for room in self._rooms.values():
            if room.recording is not None and room.recording.id == recording_id:
                return room
        return None

    # --- what workers say -----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            room_name, event = await self._host.next_event()
            room = self._rooms.get(room_name)
            if room is not None:
                try:
                    await self._heard(room, event)
                except Exception:
                    # A fault in the handling of one room's event must not deafen control to all the others.
                    log.exception("registry.event_failed", room=room_name, event_type=event.event)

    async def _heard(self, room: Room, event: protocol.Event) -> None:
        match event:
            case protocol.SessionClosed():
                session = self._sessions.drop(event.session, self._clock())
                if session is not None:
                    await self._left_behind(session, event.reason)
            case protocol.SpeakingChanged():
                room.set_speaking(event.speaking, event.speaker)
                self.hub.publish(
                    "speaker.changed", room.name, speaking=list(event.speaking), speaker=event.speaker
                )
            case protocol.RenditionChanged():
                told = event.model_dump(include={"session", "before", "rendition"})
                self.hub.publish("viewer.rendition", room.name, id=event.participant, **told)
            case protocol.PictureRefused():
                told = event.model_dump(include={"screen", "detail"})
                self.hub.publish("picture.refused", room.name, id=event.participant, **told)
            case protocol.LoadChanged():
                self._workers.load_changed(room, event)
            case protocol.RecordingAlert():
                self._recordings.alert(room, event)
            case protocol.RecordingLost():
                await self._recordings.lost(room, event)
            case protocol.WorkerDied():
                self._worker_died(room, event)

    def _worker_died(self, room: Room, event: protocol.WorkerDied) -> None:
        if event.epoch != room.epoch:
            return
        now = self._clock()
        log.error("worker.died", room=room.name, epoch=event.epoch, detail=event.detail)
        self._workers.lost(room.name)
        self.restarts += 1
        self._sessions.drop_all(self._sessions.in_room(room.name), now)
        for participant in room.participants.values():
            participant.absent_since = now
            participant.speaking = False
        self.hub.publish("room.interrupted", room.name, detail=event.detail)
        self._workers.replace(room, now)

    # --- sweep ----------------------------------------------------------------------------------------------

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            for room in list(self._rooms.values()):
                try:
                    await self._sweep(room, self._clock())
                except Exception:
                    log.exception("registry.sweep_failed", room=room.name)

    async def _sweep(self, room: Room, now: float) -> None:
        for participant in list(room.participants.values()):
            if participant.absent_since is not None and now - participant.absent_since > ABSENT_S:
                await self._attendance.forget(room, participant, "did not come back")
        connected = self._sessions.in_room(room.name)
        await self._recordings.sweep(
            room, now, connected=bool(connected), published=any(s.publish for s in connected)
        )
        busy = room.recording or room.participants or self._sessions.in_room(room.name)
        await self._workers.sweep(room, now, busy=bool(busy))

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()
