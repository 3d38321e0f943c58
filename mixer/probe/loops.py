"""The probe's media, encoded once: every caller plays the same kind of loop, so that sending costs next to nothing.

A mixer under load shares its machine with the load generator more often than not. Nine cameras encoded live
would take a core; a loop takes a header, an SRTP call and a ``sendto`` a packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
from av.video.reformatter import Interpolation

from mixer.audio.opus import OpusDecoder, OpusEncoder
from mixer.media import FRAME_SAMPLES
from mixer.probe import signal
from mixer.probe.signal import Identity, PipFinder
from mixer.rtp.payload.vp8 import packetize


@dataclass(frozen=True, slots=True)
class Size:
    """One quality of a caller's picture: 1/``shrink`` of ``signal``'s size, ``bitrate_bps`` of VP8."""

    shrink: int
    bitrate_bps: int


# What a browser's camera sends: 1280×720 when it may, 640×360 in 385 kbit/s (a tile of 426×240), a thumbnail below.
SIZES: Final = (Size(1, 1_500_000), Size(2, 350_000), Size(4, 120_000))
AUDIO_BPS: Final = 32_000
_KEYFRAME_EVERY: Final = 60  # pictures; also where a caller jumps to when asked for a keyframe
_LIBVPX: Final = {
    "deadline": "realtime",
    "cpu-used": "8",
    "lag-in-frames": "0",
    "max-intra-rate": "600",  # percent of a frame's share: a keyframe of 25 packets, as of a camera, not of 140
}
_ENCODERS_AT_ONCE: Final = 2  # libvpx leaves the GIL; more would only fight with what is being measured


@dataclass(frozen=True, slots=True)
class VideoLoop:
    """Pictures 0 … ``LOOP_FRAMES`` - 1 as VP8 RTP payloads; ``keyframes``: where a viewer can begin."""

    pictures: tuple[tuple[bytes, ...], ...]
    keyframes: tuple[int, ...]

    def next_keyframe(self, index: int) -> int:
        """The first keyframe at or after ``index``, around the loop's end."""
        return next((place for place in self.keyframes if place >= index), self.keyframes[0])

    @property
    def kbps(self) -> float:
        size = sum(len(payload) for picture in self.pictures for payload in picture)
        return size * 8 / 1000 / signal.LOOP_S


@dataclass(frozen=True, slots=True)
class AudioLoop:
    """``LOOP_PACKETS`` Opus packets of 20 ms. ``edges``: where, in samples of what a decoder makes of the loop,
    the pips begin; measured, so that codec delay is part of the mark and not of the result.
    """

    packets: tuple[bytes, ...]
    edges: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CameraLoops:
    """The same pictures in each of ``SIZES``, best first; with one, the caller follows nobody's wishes."""

    loops: tuple[VideoLoop, ...]

    def fitting(self, bitrate_bps: float) -> VideoLoop:
        """The best that needs no more, else the least."""
        return next((loop for loop in self.loops if loop.kbps * 1000 <= bitrate_bps), self.loops[-1])


def encode_video(identity: Identity, sizes: Sequence[Size] = SIZES) -> CameraLoops:
    """About 1.3 s of one core for a loop of 720p30, a third of that for the others together."""
    return CameraLoops(tuple(_encode(identity, size) for size in sizes))


def _encode(identity: Identity, size: Size) -> VideoLoop:
    context = av.CodecContext.create("libvpx", "w")
    width, height = signal.WIDTH_PX // size.shrink, signal.HEIGHT_PX // size.shrink
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.bit_rate = size.bitrate_bps
    context.framerate = Fraction(signal.FPS)
    context.gop_size = _KEYFRAME_EVERY
    context.thread_count = 1
    rate = str(size.bitrate_bps)
    context.options = {**_LIBVPX, "minrate": rate, "maxrate": rate, "bufsize": rate}
    coded: list[bytes] = []
    keyframes: list[int] = []
    for counter in range(signal.LOOP_FRAMES):
        frame = av.VideoFrame.from_ndarray(signal.picture(counter, identity), "yuv420p")
        if size.shrink > 1:
            frame = frame.reformat(width, height, interpolation=Interpolation.AREA)
        frame.pts = counter
        for packet in context.encode(frame):  # no lag: one picture in, one out
            if packet.is_keyframe:
                keyframes.append(len(coded))
            coded.append(bytes(packet))
    if len(coded) != signal.LOOP_FRAMES or keyframes[:1] != [0]:
        raise RuntimeError(f"libvpx made {len(coded)} of {signal.LOOP_FRAMES} pictures")
    return VideoLoop(
        pictures=tuple(tuple(packetize(picture)) for picture in coded), keyframes=tuple(keyframes)
    )


def encode_audio(identity: Identity, *, voiced: bool = False) -> AudioLoop:
    """The second round of two, so that the loop's end leads into its beginning. ``voiced``: with speech under the
    tone, and in-band FEC, as browsers send it over a line that loses."""
    encoder = OpusEncoder(AUDIO_BPS, inband_fec=voiced)
    sound = signal.tone(identity) + (signal.speech(identity) if voiced else 0)
    samples = sound.reshape(-1, FRAME_SAMPLES)
    packets = [encoder.encode(frame) for _ in range(2) for frame in samples][len(samples) :]
    decoder, finder = OpusDecoder(), PipFinder(identity.tone_hz)
    heard: list[float] = []
    for _ in range(3):
        for packet in packets:
            heard += finder.feed(decoder.decode(packet))
    heard += finder.flush()
    whole = [
        edge - signal.LOOP_SAMPLES for edge in heard if 0 <= edge - signal.LOOP_SAMPLES < signal.LOOP_SAMPLES
    ]
    if len(whole) != len(signal.PIP_TIMES_S):
        raise RuntimeError(f"{len(whole)} of {len(signal.PIP_TIMES_S)} pips survive the encoder")
    return AudioLoop(tuple(packets), tuple(whole))


def prepare(
    identities: Sequence[Identity], *, video: bool = True, follow: bool = True, voiced: bool = False
) -> list[tuple[CameraLoops | None, AudioLoop]]:
    """Loops of all callers; pictures are shared by callers of one hue. ``follow``: in every size."""
    sizes = SIZES if follow else SIZES[:1]
    hues = {identity.chroma: identity for identity in identities} if video else {}
    with ThreadPoolExecutor(_ENCODERS_AT_ONCE, thread_name_prefix="probe-encode") as pool:
        pictures = dict(zip(hues, pool.map(lambda who: encode_video(who, sizes), hues.values()), strict=True))
        sounds = list(pool.map(lambda who: encode_audio(who, voiced=voiced), identities))
    return [(pictures.get(who.chroma), sound) for who, sound in zip(identities, sounds, strict=True)]
