"""Every error that recording and archiving raise on purpose.

    RecordingError
    ├── RecordingMissing     no recording has this id; 404
    ├── RecordingLive        the room is being recorded already (carries the id); 409
    ├── WrongState           the recording exists but its state forbids the request; 409
    ├── Bound                a hold or its retention forbids the deletion; 409
    ├── BadQuery             a search argument (cursor, state, limit) that cannot be read; 422
    ├── BadTerms             a hold, a retention or a note that cannot be; 422
    ├── UnsafePath           a key or path that this package did not make; 404
    ├── BadPackage           a spool package or media file that cannot be used; ours
    ├── BadEntry             an entry of a ledger or of the audit log that was not made so; somebody's, or a disk's
    ├── PackageBusy          another process holds the package's writer lock; ours
    └── StoreError           the object store's side
        ├── ObjectMissing    no object under this key
        ├── ObjectExists     the key is taken: objects are never overwritten
        ├── ObjectLocked     a retention or a hold binds the object; 409
        ├── LockRefused      the store has no locks, or refuses to shorten one
        ├── UploadMissing    the store knows no such unfinished upload
        ├── StoreRefused     credentials, bucket, clock, region: somebody has to set something right
        │   └── EndpointRefused  the jurisdiction guard: nothing was sent there
        └── FixityError      what was read back is not what was written

``recording`` does not know ``mixer``: the HTTP floor maps these to its own tree.
"""

from __future__ import annotations


class RecordingError(Exception):
    """Root of the tree. ``str(error)`` is a sentence for the person who reads it."""


class RecordingMissing(RecordingError):
    """No recording has this id."""


class RecordingLive(RecordingError):
    """The room is being recorded already; ``recording_id`` names the live recording."""

    def __init__(self, room: str, recording_id: str) -> None:
        super().__init__(f"room {room} is being recorded already, as {recording_id}")
        self.recording_id = recording_id


class WrongState(RecordingError):
    """The recording's state forbids the request; ``state`` is the state it is in."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


class Bound(RecordingError):
    """The recording may not be deleted: it is held, or its retention has not ended."""


class BadQuery(RecordingError):
    """A search argument cannot be read; ``field`` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class BadTerms(RecordingError):
    """What is asked for a recording (a hold, a retention, a note) cannot be; ``field`` names what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class UnsafePath(RecordingError):
    """A key or a path inside a package that could not have been made here."""


class BadPackage(RecordingError):
    """A package in the spool, or its media, that cannot be used as it is."""


class BadEntry(RecordingError):
    """An entry of a ledger or a line of the audit log that is not as it was written."""


class PackageBusy(RecordingError):
    """Another process is writing or recovering this package."""


class StoreError(RecordingError):
    """The object store failed; the operation may be tried again."""


class ObjectMissing(StoreError):
    """The store has no object under this key."""


class ObjectExists(StoreError):
    """The key is taken. Objects are never overwritten."""


class ObjectLocked(StoreError):
    """A retention or a legal hold in the store binds the object."""


class LockRefused(StoreError):
    """The store cannot lock objects, or refuses to shorten a lock."""


class UploadMissing(StoreError):
    """The store knows no such unfinished upload: completed, aborted, or expired."""


class StoreRefused(StoreError):
    """The store answers and says no; trying again helps only when somebody has changed something."""


class EndpointRefused(StoreRefused):
    """The jurisdiction guard refuses the endpoint; ``host`` and ``why`` say which and the reason."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"{host} is refused as an archive: {why}")
        self.host = host
        self.why = why


class FixityError(StoreError):
    """Bytes read back from the store differ from those that were written."""
