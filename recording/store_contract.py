"""What every `recording.store.ObjectStore` must do, as a checker that each implementation runs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from recording.errors import (
    LockRefused,
    ObjectExists,
    ObjectLocked,
    ObjectMissing,
    StoreError,
    UnsafePath,
    UploadMissing,
)
from recording.store import CHUNK_BYTES, MIN_PART_BYTES, ObjectStore, Part, object_sha256, read_object

UNSAFE_KEYS = (
    "",
    "/",
    "/etc/passwd",
    "../up",
    "a/../b",
    "a//b",
    "a/",
    "a\0b",
    "a b",
    ".hidden",
    "x" * 300,
    "é",
    "a\nb",
)


def check_object_store(store: ObjectStore, scratch: Path) -> None:
    """Raise AssertionError, naming the broken promise, unless the (empty) ``store`` keeps the port's
    contract.

    ``scratch``: an existing folder for temporary files, best on the store's own file system.
    """
    _check_round_trip(store, scratch)
    _check_ranges(store)
    _check_missing(store)
    _check_never_overwrites(store)
    _check_listing(store)
    _check_unsafe(store)
    _check_readers(store)
    _check_parts(store, scratch)
    _check_links(store)
    _check_locks(store)
    _check_packages(store)
    for info in list(store.list()):
        store.delete(info.key)
    _require(not list(store.list()), "a deleted object is not listed")


def _check_round_trip(store: ObjectStore, scratch: Path) -> None:
    body = bytes(range(256)) * (CHUNK_BYTES // 256) * 2 + b"tail"
    source = scratch / "source.bin"
    source.write_bytes(body)
    info = store.put("round/trip.bin", source)
    _require((info.key, info.size) == ("round/trip.bin", len(body)), "put reports key and size")
    source.unlink()
    _require(
        read_object(store, "round/trip.bin") == body,
        "what was put comes back, whole, when its source is gone",
    )
    _require(store.stat("round/trip.bin") == info, "stat agrees with put")
    _require(object_sha256(store, "round/trip.bin") == hashlib.sha256(body).hexdigest(), "digests agree")
    store.put("round/empty", b"")
    _require(read_object(store, "round/empty") == b"", "an empty object is an object")


def _check_ranges(store: ObjectStore) -> None:
    store.put("range", b"0123456789")
    cases: list[tuple[int, int | None, bytes]] = [
        (0, None, b"0123456789"), (3, 7, b"3456"), (9, 10, b"9"), (4, 4, b""),
        (8, 99, b"89"), (10, None, b""), (50, 60, b""),
    ]  # fmt: skip
    for start, end, expected in cases:
        _require(b"".join(store.open_range("range", start, end)) == expected, f"the range {start}:{end}")
    chunks = list(store.open_range("round/trip.bin", 1))
    _require(max(map(len, chunks)) <= CHUNK_BYTES, "chunks are bounded")


def _check_missing(store: ObjectStore) -> None:
    _raises(ObjectMissing, lambda: store.stat("not/there"), "stat of a missing key")
    _raises(
        ObjectMissing, lambda: store.open_range("not/there"), "open_range of a missing key, before reading"
    )
    _raises(ObjectMissing, lambda: store.open_range("round"), "a prefix is not an object")
    store.delete("not/there")


def _check_never_overwrites(store: ObjectStore) -> None:
    store.put("once", b"first")
    _raises(ObjectExists, lambda: store.put("once", b"second"), "a second put")
    _require(read_object(store, "once") == b"first", "the first content stays")
    winners: list[bytes] = []

    def race(body: bytes) -> None:
        try:
            store.put("race", body)
        except ObjectExists:
            return
        winners.append(body)

    threads = [threading.Thread(target=race, args=(bytes([n]) * 1000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _require(len(winners) == 1, "of several writers of one key exactly one wins")
    _require(read_object(store, "race") == winners[0], "the winner's bytes are the object")


def _check_listing(store: ObjectStore) -> None:
    for key in ("l/b/2", "l/a/1", "l/ab", "l/a-1", "m"):
        store.put(key, key.encode())
    _require([o.key for o in store.list("l/")] == ["l/a-1", "l/a/1", "l/ab", "l/b/2"], "list is in key order")
    _require([o.key for o in store.list("l/a")] == ["l/a-1", "l/a/1", "l/ab"], "a prefix is plain text")
    _require([o.size for o in store.list("l/b/")] == [5], "list gives sizes")
    _require(not list(store.list("none/")), "an unknown prefix lists nothing")
    store.delete("l/ab")
    _require("l/ab" not in [o.key for o in store.list()], "a deleted object is not listed")


def _check_unsafe(store: ObjectStore) -> None:
    for key in UNSAFE_KEYS:
        _raises(UnsafePath, partial(store.put, key, b""), f"put of {key[:20]!r}")
        _raises(UnsafePath, partial(store.open_range, key), f"open_range of {key[:20]!r}")
        _raises(UnsafePath, partial(store.stat, key), f"stat of {key[:20]!r}")
        _raises(UnsafePath, partial(store.delete, key), f"delete of {key[:20]!r}")


def _check_readers(store: ObjectStore) -> None:
    """Two readers of one object don't disturb each other, and one may stop early."""
    first, second = store.open_range("round/trip.bin"), store.open_range("round/trip.bin", 10, 20)
    with closing(first):  # type: ignore[type-var]  # every iterator here is a generator; the port says only Iterator
        head = next(first)
        _require(b"".join(second) == head[10:20], "readers are independent")


def _check_parts(store: ObjectStore, scratch: Path) -> None:
    """An object made while its file grows, interrupted, resumed, and never over another one."""
    source = scratch / "growing.bin"
    first, second = b"1" * MIN_PART_BYTES, b"2" * (MIN_PART_BYTES // 2) + b"end"
    source.write_bytes(first)
    upload = store.begin("parts/film", source)
    (pending,) = store.uploads("parts/")
    _require(pending.key == "parts/film" and upload.startswith(pending.upload), "uploads lists it")
    _require(not list(store.uploads("else/")), "uploads of another prefix")
    tag = store.put_part("parts/film", upload, 1, 0, first, last=False)
    _raises(ObjectMissing, lambda: store.stat("parts/film"), "stat of an unfinished object")
    _require(not list(store.list("parts/")), "an unfinished object is not listed")
    with source.open("ab") as file:
        file.write(second)
    store.put_part("parts/film", upload, 2, len(first), second, last=True)
    again = store.put_part("parts/film", upload, 2, len(first), second, last=True)
    parts = store.parts("parts/film", upload)
    _require([p.number for p in parts] == [1, 2], "parts lists what was put, by number")
    _require([p.tag for p in parts] == [tag, again], "the tags are those that were returned")
    _require(
        store.complete("parts/film", upload, parts).size == len(first + second), "complete reports the size"
    )
    source.unlink()
    _require(read_object(store, "parts/film") == first + second, "the parts are the object")
    start = MIN_PART_BYTES - 3
    _require(
        b"".join(store.open_range("parts/film", start, start + 6)) == b"111222", "a range over two parts"
    )
    _require(not list(store.uploads()), "a completed upload is not listed")
    _raises(UploadMissing, lambda: store.parts("parts/film", upload), "parts of a completed upload")
    _raises(UploadMissing, lambda: store.complete("parts/film", upload, parts), "a second complete")
    store.abort("parts/film", upload)

    source.write_bytes(b"other")
    late = store.begin("parts/film", source)
    part = Part(1, 5, store.put_part("parts/film", late, 1, 0, b"other", last=True))
    _raises(ObjectExists, lambda: store.complete("parts/film", late, [part]), "complete over an object")
    _require(
        object_sha256(store, "parts/film") == hashlib.sha256(first + second).hexdigest(),
        "the first one stays",
    )
    store.abort("parts/film", late)
    _raises(
        UploadMissing, lambda: store.put_part("parts/film", late, 1, 0, b"x", last=True), "a part too late"
    )
    _require(not list(store.uploads()), "an aborted upload is not listed")


def _check_links(store: ObjectStore) -> None:
    link = store.presign("once", 60, filename="once.txt", media_type="text/plain")
    if not store.capabilities.presign:
        _require(link is None, "no link where there are none")
    else:
        _require(link is not None and link.startswith("http"), "a link is a URL")


def _check_locks(store: ObjectStore) -> None:
    store.put("locked/one", b"kept")
    if not store.capabilities.lock:
        _raises(
            LockRefused, lambda: store.lock("locked/one", until=None, hold=True), "a lock where there is none"
        )
        return
    store.lock("locked/one", until=None, hold=True)
    _raises(ObjectLocked, lambda: store.delete("locked/one"), "deletion of what is held")
    _raises(ObjectLocked, lambda: store.delete_all("locked/"), "deletion of a package that is held")
    _require(read_object(store, "locked/one") == b"kept", "what is held stays")
    store.lock("locked/one", until=None, hold=False)
    store.delete("locked/one")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    _raises(ObjectMissing, lambda: store.lock("locked/one", until=tomorrow, hold=False), "a lock of nothing")


def _check_packages(store: ObjectStore) -> None:
    for key in ("pack/1/data/film", "pack/1/seal", "pack/10"):
        store.put(key, b"x")
    _require(store.delete_all("pack/1/") == 2, "delete_all counts what was there")
    _require(
        [info.key for info in store.list("pack/")] == ["pack/10"], "delete_all takes the prefix, no more"
    )
    _require(store.delete_all("pack/1/") == 0, "delete_all may be repeated")
    for prefix in ("", "/", "pack", "../"):
        _raises((UnsafePath, StoreError), partial(store.delete_all, prefix), f"delete_all of {prefix!r}")


def _require(condition: bool, promise: str) -> None:
    if not condition:
        raise AssertionError(f"the store breaks its contract: {promise}")


def _raises(
    expected: type[Exception] | tuple[type[Exception], ...], call: Callable[[], Any], what: str
) -> None:
    try:
        call()
    except expected:
        return
    raise AssertionError(f"the store breaks its contract: {what} must raise {expected}")
