"""An object store in a folder: the embedded archive.

An object appears under its key by ``link(2)``, which is atomic and fails when the name is taken: a reader
never sees half an object, and a key is never overwritten, whoever races. Folders are 0700, files 0600.
Names that start with a dot are ours (temporary files, the spool of puts that were killed).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from errno import EMLINK, ENOTSUP, EPERM, EXDEV
from pathlib import Path
from typing import Final

from recording.durable import make_folder, sync_folder
from recording.errors import ObjectExists, ObjectMissing, StoreError
from recording.keys import safe_key, safe_prefix
from recording.store import CHUNK_BYTES, ObjectInfo

_INCOMING: Final = ".incoming"
_NO_LINK: Final = {EXDEV, EPERM, EMLINK, ENOTSUP}  # another file system, or one without hard links


class LocalStore:
    """`recording.store.ObjectStore` in the folder ``root``, which is made when it is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        make_folder(root)
        make_folder(root / _INCOMING)
        for left in (root / _INCOMING).iterdir():  # what a killed put left; no live put is an hour old
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < time.time() - 3600:
                    left.unlink()

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        """See the port. A file on the same file system is linked, not copied: no byte moves."""
        target = self._path(key)
        try:
            self._make_parents(target.parent)
            if isinstance(source, bytes) or not self._linked(source, target):
                self._copied(source, target)
            sync_folder(target.parent)
            return ObjectInfo(key, target.stat().st_size)
        except FileExistsError as error:
            raise ObjectExists(f"{key} is stored already, and objects are never overwritten") from error
        except OSError as error:
            raise StoreError(f"{key} cannot be stored: {error.strerror}") from error

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See the port. The file is open from the first chunk until the iterator is exhausted or closed."""
        self.stat(key)
        return _chunks(self._path(key), key, start, end)

    def stat(self, key: str) -> ObjectInfo:
        """See the port."""
        path = self._path(key)
        try:
            if path.is_file():
                return ObjectInfo(key, path.stat().st_size)
        except OSError as error:
            raise StoreError(f"{key} cannot be examined: {error.strerror}") from error
        raise ObjectMissing(f"there is no object {key}")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See the port. Walks only the deepest folder that the prefix names."""
        folder, _, _ = safe_prefix(prefix).rpartition("/")
        found = sorted(self._walk(self._root / folder if folder else self._root))
        for key in found:
            if key.startswith(prefix):
                with suppress(ObjectMissing):  # deleted since the walk
                    yield self.stat(key)

    def delete(self, key: str) -> None:
        """See the port. Folders that become empty go too, so that listings stay quick."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
            for folder in path.parents:
                if folder == self._root:
                    break
                folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if path.exists():
                raise StoreError(f"{key} cannot be deleted: {error.strerror}") from error

    def _path(self, key: str) -> Path:
        return self._root / safe_key(key)

    def _make_parents(self, folder: Path) -> None:
        missing = [folder, *folder.parents]
        for one in reversed(missing[: missing.index(self._root)]):
            make_folder(one)

    def _linked(self, source: Path, target: Path) -> bool:
        """Try to give ``source`` its second name. Durable: the writer has synced it, and so do we."""
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        return True

    def _copied(self, source: Path | bytes, target: Path) -> None:
        temporary = self._root / _INCOMING / secrets.token_hex(16)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                if isinstance(source, bytes):
                    out.write(source)
                else:
                    with source.open("rb") as file:
                        while chunk := file.read(CHUNK_BYTES):
                            out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            try:
                os.link(temporary, target)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                # No hard links here (exFAT, some network mounts): claim the name, then put the content there.
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _walk(self, folder: Path) -> Iterator[str]:
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path))
            else:
                yield Path(entry.path).relative_to(self._root).as_posix()


def _chunks(path: Path, key: str, start: int, end: int | None) -> Iterator[bytes]:
    try:
        # Opened here and not before: an iterator that nobody begins would never close it.
        with path.open("rb") as file:
            file.seek(start)
            left = None if end is None else max(0, end - start)
            while left is None or left > 0:
                chunk = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
                if not chunk:
                    return
                if left is not None:
                    left -= len(chunk)
                yield chunk
    except OSError as error:
        raise StoreError(f"{key} cannot be read: {error.strerror}") from error
