"""The boxes of a fragmented MP4 (ISO/IEC 14496-12), as far as a recorder must know them. Pure: bytes in,
facts out.

A recording is ``ftyp moov`` (the init segment), then fragments ``moof mdat``, one about each second. A
fragment is whole or it is not there: that is what makes the file playable wherever it is cut. `Splitter` cuts
what the muxer writes into those pieces; `scan` finds, in a file that a dead process left, where the last
whole piece ends and where media time stands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Literal

from recording.errors import BadPackage

VIDEO_TRACK: Final = 1  # track ids are given in the order in which `recording.muxer` adds its streams
AUDIO_TRACK: Final = 2
_MAX_BOX_BYTES: Final = (
    256 * 1024 * 1024
)  # a second of media is far below; a torn length is usually far above
_MAX_HEADER_BYTES: Final = 4 * 1024 * 1024  # moov and moof: about 20 bytes a sample
_NOT_SYNC: Final = 0x00010000  # sample_is_non_sync_sample (8.8.3.1)
_CONTAINERS: Final = {b"moov", b"trak", b"mdia", b"traf", b"moof"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A whole piece of the file: the init segment, or one fragment."""

    kind: Literal["init", "fragment"]
    data: bytes


class Splitter:
    """Cuts the muxer's byte stream into `Piece`s; holds back what is not whole (at most one fragment)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head = b""  # ftyp or moof, waiting for its moov or mdat

    def push(self, data: bytes) -> None:
        """Add what the muxer wrote."""
        self._buffer += data

    def take(self) -> Iterator[Piece]:
        """The pieces that have become whole."""
        while len(self._buffer) >= 8:
            size, kind = struct.unpack_from(">I4s", self._buffer)
            if size < 8:
                raise BadPackage(f"the muxer wrote a box {kind!r} of {size} bytes")
            if len(self._buffer) < size:
                return
            box = bytes(self._buffer[:size])
            del self._buffer[:size]
            if kind in {b"ftyp", b"moof"}:
                self._head = box
            elif kind in {b"moov", b"mdat"}:
                yield Piece("init" if kind == b"moov" else "fragment", self._head + box)
                self._head = b""
            # anything else is an index to byte positions of the muxer's own count: not true after a
            # continuation


@dataclass(slots=True)
class Tail:
    """Where a file stands: what is whole, and where each track's media ends.

    ``init_bytes``: size of the init segment, 0 when even that is torn. ``whole_bytes``: end of the last whole
    fragment. ``sequence``: number of the last fragment. ``ends``: media end by track id, in the track's
    timescale.
    """

    init_bytes: int = 0
    whole_bytes: int = 0
    fragments: int = 0
    sequence: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    samples: dict[int, int] = field(default_factory=dict)
    timescales: dict[int, int] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """Seconds from zero to the end of the longest track."""
        return max((end / self.timescales[track] for track, end in self.ends.items()), default=0.0)

    def end_s(self, track: int) -> float:
        """Seconds from zero to the end of ``track``; 0 when it has no samples."""
        return self.ends[track] / self.timescales[track] if track in self.ends else 0.0


def scan(file: BinaryIO, tail: Tail | None = None) -> Tail:
    """Read the headers of a recording that may end anywhere, or in anything; never raises on its content.

    Reads ``moov`` and every ``moof`` (about 0.5 kB a second of recording) and skips the media. ``tail``: what
    an earlier scan of the same, since then longer, file found: goes on from there, and changes it.
    """
    size = file.seek(0, 2)
    tail = tail or Tail()
    previous = b""
    for kind, start, length in _top_boxes(file, size, tail.whole_bytes):
        try:
            if kind == b"moov" and previous == b"ftyp":
                tail.timescales = _timescales(_read(file, start, length))
                tail.init_bytes = tail.whole_bytes = start + length
            elif kind == b"mdat" and previous == b"moof" and tail.init_bytes:
                head = _read(file, tail.whole_bytes, start - tail.whole_bytes)
                _account(tail, head)
                tail.whole_bytes = start + length
                tail.fragments += 1
            elif kind not in {b"ftyp", b"moof"}:
                break
        except (struct.error, KeyError, ValueError):
            break
        previous = kind
    return tail


@dataclass(frozen=True, slots=True)
class Fragment:
    """A fragment in its file: first byte, size, and when its pictures begin and end, in their track's timescale.
    ``key``: it begins with a keyframe."""

    start: int
    size: int
    begins: int
    ends: int
    key: bool


def picture_fragments(file: BinaryIO) -> tuple[int, int, list[Fragment]]:
    """Size of the init segment, ticks a second of the pictures, and all whole fragments that hold any. Never raises on
    the file's content; 0, 0 and nothing for a file that is none of ours."""
    size = file.seek(0, 2)
    init_bytes = timescale = moof = 0
    previous = b""
    found: list[Fragment] = []
    try:
        for kind, start, length in _top_boxes(file, size, 0):
            if kind == b"moov" and not init_bytes:
                timescale = _timescales(_read(file, start, length))[VIDEO_TRACK]
                init_bytes = start + length
            elif kind == b"moof":
                moof = start
            elif kind == b"mdat" and previous == b"moof" and init_bytes:
                pictures = _pictures(_read(file, moof, start - moof))
                if pictures is not None:
                    begins, ends, key = pictures
                    found.append(Fragment(moof, start + length - moof, begins, ends, key))
            previous = kind
    except (struct.error, KeyError, ValueError):
        return init_bytes, timescale, found
    return init_bytes, timescale, found


def _pictures(moof: bytes) -> tuple[int, int, bool] | None:
    """Begin and end of the pictures of a fragment, and whether the first one is a keyframe."""
    track = default = default_flags = begins = ends = 0
    key = False
    for kind, content in _boxes(moof):
        if kind == b"tfhd":
            track, default = _track_fragment_header(content)
            default_flags = _default_flags(content)
        elif track == VIDEO_TRACK and kind == b"tfdt":
            (begins,) = struct.unpack_from(">Q" if _version(content) == 1 else ">I", content, 4)
            ends = begins
        elif track == VIDEO_TRACK and kind == b"trun":
            if ends == begins:
                key = not _first_flags(content, default_flags) & _NOT_SYNC
            ends += _run(content, default)[1]
    return (begins, ends, key) if ends > begins else None


def _default_flags(tfhd: bytes) -> int:
    """The flags of samples that have none of their own (8.8.7)."""
    (flags,) = struct.unpack_from(">I", tfhd)
    if not flags & 0x20:
        return 0
    position = 8 + (8 if flags & 0x01 else 0) + sum(4 for bit in (0x02, 0x08, 0x10) if flags & bit)
    value: int = struct.unpack_from(">I", tfhd, position)[0]
    return value


def _first_flags(trun: bytes, default: int) -> int:
    """The flags of the first sample of a run (8.8.8)."""
    (flags,) = struct.unpack_from(">I", trun)
    position = 8 + (4 if flags & 0x01 else 0)
    if flags & 0x04:
        value: int = struct.unpack_from(">I", trun, position)[0]
        return value
    if flags & 0x400:
        own: int = struct.unpack_from(">I", trun, position + sum(4 for bit in (0x100, 0x200) if flags & bit))[
            0
        ]
        return own
    return default


def _top_boxes(file: BinaryIO, size: int, position: int) -> Iterator[tuple[bytes, int, int]]:
    """Whole top-level boxes (kind, start, length) from ``position`` until the file ends or stops making sense."""
    while position + 8 <= size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        limit = _MAX_BOX_BYTES if kind == b"mdat" else _MAX_HEADER_BYTES
        if not 8 <= length <= limit or position + length > size:
            return
        yield kind, position, length
        position += length


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every box in ``data``, containers opened, depth first: (kind, content after the 8-byte header)."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if length < 8 or position + length > len(data):
            raise ValueError("a box is longer than what holds it")
        content = data[position + 8 : position + length]
        yield kind, content
        if kind in _CONTAINERS:
            yield from _boxes(content)
        position += length


def _version(box: bytes) -> int:
    """Of a full box (4.2.2). Raises struct.error for one that has no room for it."""
    version: int = struct.unpack_from(">B", box)[0]
    return version


def _timescales(moov: bytes) -> dict[int, int]:
    """Ticks a second by track id, from ``tkhd`` (8.3.2) and ``mdhd`` (8.4.2)."""
    found: dict[int, int] = {}
    track = 0
    for kind, content in _boxes(moov):
        if kind == b"tkhd":
            (track,) = struct.unpack_from(">I", content, 20 if _version(content) == 1 else 12)
        elif kind == b"mdhd":
            (found[track],) = struct.unpack_from(">I", content, 20 if _version(content) == 1 else 12)
    if not found or 0 in found or 0 in found.values():
        raise ValueError("a movie without tracks")
    return found


def _account(tail: Tail, moof: bytes) -> None:
    """Add one fragment's header to ``tail``: all of it, or nothing when it is not sound."""
    sequence, track, default, base = 0, 0, 0, 0
    ends, samples = dict(tail.ends), dict(tail.samples)
    for kind, content in _boxes(moof):
        if kind == b"mfhd":
            (sequence,) = struct.unpack_from(">I", content, 4)
        elif kind == b"tfhd":
            track, default = _track_fragment_header(content)
            tail.timescales[track]  # an unknown track is a KeyError: not our file
        elif kind == b"tfdt":
            (base,) = struct.unpack_from(">Q" if _version(content) == 1 else ">I", content, 4)
        elif kind == b"trun":
            count, duration = _run(content, default)
            base += duration
            ends[track] = max(ends.get(track, 0), base)
            samples[track] = samples.get(track, 0) + count
    if sequence <= tail.sequence:
        raise ValueError("fragments out of order")
    tail.sequence, tail.ends, tail.samples = sequence, ends, samples


def _track_fragment_header(content: bytes) -> tuple[int, int]:
    """Track id and default sample duration (8.8.7)."""
    flags, track = struct.unpack_from(">II", content)
    position = 8 + (8 if flags & 0x01 else 0) + (4 if flags & 0x02 else 0)
    default = struct.unpack_from(">I", content, position)[0] if flags & 0x08 else 0
    return track, default


def _run(content: bytes, default: int) -> tuple[int, int]:
    """Number of samples and their summed duration (8.8.8)."""
    flags, count = struct.unpack_from(">II", content)
    position = 8 + (4 if flags & 0x01 else 0) + (4 if flags & 0x04 else 0)
    if not flags & 0x100:
        return count, count * default
    step = 4 * (flags >> 8 & 0xF).bit_count()
    if position + step * count > len(content):
        raise ValueError("a run is longer than its box")
    return count, sum(struct.unpack_from(">I", content, position + step * n)[0] for n in range(count))
