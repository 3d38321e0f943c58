"""Who comes into a room, and who has left it: offers are answered here, and people admitted, changed, removed.

A participant is who has a session that takes part; with the last one they have left. The rooms themselves, and which
of them there are, are the registry's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from mixer import protocol
from mixer.errors import NoCapacity
from mixer.events import EventHub
from mixer.live_recordings import LiveRecordings
from mixer.relay_book import RelayBook
from mixer.room import Participant, ParticipantPatch, Role, Room
from mixer.sessions import Caller, Session, SessionCreated, Sessions
from mixer.workers import Workers


class Attendance:
    """See the module. Single loop."""

    def __init__(
        self,
        sessions: Sessions,
        workers: Workers,
        recordings: LiveRecordings,
        book: RelayBook,
        hub: EventHub,
        max_participants: int,
        now: Callable[[], datetime],
    ) -> None:
        self._sessions = sessions
        self._workers = workers
        self._recordings = recordings
        self._book = book
        self._hub = hub
        self._max_participants = max_participants
        self._now = now

    async def let_in(
        self,
        room: Room,
        direction: Literal["whip", "whep"],
        caller: Caller,
        sdp: str,
        *,
        rendition: str,
        minus: str | None,
        recorded: bool,
    ) -> SessionCreated:
        """Answer an offer, and admit who makes it. Raises ``NoCapacity``, ``BadOffer``, ``UnsupportedOffer``,
        ``WorkerLost``; then nobody is admitted, and nothing that runs is touched.
        """
        self._sessions.refuse_when_full()
        publish = direction == "whip"
        entry = self._entry_for(room, caller, publish)
        if not recorded:
            entry = entry.model_copy(update={"recorded": False})
        if minus is None and (publish or not caller.is_service):
            minus = entry.id
        session_id = secrets.token_urlsafe(18)
        offer = protocol.Offer(
            session=session_id,
            publish=publish,
            participant=entry,
            sdp=sdp,
            rendition=rendition,
            minus=minus,
        )
        answer = await self._answer(room, offer)
        participates = publish or caller.role in {"participant", "moderator"}
        session = Session(
            session_id, room.name, entry.id if participates else None, publish, caller.sub, entry.id
        )
        await self._replace_older(session)
        self._sessions.begin(session)
        if participates:
            self._admit(room, entry, caller.role)
        if publish:
            await self._recordings.start_if_set(room)
        return SessionCreated(session_id, answer.sdp, session.subject)

    async def _answer(self, room: Room, offer: protocol.Offer) -> protocol.OfferAnswer:
        """Of somebody new only where there is room for them."""
        if offer.participant.id in room.participants:
            known = offer.participant.model_copy(
                update={"publishes": offer.publish or offer.participant.publishes}
            )
            offer = offer.model_copy(update={"participant": known})
            return await self._workers.ask(room, offer, protocol.OfferAnswer)
        first = not self._sessions.in_room(room.name) and room.recording is None
        with self._workers.place(room, shows=offer.publish and "m=video" in offer.sdp, first=first):
            if offer.publish:
                self._refuse_when_full(room)
            return await self._workers.ask(room, offer, protocol.OfferAnswer)

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
            people = "participant" if limit == 1 else "participants"
            raise NoCapacity(f"room {room.name} is full: it takes {limit} {people}")

    def _admit(self, room: Room, entry: protocol.RosterEntry, role: Role) -> None:
        participant, is_new = room.admit(entry, role, self._now())
        self._recordings.not_empty(room)
        self._hub.publish(
            "participant.joined" if is_new else "participant.updated", room.name, **participant.public()
        )

    async def _replace_older(self, session: Session) -> None:
        """One publishing connection a participant: the newest wins, a reload need not wait for a timeout."""
        if not session.publish:
            return
        for old in self._sessions.of(session.room, session.participant):
            if old.publish:
                self._sessions.drop(old.id, asyncio.get_running_loop().time())
                await self._workers.tell(old.room, protocol.HangUp(session=old.id, reason="replaced"))

    async def left_behind(self, room: Room, session: Session, reason: str) -> None:
        """A session is over: its participant leaves with the last one, or stops publishing."""
        if session.participant is None:
            return
        rest = self._sessions.of(session.room, session.participant)
        if not rest or (session.publish and not any(s.publish for s in rest)):
            participant = room.participants.get(session.participant)
            if participant is None:
                return
            if rest and participant.role in {"participant", "moderator"}:
                participant.publishes = False
                participant.speaking = False
                await self._workers.tell(room.name, protocol.SetParticipant(participant=participant.entry()))
                self._hub.publish("participant.updated", room.name, **participant.public())
            else:
                await self.forget(room, participant, reason)

    async def forget(self, room: Room, participant: Participant, reason: str) -> None:
        """Take a participant off the roster."""
        room.participants.pop(participant.id, None)
        await self._workers.tell(room.name, protocol.RemoveParticipant(participant=participant.id))
        self._hub.publish("participant.left", room.name, reason=reason, **participant.public())

    async def change(self, room: Room, participant_id: str, patch: ParticipantPatch) -> Participant:
        """Mute, rename, set the volume, raise or lower the hand. Raises ``NotFound``."""
        participant = room.change_participant(participant_id, patch)
        await self._workers.tell(room.name, protocol.SetParticipant(participant=participant.entry()))
        self._hub.publish("participant.updated", room.name, **participant.public())
        return participant

    async def remove(self, room: Room, participant_id: str) -> None:
        """Hang up everything of theirs. Raises ``NotFound``."""
        participant = room.participant(participant_id)
        theirs = self._sessions.of(room.name, participant_id)
        self._sessions.drop_all(theirs, asyncio.get_running_loop().time())
        self._book.removed(participant_id, self._now().timestamp())
        await self.forget(room, participant, "removed by a moderator")
