"""H.264 and AAC, as they come from the encoders, into fragmented MP4. Nothing is encoded or decoded here.

FFmpeg's mp4 muxer (through PyAV) writes a fragment each second (``frag_duration``), not at keyframes, which a
room needs only rarely. ``empty_moov`` puts the codecs in front, ``default_base_moof`` makes each fragment
independent of its place in the file, and ``frag_discont`` writes each packet's own time, so that a second
muxer can continue where a dead one stopped.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final, Protocol

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from recording.errors import BadPackage
from recording.fragments import Piece, Splitter
from recording.mediatime import VIDEO_CLOCK_HZ

# The contract's second, less the picture and the sound that the muxer waits for before it lets a fragment go:
# so a process that is killed has lost no more than 1.0 s.
FRAGMENT_S: Final = 0.95
AAC_FRAME_SAMPLES: Final = 1024  # ISO/IEC 14496-3: AAC-LC codes 1,024 samples a frame
HOLE_S: Final = (
    0.5  # a picture after a longer hole begins a fragment; below, a shift by a few pictures is not seen
)
_AAC_RATES_HZ: Final = (
    96000,
    88200,
    64000,
    48000,
    44100,
    32000,
    24000,
    22050,
    16000,
    12000,
    11025,
    8000,
    7350,
)
_OPTIONS: Final = {
    "movflags": "empty_moov+default_base_moof+frag_discont+skip_trailer",
    "frag_duration": str(int(FRAGMENT_S * 1_000_000)),
    "flush_packets": "1",
    "use_editlist": "0",  # media time is absolute in every fragment; an edit list would shift it once more
    "avoid_negative_ts": "disabled",
    "max_interleave_delta": "500000",  # microseconds: a track that stalls holds the other back no longer
}


class PieceSink(Protocol):
    """Where whole pieces of the file go. May raise OSError, which the writing call passes on."""

    def write_piece(self, piece: Piece) -> None:
        """Take the init segment or one fragment."""
        ...


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """What an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1) says: the AAC track's rate and channels."""

    config: bytes
    rate_hz: int
    channels: int

    @classmethod
    def parse(cls, config: bytes) -> AudioFormat:
        """Raises BadPackage for anything but AAC-LC at a listed rate with 1 or 2 channels."""
        if len(config) < 2:
            raise BadPackage("the AAC configuration has at least 2 bytes")
        kind, rate, channels = config[0] >> 3, (config[0] & 7) << 1 | config[1] >> 7, config[1] >> 3 & 15
        if kind != 2 or rate >= len(_AAC_RATES_HZ) or channels not in {1, 2}:
            raise BadPackage("only AAC-LC, mono or stereo, is recorded")
        return cls(bytes(config), _AAC_RATES_HZ[rate], channels)


class FragmentedMp4:
    """One MP4 file being written, a whole fragment at a time, into ``sink``.

    ``keyframe``: the first picture, H.264 Annex B with its SPS and PPS, which describe the track. ``audio``:
    the AAC track, or None. ``sequence``: number of the last fragment when a file is continued: then the init
    segment is not written again. Times are the file's: video in 90 kHz units, audio in samples; they must
    rise.
    """

    def __init__(
        self,
        sink: PieceSink,
        *,
        keyframe: bytes,
        fps: int,
        audio: AudioFormat | None = None,
        sequence: int = 0,
    ) -> None:
        self._sink = sink
        self._splitter = Splitter()
        self._sequence = sequence
        self._init_written = sequence > 0
        self._video_step = VIDEO_CLOCK_HZ // fps
        self._audio_format = audio
        self._last = {0: -1, 1: -1}
        self.refused = 0
        self._keyframe = keyframe
        self._open()

    def write_video(self, data: bytes, pts: int, *, keyframe: bool) -> bool:
        """One picture (Annex B) at ``pts`` (90 kHz). False: refused, its time does not rise."""
        if self._last[0] >= 0 and pts - self._last[0] > HOLE_S * VIDEO_CLOCK_HZ:
            # FFmpeg's muxer may place the first picture of a fragment where the one before it ended. Only the
            # very first of a muxer is sure to stand at its own time.
            self.close()
            self._open()
        return self._write(self._video, data, pts, self._video_step, keyframe)

    def write_audio(self, data: bytes, pts: int) -> bool:
        """One AAC frame of 1,024 samples at ``pts`` (samples). False: refused, its time does not rise."""
        return self._audio is not None and self._write(
            self._audio, data, pts, AAC_FRAME_SAMPLES, keyframe=True
        )

    def close(self) -> None:
        """Write the last fragment, however short."""
        self._container.close()
        self._drain()

    def _open(self) -> None:
        options = {**_OPTIONS, "fragment_index": str(self._sequence + 1)}
        self._container = av.open(_Writer(self._splitter), "w", format="mp4", options=options)
        self._video = self._add_video(self._keyframe)
        self._audio = self._add_audio(self._audio_format) if self._audio_format else None

    def _write(
        self, stream: VideoStream | AudioStream, data: bytes, pts: int, duration: int, keyframe: bool
    ) -> bool:
        if pts <= self._last[stream.index]:
            self.refused += 1
            return False
        self._last[stream.index] = pts
        packet = av.Packet(data)
        packet.stream = stream
        packet.time_base = stream.time_base or Fraction(1, VIDEO_CLOCK_HZ)
        packet.pts = packet.dts = pts
        packet.duration = duration
        packet.is_keyframe = keyframe
        self._container.mux_one(packet)
        self._drain()
        return True

    def _drain(self) -> None:
        for piece in self._splitter.take():
            if piece.kind == "fragment":
                self._sequence += 1
            elif self._init_written:
                continue
            self._init_written = True
            self._sink.write_piece(piece)

    def _add_video(self, keyframe: bytes) -> VideoStream:
        with _with_parameter_sets(keyframe) as source:
            stream = self._container.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        return stream

    def _add_audio(self, audio: AudioFormat) -> AudioStream:
        with av.open(io.BytesIO(_silence(audio.rate_hz, audio.channels)), format="aac") as source:
            stream = self._container.add_stream_from_template(source.streams.audio[0], opaque=True)
        stream.codec_context.extradata = audio.config
        stream.time_base = Fraction(1, audio.rate_hz)
        return stream


def _with_parameter_sets(keyframe: bytes) -> InputContainer:
    """The picture opened by FFmpeg's raw H.264 reader, which finds its SPS and PPS; raises BadPackage
    without.

    They stay in Annex B form: that tells the mp4 muxer to convert each picture to length-prefixed NAL units.
    """
    try:
        source = av.open(io.BytesIO(keyframe), "r", format="h264")
    except av.error.FFmpegError as error:
        raise BadPackage("the first picture is not an H.264 keyframe") from error
    context = source.streams.video[0].codec_context
    if not context.width or not context.extradata:
        source.close()
        raise BadPackage("the first picture has no parameter sets")
    return source


class _Writer:
    """The file-like object that PyAV writes to."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter

    def write(self, data: bytes) -> int:
        self._splitter.push(bytes(data))
        return len(data)


@lru_cache(maxsize=4)
def _silence(rate_hz: int, channels: int) -> bytes:
    """A few frames of AAC silence in ADTS: what FFmpeg needs to describe an AAC track without an encoder."""
    out = io.BytesIO()
    with av.open(out, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=rate_hz, layout="mono" if channels == 1 else "stereo")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((channels, AAC_FRAME_SAMPLES), np.float32), format="fltp", layout=stream.layout.name
        )
        frame.sample_rate = rate_hz
        for number in range(4):
            frame.pts = number * AAC_FRAME_SAMPLES
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


@lru_cache(maxsize=4)
def silent_frame(rate_hz: int, channels: int) -> bytes:
    """One AAC-LC frame of silence, to fill a hole in the sound so that players keep it in step with the
    picture.
    """
    with av.open(io.BytesIO(_silence(rate_hz, channels)), "r", format="aac") as source:
        frames = [bytes(packet) for packet in source.demux(source.streams.audio[0]) if packet.size]
    frame = frames[-1]
    return frame[7:] if frame[:2] in {b"\xff\xf1", b"\xff\xf9"} else frame  # without its ADTS header
