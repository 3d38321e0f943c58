"""RFC 2198: packets that carry earlier sound again, so that a lost one is found in the next.

A header of four bytes for each earlier block (is there another header; payload type; how much earlier, in
timestamp units; how long), one byte for the block that the packet itself is about, then the blocks in the same
order. The sequence number of an earlier block is not written down. Where time goes evenly between two packets
that came, a block's timestamp tells which one between them it is; else (a sender that paused) senders repeat the
packets right before this one, so the last of the earlier blocks is the packet before, and so on.

A repetition need not be of the packet right before: one of the packet before and one of a tenth of a second ago
mend single losses soon and bursts of a tenth of a second whole, at the price of two.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from mixer.errors import MalformedPacket
from mixer.rtp.packet import RtpPacket

MAX_BLOCKS: Final = 10  # libwebrtc's encoder repeats at most nine
MAX_OFFSET: Final = (1 << 14) - 1  # RFC 2198 section 3: 14 bits, 341 ms of Opus
MAX_BLOCK_BYTES: Final = (1 << 10) - 1  # 10 bits
_WINDOW: Final = 64  # packets looked back: more than any sender repeats
_NEAR: Final = (1 << 17) - 1  # `MAX_OFFSET` in packets of 20 ms: none of them missing, nothing to be found
_SHARED: Final = 64  # payloads that are still being handed to viewers
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


@functools.lru_cache(_SHARED)
def write_red(payload_type: int, earlier: Sequence[tuple[int, bytes]], data: bytes) -> bytes:
    """The payload that carries ``data`` and again the ``earlier`` blocks: (offset, data), oldest first, all of
    ``payload_type``. Blocks that RFC 2198 has no room for are left out. Made once, however many are sent it.
    """
    fitting = [
        (offset, block)
        for offset, block in earlier
        if 0 < offset <= MAX_OFFSET and 0 < len(block) <= MAX_BLOCK_BYTES
    ]
    heads = [
        ((0x80 | payload_type) << 24 | offset << 10 | len(block)).to_bytes(4, "big")
        for offset, block in fitting
    ]
    return b"".join((*heads, bytes((payload_type,)), *(block for _, block in fitting), data))


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
        self._stamps = [0] * _WINDOW  # timestamps of those that came, by sequence number
        self._step = 0  # between neighbours, the least that was seen: a packet's length; 0 while unknown
        self.recovered = 0

    def unpack(self, packet: RtpPacket) -> list[RtpPacket]:
        """The packet, after those that were missing and are in it. Raises ``MalformedPacket``."""
        if packet.payload_type != self._red_type:
            self._take(packet)
            return [packet]
        *earlier, own = parse_red(packet.payload)
        if own.payload_type != self._inner_type:
            raise MalformedPacket("RED: a block of a codec that was not agreed on")
        self._take(packet)
        found: list[RtpPacket] = []
        if self._seen & _NEAR == _NEAR:
            earlier = []  # the usual case: nothing is missing
        for place, block in zip(range(len(earlier), 0, -1), earlier, strict=True):
            # A block without data or of another codec only keeps its place.
            if not block.data or block.payload_type != self._inner_type:
                continue
            back = self._back(packet, block.offset, place)
            if self._missing(packet.sequence - back, packet.timestamp - block.offset):
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
                        repaired=True,
                    )
                )
        if own.data:
            found.append(replace(packet, payload_type=self._inner_type, payload=own.data))
        return found

    def _take(self, packet: RtpPacket) -> None:
        sequence = packet.sequence
        ahead = (sequence - self._highest) & 0xFFFF
        if packet.ssrc != self._ssrc or (
            _MAX_AHEAD < ahead <= 0x10000 - _WINDOW
        ):  # another source, or a new numbering
            self._ssrc, self._highest, self._seen = packet.ssrc, sequence, (1 << _WINDOW) - 1
            # what was before the first counts as come, and not as older: no block of theirs finds a place
            self._stamps = [packet.timestamp] * _WINDOW
            self._step = 0
        elif ahead <= _MAX_AHEAD:
            if ahead == 1 and self._seen & 1:
                length = (packet.timestamp - self._stamps[(sequence - 1) % _WINDOW]) & 0xFFFFFFFF
                self._step = min(self._step or length, length)
            self._seen = (self._seen << ahead | 1) & ((1 << _WINDOW) - 1)
            self._highest = sequence
        else:
            self._seen |= 1 << (0x10000 - ahead)
        self._stamps[sequence % _WINDOW] = packet.timestamp

    def _back(self, packet: RtpPacket, offset: int, place: int) -> int:
        """How many packets before ``packet`` the block of ``offset`` is: by its time, else by its ``place``; 0 when
        neither fits between two packets that came."""
        newer_back = newer = 0
        behind_highest = (self._highest - packet.sequence) & 0xFFFF
        for back in range(1, _WINDOW - behind_highest):
            if not self._seen >> (behind_highest + back) & 1:
                continue
            age = (packet.timestamp - self._stamps[(packet.sequence - back) % _WINDOW]) & 0xFFFFFFFF
            if age < offset:
                newer_back, newer = back, age
                continue
            step, uneven = divmod(age - newer, back - newer_back)
            # a pause among the lost makes longer steps, and even ones of them by chance
            if step and not uneven and step == (self._step or step) and not (offset - newer) % step:
                return newer_back + (offset - newer) // step
            return place if newer_back < place < back else 0
        return 0

    def _missing(self, sequence: int, timestamp: int) -> bool:
        """Whether that packet has not come; from now on it has."""
        behind = (self._highest - sequence) & 0xFFFF
        if behind >= _WINDOW or self._seen >> behind & 1:
            return False
        self._seen |= 1 << behind
        self._stamps[sequence % _WINDOW] = timestamp & 0xFFFFFFFF
        return True
