"""The narrow port between control and whatever runs the rooms.

Today ``ProcessHost`` keeps a child process a room; a cluster engine's actors can stand here later. Nothing
above this port knows which. Every implementation passes ``tests/contracts/room_host.py``.
"""

from __future__ import annotations

from typing import Protocol

from mixer import protocol


class RoomHost(Protocol):
    """Runs room workers.

    ``open`` starts a worker and returns once it answers; opening an open room is a ``Conflict``.
    ``ask`` raises ``NotFound`` for a room that is not open, ``WorkerLost`` when the worker ends before it
    answers or does not answer in time, and whatever ``MosaiqueError`` the worker's failure carries.
    ``next_event`` returns events in the order they were said, one consumer only; a worker that ends without
    having been closed is told by ``WorkerDied`` within a second, as the last event of its epoch.
    ``close`` ends a worker: it is asked to drain for ``grace_s`` seconds, then killed; closing a room that is
    not open does nothing. ``shutdown`` closes all of them at once.
    """

    async def open(self, state: protocol.RoomState) -> None: ...

    async def ask(self, room: str, request: protocol.Request) -> protocol.Answer: ...

    async def next_event(self) -> tuple[str, protocol.Event]: ...

    async def close(self, room: str, *, grace_s: float) -> None: ...

    async def shutdown(self, *, grace_s: float) -> None: ...
