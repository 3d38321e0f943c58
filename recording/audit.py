"""The audit log: who read, changed, deleted, exported, verified. Append-only, hash-chained, signed.

    <folder>/<log>/000000000001.jsonl   lines 1 to …, one JSON object each
    <folder>/<log>/head.json            the last line's number and digest, signed
    <folder>/lock                       held while a line is added

``<log>`` is a ULID, made with the first line. Each line names the SHA-256 of the line before it (the first line of
a file too), so a line that is altered, removed or put elsewhere breaks the chain where it stood; the signed head
tells of lines cut off at the end, and signed ``checkpoint`` lines keep anybody without the key from making the chain
anew. Files are rotated at `ROTATE_BYTES`. `recording.audit_copy` puts all lines into the archive as well.

Any number of processes may add lines. Each is on the disk when `AuditLog.add` returns.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ulid import ULID

from recording.durable import make_folder, sync_folder, write_whole
from recording.errors import BadEntry, BadQuery, StoreError
from recording.keys import recording_id, rfc3339
from recording.signing import KeyRing, Signer

ROTATE_BYTES: Final = 8 * 1024 * 1024  # some 30,000 lines: a file that an editor still opens
CHECKPOINT_LINES: Final = 1000  # at most so many lines could be made anew by who has the disk, not the key
MAX_LINE_BYTES: Final = 64 * 1024
MAX_LIMIT: Final = 500
MAX_NAMED: Final = 20  # files that a line names; the ledger has all of them
_FILE: Final = re.compile(r"[0-9]{12}\.jsonl", re.ASCII)
_CURSOR: Final = re.compile(r"([0-9A-HJKMNP-TV-Z]{26})-([0-9]{1,12})", re.ASCII)
_HEAD: Final = "head.json"
CHECKPOINT: Final = "checkpoint"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its number in its log, its bytes without the line break, and what it says."""

    log: str
    number: int
    raw: bytes
    body: dict[str, Any]

    @property
    def sha256(self) -> str:
        """The digest that the next line names."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def cursor(self) -> str:
        """Names the line among all logs; lines before it are the next page."""
        return f"{self.log}-{self.number}"


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Lines, newest first; ``cursor`` asks for those before them, None when there are none."""

    lines: tuple[Line, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a verification found: lines that hold, and a sentence for each thing that is wrong."""

    lines: int
    checkpoints: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class AuditLog:
    """The log in ``folder``. Methods block for milliseconds; any thread. ``wall``: Unix time."""

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        *,
        wall: Callable[[], float] = time.time,
        rotate_bytes: int = ROTATE_BYTES,
    ) -> None:
        make_folder(folder)
        self.folder = folder
        self._signer = signer
        self._wall = wall
        self._rotate_bytes = rotate_bytes
        self._thread_lock = threading.Lock()

    def add(self, act: str, *, by: str, role: str, recording: str | None = None, **detail: Any) -> Line:
        """Add a line: ``by`` (a token's ``sub``) with ``role`` did ``act``. Durable on return. Raises StoreError
        when it cannot be written: then what was to be logged must not happen."""
        said = {"by": by, "role": role, "act": act, "recording": recording, "detail": detail}
        try:
            with self._locked():
                log, number, previous = self._tail()
                if number % CHECKPOINT_LINES == CHECKPOINT_LINES - 1:
                    point = self._write(log, number + 1, previous, self._checkpoint(log, number, previous))
                    number, previous = point.number, point.sha256
                return self._write(log, number + 1, previous, said)
        except OSError as error:
            raise StoreError(f"the audit log cannot be written: {error.strerror}") from error

    def seal(self) -> Line | None:
        """Add a signed checkpoint unless the last line is one; that line, None when the log is empty."""
        try:
            with self._locked():
                log, number, previous = self._tail()
                if not number:
                    return None
                last = next(self._backwards(log, number + 1), None)
                if last is not None and last.body.get("act") == CHECKPOINT:
                    return last
                return self._write(log, number + 1, previous, self._checkpoint(log, number, previous))
        except OSError as error:
            raise StoreError(f"the audit log cannot be written: {error.strerror}") from error

    def read(
        self,
        *,
        recording: str | None = None,
        tell: Callable[[str | None], bool] = lambda _: True,
        cursor: str | None = None,
        limit: int = 100,
    ) -> AuditPage:
        """Lines newest first, of one recording or of all. ``tell``: whether a line about this recording may be told.
        Raises BadQuery."""
        if not 1 <= limit <= MAX_LIMIT:
            raise BadQuery("limit", f"limit is between 1 and {MAX_LIMIT}")
        last_log, before = _read_cursor(cursor) if cursor is not None else ("~", 0)
        needle = json.dumps(recording).encode() if recording is not None else b""
        found: list[Line] = []
        for log in reversed(self.logs()):
            if log > last_log:
                continue
            for line in self._backwards(log, before if log == last_log else None, needle):
                about = line.body.get("recording")
                if (recording is None or about == recording) and tell(about):
                    found.append(line)
                    if len(found) > limit:
                        return AuditPage(tuple(found[:limit]), found[limit - 1].cursor)
        return AuditPage(tuple(found), None)

    def verify(self, keys: KeyRing) -> AuditReport:
        """Follow every chain from its first line to its last, and check every signature."""
        lines = checkpoints = 0
        problems: list[str] = []
        for log in self.logs():
            number, previous = 0, ""
            try:
                for line in self.lines(log):
                    _follow(line, number, previous)
                    if line.body["act"] == CHECKPOINT:
                        _check_checkpoint(line, keys)
                        checkpoints += 1
                    number, previous = line.number, line.sha256
                    lines += 1
                head = self._head(log)
                if head is not None:
                    keys.check(head["statement"], head["key"], head["signature"])
                    _meets(head, number, previous)
            except BadEntry as error:
                problems.append(f"log {log}, after line {number}: {error}")
        return AuditReport(lines, checkpoints, tuple(problems))

    def logs(self) -> list[str]:
        """The ids of all logs, oldest first; more than one where a log was restored beside a new one."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and len(path.name) == 26)

    def lines(self, log: str, after: int = 0) -> Iterator[Line]:
        """The lines of a log past number ``after``, oldest first. Raises BadEntry for one that cannot be read."""
        files = self._files(log)
        for index, path in enumerate(files):
            following = int(files[index + 1].stem) if index + 1 < len(files) else None
            if following is not None and following <= after + 1:
                continue
            for raw in _whole_lines(path.read_bytes()):
                line = read_line(log, raw)
                if line.number > after:
                    yield line

    def restore(self, log: str, data: bytes) -> None:
        """Bring a log back that only the archive has: all its lines, as `lines` gave them."""
        folder = self.folder / recording_id(log)
        with self._locked():
            if not folder.exists():
                make_folder(folder)
                write_whole(folder / f"{1:012}.jsonl", data)

    # --- the end of the log ---------------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, over threads and processes; the kernel frees the lock of one that dies."""
        with self._thread_lock:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)

    def _tail(self) -> tuple[str, int, str]:
        """The log to write to, and its last line's number and digest. A log whose end is not as it was written stays
        as it is, for `verify` to tell of, and another one begins."""
        logs = self.logs()
        if logs:
            with suppress(BadEntry):
                return self._end_of(logs[-1])
        log = str(ULID.from_timestamp(self._wall()))
        if logs and log <= logs[-1]:  # a clock that was set back: logs stay in their order
            log = str(ULID.from_int(int(ULID.from_str(logs[-1])) + 1))
        make_folder(self.folder / log)
        return log, 0, ""

    def _end_of(self, log: str) -> tuple[str, int, str]:
        """The end of a log. A line that a death in the middle of a write left torn was never acknowledged: it is cut
        off. Raises BadEntry when the end is not the one that was written."""
        head = self._head(log)
        for path in reversed(self._files(log)):
            with path.open("rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - 2 * MAX_LINE_BYTES)
                file.seek(start)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) != len(data):
                os.truncate(path, start + len(whole))
            if whole:
                last = read_line(log, whole[whole.rfind(b"\n", 0, -1) + 1 : -1])
                if head is not None:
                    _meets(head, last.number, last.sha256)
                return log, last.number, last.sha256
        if head is not None:
            _meets(head, 0, "")
        return log, 0, ""

    def _write(self, log: str, number: int, previous: str, said: dict[str, Any]) -> Line:
        body = {"n": number, "time": rfc3339(self._wall()), **said, "previous": previous}
        raw = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        files = self._files(log)
        if files and files[-1].stat().st_size + len(raw) < self._rotate_bytes:
            path = files[-1]
        else:
            path = self.folder / log / f"{number:012}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, raw + b"\n")
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if path not in files:
            sync_folder(path.parent)
        digest = hashlib.sha256(raw).hexdigest()
        statement = {"log": log, "n": number, "sha256": digest}
        head = {**statement, "key": self._signer.fingerprint, "signature": self._signer.sign(statement)}
        write_whole(self.folder / log / _HEAD, json.dumps(head).encode() + b"\n")
        return Line(log, number, raw, body)

    def _checkpoint(self, log: str, number: int, digest: str) -> dict[str, Any]:
        statement = {"log": log, "n": number, "sha256": digest}
        detail = {
            "statement": statement,
            "key": self._signer.fingerprint,
            "signature": self._signer.sign(statement),
        }
        return {"by": "audit", "role": "service", "act": CHECKPOINT, "recording": None, "detail": detail}

    def _head(self, log: str) -> dict[str, Any] | None:
        """The head of a log, its signature unchecked; None for one that was restored. Raises BadEntry."""
        try:
            head = json.loads((self.folder / log / _HEAD).read_bytes())
            statement = {"log": str(head["log"]), "n": int(head["n"]), "sha256": str(head["sha256"])}
            return {"statement": statement, "key": str(head["key"]), "signature": str(head["signature"])}
        except FileNotFoundError:
            return None  # the archive's copies end with checkpoints instead
        except (ValueError, TypeError, KeyError) as error:
            raise BadEntry("the head of the log cannot be read") from error

    # --- reading --------------------------------------------------------------------------------------------

    def _files(self, log: str) -> list[Path]:
        return sorted(path for path in (self.folder / log).iterdir() if _FILE.fullmatch(path.name))

    def _backwards(self, log: str, before: int | None, needle: bytes = b"") -> Iterator[Line]:
        """Lines before number ``before``, newest first; only those that hold ``needle``, which is looked for in
        whole files at a time: the lines of one recording are few among many."""
        for path in reversed(self._files(log)):
            if before is not None and int(path.stem) >= before:
                continue
            data = path.read_bytes()
            end = data.rfind(b"\n") + 1
            while end > 0:
                at = data.rfind(needle, 0, end - 1) if needle else end - 1
                if at < 0:
                    break
                start = data.rfind(b"\n", 0, at) + 1
                end = start
                with suppress(BadEntry):  # spoilt: `verify` is who tells
                    line = read_line(log, data[start : data.find(b"\n", at)])
                    if before is None or line.number < before:
                        yield line


def read_line(log: str, raw: bytes) -> Line:
    """One line without its line break. Raises BadEntry, and nothing else."""
    if len(raw) > MAX_LINE_BYTES:
        raise BadEntry("a line is longer than any that was ever written")
    try:
        body = json.loads(raw)
        number = body["n"]
        sound = (
            isinstance(number, int)
            and number >= 1
            and isinstance(body["previous"], str)
            and isinstance(body["act"], str)
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadEntry("a line cannot be read") from error
    if not sound:
        raise BadEntry("a line cannot be read")
    return Line(log, number, raw, body)


def _follow(line: Line, number: int, previous: str) -> None:
    if line.number != number + 1:
        raise BadEntry(f"line {line.number} follows, not line {number + 1}: lines were removed or reordered")
    if line.body["previous"] != previous:
        raise BadEntry(f"line {number} was altered, or line {line.number} was")


def _meets(head: Mapping[str, Any], number: int, digest: str) -> None:
    """The head may be a line behind the last one (a death between the two writes), never ahead."""
    told = head["statement"]["n"]
    if told > number:
        raise BadEntry(f"lines are missing at the end: there were {told}")
    if told == number and head["statement"]["sha256"] != digest:
        raise BadEntry("the last line is not the one that was written")


def _check_checkpoint(line: Line, keys: KeyRing) -> None:
    detail: Any = line.body.get("detail")
    try:
        statement, key, signature = detail["statement"], str(detail["key"]), str(detail["signature"])
        told = (statement["log"], statement["n"], statement["sha256"])
    except (TypeError, KeyError) as error:
        raise BadEntry(f"the checkpoint in line {line.number} cannot be read") from error
    keys.check(statement, key, signature)
    if told != (line.log, line.number - 1, line.body["previous"]):
        raise BadEntry(f"the checkpoint in line {line.number} was signed for other lines")


def _whole_lines(data: bytes) -> list[bytes]:
    return data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]


def _read_cursor(cursor: str) -> tuple[str, int]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BadQuery("cursor", "cursor is the one that the page before gave")
    return match[1], int(match[2])
