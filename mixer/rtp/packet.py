"""RTP packets (RFC 3550 section 5.1) with header extensions (RFC 8285), and telling datagrams apart."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, Literal

from mixer.errors import MalformedPacket

HEADER_SIZE: Final = 12  # RFC 3550 section 5.1, without CSRCs
MAX_DATAGRAM: Final = 1500  # an Ethernet frame; pylibsrtp raises on more (facts: 1601 bytes end a stock peer)
ONE_BYTE_PROFILE: Final = 0xBEDE  # RFC 8285 section 4.2
TWO_BYTE_PROFILE: Final = 0x1000  # RFC 8285 section 4.3: 0x100 and 4 "appbits"

HEAD_SIZE: Final = 20  # what tells datagrams apart: of STUN the whole header (RFC 8489 section 5)
_STUN_COOKIE: Final = b"\x21\x12\xa4\x42"  # RFC 8489 section 5
_DTLS_HEADER: Final = 13  # RFC 6347 section 4.1
_RTCP_HEADER: Final = 8  # the shortest packet with a sender: an empty receiver report

_FIXED = struct.Struct("!BBHII")
_EXTENSION = struct.Struct("!HH")

DatagramKind = Literal["stun", "dtls", "rtp", "rtcp"]


@dataclass(slots=True)
class RtpPacket:
    """One RTP packet without its padding.

    ``sequence`` is 16 bit, ``timestamp`` and ``ssrc`` 32 bit as on the wire. ``extensions`` maps the local
    identifier negotiated by ``a=extmap`` to the element's bytes. A packet of padding alone has no payload.
    ``repaired``: it came because it had been lost, and so late (repeated on request, or out of RED).
    """

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    csrcs: tuple[int, ...] = ()
    extensions: dict[int, bytes] = field(default_factory=dict)
    repaired: bool = False


def classify(head: bytes, size: int) -> DatagramKind | None:
    """What a datagram of ``size`` bytes on a shared port is, by its first ones (RFC 7983, RFC 5761); None: drop it.

    ``head``: ``HEAD_SIZE`` bytes at least, or all. Sizes are checked, so that what passes is safe to hand to libraries
    that index before they look.
    """
    if not _RTCP_HEADER <= size <= MAX_DATAGRAM:
        return None
    first = head[0]
    if 128 <= first <= 191:
        kind = head[1]
        if 192 <= kind <= 223:  # RFC 5761 section 4: RTP payload types 64-95 are never used beside RTCP
            return "rtcp"
        return "rtp" if size >= HEADER_SIZE and not 64 <= kind <= 95 else None
    if first <= 3:
        ours = size >= HEAD_SIZE and head[4:8] == _STUN_COOKIE
        return "stun" if ours and int.from_bytes(head[2:4], "big") == size - HEAD_SIZE else None
    if 20 <= first <= 63:
        return "dtls" if size >= _DTLS_HEADER else None
    return None


def parse_rtp(data: bytes) -> RtpPacket:
    """Read one packet from the network (untrusted). Raises MalformedPacket, nothing else.

    An extension block of a profile that is neither form of RFC 8285 is skipped; the payload stays readable.
    """
    size = len(data)
    if size < HEADER_SIZE:
        raise MalformedPacket("RTP: shorter than its header")
    first, second, sequence, timestamp, ssrc = _FIXED.unpack_from(data)
    if first >> 6 != 2:
        raise MalformedPacket("RTP: version is not 2")
    offset = HEADER_SIZE
    csrcs: tuple[int, ...] = ()
    if count := first & 0x0F:
        offset += 4 * count
        if offset > size:
            raise MalformedPacket("RTP: CSRC list is cut")
        csrcs = struct.unpack_from(f"!{count}I", data, HEADER_SIZE)
    extensions: dict[int, bytes] = {}
    if first & 0x10:
        start = offset + 4
        if start > size:
            raise MalformedPacket("RTP: extension header is cut")
        profile, words = _EXTENSION.unpack_from(data, offset)
        offset = start + 4 * words
        if offset > size:
            raise MalformedPacket("RTP: extension is cut")
        if profile == ONE_BYTE_PROFILE:
            _read_one_byte(data, start, offset, extensions)
        elif profile & 0xFFF0 == TWO_BYTE_PROFILE:
            _read_two_byte(data, start, offset, extensions)
    end = size
    if first & 0x20:
        padding = data[-1]
        if not 0 < padding <= size - offset:
            raise MalformedPacket("RTP: padding does not fit")
        end -= padding
    return RtpPacket(
        second & 0x7F, second >= 0x80, sequence, timestamp, ssrc, data[offset:end], csrcs, extensions
    )


def write_rtp(packet: RtpPacket) -> bytes:
    """The bytes of ``packet``. Extensions take the one-byte form where it can hold them, else the two-byte.

    Raises ValueError for a field that its width on the wire cannot hold.
    """
    if len(packet.csrcs) > 15:
        raise ValueError("an RTP packet names at most 15 contributing sources")
    first = 0x80 | len(packet.csrcs) | (0x10 if packet.extensions else 0)
    try:
        header = _FIXED.pack(
            first,
            _second_byte(packet.payload_type, packet.marker),
            packet.sequence,
            packet.timestamp,
            packet.ssrc,
        )
        if packet.csrcs:
            header += struct.pack(f"!{len(packet.csrcs)}I", *packet.csrcs)
    except struct.error as error:
        raise ValueError(f"RTP header field out of range: {error}") from error
    if packet.extensions:
        header += _write_extensions(packet.extensions)
    return header + packet.payload


def write_header(payload_type: int, marker: bool, sequence: int, timestamp: int, ssrc: int) -> bytes:
    """The 12 bytes before a payload that many receivers share; the fan-out's inner loop. No extensions."""
    return _FIXED.pack(0x80, payload_type | 0x80 if marker else payload_type, sequence, timestamp, ssrc)


def header_length(data: bytes) -> int:
    """Where the payload of a packet **that we wrote** begins."""
    length = HEADER_SIZE + 4 * (data[0] & 0x0F)
    if data[0] & 0x10:
        length += 4 + 4 * int.from_bytes(data[length + 2 : length + 4], "big")
    return length


def _second_byte(payload_type: int, marker: bool) -> int:
    if not 0 <= payload_type <= 127:
        raise ValueError("an RTP payload type has 7 bits")
    return payload_type | 0x80 if marker else payload_type


def _read_one_byte(data: bytes, position: int, end: int, into: dict[int, bytes]) -> None:
    """RFC 8285 section 4.2: 4 bits of identifier, 4 bits of length - 1."""
    head = data[position] if position + 4 == end else 0
    if 0x10 <= head < 0xF0 and not head & 0x0F and data[position + 2 : end] == b"\0\0":
        into[head >> 4] = data[position + 1 : position + 2]  # a level alone: what most voices say
        return
    while position < end:
        head = data[position]
        position += 1
        if head == 0:  # padding
            continue
        identifier = head >> 4
        if identifier in (0, 15):  # "terminates the processing of the extension"
            return
        stop = position + (head & 0x0F) + 1
        if stop > end:
            raise MalformedPacket("RTP: extension element is cut")
        into[identifier] = data[position:stop]
        position = stop


def _read_two_byte(data: bytes, position: int, end: int, into: dict[int, bytes]) -> None:
    """RFC 8285 section 4.3: a byte of identifier, a byte of length."""
    while position < end:
        identifier = data[position]
        position += 1
        if identifier == 0:  # padding
            continue
        stop = position + 1 + data[position] if position < end else end + 1
        if stop > end:
            raise MalformedPacket("RTP: extension element is cut")
        into[identifier] = data[position + 1 : stop]
        position = stop


def _write_extensions(extensions: dict[int, bytes]) -> bytes:
    body = bytearray()
    if all(0 < key < 15 and 1 <= len(value) <= 16 for key, value in extensions.items()):
        profile = ONE_BYTE_PROFILE
        for key, value in extensions.items():
            body.append(key << 4 | len(value) - 1)
            body += value
    elif all(0 < key < 256 and len(value) < 256 for key, value in extensions.items()):
        profile = TWO_BYTE_PROFILE
        for key, value in extensions.items():
            body += bytes((key, len(value)))
            body += value
    else:
        raise ValueError("RTP extension identifiers are 1-255 and elements at most 255 bytes")
    body += bytes(-len(body) % 4)
    if len(body) > 4 * 0xFFFF:
        raise ValueError("RTP extensions are too long together")
    return _EXTENSION.pack(profile, len(body) // 4) + bytes(body)
