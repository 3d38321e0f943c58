"""Opus (RFC 6716) through opuslib: finding the library, decoding with FEC and concealment, encoding.

opuslib refuses to be imported where the linker does not know a ``libopus``; installing one would need root.
PyAV's wheel carries one, so that is what is taken then. opuslib's own convenience classes copy sample by
sample and their FEC setter is broken, so its bound C functions are called here with kept numpy buffers.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import warnings
import weakref
from pathlib import Path
from typing import Any, Final, Literal

import av
import numpy as np
from numpy.typing import NDArray

from mixer.audio.payload import MAX_OPUS_SAMPLES, opus_frame_samples
from mixer.errors import ConfigError, MalformedPacket, MosaiqueError
from mixer.media import AUDIO_CLOCK_HZ, FRAME_SAMPLES

Pcm = NDArray[np.float32]

_STEP: Final = 120  # 2.5 ms: concealment and FEC come in multiples of it (opus_decode in opus.h)
_MAX_PACKET: Final = 1_275  # bytes of one frame, RFC 6716 section 3.2.1
_SET_PREDICTION_DISABLED: Final = 4_042  # OPUS_SET_PREDICTION_DISABLED_REQUEST of opus_defines.h
_COMPLEXITY: Final = 5  # half the time of 10 (175 against 370 µs) for 0.4 dB more spectral distance, measured
_PEAK: Final = 1.25  # of the mean size is the most a packet may have: a viewer's line is a hard limit

# In-band FEC (LBRR) is made where the rate, less a discount for the loss that libopus is told of, is above a threshold
# for each bandwidth (decide_fec and compute_equiv_rate of opus_encoder.c, 1.3 to 1.6). The loss sets the copy's
# quality, too (silk_setup_LBRR of control_codec.c): the more, the finer, at the cost of the original.
_EXPECTED_LOSS_PERCENT: Final = 10  # below 20 kbit/s nothing comes of it
_WIDE_FEC_BPS: Final = 20_000
# Slower than that the copy has to be as small as can be. PESQ-NB of 24 s of speech at 14.6 kbit/s without, with 5 and
# with 10 % of loss: 4.0, 3.4, 3.0 told of 1 %; at 16 kbit/s told of 25 %: 3.6, 3.2, 2.9; without FEC: 4.2, 2.9, 2.2.
_SPARING_LOSS_PERCENT: Final = 1
_SPARING_COMPLEXITY: Final = 10  # the thresholds are for this one; 5 has 5 % less rate to count with
_SPARING_PEAK: Final = 2.0  # 1.25 leaves nothing to a word that follows a louder one: PESQ 4.0 becomes 2.7
LEAST_FEC_BPS: Final = 14_600  # narrow band: (12000 - 1000) * 1.24 / (1 - 1 / 16) are 14,549 bit/s
_SURE_FEC_BPS: Final = 40_000  # above all thresholds; a stream that has FEC keeps it 1,000 bit/s further down


def _shipped_library() -> str | None:
    """The libopus in PyAV's wheel (auditwheel's ``av.libs`` on Linux, delocate's ``.dylibs`` on macOS)."""
    package = Path(av.__file__).parent
    for folder, pattern in (
        (package.parent / "av.libs", "libopus-*.so*"),
        (package / ".dylibs", "libopus.*"),
    ):
        for found in sorted(folder.glob(pattern)):
            return str(found)
    return None


def library() -> str:
    """Name or path of the libopus to load: the system's, else PyAV's. ``ConfigError`` if there is neither."""
    found = ctypes.util.find_library("opus") or _shipped_library()
    if found is None:
        raise ConfigError("libopus was not found: install it (Debian: libopus0) or PyAV from its wheel")
    return found


def load() -> tuple[Any, Any, Any]:
    """opuslib's ``api.decoder``, ``api.encoder`` and ``api.ctl``, over the library that ``library`` names.

    opuslib asks ``ctypes.util.find_library`` while it is being imported and knows no other way to be told.
    """
    path = library()
    original = ctypes.util.find_library
    ctypes.util.find_library = lambda name: path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # opuslib 3.0.1 says `is not 0`
            names = ("opuslib.api.decoder", "opuslib.api.encoder", "opuslib.api.ctl")
            decoder, encoder, ctl = (importlib.import_module(name) for name in names)
    finally:
        ctypes.util.find_library = original
    return decoder, encoder, ctl


_decoder, _encoder, _ctl = load()
_VOIP: Final = 2_048  # OPUS_APPLICATION_VOIP of opus_defines.h
_AUDIO: Final = 2_049  # OPUS_APPLICATION_AUDIO
_NARROW_BAND: Final = 1_101  # OPUS_BANDWIDTH_NARROWBAND
_VOICE: Final = 3_001  # OPUS_SIGNAL_VOICE
_FLOAT_POINTER: Final = ctypes.POINTER(ctypes.c_float)


class OpusDecoder:
    """Decodes one Opus stream to mono float32 at 48 kHz (stereo is mixed down by libopus)."""

    fec: Final = True

    def __init__(self) -> None:
        self._state = _decoder.create_state(AUDIO_CLOCK_HZ, 1)
        weakref.finalize(self, _decoder.destroy, self._state)
        self._pcm = np.zeros(MAX_OPUS_SAMPLES, np.float32)
        self._pointer = self._pcm.ctypes.data_as(_FLOAT_POINTER)

    def decode(self, payload: bytes) -> Pcm:
        """The samples of one packet. ``MalformedPacket`` if libopus refuses it."""
        if not payload:
            raise MalformedPacket("an empty payload is no Opus packet")  # libopus would conceal instead
        return self._run(payload, MAX_OPUS_SAMPLES, fec=0)

    def conceal(self, samples: int) -> Pcm:
        """``samples`` invented samples, at most 5,760, that carry on from the last ones."""
        return self._run(b"", _whole_steps(samples), fec=0)[:samples]

    def recover(self, payload: bytes, samples: int) -> Pcm:
        """The ``samples`` samples *before* ``payload``, from the FEC in it (concealed if there is none)."""
        asked = max(_whole_steps(samples), opus_frame_samples(payload))
        return self._run(payload, asked, fec=1)[-samples:]

    def reset(self) -> None:
        """Forget the past: what comes next does not follow what came last."""
        _decoder.decoder_ctl(self._state, _ctl.reset_state)

    def _run(self, payload: bytes, samples: int, *, fec: int) -> Pcm:
        got = _decoder.libopus_decode_float(self._state, payload, len(payload), self._pointer, samples, fec)
        if got < 0:
            raise MalformedPacket(f"libopus refuses a packet of {len(payload)} bytes (error {got})")
        return self._pcm[:got].copy()


def _whole_steps(samples: int) -> int:
    return min(MAX_OPUS_SAMPLES, -(-samples // _STEP) * _STEP)


class OpusEncoder:
    """Encodes mono float32 at 48 kHz into packets of ``frames`` × 20 ms (1, 2 or 3).

    ``inband_fec`` forces the speech coder (SILK), which at 32 kbit/s takes 280 µs a frame where the transform
    coder takes 63 (measured on a voiced hum): worth it where packets get lost, and only there. Below 20 kbit/s the
    band is that of a telephone then, and ``complexity`` 10. ``ValueError`` below ``LEAST_FEC_BPS``: libopus would
    leave the copy out without a word.

    No packet is larger than 1.25 times the mean that ``bitrate_bps`` allows (twice, with FEC below 20 kbit/s).
    ``audio`` is as good for voices as ``voip`` and lets music and tones through: at 12 kbit/s ``voip`` takes 4 to
    9 dB off them (measured).
    """

    def __init__(
        self,
        bitrate_bps: int,
        *,
        frames: int = 1,
        application: Literal["voip", "audio"] = "audio",
        complexity: int = _COMPLEXITY,
        inband_fec: bool = False,
    ) -> None:
        if inband_fec and bitrate_bps < LEAST_FEC_BPS:
            raise ValueError(f"in-band FEC takes {LEAST_FEC_BPS} bit/s, not {bitrate_bps}")
        sparing = inband_fec and bitrate_bps < _WIDE_FEC_BPS
        self._state = _encoder.create_state(AUDIO_CLOCK_HZ, 1, _VOIP if application == "voip" else _AUDIO)
        weakref.finalize(self, _encoder.destroy, self._state)
        self._pcm = np.zeros(frames * FRAME_SAMPLES, np.float32)
        self._pointer = self._pcm.ctypes.data_as(_FLOAT_POINTER)
        mean = bitrate_bps * frames * FRAME_SAMPLES / AUDIO_CLOCK_HZ / 8
        peak = _SPARING_PEAK if sparing else _PEAK
        self._packet = ctypes.create_string_buffer(min(_MAX_PACKET, int(mean * peak)))
        self._independent = False
        self._set(_ctl.set_complexity, complexity)
        self._set(_ctl.set_inband_fec, int(inband_fec))
        self._set(_ctl.set_packet_loss_perc, _EXPECTED_LOSS_PERCENT if inband_fec else 0)
        if sparing:
            self._spare()
        self._set(_ctl.set_bitrate, bitrate_bps)

    def encode(self, pcm: Pcm) -> bytes:
        """One packet from exactly ``frames`` × 960 samples."""
        self._pcm[:] = pcm
        size = _encoder.libopus_encode_float(
            self._state, self._pointer, len(self._pcm), self._packet, len(self._packet)
        )
        if size < 0:
            raise MosaiqueError(f"libopus could not encode a frame (error {size})")
        if self._independent:
            self._set(_ctl.ctl_set(_SET_PREDICTION_DISABLED), 0)
            self._independent = False
        return self._packet.raw[:size]

    def prime(self, pcm: Pcm) -> None:
        """Start afresh in the middle of a stream that someone else encoded: ``pcm`` is what came before.

        The state becomes close to the other encoder's, and the first packet then predicts nothing from
        its past, so a decoder that followed the other stream can go on with this one.
        """
        _encoder.encoder_ctl(self._state, _ctl.reset_state)
        for at in range(0, len(pcm), len(self._pcm)):
            self.encode(pcm[at : at + len(self._pcm)])
        self._set(_ctl.ctl_set(_SET_PREDICTION_DISABLED), 1)
        self._independent = True

    def _spare(self) -> None:
        """Set up for FEC at a low rate; the last step makes libopus begin it, which it then keeps up."""
        self._set(_ctl.set_complexity, _SPARING_COMPLEXITY)
        self._set(_ctl.set_packet_loss_perc, _SPARING_LOSS_PERCENT)
        self._set(_ctl.set_max_bandwidth, _NARROW_BAND)
        self._set(_ctl.set_signal, _VOICE)  # the transform coder has no FEC
        self._set(_ctl.set_bitrate, _SURE_FEC_BPS)
        self.encode(np.zeros_like(self._pcm))
        _encoder.encoder_ctl(self._state, _ctl.reset_state)

    def _set(self, request: Any, value: int) -> None:
        _encoder.encoder_ctl(self._state, request, value)
