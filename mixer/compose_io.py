"""Files as the composer sees them: pictures and sound by the second."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import av
import numpy as np

from mixer.audio.mix import Pcm
from mixer.errors import MosaiqueError
from mixer.media import AUDIO_CLOCK_HZ, FRAME_SAMPLES
from mixer.video.compositor import placement
from mixer.video.layout import Tile
from mixer.video.loopfilter import KEYFRAME_S, SMALL
from mixer.video.scaler import Scaler

# Of each input so many pictures are decoded in one go: its reference pictures stay in the processor's caches.
# Nine of 720p: 6.9 ms a tick one by one, 6.1 four by four, 5.4 sixteen by sixteen.
_BATCH_TICKS: Final = 16
_BATCH_BYTES: Final = 24 << 20  # of pictures that wait, twice: half of a desktop processor's last cache
_GAP_S: Final = 0.1  # a hole in a sound track larger than any encoder's padding


class ComposeFailed(MosaiqueError):
    """An input that cannot be read at all, or an output that cannot be written."""

    code = "compose-failed"


@dataclass(frozen=True, slots=True)
class Composed:
    """What was written: length in seconds, pictures, and inputs that broke off early (name → reason)."""

    duration_s: float
    frames: int
    broken: dict[str, str]


# --- inputs


def open_input(path: Path) -> av.container.InputContainer:
    """Raises ``ComposeFailed`` when it is no media file."""
    try:
        return av.open(str(path), "r")
    except (av.FFmpegError, OSError) as error:
        raise ComposeFailed(f"{path} cannot be read: {error}") from error


def _start_s(container: av.container.InputContainer) -> float:
    return float((container.start_time or 0) / av.time_base)


class VideoInput:
    """The pictures of one file, in order, by the second. ``tile``: where they are shown, when that is known before the
    first ``advance`` and does not change: they then come in its size, small ones for less (``mixer.video.loopfilter``).
    """

    def __init__(self, path: Path) -> None:
        self._container = open_input(path)
        self._start = _start_s(self._container)
        streams = self._container.streams.video
        self.tile: Tile | None = None
        self._scaler = Scaler()
        self._size = (streams[0].width, streams[0].height) if streams else (0, 0)
        self.duration_s = float((self._container.duration or 0) / av.time_base)
        """What the container announces, 0.0 if nothing."""
        self.has_sound = bool(self._container.streams.audio)
        self.broken: str | None = None
        self._frames: Iterator[av.VideoFrame] = self._decode(streams[0]) if streams else iter(())
        self._next: av.VideoFrame | None = None
        self._fetch()
        self.has_pictures: Final = self._next is not None

    @property
    def ended(self) -> bool:
        """No picture is left after the one that ``advance`` gave last."""
        return self._next is None

    def advance(self, until_s: float) -> av.VideoFrame | None:
        """The newest picture up to ``until_s``; None when there is none newer than the last one given."""
        newest = None
        while self._next is not None and (self._next.time or 0.0) - self._start <= until_s:
            newest = self._next
            self._fetch()
        return newest if newest is None or self.tile is None else self._fitted(newest, self.tile)

    @property
    def picture_bytes(self) -> int:
        """How large the pictures of ``advance`` are, about."""
        width, height = self._size if self.tile is None else (self.tile.width, self.tile.height)
        return width * height * 3 // 2

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _fitted(self, frame: av.VideoFrame, tile: Tile) -> av.VideoFrame:
        """Scaled at once, while the caches still hold it: 0.24 ms where it takes 0.33 later."""
        place = placement(frame.width, frame.height, tile.width, tile.height, tile.fit)
        try:
            return self._scaler.fitted(frame, place)
        except (av.FFmpegError, ValueError, MemoryError):
            return frame  # the scene finds out, too, and counts it

    def _decode(self, stream: av.video.stream.VideoStream) -> Iterator[av.VideoFrame]:
        # One thread of bytecode and one of codecs: frame threads of nine decoders only cost.
        stream.codec_context.thread_count = 1
        if stream.codec_context.name == "vp8":
            return self._decode_vp8(stream)
        return self._container.decode(stream)

    def _decode_vp8(self, stream: av.video.stream.VideoStream) -> Iterator[av.VideoFrame]:
        decoder, keyframe_s, sparse = _vp8(skip_loop_filter=False), 0.0, False
        first: av.Packet[av.video.stream.VideoStream] | None = None  # decoded before the tile was known
        for packet in self._container.demux(stream):
            if packet.is_keyframe:
                at_s = float(packet.pts * packet.time_base) if packet.pts is not None else keyframe_s
                # Nobody can be asked for a keyframe here: a file that has too few of them keeps its filter.
                sparse, keyframe_s = sparse or at_s - keyframe_s > KEYFRAME_S, at_s
                decoder = _vp8(skip_loop_filter=self._is_small and not sparse)
                first = packet if self.tile is None else None
            elif first is not None:
                if self._is_small:
                    decoder = _vp8(skip_loop_filter=True)
                    decoder.decode(first)
                first = None
            yield from decoder.decode(packet)

    @property
    def _is_small(self) -> bool:
        return self.tile is not None and self.tile.width <= SMALL * self._size[0]

    def _fetch(self) -> None:
        try:
            self._next = next(self._frames, None)
        except av.FFmpegError as error:
            self._next, self.broken = None, str(error)


def _vp8(*, skip_loop_filter: bool) -> av.VideoCodecContext:
    decoder: av.VideoCodecContext = av.CodecContext.create("vp8", "r")
    decoder.thread_count = 1
    if skip_loop_filter:
        decoder.options = {"skip_loop_filter": "nokey"}
    return decoder


class AudioInput:
    """The first sound track of a file as mono 48 kHz; silence where it has none.

    It reads the file a second time, beside the pictures: whichever is ahead, nothing piles up.
    """

    def __init__(self, path: Path) -> None:
        self._container = open_input(path)
        self._start = _start_s(self._container)
        self._chunks = self._decode(self._container.streams.audio[0])
        self._waiting: Pcm = np.empty(0, np.float32)
        self.broken: str | None = None
        self.ended = False

    def read(self) -> Pcm:
        """The next 960 samples."""
        while len(self._waiting) < FRAME_SAMPLES and not self.ended:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.ended = True
            else:
                self._waiting = np.concatenate((self._waiting, chunk))
        frame = self._waiting[:FRAME_SAMPLES]
        self._waiting = self._waiting[FRAME_SAMPLES:]
        return np.pad(frame, (0, FRAME_SAMPLES - len(frame)))

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _decode(self, stream: Any) -> Iterator[Pcm]:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=AUDIO_CLOCK_HZ)
        position_s = 0.0
        try:
            for frame in self._container.decode(stream):
                gap_s = (position_s if frame.time is None else frame.time - self._start) - position_s
                if gap_s > _GAP_S:
                    yield np.zeros(round(gap_s * AUDIO_CLOCK_HZ), np.float32)
                    position_s += gap_s
                position_s += frame.samples / frame.sample_rate
                frame.pts = None
                yield from self._samples(resampler, frame)
            yield from self._samples(resampler, None)
        except av.FFmpegError as error:
            self.broken = str(error)

    @staticmethod
    def _samples(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> Iterator[Pcm]:
        for part in resampler.resample(frame):
            yield part.to_ndarray()[0].astype(np.float32, copy=False)


# --- decoding ahead


@dataclass(slots=True)
class Tick:
    """New pictures of one tick by input, and which inputs have shown their last one."""

    frames: list[av.VideoFrame | None]
    ended: list[bool]


class Pictures(Protocol):
    """What can be decoded ahead: `VideoInput`, and a recording's tracks."""

    @property
    def ended(self) -> bool: ...

    @property
    def picture_bytes(self) -> int: ...

    def advance(self, until_s: float) -> av.VideoFrame | None: ...


class Ahead:
    """Decodes in advance on a thread of its own, a batch of ticks at a time: one is taken, one waits, one is made."""

    def __init__(self, inputs: Sequence[Pictures], fps: int) -> None:
        self._inputs = inputs
        self._fps = fps
        tick_bytes = sum(source.picture_bytes for source in inputs)
        self._ticks = max(1, min(_BATCH_TICKS, _BATCH_BYTES // max(1, tick_bytes)))
        self._taken: Iterator[Tick] = iter(())
        self._ready: queue.Queue[list[Tick] | BaseException] = queue.Queue(1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def take(self) -> Tick:
        """The next tick; after the last picture, ticks without any."""
        tick = next(self._taken, None)
        while tick is None:
            batch = self._ready.get()
            if isinstance(batch, BaseException):
                raise batch
            self._taken = iter(batch)
            tick = next(self._taken, None)
        return tick

    def close(self) -> None:
        """End the thread; it must be over before the inputs are closed."""
        self._stopping.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _run(self) -> None:
        index = 0
        try:
            while not self._stopping.is_set():
                columns = [self._column(source, index) for source in self._inputs]
                # by number, not by `zip`: a recording of voices alone has ticks, too
                rows = [[column[tick] for column in columns] for tick in range(self._ticks)]
                self._ready.put(
                    [Tick([frame for frame, _ in row], [ended for _, ended in row]) for row in rows]
                )
                index += self._ticks
        except BaseException as error:  # it is raised again where the pictures are awaited
            self._ready.put(error)

    def _column(self, source: Pictures, index: int) -> list[tuple[av.VideoFrame | None, bool]]:
        """One input's pictures of a batch; whether it had ended before each."""
        column = []
        for tick in range(index, index + self._ticks):
            ended = source.ended
            # Half a tick of tolerance: clips in milliseconds (Matroska) say 0.033 for 1/30.
            column.append((source.advance((tick + 0.5) / self._fps), ended))
        return column
