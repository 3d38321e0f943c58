"""What is kept of rooms over a restart of the server: one small file a room. Blocks.

Settings, PINs and the history of layouts; not who is in it, nor a recording, which ends with the server and is sealed.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mixer.room import LayoutVersion, Room, RoomCreate
from mixer.video.layout import LayoutBody
from recording.durable import make_folder, write_whole

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 64 << 20  # a hundred layouts of 256 KiB, what a body may be, are below half of that


class _Version(BaseModel):
    """One entry of the layout history."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1)
    body: LayoutBody
    at: datetime
    by: str


class KeptRoom(RoomCreate):
    """A room's file; ``layouts`` as they were made, the last one in force."""

    created_at: datetime
    layouts: tuple[_Version, ...] = Field(min_length=1)

    @classmethod
    def of(cls, room: Room) -> KeptRoom:
        """``room`` as it is now."""
        settings = {name: getattr(room, name) for name in RoomCreate.model_fields if name != "layout"}
        versions = (_Version(version=v.version, body=v.body, at=v.at, by=v.by) for v in room.layouts)
        return cls(**settings, layout=room.layout.body, created_at=room.created_at, layouts=tuple(versions))

    def room(self) -> Room:
        """The room, empty."""
        room = Room.create(self, self.created_at, by=self.layouts[-1].by)
        room.layouts = [LayoutVersion(v.version, v.body, v.at, v.by) for v in self.layouts]
        return room


class RoomShelf:
    """The files in ``folder``, which is made. Raises OSError, as its methods do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)

    def load(self) -> list[Room]:
        """All rooms, by name. A file that can't be read is named in the log, and left where it is."""
        rooms = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                rooms.append(self._read(path).room())
            except (OSError, ValueError) as error:
                log.error("room.unreadable", file=path.name, reason=_reason(error))  # noqa: TRY400 - it is said
        return rooms

    def _read(self, path: Path) -> KeptRoom:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        kept = KeptRoom.model_validate_json(path.read_bytes())
        if path != self._path(kept.name):
            raise ValueError(f"by its content it is room {kept.name}")
        return kept

    def keep(self, room: KeptRoom) -> None:
        """Write a room's file, whole or not at all."""
        write_whole(self._path(room.name), room.model_dump_json().encode())

    def forget(self, name: str) -> None:
        """The room has ended."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"  # `ROOM_NAME` has neither slash nor dot


def _reason(error: Exception) -> str:
    """Without what stands in the file: there are PINs in it."""
    if isinstance(error, ValidationError):
        return ", ".join(sorted({".".join(map(str, item["loc"])) or item["type"] for item in error.errors()}))
    return str(error)
