"""Long recordings in fast time: real boxes, whose pictures are noise. What the archive moves, not what it shows."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from recording import package
from recording.durable import AppendFile, WriterLock
from recording.fragments import Piece
from recording.keys import rfc3339
from recording.muxer import AudioFormat, FragmentedMp4
from recording.timeline import TimelineEvent, write_line
from recording.writer import MediaForm, media_on_disk, summarize
from tests.recording.media import FPS, HEIGHT, WIDTH, clip


class LongFilm:
    """A package in the spool that grows by fragments of a second, ``fragment_bytes`` each.

    The boxes are those of a real clip; each fragment has its own number, and noise in its ``mdat``.
    """

    def __init__(self, directory: Path, *, fragment_bytes: int = 200_000, seed: int = 1) -> None:
        self.directory = directory
        (directory / "data").mkdir(parents=True, exist_ok=True)
        self.lock = WriterLock(directory / package.LOCK)  # live, for whoever asks
        self._noise = random.Random(seed).randbytes(fragment_bytes + 4096)
        self._random = random.Random(seed)
        self._size = fragment_bytes
        init, self._moof = _template()
        self.file = AppendFile(directory / package.MEDIA, keep_bytes=0, max_pending_bytes=1 << 24)
        self.file.append(init, sync=False)
        self.seconds = 0
        package.write_model(
            directory / package.ANCHOR,
            package.Anchor(started=rfc3339(1_800_000_000), width=WIDTH, height=HEIGHT, fps=FPS),
        )

    def grow(self, seconds: int) -> None:
        """Append so many fragments; in the page cache, which is the uploader's to sync."""
        for _ in range(seconds):
            self.seconds += 1
            at = self._random.randrange(4096)
            media = self._noise[at : at + self._size]
            moof = bytearray(self._moof)
            struct.pack_into(">I", moof, moof.index(b"mfhd") + 8, self.seconds)
            self.file.append(bytes(moof) + struct.pack(">I4s", len(media) + 8, b"mdat") + media, sync=False)

    def die(self, torn: bytes = b"") -> None:
        """As a process that is killed: ``torn`` is what it had written of its next fragment."""
        with (self.directory / package.MEDIA).open("ab") as file:
            file.write(torn)
        self.file.close()
        self.lock.release()

    def close(self) -> package.Summary:
        """As the recorder closes it."""
        (self.directory / package.TIMELINE).write_bytes(
            write_line(TimelineEvent(0.0, "join", {"participant": "p1", "name": "Ann"}))
            + write_line(TimelineEvent(float(self.seconds), "end"))
        )
        self.file.sync()
        summary = summarize(
            MediaForm(WIDTH, HEIGHT, FPS), media_on_disk(self.directory),
            started_s=1_800_000_000, ended_s=1_800_000_000 + self.seconds, sha256=self.file.sha256(), reason="",
        )  # fmt: skip
        self.file.close()
        package.write_model(self.directory / package.CLOSED, summary)
        self.lock.release()
        return summary


class _Pieces:
    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def write_piece(self, piece: Piece) -> None:
        self.pieces.append(piece)


def _template() -> tuple[bytes, bytes]:
    """An init segment, and a fragment's ``moof``."""
    film, sink = clip(3), _Pieces()
    muxer = FragmentedMp4(sink, keyframe=film.video[0][0], fps=FPS, audio=AudioFormat.parse(film.extradata))
    for kind, data, pts, keyframe in film.merged():
        if kind == "video":
            muxer.write_video(data, pts, keyframe=keyframe)
        else:
            muxer.write_audio(data, pts)
    muxer.close()
    init, fragment = sink.pieces[0].data, sink.pieces[1].data
    (size,) = struct.unpack_from(">I", fragment)
    return init, fragment[:size]
