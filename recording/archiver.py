"""From the spool to the archive: recordings are sealed and brought home. `recording.archiver_process` runs it.

Each package goes through the same steps, and each step may be repeated: whenever this process is killed, the
next one begins again and comes to the same end.

    live: its film and tracks sent as they grow              parts, in the upload journal
    closed by its recorder, or recovered in its place        closed.json
    sealed as a bag in the spool                             recording.json, locally
    every file in the store, read back, compared
    recording.json put last, read back, compared             from here on it is archived
    the index says so                                        state archived
    the second store, if there is one, has it all too
    the spool's copy removed

A package that nobody closes and nobody writes for `ORPHAN_AFTER_S` was left by a dead process: it is
recovered. So nothing stays "recording" because a process died.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from recording import package
from recording.backoff import Backoff
from recording.durable import WriterLock, file_sha256, make_folder, sync_folder
from recording.errors import (
    ObjectMissing,
    PackageBusy,
    RecordingError,
    StoreError,
    UnsafePath,
)
from recording.index import Index
from recording.keys import recording_id
from recording.package import Description, Seal
from recording.recovery import recover, with_loudness
from recording.report import Situation
from recording.second_copy import MARKER as SECOND_MARKER
from recording.second_copy import SecondCopy
from recording.store import ObjectStore, read_object
from recording.upload_journal import UploadJournal
from recording.uploader import Uploader

_log = structlog.get_logger(__name__)

ORPHAN_AFTER_S: Final = (
    10.0  # a dead worker is replaced within about 1 s and continues its package; 10 s is over
)
RECONCILE_S: Final = 60.0
ORPHANS_S: Final = 3600.0
_JOURNAL: Final = ".uploads.sqlite"  # in the spool: it lives as long as what it speaks of
_DELIVERED: Final = "delivered-first"  # in a package that waits only for the second store
_LIVE: Final = "live:"
_REMOVED: Final = ".removed-"  # prefix of a package whose removal has begun
_ABANDONED_S: Final = 3600.0  # a folder without a description after this: its creation was killed


class Archiver:
    """Brings packages from ``spool`` into ``store`` and keeps ``index`` true. One a spool; the caller sees to
    that.

    ``second``: the packages' other home, when there is one. ``clock``: monotonic seconds. ``checkpoint`` is
    called with a name between any two steps; tests stop there.
    """

    def __init__(
        self,
        spool: Path,
        store: ObjectStore,
        index: Index,
        *,
        second: ObjectStore | None = None,
        orphan_after_s: float = ORPHAN_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        make_folder(spool)
        self._spool = spool
        self._store = store
        self._index = index
        self._orphan_after_s = orphan_after_s
        self._clock = clock
        self._checkpoint = checkpoint
        self._journal = UploadJournal(spool / _JOURNAL)
        self._uploader = Uploader("archive", store, self._journal, clock=clock, checkpoint=checkpoint)
        self.second: SecondCopy | None = None
        if second is not None:
            self.second = SecondCopy(
                spool, Uploader("second", second, self._journal, clock=clock), clock=clock
            )
        self._free_since_s: dict[str, float] = {}
        self._backoff = Backoff()
        self._reconciled_s: float | None = None
        self._orphans_s: float | None = None
        self.detail = ""

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def step(self) -> int:
        """Look at every package once, and settle what can be settled. Returns how many were.

        Never raises for a package or for the store: failures are logged, kept in the index as ``reason`` and in
        ``detail``, and tried again, later and later.
        """
        settled = 0
        packages = self._packages()
        self._backoff.keep({f"{kind}{path.name}" for path in packages for kind in ("", _LIVE)})
        for directory in packages:
            if not self._backoff.ready(directory.name, self._clock()):
                continue
            try:
                settled += self._settle(directory)
            except (RecordingError, OSError, sqlite3.Error) as error:
                self._failed(directory, error)
            else:
                self._worked(directory.name)
        if self._reconciled_s is None or self._clock() - self._reconciled_s >= RECONCILE_S:
            self._reconciled_s = self._clock()
            self.reconcile()
        return settled

    def situation(self) -> Situation:
        """For `recording.report`: what waits, and what is wrong with each store."""
        packages = [path.parent for path in self._spool.glob(f"[!.]*/{package.CLOSED}")]
        return Situation(
            waiting=len(packages),
            waiting_second=sum((path / _DELIVERED).exists() for path in packages),
            first=self.detail,
            second=self.second.detail if self.second else "",
        )

    def abort_orphans(self, now: datetime) -> None:
        """Once in `ORPHANS_S`: give up unfinished uploads that nobody knows any more. ``now``: UTC."""
        if self._orphans_s is not None and self._clock() - self._orphans_s < ORPHANS_S:
            return
        self._orphans_s = self._clock()
        try:
            self._uploader.abort_orphans(self._settled, now)
        except StoreError as error:
            _log.warning("orphans_not_aborted", detail=str(error))

    def _settled(self, key: str) -> bool:
        """Whether ``key`` is of a recording of ours that has left the spool."""
        with suppress(RecordingError):
            info = self._index.get(key.split("/")[-2 if key.endswith(package.SEAL) else -3])
            return key.startswith(info.key) and not (self._spool / info.id).exists()
        return False

    def reconcile(self) -> None:
        """Settle rows whose package is no longer in the spool: archived if the store says so, else failed."""
        for info in self._index.unsettled():
            if (self._spool / info.id).exists():
                continue
            try:
                body = read_object(self._store, info.key + package.SEAL)
            except ObjectMissing:
                self._index.set_state(
                    info.id, "failed", "its files are neither in the spool nor in the archive"
                )
                _log.error("recording_lost", recording=info.id, room=info.room)
            except StoreError as error:
                _log.warning("reconcile_postponed", recording=info.id, detail=str(error))
                return
            else:
                self._index.archived(Seal.model_validate_json(body), hashlib.sha256(body).hexdigest())

    def _packages(self) -> list[Path]:
        """Package folders, oldest first; clears what interrupted removals and creations left."""
        found = []
        for path in sorted(self._spool.iterdir()):
            if path.name.startswith(_REMOVED):
                shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                recording_id(path.name)
            except UnsafePath:
                continue
            if (path / package.DESCRIPTION).exists():
                found.append(path)
            elif path.is_dir() and time.time() - path.stat().st_mtime > _ABANDONED_S:
                self._remove(path)
        for gone in self._free_since_s.keys() - {path.name for path in found}:
            del self._free_since_s[gone]
        return found

    def _settle(self, directory: Path) -> bool:
        """Bring one package as far as it can go. True when it left the spool."""
        try:
            lock = WriterLock(directory / package.LOCK)
        except PackageBusy:
            self._free_since_s.pop(directory.name, None)
            self._advance_live(directory)
            return False
        with lock:
            description = package.read_description(directory)
            if not (directory / package.CLOSED).exists() and not self._is_orphan(directory):
                return False
            self._index.adopt(description)
            return self._archive(directory, description)

    def _advance_live(self, directory: Path) -> None:
        """Send what a live package has grown by. Without its lock: what is sent no writer changes any more."""
        name = _LIVE + directory.name
        if not self._backoff.ready(name, self._clock()):
            return
        try:
            self._uploader.advance(directory, package.read_description(directory).key)
        except (RecordingError, OSError) as error:
            wait_s = self._backoff.failed(name, self._clock())
            self.detail = str(error)
            _log.warning(
                "upload_postponed", recording=directory.name, detail=str(error), retry_s=round(wait_s, 1)
            )
        else:
            self._worked(name)

    def _is_orphan(self, directory: Path) -> bool:
        since_s = self._free_since_s.setdefault(directory.name, self._clock())
        return self._clock() - since_s >= self._orphan_after_s

    def _archive(self, directory: Path, description: Description) -> bool:
        if not (directory / package.CLOSED).exists():
            self._advance(description.id, "incomplete")
            self._checkpoint("recover")
        summary = recover(directory, description)
        self._checkpoint("closed")
        if not summary.size:
            self._index.set_state(description.id, "failed", summary.reason or "no picture was ever recorded")
            self._uploader.forget(directory, description.key)
            self._remove(directory)
            return True
        self._index.closed(description.id, summary)
        self._advance(description.id, "sealing")
        self._checkpoint("seal")
        seal = package.read_model(Seal, directory / package.SEAL)  # there on every turn but the first
        if seal is None:
            seal = package.seal(directory, description, with_loudness(directory, summary))
        if not (directory / _DELIVERED).exists():
            if not self._uploader.deliver(directory, seal):
                return False
            self._checkpoint("index")
            self._index.archived(seal, file_sha256(directory / package.SEAL))
            _log.info(
                "recording_archived",
                recording=seal.id,
                room=seal.room,
                size=seal.size,
                complete=seal.complete,
            )
        if self.second is not None and not (directory / SECOND_MARKER).exists():
            if not (directory / _DELIVERED).exists():
                package.write_model(directory / _DELIVERED, seal)
            return False
        self._checkpoint("remove")
        self._uploader.forget(directory, seal.key)
        self._remove(directory)
        return True

    def _advance(self, identifier: str, state: str) -> None:
        """Show progress in the index; a row that is further already (a repeated run) stays."""
        current = self._index.get(identifier).state
        if state == "incomplete" and current in {"recording", "paused"}:
            self._index.set_state(identifier, "incomplete")
        elif state == "sealing" and current in {"recording", "paused", "incomplete"}:
            self._index.set_state(identifier, "sealing")

    def _failed(self, directory: Path, error: Exception) -> None:
        wait_s = self._backoff.failed(directory.name, self._clock())
        self.detail = str(error)
        _log.error("archiving_failed", recording=directory.name, detail=str(error), retry_s=round(wait_s, 1))
        try:
            info = self._index.get(directory.name)
            self._index.set_state(info.id, info.state, f"not archived yet: {error}")
        except (RecordingError, sqlite3.Error):
            return  # a package too spoilt to have a row, or a full disk; the log has it

    def _worked(self, name: str) -> None:
        if self._backoff.worked(name):
            self.detail = ""

    def _remove(self, directory: Path) -> None:
        """Renamed first: a removal that is interrupted leaves nothing that looks like a package."""
        removed = directory.with_name(_REMOVED + directory.name)
        shutil.rmtree(removed, ignore_errors=True)
        directory.rename(removed)
        sync_folder(self._spool)
        shutil.rmtree(removed, ignore_errors=True)
