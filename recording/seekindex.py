"""The index that lets a player seek in a fragmented film over HTTP: a segment index box (ISO/IEC 14496-12, 8.16.3).

Fragments say what they hold, and nothing at the front says where they are: a browser that opens an hour of film reads
all of it before it can show a second (measured with Chromium: 573 MB, with an index 2 MB). An index at the front would
have to be written before there is anything to list, and one at the end (``mfra``) no browser looks at. So the film is
sealed as it was recorded, the index lies beside it in the package, and who plays it gets the two as one: `Inset`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from recording.fragments import VIDEO_TRACK, picture_fragments

INIT_BYTES_MAX: Final = 64 * 1024  # ours is some 1.5 kB
MAX_REFERENCES: Final = 0xFFFF  # the count has 16 bits: past 18 hours an entry is two fragments, and so on
_SAP_1: Final = 0x90000000  # starts with a stream access point of type 1: a keyframe


def segment_index(film: Path) -> bytes:
    """The ``sidx`` box of a film, to stand right after its init segment; empty when it has no fragments."""
    with film.open("rb") as file:
        _, timescale, found = picture_fragments(file)
    if not found:
        return b""
    # An entry lasts until the next one begins, also over a gap, so that all of them add up.
    marks = [found[0]]
    for one in found[1:]:
        if one.begins > marks[-1].begins:
            marks.append(one)
    step = -(-len(marks) // MAX_REFERENCES)
    marks = marks[::step]
    ends = [
        *((b.start, b.begins) for _, b in pairwise(marks)),
        (found[-1].start + found[-1].size, found[-1].ends),
    ]
    content = struct.pack(">III", 1 << 24, VIDEO_TRACK, timescale)
    content += struct.pack(">QQHH", marks[0].begins, 0, 0, len(marks))
    for mark, (end, until) in zip(marks, ends, strict=True):
        content += struct.pack(">III", end - mark.start, until - mark.begins, _SAP_1 if mark.key else 0)
    return struct.pack(">I4s", 8 + len(content), b"sidx") + content


@dataclass(frozen=True, slots=True)
class Inset:
    """A file with some bytes put in: ``put_in`` at ``at``, ``size`` of the whole."""

    at: int
    put_in: bytes
    size: int

    @classmethod
    def make(cls, head: bytes, index: bytes, size: int) -> Self | None:
        """``index`` after the init segment of the film that begins with ``head`` and has ``size`` bytes; None when
        there is no index or no init segment."""
        position = 0
        while index and position + 8 <= len(head):
            length, kind = struct.unpack_from(">I4s", head, position)
            position += length
            if length < 8:
                break
            if kind == b"moov" and position <= size:
                return cls(position, index, size + len(index))
        return None

    def read(
        self, read: Callable[[int, int | None], Iterator[bytes]], start: int, end: int | None
    ) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` of the whole, by way of ``read``, which reads a range of the file. As lazy as
        ``read`` is, but for its first call: that raises here when the file is not there."""
        stop = self.size if end is None else min(end, self.size)
        after = self.at + len(self.put_in)
        before = read(start, min(stop, self.at)) if start < self.at else iter(())
        rest = read(max(0, start - after) + self.at, stop - len(self.put_in)) if stop > after else iter(())
        return self._parts(before, self.put_in[max(0, start - self.at) : max(0, stop - self.at)], rest)

    @staticmethod
    def _parts(before: Iterator[bytes], inset: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
        yield from before
        if inset:
            yield inset
        yield from rest
