"""Names in the archive: made by the server, checked in one place, never from a user's text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from ulid import ULID

from recording.errors import UnsafePath

MAX_KEY_BYTES: Final = 512  # S3 allows 1,024; a prefix in front of ours must still fit
MAX_SEGMENT_BYTES: Final = 128  # file systems allow 255, and a temporary name is longer than the final one

# First character excludes "." and "-": no dot files (the local store's own), no "..", no option look-alikes.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_ROOM: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)  # the contract's room name


def safe_key(key: str) -> str:
    """Return ``key`` if it is a relative path that this package could have made, else raise `UnsafePath`.

    The one gate before every file system and store access: refuses the empty string, absolute paths,
    ``..``, dot files, NUL and any other byte outside ``[A-Za-z0-9._-]``, and names longer than the limits
    above.
    """
    if not key or len(key) > MAX_KEY_BYTES:
        raise UnsafePath("a key has 1 to 512 characters")
    for segment in key.split("/"):
        if len(segment) > MAX_SEGMENT_BYTES or not _SEGMENT.fullmatch(segment):
            raise UnsafePath("a key is made of letters, digits, '.', '_', '-' and '/', and names no parent")
    return key


def safe_prefix(prefix: str) -> str:
    """Like `safe_key`, but the empty prefix (everything) and one trailing slash are allowed."""
    if prefix and prefix != "/":
        safe_key(prefix.removesuffix("/"))
    return prefix.removeprefix("/")


def package_prefix(prefix: str) -> str:
    """``prefix`` if it is a folder's, with its slash, and not everything; raises `UnsafePath`."""
    if not prefix.endswith("/"):
        raise UnsafePath("a package's prefix ends with a slash")
    safe_key(prefix.removesuffix("/"))
    return prefix


def recording_id(text: str) -> str:
    """Return ``text`` as a canonical ULID, or raise `UnsafePath` if it is none."""
    if len(text) != 26 or not text.isascii():
        raise UnsafePath("a recording id is a ULID of 26 characters")
    try:
        return str(ULID.from_str(text.upper()))
    except ValueError as error:
        raise UnsafePath("a recording id is a ULID of 26 characters") from error


def package_key(room: str, created: datetime, identifier: str) -> str:
    """The package's prefix, ``<room>/<yyyy>/<mm>/<dd>/<ULID>/``, with the date in UTC."""
    if not _ROOM.fullmatch(room):
        raise UnsafePath(f"{room!r} is not a room's name")
    day = created.astimezone(UTC)
    return safe_key(f"{room}/{day:%Y/%m/%d}/{recording_id(identifier)}") + "/"


def rfc3339(unix_s: float) -> str:
    """``unix_s`` (seconds since 1970) in UTC with milliseconds, as RFC 3339 writes it."""
    moment = datetime.fromtimestamp(round(unix_s * 1000) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; ValueError when it is none or has no offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset, or Z")
    return moment.timestamp()
