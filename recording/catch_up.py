"""What the second store lacks is brought there from the first: it came into use later, or had lost something.

An uploader brings each new package into both stores, and what is decided is written into both or not at all. What is
older than the second store nobody would bring there: packages, ledgers, tombstones, PREMIS, the audit log, the public
keys. So the two are compared, month by month of each room, at the start and every `EVERY_S`, and what is missing is
copied. Objects are never overwritten: where both have a key and the sizes differ somebody has to look, so it is said,
and left alone. A package is copied as it was sealed, ``recording.json`` last; of a deleted recording nothing is copied
but what tells of it, and what the second store still has of it is removed.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from recording import package
from recording.audit_copy import AUDIT_PREFIX
from recording.errors import LockRefused, RecordingMissing, StoreError
from recording.index import Index
from recording.object_copy import copy_object
from recording.package import Seal
from recording.rows import RecordingInfo
from recording.signing import KEYS_PREFIX
from recording.store import ObjectStore, read_object

_log = structlog.get_logger(__name__)

EVERY_S: Final = 6 * 3600.0  # a comparison costs listings; what is new goes into both without it
RETRY_S: Final = 600.0  # after a round in which something failed
BYTES_S: Final = 20e6  # what a room and its viewers do not feel; the same as of fixity checks
STEP_BYTES: Final = 64 * 1024 * 1024  # copied in a step and some: the keeper's other tasks get their turn
STEP_OBJECTS: Final = 5000  # looked at in a step and some
MAX_FAILED: Final = 5  # in one step: then the store is down, and the next step may wait
_NAMED: Final = 20  # keys that a round's log line names
_OF_RECORDING: Final = re.compile(
    r"([a-z0-9-]+/[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9A-Z]{26})(?:/|\.ledger/|\.premis/)", re.ASCII
)


@dataclass(slots=True)
class Figures:
    """Counted since the start; but ``differing``, of the last round: keys that have two sizes."""

    rounds: int = 0
    copied: int = 0
    copied_bytes: int = 0
    purged: int = 0
    failed: int = 0
    differing: int = 0


class _Stopped(Exception):
    """Told to stop in the middle of an object."""


class CatchUp:
    """See the module. One thread uses it. ``spool``: what is there is the archiver's to bring. ``clock``: monotonic
    seconds, ``wall``: Unix time."""

    def __init__(
        self,
        first: ObjectStore,
        second: ObjectStore,
        index: Index,
        spool: Path,
        *,
        bytes_s: float = BYTES_S,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._first = first
        self._second = second
        self._index = index
        self._spool = spool
        self._bytes_s = bytes_s
        self._clock = clock
        self._wall = wall
        self._prefixes: deque[str] = deque()
        self._next_s = clock()
        self._failed: set[str] = set()  # of this round: they wait for the next one
        self._differing: set[str] = set()
        self.figures = Figures()

    def step(self, stop: threading.Event) -> None:
        """A bounded piece of a round, if one is due; ``stop`` ends it, also in the middle of an object. Raises
        StoreError when a store cannot be listed, or fails again and again: the same piece comes next."""
        if not self._prefixes:
            if self._clock() < self._next_s:
                return
            self._prefixes.extend([*self._index.months(), KEYS_PREFIX, AUDIT_PREFIX])
            self._failed.clear()
            self._differing.clear()
        turn = _Turn(stop, self._bytes_s)
        with suppress(_Stopped):
            while self._prefixes and not turn.over and turn.objects < STEP_OBJECTS:
                if self._compare(self._prefixes[0], turn):
                    self._prefixes.popleft()
            if not self._prefixes:
                self._round_is_over()

    def _round_is_over(self) -> None:
        self.figures.rounds += 1
        self.figures.differing = len(self._differing)
        _log.info("second_store_compared", **asdict(self.figures), waiting=len(self._failed))
        self._next_s = self._clock() + (RETRY_S if self._failed else EVERY_S)
        if self._differing:
            named = sorted(self._differing)[:_NAMED]
            _log.error("stores_differ", objects=len(self._differing), keys=named)

    def _compare(self, prefix: str, turn: _Turn) -> bool:
        """Bring what is missing under ``prefix``; False when the turn was over before."""
        there = {item.key: item.size for item in self._second.list(prefix)}
        here = {item.key: item.size for item in self._first.list(prefix)}
        turn.objects += len(here) + len(there)
        self._differing.update(key for key, size in here.items() if there.get(key, size) != size)
        apart: defaultdict[str, _Apart] = defaultdict(_Apart)
        for key in sorted(here.keys() ^ there.keys()):
            match = _OF_RECORDING.match(key)
            which = apart[match[1] if match else ""]
            (which.lacking if key in here else which.extra).append(key)
        for name, keys in apart.items():
            if name:
                self._settle(name, keys, turn)
            else:
                self._copy_all(keys.lacking, {}, None, turn)
            if turn.over:
                return False
        return True

    def _settle(self, name: str, keys: _Apart, turn: _Turn) -> None:
        """One recording's: ``name`` and a slash is its package, beside it lies what was decided about it."""
        identifier, inside = name[-26:], f"{name}/"
        if (self._spool / identifier).exists():
            return
        try:
            info = self._index.get(identifier)
        except RecordingMissing:
            return  # until somebody makes the index again from the store
        beside = [key for key in keys.lacking if not key.startswith(inside)]
        lacking = [key for key in keys.lacking if key.startswith(inside)]
        self._copy_all(beside, {}, info, turn)
        if info.state == "deleted":
            if any(key.startswith(inside) for key in keys.extra):
                self._purge(inside)
        elif info.state == "archived" and lacking and inside + package.SEAL not in self._failed:
            self._copy_package(inside, lacking, info, turn)

    def _copy_package(self, inside: str, lacking: list[str], info: RecordingInfo, turn: _Turn) -> None:
        """What is lacking of what was sealed; the seal itself when all else is there."""
        seal_key = inside + package.SEAL
        try:
            seal = Seal.model_validate_json(read_object(self._first, seal_key))
        except (StoreError, ValidationError) as error:
            self._postponed(seal_key, error, turn)
            return
        sealed = {inside + file.path: file.sha256 for file in seal.files}
        files = [key for key in lacking if key in sealed]
        self._copy_all(files, sealed, info, turn)
        if seal_key in lacking and not turn.over and not self._failed.intersection(files):
            self._copy_all([seal_key], {seal_key: info.seal_sha256 or ""}, info, turn)

    def _copy_all(
        self, keys: list[str], sealed: Mapping[str, str], info: RecordingInfo | None, turn: _Turn
    ) -> None:
        for key in keys:
            if turn.over:
                return
            if key in self._failed:
                continue
            try:
                size = copy_object(self._first, self._second, key, sha256=sealed.get(key), pace=turn.pace)
                self._lock(key, info)
            except StoreError as error:
                self._postponed(key, error, turn)
                continue
            if size is not None:
                self.figures.copied += 1
                self.figures.copied_bytes += size

    def _lock(self, key: str, info: RecordingInfo | None) -> None:
        """The second store's own lock says what the ledger says, where it has locks."""
        if info is None or (info.hold is None and info.retention is None):
            return
        if not self._second.capabilities.lock:
            return
        until = None if info.retention is None else datetime.fromisoformat(info.retention)
        if until is not None and until.timestamp() <= self._wall():
            until = None
        with suppress(LockRefused):
            self._second.lock(key, until=until, hold=info.hold is not None)

    def _purge(self, inside: str) -> None:
        try:
            self._second.delete(inside + package.SEAL)
            self.figures.purged += self._second.delete_all(inside)
        except StoreError as error:
            _log.warning("purge_postponed", key=inside, detail=str(error))
            self.figures.failed += 1
            self._failed.add(inside)

    def _postponed(self, key: str, error: Exception, turn: _Turn) -> None:
        self._failed.add(key)
        self.figures.failed += 1
        _log.warning("second_copy_postponed", key=key, detail=str(error))
        turn.failed += 1
        if turn.failed >= MAX_FAILED:
            raise StoreError(f"{turn.failed} objects could not be copied into the second store: {error}")


@dataclass(slots=True)
class _Apart:
    """Keys of one recording that the second store lacks, and that only it has."""

    lacking: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Turn:
    """How far a step may go, and how fast."""

    stop: threading.Event
    bytes_s: float
    objects: int = 0
    bytes: int = 0
    failed: int = 0

    @property
    def over(self) -> bool:
        """Enough was copied."""
        return self.bytes >= STEP_BYTES

    def pace(self, size: int) -> None:
        """Wait as long as ``size`` bytes may take."""
        self.bytes += size
        if self.stop.wait(size / self.bytes_s):
            raise _Stopped
