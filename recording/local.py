"""An object store in a folder: the embedded archive.

An object appears under its key by ``link(2)``, which is atomic and fails when the name is taken: a reader
never sees half an object, and a key is never overwritten, whoever races. Folders are 0700, files 0600.
Names that start with a dot are ours (temporary files, the spool of puts that were killed).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from recording.durable import make_folder, sync_folder
from recording.errors import LockRefused, ObjectExists, ObjectMissing, StoreError
from recording.keys import package_prefix, safe_key, safe_prefix
from recording.local_uploads import NO_LINK, LocalUploads, linked
from recording.store import CHUNK_BYTES, Capabilities, ObjectInfo, Part, PendingUpload

_INCOMING: Final = ".incoming"
_UPLOADS: Final = ".uploads"


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
        self._unfinished = LocalUploads(root / _UPLOADS)

    @property
    def capabilities(self) -> Capabilities:
        """See the port. A folder locks nothing: whoever may write it may empty it."""
        return Capabilities(conditional=True, reads_parts=True)

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        """See the port. A file on the same file system is linked, not copied: no byte moves."""
        target = self._path(key)
        with _storing(key):
            self._make_parents(target.parent)
            if isinstance(source, bytes) or not self._linked(source, target):
                self._copied(source, target)
            sync_folder(target.parent)
            return ObjectInfo(key, target.stat().st_size)

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

    def delete_all(self, prefix: str) -> int:
        """See the port."""
        found = list(self.list(package_prefix(prefix)))
        for info in found:
            self.delete(info.key)
        return len(found)

    def presign(self, key: str, ttl_s: int, *, filename: str, media_type: str) -> str | None:
        """See the port. A folder gives no links."""
        self._path(key)
        return None

    def lock(self, key: str, *, until: datetime | None, hold: bool) -> None:
        """See the port. Always LockRefused."""
        self._path(key)
        raise LockRefused("a folder cannot lock its files")

    def begin(self, key: str, source: Path | None = None) -> str:
        """See the port. On the same file system the object is the growing file itself, under a second name."""
        self._path(key)
        with _storing(key):
            return self._unfinished.begin(key, source)

    def put_part(self, key: str, upload: str, number: int, offset: int, data: bytes, *, last: bool) -> str:
        """See the port."""
        self._path(key)
        with _storing(key):
            return self._unfinished.put_part(key, upload, number, offset, data)

    def parts(self, key: str, upload: str) -> Sequence[Part]:
        """See the port."""
        self._path(key)
        with _storing(key):
            return self._unfinished.parts(key, upload)

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> ObjectInfo:
        """See the port."""
        target = self._path(key)
        with _storing(key):
            self._make_parents(target.parent)
            self._unfinished.finish(key, upload, parts, lambda content: self._named(content, target))
            sync_folder(target.parent)
            return ObjectInfo(key, target.stat().st_size)

    def abort(self, key: str, upload: str) -> None:
        """See the port."""
        self._path(key)
        with _storing(key):
            self._unfinished.abort(key, upload)

    def uploads(self, prefix: str = "") -> Iterator[PendingUpload]:
        """See the port."""
        safe_prefix(prefix)
        return (one for one in self._unfinished.pending() if one.key.startswith(prefix))

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
        return linked(source, target)

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
            self._named(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _named(self, content: Path, target: Path) -> None:
        """Give finished content its place; FileExistsError when that is taken."""
        try:
            os.link(content, target)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            # No hard links here (exFAT, some network mounts): claim the name, then put the content there.
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            content.replace(target)

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


@contextmanager
def _storing(key: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise ObjectExists(f"{key} is stored already, and objects are never overwritten") from error
    except OSError as error:
        raise StoreError(f"{key} cannot be stored: {error.strerror}") from error


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
