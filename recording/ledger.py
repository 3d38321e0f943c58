"""The ledger of a recording: what was done about it after it was sealed. Pure.

The bag stays as it was sealed, so what is decided later lies beside it, one object an act, never overwritten:

    <room>/<yyyy>/<mm>/<dd>/<ULID>/…                  the bag
    <room>/<yyyy>/<mm>/<dd>/<ULID>.ledger/00001.json  the first act
                                          00002.json  …
    <room>/<yyyy>/<mm>/<dd>/<ULID>.premis/00002.xml   PREMIS as of an entry (`recording.premis`)

An act's number is part of its key. Two who act at once want the same number, the store gives it to one, and the
other reads the ledger again before it decides: a hold and a deletion never both win. Each entry is
``{"act": {…}, "key": fingerprint, "signature": hex}``; the act names the SHA-256 of the entry before it, so that
none can be changed, left out or put elsewhere unseen. What holds now is the fold of all acts (`standing`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from recording.errors import BadEntry
from recording.keys import from_rfc3339, safe_key
from recording.package import SealedFile
from recording.signing import KeyRing, Signer

MAX_ENTRY_BYTES: Final = 1024 * 1024  # a tombstone of a package with some thousand files
MAX_REASON: Final = 1000  # characters: a sentence or two, and the number of a file
_SUFFIX: Final = ".ledger/"

Mode = Literal["governance", "compliance"]


def _check_moment(text: str) -> str:
    from_rfc3339(text)
    return text


Moment = Annotated[str, Field(max_length=40), AfterValidator(_check_moment)]


class _Act(BaseModel):
    """``by``: who (a token's ``sub``, or ``policy``). ``previous``: SHA-256 of the entry before, empty for the
    first. Readers ignore fields they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = 1
    recording: str
    number: int = Field(ge=1)
    time: Moment
    by: str
    previous: str = ""


class Hold(_Act):
    """Nothing of the recording may be deleted until a release, whatever its retention."""

    act: Literal["hold"] = "hold"
    reason: str


class Release(_Act):
    """The hold is over."""

    act: Literal["release"] = "release"
    reason: str = ""


class Retention(_Act):
    """Kept at least ``until`` (RFC 3339; None: no date). Under ``compliance`` the date only moves away."""

    act: Literal["retention"] = "retention"
    until: Moment | None
    mode: Mode = "governance"


class Note(_Act):
    """Another description for the index. The sealed package keeps the one it has."""

    act: Literal["note"] = "note"
    note: str


class Fixity(_Act):
    """Every byte was read from the store again. ``damaged``: files that are not what was sealed, or not there."""

    act: Literal["fixity"] = "fixity"
    files: int
    size: int
    damaged: tuple[str, ...] = ()


class Deletion(_Act):
    """The tombstone: who, when, why, and what there was. Names of participants go with the recording."""

    act: Literal["deletion"] = "deletion"
    reason: str
    room: str
    key: str
    created: str
    started: str
    ended: str | None
    duration_s: float | None
    size: int | None
    note: str
    sealed_sha256: str | None
    files: tuple[SealedFile, ...]


Act = Annotated[Hold | Release | Retention | Note | Fixity | Deletion, Field(discriminator="act")]
_ACT: Final[TypeAdapter[Act]] = TypeAdapter(Act)


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a ledger: the act, the statement as it is signed, and the object's own SHA-256."""

    act: Act
    statement: dict[str, Any]
    key: str
    signature: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds now. ``number`` and ``sha256`` are the last entry's; ``checked``: of the last fixity check."""

    hold: Hold | None = None
    until: str | None = None
    mode: Mode = "governance"
    retained: bool = False  # somebody, or the policy, decided about retention
    note: str | None = None
    checked: str | None = None
    damaged: tuple[str, ...] = ()
    deletion: Deletion | None = None
    number: int = 0
    sha256: str = ""

    def binding(self, now_s: float) -> str | None:
        """Why the recording may not be deleted at ``now_s`` (Unix time); None when it may."""
        if self.hold is not None:
            return f"it is held by {self.hold.by}: {self.hold.reason}"
        if self.until is not None and from_rfc3339(self.until) > now_s:
            return f"it is to be kept until {self.until}"
        return None

    def after(self, entry: Entry) -> Standing:
        """The standing after one more entry."""
        act = entry.act
        last = replace(self, number=act.number, sha256=entry.sha256)
        match act:
            case Hold():
                return replace(last, hold=act)
            case Release():
                return replace(last, hold=None)
            case Retention():
                return replace(last, until=act.until, mode=act.mode, retained=True)
            case Note():
                return replace(last, note=act.note)
            case Fixity():
                return replace(last, checked=act.time, damaged=act.damaged)
            case Deletion():
                return replace(last, deletion=act, hold=None, damaged=())


def standing(entries: Iterable[Entry]) -> Standing:
    """The fold of a ledger, from its first entry on."""
    result = Standing()
    for entry in entries:
        result = result.after(entry)
    return result


def ledger_prefix(package_key: str) -> str:
    """Where the ledger of the package under ``package_key`` (it ends with a slash) lies."""
    return package_key.removesuffix("/") + _SUFFIX


def entry_key(package_key: str, number: int) -> str:
    """The key of the entry ``number``."""
    return safe_key(f"{ledger_prefix(package_key)}{number:05}.json")


def premis_key(package_key: str, number: int) -> str:
    """The key of the PREMIS document as of the entry ``number``."""
    return safe_key(f"{package_key.removesuffix('/')}.premis/{number:05}.xml")


def package_of(key: str) -> str | None:
    """The package's key when ``key`` is an entry of its ledger, else None."""
    package, suffix, rest = key.partition(_SUFFIX)
    return package + "/" if suffix and "/" not in rest and rest.endswith(".json") else None


def write_entry(act: Act, signer: Signer) -> bytes:
    """The entry's object: JSON that a person can read, and a signature on its canonical form."""
    statement = act.model_dump(mode="json")
    body = {"act": statement, "key": signer.fingerprint, "signature": signer.sign(statement)}
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_entry(body: bytes, keys: KeyRing) -> Entry:
    """The inverse, for bytes that anyone who can write to the store may have made; raises BadEntry and nothing
    else."""
    if len(body) > MAX_ENTRY_BYTES:
        raise BadEntry("it is larger than any entry that was ever made")
    try:
        outer = json.loads(body)
        statement, key, signature = outer["act"], outer["key"], outer["signature"]
        act = _ACT.validate_python(statement)
    except (ValueError, TypeError, KeyError, RecursionError, ValidationError) as error:
        raise BadEntry("it is not an entry of a ledger") from error
    if not isinstance(key, str) or not isinstance(signature, str):
        raise BadEntry("it is not signed")
    try:
        keys.check(statement, key, signature)
    except (ValueError, RecursionError) as error:
        raise BadEntry("it is not an entry of a ledger") from error
    return Entry(act, statement, key, signature, hashlib.sha256(body).hexdigest())


def follow(before: Standing, entry: Entry, recording: str, *, named: bool = True) -> Standing:
    """The standing after ``entry``, which must be the next one of this recording, and ``named`` by its number. Raises
    BadEntry."""
    act = entry.act
    if not named:
        raise BadEntry("its name is not its number")
    if act.recording != recording:
        raise BadEntry(f"it belongs to recording {act.recording[:40]}")
    if act.number != before.number + 1 or act.previous != before.sha256:
        raise BadEntry(
            "it does not follow the entry before it: one is missing, or was put in another's place"
        )
    return before.after(entry)
