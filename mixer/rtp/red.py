"""RFC 2198: packets that carry earlier sound again, so that a lost one is found in the next.

A header of four bytes for each earlier block (is there another header; payload type; how much earlier, in
timestamp units; how long), one byte for the block that the packet itself is about, then the blocks in the same
order. The sequence number of an earlier block is not written down: senders repeat the packets right before
this one, so the last of the earlier blocks is the packet before, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from mixer.errors import MalformedPacket
from mixer.rtp.packet import RtpPacket

MAX_BLOCKS: Final = 10  # libwebrtc's encoder repeats at most nine
_WINDOW: Final = 64  # packets looked back: more than any sender repeats
_MAX_AHEAD: Final = 3000  # RFC 3550 appendix A.1: MAX_DROPOUT


@dataclass(frozen=True, slots=True)
class Block:
    """``offset``: how much earlier than the packet's timestamp, in its units; 0 for the packet's own block."""

    payload_type: int
    offset: int
    data: bytes


def parse_red(payload: bytes) -> list[Block]:
    """The blocks of a payload, oldest first, the packet's own last.

    Untrusted input. Raises ``MalformedPacket`` and nothing else.
    """
    headers: list[tuple[int, int, int]] = []
    position, size = 0, len(payload)
    while True:
        if position >= size:
            raise MalformedPacket("RED: header is cut")
        kind = payload[position] & 0x7F
        if payload[position] < 0x80:
            position += 1
            break
        if position + 4 > size:
            raise MalformedPacket("RED: header is cut")
        word = int.from_bytes(payload[position + 1 : position + 4], "big")
        headers.append((kind, word >> 10, word & 0x3FF))
        if len(headers) >= MAX_BLOCKS:
            raise MalformedPacket(f"RED: more than {MAX_BLOCKS} blocks")
        position += 4
    blocks: list[Block] = []
    for earlier, offset, length in headers:
        if position + length > size:
            raise MalformedPacket("RED: block is cut")
        blocks.append(Block(earlier, offset, payload[position : position + length]))
        position += length
    return [*blocks, Block(kind, 0, payload[position:])]


class RedUnpacker:
    """One source's packets, in RED (``red_type``) or bare, → bare ones of ``inner_type``; repetitions only of the lost.

    Counter: ``recovered`` packets that came only as a repetition, before their own came, if it ever did.
    """

    def __init__(self, *, red_type: int, inner_type: int) -> None:
        self._red_type = red_type
        self._inner_type = inner_type
        self._ssrc: int | None = None
        self._highest = 0
        self._seen = 0  # bit n: the packet n before the highest has come; all set before the first
        self.recovered = 0

    def unpack(self, packet: RtpPacket) -> list[RtpPacket]:
        """The packet, after those that were missing and are in it. Raises ``MalformedPacket``."""
        if packet.payload_type != self._red_type:
            self._take(packet.ssrc, packet.sequence)
            return [packet]
        *earlier, own = parse_red(packet.payload)
        if own.payload_type != self._inner_type:
            raise MalformedPacket("RED: a block of a codec that was not agreed on")
        self._take(packet.ssrc, packet.sequence)
        found: list[RtpPacket] = []
        for back, block in zip(range(len(earlier), 0, -1), earlier, strict=True):
            # A block without data or of another codec only keeps its place.
            if (
                block.data
                and block.payload_type == self._inner_type
                and self._missing(packet.sequence - back)
            ):
                self.recovered += 1
                found.append(
                    replace(
                        packet,
                        payload_type=self._inner_type,
                        marker=False,
                        sequence=(packet.sequence - back) & 0xFFFF,
                        timestamp=(packet.timestamp - block.offset) & 0xFFFFFFFF,
                        payload=block.data,
                        extensions={},  # they tell of the packet's own block
                    )
                )
        if own.data:
            found.append(replace(packet, payload_type=self._inner_type, payload=own.data))
        return found

    def _take(self, ssrc: int, sequence: int) -> None:
        ahead = (sequence - self._highest) & 0xFFFF
        if ssrc != self._ssrc or (
            _MAX_AHEAD < ahead <= 0x10000 - _WINDOW
        ):  # another source, or a new numbering
            self._ssrc, self._highest, self._seen = ssrc, sequence, (1 << _WINDOW) - 1
        elif ahead <= _MAX_AHEAD:
            self._seen = (self._seen << ahead | 1) & ((1 << _WINDOW) - 1)
            self._highest = sequence
        else:
            self._seen |= 1 << (0x10000 - ahead)

    def _missing(self, sequence: int) -> bool:
        """Whether that packet has not come; from now on it has."""
        behind = (self._highest - sequence) & 0xFFFF
        if behind >= _WINDOW or self._seen >> behind & 1:
            return False
        self._seen |= 1 << behind
        return True
