"""RTCP: reports (RFC 3550 section 6), feedback (RFC 4585, RFC 5104), REMB (draft-alvestrand-rmcat-remb-03),
transport-wide feedback (`mixer.rtp.twcc`).

Compound and reduced-size (RFC 5506) packets alike. Types and formats that we don't know are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mixer.errors import MalformedPacket
from mixer.rtp.twcc import TransportFeedback, read_feedback, write_feedback

SR: Final = 200  # RFC 3550 section 12.1
RR: Final = 201
SDES: Final = 202
BYE: Final = 203
RTPFB: Final = 205  # RFC 4585 section 6.1
PSFB: Final = 206
FMT_NACK: Final = 1  # RFC 4585 section 6.2.1
FMT_TRANSPORT_CC: Final = 15  # draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1
FMT_TMMBR: Final = 3  # RFC 5104 section 4.2.1
FMT_PLI: Final = 1  # RFC 4585 section 6.3.1
FMT_FIR: Final = 4  # RFC 5104 section 4.3.1
FMT_ALFB: Final = 15  # RFC 4585 section 6.4: application layer feedback, where REMB lives
SDES_CNAME: Final = 1  # RFC 3550 section 6.5.1

_REMB: Final = b"REMB"
_MAX_COUNT: Final = 31  # five bits
_BLOCK = struct.Struct("!IIIIII")
_SENDER = struct.Struct("!IQIII")
_PAIR = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """RFC 3550 section 6.4.1. ``fraction_lost`` in 1/256; ``packets_lost`` signed 24 bit; ``jitter`` in units
    of the RTP clock; ``last_sr`` the middle 32 bits of the NTP time; ``delay_since_last_sr`` in 1/65536 s.
    """

    ssrc: int
    fraction_lost: int
    packets_lost: int
    highest_sequence: int
    jitter: int
    last_sr: int
    delay_since_last_sr: int


@dataclass(frozen=True, slots=True)
class SenderReport:
    """RFC 3550 section 6.4.1. ``ntp_time``: seconds since 1900, 32.32 fixed point; ``rtp_time``: the same
    instant on the RTP clock.
    """

    ssrc: int
    ntp_time: int
    rtp_time: int
    packet_count: int
    octet_count: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """RFC 3550 section 6.4.2. Without reports it only keeps the path open."""

    ssrc: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class SdesChunk:
    """The items of one source: pairs of type and text as bytes (UTF-8 by the RFC, unchecked)."""

    ssrc: int
    items: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """RFC 3550 section 6.5."""

    chunks: tuple[SdesChunk, ...]

    @classmethod
    def of(cls, ssrc: int, cname: str) -> SourceDescription:
        """The one that every compound packet carries: a source's CNAME."""
        return cls((SdesChunk(ssrc, ((SDES_CNAME, cname.encode()),)),))


@dataclass(frozen=True, slots=True)
class Bye:
    """RFC 3550 section 6.6. It ends an SSRC, not a participant: browsers send it when a track is replaced."""

    ssrcs: tuple[int, ...]
    reason: bytes = b""


@dataclass(frozen=True, slots=True)
class Nack:
    """Generic NACK, RFC 4585 section 6.2.1. ``lost``: 16-bit sequence numbers, any order on writing."""

    sender_ssrc: int
    media_ssrc: int
    lost: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PictureLossIndication:
    """RFC 4585 section 6.3.1."""

    sender_ssrc: int
    media_ssrc: int


@dataclass(frozen=True, slots=True)
class FullIntraRequest:
    """RFC 5104 section 4.3.1. ``entries``: pairs of media SSRC and command sequence number (8 bit)."""

    sender_ssrc: int
    entries: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ReceiverEstimatedMaxBitrate:
    """REMB. ``bitrate_bps`` is rounded down to 18 significant bits on the wire."""

    bitrate_bps: int
    ssrcs: tuple[int, ...]
    sender_ssrc: int = 0


@dataclass(frozen=True, slots=True)
class TemporaryMaxBitrateRequest:
    """TMMBR, RFC 5104 section 4.2.1. ``entries``: media SSRC, bits a second (rounded down to 17 significant bits),
    overhead in bytes a packet (9 bit).
    """

    sender_ssrc: int
    entries: tuple[tuple[int, int, int], ...]


RtcpPacket = (
    SenderReport
    | ReceiverReport
    | SourceDescription
    | Bye
    | Nack
    | PictureLossIndication
    | FullIntraRequest
    | ReceiverEstimatedMaxBitrate
    | TransportFeedback
    | TemporaryMaxBitrateRequest
)


def parse_rtcp(data: bytes) -> list[RtcpPacket]:
    """Read a datagram of RTCP packets from the network (untrusted). Raises MalformedPacket, nothing else."""
    packets: list[RtcpPacket] = []
    position, size = 0, len(data)
    if not size:
        raise MalformedPacket("RTCP: empty")
    while position < size:
        if size - position < 4:
            raise MalformedPacket("RTCP: header is cut")
        first, kind, words = struct.unpack_from("!BBH", data, position)
        end = position + 4 + 4 * words
        if first >> 6 != 2:
            raise MalformedPacket("RTCP: version is not 2")
        if end > size:
            raise MalformedPacket("RTCP: packet is cut")
        body = data[position + 4 : end]
        if first & 0x20:
            if end != size or not body or not 0 < body[-1] <= len(body):
                raise MalformedPacket("RTCP: padding does not fit or is not in the last packet")
            body = body[: -body[-1]]
        if (packet := _read(kind, first & 0x1F, body)) is not None:
            packets.append(packet)
        position = end
    return packets


def write_rtcp(packets: Iterable[RtcpPacket]) -> bytes:
    """The bytes of a compound packet. Put a report first and the CNAME second (RFC 3550 section 6.1).

    Raises ValueError for a field that its width on the wire cannot hold.
    """
    try:
        return b"".join(_write(packet) for packet in packets)
    except struct.error as error:
        raise ValueError(f"RTCP field out of range: {error}") from error


def _read(kind: int, count: int, body: bytes) -> RtcpPacket | None:
    match kind:
        case 200:
            return _read_sender_report(count, body)
        case 201:
            _need(body, 4)
            return ReceiverReport(int.from_bytes(body[:4], "big"), _read_blocks(count, body, 4))
        case 202:
            return _read_description(count, body)
        case 203:
            return _read_bye(count, body)
        case 205 | 206:
            return _read_feedback(kind, count, body)
        case _:
            return None


def _read_sender_report(count: int, body: bytes) -> SenderReport:
    _need(body, _SENDER.size)
    ssrc, ntp, rtp, packets, octets = _SENDER.unpack_from(body)
    return SenderReport(ssrc, ntp, rtp, packets, octets, _read_blocks(count, body, _SENDER.size))


def _read_blocks(count: int, body: bytes, offset: int) -> tuple[ReportBlock, ...]:
    """What follows the blocks is a profile's extension (RFC 3550 section 6.4.3): skipped."""
    _need(body, offset + count * _BLOCK.size)
    blocks = []
    for index in range(count):
        ssrc, lost, highest, jitter, last, delay = _BLOCK.unpack_from(body, offset + index * _BLOCK.size)
        signed = ((lost & 0xFFFFFF) ^ 0x800000) - 0x800000
        blocks.append(ReportBlock(ssrc, lost >> 24, signed, highest, jitter, last, delay))
    return tuple(blocks)


def _read_description(count: int, body: bytes) -> SourceDescription:
    chunks: list[SdesChunk] = []
    position = 0
    for _ in range(count):
        _need(body, position + 5)
        ssrc = int.from_bytes(body[position : position + 4], "big")
        start = position
        position += 4
        items: list[tuple[int, bytes]] = []
        while True:
            _need(body, position + 1)
            kind = body[position]
            if kind == 0:  # end of the chunk, padded to the next 32-bit border
                position += 4 - (position - start) % 4
                break
            _need(body, position + 2)
            stop = position + 2 + body[position + 1]
            _need(body, stop)
            items.append((kind, body[position + 2 : stop]))
            position = stop
        _need(body, position)
        chunks.append(SdesChunk(ssrc, tuple(items)))
    return SourceDescription(tuple(chunks))


def _read_bye(count: int, body: bytes) -> Bye:
    _need(body, 4 * count)
    reason = b""
    if len(body) > 4 * count:
        stop = 4 * count + 1 + body[4 * count]
        _need(body, stop)
        reason = body[4 * count + 1 : stop]
    return Bye(struct.unpack_from(f"!{count}I", body), reason)


def _read_feedback(kind: int, form: int, body: bytes) -> RtcpPacket | None:
    _need(body, 8)
    sender, media = _PAIR.unpack_from(body)
    read = _read_transport_feedback if kind == RTPFB else _read_payload_feedback
    return read(form, sender, media, body)


def _read_transport_feedback(form: int, sender: int, media: int, body: bytes) -> RtcpPacket | None:
    match form:
        case 1:
            return _read_nack(sender, media, body)
        case 3:
            return _read_tmmbr(sender, body)
        case 15:
            return read_feedback(sender, media, body[8:])
        case _:
            return None


def _read_payload_feedback(form: int, sender: int, media: int, body: bytes) -> RtcpPacket | None:
    if form == FMT_PLI:
        return PictureLossIndication(sender, media)
    if form == FMT_FIR:
        if (len(body) - 8) % 8:
            raise MalformedPacket("RTCP: FIR entry is cut")
        entries = (_PAIR.unpack_from(body, offset) for offset in range(8, len(body), 8))
        return FullIntraRequest(sender, tuple((ssrc, command >> 24) for ssrc, command in entries))
    if form == FMT_ALFB and body[8:12] == _REMB:
        return _read_remb(sender, body)
    return None


def _read_nack(sender: int, media: int, body: bytes) -> Nack:
    if (len(body) - 8) % 4:
        raise MalformedPacket("RTCP: NACK entry is cut")
    lost: list[int] = []
    for offset in range(8, len(body), 4):
        first, following = struct.unpack_from("!HH", body, offset)
        lost.append(first)
        lost.extend((first + 1 + bit) & 0xFFFF for bit in range(16) if following >> bit & 1)
    return Nack(sender, media, tuple(lost))


def _read_tmmbr(sender: int, body: bytes) -> TemporaryMaxBitrateRequest:
    if (len(body) - 8) % 8:
        raise MalformedPacket("RTCP: TMMBR entry is cut")
    entries = (_PAIR.unpack_from(body, offset) for offset in range(8, len(body), 8))
    return TemporaryMaxBitrateRequest(
        sender, tuple((ssrc, (word >> 9 & 0x1FFFF) << (word >> 26), word & 0x1FF) for ssrc, word in entries)
    )


def _read_remb(sender: int, body: bytes) -> ReceiverEstimatedMaxBitrate:
    _need(body, 16)
    count = body[12]
    _need(body, 16 + 4 * count)
    packed = int.from_bytes(body[13:16], "big")
    bitrate_bps = (packed & 0x3FFFF) << (packed >> 18)
    return ReceiverEstimatedMaxBitrate(bitrate_bps, struct.unpack_from(f"!{count}I", body, 16), sender)


def _need(body: bytes, size: int) -> None:
    if len(body) < size:
        raise MalformedPacket("RTCP: body is cut")


def _write(packet: RtcpPacket) -> bytes:  # noqa: PLR0911 - one line a packet type
    match packet:
        case SenderReport(ssrc, ntp, rtp, packet_count, octets, reports):
            body = _SENDER.pack(ssrc, ntp, rtp, packet_count, octets) + _write_blocks(reports)
            return _frame(SR, len(reports), body)
        case ReceiverReport(ssrc, reports):
            return _frame(RR, len(reports), struct.pack("!I", ssrc) + _write_blocks(reports))
        case SourceDescription(chunks):
            return _frame(SDES, len(chunks), b"".join(_write_chunk(chunk) for chunk in chunks))
        case Bye(ssrcs, reason):
            text = bytes((len(reason),)) + reason if reason else b""
            return _frame(BYE, len(ssrcs), struct.pack(f"!{len(ssrcs)}I", *ssrcs) + text)
        case Nack(sender, media, lost):
            return _frame(RTPFB, FMT_NACK, _PAIR.pack(sender, media) + _write_lost(lost))
        case PictureLossIndication(sender, media):
            return _frame(PSFB, FMT_PLI, _PAIR.pack(sender, media))
        case FullIntraRequest(sender, entries):
            commands = b"".join(_PAIR.pack(ssrc, (command & 0xFF) << 24) for ssrc, command in entries)
            return _frame(PSFB, FMT_FIR, _PAIR.pack(sender, 0) + commands)
        case ReceiverEstimatedMaxBitrate(bitrate_bps, ssrcs, sender):
            return _frame(PSFB, FMT_ALFB, _PAIR.pack(sender, 0) + _write_remb(bitrate_bps, ssrcs))
        case TransportFeedback(sender, media):
            return _frame(RTPFB, FMT_TRANSPORT_CC, _PAIR.pack(sender, media) + write_feedback(packet))
        case TemporaryMaxBitrateRequest(sender, limits):
            return _frame(RTPFB, FMT_TMMBR, _PAIR.pack(sender, 0) + b"".join(map(_write_limit, limits)))


def _frame(kind: int, count: int, body: bytes) -> bytes:
    if count > _MAX_COUNT:
        raise ValueError("an RTCP packet holds at most 31 reports, chunks or sources")
    body += bytes(-len(body) % 4)
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def _write_blocks(blocks: Sequence[ReportBlock]) -> bytes:
    return b"".join(
        _BLOCK.pack(
            block.ssrc,
            (block.fraction_lost & 0xFF) << 24 | block.packets_lost & 0xFFFFFF,
            block.highest_sequence,
            block.jitter,
            block.last_sr,
            block.delay_since_last_sr,
        )
        for block in blocks
    )


def _write_chunk(chunk: SdesChunk) -> bytes:
    data = struct.pack("!I", chunk.ssrc)
    for kind, text in chunk.items:
        data += struct.pack("!BB", kind, len(text)) + text
    return data + bytes(4 - len(data) % 4)  # at least one zero ends the chunk


def _write_lost(lost: Sequence[int]) -> bytes:
    """Sequence numbers as first + bits of the 16 that follow, across a wrap too."""
    data = b""
    pending = list(dict.fromkeys(number & 0xFFFF for number in lost))
    if pending:
        # Sorted by distance from the oldest in wrapping order, so that 65535, 0, 1 make one entry.
        base = pending[0]
        pending.sort(key=lambda number: (number - base + 0x8000) & 0xFFFF)
    while pending:
        first, rest, following = pending[0], [], 0
        for number in pending[1:]:
            distance = (number - first) & 0xFFFF
            if 1 <= distance <= 16:
                following |= 1 << (distance - 1)
            else:
                rest.append(number)
        data += struct.pack("!HH", first, following)
        pending = rest
    return data


def _write_limit(entry: tuple[int, int, int]) -> bytes:
    ssrc, bitrate_bps, overhead = entry
    exponent = max(0, bitrate_bps.bit_length() - 17)
    if bitrate_bps < 0 or exponent > 63 or not 0 <= overhead <= 0x1FF:
        raise ValueError("TMMBR: bitrate or overhead out of range")
    return _PAIR.pack(ssrc, exponent << 26 | bitrate_bps >> exponent << 9 | overhead)


def _write_remb(bitrate_bps: int, ssrcs: Sequence[int]) -> bytes:
    exponent = max(0, bitrate_bps.bit_length() - 18)
    if bitrate_bps < 0 or exponent > 63 or len(ssrcs) > 255:
        raise ValueError("REMB: bitrate or list of sources out of range")
    packed = exponent << 18 | bitrate_bps >> exponent
    return _REMB + bytes((len(ssrcs),)) + packed.to_bytes(3, "big") + struct.pack(f"!{len(ssrcs)}I", *ssrcs)
