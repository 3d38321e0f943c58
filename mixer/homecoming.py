"""When recordings come home: archived, or given up. The archiver is another process; the index tells what it did."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from recording.errors import RecordingError
from recording.rows import RecordingInfo

SETTLED: Final = frozenset({"archived", "failed"})  # not "deleted", which is an event of its own


class Index(Protocol):
    """What of `recording.index.Index` is used."""

    def unsettled(self) -> Sequence[RecordingInfo]:
        """All recordings that have still to be brought to an end."""

    def get(self, identifier: str) -> RecordingInfo:
        """A recording. Raises RecordingError."""


class Homecoming:
    """Compares what is still to be settled with what was. Blocks, for one query."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._open: frozenset[str] = frozenset()

    def step(self) -> list[RecordingInfo]:
        """Those that were archived or given up since the last step, as they are now."""
        open_now = frozenset(info.id for info in self._index.unsettled())
        before, self._open = self._open, open_now
        home = []
        for identifier in sorted(before - open_now):
            with suppress(RecordingError):  # deleted and forgotten meanwhile
                home.append(self._index.get(identifier))
        return [info for info in home if info.state in SETTLED]
