"""How the archiver's process stands, for the control process: one small file in the spool.

The archiver writes it when something has changed, and every `FRESH_S` besides, so that a reader can tell an
archiver that has nothing to say from one that is no more.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from recording.durable import write_whole
from recording.placement import Places

NAME: Final = ".archiver.json"
FRESH_S: Final = 30.0


class Situation(BaseModel):
    """``waiting``: packages that are closed and not yet in every store, of which ``waiting_second`` only in the
    second one. ``first``, ``second``: what went wrong last with that store, empty when all is well."""

    model_config = ConfigDict(frozen=True)

    waiting: int = 0
    waiting_second: int = 0
    first: str = ""
    second: str = ""


class ArchiverReport(Situation):
    """A situation with its moment (Unix time) and the stores' places, for a person."""

    written_s: float
    first_where: str
    second_where: str = ""


class Report:
    """Writes the file in ``spool``."""

    def __init__(self, spool: Path, places: Places) -> None:
        self._path = spool / NAME
        self._places = places
        self._last: ArchiverReport | None = None

    def write(self, situation: Situation, now_s: float) -> None:
        """Unless nothing has changed since a moment ago. A disk that refuses is the recorder's to report."""
        last = self._last
        if last and Situation(**last.model_dump()) == situation and now_s - last.written_s < FRESH_S:
            return
        second = self._places.second
        self._last = ArchiverReport(
            **situation.model_dump(), written_s=now_s,
            first_where=self._places.first.where, second_where=second.where if second else "",
        )  # fmt: skip
        with suppress(OSError):
            write_whole(self._path, self._last.model_dump_json().encode())


def read_report(spool: Path) -> ArchiverReport | None:
    """The last report; None when there is none that can be read."""
    with suppress(OSError, ValidationError):
        return ArchiverReport.model_validate_json((spool / NAME).read_bytes())
    return None
