"""The connections of this server: whose each of them is, and when its subject has none left. Pure.

``Sessions`` is a table; the relay's book hears of every change of it. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mixer.errors import NoCapacity, NotAllowed, NotFound
from mixer.relay_book import RelayBook
from mixer.room import Role

MAX_SESSIONS: Final = 2000


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


@dataclass(frozen=True, slots=True)
class Session:
    """One connection. ``participant``: who is in the room by it; None for who only watches. ``owner``: the token's."""

    id: str
    room: str
    participant: str | None
    publish: bool
    owner: str
    subject: str


class Sessions:
    """See the module."""

    def __init__(self, book: RelayBook) -> None:
        self._book = book
        self._table: dict[str, Session] = {}
        self._by_room: defaultdict[str, dict[str, Session]] = defaultdict(dict)

    def refuse_when_full(self) -> None:
        """Raises ``NoCapacity`` when there is no room for one more."""
        if len(self._table) >= MAX_SESSIONS:
            raise NoCapacity(f"this server carries {MAX_SESSIONS} connections at most")

    def begin(self, session: Session) -> None:
        """Take a session in."""
        self._table[session.id] = session
        self._by_room[session.room][session.id] = session
        self._book.session_began(session.subject)

    def drop(self, session_id: str, now: float) -> Session | None:
        """Forget a session; the relay hears when its subject has none left. None: there was no such session."""
        session = self._table.pop(session_id, None)
        if session is not None:
            del self._by_room[session.room][session_id]
            if not self._by_room[session.room]:
                del self._by_room[session.room]
            self._book.session_ended(session.subject, now)
        return session

    def drop_all(self, sessions: Iterable[Session], now: float) -> None:
        """Forget these."""
        for session in sessions:
            self.drop(session.id, now)

    def room_of(self, session_id: str) -> str:
        """The room of a session. Raises ``NotFound``."""
        try:
            return self._table[session_id].room
        except KeyError:
            raise NotFound("there is no such session: it ended, or its room was restarted") from None

    def owned(self, session_id: str, caller: Caller) -> Session:
        """The session, if it is the caller's or in a room they rule. Raises ``NotFound``, ``NotAllowed``."""
        room = self.room_of(session_id)
        session = self._table[session_id]
        rules_room = caller.role in {"moderator", "admin"} and caller.room in {"*", room}
        if session.owner != caller.sub and not rules_room:
            raise NotAllowed("this session belongs to someone else")
        return session

    def in_room(self, room: str) -> list[Session]:
        """All of a room."""
        return list(self._by_room[room].values()) if room in self._by_room else []

    def of(self, room: str, participant: str | None) -> list[Session]:
        """All of one participant."""
        return [session for session in self.in_room(room) if session.participant == participant]
