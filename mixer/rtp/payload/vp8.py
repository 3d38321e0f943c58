"""VP8 in RTP (RFC 7741)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mixer.errors import MalformedPacket
from mixer.rtp.payload.picture import MAX_PAYLOAD, Picture, Start, cut

_START_CODE: Final = b"\x9d\x01\x2a"  # RFC 6386 section 9.1, after the 3-byte frame tag of a keyframe


class Vp8Depacketizer:
    """Joins payloads to frames. Keeps no state."""

    def start(self, payload: bytes) -> Start:
        try:
            first, offset = _descriptor(payload)
        except MalformedPacket:
            return Start.NO
        return Start.KEYFRAME if first and not payload[offset] & 1 else Start.NO

    def assemble(self, payloads: Sequence[bytes]) -> Picture | None:
        parts = []
        for index, payload in enumerate(payloads):
            first, offset = _descriptor(payload)
            if first != (index == 0):
                raise MalformedPacket("VP8: the frame does not start with its first packet")
            parts.append(payload[offset:])
        data = b"".join(parts)
        if not data:
            return None
        keyframe = not data[0] & 1  # RFC 6386 section 9.1: inverse key frame flag
        if keyframe and data[3:6] != _START_CODE:
            raise MalformedPacket("VP8: a keyframe without its start code")
        return Picture(data, keyframe)


def packetize(frame: bytes, max_payload: int = MAX_PAYLOAD, *, picture_id: int | None = None) -> list[bytes]:
    """Cut a frame into payloads; with ``picture_id`` (its low 15 bits) in the long form, M = 1."""
    if picture_id is None:
        begin, follow = b"\x10", b"\x00"
    else:
        tail = b"\x80" + (0x8000 | picture_id & 0x7FFF).to_bytes(2, "big")
        begin, follow = b"\x90" + tail, b"\x80" + tail
    pieces = cut(frame, max_payload - len(begin))
    return [(follow if index else begin) + piece for index, piece in enumerate(pieces)]


def renumber(payload: bytes, picture_id: int) -> bytes:
    """A payload that `packetize` made with another picture id, under this one (its low 15 bits)."""
    return payload[:2] + (0x8000 | picture_id & 0x7FFF).to_bytes(2, "big") + payload[4:]


def _descriptor(payload: bytes) -> tuple[bool, int]:
    """RFC 7741 section 4.2: whether the frame begins here, and where its bytes do (at least one is there)."""
    size = len(payload)
    if size < 2:
        raise MalformedPacket("VP8: no room for a descriptor and a byte of picture")
    head = payload[0]
    offset = 1
    if head & 0x80:
        more = payload[1]
        offset = 2
        if more & 0x80:
            if size <= offset:
                raise MalformedPacket("VP8: descriptor is cut")
            offset += 2 if payload[offset] & 0x80 else 1
        if more & 0x40:
            offset += 1
        if more & 0x30:
            offset += 1
    if offset >= size:
        raise MalformedPacket("VP8: descriptor is cut")
    return head & 0x17 == 0x10, offset  # S set and partition index 0
