"""The workers of the rooms: started when one is asked, replaced when one dies, ended when it has been idle.

A worker is known by its room's name and started from the room's state, so losing it loses nothing that control
knows. This module also holds what the workers say of their load, by which newcomers are turned away (``admission``).
It speaks to workers through ``RoomHost`` only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import structlog

from mixer import protocol
from mixer.admission import Admission, newcomer
from mixer.errors import MosaiqueError, NotFound, WorkerLost
from mixer.events import EventHub
from mixer.host.port import RoomHost
from mixer.overload import decoding_threads
from mixer.relay_book import RelayBook
from mixer.room import Room

log = structlog.get_logger(__name__)

IDLE_S: Final = 5.0  # an idle room has no worker; five seconds outlast a page reload
CRASH_WINDOW_S: Final = 60.0
MAX_CRASHES: Final = 5  # within the window; then the room waits for the next join instead of spinning
CLOSE_GRACE_S: Final = (
    5.0  # drain of one worker: sealing a fragment takes milliseconds, a loaded disk a second
)

A = TypeVar("A", bound=protocol.Message)


class Workers:
    """See the module. Single loop."""

    def __init__(
        self, host: RoomHost, settings: protocol.WorkerSettings, book: RelayBook, hub: EventHub
    ) -> None:
        self._host = host
        self._settings = settings
        self._book = book
        self._hub = hub
        machine = os.cpu_count() or 1
        self._admission = Admission(settings.cpu_cores or float(machine), decoding_threads(machine))
        self._refuses = settings.overload == "act"
        self._live: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._idle_since: dict[str, float] = {}
        self._crashes: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_CRASHES))
        self._repairs: set[asyncio.Task[None]] = set()

    # --- words ----------------------------------------------------------------------------------------------

    async def ask(self, room: Room, request: protocol.Request, answer_type: type[A]) -> A:
        """Ask the room's worker, which is started if there is none."""
        self._idle_since.pop(room.name, None)
        await self._ensure(room)
        answer = await self._host.ask(room.name, request)
        if not isinstance(answer, answer_type):
            raise MosaiqueError(f"the worker answered {request.op} with {type(answer).__name__}")
        return answer

    async def tell(self, room_name: str, request: protocol.Request) -> None:
        """Tell the room's worker if there is one; a new one is started from the room's state anyway."""
        with contextlib.suppress(NotFound, WorkerLost):
            await self._host.ask(room_name, request)

    async def stats(self, room: Room) -> dict[str, Any]:
        """The contract's stats; an idle room has all of them at zero."""
        if room.name not in self._live:
            return empty_stats()
        # Not by `ask`: being looked at by a scraper must not keep an idle worker alive.
        answer = await self._host.ask(room.name, protocol.GetStats())
        return answer.body if isinstance(answer, protocol.Stats) else empty_stats()

    # --- life -----------------------------------------------------------------------------------------------

    async def _ensure(self, room: Room) -> None:
        async with self._locks[room.name]:
            if room.name in self._live:
                return
            if room.ended:
                raise NotFound(f"room {room.name} has ended")
            await self._host.open(room.state(self._settings))
            self._live.add(room.name)
            # Before the first answer names these sockets to a browser: a relay that does not know them yet would
            # refuse, and the browser would not ask again.
            media = await self._host.ask(room.name, protocol.GetMedia())
            if isinstance(media, protocol.Media):
                self._book.room_opened(room.name, media.sockets)

    def lost(self, room_name: str) -> None:
        """The room has no worker any more, or is about to have none."""
        self._live.discard(room_name)
        load = self._admission.lost(room_name)
        if load is not None and load.step:
            # what was given up went with the worker: another one begins with all of it
            self._tell_step("room.restored", room_name, empty_stats()["load"])
        self._book.room_closed(room_name)

    def replace(self, room: Room, now: float) -> None:
        """Start another worker for one that died at ``now``, unless they die again and again."""
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
            await self._ensure(room)
        except MosaiqueError as error:
            log.warning("worker.not_replaced", room=room.name, error=str(error))
            return
        self._hub.publish("room.restarted", room.name, epoch=room.epoch)

    async def sweep(self, room: Room, now: float, *, busy: bool) -> None:
        """End the worker of a room that has not been ``busy`` for ``IDLE_S``."""
        if busy or room.name not in self._live:
            self._idle_since.pop(room.name, None)
        elif now - self._idle_since.setdefault(room.name, now) > IDLE_S:
            async with self._locks[room.name]:
                if room.name in self._idle_since and room.name in self._live:
                    await self._close(room.name)

    async def end(self, room: Room) -> None:
        """End a room's worker for good; no other one is started for it."""
        async with self._locks[room.name]:
            room.ended = True
            await self._close(room.name)
        for table in (self._locks, self._idle_since, self._crashes):
            table.pop(room.name, None)

    async def _close(self, room_name: str) -> None:
        self.lost(room_name)
        await self._host.close(room_name, grace_s=CLOSE_GRACE_S)

    async def shutdown(self, *, grace_s: float) -> None:
        """End all of them; none is replaced any more."""
        await self._host.shutdown(grace_s=grace_s)
        for task in list(self._repairs):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # --- load -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def place(self, room: Room, *, shows: bool, first: bool) -> Iterator[None]:
        """Room for somebody new, held while they are let in; ``shows``: with a picture, ``first``: nobody is inside.

        Raises ``NoCapacity`` when those inside could feel it; who is inside may come back at any time.
        """
        if not self._refuses:
            yield
            return
        pictures = sum(participant.publishes for participant in room.participants.values())
        cost = newcomer(room.layout.body, pictures, shows=shows, first=first)
        with self._admission.place(room.name, cost, asyncio.get_running_loop().time()):
            yield

    def load_changed(self, room: Room, load: protocol.LoadChanged) -> None:
        """Each step that is taken is announced; the figures in between are for admission only."""
        before = self._admission.measured(room.name, load)
        step, name = (0, "full") if before is None else (before.step, before.name)
        renamed = load.step and load.name != name  # a recording that begins or ends has other steps
        if load.step != step or renamed:
            self._tell_step(
                "room.restored" if load.step < step else "room.degraded", room.name, load.model_dump()
            )

    def _tell_step(self, kind: str, room_name: str, load: Mapping[str, Any]) -> None:
        told = {key: load[key] for key in ("step", "name", "cause", "pressure")}
        log.warning(kind, room=room_name, **told)
        self._hub.publish(kind, room_name, **told)


def empty_stats() -> dict[str, Any]:
    """The contract's stats body of a room in which nothing runs."""
    return {
        "participants": {},
        "renditions": {},
        "viewers": {},
        "ticks": {
            "audio": {"run": 0, "late": 0, "dropped": 0},
            "video": {"run": 0, "late": 0, "dropped": 0, "scale_ms": 0.0, "compose_ms": 0.0},
        },
        "queues": {},
        "load": {"pressure": 0.0, "cause": "canvas", "step": 0, "name": "full", "full": False, "cores": 0.0},
    }
