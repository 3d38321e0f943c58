"""Custody: hold, retention, deletion, fixity of what is archived, each an entry of the recording's ledger.

The store has the last word: what is decided is decided on the ledger as it is read from there, and counts when the
store has taken the entry. The index repeats it, so that searching is quick. See `recording.ledger` for the order of
two who decide at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from recording import package
from recording.archive import MAX_NOTE, Archive
from recording.errors import (
    BadEntry,
    BadTerms,
    Bound,
    ObjectExists,
    RecordingMissing,
    StoreError,
    WrongState,
)
from recording.fixity import FileCheck, Progress, Verification, damaged, no_progress
from recording.index import Index
from recording.keys import from_rfc3339, rfc3339
from recording.ledger import (
    MAX_REASON,
    Act,
    Deletion,
    Entry,
    Fixity,
    Hold,
    Mode,
    Note,
    Release,
    Retention,
    Standing,
    entry_key,
    follow,
    ledger_prefix,
    package_of,
    premis_key,
    read_entry,
    write_entry,
)
from recording.package import Description
from recording.premis import write_premis
from recording.rows import RecordingInfo
from recording.signing import KeyRing, Signer
from recording.store import ObjectStore, read_object

_log = structlog.get_logger(__name__)

POLICY: Final = "policy"  # who acts where nobody does: the configuration
_TRIES: Final = 8  # of an entry whose number somebody else took; two of them are rare, eight are a fault

# What decides: the standing, and the fields of the next entry (recording, number, time, by, previous) → the act,
# or None when there is nothing to do.
_Decide = Callable[[Standing, dict[str, object]], Act | None]


class Custody:
    """See the module. ``mode``: how retention is set from now on. ``wall``: Unix time. Methods block; call them from
    a thread. All that take an id raise RecordingMissing, and StoreError; BadEntry when the ledger was tampered with:
    then nothing is decided until somebody has looked."""

    def __init__(
        self,
        archive: Archive,
        store: ObjectStore,
        index: Index,
        signer: Signer,
        keys: KeyRing,
        *,
        mode: Mode = "governance",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._archive = archive
        self._store = store
        self._index = index
        self._signer = signer
        self._mode = mode
        self._wall = wall
        self.keys = keys
        self._published = False
        self.checks = 0  # of fixity, that came to an end
        self.failures = 0  # of those, how many found damage

    @property
    def public_pem(self) -> bytes:
        """The key that tombstones and the audit log are signed with, its public half."""
        return self._signer.public_pem

    @property
    def fingerprint(self) -> str:
        """Its fingerprint, as tombstones name it."""
        return self._signer.fingerprint

    # --- decisions ------------------------------------------------------------------------------------------

    def hold(self, identifier: str, *, by: str, reason: str) -> RecordingInfo:
        """Place a hold, or give the one there is another reason. Raises BadTerms, WrongState for a deleted one."""
        reason = _text("reason", reason, MAX_REASON, required=True)

        def decide(now: Standing, fields: dict[str, object]) -> Act | None:
            if now.hold is not None and now.hold.reason == reason:
                return None
            return Hold.model_validate({**fields, "reason": reason})

        return self._bound(self._decide(identifier, by, decide))

    def release(self, identifier: str, *, by: str, reason: str = "") -> RecordingInfo:
        """End the hold; that there is none is no error."""
        reason = _text("reason", reason, MAX_REASON)

        def decide(now: Standing, fields: dict[str, object]) -> Act | None:
            return None if now.hold is None else Release.model_validate({**fields, "reason": reason})

        return self._bound(self._decide(identifier, by, decide))

    def retain(self, identifier: str, *, by: str, until: str | None) -> RecordingInfo:
        """Keep it at least ``until`` (RFC 3339; None: no date). Raises BadTerms for a date that is over, Bound for a
        shorter one under compliance."""
        until_s = _future(until, self._wall())

        def decide(now: Standing, fields: dict[str, object]) -> Act | None:
            bound_s = 0.0 if now.until is None else from_rfc3339(now.until)
            mode = self._mode
            if bound_s > self._wall() and (now.mode == "compliance" or self._store.capabilities.lock):
                mode = now.mode
                if until_s is None or until_s < bound_s:
                    whose = "compliance" if mode == "compliance" else "the lock of the store"
                    raise Bound(f"under {whose} its retention ({now.until}) can only be made longer")
            wanted = None if until_s is None else rfc3339(until_s)
            if now.retained and (now.until, now.mode) == (wanted, mode):
                return None
            return Retention.model_validate({**fields, "until": wanted, "mode": mode})

        return self._bound(self._decide(identifier, by, decide))

    def describe(self, identifier: str, *, by: str, note: str) -> RecordingInfo:
        """Another note for the index; the sealed package keeps its own. Raises BadTerms."""
        note = _text("note", note, MAX_NOTE)

        def decide(now: Standing, fields: dict[str, object]) -> Act | None:
            return None if now.note == note else Note.model_validate({**fields, "note": note})

        return self._decide(identifier, by, decide)

    def delete(self, identifier: str, *, by: str, reason: str) -> Deletion:
        """Sign the tombstone, then remove every object of the package; the tombstone. Raises Bound while a hold or a
        retention binds, WrongState unless it is archived or failed, BadTerms without a reason.

        The tombstone is there first: what a death, or a store that fails, leaves of the package is removed by
        `purge` later.
        """
        reason = _text("reason", reason, MAX_REASON, required=True)
        info = self._index.get(identifier)
        if info.state not in {"archived", "failed"}:
            raise WrongState(
                f"the recording is {info.state}; only an archived or a failed one is deleted", info.state
            )
        there_was = self._tomb(info)

        def decide(now: Standing, fields: dict[str, object]) -> Act | None:
            binding = now.binding(self._wall())
            if binding is not None:
                raise Bound(f"recording {info.id} can't be deleted: {binding}")
            return Deletion.model_validate({**fields, **there_was, "reason": reason})

        gone = self._decide(identifier, by, decide)
        try:
            self.purge(gone)
        except StoreError as error:
            _log.warning("purge_postponed", recording=info.id, detail=str(error))
        self._keep_premis(gone)
        return self.tombstone(identifier)

    def purge(self, info: RecordingInfo) -> None:
        """Remove what there still is of a deleted recording's package, ``recording.json`` first: without it nothing
        looks archived."""
        if info.state != "deleted":
            raise WrongState("only what is deleted is purged", info.state)
        self._store.delete(info.key + package.SEAL)
        self._store.delete_all(info.key)
        self._index.purged(info.id)

    def verify(
        self, identifier: str, *, by: str, progress: Progress = no_progress
    ) -> tuple[RecordingInfo, Verification]:
        """Read every byte again, and enter what was found. Raises WrongState, and what ``progress`` raises. A ledger
        that can't be believed counts as damage: its entries are named beside the files."""
        verification = self._archive.verify(identifier, progress)
        self.checks += 1
        self.failures += not verification["ok"]

        def decide(now: Standing, fields: dict[str, object]) -> Act | None:
            bad = damaged(verification)
            found = {"files": len(verification["files"]), "size": verification["bytes"], "damaged": bad}
            return Fixity.model_validate({**fields, **found})

        try:
            info = self._decide(identifier, by, decide)
            self._keep_premis(info)
        except BadEntry:
            info = self._index.get(identifier)
            spoilt = FileCheck(
                path=ledger_prefix(info.key).removeprefix(_parent(info.key)), sha256="", ok=False
            )
            verification = Verification(
                ok=False, bytes=verification["bytes"], files=[*verification["files"], spoilt]
            )
            info = self._index.spoilt(identifier, damaged(verification), rfc3339(self._wall()))
        return info, verification

    def bind(self, info: RecordingInfo) -> None:
        """Have the store's own locks say what the ledger says, where the store has locks (S3 Object Lock). The ledger
        binds whether or not they do; they bind also those who come to the store without us."""
        if self._store.capabilities.lock:
            if info.state != "archived":
                return  # its objects are locked when they are there
            self._lock(info)
        self._index.bound(info.id)

    def _lock(self, info: RecordingInfo) -> None:
        until = None if info.retention is None else datetime.fromisoformat(info.retention)
        if until is not None and until.timestamp() <= self._wall():
            until = None
        for prefix in (info.key, ledger_prefix(info.key)):
            for item in self._store.list(prefix):
                self._store.lock(item.key, until=until, hold=info.hold is not None)

    def _bound(self, info: RecordingInfo) -> RecordingInfo:
        try:
            self.bind(info)
        except StoreError as error:  # the keeper tries again
            _log.warning("lock_postponed", recording=info.id, detail=str(error))
        return info

    # --- reading --------------------------------------------------------------------------------------------

    def entries(self, info: RecordingInfo) -> tuple[list[Entry], Standing]:
        """The ledger as the store has it, every signature and every link checked, and its fold."""
        return self._read(info.key, info.id)

    def tombstone(self, identifier: str) -> Deletion:
        """What a deleted recording left. Raises WrongState for one that is not deleted."""
        return self.tombstone_entry(identifier)[1]

    def tombstone_entry(self, identifier: str) -> tuple[bytes, Deletion]:
        """The tombstone as it lies in the store, signature included, and what it says. Raises WrongState."""
        info = self._index.get(identifier)
        entries, now = self.entries(info)
        if now.deletion is None:
            raise WrongState(f"the recording is {info.state}, not deleted", info.state)
        number = next(entry.act.number for entry in entries if entry.act == now.deletion)
        return read_object(self._store, entry_key(info.key, number)), now.deletion

    def premis(self, identifier: str) -> bytes:
        """PREMIS 3 of the recording: its files, and all that happened to it. Raises WrongState until it is archived."""
        info = self._index.get(identifier)
        entries, now = self.entries(info)
        if now.deletion is not None:
            return write_premis(info.id, None, now.deletion.files, [entry.act for entry in entries])
        seal = self._archive.seal(identifier)
        files = self._archive.inventory(info)
        return write_premis(info.id, seal, files, [entry.act for entry in entries])

    def reindex(self, progress: Callable[[], object] = lambda: None) -> tuple[int, list[str]]:
        """Make the index again from the store: recordings, then what their ledgers say, tombstones included. How
        many recordings there are, and a sentence for each ledger that can't be believed. See `KeyRing.learn`.
        ``progress`` is called for each recording."""
        self._archive.reindex(progress)
        problems: list[str] = []
        ledgers = sorted({key for item in self._store.list() if (key := package_of(item.key)) is not None})
        for key in ledgers:
            identifier = key.rstrip("/").rsplit("/", 1)[-1]
            try:
                _, now = self._read(key, identifier)
                if now.deletion is not None:
                    self._index.bury(_buried(now.deletion), now)
                else:
                    self._index.stand(identifier, now)
            except BadEntry as error:
                problems.append(str(error))
            except RecordingMissing:
                problems.append(
                    f"{ledger_prefix(key)} belongs to no archived recording; it may be in another spool"
                )
        return self._index.count(), problems

    def _keep_premis(self, info: RecordingInfo) -> None:
        """Put the PREMIS of now beside the package. It follows from what is there anyway: a store that fails just
        now does not undo what was decided."""
        try:
            number = self.entries(info)[1].number
            with suppress(ObjectExists):
                self._store.put(premis_key(info.key, number), self.premis(info.id))
        except StoreError as error:
            _log.warning("premis_postponed", recording=info.id, detail=str(error))

    # --- the ledger -----------------------------------------------------------------------------------------

    def _decide(self, identifier: str, by: str, decide: _Decide) -> RecordingInfo:
        info = self._index.get(identifier)
        for _ in range(_TRIES):
            _, now = self.entries(info)
            if now.deletion is not None:
                self._index.stand(info.id, now)
                raise WrongState(
                    f"the recording was deleted by {now.deletion.by}: {now.deletion.reason}", "deleted"
                )
            fields: dict[str, object] = {
                "recording": info.id,
                "number": now.number + 1,
                "time": rfc3339(self._wall()),
                "by": by,
                "previous": now.sha256,
            }
            act = decide(now, fields)
            if act is None:
                return self._index.stand(info.id, now)
            self._publish_key()
            body = write_entry(act, self._signer)
            try:
                self._store.put(entry_key(info.key, act.number), body)
            except ObjectExists:
                continue  # somebody decided at the same time: read what, and decide again
            return self._index.stand(info.id, follow(now, read_entry(body, self.keys), info.id))
        raise StoreError("the ledger changes all the time; try again")

    def _read(self, key: str, identifier: str) -> tuple[list[Entry], Standing]:
        entries: list[Entry] = []
        now = Standing()
        for item in self._store.list(ledger_prefix(key)):
            try:
                entry = read_entry(read_object(self._store, item.key), self.keys)
                now = follow(now, entry, identifier, named=item.key == entry_key(key, entry.act.number))
            except BadEntry as error:
                raise BadEntry(f"{item.key} can't be believed: {error}") from error
            entries.append(entry)
        return entries, now

    def _publish_key(self) -> None:
        if not self._published:
            self._signer.publish(self._store)
            self._published = True

    def _tomb(self, info: RecordingInfo) -> dict[str, object]:
        """What there is before it goes."""
        return {
            "room": info.room, "key": info.key, "created": info.created, "started": info.started,
            "ended": info.ended, "duration_s": info.duration_s, "size": info.size, "note": info.note,
            "sealed_sha256": info.seal_sha256, "files": self._archive.inventory(info),
        }  # fmt: skip


def _buried(gone: Deletion) -> Description:
    return Description(id=gone.recording, room=gone.room, key=gone.key, created=gone.created, note=gone.note)


def _parent(key: str) -> str:
    """The folder that a package lies in, slash included."""
    return key.rstrip("/").rpartition("/")[0] + "/"


def _text(field: str, text: str, limit: int, *, required: bool = False) -> str:
    text = " ".join(text.encode("utf-8", "replace").decode().replace("\0", " ").split())
    if required and not text:
        raise BadTerms(field, f"{field} says why, in a sentence")
    if len(text) > limit:
        raise BadTerms(field, f"{field} has at most {limit} characters")
    return text


def _future(until: str | None, now_s: float) -> float | None:
    if until is None:
        return None
    try:
        until_s = from_rfc3339(until)
    except (ValueError, OverflowError) as error:
        raise BadTerms("until", f"until is a time like {rfc3339(0)}") from error
    if until_s <= now_s:
        raise BadTerms("until", "until is over already; a retention ends in the future")
    return until_s
