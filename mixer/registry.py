"""The rooms of this server: every command of the outside arrives here, every event of a worker too.

The registry owns the rooms' state (``Room``), decides when a room has a worker (from its first session, preview or
recording until it has been idle for ``IDLE_S``), and brings a lost worker back with the room's state.
It speaks to workers through ``RoomHost`` only and to recordings through ``RecordingDesk`` only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, TypeVar

import structlog

from mixer import protocol
from mixer.errors import (
    AlreadyRecording,
    Conflict,
    MosaiqueError,
    NoCapacity,
    NotAllowed,
    NotFound,
    WorkerLost,
)
from mixer.events import EventHub
from mixer.host.port import RoomHost
from mixer.overload import FULL_AT
from mixer.relay_book import RelayBook
from mixer.room import Participant, ParticipantPatch, Role, Room, RoomCreate, RoomPatch
from mixer.video.layout import LayoutBody, check

log = structlog.get_logger(__name__)

IDLE_S: Final = 5.0  # an idle room has no worker; five seconds outlast a page reload
ABSENT_S: Final = (
    30.0  # a participant whose worker died may come back this long; browsers retry within seconds
)
EMPTY_RECORDING_S: Final = 60.0  # a recording of a room that everybody has left is stopped after this long
CRASH_WINDOW_S: Final = 60.0
MAX_CRASHES: Final = 5  # within the window; then the room waits for the next join instead of spinning
SWEEP_S: Final = 1.0
CLOSE_GRACE_S: Final = (
    5.0  # drain of one worker: sealing a fragment takes milliseconds, a loaded disk a second
)
MAX_ROOMS: Final = 1000
MAX_SESSIONS: Final = 2000

A = TypeVar("A", bound=protocol.Message)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the token says. ``room`` is one room's name, or ``*`` for any."""

    sub: str
    name: str
    role: Role
    room: str

    @property
    def is_service(self) -> bool:
        """True for the admin token itself, which is nobody in particular."""
        return self.role == "admin" and self.sub == "admin"


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """What a WHIP or WHEP POST is answered with. ``subject``: for whom a relay works for this session."""

    id: str
    sdp: str
    subject: str


@dataclass(slots=True)
class _Session:
    id: str
    room: str
    participant: str | None
    publish: bool
    owner: str
    subject: str


DeskState = Literal["recording", "paused", "incomplete", "sealing", "failed"]


class RecordingDesk(Protocol):
    """Where recordings begin and end, from control's side (the archive's front office).

    Blocking: called through a thread. ``create`` makes the entry and its spool directory; raises
    ``AlreadyRecording``, ``NoCapacity``.
    """

    def create(self, room: str, *, note: str, language: str, tracks: bool) -> protocol.RecordingOrder: ...

    def set_state(self, recording_id: str, state: DeskState) -> None: ...


class Registry:
    """See the module. Single loop; ``start`` first, ``drain`` last."""

    def __init__(
        self,
        host: RoomHost,
        desk: RecordingDesk,
        settings: protocol.WorkerSettings,
        *,
        auto_create: bool = False,
        max_participants: int = 100,
        relay_book: RelayBook | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._host = host
        self._desk = desk
        self._settings = settings
        self._auto_create = auto_create
        self._max_participants = max_participants
        self._now = now
        self._book = relay_book or RelayBook()
        self._rooms: dict[str, Room] = {}
        self._sessions: dict[str, _Session] = {}
        self._live: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._idle_since: dict[str, float] = {}
        self._empty_since: dict[str, float] = {}
        self._recording_since: dict[str, float] = {}  # by recording
        self._crashes: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_CRASHES))
        self._loads: dict[str, protocol.LoadChanged] = {}  # of the rooms that have a worker
        self._cpu_cores = settings.cpu_cores or float(os.cpu_count() or 1)
        self._refuses = settings.overload == "act"
        self._tasks: list[asyncio.Task[None]] = []
        self._repairs: set[asyncio.Task[None]] = set()
        self._draining = False
        self.hub = EventHub()
        self.restarts = 0

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to listen to workers and to sweep."""
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
        for room in self._rooms.values():
            if room.recording is not None:
                with contextlib.suppress(MosaiqueError):
                    await self._finish_recording(room, "the server is going down")
        await self._host.shutdown(grace_s=grace_s)
        self.hub.close()
        for task in [*self._tasks, *self._repairs]:
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
        return room

    async def change_room(self, name: str, patch: RoomPatch) -> Room:
        """Apply what the patch names."""
        room = self.room(name)
        for key in patch.model_fields_set:
            value = getattr(patch, key)
            if value is not None or key in {"pin", "moderator_pin"}:
                setattr(room, key, value)
        self.hub.publish("room.updated", name, **room.public())
        return room

    async def end_room(self, name: str) -> None:
        """End a room: recording sealed, everybody hung up, the name free again."""
        room = self.room(name)
        if room.recording is not None:
            with contextlib.suppress(MosaiqueError):
                await self._finish_recording(room, "the room was ended")
        async with self._locks[name]:
            self._rooms.pop(name, None)
            self._lost(name)
            await self._host.close(name, grace_s=CLOSE_GRACE_S)
        self._drop_sessions_of(name)
        for table in (self._locks, self._idle_since, self._empty_since, self._crashes, self._loads):
            table.pop(name, None)
        self._locks.pop(f"{name} recording", None)
        self.hub.publish("room.ended", name)

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
        if len(self._sessions) >= MAX_SESSIONS:
            raise NoCapacity(f"this server carries {MAX_SESSIONS} connections at most")
        publish = direction == "whip"
        entry = self._entry_for(room, caller, publish)
        if not recorded:
            entry = entry.model_copy(update={"recorded": False})
        if minus is None and (publish or not caller.is_service):
            minus = entry.id
        session_id = secrets.token_urlsafe(18)
        known = room.participants.get(entry.id)
        if known is None:
            self._refuse_when_busy(room)
            if publish:
                self._refuse_when_full(room)
        answer = await self._ask(
            room,
            protocol.Offer(
                session=session_id,
                publish=publish,
                participant=entry.model_copy(update={"publishes": True}) if known and publish else entry,
                sdp=sdp,
                rendition=rendition,
                minus=minus,
            ),
            protocol.OfferAnswer,
        )
        participates = publish or caller.role in {"participant", "moderator"}
        session = _Session(
            session_id, room.name, entry.id if participates else None, publish, caller.sub, entry.id
        )
        await self._replace_older(session)
        self._sessions[session_id] = session
        self._book.session_began(session.subject)
        if participates:
            self._admit(room, entry, caller.role)
        if publish:
            await self._record_if_set(room)
        return SessionCreated(session_id, answer.sdp, session.subject)

    async def _record_if_set(self, room: Room) -> None:
        """Start the recording that the room's setting asks for. Failing to is no reason to refuse people."""
        if room.record and room.recording is None:
            try:
                await self.start_recording(room.name, tracks=False, note="", by="room setting")
            except AlreadyRecording:
                pass
            except MosaiqueError as error:
                log.exception("recording.not_started", room=room.name)
                self.hub.publish(
                    "recording.alert", room.name, recording=None, kind="not-started", reason=str(error)
                )

    async def trickle(self, session_id: str, fragment: str, caller: Caller) -> None:
        """Add remote candidates. Raises ``NotFound``, ``NotAllowed``, ``BadOffer``."""
        session = self._own_session(session_id, caller)
        await self._ask(
            self.room(session.room), protocol.Trickle(session=session_id, fragment=fragment), protocol.Done
        )

    async def hang_up(self, session_id: str, caller: Caller) -> None:
        """End a session for good: who has no other one has left. Raises ``NotFound``, ``NotAllowed``."""
        session = self._own_session(session_id, caller)
        self._drop_session(session_id)
        with contextlib.suppress(NotFound, WorkerLost):
            await self._host.ask(session.room, protocol.HangUp(session=session_id))
        await self._left_behind(session, "hung up")

    def session_room(self, session_id: str) -> str:
        """The room of a session. Raises ``NotFound``."""
        try:
            return self._sessions[session_id].room
        except KeyError:
            raise NotFound("there is no such session: it ended, or its room was restarted") from None

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

    def _entry_for(self, room: Room, caller: Caller, publish: bool) -> protocol.RosterEntry:
        known = room.participants.get(caller.sub)
        if known is not None and not caller.is_service:
            return known.entry()
        # The admin token is shared by encoders (OBS, ffmpeg): each connection of it is somebody else.
        participant_id = f"guest-{secrets.token_hex(4)}" if caller.is_service else caller.sub
        return protocol.RosterEntry(id=participant_id, name=caller.name or participant_id, publishes=publish)

    def _refuse_when_full(self, room: Room) -> None:
        limit = min(room.max_participants, self._max_participants)
        if sum(p.publishes for p in room.participants.values()) >= limit:
            raise NoCapacity(f"room {room.name} is full: it takes {limit} participants")

    def _refuse_when_busy(self, room: Room) -> None:
        """Nobody new while those inside could feel it; who is inside may come back at any time."""
        if not self._refuses:
            return
        load = self._loads.get(room.name)
        if load is not None and load.full:
            raise NoCapacity(
                f"room {room.name} is at the limit of what this machine carries ({load.cause}); try again soon"
            )
        used = sum(load.cores for load in self._loads.values())
        if used >= FULL_AT * self._cpu_cores:
            raise NoCapacity(
                f"the rooms of this server use {used:.1f} of its {self._cpu_cores:g} cores; try again soon"
            )

    def _admit(self, room: Room, entry: protocol.RosterEntry, role: Role) -> None:
        participant, is_new = room.admit(entry, role, self._now())
        self._empty_since.pop(room.name, None)
        self.hub.publish(
            "participant.joined" if is_new else "participant.updated", room.name, **participant.public()
        )

    async def _replace_older(self, session: _Session) -> None:
        """One publishing connection a participant: the newest wins, a reload need not wait for a timeout."""
        older = [
            s
            for s in self._sessions.values()
            if s.publish
            and session.publish
            and s.room == session.room
            and s.participant == session.participant
        ]
        for old in older:
            self._drop_session(old.id)
            with contextlib.suppress(NotFound, WorkerLost):
                await self._host.ask(old.room, protocol.HangUp(session=old.id, reason="replaced"))

    def _own_session(self, session_id: str, caller: Caller) -> _Session:
        room = self.session_room(session_id)
        session = self._sessions[session_id]
        rules_room = caller.role in {"moderator", "admin"} and caller.room in {"*", room}
        if session.owner != caller.sub and not rules_room:
            raise NotAllowed("this session belongs to someone else")
        return session

    def _drop_session(self, session_id: str) -> _Session | None:
        """Forget a session; the relay hears when its subject has none left."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._book.session_ended(session.subject, asyncio.get_running_loop().time())
        return session

    def _drop_sessions_of(self, room_name: str) -> None:
        for session in [s for s in self._sessions.values() if s.room == room_name]:
            self._drop_session(session.id)

    async def _left_behind(self, session: _Session, reason: str) -> None:
        """A session is over: its participant leaves with the last one, or stops publishing."""
        room = self._rooms.get(session.room)
        if room is None or session.participant is None:
            return
        rest = [
            s
            for s in self._sessions.values()
            if s.room == session.room and s.participant == session.participant
        ]
        if not rest or (session.publish and not any(s.publish for s in rest)):
            participant = room.participants.get(session.participant)
            if participant is None:
                return
            if rest and participant.role in {"participant", "moderator"}:
                participant.publishes = False
                participant.speaking = False
                await self._tell(room, protocol.SetParticipant(participant=participant.entry()))
                self.hub.publish("participant.updated", room.name, **participant.public())
            else:
                await self._forget(room, participant, reason)

    async def _forget(self, room: Room, participant: Participant, reason: str) -> None:
        room.participants.pop(participant.id, None)
        await self._tell(room, protocol.RemoveParticipant(participant=participant.id))
        self.hub.publish("participant.left", room.name, reason=reason, **participant.public())

    # --- participants ---------------------------------------------------------------------------------------

    def participants(self, room_name: str) -> list[Participant]:
        """In join order."""
        return list(self.room(room_name).participants.values())

    async def change_participant(
        self, room_name: str, participant_id: str, patch: ParticipantPatch
    ) -> Participant:
        """Mute, rename, set the volume, raise or lower the hand."""
        room = self.room(room_name)
        participant = room.change_participant(participant_id, patch)
        await self._tell(room, protocol.SetParticipant(participant=participant.entry()))
        self.hub.publish("participant.updated", room_name, **participant.public())
        return participant

    async def remove_participant(self, room_name: str, participant_id: str) -> None:
        """Hang up everything of theirs."""
        room = self.room(room_name)
        participant = room.participant(participant_id)
        for session in [s for s in self._sessions.values() if s.room == room_name]:
            if session.participant == participant_id:
                self._drop_session(session.id)
        self._book.removed(participant_id)
        await self._forget(room, participant, "removed by a moderator")

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
        await self._tell(room, protocol.SetLayout(version=version, layout=body))
        self.hub.publish("layout.changed", room_name, version=version, preset=body.preset, by=by)
        return version

    async def roll_back(self, room_name: str, version: int, *, by: str) -> int:
        """Put an older version in force again, as a new version."""
        body = self.room(room_name).layout_at(version).body
        return await self.put_layout(room_name, body, by=by)

    async def preview(self, room_name: str, body: LayoutBody, *, picture: bool) -> protocol.Preview:
        """What ``body`` would look like now; changes nothing."""
        room = self.room(room_name)
        self._check_layout(room, body)
        return await self._ask(room, protocol.GetPreview(layout=body, picture=picture), protocol.Preview)

    async def snapshot(self, room_name: str) -> bytes:
        """PNG of the canvas."""
        answer = await self._ask(self.room(room_name), protocol.GetSnapshot(), protocol.Snapshot)
        return answer.png

    async def stats(self, room_name: str) -> dict[str, Any]:
        """The contract's stats; an idle room has all of them at zero."""
        room = self.room(room_name)
        if room.name not in self._live:
            return empty_stats()
        # Not by `_ask`: being looked at by a scraper must not keep an idle worker alive.
        answer = await self._host.ask(room.name, protocol.GetStats())
        return answer.body if isinstance(answer, protocol.Stats) else empty_stats()

    def _check_layout(self, room: Room, body: LayoutBody) -> None:
        # A person may be laid out before they arrive, so only the shape of `participant:ID` is checked.
        check(body, participants=None, images=())

    # --- recordings -----------------------------------------------------------------------------------------

    async def start_recording(self, room_name: str, *, tracks: bool, note: str, by: str) -> dict[str, Any]:
        """Start recording, with ``tracks`` what each participant sends beside it. Raises ``AlreadyRecording``."""
        if self._draining:
            raise NoCapacity("the server is going down")
        room = self.room(room_name)
        if room.recording is not None:
            raise AlreadyRecording(
                f"room {room_name} is being recorded already, as {room.recording.id}", room.recording.id
            )
        async with self._locks[f"{room_name} recording"]:
            if room.recording is not None:
                raise AlreadyRecording(f"room {room_name} is being recorded already", room.recording.id)
            order = await asyncio.to_thread(
                self._desk.create, room_name, note=note, language=room.language, tracks=tracks
            )
            try:
                await self._ask(room, protocol.StartRecording(recording=order), protocol.Done)
            except MosaiqueError:
                await asyncio.to_thread(self._desk.set_state, order.id, "failed")
                raise
            room.recording = order
            self._recording_since[order.id] = asyncio.get_running_loop().time()
        self.hub.publish("recording.started", room_name, recording=order.id, by=by)
        return {"id": order.id, "state": "recording"}

    async def change_recording(
        self, recording_id: str, state: Literal["paused", "recording", "stopped"], *, by: str
    ) -> dict[str, Any]:
        """Pause, resume, stop. Raises ``Conflict`` for a recording that is not live."""
        room = self.recording_room(recording_id)
        if room is None:
            raise Conflict(f"recording {recording_id} is not live any more")
        if state == "stopped":
            await self._finish_recording(room, f"stopped by {by}")
            return {"id": recording_id, "state": "sealing"}
        await self._ask(room, protocol.ChangeRecording(id=recording_id, state=state), protocol.Done)
        if room.recording is not None:
            room.recording = room.recording.model_copy(update={"paused": state == "paused"})
        await asyncio.to_thread(self._desk.set_state, recording_id, state)
        kind = "recording.paused" if state == "paused" else "recording.resumed"
        self.hub.publish(kind, room.name, recording=recording_id, by=by)
        return {"id": recording_id, "state": state}

    def recording_room(self, recording_id: str) -> Room | None:
        """The room that is being recorded under this id, if any."""
        for room in self._rooms.values():
            if room.recording is not None and room.recording.id == recording_id:
                return room
        return None

    async def _finish_recording(self, room: Room, reason: str) -> None:
        order, room.recording = room.recording, None
        if order is None:
            return
        self._recording_since.pop(order.id, None)
        try:
            # A dead worker left its spool behind: the archiver finds and recovers it.
            with contextlib.suppress(NotFound, WorkerLost):
                await self._host.ask(room.name, protocol.ChangeRecording(id=order.id, state="stopped"))
        finally:
            await asyncio.to_thread(self._desk.set_state, order.id, "sealing")
            self.hub.publish("recording.stopped", room.name, recording=order.id, reason=reason)

    async def _recording_lost(self, room: Room, event: protocol.RecordingLost) -> None:
        """The recording cannot be continued: what there is gets archived, and a new one carries on."""
        order = room.recording
        if order is None or order.id != event.id:
            return
        room.recording = None
        self._recording_since.pop(order.id, None)
        await asyncio.to_thread(self._desk.set_state, order.id, "incomplete")
        self.hub.publish("recording.stopped", room.name, recording=order.id, reason=event.reason)
        started = await self.start_recording(
            room.name, tracks=order.tracks, note=order.note, by="continuation"
        )
        if order.paused:
            await self.change_recording(started["id"], "paused", by="continuation")

    # --- workers --------------------------------------------------------------------------------------------

    async def _ask(self, room: Room, request: protocol.Request, answer_type: type[A]) -> A:
        """Ask the room's worker, which is started if there is none."""
        self._idle_since.pop(room.name, None)
        await self._ensure_worker(room)
        answer = await self._host.ask(room.name, request)
        if not isinstance(answer, answer_type):
            raise MosaiqueError(f"the worker answered {request.op} with {type(answer).__name__}")
        return answer

    async def _tell(self, room: Room, request: protocol.Request) -> None:
        """Tell the room's worker if there is one; a new one is started from the room's state anyway."""
        if room.name in self._live:
            with contextlib.suppress(NotFound, WorkerLost):
                await self._host.ask(room.name, request)

    async def _ensure_worker(self, room: Room) -> None:
        async with self._locks[room.name]:
            if room.name in self._live:
                return
            if self._rooms.get(room.name) is not room:
                raise NotFound(f"room {room.name} has ended")
            await self._host.open(room.state(self._settings))
            self._live.add(room.name)
            # Before the first answer names these sockets to a browser: a relay that does not know them yet would
            # refuse, and the browser would not ask again.
            media = await self._host.ask(room.name, protocol.GetMedia())
            if isinstance(media, protocol.Media):
                self._book.room_opened(room.name, media.sockets)

    def _lost(self, room_name: str) -> None:
        """The room has no worker any more, or is about to have none."""
        self._live.discard(room_name)
        self._loads.pop(room_name, None)
        self._book.room_closed(room_name)

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
                session = self._drop_session(event.session)
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
            case protocol.LoadChanged():
                self._load_changed(room, event)
            case protocol.RecordingAlert():
                log.error(
                    "recording.alert",
                    room=room.name,
                    recording=event.id,
                    kind=event.kind,
                    reason=event.reason,
                )
                self.hub.publish(
                    "recording.alert", room.name, recording=event.id, kind=event.kind, reason=event.reason
                )
            case protocol.RecordingLost():
                await self._recording_lost(room, event)
            case protocol.WorkerDied():
                self._worker_died(room, event)

    def _load_changed(self, room: Room, load: protocol.LoadChanged) -> None:
        """Each step that is taken is announced; the figures in between are for admission only."""
        before = self._loads.get(room.name)
        self._loads[room.name] = load
        step = 0 if before is None else before.step
        if load.step != step:
            kind = "room.degraded" if load.step > step else "room.restored"
            told = load.model_dump(include={"step", "name", "cause", "pressure"})
            log.warning(kind, room=room.name, **told)
            self.hub.publish(kind, room.name, **told)

    def _worker_died(self, room: Room, event: protocol.WorkerDied) -> None:
        if event.epoch != room.epoch:
            return
        now = asyncio.get_running_loop().time()
        log.error("worker.died", room=room.name, epoch=event.epoch, detail=event.detail)
        self._lost(room.name)
        self.restarts += 1
        self._drop_sessions_of(room.name)
        for participant in room.participants.values():
            participant.absent_since = now
            participant.speaking = False
        self.hub.publish("room.interrupted", room.name, detail=event.detail)
        crashes = self._crashes[room.name]
        crashes.append(now)
        if len(crashes) == MAX_CRASHES and now - crashes[0] < CRASH_WINDOW_S:
            log.error("worker.gave_up", room=room.name, crashes=MAX_CRASHES, window_s=CRASH_WINDOW_S)
            return
        task = asyncio.create_task(self._repair(room), name=f"repair {room.name}")
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)

    async def _repair(self, room: Room) -> None:
        try:
            await self._ensure_worker(room)
        except MosaiqueError as error:
            log.warning("worker.not_replaced", room=room.name, error=str(error))
            return
        self.hub.publish("room.restarted", room.name, epoch=room.epoch)

    # --- sweep ----------------------------------------------------------------------------------------------

    async def _sweep_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            for room in list(self._rooms.values()):
                try:
                    await self._sweep(room, loop.time())
                except Exception:
                    log.exception("registry.sweep_failed", room=room.name)

    async def _sweep(self, room: Room, now: float) -> None:
        for participant in list(room.participants.values()):
            if participant.absent_since is not None and now - participant.absent_since > ABSENT_S:
                await self._forget(room, participant, "did not come back")
        await self._stop_overlong(room, now)
        if room.recording is not None and not any(s.room == room.name for s in self._sessions.values()):
            if now - self._empty_since.setdefault(room.name, now) > EMPTY_RECORDING_S:
                await self._finish_recording(room, "the room was empty")
        else:
            self._empty_since.pop(room.name, None)
        busy = (
            room.recording is not None
            or room.participants
            or any(s.room == room.name for s in self._sessions.values())
        )
        if busy or room.name not in self._live:
            self._idle_since.pop(room.name, None)
        elif now - self._idle_since.setdefault(room.name, now) > IDLE_S:
            await self._retire(room)

    async def _stop_overlong(self, room: Room, now: float) -> None:
        """Pauses count: what is forgotten is often paused. With the room's setting a new recording begins at once."""
        if room.recording is None:
            return
        since = self._recording_since.setdefault(room.recording.id, now)
        if now - since > 60 * room.max_recording_minutes:
            await self._finish_recording(
                room, f"{room.max_recording_minutes} minutes are the longest in this room"
            )
            if any(s.room == room.name and s.publish for s in self._sessions.values()):
                await self._record_if_set(room)

    async def _retire(self, room: Room) -> None:
        async with self._locks[room.name]:
            if room.name in self._idle_since and room.name in self._live:
                self._lost(room.name)
                await self._host.close(room.name, grace_s=CLOSE_GRACE_S)


def empty_stats() -> dict[str, Any]:
    """The contract's stats body of a room in which nothing runs."""
    ticks = {"run": 0, "late": 0, "dropped": 0, "pauses": 0, "longest_ms": 0}
    return {
        "participants": {},
        "renditions": {},
        "viewers": {},
        "ticks": {
            "audio": ticks,
            "video": {**ticks, "scale_ms": 0.0, "compose_ms": 0.0},
        },
        "queues": {},
        "load": {"pressure": 0.0, "cause": "canvas", "step": 0, "name": "full", "full": False, "cores": 0.0},
    }
