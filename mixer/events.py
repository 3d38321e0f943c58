"""What happens in rooms, told to whoever listens: SSE clients today, webhooks later."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

HISTORY: Final = 1000  # events kept for a client that reconnects with Last-Event-ID
BACKLOG: Final = 500  # events a listener may lag behind before its stream is closed; it resumes by id

# What there is, and what ``data`` of it holds. docs/events.md and the OpenAPI are made from this.
EVENTS: Final[dict[str, str]] = {
    "room.created": "the room, as `GET /v1/rooms/{room}` shows it",
    "room.updated": "the same",
    "room.ended": "nothing",
    "room.interrupted": "`detail`: its worker died; whoever was in it may come back",
    "room.restarted": "`epoch`: another worker carries on",
    "room.degraded": "`step`, `name`, `cause`, `pressure`: quality fell by a step of overload",
    "room.restored": "the same: it is back by a step",
    "participant.joined": "the participant, as the list of participants shows it",
    "participant.updated": "the same: muted, renamed, hand, …",
    "participant.left": "the same, and `reason`",
    "speaker.changed": "`speaking`: ids of who is heard; `speaker`: who has the floor, or null",
    "layout.changed": "`version`, `preset`, `by`",
    "viewer.rendition": "`id`, `session`, `before`, `rendition`: a viewer at `auto` was moved",
    "picture.refused": "`id`, `screen`, `detail`: pictures too large to be decoded come from it; at most every 10 s",
    "recording.started": "`recording`, `by`; likewise all of the following have `recording`, its id",
    "recording.paused": "`by`",
    "recording.resumed": "`by`",
    "recording.stopped": "`reason`; it is being sealed",
    "recording.archived": "`complete`, `reason`: every file is in the archive and was read back",
    "recording.failed": "`complete`, `reason`: nothing of it could be kept",
    "recording.alert": "`kind`, `reason`: what the recorder complains of, as a full disk; `recording` may be null",
    "recording.damaged": "`files`: not as they were sealed, when they were read again",
    "recording.hold": "`by`, `reason`",
    "recording.release": "`by`, `reason`: of the hold",
    "recording.retain": "`by`, `until`, or null",
    "recording.delete": "`by`, `reason`",
}


class Overflow(Exception):
    """The listener fell ``BACKLOG`` events behind; it must subscribe again."""


@dataclass(frozen=True, slots=True)
class RoomEvent:
    """One event. ``id`` grows by one within a run of the server."""

    id: str
    type: str
    room: str
    time: datetime
    data: dict[str, Any]

    def public(self) -> dict[str, Any]:
        """JSON of the SSE ``data`` field."""
        return {
            "id": self.id,
            "type": self.type,
            "room": self.room,
            "time": self.time.isoformat(),
            "data": self.data,
        }


class Subscription:
    """One listener's bounded queue."""

    def __init__(self, room: str | None) -> None:
        self.room = room
        self._queue: asyncio.Queue[RoomEvent | None] = asyncio.Queue(BACKLOG)
        self._overflowed = False

    def offer(self, event: RoomEvent) -> bool:
        """Queue an event; past the bound the subscription ends, it does not skip. False when it just ended."""
        if self._overflowed or (self.room is not None and event.room != self.room):
            return True
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._overflowed = True
        return not self._overflowed

    async def get(self) -> RoomEvent:
        """The next event. Raises ``Overflow`` once the queue has run over, or the hub has closed."""
        if self._overflowed and self._queue.empty():
            raise Overflow
        event = await self._queue.get()
        if event is None:
            raise Overflow
        return event

    def end(self) -> None:
        """Wake the listener for the last time."""
        self._overflowed = True
        if not self._queue.full():
            self._queue.put_nowait(None)


class EventHub:
    """Numbers events, remembers the last ``HISTORY`` of them, hands them to subscribers."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._history: deque[RoomEvent] = deque(maxlen=HISTORY)
        self._subscriptions: set[Subscription] = set()
        self.overflows = 0

    def publish(self, event_type: str, room: str, **data: Any) -> RoomEvent:
        """Tell everybody. ``event_type``: one of `EVENTS`; ValueError for another one."""
        if event_type not in EVENTS:
            raise ValueError(f"there is no event {event_type!r}")
        event = RoomEvent(str(next(self._numbers)), event_type, room, datetime.now(UTC), data)
        self._history.append(event)
        for subscription in self._subscriptions:
            self.overflows += not subscription.offer(event)
        return event

    @contextmanager
    def subscribe(self, room: str | None, *, after: str | None = None) -> Iterator[Subscription]:
        """Listen to one room, or to all (None); ``after``: the last id seen, to resume."""
        subscription = Subscription(room)
        if after is not None and after.isdecimal():
            for event in self._history:
                if int(event.id) > int(after):
                    subscription.offer(event)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every stream."""
        for subscription in self._subscriptions:
            subscription.end()
