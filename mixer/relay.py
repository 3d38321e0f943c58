"""The embedded relay as control sees it: a child process that is configured, told of the rooms, and kept alive.

``python -m turn`` knows nothing of rooms. It is started with its configuration on standard input (a secret never
stands on a command line), hears by a socket which media sockets it may reach and whose allocations are over
(``mixer.relay_book``), and tells by the same socket where it listens and how it fares. One that dies is started
again and told all that is in force; its clients' allocations are lost, and their pages connect again by themselves.
A relay that is not there stops nobody who gets through without: ``/readyz`` does not depend on it, ``/metrics`` and
the log say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from mixer.errors import ConfigError
from mixer.relay_book import RelayBook
from mixer.relay_config import configuration, free_ports
from mixer.settings import Settings
from turn import control

log = structlog.get_logger(__name__)

START_TIMEOUT_S: Final = 15.0  # an interpreter's start on a loaded machine takes one or two
PROGRAM: Final = (sys.executable, "-m", "turn")
RESTART_S: Final = 1.0
SWEEP_S: Final = 1.0
MAX_BACKLOG_BYTES: Final = 8 << 20  # words not yet read; the whole state of a thousand rooms is below 200 kB


Listening = tuple[str, str, int]  # one socket: "udp", "tcp" or "tls", address, port


class Relay(Protocol):
    """What the HTTP side wants to know of the embedded relay."""

    @property
    def listening(self) -> Sequence[Listening]: ...

    @property
    def is_up(self) -> bool: ...

    @property
    def restarts(self) -> int: ...

    @property
    def figures(self) -> control.Metrics | None: ...


class RelayProcess:
    """See the module; ``Relay`` for the HTTP side. ``settings`` went through ``kept_secrets.with_secrets``."""

    def __init__(self, settings: Settings, book: RelayBook, *, program: Sequence[str] = PROGRAM) -> None:
        self._settings = settings
        self._program = program
        self._book = book
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._stopping = False
        self.listening: tuple[Listening, ...] = ()
        self.figures: control.Metrics | None = None
        self.restarts = 0
        self.is_up = False  # it has said where it listens, and has not ended since

    async def start(self) -> None:
        """Start it; returns when it listens. Raises ``ConfigError`` naming the keys when it cannot."""
        self._settings = free_ports(self._settings)
        reader = await self._spawn()
        self._keeper = asyncio.create_task(self._keep(reader), name="relay keeper")
        self._sweeper = asyncio.create_task(self._sweep(), name="relay sweeper")

    def drain(self) -> None:
        """No new allocations from now on; whoever is served stays so until ``stop``."""
        self._stopping = True
        self._say(control.Drain())

    async def stop(self, grace_s: float) -> None:
        """End it: without us it ends at once. Past ``grace_s`` it is killed. Idempotent."""
        self._stopping = True
        for task in (self._keeper, self._sweeper):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._hang_up()
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            log.warning("relay.killed", reason="did not end in time")
            process.kill()
            await process.wait()

    async def _spawn(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: a Ctrl-C in the terminal is for the control process, which drains in order.
            process = await asyncio.create_subprocess_exec(
                *self._program, "--config", "-", "--control-fd", str(theirs.fileno()),
                stdin=asyncio.subprocess.PIPE, pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        self._process = process
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=control.MAX_LINE_BYTES)
        try:
            await self._greet(process, reader)
        except BaseException:
            self._hang_up()
            if process.returncode is None:
                process.kill()
            await process.wait()
            raise
        self.is_up = True
        self._book.listen(self._say)
        log.info(
            "relay.started",
            pid=process.pid,
            listening=[f"{kind} {ip}:{port}" for kind, ip, port in self.listening],
        )
        return reader

    async def _greet(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader) -> None:
        assert process.stdin is not None  # noqa: S101 - we asked for a pipe
        process.stdin.write(json.dumps(configuration(self._settings)).encode())
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        process.stdin.close()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not isinstance(word := await self._hear(reader), control.Listening):
                    if word is None:
                        raise ConfigError(
                            f"turn.host, turn.port: the relay ended at its start (exit status {await process.wait()}); "
                            "its own words are above"
                        )
        except TimeoutError:
            raise ConfigError(f"turn.enabled: the relay did not start in {START_TIMEOUT_S:.0f} s") from None

    async def _hear(self, reader: asyncio.StreamReader) -> control.ToRelay | control.FromRelay | None:
        """Take one word of the relay; None when it has ended, or cannot be understood, which is as good."""
        try:
            line = await reader.readline()
            word = control.parse_word(line) if line.endswith(b"\n") else None
        except control.BadWord as error:
            log.error("relay.unintelligible", error=str(error))  # noqa: TRY400 - the reason is the message
            return None
        except (ConnectionError, ValueError):  # the latter: a line past the limit
            return None
        match word:
            case control.Listening(sockets):
                self.listening = sockets
            case control.Metrics():
                self.figures = word
        return word

    async def _keep(self, reader: asyncio.StreamReader) -> None:
        while True:
            while await self._hear(reader) is not None:
                pass
            self._hang_up()
            if self._stopping:
                return  # it was asked to drain, and nobody was left
            assert self._process is not None  # noqa: S101 - it was spawned
            if self._process.returncode is None:
                self._process.kill()
            log.error("relay.died", exit_code=await self._process.wait())
            reader = await self._restarted()

    async def _restarted(self) -> asyncio.StreamReader:
        while True:
            await asyncio.sleep(RESTART_S)
            self.restarts += 1
            try:
                return await self._spawn()
            except (ConfigError, OSError) as error:
                log.error("relay.not_restarted", error=str(error))  # noqa: TRY400 - the reason is the message

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._book.sweep(time.monotonic())

    def _say(self, word: control.ToRelay) -> None:
        writer = self._writer
        if writer is None or writer.is_closing():
            return
        if writer.transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            # It has not read for thousands of words: stuck. Its end starts another, which is told all again.
            writer.transport.abort()
            return
        writer.write(control.write_word(word))

    def _hang_up(self) -> None:
        self.is_up = False
        self._book.listen(None)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.figures = None
