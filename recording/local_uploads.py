"""Unfinished objects of a local store: a folder each, under ``.uploads/``.

    key          the object's key
    content      its bytes so far: another name of the growing file itself, or a copy of its beginning
    parts        a line a part: number, offset, size

On one file system `content` is a hard link: the object grows with its file and no byte is written twice.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from errno import EMLINK, ENOTSUP, EPERM, EXDEV
from pathlib import Path
from typing import Final

from recording.durable import make_folder, sync_folder, write_whole
from recording.errors import FixityError, StoreError, UploadMissing
from recording.keys import safe_key
from recording.store import Part, PendingUpload

NO_LINK: Final = {EXDEV, EPERM, EMLINK, ENOTSUP}  # another file system, or one without hard links


class LocalUploads:
    """The uploads in the folder ``root``. Raises OSError as it comes; the store names the object."""

    def __init__(self, root: Path) -> None:
        self._root = root
        make_folder(root)

    def begin(self, key: str, source: Path | None) -> str:
        """See `recording.store.ObjectStore.begin`."""
        upload = secrets.token_hex(16)
        folder = self._root / upload
        folder.mkdir(mode=0o700)
        if source is None or not linked(source, folder / "content"):
            (folder / "content").touch(mode=0o600)
        write_whole(folder / "parts", b"")
        write_whole(folder / "key", safe_key(key).encode())
        sync_folder(self._root)
        return upload

    def put_part(self, key: str, upload: str, number: int, offset: int, data: bytes) -> str:
        """Write what is not there yet, then read it from the disk again. Raises FixityError."""
        folder = self._folder(key, upload)
        descriptor = os.open(folder / "content", os.O_RDWR | os.O_CLOEXEC)
        try:
            if not _same(descriptor, offset, data):
                if os.fstat(descriptor).st_nlink > 1:
                    raise FixityError(f"part {number} of {key} is not what is in its own file")
                _write(descriptor, offset, data)
            os.fdatasync(descriptor)
            # Out of the page cache, as far as the kernel does that: the disk shall be read, not the memory.
            os.posix_fadvise(descriptor, offset, len(data), os.POSIX_FADV_DONTNEED)
            if not _same(descriptor, offset, data):
                raise FixityError(f"part {number} of {key} was read back with other bytes than were written")
        finally:
            os.close(descriptor)
        known = {part.number: (part.size, part.tag) for part in self.parts(key, upload)}
        known[number] = (len(data), str(offset))
        lines = "".join(f"{n} {tag} {size}\n" for n, (size, tag) in sorted(known.items()))
        write_whole(folder / "parts", lines.encode())
        return str(offset)

    def parts(self, key: str, upload: str) -> list[Part]:
        """By number; the tag is the offset."""
        lines = (self._folder(key, upload) / "parts").read_text().splitlines()
        return [Part(int(n), int(size), offset) for n, offset, size in (line.split() for line in lines)]

    def finish(self, key: str, upload: str, parts: Sequence[Part], name: Callable[[Path], None]) -> None:
        """Hand the content to ``name``, which gives it its place, when it is what ``parts`` say."""
        folder = self._folder(key, upload)
        content = folder / "content"
        if content.stat().st_size != sum(part.size for part in parts) or self.parts(key, upload) != [*parts]:
            raise StoreError(f"the parts of {key} are not what its upload has")
        name(content)
        self.abort(key, upload)

    def abort(self, key: str, upload: str) -> None:
        """Remove the upload, if it is there."""
        with suppress(UploadMissing):
            folder = self._folder(key, upload)
            (folder / "key").unlink(missing_ok=True)  # first: a half-removed upload is none
            shutil.rmtree(folder, ignore_errors=True)

    def pending(self) -> Iterator[PendingUpload]:
        """All uploads; clears what an interrupted `begin` or `abort` left an hour ago."""
        for folder in sorted(self._root.iterdir()):
            with suppress(FileNotFoundError):
                begun = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
                try:
                    yield PendingUpload((folder / "key").read_text(), folder.name, begun)
                except FileNotFoundError:
                    if (datetime.now(UTC) - begun).total_seconds() > 3600:
                        shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, key: str, upload: str) -> Path:
        folder = self._root / safe_key(upload)
        with suppress(FileNotFoundError):
            if (folder / "key").read_text() == key:
                return folder
        raise UploadMissing(f"there is no unfinished upload {upload} of {key}")


def linked(source: Path, target: Path) -> bool:
    """Give ``source`` a second name; False where the file system cannot. Raises OSError."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in NO_LINK:
            return False
        raise
    return True


def _same(descriptor: int, offset: int, data: bytes) -> bool:
    view = memoryview(data)
    while view:
        piece = os.pread(descriptor, min(len(view), 1 << 20), offset)
        if not piece or piece != view[: len(piece)]:
            return False
        view, offset = view[len(piece) :], offset + len(piece)
    return True


def _write(descriptor: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
