"""The audio codecs behind two small ports: ``AudioDecoder`` and ``AudioEncoder``, both at 48 kHz.

Each hides its own rate: G.711 runs at 8 kHz and G.722 at 16 kHz inside, with a streaming resampler. AAC is
for recordings only and has its own shape, since its frames (1,024 samples) do not fit our ticks.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from mixer.audio import g711
from mixer.audio.opus import OpusDecoder, OpusEncoder
from mixer.audio.resample import Resampler
from mixer.audio.stretch import Concealer
from mixer.errors import MalformedPacket, MosaiqueError
from mixer.media import AUDIO_CLOCK_HZ, AudioCodec

__all__ = [
    "AacEncoder",
    "AudioDecoder",
    "AudioEncoder",
    "G711Decoder",
    "G711Encoder",
    "G722Decoder",
    "G722Encoder",
    "OpusDecoder",
    "OpusEncoder",
    "make_decoder",
    "make_encoder",
]

Pcm = NDArray[np.float32]

_G711_HZ: Final = 8_000
_G722_HZ: Final = 16_000
_AAC_FRAME: Final = 1_024  # samples, ISO/IEC 14496-3: AAC-LC


class AudioDecoder(Protocol):
    """One received stream to mono float32 at 48 kHz. ``fec``: whether ``recover`` does more than conceal."""

    @property
    def fec(self) -> bool: ...

    def decode(self, payload: bytes) -> Pcm:
        """The samples of one packet. ``MalformedPacket`` if it cannot be decoded."""
        ...

    def conceal(self, samples: int) -> Pcm:
        """``samples`` samples in place of lost ones."""
        ...

    def recover(self, payload: bytes, samples: int) -> Pcm:
        """The ``samples`` samples before ``payload``, which has not been decoded yet."""
        ...

    def reset(self) -> None:
        """Forget the past: what comes next does not follow what came last."""
        ...


class AudioEncoder(Protocol):
    """Mono float32 at 48 kHz to packets of a fixed number of 960-sample frames."""

    def encode(self, pcm: Pcm) -> bytes:
        """One packet."""
        ...

    def prime(self, pcm: Pcm) -> None:
        """Take over after the sound ``pcm`` (whole packets), which someone else has encoded."""
        ...


class _NarrowDecoder:
    """What G.711 and G.722 share on the way in: resampling to 48 kHz and concealment by repetition."""

    fec: Final = False

    def __init__(self, rate_hz: int) -> None:
        self._resampler = Resampler(rate_hz, AUDIO_CLOCK_HZ)
        self._concealer = Concealer()

    def _native(self, payload: bytes) -> Pcm:
        raise NotImplementedError

    def decode(self, payload: bytes) -> Pcm:
        return self._concealer.keep(self._resampler.process(self._native(payload)))

    def conceal(self, samples: int) -> Pcm:
        return self._concealer.conceal(samples)

    def recover(self, payload: bytes, samples: int) -> Pcm:
        return self._concealer.conceal(samples)

    def reset(self) -> None:
        self._resampler.reset()
        self._concealer = Concealer()


class G711Decoder(_NarrowDecoder):
    """PCMU or PCMA."""

    def __init__(self, law: Callable[[bytes], Pcm]) -> None:
        super().__init__(_G711_HZ)
        self._law = law

    def _native(self, payload: bytes) -> Pcm:
        return self._law(payload)


class G722Decoder(_NarrowDecoder):
    """G.722 at 64 kbit/s, by FFmpeg."""

    def __init__(self) -> None:
        super().__init__(_G722_HZ)
        self._context: Any = av.CodecContext.create("g722", "r")
        self._context.layout = "mono"
        self._context.sample_rate = _G722_HZ

    def _native(self, payload: bytes) -> Pcm:
        try:
            frames = self._context.decode(av.Packet(payload))
        except av.FFmpegError as error:
            raise MalformedPacket(f"G.722 payload of {len(payload)} bytes: {error}") from error
        if not frames:
            return np.empty(0, np.float32)
        pcm = np.concatenate([np.frombuffer(f.planes[0], np.int16)[: f.samples] for f in frames])
        return pcm.astype(np.float32) / np.float32(32_768)


class _NarrowEncoder:
    """What G.711 and G.722 share on the way out."""

    def __init__(self, rate_hz: int) -> None:
        self._resampler = Resampler(AUDIO_CLOCK_HZ, rate_hz)

    def _native(self, pcm: Pcm) -> bytes:
        raise NotImplementedError

    def encode(self, pcm: Pcm) -> bytes:
        return self._native(self._resampler.process(pcm))

    def prime(self, pcm: Pcm) -> None:
        self.encode(pcm)


class G711Encoder(_NarrowEncoder):
    """PCMU or PCMA."""

    def __init__(self, law: Callable[[Pcm], bytes]) -> None:
        super().__init__(_G711_HZ)
        self._law = law

    def _native(self, pcm: Pcm) -> bytes:
        return self._law(pcm)


class G722Encoder(_NarrowEncoder):
    """G.722 at 64 kbit/s, by FFmpeg."""

    def __init__(self) -> None:
        super().__init__(_G722_HZ)
        self._context: Any = av.CodecContext.create("g722", "w")
        self._context.layout = "mono"
        self._context.format = "s16"
        self._context.sample_rate = _G722_HZ

    def _native(self, pcm: Pcm) -> bytes:
        samples = np.clip(np.rint(pcm * 32_768), -32_768, 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = _G722_HZ
        packets: list[bytes] = [bytes(packet) for packet in self._context.encode(frame)]
        return b"".join(packets)


def make_decoder(codec: AudioCodec) -> AudioDecoder:
    """A fresh decoder."""
    match codec:
        case "opus":
            return OpusDecoder()
        case "G722":
            return G722Decoder()
        case "PCMU":
            return G711Decoder(g711.decode_pcmu)
        case "PCMA":
            return G711Decoder(g711.decode_pcma)


def make_encoder(codec: AudioCodec, *, frames: int, bitrate_bps: int, fec: bool = False) -> AudioEncoder:
    """A fresh encoder of packets of ``frames`` × 20 ms; only Opus heeds ``bitrate_bps`` and ``fec``."""
    match codec:
        case "opus":
            return OpusEncoder(bitrate_bps, frames=frames, inband_fec=fec)
        case "G722":
            return G722Encoder()
        case "PCMU":
            return G711Encoder(g711.encode_pcmu)
        case "PCMA":
            return G711Encoder(g711.encode_pcma)


class AacEncoder:
    """AAC-LC, mono, 48 kHz, for recordings: any number of samples in, packets of 1,024 out.

    ``extradata`` is the AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1) that an MP4 needs before the first
    packet. A packet's pts (48 kHz) is that of the first sample a decoder gives back for it: FFmpeg's encoder
    starts with one packet of priming before ``start_pts``; it is withheld, because its only use is to open
    the overlap of the very first 21 ms, and a negative time would need an edit list in every file.
    """

    def __init__(self, *, bitrate_bps: int = 96_000, start_pts: int = 0) -> None:
        self._context: Any = av.CodecContext.create("aac", "w")
        self._context.sample_rate = AUDIO_CLOCK_HZ
        self._context.layout = "mono"
        self._context.format = "fltp"
        self._context.bit_rate = bitrate_bps
        # `fast` at 96 kbit/s: 106 µs a frame and 19.8 dB SNR; FFmpeg's default coder at 64: 236 µs, 19.2 dB.
        self._context.options = {"aac_coder": "fast"}
        self._context.time_base = Fraction(1, AUDIO_CLOCK_HZ)
        self._context.open()
        self.extradata: Final = bytes(self._context.extradata or b"")
        self._start = start_pts
        self._taken = 0  # samples given to the codec
        self._waiting: Pcm = np.empty(0, np.float32)

    def encode(self, pcm: Pcm) -> list[tuple[bytes, int]]:
        """``(packet, pts)`` for every packet that ``pcm`` (float32, any length) completes."""
        self._waiting = np.concatenate((self._waiting, pcm))
        packets: list[tuple[bytes, int]] = []
        while len(self._waiting) >= _AAC_FRAME:
            packets += self._encode_frame(self._waiting[:_AAC_FRAME])
            self._waiting = self._waiting[_AAC_FRAME:]
        return packets

    def flush(self) -> list[tuple[bytes, int]]:
        """The rest, the last frame filled up with silence. The encoder is finished afterwards."""
        packets: list[tuple[bytes, int]] = []
        if len(self._waiting):
            padded = np.pad(self._waiting, (0, _AAC_FRAME - len(self._waiting)))
            packets += self._encode_frame(padded)
            self._waiting = np.empty(0, np.float32)
        return packets + self._packets(None)

    def _encode_frame(self, pcm: Pcm) -> list[tuple[bytes, int]]:
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="fltp", layout="mono")
        frame.sample_rate = AUDIO_CLOCK_HZ
        frame.time_base = Fraction(1, AUDIO_CLOCK_HZ)
        frame.pts = self._taken
        self._taken += _AAC_FRAME
        return self._packets(frame)

    def _packets(self, frame: av.AudioFrame | None) -> list[tuple[bytes, int]]:
        try:
            packets = self._context.encode(frame)
        except av.FFmpegError as error:
            raise MosaiqueError(f"the AAC encoder failed: {error}") from error
        return [
            (bytes(packet), int(self._start + packet.pts))
            for packet in packets
            if packet.pts is not None and packet.pts >= 0
        ]
