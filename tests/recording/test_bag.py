"""The streamed ZIP: past 4 GiB it is a ZIP64 that everybody reads. (That it is a bag: tests/mixer/test_archive.)"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from recording.bag import zip_bag
from recording.package import SealedFile
from recording.rows import RecordingInfo
from recording.store import CHUNK_BYTES, ObjectStore

HUGE = 4 * 1024**3 + 5 * 1024**2
ZEROS = bytes(CHUNK_BYTES)


class Endless:
    """A store whose film is nothing but zeros."""

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        if not key.endswith("recording.mp4"):
            yield b"after"
            return
        left = HUGE
        while left:
            chunk = ZEROS[: min(left, CHUNK_BYTES)]
            left -= len(chunk)
            yield chunk


def test_a_film_of_more_than_4_gib(tmp_path: Path) -> None:
    files = [
        SealedFile(path=path, size=0, sha256="0" * 64) for path in ("data/recording.mp4", "recording.json")
    ]
    info = cast(
        "RecordingInfo", SimpleNamespace(id="X", key="r/X/", ended="2027-01-15T08:00:00Z", created="")
    )
    target = tmp_path / "bag.zip"
    largest = 0
    with target.open("wb") as out:  # sparse: the zeros take no space
        for chunk in zip_bag(cast("ObjectStore", Endless()), info, files):
            largest = max(largest, len(chunk))
            if chunk.count(0) == len(chunk):
                out.seek(len(chunk), 1)
            else:
                out.write(chunk)
    assert largest < 2 * CHUNK_BYTES, "nothing is gathered in memory"
    with zipfile.ZipFile(target) as bag:
        film, after = bag.infolist()
        assert film.file_size == HUGE
        assert after.header_offset > 2**32
        assert bag.read(after) == b"after"
        with bag.open(film) as opened:
            assert opened.read(1000) == bytes(1000)
