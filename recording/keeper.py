"""The keeper: what an archive asks for day after day, without anybody asking.

Each step does a little of everything, and may be repeated: retention where nobody decided about it, what is left of
deleted recordings, deletion at the end of retention where the configuration wants it, copies of the audit log, what the
second store lacks, and one fixity check at a bounded rate. A store that fails is left alone for a while; nothing is
lost by waiting.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from recording.audit import MAX_NAMED, AuditLog
from recording.audit_copy import copy_audit
from recording.catch_up import CatchUp
from recording.custody import POLICY, Custody
from recording.errors import BadEntry, Bound, RecordingError, WrongState
from recording.index import Index
from recording.keys import from_rfc3339, rfc3339
from recording.rows import Query, RecordingInfo
from recording.store import ObjectStore

_log = structlog.get_logger(__name__)

DAY_S: Final = 86_400.0
COPY_EVERY_S: Final = 3600.0  # what a machine that burns down takes with it of the audit log, at most
EVERY_S: Final = 60.0  # the other tasks, also after a store failed: dates of retention are days


@dataclass(frozen=True, slots=True)
class Policy:
    """``retention_days``: how long a recording is kept at least, by room where it is named there; None: no date.
    ``delete_expired``: delete when that is over. ``fixity_days``: each recording is read again within this many; 0:
    never. ``fixity_bytes_s``: how fast, at most."""

    retention_days: int | None = None
    room_retention_days: Mapping[str, int] = field(default_factory=dict)
    delete_expired: bool = False
    fixity_days: int = 90
    fixity_bytes_s: float = 20e6

    def days_of(self, room: str) -> int | None:
        """How many days a recording of the room is kept."""
        return self.room_retention_days.get(room, self.retention_days)


class Stopped(Exception):
    """The keeper was told to stop in the middle of a check."""


class Keeper:
    """See the module. One an archive. ``damaged`` hears of each recording that failed its check, from the keeper's
    thread; ``wall``: Unix time, ``clock``: monotonic seconds."""

    def __init__(
        self,
        custody: Custody,
        audit: AuditLog,
        store: ObjectStore,
        index: Index,
        policy: Policy,
        *,
        catch_up: CatchUp | None = None,
        damaged: Callable[[RecordingInfo], None] = lambda _: None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._custody = custody
        self._audit = audit
        self._store = store
        self._index = index
        self._policy = policy
        self._catch_up = catch_up
        self._damaged = damaged
        self._wall = wall
        self._clock = clock
        self._not_before_s: dict[str, float] = {}

    def step(self, stop: threading.Event) -> None:
        """A little of everything; ``stop`` ends a check in its middle. Never raises for the store or a recording."""
        for name, task, every_s in (
            ("purge", self._purge, EVERY_S),
            ("bind", self._bind, EVERY_S),
            ("retain", self._retain, EVERY_S),
            ("expire", self._expire, EVERY_S),
            ("copy", self._copy, COPY_EVERY_S),
            ("second", self._second, 0.0),
            ("check", self._check, 0.0),
        ):
            if stop.is_set():
                return
            if self._clock() < self._not_before_s.get(name, -math.inf):
                continue
            self._not_before_s[name] = self._clock() + every_s
            try:
                task(stop)
            except Stopped:
                return
            except (RecordingError, OSError) as error:
                self._not_before_s[name] = self._clock() + EVERY_S
                _log.warning("keeper_postponed", task=name, detail=str(error))

    def close(self) -> None:
        """Copy the audit log once more, so that the archive has all of it."""
        try:
            copy_audit(self._audit, self._store)
        except (RecordingError, OSError) as error:
            _log.warning("keeper_postponed", task="copy", detail=str(error))

    def _purge(self, stop: threading.Event) -> None:
        for info in self._index.to_purge():
            if stop.is_set():
                return
            self._custody.purge(info)

    def _bind(self, stop: threading.Event) -> None:
        for info in self._index.to_bind():
            if stop.is_set():
                return
            self._custody.bind(info)

    def _retain(self, stop: threading.Event) -> None:
        policy = self._policy
        if policy.retention_days is None and not policy.room_retention_days:
            return
        for info in self._index.to_retain():
            days = policy.days_of(info.room)
            if stop.is_set():
                return
            end_s = from_rfc3339(info.ended or info.created) + (days or 0) * DAY_S
            until = rfc3339(end_s) if days is not None and end_s > self._wall() else None
            _each(info, partial(self._custody.retain, info.id, by=POLICY, until=until))

    def _expire(self, stop: threading.Event) -> None:
        if not self._policy.delete_expired:
            return
        for info in self._index.search(Query(only="expired", limit=100)).recordings:
            if stop.is_set():
                return
            _each(info, partial(self._delete, info))

    def _delete(self, info: RecordingInfo) -> None:
        reason = f"its retention ended ({info.retention})"
        self._custody.delete(info.id, by=POLICY, reason=reason)
        self._audit.add("delete", by=POLICY, role="service", recording=info.id, reason=reason)
        _log.info("recording_expired", recording=info.id, room=info.room, retention=info.retention)

    def _copy(self, stop: threading.Event) -> None:
        copy_audit(self._audit, self._store)

    def _second(self, stop: threading.Event) -> None:
        if self._catch_up is not None:
            self._catch_up.step(stop)

    def _check(self, stop: threading.Event) -> None:
        if not self._policy.fixity_days:
            return
        info = self._index.to_check(self._wall() - self._policy.fixity_days * DAY_S)
        if info is None:
            return
        pace = _Pace(self._policy.fixity_bytes_s, stop, self._clock)
        checked, verification = self._custody.verify(info.id, by=POLICY, progress=pace)
        found = {"ok": verification["ok"], "damaged": list(checked.damaged[:MAX_NAMED])}
        self._audit.add("verify", by=POLICY, role="service", recording=info.id, **found)
        if checked.damaged:
            _log.error("recording_damaged", recording=info.id, room=info.room, files=list(checked.damaged))
            self._damaged(checked)


def _each(info: RecordingInfo, task: Callable[[], object]) -> None:
    """One recording's trouble is not the others'."""
    try:
        task()
    except (Bound, WrongState, BadEntry) as error:
        _log.warning("keeper_left_alone", recording=info.id, detail=str(error))


class _Pace:
    """Slows a check down to a rate, and ends it when the keeper is to stop."""

    def __init__(self, bytes_s: float, stop: threading.Event, clock: Callable[[], float]) -> None:
        self._bytes_s = bytes_s
        self._stop = stop
        self._clock = clock
        self._began_s = clock()

    def __call__(self, path: str, done: int, total: int) -> None:
        ahead_s = done / self._bytes_s - (self._clock() - self._began_s)
        if self._stop.wait(
            max(0.0, ahead_s)
        ):  # a chunk takes milliseconds: so does the wait, and the stop is heard
            raise Stopped
