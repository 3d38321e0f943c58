"""One track in a Matroska file that may be cut anywhere (RFC 9559; EBML is RFC 8794). Pure: frames in, bytes out.

The form is that of live WebM: header, information and track, then clusters of about a second, in a segment of
unknown size. A cluster says its own size, is written at once or not at all, and needs nothing that comes after it:
so what is on the disk plays, however the writing ended, and `scan` finds where the last whole cluster ends.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal

# RFC 9559 section 5.1, element identifiers as they are written
_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = b"\x18\x53\x80\x67"
_INFO: Final = b"\x15\x49\xa9\x66"
_TRACKS: Final = b"\x16\x54\xae\x6b"
_CLUSTER: Final = b"\x1f\x43\xb6\x75"
_TIMESTAMP: Final = 0xE7
_SIMPLE_BLOCK: Final = 0xA3
_UNKNOWN_SIZE: Final = b"\x01\xff\xff\xff\xff\xff\xff\xff"  # RFC 8794 section 6.2

MAX_CLUSTER_MS: Final = 30_000  # a block's time is 16 bits from its cluster's (RFC 9559 section 10.1)
_MAX_HEAD_BYTES: Final = 64 * 1024  # header, information, track: some hundred bytes of ours
_MAX_CLUSTER_BYTES: Final = 64 * 1024 * 1024  # a second is far below, a torn size mostly far above
_APP: Final = "mosaique"


@dataclass(frozen=True, slots=True)
class TrackForm:
    """What a track is. ``codec_id``, ``private``: RFC 9559 section 5.1.4.1.21 and the codec mappings.

    Pictures have ``width`` and ``height`` (pixels, of the first one), sound has ``rate_hz`` and ``channels``.
    ``seek_preroll_ns``: what a decoder must hear before a point that is sought.
    """

    media: Literal["audio", "video"]
    codec_id: str
    private: bytes = b""
    width: int = 0
    height: int = 0
    rate_hz: int = 0
    channels: int = 0
    seek_preroll_ns: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """One coded picture or sound packet at ``time_ms`` of the file."""

    time_ms: int
    data: bytes
    keyframe: bool


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a file stands: end of its last whole cluster in bytes, how many there are, time of its last block."""

    whole_bytes: int = 0
    clusters: int = 0
    blocks: int = 0
    last_ms: int = 0


def head(form: TrackForm, *, title: str, uid: int) -> bytes:
    """Everything before the first cluster. ``title``: whose track it is; ``uid``: not 0, another for each file."""
    ebml = _element(
        _EBML,
        _uint(b"\x42\x86", 1),
        _uint(b"\x42\xf7", 1),
        _uint(b"\x42\xf2", 4),
        _uint(b"\x42\xf3", 8),
        _element(b"\x42\x82", b"matroska"),
        _uint(b"\x42\x87", 4),
        _uint(b"\x42\x85", 2),
    )
    info = _element(
        _INFO,
        _uint(b"\x2a\xd7\xb1", 1_000_000),  # nanoseconds a tick: times are milliseconds
        _text(b"\x4d\x80", _APP),
        _text(b"\x57\x41", _APP),
        _text(b"\x7b\xa9", title),
    )
    entry = [
        _uint(b"\xd7", 1),
        _uint(b"\x73\xc5", uid),
        _uint(b"\x83", 1 if form.media == "video" else 2),
        _uint(b"\x9c", 0),  # no lacing
        _text(b"\x22\xb5\x9c", "und"),
        _text(b"\x53\x6e", title),
        _text(b"\x86", form.codec_id),
    ]
    if form.private:
        entry.append(_element(b"\x63\xa2", form.private))
    if form.seek_preroll_ns:
        entry.append(_uint(b"\x56\xbb", form.seek_preroll_ns))
    if form.media == "video":
        entry.append(_element(b"\xe0", _uint(b"\xb0", form.width), _uint(b"\xba", form.height)))
    else:
        rate = _element(b"\xb5", struct.pack(">d", form.rate_hz))
        entry.append(_element(b"\xe1", rate, _uint(b"\x9f", form.channels)))
    return ebml + _SEGMENT + _UNKNOWN_SIZE + info + _element(_TRACKS, _element(b"\xae", *entry))


def cluster(blocks: Sequence[Block]) -> bytes:
    """One cluster. ValueError without blocks, or when they span more than ``MAX_CLUSTER_MS``."""
    if not blocks:
        raise ValueError("a cluster has at least one block")
    start = blocks[0].time_ms
    if any(not 0 <= block.time_ms - start <= MAX_CLUSTER_MS for block in blocks):
        raise ValueError("the blocks of a cluster are in order, and within 30 s")
    return _element(_CLUSTER, _uint(bytes((_TIMESTAMP,)), start), *(_simple_block(b, start) for b in blocks))


def scan(file: BinaryIO) -> Extent:
    """Where a file of ours stands that may end anywhere, or in anything; never raises on its content.

    Reads the head and each cluster's first and last bytes; media is skipped block by block.
    """
    size = file.seek(0, 2)
    position = _behind_head(file, size)
    extent = Extent()
    while position is not None and position < size:
        element = _open(file, position, size)
        if (
            element is None
            or element[0] != int.from_bytes(_CLUSTER, "big")
            or element[2] > _MAX_CLUSTER_BYTES
        ):
            break
        _, start, length = element
        found = _account(file, start, length)
        if found is None:
            break
        position = start + length
        extent = Extent(position, extent.clusters + 1, extent.blocks + found[0], found[1])
    return extent


# --- reading


def _behind_head(file: BinaryIO, size: int) -> int | None:
    """The position behind the track's description; None when even that is torn."""
    position = 0
    wanted = [int.from_bytes(name, "big") for name in (_EBML, _SEGMENT, _INFO, _TRACKS)]
    for name in wanted:
        element = _open(file, position, size, segment=name == wanted[1])
        if element is None or element[0] != name:
            return None
        position = element[1] + element[2]
        if position > _MAX_HEAD_BYTES:
            return None
    return position


def _open(file: BinaryIO, position: int, size: int, *, segment: bool = False) -> tuple[int, int, int] | None:
    """The element at ``position``: identifier, where its content starts, its length; None unless all is there.

    ``segment``: its length is unknown, and counts as 0.
    """
    file.seek(position)
    data = file.read(12)
    name = _vint(data, 0, keep_marker=True)
    if name is None or name[1] > 4:
        return None
    length = _vint(data, name[1], keep_marker=False)
    if length is None:
        return None
    start = position + name[1] + length[1]
    if segment:
        return (name[0], start, 0) if data[name[1] : name[1] + length[1]] == _UNKNOWN_SIZE else None
    return (name[0], start, length[0]) if start + length[0] <= size else None


def _account(file: BinaryIO, start: int, length: int) -> tuple[int, int] | None:
    """Blocks in a cluster, and the time of the last; None when it is not sound."""
    end, position, base, blocks, last = start + length, start, None, 0, 0
    while position < end:
        element = _open(file, position, end)
        if element is None:
            return None
        name, at, size = element
        if name == _TIMESTAMP and base is None and 0 < size <= 8:
            file.seek(at)
            base = int.from_bytes(file.read(size), "big")
        elif name == _SIMPLE_BLOCK and base is not None and size >= 4:
            file.seek(at + 1)
            (relative,) = struct.unpack(">h", file.read(2))
            last = max(last, base + relative)
            blocks += 1
        else:
            return None
        position = at + size
    return (blocks, last) if blocks else None


def _vint(data: bytes, at: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """A variable-size integer (RFC 8794 section 4) and how many bytes it took."""
    if at >= len(data) or not data[at]:
        return None
    width = 9 - data[at].bit_length()
    if at + width > len(data):
        return None
    value = int.from_bytes(data[at : at + width], "big")
    return (value if keep_marker else value & ((1 << 7 * width) - 1)), width


# --- writing


def _simple_block(block: Block, start: int) -> bytes:
    flags = 0x80 if block.keyframe else 0  # RFC 9559 section 10.2
    header = struct.pack(">BhB", 0x81, block.time_ms - start, flags)
    return bytes((_SIMPLE_BLOCK,)) + _size(4 + len(block.data)) + header + block.data


def _element(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return name + _size(len(body)) + body


def _uint(name: bytes, value: int) -> bytes:
    return _element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _text(name: bytes, text: str) -> bytes:
    return _element(name, text.replace("\0", " ").encode("utf-8", "replace"))


def _size(length: int) -> bytes:
    """RFC 8794 section 6: the shortest form; all ones would mean unknown."""
    width = 1
    while length >= (1 << 7 * width) - 1:
        width += 1
    return (length | 1 << 7 * width).to_bytes(width, "big")
