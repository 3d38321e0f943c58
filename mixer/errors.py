"""Every error the product raises on purpose, drawn once.

    MosaiqueError
    ├── ConfigError            the operator's: a key or a value; exit 2
    ├── NotFound               the caller named something that is not there; 404
    ├── Conflict               the thing is in a state that forbids it; 409
    │   └── AlreadyRecording   carries the id of the live recording
    ├── BadOffer               the peer's SDP cannot be read; 400
    ├── UnsupportedOffer       the SDP is well formed but nothing in it can be answered; 406
    ├── BadRequest             a body that cannot be read; 400
    ├── InvalidBody            readable, but fields are wrong; 422 with ``errors``
    ├── NotAuthenticated       missing, malformed or expired token; 401
    ├── NotAllowed             a valid token that may not do this; 403
    ├── NoCapacity             ours: try again later; 503 with Retry-After
    ├── MalformedPacket        a stranger's bytes; counted and dropped, never answered, never logged one by one
    └── WorkerLost             ours: the room's process ended during a request; 503, the room restarts by itself

Each class says whose fault it is by its place; the message says what to do about it. ``code`` is what
crosses process borders: ``error_from(code, detail, ...)`` makes the same class again on the other side.
"""

from __future__ import annotations

from typing import Any, ClassVar


class MosaiqueError(Exception):
    """Root of the tree. ``str(error)`` is a sentence for the person who reads it."""

    code: ClassVar[str] = "internal"

    def details(self) -> dict[str, Any]:
        """Fields beside the message that must survive a process border (JSON-serialisable)."""
        return {}


class ConfigError(MosaiqueError):
    """A configuration key or value is wrong. Names the key and what it takes."""

    code = "config"


class NotFound(MosaiqueError):
    """The caller named a room, participant, session or recording that is not there."""

    code = "not-found"


class Conflict(MosaiqueError):
    """The named thing exists but its state forbids the request."""

    code = "conflict"


class AlreadyRecording(Conflict):
    """A recording is live in this room already; ``recording_id`` names it."""

    code = "already-recording"

    def __init__(self, message: str, recording_id: str) -> None:
        super().__init__(message)
        self.recording_id = recording_id

    def details(self) -> dict[str, Any]:
        return {"recording_id": self.recording_id}


class BadOffer(MosaiqueError):
    """The peer's SDP or SDP fragment cannot be read."""

    code = "bad-offer"


class UnsupportedOffer(MosaiqueError):
    """The SDP is well formed, but no media section in it can be answered."""

    code = "unsupported-offer"


class BadRequest(MosaiqueError):
    """A request body that cannot be read at all."""

    code = "bad-request"


class InvalidBody(MosaiqueError):
    """A readable body with wrong fields; ``errors`` lists ``{"loc": [...], "msg": str}``."""

    code = "invalid-body"

    def __init__(self, message: str, errors: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.errors = errors

    def details(self) -> dict[str, Any]:
        return {"errors": self.errors}


class NotAuthenticated(MosaiqueError):
    """No token, or one that is malformed, expired or signed by someone else."""

    code = "not-authenticated"


class NotAllowed(MosaiqueError):
    """A valid token whose role or room does not cover the request."""

    code = "not-allowed"


class NoCapacity(MosaiqueError):
    """The machine or the room is full; running sessions are left alone."""

    code = "no-capacity"

    def __init__(self, message: str, retry_after_s: int = 10) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def details(self) -> dict[str, Any]:
        return {"retry_after_s": self.retry_after_s}


class WorkerLost(NoCapacity):
    """The room's process ended while it was being asked; another is being started."""

    code = "worker-lost"


class MalformedPacket(MosaiqueError, ValueError):
    """Bytes from the network that break their format. The one exception that packet parsers raise."""

    code = "malformed-packet"


_BY_CODE: dict[str, type[MosaiqueError]] = {
    cls.code: cls
    for cls in (
        MosaiqueError, ConfigError, NotFound, Conflict, AlreadyRecording, BadOffer, UnsupportedOffer,
        BadRequest, InvalidBody, NotAuthenticated, NotAllowed, NoCapacity, WorkerLost, MalformedPacket,
    )
}  # fmt: skip


def error_from(code: str, message: str, details: dict[str, Any]) -> MosaiqueError:
    """Make the error that another process described by ``code``, message and ``details()``."""
    return _BY_CODE.get(code, MosaiqueError)(message, **details)
