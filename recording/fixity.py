"""Fixity: what the store gives back now, compared with what was sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol, TypedDict

from recording.errors import ObjectMissing
from recording.store import ObjectStore


class FileCheck(TypedDict):
    """One file's verdict: ``sha256`` is what it should be, empty for a file that nobody sealed."""

    path: str
    sha256: str
    ok: bool


class Verification(TypedDict):
    """All files' verdicts; ``ok`` when every one is. ``bytes``: how many were read."""

    ok: bool
    bytes: int
    files: list[FileCheck]


class Progress(Protocol):
    """Hears after each piece which file is read, and how many of all bytes have been. What it raises stops the
    reading: so a check is slowed down or given up."""

    def __call__(self, path: str, done: int, total: int) -> None: ...


def no_progress(path: str, done: int, total: int) -> None:
    """Nobody listens."""


def check_package(
    store: ObjectStore, key: str, expected: Mapping[str, str], progress: Progress = no_progress
) -> Verification:
    """Read every object below ``key`` (a package's) and compare it with ``expected``, SHA-256 by path. A missing file
    is not ok, and one that nobody sealed is not. Raises StoreError, and what ``progress`` raises."""
    present = {item.key.removeprefix(key): item.size for item in store.list(key)}
    total = sum(size for path, size in present.items() if path in expected)
    done = 0
    checks: list[FileCheck] = []
    for path, sha256 in expected.items():
        digest = hashlib.sha256()
        try:
            for chunk in store.open_range(key + path):
                digest.update(chunk)
                done += len(chunk)
                progress(path, done, max(done, total))
            ok = digest.hexdigest() == sha256
        except ObjectMissing:
            ok = False
        checks.append(FileCheck(path=path, sha256=sha256, ok=ok))
    strangers = sorted(present.keys() - expected.keys())
    checks += [FileCheck(path=path, sha256="", ok=False) for path in strangers]
    return Verification(ok=all(check["ok"] for check in checks), bytes=done, files=checks)


def damaged(verification: Verification) -> tuple[str, ...]:
    """Paths of the files that are not as they were sealed."""
    return tuple(check["path"] for check in verification["files"] if not check["ok"])
