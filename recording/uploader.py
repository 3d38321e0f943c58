"""A package's files into one store: the growing ones while they grow, all of them whole and compared at the end.

A file that grows is sent in parts from the spool as soon as there is one. A part holds only bytes that
are on the disk and that recovery keeps: whole fragments, fdatasynced. What was sent is in the journal; after
any death the store's own list of parts decides what is sent again. When the file is closed, only the
unsent end is left to send, and each part is read back and compared by its SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from recording import package
from recording.errors import FixityError, ObjectExists, ObjectMissing, StoreError, UploadMissing
from recording.fragments import Tail, scan
from recording.package import Seal
from recording.store import MAX_PARTS, MIN_PART_BYTES, ObjectStore, Part, object_sha256
from recording.upload_journal import SentPart, SentUpload, UploadJournal

if TYPE_CHECKING:
    from hashlib import _Hash

_log = structlog.get_logger(__name__)

# The part doubles every 100 parts, up to 640 MiB (it is held in memory): 1,000 parts hold 273 GB, two weeks at
# 1.6 Mbit/s; the first 6 hours go in parts of at most 40 MiB, which is what is left to send at the stop.
_DOUBLE_EVERY: Final = 100
_MOST_DOUBLINGS: Final = 7
# Of a file whose pieces we do not read (tracks): recovery cuts off less than this, which is 16 s at 2.5 Mbit/s.
_TAIL_MARGIN: Final = MIN_PART_BYTES
_TURN_S: Final = 2.0  # one package's share before others get a turn; a part that was begun is finished
_READERS: Final = 2  # parts read back at a time: one waits for the store while the other is hashed
ORPHAN_AGE: Final = timedelta(days=7)  # an upload that nobody knows; another server may share the bucket


def part_bytes(number: int) -> int:
    """Size of part ``number`` (from 1) unless it is the last."""
    return MIN_PART_BYTES << min((number - 1) // _DOUBLE_EVERY, _MOST_DOUBLINGS)


@dataclass(slots=True)
class _Growing:
    """Where one upload stands: ``end`` bytes sent in ``number`` parts, ``digest`` of all of them."""

    upload: str
    number: int = 0
    end: int = 0
    digest: _Hash = field(default_factory=hashlib.sha256)


class Uploader:
    """Sends packages to ``store``, which the journal knows as ``name``. One thread uses it at a time.

    ``checkpoint`` is called with a name between any two steps; tests stop there. ``clock``: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        store: ObjectStore,
        journal: UploadJournal,
        *,
        clock: Callable[[], float] = time.monotonic,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.store = store
        self._journal = journal
        self._clock = clock
        self._checkpoint = checkpoint
        self._growing: dict[str, _Growing] = {}
        self._tails: dict[Path, Tail] = {}
        self._delivered: set[str] = set()  # keys of packages under way that were read back already

    # -- while the room is live --------------------------------------------------------------------------------

    def advance(self, directory: Path, key: str) -> int:
        """Send what has become whole of a live package, at most one part a file; returns how many were sent.

        ``key``: the package's prefix. Raises StoreError, OSError.
        """
        sent = 0
        for source in _growing_files(directory):
            target = key + source.relative_to(directory).as_posix()
            state = self._growing.get(target)
            wanted = state.end + part_bytes(state.number + 1) if state else MIN_PART_BYTES
            # Strictly more than the part: the last one of an object is sent as such, and only `deliver` knows it.
            if source.stat().st_size <= wanted or (whole := self._whole(source)) <= wanted:
                continue
            state = state or self._resume(source, target)
            size = part_bytes(state.number + 1)
            if whole > state.end + size:
                self._send(source, target, state, size, last=False)
                sent += 1
        return sent

    def _whole(self, source: Path) -> int:
        """How much of a growing file recovery would keep, at least."""
        if source.name != Path(package.MEDIA).name:
            return source.stat().st_size - _TAIL_MARGIN
        with source.open("rb") as file:
            tail = self._tails[source] = scan(file, self._tails.get(source))
        return tail.whole_bytes if tail.fragments else 0

    # -- once it is sealed -------------------------------------------------------------------------------------

    def deliver(self, directory: Path, seal: Seal) -> bool:
        """Bring every file of a sealed package into the store, ``recording.json`` last; read back, compared.

        False: others should have a turn first; call it again, each call comes further. Raises FixityError,
        StoreError, OSError.
        """
        until = self._clock() + _TURN_S
        for file in seal.files:
            key = seal.key + file.path
            if key in self._delivered:
                continue
            if not self._put(directory / file.path, key, file.size, file.sha256, until):
                return False
            self._delivered.add(key)
        body = (directory / package.SEAL).read_bytes()
        self._checkpoint("put seal")
        digest = hashlib.sha256(body).hexdigest()
        return self._put(directory / package.SEAL, seal.key + package.SEAL, len(body), digest, until)

    def forget(self, directory: Path, key: str) -> None:
        """The package has left the spool; what is unfinished of it is given up."""
        self._delivered = {name for name in self._delivered if not name.startswith(key)}
        for target in [name for name in self._growing if name.startswith(key)]:
            del self._growing[target]
        for source in [path for path in self._tails if path.is_relative_to(directory)]:
            del self._tails[source]
        with suppress(StoreError):  # what a store that is down keeps, `abort_orphans` takes away
            for pending in list(self.store.uploads(key)):
                self.store.abort(pending.key, pending.upload)
        self._journal.forget_all(self.name, key)

    def abort_orphans(self, ours: Callable[[str], bool], now: datetime) -> int:
        """Abort uploads that no journal knows: at once for a key that is ``ours``, else after `ORPHAN_AGE`."""
        known = self._journal.uploads(self.name)
        count = 0
        for pending in list(self.store.uploads()):
            if any(f"{name}.".startswith(f"{pending.upload}.") for name in known) or not (
                ours(pending.key) or now - pending.begun > ORPHAN_AGE
            ):
                continue
            self.store.abort(pending.key, pending.upload)
            _log.info("orphaned_upload_aborted", store=self.name, key=pending.key)
            count += 1
        return count

    def _put(self, source: Path, key: str, size: int, sha256: str, until: float) -> bool:
        """One finished file, whole. False: not yet."""
        sent = self._journal.get(self.name, key)
        if sent is None and size <= MIN_PART_BYTES:
            self._checkpoint(f"put {key}")
            with suppress(ObjectExists):  # of another try: kept when it is what it should be
                self.store.put(key, source)
            self._checkpoint(f"read back {key}")
            if object_sha256(self.store, key) != sha256:
                self._spoilt(key)
            return True
        if sent is None or not sent.completed:
            self._checkpoint(f"put {key}")
            if not self._finish(source, key, size, sha256, until):
                return False
        self._checkpoint(f"read back {key}")
        return self._read_back(key, size, sha256, until)

    def _finish(self, source: Path, key: str, size: int, sha256: str, until: float) -> bool:
        """Send what is missing and complete the object. False: not yet."""
        state = self._growing.get(key) or self._resume(source, key)
        if state.end > size:
            self._begin_anew(key, state)
            raise FixityError(f"{key} was sent further than its file goes; it is sent again")
        while state.end < size:
            part = min(part_bytes(state.number + 1), size - state.end)
            self._send(source, key, state, part, last=state.end + part == size)
            if state.end < size and self._clock() > until:
                return False
        if state.digest.hexdigest() != sha256:
            self._begin_anew(key, state)
            raise FixityError(f"{source.name} of {key} is not what was recorded")
        parts = [Part(sent.number, sent.size, sent.tag) for sent in self._journal.parts(self.name, key)]
        self._checkpoint(f"complete {key}")
        try:
            self.store.complete(key, state.upload, parts)
        except ObjectExists:
            self.store.abort(key, state.upload)
        except UploadMissing:
            # Completed by one who died before it could say so, or thrown away by the store.
            try:
                self.store.stat(key)
            except ObjectMissing:
                self._begin_anew(key, state)
                raise
        self._checkpoint(f"completed {key}")
        self._journal.completed(self.name, key)
        self._growing.pop(key, None)
        return True

    def _read_back(self, key: str, size: int, sha256: str, until: float) -> bool:
        """Compare every part of the finished object with what was sent. False: not yet."""
        parts = self._journal.parts(self.name, key)
        if sum(part.size for part in parts) != size:  # made by another try, whose journal is gone
            if object_sha256(self.store, key) != sha256:
                self._spoilt(key)
            return True
        if self.store.stat(key).size != size:
            self._spoilt(key)
        if self.store.capabilities.reads_parts:
            return True
        waiting = [part for part in parts if not part.verified]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read-back") as readers:
            for start in range(0, len(waiting), _READERS):
                if start and self._clock() > until:
                    return False
                batch = waiting[start : start + _READERS]
                digests = readers.map(lambda part: self._stored_sha256(key, part), batch)
                for part, digest in zip(batch, digests, strict=True):
                    if digest != part.sha256:
                        self._spoilt(key)
                    self._journal.verified(self.name, key, part.number)
        return True

    def _stored_sha256(self, key: str, part: SentPart) -> str:
        digest = hashlib.sha256()
        for chunk in self.store.open_range(key, part.offset, part.end):
            digest.update(chunk)
        return digest.hexdigest()

    def _spoilt(self, key: str) -> None:
        # Not sealed yet, so nobody relies on it: a spoilt copy is taken away, and the next try puts a new one.
        self.store.delete(key)
        self._journal.forget(self.name, key)
        raise FixityError(f"{key} was read back with other bytes than were written")

    # -- parts -------------------------------------------------------------------------------------------------

    def _send(self, source: Path, key: str, state: _Growing, size: int, *, last: bool) -> None:
        number = state.number + 1
        if number > MAX_PARTS:
            raise StoreError(f"{key} has become longer than {MAX_PARTS} parts can hold")
        data = _durable_bytes(source, state.end, size)
        if len(data) != size:
            raise FixityError(f"{source.name} has become shorter than it was")
        self._checkpoint(f"part {number}")
        try:
            tag = self.store.put_part(key, state.upload, number, state.end, data, last=last)
        except UploadMissing:
            self._begin_anew(key, state)
            raise
        self._checkpoint(f"sent {number}")
        sha256 = hashlib.sha256(data).hexdigest()
        self._journal.sent(self.name, key, SentPart(number, state.end, size, sha256, tag))
        state.digest.update(data)
        state.number, state.end = number, state.end + size

    def _begin_anew(self, key: str, state: _Growing) -> None:
        with suppress(StoreError):
            self.store.abort(key, state.upload)
        self._journal.forget(self.name, key)
        self._growing.pop(key, None)

    def _resume(self, source: Path, key: str) -> _Growing:
        """Where the upload of ``key`` stands by the journal and by the store; begun when there is none."""
        sent = self._journal.get(self.name, key)
        state = self._known(source, key, sent) if sent is not None else None
        if state is None:
            self._checkpoint(f"begin {key}")
            state = _Growing(self.store.begin(key, source))
            self._checkpoint(f"begun {key}")
            self._journal.begin(self.name, key, state.upload)
        self._growing[key] = state
        return state

    def _known(self, source: Path, key: str, sent: SentUpload) -> _Growing | None:
        """What journal and store agree upon: the parts before the first that one of them has not."""
        try:
            stored = {part.number: (part.size, part.tag) for part in self.store.parts(key, sent.upload)}
        except UploadMissing:
            try:
                size = self.store.stat(key).size
            except ObjectMissing:
                self._journal.forget(self.name, key)
                return None
            stored = {p.number: (p.size, p.tag) for p in self._journal.parts(self.name, key)}
            if sum(part_size for part_size, _ in stored.values()) != size:
                self._journal.forget(self.name, key)
                return None
        state = _Growing(sent.upload)
        parts = self._journal.parts(self.name, key)
        for part in parts:
            data = _durable_bytes(source, part.offset, part.size)
            same = hashlib.sha256(data).hexdigest() == part.sha256
            if (
                not same
                or stored.get(part.number) != (part.size, part.tag)
                or part.number != state.number + 1
            ):
                break
            state.digest.update(data)
            state.number, state.end = part.number, part.end
        self._journal.drop(self.name, key, (part.number for part in parts[state.number :]))
        return state


def _growing_files(directory: Path) -> Iterator[Path]:
    media = directory / package.MEDIA
    if media.exists():
        yield media
    yield from chain(sorted((directory / "data/tracks").glob("*.mk[av]")))


def _durable_bytes(source: Path, offset: int, size: int) -> bytes:
    """Bytes of the spool, on the disk for certain: a power cut must not take back what was sent."""
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
        data = os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
    return data
