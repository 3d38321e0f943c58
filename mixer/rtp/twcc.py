"""Transport-wide feedback on the wire: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.

A receiver says of each packet of a connection, whatever its SSRC, whether and when it came. The packet is
``RTPFB`` with format 15; `mixer.rtp.rtcp` frames it, its body is read and written here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mixer.errors import MalformedPacket

TICK_S: Final = 0.00025  # of a delta: 250 µs
REFERENCE_S: Final = 0.064  # of the reference time
TICKS_A_REFERENCE: Final = 256  # 64 ms in ticks
MAX_PACKETS: Final = 1024  # in one report; 3 s of the fastest stream, where reports come ten times a second

_HEAD = struct.Struct("!HHI")
_LOST, _SMALL, _LARGE = 0, 1, 2  # symbols; 3 is reserved
_ONE_BIT: Final = 14  # symbols in a vector chunk of single bits
_TWO_BIT: Final = 7
_MAX_RUN: Final = 0x1FFF


@dataclass(frozen=True, slots=True)
class TransportFeedback:
    """What came of ``len(deltas)`` packets from ``base_sequence`` (16 bit) on.

    ``deltas``: 250 µs ticks since the packet before that came, signed 16 bit, the first one since
    ``reference_time``; ``None``: it has not come. ``reference_time``: 64 ms units of the receiver's clock, signed
    24 bit. ``count``: of the report itself, 8 bit.
    """

    sender_ssrc: int
    media_ssrc: int
    base_sequence: int
    reference_time: int
    count: int
    deltas: tuple[int | None, ...]


def read_feedback(sender: int, media: int, body: bytes) -> TransportFeedback:
    """The body after the two SSRCs (untrusted). Raises ``MalformedPacket``, nothing else."""
    if len(body) < _HEAD.size:
        raise MalformedPacket("transport-cc: header is cut")
    base, status_count, packed = _HEAD.unpack_from(body)
    if not 0 < status_count <= MAX_PACKETS:
        raise MalformedPacket("transport-cc: about no packet, or about too many")
    reference = ((packed >> 8) ^ 0x800000) - 0x800000
    symbols, position = _read_symbols(body, status_count)
    deltas: list[int | None] = []
    for symbol in symbols:
        if symbol == _LOST:
            deltas.append(None)
            continue
        end = position + symbol  # a small delta is one byte, a large one two
        if end > len(body):
            raise MalformedPacket("transport-cc: deltas are cut")
        deltas.append(int.from_bytes(body[position:end], "big", signed=symbol == _LARGE))
        position = end
    if len(body) - position > 3:
        raise MalformedPacket("transport-cc: bytes are left over")
    return TransportFeedback(sender, media, base, reference, packed & 0xFF, tuple(deltas))


def _read_symbols(body: bytes, count: int) -> tuple[list[int], int]:
    symbols: list[int] = []
    position = _HEAD.size
    while len(symbols) < count:
        if position + 2 > len(body):
            raise MalformedPacket("transport-cc: status chunks are cut")
        chunk = int.from_bytes(body[position : position + 2], "big")
        position += 2
        if not chunk & 0x8000:
            run = chunk & _MAX_RUN
            if not run:
                raise MalformedPacket("transport-cc: a run of nothing")
            symbols += [chunk >> 13 & 3] * min(run, count - len(symbols))
        elif chunk & 0x4000:
            symbols += [chunk >> shift & 3 for shift in range(12, -1, -2)]
        else:
            symbols += [chunk >> shift & 1 for shift in range(13, -1, -1)]
    del symbols[count:]
    if 3 in symbols:
        raise MalformedPacket("transport-cc: reserved status symbol")
    return symbols, position


def write_feedback(feedback: TransportFeedback) -> bytes:
    """The body after the two SSRCs, without padding. ``struct.error`` for a field that is out of range."""
    deltas = feedback.deltas
    if not 0 < len(deltas) <= MAX_PACKETS:
        raise ValueError("transport-cc: about no packet, or about too many")
    symbols = [_LOST if d is None else _SMALL if 0 <= d <= 0xFF else _LARGE for d in deltas]
    times = b"".join(
        struct.pack("!B" if symbol == _SMALL else "!h", delta)
        for symbol, delta in zip(symbols, deltas, strict=True)
        if delta is not None
    )
    packed = (feedback.reference_time & 0xFFFFFF) << 8 | feedback.count & 0xFF
    head = _HEAD.pack(feedback.base_sequence, len(deltas), packed)
    return head + _write_symbols(symbols) + times


def _write_symbols(symbols: Sequence[int]) -> bytes:
    chunks: list[int] = []
    position = 0
    while position < len(symbols):
        run = 1
        while (
            position + run < len(symbols) and run < _MAX_RUN and symbols[position + run] == symbols[position]
        ):
            run += 1
        following = symbols[position : position + _ONE_BIT]
        if run >= _ONE_BIT or position + run == len(symbols):
            chunks.append(symbols[position] << 13 | run)
            position += run
        elif _LARGE not in following:
            chunks.append(0x8000 | sum(symbol << 13 - at for at, symbol in enumerate(following)))
            position += _ONE_BIT
        else:
            chunks.append(
                0xC000 | sum(symbol << 12 - 2 * at for at, symbol in enumerate(following[:_TWO_BIT]))
            )
            position += _TWO_BIT
    return struct.pack(f"!{len(chunks)}H", *chunks)
