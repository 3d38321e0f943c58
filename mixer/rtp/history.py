"""What was sent a moment ago, for a receiver that asks again, and its form as RTX (RFC 4588)."""

from __future__ import annotations

import struct
from typing import Final

from mixer.errors import MalformedPacket
from mixer.rtp.packet import RtpPacket, header_length

DEFAULT_CAPACITY: Final = 1024  # 6 s of 1.5 Mbit/s video, 1.2 MB a viewer


class History:
    """The last ``capacity`` packets of one outgoing SSRC; older ones are overwritten.

    ``missed`` counts packets asked for that were not (or no longer) there.
    """

    __slots__ = ("_capacity", "_packets", "missed")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise ValueError("a history holds at least one packet")
        self._capacity = capacity
        self._packets: list[tuple[int, bytes] | None] = [None] * capacity
        self.missed = 0

    def add(self, sequence: int, packet: bytes) -> None:
        """Keep ``packet`` (before SRTP) under its 16-bit sequence number."""
        self._packets[sequence % self._capacity] = (sequence, packet)

    def get(self, sequence: int) -> bytes | None:
        """The packet of that sequence number, or None when it was overwritten or never sent."""
        entry = self._packets[sequence % self._capacity]
        if entry is not None and entry[0] == sequence:
            return entry[1]
        self.missed += 1
        return None

    def clear(self) -> None:
        """Forget all, as when the outgoing SSRC changes."""
        self._packets = [None] * self._capacity


def wrap_rtx(packet: bytes, *, payload_type: int, ssrc: int, sequence: int) -> bytes:
    """The RTX packet that repeats ``packet`` (RFC 4588 section 4): its own type, SSRC and sequence, then the
    original sequence number before the payload. Marker, timestamp, extensions and padding stay.
    """
    split = header_length(packet)
    head = struct.pack("!BBH", packet[0], packet[1] & 0x80 | payload_type, sequence)
    return head + packet[4:8] + struct.pack("!I", ssrc) + packet[12:split] + packet[2:4] + packet[split:]


def unwrap_rtx(packet: RtpPacket, *, payload_type: int, ssrc: int) -> RtpPacket | None:
    """The original packet inside an RTX packet from the network; None for a probe of padding alone.

    ``payload_type`` and ``ssrc`` are those of the stream that is repaired. Raises MalformedPacket.
    """
    if not packet.payload:
        return None
    if len(packet.payload) < 2:
        raise MalformedPacket("RTX: no original sequence number")
    return RtpPacket(
        payload_type,
        packet.marker,
        int.from_bytes(packet.payload[:2], "big"),
        packet.timestamp,
        ssrc,
        packet.payload[2:],
        packet.csrcs,
        packet.extensions,
        repaired=True,
    )
