"""One stream that we send to one peer: numbering, retransmission, sender reports. Pure: bytes out, time in.

Payloads are shared by every viewer of a rendition; what is made here, a viewer and a packet, is the header.
"""

from __future__ import annotations

import random
import struct
from typing import Final

from mixer.rtp.history import History, wrap_rtx
from mixer.rtp.packet import HEADER_SIZE, ONE_BYTE_PROFILE, write_header
from mixer.rtp.rtcp import SenderReport

HISTORY_PACKETS: Final = (
    384  # 2.8 s of the high rendition, 0.4 MB a viewer; a second request comes within 1 s
)
REPEATS_PER_S: Final = 300  # a viewer that asks for more has no line that could carry it
AGAIN_S: Final = 0.03  # a second request so soon is the same one, sent twice in case the first is lost
NTP_EPOCH_S: Final = 2_208_988_800  # 1900 to 1970, RFC 5905 section 6

_EXTENSION = struct.Struct("!HHI")
_EXTENDED_SIZE: Final = HEADER_SIZE + _EXTENSION.size
_STAMP_SIZE: Final = 4
_EXTENSION_HEAD = struct.Struct("!HH")


def ntp_time(unix_s: float) -> int:
    """Unix seconds as 32.32 fixed point since 1900 (RFC 3550 section 4)."""
    return round((unix_s + NTP_EPOCH_S) * 2**32) & 0xFFFFFFFFFFFFFFFF


def abs_send_time(now: float) -> int:
    """Seconds as 6.18 fixed point, 24 bits; any steady clock does (webrtc.org abs-send-time)."""
    return round(now * 2**18) & 0xFFFFFF


class OutgoingStream:
    """Packets of one SSRC.

    ``clock_hz``: RTP clock of the payload. Room pts are given in that clock; the sender's offset (RFC 3550
    section 5.1 wants a random start) is added here, so that renditions can change under one stream.
    ``transport_id``: id of the transport-wide number's extension, ``stamp_id``: of abs-send-time, or ``None``; a
    packet carries the first of them that is there. ``levels_id``: of the mixer's levels (RFC 6465).
    ``rtx``: (payload type, SSRC) or ``None``.
    """

    def __init__(
        self,
        *,
        ssrc: int,
        payload_type: int,
        clock_hz: int,
        stamp_id: int | None = None,
        transport_id: int | None = None,
        levels_id: int | None = None,
        rtx: tuple[int, int] | None = None,
        history: int = HISTORY_PACKETS,
    ) -> None:
        self.ssrc = ssrc
        self.clock_hz = clock_hz
        self.numbered = transport_id is not None
        """Whether packets carry a transport-wide number."""
        self._stamped = self.numbered or stamp_id is not None
        self.header_size = HEADER_SIZE + (_EXTENSION.size if self._stamped else 0)
        """Bytes before a payload."""
        self._payload_type = payload_type
        self._stamp_id = stamp_id
        self._transport_id = transport_id
        self._levels_id = levels_id
        self._rtx = rtx
        self._rtx_sequence = random.getrandbits(15)
        # half the range: libsrtp's rollover estimate goes wrong when the first packets wrap and one is lost
        self._sequence = random.getrandbits(15)
        self._offset = random.getrandbits(32)
        self._timestamp = self._offset
        self._history = History(history) if history else None
        self._repeats_left = REPEATS_PER_S
        self._repeats_since = 0.0
        self._repeated_at: dict[int, float] = {}  # by sequence number, of the last `REPEATS_PER_S`
        self.again_s = AGAIN_S
        self.packets = 0
        self.octets = 0
        self.repeated = 0
        self.refused = 0

    @property
    def keeps(self) -> bool:
        """Whether what was sent can be repeated."""
        return self._history is not None

    @property
    def rtx_header_size(self) -> int | None:
        """Bytes before the padding of a padding packet; ``None`` when there can be none (no RTX)."""
        return self.header_size if self._rtx is not None else None

    def naming_size(self, count: int) -> int:
        """Bytes beyond ``header_size`` of a packet that names ``count`` contributors."""
        if not count:
            return 0
        levels = 1 + count if self._levels_id is not None else 0
        elements = (_STAMP_SIZE if self._stamped else 0) + levels
        extension = _EXTENSION_HEAD.size + elements + -elements % 4 if elements else 0
        return HEADER_SIZE + 4 * count + extension - self.header_size

    def packet(
        self,
        payload: bytes,
        pts: int,
        marker: bool,
        now: float,
        transport: int = 0,
        contributors: tuple[tuple[int, int], ...] = (),
        payload_type: int | None = None,
    ) -> bytes:
        """The next packet in clear. ``pts``: room time in ``clock_hz`` units. ``transport``: its wide number.
        ``contributors``: of a mix. ``payload_type``: another one than the stream's own.
        """
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        self._timestamp = timestamp = (pts + self._offset) & 0xFFFFFFFF
        kind = self._payload_type if payload_type is None else payload_type
        header = write_header(kind, marker, sequence, timestamp, self.ssrc)
        if contributors:
            header = self._naming(header, contributors, now, transport)
        elif self._stamped:
            header = self._extended(header, now, transport)
        packet = header + payload
        if self._history is not None:
            self._history.add(sequence, packet)
        self.packets += 1
        self.octets += len(payload)
        return packet

    def sequence_of(self, position: int) -> int:
        """The sequence number of the packet before which ``position`` others were sent; `packets` is the next one's."""
        return (self._sequence + position - self.packets) & 0xFFFF

    def repeated_just_now(self, sequence: int, now: float, *, within_s: float | None = None) -> bool:
        """Whether the packet was repeated less than ``within_s`` ago; else it is `again_s`."""
        elapsed_s = now - self._repeated_at.get(sequence, float("-inf"))
        return elapsed_s < (self.again_s if within_s is None else within_s)

    def repeat_size(self, sequence: int) -> int | None:
        """Bytes of the packet that `repeat` would make; ``None``: it is gone."""
        kept = self._history.get(sequence) if self._history is not None else None
        return None if kept is None else len(kept) + (2 if self._rtx is not None else 0)

    def repeat(self, sequence: int, now: float, transport: int = 0, *, unasked: bool = False) -> bytes | None:
        """The packet to answer a NACK with: as RTX, else the same bytes; ``None``: gone, or asked too often.
        ``unasked``: in case the one before is lost, too.

        The same bytes and no fresh stamp: two different packets under one SRTP index would break GCM.
        """
        if not unasked and self.repeated_just_now(sequence, now):
            return None
        if now - self._repeats_since >= 1.0:
            self._repeats_since, self._repeats_left = now, REPEATS_PER_S
        kept = self._history.get(sequence) if self._history is not None and self._repeats_left else None
        if kept is None:
            self.refused += 1
            return None
        self._repeats_left -= 1
        self.repeated += 1
        self._repeated_at.pop(sequence, None)
        self._repeated_at[sequence] = now
        if len(self._repeated_at) > REPEATS_PER_S:
            del self._repeated_at[next(iter(self._repeated_at))]
        if self._rtx is None:
            return kept
        payload_type, ssrc = self._rtx
        packet = wrap_rtx(kept, payload_type=payload_type, ssrc=ssrc, sequence=self._next_rtx())
        if not self._stamped:
            return packet
        return self._extended(packet[:HEADER_SIZE], now, transport) + packet[_EXTENDED_SIZE:]

    def padding(self, size: int, now: float, transport: int = 0) -> bytes:
        """A packet of ``size`` bytes of padding (1 to 255) beside the stream, on the RTX SSRC (RFC 4588).

        Raises ``ValueError`` when there is no RTX: on the stream itself it would need a sequence number.
        """
        if self._rtx is None:
            raise ValueError("padding needs RTX")
        payload_type, ssrc = self._rtx
        header = write_header(payload_type, False, self._next_rtx(), self._timestamp, ssrc)
        if self._stamped:
            header = self._extended(header, now, transport)
        return bytes((header[0] | 0x20,)) + header[1:] + bytes(size - 1) + bytes((size,))

    def newest(self) -> bytes | None:
        """The last packet; ``None``: none, or nothing is kept."""
        return self._history.get((self._sequence - 1) & 0xFFFF) if self._history is not None else None

    def forget(self) -> None:
        """Repeat nothing that was sent before: a keyframe of another rendition follows."""
        if self._history is not None:
            self._history.clear()

    def _extended(self, header: bytes, now: float, transport: int) -> bytes:
        """``header`` with its extension."""
        element = self._stamp(now, transport)
        return bytes((header[0] | 0x10,)) + header[1:] + _EXTENSION.pack(ONE_BYTE_PROFILE, 1, element)

    def _stamp(self, now: float, transport: int) -> int:
        """The element in 32 bits, padded (RFC 8285 section 4.2: length - 1 beside the id)."""
        if self._transport_id is not None:
            return self._transport_id << 28 | 1 << 24 | transport << 8
        return (self._stamp_id or 0) << 28 | 2 << 24 | abs_send_time(now)

    def _naming(
        self, header: bytes, contributors: tuple[tuple[int, int], ...], now: float, transport: int
    ) -> bytes:
        """``header`` with a CSRC list (RFC 3550 section 5.1), and the levels of the same (RFC 6465 section 3)."""
        count = len(contributors)
        sources = struct.pack(f"!{count}I", *(csrc for csrc, _ in contributors))
        elements = self._stamp(now, transport).to_bytes(4, "big") if self._stamped else b""
        if self._levels_id is not None:
            elements += bytes((self._levels_id << 4 | count - 1, *(level for _, level in contributors)))
        first = header[0] | count
        if not elements:
            return bytes((first,)) + header[1:] + sources
        elements += bytes(-len(elements) % 4)
        extension = _EXTENSION_HEAD.pack(ONE_BYTE_PROFILE, len(elements) // 4)
        return bytes((first | 0x10,)) + header[1:] + sources + extension + elements

    def _next_rtx(self) -> int:
        sequence = self._rtx_sequence
        self._rtx_sequence = (sequence + 1) & 0xFFFF
        return sequence

    def report(self, *, room_s: float, unix_s: float) -> SenderReport:
        """RFC 3550 section 6.4.1. ``room_s``: room time (pts / clock) at wall-clock time ``unix_s``."""
        return SenderReport(
            ssrc=self.ssrc,
            ntp_time=ntp_time(unix_s),
            rtp_time=(round(room_s * self.clock_hz) + self._offset) & 0xFFFFFFFF,
            packet_count=self.packets & 0xFFFFFFFF,
            octet_count=self.octets & 0xFFFFFFFF,
        )
