"""VP9 in RTP (RFC 9628), receiving only: we decode it where a peer offers nothing else.

Of a picture with several spatial layers only the lowest is taken: it decodes alone, where the layers one
after another would need a superframe index that RTP does not carry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixer.errors import MalformedPacket
from mixer.rtp.payload.picture import Picture, Start


@dataclass(frozen=True, slots=True)
class _Descriptor:
    """RFC 9628 section 4.2, as far as we need it. ``offset``: where the layer frame's bytes begin."""

    predicted: bool
    begins: bool
    ends: bool
    spatial: int
    offset: int


class Vp9Depacketizer:
    """Joins payloads to frames. Keeps no state."""

    def start(self, payload: bytes) -> Start:
        try:
            head = _descriptor(payload)
        except MalformedPacket:
            return Start.NO
        if head.predicted or not head.begins or head.spatial:
            return Start.NO
        return Start.KEYFRAME

    def assemble(self, payloads: Sequence[bytes]) -> Picture | None:
        parts: list[bytes] = []
        predicted = ended = False
        for payload in payloads:
            head = _descriptor(payload)
            if head.spatial:
                continue
            if head.begins != (not parts) or ended:
                raise MalformedPacket("VP9: the frame does not start with its first packet")
            predicted = predicted or head.predicted
            ended = head.ends
            parts.append(payload[head.offset :])
        if not parts:
            return None
        if not ended:
            raise MalformedPacket("VP9: the frame does not end with its last packet")
        return Picture(b"".join(parts), not predicted)


def _descriptor(payload: bytes) -> _Descriptor:
    """Read the payload descriptor (untrusted). Raises MalformedPacket."""
    try:
        return _read(payload)
    except IndexError:
        raise MalformedPacket("VP9: descriptor is cut") from None


def _read(payload: bytes) -> _Descriptor:
    head = payload[0]
    flexible = bool(head & 0x10)
    offset = 1
    if head & 0x80:  # I: picture id of 7 or 15 bits
        offset += 2 if payload[offset] & 0x80 else 1
    spatial = 0
    if head & 0x20:  # L: layer indices; TL0PICIDX only without F
        spatial = payload[offset] >> 1 & 0x07
        offset += 1 if flexible else 2
    if flexible and head & 0x40:  # F and P: at most three reference indices
        for _ in range(3):
            offset += 1
            if not payload[offset - 1] & 1:
                break
        else:
            raise MalformedPacket("VP9: more than three references")
    if head & 0x02:  # V: scalability structure
        offset = _skip_structure(payload, offset)
    if offset >= len(payload):
        raise MalformedPacket("VP9: no byte of picture")
    return _Descriptor(bool(head & 0x40), bool(head & 0x08), bool(head & 0x04), spatial, offset)


def _skip_structure(payload: bytes, offset: int) -> int:
    """RFC 9628 section 4.2.1: sizes of the layers, then the picture group."""
    head = payload[offset]
    offset += 1
    if head & 0x10:  # Y: width and height a layer
        offset += 4 * ((head >> 5) + 1)
    if head & 0x08:  # G: picture group
        pictures = payload[offset]
        offset += 1
        for _ in range(pictures):
            offset += 1 + (payload[offset] >> 2 & 0x03)
    return offset
