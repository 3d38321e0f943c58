"""Writing to a disk that may fill up, tear or vanish: small tools, each with its fsync in the right place."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from recording.errors import PackageBusy

RESERVE_BYTES: Final = (
    4 * 1024 * 1024
)  # about 25 s of the high rendition: room for the tail, the timeline, the marker


def make_folder(path: Path) -> None:
    """Make ``path`` (0700) and its missing parents, durably."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """fsync a folder, so that names made or removed in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` under ``path`` so that after a crash there is the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class WriterLock:
    """An exclusive lock on a package, freed by the kernel when its holder dies, however it dies.

    ``wait_s``: how long another holder is waited for; the archiver probes each lock for microseconds.
    Raises `PackageBusy`. Linux and BSD ``flock``: held by the open file, so close the file in children.
    """

    def __init__(self, path: Path, *, wait_s: float = 0.0) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    os.close(self._descriptor)
                    raise PackageBusy(f"{path.parent.name} is being written by another process") from error
                time.sleep(0.01)
            else:
                return

    def release(self) -> None:
        """Free the lock; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class DiskReserve:
    """Disk space held back for the end of a recording: given free when the disk is full, once."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        with suppress(
            OSError
        ):  # an already full disk, or a file system that cannot: then there is no reserve
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)

    def release(self) -> bool:
        """Free the space; True when there was some to free."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


class AppendFile:
    """A file that only grows, by whole pieces: each is on the disk in full, or will be tried again.

    When the disk refuses, the file is cut back to its last whole piece and the pieces wait in memory, at
    most ``max_pending_bytes``; later ones are refused then (counted in ``refused``). The next `append` or
    `flush` tries again, in order. ``on_error`` hears the first failure of a row, and None when it is over.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep_bytes: int,
        max_pending_bytes: int,
        reserve: DiskReserve | None = None,
        on_error: Callable[[OSError | None], None] = lambda _: None,
    ) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._descriptor, keep_bytes)
        sync_folder(path.parent)
        self.size = keep_bytes
        self._digest = hashlib.sha256()
        if keep_bytes:
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    self._digest.update(chunk)
        self._pending: deque[bytes] = deque()
        self.pending_bytes = 0
        self._max_pending_bytes = max_pending_bytes
        self._reserve = reserve
        self._on_error = on_error
        self._failing = False
        self.refused = 0

    def append(self, piece: bytes, *, sync: bool = True) -> bool:
        """Write ``piece`` after everything before it. False: it was refused, memory for waiting pieces is
        full.
        """
        if self.pending_bytes + len(piece) > self._max_pending_bytes:
            self.flush(sync=sync)
            if self.pending_bytes + len(piece) > self._max_pending_bytes:
                self.refused += 1
                return False
        self._pending.append(piece)
        self.pending_bytes += len(piece)
        self.flush(sync=sync)
        return True

    def flush(self, *, sync: bool = True) -> bool:
        """Write what waits. True when nothing waits any more; ``sync``: fdatasync after each piece."""
        while self._pending:
            piece = self._pending[0]
            try:
                self._write(piece, sync=sync)
            except OSError as error:
                if error.errno == errno.ENOSPC and self._reserve is not None and self._reserve.release():
                    self._report(error)
                    continue
                self._report(error)
                return False
            self._pending.popleft()
            self.pending_bytes -= len(piece)
            self.size += len(piece)
            self._digest.update(piece)
        if self._failing:
            self._failing = False
            self._on_error(None)
        return True

    def sha256(self) -> str:
        """Of everything written, in hex."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file. What still waits is lost: `flush` first."""
        os.close(self._descriptor)

    def sync(self) -> None:
        """fdatasync what has been written. Raises OSError."""
        os.fdatasync(self._descriptor)

    def _write(self, piece: bytes, *, sync: bool) -> None:
        try:
            view, offset = memoryview(piece), self.size
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written
            if sync:
                os.fdatasync(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise

    def _report(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._on_error(error)


SYNC_TOGETHER_S: Final = 0.5  # what a power cut may cost beyond a cluster


class SyncThread:
    """fdatasync of many files that grow, on a thread of its own. Asked twice, a file is synced once: no queue grows.

    It waits a little for others to be asked for, too: the first fdatasync of a row writes the file system's journal
    for all of them.

    ``on_error`` hears the first failure of a row, and None when it is over, on that thread.
    """

    def __init__(self, on_error: Callable[[OSError | None], None] = lambda _: None) -> None:
        self._on_error = on_error
        self._asked: dict[AppendFile, bool] = {}  # whether to close it afterwards
        self._wake = threading.Condition()
        self._stopping = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    def ask(self, file: AppendFile, *, close: bool = False) -> None:
        """What ``file`` has so far is to be on the disk soon. ``close``: it is the last time. Never blocks."""
        with self._wake:
            if not self._asked:
                self._wake.notify()
            self._asked[file] = close or self._asked.get(file, False)

    def stop(self) -> None:
        """End when everything asked for is done. **Blocks.**"""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._asked and not self._stopping:
                    self._wake.wait()
                if not self._asked:
                    return
                self._wake.wait_for(lambda: self._stopping, SYNC_TOGETHER_S)
                asked, self._asked = self._asked, {}
            for file, close in asked.items():
                self._sync(file, close=close)

    def _sync(self, file: AppendFile, *, close: bool) -> None:
        try:
            file.sync()
        except OSError as error:
            if not self._failing:
                self._failing = True
                self._on_error(error)
        else:
            if self._failing:
                self._failing = False
                self._on_error(None)
        if close:
            with suppress(OSError):
                file.close()
