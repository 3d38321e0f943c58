"""Participants' tracks as the composer reads them: pictures by the second, sound as packets for the audio bridge."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av

from mixer.audio.payload import RTP_CLOCK_HZ, duration_samples
from mixer.compose_io import ComposeFailed, open_input
from mixer.errors import MalformedPacket
from mixer.media import AUDIO_CLOCK_HZ, AudioCodec

_CODECS: Final[dict[str, AudioCodec]] = {
    "opus": "opus", "libopus": "opus", "pcm_mulaw": "PCMU", "pcm_alaw": "PCMA", "g722": "G722", "adpcm_g722": "G722",
}  # fmt: skip
_JITTER_S: Final = 0.015  # of written times: reports, rounding; less than any packet is long
_LOST_S: Final = 0.12  # a shorter hole is packets that were lost, a longer one a pause (`playout.MAX_GAP`)


class TrackPictures:
    """The pictures of one source in its files, by the recording's time. As ``compose_io.Ahead`` takes its inputs."""

    picture_bytes: Final = 1280 * 720 * 3 // 2
    """About: participants are asked for no more than that."""

    def __init__(self, files: Sequence[Path], later_s: Callable[[float], float] = lambda _: 0.0) -> None:
        """``later_s``: how much later than its time in the file a picture was shown, by that time."""
        self._later_s = later_s
        self._frames = self._decode(files)
        self._next: tuple[float, av.VideoFrame] | None = None
        self._begun = False
        self.broken: str | None = None

    @property
    def ended(self) -> bool:
        """No picture is left after the one that ``advance`` gave last."""
        return self._begun and self._next is None

    def advance(self, until_s: float) -> av.VideoFrame | None:
        """The newest picture up to ``until_s``; None when there is none newer than the last one given."""
        newest = None
        if not self._begun:
            self._begun = True
            self._next = next(self._frames, None)
        while self._next is not None and self._next[0] <= until_s:
            newest = self._next[1]
            self._next = next(self._frames, None)
        return newest

    def close(self) -> None:
        """Close the file that is open."""
        self._frames.close()

    def _decode(self, files: Sequence[Path]) -> Generator[tuple[float, av.VideoFrame], None, None]:
        for path in files:
            try:
                with open_input(path) as container:
                    stream = container.streams.video[0]
                    stream.codec_context.thread_count = 1
                    for packet in container.demux(stream):
                        yield from self._of(packet)
            except (av.FFmpegError, ComposeFailed, IndexError) as error:
                self.broken = f"{path.name}: {error}"  # cut off, or not there at all: the rest goes on

    def _of(self, packet: av.Packet[av.video.stream.VideoStream]) -> Iterator[tuple[float, av.VideoFrame]]:
        try:
            for frame in packet.decode():
                at_s = frame.time or 0.0
                yield at_s + self._later_s(at_s), frame
        except av.error.InvalidDataError as error:
            self.broken = str(error)  # one picture of rubbish; the decoder goes on


@dataclass(frozen=True, slots=True)
class VoicePacket:
    """A packet of sound as it came from the network: when it belongs into the mix, and its RTP fields."""

    at_s: float
    sequence: int
    timestamp: int
    payload: bytes
    codec: AudioCodec
    stream: int  # counts files: a clock and a codec of its own


class TrackVoice:
    """The sound of one participant in its files. Sequence numbers are not in a file: holes tell what was lost."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.broken: str | None = None
        self._packets = self._read(files)
        self._next = next(self._packets, None)

    @property
    def codec(self) -> AudioCodec | None:
        """Of the next packet; None when there is none."""
        return None if self._next is None else self._next.codec

    def until(self, now_s: float) -> Iterator[VoicePacket]:
        """The packets up to ``now_s`` that were not given before."""
        while self._next is not None and self._next.at_s <= now_s:
            packet, self._next = self._next, next(self._packets, None)
            yield packet

    def close(self) -> None:
        """Close the file that is open."""
        self._packets.close()

    def _read(self, files: Sequence[Path]) -> Generator[VoicePacket, None, None]:
        for number, path in enumerate(files):
            try:
                with open_input(path) as container:
                    stream = container.streams.audio[0]
                    codec = _CODECS[stream.codec_context.name]
                    yield from _numbered(container, stream, codec, number)
            except (av.FFmpegError, ComposeFailed, IndexError, KeyError) as error:
                self.broken = f"{path.name}: {error}"


def _numbered(
    container: av.container.InputContainer, stream: av.AudioStream, codec: AudioCodec, number: int
) -> Iterator[VoicePacket]:
    """The packets of one file with sequence numbers and an even clock, as their sender had them."""
    rate_hz = RTP_CLOCK_HZ[codec]
    sequence, timestamp, expected_s = 0, 0, None
    for packet in container.demux(stream):
        payload = bytes(packet)
        if packet.pts is None or not payload:
            continue
        try:
            samples = duration_samples(codec, payload)
        except MalformedPacket:
            continue
        at_s, length_s = float(packet.pts * packet.time_base), samples / AUDIO_CLOCK_HZ
        hole_s = 0.0 if expected_s is None else at_s - expected_s
        if hole_s > _JITTER_S:
            lost = max(1, round(hole_s / length_s)) if hole_s <= _LOST_S else 0
            sequence += lost
            timestamp += round((lost * length_s if lost else hole_s) * rate_hz)
        yield VoicePacket(at_s, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, payload, codec, number)
        sequence += 1
        timestamp += samples * rate_hz // AUDIO_CLOCK_HZ
        expected_s = at_s + length_s
