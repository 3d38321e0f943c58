"""``RoomHost`` with one child process a room, forked from a preloaded template.

The template (multiprocessing's fork server) imports av, numpy, aiortc and the session once and starts no thread and
no loop, so a worker is there in about 0.03 s and shares the template's pages: 12 MB of its own, where a
spawned interpreter needs 0.22-0.55 s and 29 MB (measured, Nov 2026).
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from typing import Final

import structlog

from mixer import protocol, wire, worker
from mixer.errors import Conflict, NotFound, WorkerLost, error_from

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S: Final = 10.0
# Longer than any request takes on a loaded machine (an SDP answer waits for nobody, a preview PNG takes 0.1 s);
# shorter than a HTTP client's patience.

HEARTBEAT_TIMEOUT_S: Final = 5.0
# Workers beat once a second (worker.HEARTBEAT_S). A loop that is silent for five is stuck, not late.

START_TIMEOUT_S: Final = 10.0
MAX_EVENTS: Final = 10_000  # events not yet read by control; a worker that floods is closed, see _Worker.read


@dataclass(eq=False, slots=True)
class _Worker:
    room: str
    epoch: int
    process: ForkServerProcess
    writer: asyncio.StreamWriter
    answers: dict[int, asyncio.Future[protocol.Answer]] = field(default_factory=dict)
    next_number: int = 1
    closing: bool = False
    heard_at: float = 0.0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class ProcessHost:
    """See ``mixer.host.port.RoomHost``. ``start`` first; single loop, not thread-safe."""

    def __init__(self, entry: Callable[[socket.socket, str], None] = worker.main) -> None:
        self._entry = entry
        self._context = multiprocessing.get_context("forkserver")
        self._workers: dict[str, _Worker] = {}
        self._opening: set[str] = set()
        self._events: asyncio.Queue[tuple[str, protocol.Event]] = asyncio.Queue(MAX_EVENTS)
        self._start_lock = asyncio.Lock()

    async def start(self) -> None:
        """Start the template process."""
        # OpenBLAS starts a thread a core when numpy is imported, and a forked thread pool is a dead one. The
        # mixer does no linear algebra: one thread, which is the caller's.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._context.set_forkserver_preload([self._entry.__module__])
        await asyncio.to_thread(forkserver.ensure_running)

    async def open(self, state: protocol.RoomState) -> None:
        """Start the worker of ``state.room``; returns when it answers. Raises ``Conflict``, ``WorkerLost``."""
        if state.room in self._workers or state.room in self._opening:
            raise Conflict(f"room {state.room} has a worker already")
        self._opening.add(state.room)
        try:
            ours, theirs = socket.socketpair()
            process = self._context.Process(
                target=self._entry, args=(theirs, state.model_dump_json()), name=f"room {state.room}"
            )
            async with self._start_lock:  # multiprocessing's start is not re-entrant across threads
                await asyncio.to_thread(process.start)
            theirs.close()
            reader, writer = await asyncio.open_connection(sock=ours)
            await self._greet(process, reader, writer, state)
            spawned = _Worker(state.room, state.epoch, process, writer)
            spawned.heard_at = asyncio.get_running_loop().time()
            self._workers[state.room] = spawned
        finally:
            self._opening.discard(state.room)
        spawned.tasks = [
            asyncio.create_task(self._read(spawned, reader), name=f"read {state.room}"),
            asyncio.create_task(self._watch(spawned), name=f"watch {state.room}"),
        ]
        log.info("worker.started", room=state.room, epoch=state.epoch, pid=process.pid)

    async def _greet(
        self,
        process: ForkServerProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        state: protocol.RoomState,
    ) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                frame = await wire.read(reader, protocol.WorkerFrame)
        except (wire.ConnectionClosed, TimeoutError) as error:
            writer.close()
            process.kill()
            raise WorkerLost(f"the worker of room {state.room} did not start: {error}") from error
        if isinstance(frame.answer, protocol.Failure):
            writer.close()
            raise error_from(frame.answer.code, frame.answer.message, frame.answer.details)

    async def ask(self, room: str, request: protocol.Request) -> protocol.Answer:
        """Send one request and wait for its answer."""
        target = self._workers.get(room)
        if target is None or target.closing:
            raise NotFound(f"room {room} has no worker")
        number = target.next_number
        target.next_number += 1
        future: asyncio.Future[protocol.Answer] = asyncio.get_running_loop().create_future()
        target.answers[number] = future
        try:
            target.writer.write(wire.pack(protocol.RequestFrame(number=number, request=request)))
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await future
        except TimeoutError as error:
            log.warning("worker.silent", room=room, request=request.op)
            target.process.kill()
            raise WorkerLost(f"room {room} did not answer; it is being restarted") from error
        finally:
            target.answers.pop(number, None)
        if isinstance(answer, protocol.Failure):
            raise error_from(answer.code, answer.message, answer.details)
        return answer

    async def next_event(self) -> tuple[str, protocol.Event]:
        """The oldest event not yet read, with its room."""
        return await self._events.get()

    async def close(self, room: str, *, grace_s: float) -> None:
        """Drain and end a worker; past ``grace_s`` it is killed (its spool is recovered by the archiver)."""
        target = self._workers.get(room)
        if target is None:
            return
        try:
            async with asyncio.timeout(grace_s):
                await self.ask(room, protocol.Drain())
                target.closing = True
                target.writer.close()
                await asyncio.to_thread(target.process.join, grace_s)
        except (TimeoutError, NotFound, WorkerLost):
            log.warning("worker.killed", room=room, reason="did not drain in time")
        await self._reap(target)

    async def shutdown(self, *, grace_s: float) -> None:
        """Close every worker."""
        await asyncio.gather(*(self.close(room, grace_s=grace_s) for room in list(self._workers)))

    def pids(self) -> dict[str, int]:
        """Process id by room, for operators and ``/metrics``."""
        return {room: w.process.pid for room, w in self._workers.items() if w.process.pid is not None}

    async def _read(self, source: _Worker, reader: asyncio.StreamReader) -> None:
        detail = "its process ended"
        try:
            while True:
                frame = await wire.read(reader, protocol.WorkerFrame)
                source.heard_at = asyncio.get_running_loop().time()
                if frame.answer is not None and frame.number in source.answers:
                    future = source.answers[frame.number]
                    if not future.done():
                        future.set_result(frame.answer)
                if frame.event is not None:
                    self._events.put_nowait((source.room, frame.event))
        except wire.ConnectionClosed:
            pass
        except (ValueError, asyncio.QueueFull) as error:
            # Neither can come from a healthy worker of this version: end it rather than guess.
            detail = f"it broke the protocol: {error}"
        if not source.closing:
            await self._bury(source, detail)

    async def _watch(self, source: _Worker) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(HEARTBEAT_TIMEOUT_S / 5)
            if loop.time() - source.heard_at > HEARTBEAT_TIMEOUT_S and not source.closing:
                log.error("worker.stuck", room=source.room, epoch=source.epoch)
                source.process.kill()  # the socket's end wakes _read, which does the rest
                return

    async def _bury(self, source: _Worker, detail: str) -> None:
        """A worker is gone that nobody closed: fail who waits, tell control."""
        source.closing = True
        if self._workers.get(source.room) is source:
            del self._workers[source.room]
        for future in source.answers.values():
            if not future.done():
                future.set_exception(WorkerLost(f"room {source.room} was interrupted; it is being restarted"))
        await self._events.put((source.room, protocol.WorkerDied(epoch=source.epoch, detail=detail)))
        await self._reap(source, cancel_reader=False)

    async def _reap(self, target: _Worker, *, cancel_reader: bool = True) -> None:
        target.closing = True
        if self._workers.get(target.room) is target:
            del self._workers[target.room]
        if target.process.is_alive():
            target.process.kill()
        current = asyncio.current_task()
        for task in target.tasks:
            if task is not current and (cancel_reader or task is not target.tasks[0]):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        target.writer.close()
        await asyncio.to_thread(target.process.join, 2.0)
        log.info("worker.ended", room=target.room, epoch=target.epoch, exit_code=target.process.exitcode)
        target.process.close()
