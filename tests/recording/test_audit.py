"""The audit log: whatever is altered, removed or reordered is found; many may write; the archive has a copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import audit as audit_module
from recording.audit import AuditLog, read_line
from recording.audit_copy import AUDIT_PREFIX, compare_audit, copy_audit, restore_audit
from recording.errors import BadEntry, BadQuery, StoreError
from recording.signing import KeyRing, Signer
from tests.fakes.memory_store import MemoryStore

FIRST, SECOND = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01BX5ZZKBKACTAV9WEVGEMMVRZ"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "key.pem")


@pytest.fixture
def keys(signer: Signer) -> KeyRing:
    return KeyRing(signer.public)


@pytest.fixture
def log(tmp_path: Path, signer: Signer) -> AuditLog:
    return AuditLog(tmp_path / "audit", signer, wall=lambda: 1_800_000_000.0, rotate_bytes=2000)


def fill(log: AuditLog, count: int = 30) -> None:
    for number in range(count):
        log.add(
            "read", by=f"p{number % 3}", role="archivist", recording=(FIRST, SECOND)[number % 2], n=number
        )


def files(log: AuditLog) -> list[Path]:
    return sorted(log.folder.glob("*/*.jsonl"))


def numbers(log: AuditLog, **query: object) -> list[int]:
    return [line.body["detail"]["n"] for line in log.read(**query).lines]  # type: ignore[arg-type]


def test_lines_are_chained_rotated_and_hold(log: AuditLog, keys: KeyRing) -> None:
    fill(log)
    log.seal()
    assert len(files(log)) > 3
    assert all(path.stat().st_size < 2000 for path in files(log))
    report = log.verify(keys)
    assert (report.lines, report.checkpoints, report.problems) == (31, 1, ())
    assert log.seal() == log.seal(), "a checkpoint upon a checkpoint says nothing new"


def test_newest_first_page_by_page(log: AuditLog) -> None:
    assert log.read().lines == ()
    fill(log)
    assert numbers(log) == list(reversed(range(30)))
    assert numbers(log, recording=FIRST) == list(range(28, -1, -2))
    seen: list[int] = []
    cursor = None
    while True:
        page = log.read(recording=SECOND, cursor=cursor, limit=4)
        seen += [line.body["detail"]["n"] for line in page.lines]
        cursor = page.cursor
        if cursor is None:
            break
        log.add("read", by="x", role="admin", recording=SECOND, n=99)  # what comes later moves no page
    assert seen == list(range(29, 0, -2))
    assert numbers(log, tell=lambda recording: recording == FIRST) == list(range(28, -1, -2))


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 501}, {"cursor": "x"}, {"cursor": "../../x-1"}, {"cursor": ""}]
)
def test_wrong_queries(log: AuditLog, query: dict[str, object]) -> None:
    with pytest.raises(BadQuery) as caught:
        log.read(**query)  # type: ignore[arg-type]
    assert caught.value.field in query


def altered(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"p1"', b'"p2"', 1))


def removed(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))


def reordered(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    path.write_bytes(b"".join(lines))


def inserted(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[1:]))


def gone(path: Path) -> None:
    path.unlink()


def garbled(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20] + b"\n")


@pytest.mark.parametrize("spoil", [altered, removed, reordered, inserted, gone, garbled])
@pytest.mark.parametrize("which", ["first", "middle", "last"])
def test_whatever_is_changed_is_found(
    log: AuditLog, keys: KeyRing, spoil: Callable[[Path], None], which: str
) -> None:
    fill(log, 31)
    assert log.verify(keys).ok
    found = files(log)
    spoil(found[{"first": 0, "middle": len(found) // 2, "last": -1}[which]])
    report = log.verify(keys)
    assert len(report.problems) == 1
    log.add("read", by="x", role="admin", recording=FIRST, n=1)
    assert not log.verify(keys).ok, "writing on does not heal it"


def test_a_chain_made_anew_without_the_key_is_found(log: AuditLog, keys: KeyRing, tmp_path: Path) -> None:
    fill(log, 5)
    forger = AuditLog(tmp_path / "forged", Signer(tmp_path / "other.pem"), wall=lambda: 1_800_000_000.0)
    forger.add("read", by="nobody", role="archivist")
    (name,) = log.logs()
    for path in (log.folder / name).iterdir():
        path.unlink()
    for path in (forger.folder / forger.logs()[0]).iterdir():
        (log.folder / name / path.name).write_bytes(path.read_bytes())
    assert not log.verify(keys).ok


def test_a_line_that_a_death_left_torn_is_cut_off(log: AuditLog, keys: KeyRing) -> None:
    fill(log, 3)
    with files(log)[-1].open("ab") as file:
        file.write(b'{"n":4,"time"')
    log.add("read", by="x", role="admin", recording=FIRST, n=3)
    assert numbers(log) == [3, 2, 1, 0]
    assert log.verify(keys).ok


def test_a_head_that_a_death_left_behind(log: AuditLog, keys: KeyRing) -> None:
    fill(log, 3)
    head = log.folder / log.logs()[0] / "head.json"
    before = head.read_bytes()
    log.add("read", by="x", role="admin", recording=FIRST, n=3)
    head.write_bytes(before)
    assert log.verify(keys).ok
    head.write_bytes(before.replace(b'"n": 3', b'"n": 2'))
    assert not log.verify(keys).ok


def test_checkpoints_come_by_themselves(
    log: AuditLog, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "CHECKPOINT_LINES", 5)
    fill(log, 12)
    assert log.verify(keys).checkpoints == 2
    text = files(log)[0].read_text()
    body = next(json.loads(row) for row in text.splitlines() if "checkpoint" in row)
    assert body["detail"]["statement"]["n"] == 4
    assert body["n"] == 5


_WRITER = """
import sys
from pathlib import Path
from recording.audit import AuditLog
from recording.signing import Signer
folder = Path(sys.argv[1])
log = AuditLog(folder / "audit", Signer(folder / "key.pem"), rotate_bytes=2000)
for number in range(40):
    log.add("read", by=sys.argv[2], role="archivist", n=number)
"""


def test_processes_and_threads_write_at_once(log: AuditLog, keys: KeyRing, tmp_path: Path) -> None:
    others = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), name], env={**os.environ})
        for name in "ab"
    ]
    threads = [threading.Thread(target=fill, args=(log, 20)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(60) for other in others] == [0, 0]
    report = log.verify(keys)
    assert (report.problems, report.lines) == ((), 120)
    told = [line.body["detail"]["n"] for line in log.read(limit=500).lines if line.body["by"] == "a"]
    assert told == list(reversed(range(40)))


def test_a_full_disk_is_said(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(log, 1)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="audit log cannot be written: No space"):
        log.add("read", by="x", role="admin")


def test_the_archive_has_a_copy_that_outlives_the_machine(
    log: AuditLog, keys: KeyRing, tmp_path: Path
) -> None:
    store = MemoryStore()
    fill(log, 7)
    assert copy_audit(log, store) == 8, "with the checkpoint"
    assert copy_audit(log, store) == 0
    fill(log, 3)
    assert copy_audit(log, store) == 4
    assert len(list(store.list(AUDIT_PREFIX))) == 2
    assert compare_audit(log, store) == []

    new = Signer(tmp_path / "new.pem")
    other = AuditLog(tmp_path / "elsewhere", new)
    assert restore_audit(other, store) == 1
    assert restore_audit(other, store) == 0
    assert [line.raw for line in other.read().lines] == [line.raw for line in log.read().lines]
    assert other.verify(keys).ok
    other.add("read", by="x", role="admin", recording=FIRST, n=1)
    assert other.verify(KeyRing(new.public)).ok is False, "who does not believe the old key can't check it"
    assert copy_audit(other, store) == 2


def test_a_log_shortened_here_differs_from_its_copy(log: AuditLog, keys: KeyRing, tmp_path: Path) -> None:
    store = MemoryStore()
    fill(log, 9)
    copy_audit(log, store)
    (name,) = log.logs()
    shutil_target = log.folder / name
    for path in shutil_target.iterdir():
        path.unlink()
    shutil_target.rmdir()
    assert log.verify(keys).ok, "nothing is here that could be wrong"
    assert compare_audit(log, store) == [f"log {name} is in the archive, and not here"]
    fill(log, 1)
    assert len(compare_audit(log, store)) == 1


@given(st.binary(max_size=300) | st.dictionaries(
    st.sampled_from(["n", "previous", "act"]), st.integers() | st.text(max_size=3) | st.none()
).map(lambda body: json.dumps(body).encode()))  # fmt: skip
def test_any_bytes_are_a_line_or_refused(raw: bytes) -> None:
    try:
        line = read_line(FIRST, raw)
    except BadEntry:
        return
    assert line.number >= 1
    assert isinstance(line.body["previous"], str)
