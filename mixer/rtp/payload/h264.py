"""H.264 in RTP (RFC 6184), packetization modes 0 and 1: single NAL units, STAP-A, FU-A.

Inside the product an H.264 picture is an Annex B byte stream with four-byte start codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from mixer.errors import MalformedPacket
from mixer.rtp.payload.picture import MAX_PAYLOAD, Picture, Start, cut

START_CODE: Final = b"\x00\x00\x00\x01"  # H.264 annex B

NON_IDR: Final = 1  # H.264 table 7-1
PARTITION_A: Final = 2
IDR: Final = 5
SEI: Final = 6
SPS: Final = 7
PPS: Final = 8
DELIMITER: Final = 9
FILLER: Final = 12
STAP_A: Final = 24  # RFC 6184 table 1
FU_A: Final = 28

_SLICES: Final = frozenset({NON_IDR, PARTITION_A, IDR})
_NOT_SENT: Final = frozenset({SEI, DELIMITER, FILLER})  # a WebRTC decoder needs none of them
_MAX_STORED: Final = 16  # parameter sets kept of each kind; real senders use one
_MAX_STORED_SIZE: Final = 1024  # bytes of one; real ones have 10 to 60


class H264Depacketizer:
    """Joins payloads to Annex B access units and remembers parameter sets.

    SPS and PPS that came in the SDP or in packets of their own are put before an IDR picture that lacks
    them, so that every keyframe that leaves here decodes on its own.

    ``parameter_sets``: such as `identify` knows. Raises MalformedPacket for others.
    """

    def __init__(self, parameter_sets: Sequence[bytes] = ()) -> None:
        self._sps: dict[int, bytes] = {}
        self._pps: dict[int, bytes] = {}
        for nal in parameter_sets:
            self._store(nal)

    def start(self, payload: bytes) -> Start:
        try:
            for nal, begins in _fragments(payload):
                kind = nal[0] & 0x1F
                if kind == SPS:
                    return Start.KEYFRAME
                first_slice = kind == IDR and begins and len(nal) > 1 and nal[1] & 0x80
                if first_slice and self._sps and self._pps:  # first_mb_in_slice = 0 is one set bit
                    return Start.PERHAPS
        except MalformedPacket:
            pass
        return Start.NO

    def assemble(self, payloads: Sequence[bytes]) -> Picture | None:
        nals = list(_nals(payloads))
        kinds = [nal[0] & 0x1F for nal in nals]
        for nal, kind in zip(nals, kinds, strict=True):
            if kind in (SPS, PPS):
                self._store(nal)
        if _SLICES.isdisjoint(kinds):
            return None
        keyframe = False
        if IDR in kinds:
            before = kinds[: kinds.index(IDR)]
            if PPS not in before:
                nals[:0] = self._pps.values()
            if SPS not in before:
                nals[:0] = self._sps.values()
            keyframe = bool(self._sps and self._pps)
        return Picture(b"".join(START_CODE + nal for nal in nals), keyframe)

    def _store(self, nal: bytes) -> None:
        kind, identifier = identify(nal)
        stored = self._sps if kind == SPS else self._pps
        if identifier not in stored and len(stored) >= _MAX_STORED:
            raise MalformedPacket("H264: too many parameter sets")
        stored[identifier] = nal


def identify(nal: bytes) -> tuple[int, int]:
    """`SPS` or `PPS`, and the identifier of such a parameter set (untrusted). Raises MalformedPacket."""
    if not nal or nal[0] & 0x80 or nal[0] & 0x1F not in (SPS, PPS):
        raise MalformedPacket("H264: not a parameter set")
    if len(nal) > _MAX_STORED_SIZE:
        raise MalformedPacket("H264: an oversized parameter set")
    kind = nal[0] & 0x1F
    return kind, _exp_golomb(nal, 4 if kind == SPS else 1)  # an SPS has profile, constraints, level before it


def packetize(frame: bytes, max_payload: int = MAX_PAYLOAD) -> list[bytes]:
    """Cut an Annex B access unit into payloads of packetization mode 1.

    Parameter sets travel together in a STAP-A, slices whole where they fit, else as FU-A of equal sizes.
    Delimiters, SEI and filler stay behind. Raises ValueError when there is no start code.
    """
    payloads: list[bytes] = []
    sets: list[bytes] = []
    for nal in split_annex_b(frame):
        kind = nal[0] & 0x1F
        if kind in _NOT_SENT:
            continue
        if kind in (SPS, PPS):
            sets.append(nal)
            continue
        payloads += _aggregate(sets, max_payload)
        sets = []
        payloads += [nal] if len(nal) <= max_payload else _fragment(nal, max_payload)
    return payloads + _aggregate(sets, max_payload)


def split_annex_b(frame: bytes) -> Iterator[bytes]:
    """The NAL units of a byte stream, without start codes and trailing zeros. ValueError without any."""
    position = frame.find(b"\x00\x00\x01")
    if position < 0 and frame:
        raise ValueError("not an H.264 Annex B byte stream: no start code")
    while position >= 0:
        begin = position + 3
        position = frame.find(b"\x00\x00\x01", begin)
        # A NAL unit never ends in a zero byte (H.264 section 7.4.1): zeros belong to the next start code.
        if nal := frame[begin : position if position >= 0 else len(frame)].rstrip(b"\x00"):
            yield nal


def _aggregate(nals: list[bytes], max_payload: int) -> list[bytes]:
    """RFC 6184 section 5.7.1; alone when there is but one or they don't fit together."""
    if len(nals) < 2 or 1 + sum(2 + len(nal) for nal in nals) > max_payload:
        pieces = ([nal] if len(nal) <= max_payload else _fragment(nal, max_payload) for nal in nals)
        return [payload for piece in pieces for payload in piece]
    importance = max(nal[0] & 0x60 for nal in nals)
    return [
        bytes((importance | STAP_A,)) + b"".join(len(nal).to_bytes(2, "big") + nal for nal in nals),
    ]


def _fragment(nal: bytes, max_payload: int) -> list[bytes]:
    """RFC 6184 section 5.8: indicator, header, and a part of the NAL unit without its own first byte."""
    indicator, kind = nal[0] & 0xE0 | FU_A, nal[0] & 0x1F
    pieces = cut(nal, max_payload - 2, 1)
    last = len(pieces) - 1
    return [
        bytes((indicator, kind | (0x80 if index == 0 else 0) | (0x40 if index == last else 0))) + piece
        for index, piece in enumerate(pieces)
    ]


def _nals(payloads: Sequence[bytes]) -> Iterator[bytes]:
    """The NAL units of one access unit (untrusted). Raises MalformedPacket."""
    unit: list[bytes] = []
    for payload in payloads:
        fragmented = bool(payload) and payload[0] & 0x1F == FU_A
        for part, begins in _fragments(payload):
            if begins == bool(unit):
                raise MalformedPacket("H264: a fragmented unit without its begin or its end")
            if not fragmented:
                if part[0] & 0x1F != FILLER:
                    yield part
                continue
            unit.append(part if begins else part[1:])
            if payload[1] & 0x40:
                yield b"".join(unit)
                unit = []
    if unit:
        raise MalformedPacket("H264: a fragmented unit without its end")


def _fragments(payload: bytes) -> Iterator[tuple[bytes, bool]]:
    """What one payload holds: NAL units or a part of one, with its header put back; does it begin here?

    The one reader of untrusted H.264 payloads. Raises MalformedPacket.
    """
    if not payload:
        raise MalformedPacket("H264: empty payload")
    kind = payload[0] & 0x1F
    if payload[0] & 0x80:
        raise MalformedPacket("H264: the forbidden bit is set")
    if 1 <= kind <= 23:
        yield payload, True
    elif kind == STAP_A:
        position, size = 1, len(payload)
        if size < 4:
            raise MalformedPacket("H264: an empty aggregate")
        while position < size:
            stop = position + 2 + int.from_bytes(payload[position : position + 2], "big")
            if stop > size or stop <= position + 2:
                raise MalformedPacket("H264: an aggregated unit is cut")
            nal = payload[position + 2 : stop]
            if not 1 <= nal[0] & 0x1F <= 23:
                raise MalformedPacket("H264: aggregates don't nest")
            yield nal, True
            position = stop
    elif kind == FU_A:
        if len(payload) < 3 or not 1 <= payload[1] & 0x1F <= 23:
            raise MalformedPacket("H264: an empty fragment")
        yield bytes((payload[0] & 0xE0 | payload[1] & 0x1F,)) + payload[2:], bool(payload[1] & 0x80)
    else:
        raise MalformedPacket("H264: a payload structure of modes that were not negotiated")


def _exp_golomb(nal: bytes, offset: int) -> int:
    """The ue(v) at byte ``offset`` (H.264 section 9.1); identifiers of parameter sets are below 256."""
    window = int.from_bytes(nal[offset : offset + 4].ljust(4, b"\x00"), "big")
    zeros = 32 - window.bit_length()
    if zeros > 8:
        raise MalformedPacket("H264: identifier of a parameter set out of range")
    return (window >> (31 - 2 * zeros)) - 1
