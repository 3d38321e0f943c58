"""Files as the composer sees them: pictures and sound by the second in, one composed file out."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol, cast

import av
import numpy as np

from mixer.audio.mix import Pcm
from mixer.errors import MosaiqueError
from mixer.media import AUDIO_CLOCK_HZ, FRAME_SAMPLES
from mixer.video.compositor import placement
from mixer.video.frame import frame_of
from mixer.video.layout import LayoutBody, Tile
from mixer.video.loopfilter import KEYFRAME_S, SMALL
from mixer.video.picture import Picture
from mixer.video.scaler import Scaler

# Of each input so many pictures are decoded in one go: its reference pictures stay in the processor's caches.
# Nine of 720p: 6.9 ms a tick one by one, 6.1 four by four, 5.4 sixteen by sixteen.
_BATCH_TICKS: Final = 16
_BATCH_BYTES: Final = 24 << 20  # of pictures that wait, twice: half of a desktop processor's last cache
_GAP_S: Final = 0.1  # a hole in a sound track larger than any encoder's padding
_AAC_FRAME: Final = 1024  # ISO/IEC 14496-3: samples of one AAC-LC frame
_AUDIO_BPS: Final = 96_000
CONTAINERS: Final = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_AVCOL_SPC_SMPTE170M: Final = 6  # BT.601, the canvas' matrix (mixer.video.picture)
_AVCOL_RANGE_MPEG: Final = 1


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
        self._frames: Iterator[av.VideoFrame] = iter(())
        self.tile: Tile | None = None
        self._scaler = Scaler()
        self._size = (streams[0].width, streams[0].height) if streams else (0, 0)
        if streams:
            self._frames = self._decode(streams[0])
        self.duration_s = float((self._container.duration or 0) / av.time_base)
        """What the container announces, 0.0 if nothing."""
        self.has_sound = bool(self._container.streams.audio)
        self.broken: str | None = None
        self._next: av.VideoFrame | None = None
        self.has_pictures = _has_pictures(path)
        self._begun = False

    @property
    def ended(self) -> bool:
        """No picture is left after the one that ``advance`` gave last."""
        return self._next is None if self._begun else not self.has_pictures

    def advance(self, until_s: float) -> av.VideoFrame | None:
        """The newest picture up to ``until_s``; None when there is none newer than the last one given."""
        newest = None
        if not self._begun:
            self._begun = True
            self._fetch()
        while self._next is not None and self._time(self._next) <= until_s:
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

    def _time(self, frame: av.VideoFrame) -> float:
        return (
            0.0 if frame.pts is None else float(frame.pts * cast(Fraction, frame.time_base))
        ) - self._start

    def _fitted(self, frame: av.VideoFrame, tile: Tile) -> av.VideoFrame:
        """Scaled at once, while the caches still hold it: 0.24 ms where it takes 0.33 later."""
        place = placement(frame.width, frame.height, tile.width, tile.height, tile.fit)
        try:
            return frame_of(self._scaler.place(frame, place))
        except (av.FFmpegError, ValueError, MemoryError):
            return frame  # the scene finds out, too, and counts it

    def _decode(self, stream: av.video.stream.VideoStream) -> Iterator[av.VideoFrame]:
        # One thread of bytecode and one of codecs: frame threads of nine decoders only cost.
        stream.codec_context.thread_count = 1
        if stream.codec_context.name != "vp8":
            yield from self._container.decode(stream)
            return
        decoder, keyframe_s, sparse = stream.codec_context, 0.0, False
        for packet in self._container.demux(stream):
            if packet.is_keyframe:
                at_s = float(packet.pts * packet.time_base) if packet.pts is not None else keyframe_s
                # Nobody can be asked for a keyframe here: a file that has too few of them keeps its filter.
                sparse, keyframe_s = sparse or at_s - keyframe_s > KEYFRAME_S, at_s
                small = self.tile is not None and self.tile.width <= SMALL * stream.width
                decoder = _vp8(skip_loop_filter=small and not sparse)
            yield from decoder.decode(packet)

    def _fetch(self) -> None:
        try:
            self._next = next(self._frames, None)
        except av.FFmpegError as error:
            self._next, self.broken = None, str(error)


def _has_pictures(path: Path) -> bool:
    """Whether a first picture can be decoded."""
    with open_input(path) as container:
        streams = container.streams.video
        try:
            if streams:
                streams[0].codec_context.thread_count = 1
            return bool(streams) and next(container.decode(streams[0]), None) is not None
        except av.FFmpegError:
            return False


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


# --- the output


class Writer:
    """One file with the composed picture and, if any input has sound, the mix. Written beside, then renamed."""

    def __init__(self, path: Path, body: LayoutBody, *, sound: bool, bitrate_bps: int, preset: str) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._fifo = av.AudioFifo()
        self._samples = 0
        fps = body.canvas.fps
        kind = CONTAINERS[path.suffix.lower()]
        try:
            self._out = av.open(
                str(self._part),
                "w",
                format=kind,
                options={"movflags": "+faststart"} if kind != "matroska" else {},
            )
            video = self._out.add_stream("libx264", rate=fps, options={"preset": preset})
            video.width, video.height, video.pix_fmt = body.canvas.width, body.canvas.height, "yuv420p"
            video.bit_rate = bitrate_bps
            video.codec_context.thread_count = 1
            video.codec_context.colorspace = _AVCOL_SPC_SMPTE170M
            video.codec_context.color_range = _AVCOL_RANGE_MPEG
            self._video = video
            self._audio = self._out.add_stream("aac", rate=AUDIO_CLOCK_HZ, layout="mono") if sound else None
            if self._audio is not None:
                self._audio.bit_rate = _AUDIO_BPS
        except (av.FFmpegError, OSError) as error:
            raise ComposeFailed(f"{path} cannot be written: {error}") from error
        self._tick = Fraction(1, fps)

    def picture(self, canvas: Picture, index: int) -> None:
        """Append the picture of tick ``index``; the canvas may change afterwards."""
        frame = frame_of(canvas)
        frame.pts, frame.time_base = index, self._tick
        self._out.mux(self._video.encode(frame))

    def sound(self, pcm: Pcm) -> None:
        """Append mono samples at 48 kHz, ±1.0."""
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = (
            AUDIO_CLOCK_HZ,
            Fraction(1, AUDIO_CLOCK_HZ),
            self._samples,
        )
        self._samples += len(pcm)
        self._fifo.write(frame)
        while (chunk := self._fifo.read(_AAC_FRAME)) is not None:
            self._encode_sound(chunk)

    def finish(self) -> None:
        """Write what the encoders still hold and put the file in its place."""
        self._out.mux(self._video.encode(None))
        if self._audio is not None:
            rest = self._fifo.read(0, partial=True)
            if rest is not None:
                self._encode_sound(rest)
            self._out.mux(self._audio.encode(None))
        self._out.close()
        self._part.replace(self._path)

    def close(self) -> None:
        """Without ``finish`` before it: leave nothing behind."""
        try:
            self._out.close()
        finally:
            self._part.unlink(missing_ok=True)

    def _encode_sound(self, frame: av.AudioFrame) -> None:
        if self._audio is not None:
            self._out.mux(self._audio.encode(frame))
