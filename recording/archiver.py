"""From the spool to the archive: the process that seals recordings and outlives rooms.

    python -m recording.archiver --spool DIR --archive URL|DIR --index FILE

Each package goes through the same steps, and each step may be repeated: whenever this process is killed, the
next one begins again and comes to the same end.

    closed by its recorder, or recovered in its place        closed.json
    sealed as a bag in the spool                             recording.json, locally
    every file put into the store, read back, compared
    recording.json put last, read back, compared             from here on it is archived
    the index says so                                        state archived
    the spool's copy removed

A package that nobody closes and nobody writes for `ORPHAN_AFTER_S` was left by a dead process: it is
recovered. So nothing stays "recording" because a process died.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from recording import package
from recording.durable import WriterLock, make_folder, sync_folder
from recording.errors import (
    FixityError,
    ObjectExists,
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
from recording.store import ObjectStore, object_sha256, read_object
from recording.stores import open_store

_log = structlog.get_logger(__name__)

ORPHAN_AFTER_S: Final = (
    10.0  # a dead worker is replaced within about 1 s and continues its package; 10 s is over
)
POLL_S: Final = 0.5  # stop → archived is to be seconds; listing an empty folder twice a second costs nothing
RECONCILE_S: Final = 60.0
_RETRY_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)  # a store that is down for days is asked every 5 minutes
_REMOVED: Final = ".removed-"  # prefix of a package whose removal has begun
_ABANDONED_S: Final = 3600.0  # a folder without a description after this: its creation was killed


@dataclass(slots=True)
class _Retry:
    """When a package that failed is tried again."""

    attempts: int
    not_before_s: float


class Archiver:
    """Brings packages from ``spool`` into ``store`` and keeps ``index`` true. One a spool; the caller sees to
    that.

    ``clock``: monotonic seconds. ``checkpoint`` is called with a name between any two steps; tests stop
    there.
    """

    def __init__(
        self,
        spool: Path,
        store: ObjectStore,
        index: Index,
        *,
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
        self._free_since_s: dict[str, float] = {}
        self._retries: dict[str, _Retry] = {}
        self._reconciled_s: float | None = None

    def step(self) -> int:
        """Look at every package once, and settle what can be settled. Returns how many were.

        Never raises for a package or for the store: failures are logged, kept in the index as ``reason`` and
        tried again, later and later.
        """
        settled = 0
        for directory in self._packages():
            retry = self._retries.get(directory.name)
            if retry is not None and self._clock() < retry.not_before_s:
                continue
            try:
                settled += self._settle(directory)
            except (RecordingError, OSError) as error:
                self._failed(directory, error)
            else:
                self._retries.pop(directory.name, None)
        if self._reconciled_s is None or self._clock() - self._reconciled_s >= RECONCILE_S:
            self._reconciled_s = self._clock()
            self.reconcile()
        return settled

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
            return False
        with lock:
            description = package.read_description(directory)
            if not (directory / package.CLOSED).exists() and not self._is_orphan(directory):
                return False
            self._index.adopt(description)
            return self._archive(directory, description)

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
            self._remove(directory)
            return True
        self._index.closed(description.id, summary)
        self._advance(description.id, "sealing")
        self._checkpoint("seal")
        seal = package.seal(directory, description, with_loudness(directory, summary))
        for file in seal.files:
            self._checkpoint(f"put {file.path}")
            self._put(directory / file.path, description.key + file.path, file.sha256)
        body = (directory / package.SEAL).read_bytes()
        seal_sha256 = hashlib.sha256(body).hexdigest()
        self._checkpoint("put seal")
        self._put(directory / package.SEAL, description.key + package.SEAL, seal_sha256)
        self._checkpoint("index")
        self._index.archived(seal, seal_sha256)
        self._checkpoint("remove")
        self._remove(directory)
        _log.info(
            "recording_archived", recording=seal.id, room=seal.room, size=seal.size, complete=seal.complete
        )
        return True

    def _put(self, source: Path, key: str, sha256: str) -> None:
        """Store one file and read it back. An object of another try is kept when it is what it should be."""
        try:
            self._store.put(key, source)
        except ObjectExists:
            _log.info("object_there_already", key=key)
        self._checkpoint(f"read back {key}")
        if object_sha256(self._store, key) == sha256:
            return
        # Not sealed yet, so nobody relies on it: a spoilt copy is taken away, and the next try puts a new
        # one.
        self._store.delete(key)
        raise FixityError(f"{key} was read back with other bytes than were written")

    def _advance(self, identifier: str, state: str) -> None:
        """Show progress in the index; a row that is further already (a repeated run) stays."""
        current = self._index.get(identifier).state
        if state == "incomplete" and current in {"recording", "paused"}:
            self._index.set_state(identifier, "incomplete")
        elif state == "sealing" and current in {"recording", "paused", "incomplete"}:
            self._index.set_state(identifier, "sealing")

    def _failed(self, directory: Path, error: Exception) -> None:
        attempts = self._retries[directory.name].attempts if directory.name in self._retries else 0
        wait_s = _RETRY_S[min(attempts, len(_RETRY_S) - 1)]
        self._retries[directory.name] = _Retry(attempts + 1, self._clock() + wait_s)
        _log.error("archiving_failed", recording=directory.name, detail=str(error), retry_s=wait_s)
        try:
            info = self._index.get(directory.name)
            self._index.set_state(info.id, info.state, f"not archived yet: {error}")
        except RecordingError:
            return  # a package too spoilt to have a row; the log has it

    def _remove(self, directory: Path) -> None:
        """Renamed first: a removal that is interrupted leaves nothing that looks like a package."""
        removed = directory.with_name(_REMOVED + directory.name)
        shutil.rmtree(removed, ignore_errors=True)
        directory.rename(removed)
        sync_folder(self._spool)
        shutil.rmtree(removed, ignore_errors=True)


def run(
    spool: Path,
    archive: str,
    index: Path,
    stop: threading.Event,
    *,
    orphan_after_s: float = ORPHAN_AFTER_S,
    poll_s: float = POLL_S,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Archive until ``stop`` is set (or ``alive()`` is false), then settle once more what is closed, and
    return.

    ``archive``: a store's URL or a folder. Raises PackageBusy when another archiver has the spool.
    """
    make_folder(spool)
    with WriterLock(spool / ".archiver"):
        rows = Index(index)
        try:
            archiver = Archiver(spool, open_store(archive), rows, orphan_after_s=orphan_after_s)
            while not stop.is_set() and alive():
                archiver.step()
                stop.wait(poll_s)
            archiver.step()
        finally:
            rows.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The process: SIGTERM or SIGINT finishes what is closed and ends; a second one ends at once, losing
    nothing.
    """
    parser = argparse.ArgumentParser(prog="python -m recording.archiver", description=__doc__.split("\n")[0])
    parser.add_argument("--spool", type=Path, required=True, help="folder where recordings are made")
    parser.add_argument("--archive", required=True, help="file: URL or folder of the archive")
    parser.add_argument("--index", type=Path, required=True, help="SQLite file of the index")
    parser.add_argument("--orphan-after", type=float, default=ORPHAN_AFTER_S, metavar="SECONDS")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent process has ended")
    options = parser.parse_args(arguments)
    stop = threading.Event()

    def asked(number: int, _: object) -> None:
        if stop.is_set():
            os._exit(128 + number)  # every step can be repeated: there is nothing to tidy up
        stop.set()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    parent = os.getppid()
    try:
        run(
            options.spool,
            options.archive,
            options.index,
            stop,
            orphan_after_s=options.orphan_after,
            alive=(lambda: os.getppid() == parent) if options.with_parent else (lambda: True),
        )
    except RecordingError as error:
        _log.error("archiver_stopped", detail=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
