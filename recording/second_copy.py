"""The second store: every package goes there too, at its own pace, and leaves the spool only when both have it.

A thread of its own: a second store that hangs does not keep the first one waiting. It only reads what the
archiver has sealed, and says with a marker in the package that it has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from recording import package
from recording.backoff import Backoff
from recording.errors import RecordingError
from recording.package import Seal, read_description
from recording.uploader import Uploader

_log = structlog.get_logger(__name__)

MARKER: Final = "delivered-second"


class SecondCopy:
    """Delivers what is in ``spool`` by ``uploader``. ``clock``: monotonic seconds."""

    def __init__(
        self, spool: Path, uploader: Uploader, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spool = spool
        self._uploader = uploader
        self._clock = clock
        self._backoff = Backoff()
        self.detail = ""

    def step(self) -> int:
        """Look at every package once; returns how many were delivered whole. Never raises for a store."""
        delivered = 0
        packages = sorted(path.parent for path in self._spool.glob(f"[!.]*/{package.DESCRIPTION}"))
        self._backoff.keep({path.name for path in packages})
        for directory in packages:
            if not self._backoff.ready(directory.name, self._clock()):
                continue
            try:
                delivered += self._bring(directory)
            except FileNotFoundError:
                continue  # a package that was given up meanwhile
            except (RecordingError, OSError) as error:
                wait_s = self._backoff.failed(directory.name, self._clock())
                self.detail = str(error)
                _log.warning(
                    "second_copy_failed",
                    recording=directory.name,
                    detail=self.detail,
                    retry_s=round(wait_s, 1),
                )
            else:
                if self._backoff.worked(directory.name):
                    self.detail = ""
        return delivered

    def _bring(self, directory: Path) -> bool:
        if (directory / MARKER).exists():
            return False
        seal = package.read_model(Seal, directory / package.SEAL)
        if seal is None:
            if not (directory / package.CLOSED).exists():
                self._uploader.advance(directory, read_description(directory).key)
            return False
        if not self._uploader.deliver(directory, seal):
            return False
        self._uploader.forget(directory, seal.key)
        package.write_model(directory / MARKER, seal)
        _log.info("second_copy_made", recording=seal.id)
        return True
