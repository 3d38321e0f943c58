"""One stream that we send to one peer: numbering, retransmission, sender reports. Pure: bytes out, time in.

Payloads are shared by every viewer of a rendition; what is made here, a viewer and a packet, is the header.
"""

from __future__ import annotations

import random
import struct
from typing import Final

from mixer.rtp.history import History, wrap_rtx
from mixer.rtp.packet import ONE_BYTE_PROFILE, write_header
from mixer.rtp.rtcp import SenderReport

HISTORY_PACKETS: Final = (
    384  # 2.8 s of the high rendition, 0.4 MB a viewer; a second request comes within 1 s
)
REPEATS_PER_S: Final = 300  # a viewer that asks for more has no line that could carry it
NTP_EPOCH_S: Final = 2_208_988_800  # 1900 to 1970, RFC 5905 section 6

_STAMP_OFFSET: Final = 17  # 12 of header, 4 of extension header, 1 of element head
_EXTENSION = struct.Struct("!HHI")
_EXTENSION_HEAD = struct.Struct("!HH")


def ntp_time(unix_s: float) -> int:
    """Unix seconds as 32.32 fixed point since 1900 (RFC 3550 section 4)."""
    return round((unix_s + NTP_EPOCH_S) * 2**32) & 0xFFFFFFFFFFFFFFFF


def abs_send_time(now: float) -> int:
    """Seconds as 6.18 fixed point, 24 bits; any steady clock does (webrtc.org abs-send-time)."""
    return round(now * 2**18) & 0xFFFFFF


def _naming(header: bytes, contributors: tuple[tuple[int, int], ...], levels_id: int | None) -> bytes:
    """``header`` with a CSRC list (RFC 3550 section 5.1), and the levels of the same (RFC 6465 section 3)."""
    sources = struct.pack(f"!{len(contributors)}I", *(csrc for csrc, _ in contributors))
    first = header[0] | len(contributors)
    if levels_id is None:
        return bytes((first,)) + header[1:] + sources
    element = bytes((levels_id << 4 | len(contributors) - 1, *(level for _, level in contributors)))
    element += bytes(-len(element) % 4)
    extension = _EXTENSION_HEAD.pack(ONE_BYTE_PROFILE, len(element) // 4)
    return bytes((first | 0x10,)) + header[1:] + sources + extension + element


class OutgoingStream:
    """Packets of one SSRC.

    ``clock_hz``: RTP clock of the payload. Room pts are given in that clock; the sender's offset (RFC 3550
    section 5.1 wants a random start) is added here, so that renditions can change under one stream.
    ``stamp_id``: id of the abs-send-time extension or ``None``; ``levels_id``: of the mixer's levels (RFC 6465).
    ``rtx``: (payload type, SSRC) or ``None``.
    """

    def __init__(
        self,
        *,
        ssrc: int,
        payload_type: int,
        clock_hz: int,
        stamp_id: int | None = None,
        levels_id: int | None = None,
        rtx: tuple[int, int] | None = None,
        history: int = HISTORY_PACKETS,
    ) -> None:
        self.ssrc = ssrc
        self.clock_hz = clock_hz
        self._payload_type = payload_type
        self._stamp_id = stamp_id
        self._levels_id = levels_id
        self._rtx = rtx
        self._rtx_sequence = random.getrandbits(15)
        # half the range: libsrtp's rollover estimate goes wrong when the first packets wrap and one is lost
        self._sequence = random.getrandbits(15)
        self._offset = random.getrandbits(32)
        self._history = History(history) if history else None
        self._repeats_left = REPEATS_PER_S
        self._repeats_since = 0.0
        self.packets = 0
        self.octets = 0
        self.repeated = 0
        self.refused = 0

    def packet(
        self,
        payload: bytes,
        pts: int,
        *,
        marker: bool,
        now: float,
        contributors: tuple[tuple[int, int], ...] = (),
    ) -> bytes:
        """The next packet in clear. ``pts``: room time in ``clock_hz`` units; ``contributors``: of a mix."""
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        timestamp = (pts + self._offset) & 0xFFFFFFFF
        header = write_header(self._payload_type, marker, sequence, timestamp, self.ssrc)
        if contributors:
            packet = _naming(header, contributors, self._levels_id) + payload
        elif self._stamp_id is None:
            packet = header + payload
        else:
            element = self._stamp_id << 28 | 2 << 24 | abs_send_time(now)  # RFC 8285 4.2: length - 1
            extension = _EXTENSION.pack(ONE_BYTE_PROFILE, 1, element)
            packet = bytes((header[0] | 0x10,)) + header[1:] + extension + payload
        if self._history is not None:
            self._history.add(sequence, packet)
        self.packets += 1
        self.octets += len(payload)
        return packet

    def repeat(self, sequence: int, now: float) -> bytes | None:
        """The packet to answer a NACK with: as RTX, else the same bytes; ``None``: gone, or asked too often.

        The same bytes and no fresh send time: two different packets under one SRTP index would break GCM.
        """
        if now - self._repeats_since >= 1.0:
            self._repeats_since, self._repeats_left = now, REPEATS_PER_S
        kept = self._history.get(sequence) if self._history is not None and self._repeats_left else None
        if kept is None:
            self.refused += 1
            return None
        self._repeats_left -= 1
        self.repeated += 1
        if self._rtx is None:
            return kept
        payload_type, ssrc = self._rtx
        packet = wrap_rtx(kept, payload_type=payload_type, ssrc=ssrc, sequence=self._rtx_sequence)
        self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        if self._stamp_id is None:
            return packet
        stamp = abs_send_time(now).to_bytes(3, "big")
        return packet[:_STAMP_OFFSET] + stamp + packet[_STAMP_OFFSET + 3 :]

    def report(self, *, room_s: float, unix_s: float) -> SenderReport:
        """RFC 3550 section 6.4.1. ``room_s``: room time (pts / clock) at wall-clock time ``unix_s``."""
        return SenderReport(
            ssrc=self.ssrc,
            ntp_time=ntp_time(unix_s),
            rtp_time=(round(room_s * self.clock_hz) + self._offset) & 0xFFFFFFFF,
            packet_count=self.packets & 0xFFFFFFFF,
            octet_count=self.octets & 0xFFFFFFFF,
        )
