"""Main of a room worker process: a socket to control on one side, one ``Session`` on the other."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from typing import Final

import structlog

from mixer import protocol, wire
from mixer.errors import MosaiqueError
from mixer.log import configure
from mixer.session import Session

log = structlog.get_logger(__name__)

HEARTBEAT_S: Final = 1.0
FINISH_S: Final = 9.0  # what the recorder may take to write out (8 s), and a little

GIL_SWITCH_S: Final = 0.002
# The loop gives the interpreter's lock away at each system call and codec call, and waits this long until a thread
# that computes hands it back. Python's default of 5 ms costs ticks on a machine that others use too; 0.5 ms costs
# 3 % of a core in a room of 9 + 9 (1.13 and 1.15 against 1.09 and 1.10 cores) and gains nothing over 2 ms.

MAX_BACKLOG_BYTES: Final = 8 * 1024 * 1024
# Frames not yet read by control. A control process that far behind is gone in all but name.


def main(connection: socket.socket, state_json: str) -> None:
    """Run the room of ``state_json`` (a ``RoomState``) until ``connection`` closes."""
    # Control decides when a worker ends. A Ctrl-C or a service manager's signal to the whole group must not
    # cut a recording in the middle of control's own drain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.setswitchinterval(GIL_SWITCH_S)
    gc.freeze()  # what the template loaded is never garbage: keep the collector off its pages, so they stay shared
    state = protocol.RoomState.model_validate_json(state_json)
    configure(level=state.settings.log_level, style=state.settings.log_style)
    asyncio.run(_serve(connection, state))
    # Codec threads of libraries may linger; media are sealed by now, and waiting for them helps nobody.
    os._exit(0)


async def _serve(connection: socket.socket, state: protocol.RoomState) -> None:
    reader, writer = await asyncio.open_connection(sock=connection)

    def say(event: protocol.Event) -> None:
        _send(writer, protocol.WorkerFrame(event=event))

    session = Session(state, say)
    try:
        await session.start()
    except Exception as error:
        log.exception("worker.start_failed", room=state.room)
        _send(writer, protocol.WorkerFrame(number=0, answer=_failure(error)))
        await writer.drain()
        return
    _send(writer, protocol.WorkerFrame(number=0, answer=protocol.Done()))
    beat = asyncio.create_task(_beat(writer), name="heartbeat")
    requests: set[asyncio.Task[None]] = set()
    try:
        while True:
            frame = await wire.read(reader, protocol.RequestFrame)
            task = asyncio.create_task(_answer(session, frame, writer), name=frame.request.op)
            requests.add(task)
            task.add_done_callback(requests.discard)
    except wire.ConnectionClosed:
        pass  # control is gone, or has drained us: either way what is recorded gets sealed
    finally:
        beat.cancel()
        if requests:
            # One of them may be sealing a recording: control's end must not cut that short.
            await asyncio.wait(requests, timeout=FINISH_S)
        await session.stop("control closed the connection")
        writer.close()


async def _answer(session: Session, frame: protocol.RequestFrame, writer: asyncio.StreamWriter) -> None:
    answer: protocol.Answer
    try:
        answer = await session.handle(frame.request)
    except MosaiqueError as error:
        answer = _failure(error)
    except Exception as error:
        log.exception("worker.request_failed", op=frame.request.op)
        answer = _failure(error)
    _send(writer, protocol.WorkerFrame(number=frame.number, answer=answer))


def _failure(error: Exception) -> protocol.Failure:
    if isinstance(error, MosaiqueError):
        return protocol.Failure(code=error.code, message=str(error), details=error.details())
    return protocol.Failure(code=MosaiqueError.code, message=f"{type(error).__name__} in the room's process")


def _send(writer: asyncio.StreamWriter, frame: protocol.WorkerFrame) -> None:
    if writer.is_closing():
        return
    if writer.transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
        writer.transport.abort()
        return
    writer.write(wire.pack(frame))


async def _beat(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            _send(writer, protocol.WorkerFrame())
            await asyncio.sleep(HEARTBEAT_S)
