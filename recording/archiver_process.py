"""The archiver as a process: it outlives rooms, and whenever it is killed the next one carries on.

python -m recording.archiver_process --spool DIR --archive URL|DIR --index FILE
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from recording.archiver import ORPHAN_AFTER_S, Archiver
from recording.durable import WriterLock, make_folder
from recording.errors import RecordingError, StoreError
from recording.index import Index
from recording.placement import Place, Places
from recording.report import Report
from recording.store import ObjectStore
from recording.stores import open_store

_log = structlog.get_logger(__name__)

POLL_S: Final = 0.5  # stop → archived is to be seconds; listing an empty folder twice a second costs nothing
_SECOND_JOIN_S: Final = 1.0  # what it is sending, the next start sends again


def run(
    spool: Path,
    archive: str | Places,
    index: Path,
    stop: threading.Event,
    *,
    orphan_after_s: float = ORPHAN_AFTER_S,
    poll_s: float = POLL_S,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Archive until ``stop`` is set (or ``alive()`` is false), then settle once more what is closed, and
    return.

    ``archive``: the stores, or a folder. Raises PackageBusy when another archiver has the spool.
    """
    make_folder(spool)
    places = archive if isinstance(archive, Places) else None
    second = open_store(places.second) if places and places.second else None
    first = open_store(places.first if places else str(archive))
    with WriterLock(spool / ".archiver"):
        rows = Index(index)
        archiver = Archiver(spool, first, rows, second=second, orphan_after_s=orphan_after_s)
        _look_at([store for store in (first, second) if store is not None])
        copying = _second_thread(archiver, stop, poll_s)
        report = Report(spool, places or Places(first=Place(folder=str(archive))))
        try:
            while not stop.is_set() and alive():
                archiver.step()
                archiver.abort_orphans(datetime.now(UTC))
                report.write(archiver.situation(), time.time())
                stop.wait(poll_s)
            stop.set()
            archiver.step()
        finally:
            stop.set()
            if copying is not None:
                copying.join(_SECOND_JOIN_S)
            if copying is None or not copying.is_alive():  # else it ends with the process
                archiver.close()
            rows.close()


def _look_at(stores: Sequence[ObjectStore]) -> None:
    """Ask the stores what they can do, at the start, so that the log tells an operator at once what is wrong. A daemon:
    a store that is away now is no reason to wait, it is asked again when it is needed.
    """

    def ask() -> None:
        for store in stores:
            try:
                _ = store.capabilities
            except StoreError as error:
                _log.error("store_not_ready", detail=str(error))

    threading.Thread(target=ask, name="store probe", daemon=True).start()


def _second_thread(archiver: Archiver, stop: threading.Event, poll_s: float) -> threading.Thread | None:
    """The second store's own pace. A daemon: every step of it can be repeated, and the end does not wait for it."""
    second = archiver.second
    if second is None:
        return None

    def follow() -> None:
        while not stop.is_set():
            second.step()
            stop.wait(poll_s)

    thread = threading.Thread(target=follow, name="second store", daemon=True)
    thread.start()
    return thread


def main(arguments: Sequence[str] | None = None) -> int:
    """The process: SIGTERM or SIGINT finishes what is closed and ends; a second one ends at once, losing
    nothing.
    """
    parser = argparse.ArgumentParser(
        prog="python -m recording.archiver_process", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--spool", type=Path, required=True, help="folder where recordings are made")
    parser.add_argument(
        "--archive",
        required=True,
        help="file: URL or folder of the archive; - reads the stores as JSON from stdin",
    )
    parser.add_argument("--index", type=Path, required=True, help="SQLite file of the index")
    parser.add_argument("--orphan-after", type=float, default=ORPHAN_AFTER_S, metavar="SECONDS")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent process has ended")
    options = parser.parse_args(arguments)
    _write_logs()
    stop = threading.Event()

    def asked(number: int, _: object) -> None:
        if stop.is_set():
            os._exit(128 + number)  # every step can be repeated: there is nothing to tidy up
        stop.set()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    parent = os.getppid()
    try:
        run(
            options.spool,
            Places.model_validate_json(sys.stdin.read()) if options.archive == "-" else options.archive,
            options.index,
            stop,
            orphan_after_s=options.orphan_after,
            alive=(lambda: os.getppid() == parent) if options.with_parent else (lambda: True),
        )
    except RecordingError as error:
        _log.error("archiver_stopped", detail=str(error))
        return 1
    return 0


def _write_logs() -> None:
    """To standard error like the server's own, whose lines they stand among: JSON, or readable at a terminal."""
    console = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer()
            if console
            else structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
