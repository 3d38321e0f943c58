"""``mosaique serve``: puts the parts together, starts them in order, drains them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from mixer import protocol
from mixer.errors import AlreadyRecording, ConfigError, NoCapacity
from mixer.events import EventHub
from mixer.homecoming import Homecoming
from mixer.host.process import ProcessHost
from mixer.http.app import build_app
from mixer.live_recordings import DeskState
from mixer.priority import lower
from mixer.registry import Registry
from mixer.relay import RelayProcess
from mixer.relay_book import RelayBook
from mixer.room_shelf import RoomShelf
from mixer.settings import ArchiveSettings, Settings
from recording.archive import Archive
from recording.errors import EndpointRefused, RecordingLive, StoreError, WrongState
from recording.holdings import Holdings
from recording.keeper import Keeper, Policy
from recording.placement import Places
from recording.rows import RecordingInfo
from recording.stores import check_places, open_both

log = structlog.get_logger(__name__)

DRAIN_S: Final = 10.0  # contract section 1: SIGTERM to exit
ROOMS_DRAIN_S: Final = 4.0  # of the ten: sealing the spools; then the archiver gets what is left
ARCHIVER_DRAIN_S: Final = 4.0
RELAY_DRAIN_S: Final = 1.0  # who it served is hung up by then: nothing is left to carry
ARCHIVER_RESTART_S: Final = 1.0
KEEPER_DRAIN_S: Final = 3.0  # it copies the audit log once more; what it does not get to, the next start does
KEEPER_EVERY_S: Final = 1.0
HOMECOMING_EVERY_S: Final = 1.0  # one indexed query; recordings take seconds from stop to archived
KEEPER_NICE: Final = 15  # nobody waits for it


class ArchiveDesk:
    """The archive's front office for the registry (``live_recordings.RecordingDesk``)."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def create(self, room: str, *, note: str, language: str, tracks: bool) -> protocol.RecordingOrder:
        """Make the entry and its spool directory. Blocks."""
        try:
            recording = self._archive.create(room, note=note, language=language, tracks=tracks)
        except RecordingLive as error:
            raise AlreadyRecording(str(error), error.recording_id) from error
        except OSError as error:
            raise NoCapacity(f"the spool takes no recording: {error.strerror}", retry_after_s=60) from error
        return protocol.RecordingOrder(
            id=recording.id, directory=str(recording.directory.resolve()), note=note, tracks=tracks
        )

    def set_state(self, recording_id: str, state: DeskState) -> None:
        """Note a new state. Blocks. States only go forward: the archiver may have been quicker than this word."""
        with contextlib.suppress(WrongState):
            self._archive.set_state(recording_id, state)


class ArchiverProcess:
    """The archiver as a child process that is started again when it ends unasked."""

    def __init__(self, spool: Path, places: Places, index: Path) -> None:
        self._places = places
        # fmt: off
        self._command = [
            sys.executable, "-m", "recording.archiver_process",
            "--spool", str(spool), "--archive", "-", "--index", str(index), "--with-parent",
        ]
        # fmt: on
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start it."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name="archiver keeper")

    async def stop(self, grace_s: float) -> None:
        """Let it archive what is closed, then end it; what is not done by then is done at the next start."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(grace_s):
                    await self._process.wait()
            except TimeoutError:
                log.warning("archiver.killed", reason="did not finish in time; the next start carries on")
                self._process.kill()
                await self._process.wait()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper

    async def _spawn(self) -> None:
        # A session of its own: a Ctrl-C in the terminal is for the control process, which drains in order.
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - asked for above
        with contextlib.suppress(ConnectionError):  # it died at once: the keeper sees that
            # By pipe, not by argument or environment: it holds the stores' keys.
            pipe.write(self._places.model_dump_json().encode())
            await pipe.drain()
        pipe.close()

    async def _keep(self) -> None:
        while not self._stopping:
            if self._process is not None:
                code = await self._process.wait()
                if self._stopping:
                    return
                log.error("archiver.died", exit_code=code)
            await asyncio.sleep(ARCHIVER_RESTART_S)
            await self._spawn()


class KeeperThread:
    """The archive's keeper in a thread of its own, below everything that somebody waits for."""

    def __init__(self, holdings: Holdings, settings: ArchiveSettings, hub: EventHub) -> None:
        policy = Policy(
            retention_days=settings.retention_days,
            room_retention_days=settings.retention_by_room,
            delete_expired=settings.delete_expired,
            fixity_days=settings.fixity_days,
            fixity_bytes_s=settings.fixity_mb_s * 1e6,
        )
        self._loop = asyncio.get_running_loop()
        self._hub = hub
        self._keeper = Keeper(
            holdings.custody, holdings.audit, holdings.store, holdings.index, policy,
            catch_up=holdings.catch_up, damaged=self._damaged,
        )  # fmt: skip
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="archive keeper", daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    async def stop(self, grace_s: float) -> None:
        """End it; a check in its middle is given up. A store that does not answer is not waited for."""
        self._stop.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, grace_s)

    def _run(self) -> None:
        lower(KEEPER_NICE)
        while not self._stop.wait(KEEPER_EVERY_S):
            self._keeper.step(self._stop)
        self._keeper.close()

    def _damaged(self, info: RecordingInfo) -> None:
        files = list(info.damaged)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server is gone
            self._loop.call_soon_threadsafe(
                lambda: self._hub.publish("recording.damaged", info.room, recording=info.id, files=files)
            )


async def _announce(homecoming: Homecoming, hub: EventHub) -> None:
    """Events of recordings that are archived, or given up; until cancelled."""
    while True:
        try:
            home = await asyncio.to_thread(homecoming.step)
        except (
            sqlite3.Error
        ) as error:  # a disk that is full or gone: the next look tells what this one missed
            log.warning("homecoming.index", error=str(error))
            home = []
        for info in home:
            told = {"complete": info.complete, "reason": info.reason}
            hub.publish(f"recording.{info.state}", info.room, recording=info.id, **told)
        await asyncio.sleep(HOMECOMING_EVERY_S)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[list[str]]:
    """The whole service, up: yields the base URLs it listens on, drains at the end.

    ``settings`` went through ``kept_secrets.with_secrets``. Raises ``ConfigError``, ``OSError`` (a port is taken).
    """
    places = settings.archive.places()
    try:
        await asyncio.to_thread(check_places, places)
    except EndpointRefused as error:
        raise ConfigError(f"archive.endpoint: {error}") from error
    data = settings.data_dir
    try:
        holdings = Holdings.open(data, open_both(places), mode=settings.archive.retention_mode)
        shelf = RoomShelf(data / "rooms")
    except (StoreError, OSError) as error:
        raise ConfigError(f"data_dir: {error}") from error
    host = ProcessHost()
    book = RelayBook()
    relay = RelayProcess(settings, book) if settings.turn.is_embedded else None
    registry = Registry(
        host,
        ArchiveDesk(holdings.archive),
        protocol.WorkerSettings(
            host=settings.media.host,
            public_ip=settings.media.public_ip,
            udp_ports=(settings.media.udp_ports.start, settings.media.udp_ports.stop - 1),
            cpu_cores=settings.media.cpu_cores,
            overload=settings.media.overload,
            log_level=settings.log.level,
            log_style=settings.log.format,
        ),
        auto_create=settings.rooms.auto_create,
        max_participants=settings.rooms.max_participants,
        relay_book=book,
        shelf=shelf,
    )
    archiver = ArchiverProcess(data / "spool", places, data / "index.sqlite")
    keeper = KeeperThread(holdings, settings.archive, registry.hub)
    app = build_app(registry, holdings, settings, relay=relay, relay_book=book)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    announcing: asyncio.Task[None] | None = None
    try:
        if relay is not None:
            await relay.start()  # first: it is what most often cannot have its port
        await host.start()
        await registry.start()
        await archiver.start()
        keeper.start()
        announcing = asyncio.create_task(
            _announce(Homecoming(holdings.index), registry.hub), name="homecoming"
        )
        await runner.setup()
        yield await _listen(runner, settings)
    finally:
        if announcing is not None:
            announcing.cancel()
        if relay is not None:
            relay.drain()
        await registry.drain(grace_s=ROOMS_DRAIN_S)
        await runner.cleanup()
        if relay is not None:
            await relay.stop(RELAY_DRAIN_S)
        await asyncio.gather(archiver.stop(ARCHIVER_DRAIN_S), keeper.stop(KEEPER_DRAIN_S))
        holdings.close()


async def _listen(runner: web.AppRunner, settings: Settings) -> list[str]:
    context: ssl.SSLContext | None = None
    if settings.http.tls_cert is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.http.tls_cert, settings.http.tls_key)
    for address in settings.http.hosts:
        await web.TCPSite(runner, address, settings.http.port, ssl_context=context).start()
    scheme = "https" if context else "http"
    return [f"{scheme}://{_authority(name)}" for name in runner.addresses]


def _authority(address: tuple[str, int]) -> str:
    name, port = address[0], address[1]
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


async def run(settings: Settings, ready: Callable[[list[str]], None]) -> int:
    """Serve until SIGTERM or SIGINT, drain, return the exit code. ``ready`` hears the URLs.

    A second signal ends the process at once: workers see their socket close and seal what they record, and the
    archiver of the next start brings it home.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def asked() -> None:
        if stop.is_set():
            os._exit(0)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    async with serving(settings) as urls:
        ready(urls)
        await stop.wait()
        log.info("service.draining")
    return 0
