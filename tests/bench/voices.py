"""What a leg of the audio benches says, encoded once: real silence, or a tone with pips. A packet a tick of 20 ms."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from opuslib.api import ctl

from mixer.audio.codec import G711Decoder, G711Encoder
from mixer.audio.g711 import decode_pcmu, encode_pcmu
from mixer.audio.opus import OpusEncoder
from mixer.media import FRAME_SAMPLES, AudioCodec
from mixer.probe import signal
from mixer.probe.loops import encode_audio
from mixer.probe.signal import Identity, PipFinder

LEVEL_ID: Final = 1  # of RFC 6464 in our offers
PAYLOAD_TYPE: Final[dict[AudioCodec, int]] = {"opus": 111, "PCMU": 0}
CLOCK_TICK: Final[dict[AudioCodec, int]] = {"opus": 960, "PCMU": 160}  # of the RTP clock, 20 ms
_BITRATE_BPS: Final = 32_000
_TALKING_DBOV: Final = 29  # what the tone's level is
_SILENT_DBOV: Final = 127  # digital silence, as a muted or gated microphone gives
_DTX_OCTETS: Final = 2  # opus_encode in opus.h: such a packet need not be sent
_HEADER: Final = struct.Struct("!BBHIIHHBBxx")


@dataclass(frozen=True, slots=True)
class Voice:
    """A loop of payloads, one a tick; None: nothing is sent then. ``edges``: where in the loop pips begin, in
    samples at 48 kHz of what a decoder makes of it."""

    codec: AudioCodec
    payloads: tuple[bytes | None, ...]
    edges: tuple[float, ...] = ()

    def packet(self, tick: int, *, sequence: int, ssrc: int) -> bytes | None:
        """The RTP packet of one tick, in clear, with the level that the sender's own meter shows."""
        payload = self.payloads[tick % len(self.payloads)]
        if payload is None:
            return None
        level = _TALKING_DBOV | 0x80 if self.edges else _SILENT_DBOV
        kind = PAYLOAD_TYPE[self.codec] | (0x80 if tick == 0 else 0)  # RFC 3551 section 4.1: marker
        timestamp = (tick + 1) * CLOCK_TICK[self.codec] & 0xFFFFFFFF
        head = _HEADER.pack(0x90, kind, sequence & 0xFFFF, timestamp, ssrc, 0xBEDE, 1, LEVEL_ID << 4, level)
        return head + payload


def silence(codec: AudioCodec, *, dtx: bool = False) -> Voice:
    """Four seconds of a microphone that hears nothing; ``dtx``: without the packets that Opus can do without."""
    if codec == "PCMU":
        return Voice(codec, (encode_pcmu(np.zeros(160, np.float32)),))
    encoder = OpusEncoder(_BITRATE_BPS, application="voip")
    encoder._set(ctl.set_dtx, int(dtx))
    frame = np.zeros(FRAME_SAMPLES, np.float32)
    packets = [encoder.encode(frame) for _ in range(2 * signal.LOOP_PACKETS)][signal.LOOP_PACKETS :]
    return Voice(codec, tuple(None if dtx and len(packet) <= _DTX_OCTETS else packet for packet in packets))


def talk(codec: AudioCodec, identity: Identity) -> Voice:
    """The probe's tone with pips."""
    if codec == "opus":
        loop = encode_audio(identity)
        return Voice(codec, loop.packets, loop.edges)
    encoder, decoder, finder = G711Encoder(encode_pcmu), G711Decoder(decode_pcmu), PipFinder(identity.tone_hz)
    frames = signal.tone(identity).reshape(-1, FRAME_SAMPLES)
    payloads = [encoder.encode(frame) for _ in range(2) for frame in frames][len(frames) :]
    heard: list[float] = []
    for payload in payloads * 3:
        heard += finder.feed(decoder.decode(payload))
    heard += finder.flush()
    second = (edge - signal.LOOP_SAMPLES for edge in heard)
    return Voice(codec, tuple(payloads), tuple(edge for edge in second if 0 <= edge < signal.LOOP_SAMPLES))
