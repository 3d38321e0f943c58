"""The encoded currency: what travels between codecs, RTP, fan-out and recorder. No clock, no I/O.

Raw media never takes these forms: pictures are I420 ``numpy.uint8`` planes (``video.picture``), sound is
``numpy.float32`` mono at 48 kHz in frames of 960 samples (20 ms) scaled to ±1.0 (``audio.mix``).

Media time is counted from the room session's origin: video in 90 kHz units, audio in 48 kHz samples, both
zero at the same instant, so that pts / clock rate of the two compare directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

VIDEO_CLOCK_HZ: Final = 90_000  # RFC 3551 section 5: every video payload type uses 90 kHz
AUDIO_CLOCK_HZ: Final = 48_000  # RFC 7587 section 4.1: Opus RTP timestamps are always 48 kHz
FRAME_SAMPLES: Final = 960  # 20 ms at 48 kHz, the tick of the audio bridge
TICK_S: Final = 0.02

VideoCodec = Literal["H264", "VP8", "VP9"]
AudioCodec = Literal["opus", "G722", "PCMU", "PCMA"]
Kind = Literal["audio", "video"]


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """One whole coded picture (an access unit).

    ``data``: H.264 as Annex B byte stream, VP8/VP9 as one frame. ``pts``: 90 kHz; of the room's clock when
    we encoded it, the sender's unwrapped RTP timestamp when we received it. ``keyframe``: decodable on its own.
    """

    codec: VideoCodec
    data: bytes
    pts: int
    keyframe: bool


@dataclass(frozen=True, slots=True)
class EncodedAudio:
    """One coded sound frame of ``samples`` samples **at 48 kHz** (960 for 20 ms, 2880 for 60 ms).

    ``pts``: room clock, 48 kHz samples. ``level_dbov``: level of the frame, 0 (loudest) to 127.
    ``contributors``: CSRC and RFC 6465 level of those in it, the loudest first, at most 15; empty when this
    packet need not name them. ``earlier``: what was coded before, to be sent again with this (RFC 2198): how many
    samples earlier, and its data, oldest first; empty unless the listener's line loses.
    """

    codec: AudioCodec
    data: bytes
    pts: int
    samples: int
    level_dbov: int = 127
    contributors: tuple[tuple[int, int], ...] = ()
    earlier: tuple[tuple[int, bytes], ...] = ()
