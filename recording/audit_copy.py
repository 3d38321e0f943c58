"""The audit log in the archive, so that it outlives the machine: each copy holds the lines since the one before.

    mosaique.archive/audit/<log>/000000000001-000000000214.jsonl

Copies are objects like all others: never overwritten, so a log that was changed here no longer agrees with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from recording.audit import AuditLog, Line, read_line
from recording.errors import BadEntry, ObjectExists
from recording.store import ObjectStore, read_object

AUDIT_PREFIX: Final = "mosaique.archive/audit/"  # no room's name has a dot: no package can lie there
COPY_LINES: Final = 20_000  # of some 250 bytes: an object of 5 MB at most
_COPY: Final = re.compile(r"([0-9A-HJKMNP-TV-Z]{26})/([0-9]{12})-([0-9]{12})\.jsonl", re.ASCII)


def copy_audit(log: AuditLog, store: ObjectStore) -> int:
    """Copy what is new, up to a signed checkpoint; returns how many lines that were. Raises StoreError, BadEntry."""
    log.seal()
    copied = 0
    for name in log.logs():
        done = max((last for _, _, last in _copies(store, name)), default=0)
        lines: list[Line] = []
        for line in log.lines(name, done):
            lines.append(line)
            if len(lines) >= COPY_LINES:
                copied += _put(store, lines)
                lines = []
        copied += _put(store, lines)
    return copied


def restore_audit(log: AuditLog, store: ObjectStore) -> int:
    """Bring back the logs that only the archive has; returns how many."""
    known = set(log.logs())
    missing = sorted({name for name in _logs(store) if name not in known})
    for name in missing:
        log.restore(name, b"".join(read_object(store, key) for key, _, _ in _copies(store, name)))
    return len(missing)


def compare_audit(log: AuditLog, store: ObjectStore) -> list[str]:
    """A sentence for each log whose lines here are not those of the archive's copies."""
    problems = []
    known = set(log.logs())
    for name in _logs(store):
        if name not in known:
            problems.append(f"log {name} is in the archive, and not here")
            continue
        try:
            here = {line.number: line.sha256 for line in log.lines(name)}
            for line in _copied_lines(store, name):
                if here.get(line.number) != line.sha256:
                    problems.append(
                        f"log {name}: line {line.number} is not the one that the archive has a copy of"
                    )
                    break
        except BadEntry as error:
            problems.append(f"log {name}: {error}")
    return problems


def _put(store: ObjectStore, lines: list[Line]) -> int:
    if lines:
        key = f"{AUDIT_PREFIX}{lines[0].log}/{lines[0].number:012}-{lines[-1].number:012}.jsonl"
        with suppress(ObjectExists):  # another process was as quick; what lies there is the same
            store.put(key, b"".join(line.raw + b"\n" for line in lines))
    return len(lines)


def _copies(store: ObjectStore, log: str) -> Iterator[tuple[str, int, int]]:
    """Key, first and last number of each copy, in order."""
    for item in store.list(f"{AUDIT_PREFIX}{log}/"):
        match = _COPY.fullmatch(item.key.removeprefix(AUDIT_PREFIX))
        if match is not None:
            yield item.key, int(match[2]), int(match[3])


def _logs(store: ObjectStore) -> list[str]:
    found = (_COPY.fullmatch(item.key.removeprefix(AUDIT_PREFIX)) for item in store.list(AUDIT_PREFIX))
    return sorted({match[1] for match in found if match is not None})


def _copied_lines(store: ObjectStore, log: str) -> Iterator[Line]:
    for key, _, _ in _copies(store, log):
        for raw in read_object(store, key).split(b"\n"):
            if raw:
                yield read_line(log, raw)
