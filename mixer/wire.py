"""Frames between control and a room worker: four bytes of length (big-endian), then one message as JSON."""

from __future__ import annotations

import asyncio
import struct
from typing import Final, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)

MAX_FRAME: Final = 64 * 1024 * 1024
# A 4K canvas as PNG in base64 is below 40 MB; anything larger is a bug, not a message.

_LENGTH = struct.Struct("!I")


class ConnectionClosed(Exception):
    """The other process closed the connection or died."""


def pack(message: BaseModel) -> bytes:
    """One frame."""
    body = message.model_dump_json().encode()
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader, model: type[M]) -> M:
    """The next frame as ``model``. Raises ``ConnectionClosed`` at end of stream, a cut frame included."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME:
            raise ConnectionClosed(f"a frame of {length} bytes is past the limit of {MAX_FRAME}")
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise ConnectionClosed("the other process is gone") from error
    return model.model_validate_json(body)
