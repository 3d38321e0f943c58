"""A package as a BagIt bag (RFC 8493) in a ZIP, made while it is read: no byte waits on a disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from recording.keys import from_rfc3339
from recording.package import SealedFile
from recording.rows import RecordingInfo
from recording.store import ObjectStore

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Pipe(io.RawIOBase):
    """What `zipfile` writes to: not seekable, and emptied after each write."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        part = bytes(data)
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def zip_bag(store: ObjectStore, info: RecordingInfo, files: Sequence[SealedFile]) -> Iterator[bytes]:
    """The ZIP: stored, ZIP64 throughout (a film passes 4 GiB), one folder named by the id."""
    pipe = _Pipe()
    moment = datetime.fromtimestamp(from_rfc3339(info.ended or info.created), UTC).timetuple()[:6]
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED, allowZip64=True) as bag:
        for file in files:
            entry = zipfile.ZipInfo(f"{info.id}/{file.path}", date_time=moment)
            entry.external_attr = 0o644 << 16
            with bag.open(entry, "w", force_zip64=True) as out:
                for chunk in store.open_range(info.key + file.path):
                    out.write(chunk)
                    yield pipe.take()
    yield pipe.take()
