"""One run of bytes cut into many inputs, for what keeps a state between them."""

from __future__ import annotations

from collections.abc import Iterator


def chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Two bytes of sequence number (a step from the last), one of length, so many bytes; and again."""
    position, sequence = 0, 1000
    while position + 3 <= len(data):
        step = int.from_bytes(data[position : position + 2], "big")
        sequence = (sequence + (step if step > 0xF000 else step % 4)) & 0xFFFF
        length = data[position + 2]
        yield sequence, data[position + 3 : position + 3 + length]
        position += 3 + length


def joined(*payloads: bytes) -> bytes:
    """What `chunks` cuts into these, numbered one after another."""
    return b"".join(b"\0\1" + bytes([len(part)]) + part for part in payloads)
