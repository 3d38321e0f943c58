"""One voice on its way in: jitter buffer, decoder, and the samples left over between ticks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mixer.audio.codec import AudioDecoder, make_decoder
from mixer.audio.payload import RTP_CLOCK_HZ, duration_samples
from mixer.audio.playout import Playout, Step
from mixer.audio.speaker import SILENT_DBOV, Gate, power_dbov
from mixer.audio.stretch import lengthen, shorten
from mixer.errors import MalformedPacket
from mixer.media import FRAME_SAMPLES, AudioCodec

Pcm = NDArray[np.float32]

_QUIET_DBOV: Final = 50  # quieter than -50 dBov: 20 ms more or less of it are not noticed
_NOTHING: Final[Pcm] = np.empty(0, np.float32)


class InboundLeg:
    """Turns RTP packets into one frame a tick. The bridge sets ``muted`` and ``volume`` and reads ``level``.

    ``level``: RFC 6464 level of the frame taken last. ``gain``: what the bridge applied to it.
    """

    def __init__(self, codec: AudioCodec, *, muted: bool, volume: float) -> None:
        self._muted = muted
        self.volume = volume
        self.gain = 0.0
        self.level = SILENT_DBOV
        self.gate = Gate()
        self.decode_errors = 0
        self.malformed = 0
        self.dropped_muted = 0
        self._rest: Pcm = _NOTHING
        self._ssrc: int | None = None
        self._use(codec)

    @property
    def muted(self) -> bool:
        return self._muted

    @muted.setter
    def muted(self, muted: bool) -> None:
        self._muted = muted
        if muted and self.gain == 0.0:
            self.rest()  # nothing said before muting may come out after unmuting

    def _use(self, codec: AudioCodec) -> None:
        self._codec: AudioCodec = codec
        self._decoder: AudioDecoder = make_decoder(codec)
        self._playout = Playout(clock_hz=RTP_CLOCK_HZ[codec], fec=self._decoder.fec)

    def push(
        self,
        *,
        sequence: int,
        timestamp: int,
        payload: bytes,
        codec: AudioCodec,
        now: float,
        ssrc: int | None,
    ) -> None:
        """Take one RTP packet. A muted leg's packets are dropped here, before anything is spent on them."""
        if self._muted and self.gain == 0.0:
            self.dropped_muted += 1
            return
        try:
            samples = duration_samples(codec, payload)
        except MalformedPacket:
            self.malformed += 1
            return
        if codec != self._codec:
            counters = self._playout.counters
            self._use(codec)
            self._playout.counters = counters
        elif ssrc != self._ssrc:
            self._playout.reset()
        self._ssrc = ssrc
        self._playout.push(sequence, timestamp, payload, samples=samples, now=now)

    def take(self, now: float, *, skipped: int = 0) -> Pcm | None:
        """The 960 samples of this tick, or None for silence. ``skipped``: ticks left out before it."""
        if skipped:
            self._pass_over(skipped * FRAME_SAMPLES)
        plan = self._playout.pop(now, buffered=len(self._rest), quiet=self.level >= _QUIET_DBOV)
        if not len(self._rest) and all(step.kind == "silence" for step in plan.steps):
            self.level = SILENT_DBOV
            return None
        pieces = [self._rest] if len(self._rest) else []
        pieces += [self._perform(step) for step in plan.steps]
        pcm = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        if plan.shape == "shorten" and len(pcm) >= 2 * FRAME_SAMPLES:
            pcm = shorten(pcm, quiet=self.level >= _QUIET_DBOV)
        elif plan.shape == "lengthen":
            pcm = lengthen(pcm)
        frame, self._rest = pcm[:FRAME_SAMPLES], pcm[FRAME_SAMPLES:]
        return self._checked(frame)

    def rest(self) -> None:
        """Forget what waits: the leg has been muted and will start afresh."""
        self._playout.reset()
        self._rest = _NOTHING
        self.level = SILENT_DBOV

    def stats(self) -> dict[str, Any]:
        """Counters and gauges of this leg, JSON-serialisable."""
        playout = self._playout
        return {
            **asdict(playout.counters),
            "codec": self._codec,
            "depth": playout.depth,
            "delay_ms": round(playout.delay_ms, 1),
            "target_ms": round(playout.target_ms, 1),
            "jitter_ms": round(playout.jitter_ms, 2),
            "level_dbov": self.level,
            "decode_errors": self.decode_errors,
            "malformed": self.malformed,
            "dropped_muted": self.dropped_muted,
        }

    def _pass_over(self, samples: int) -> None:
        from_rest = min(samples, len(self._rest))
        self._rest = self._rest[from_rest:]
        self._playout.skip(samples - from_rest)

    def _perform(self, step: Step) -> Pcm:
        """Exactly ``step.samples`` samples, whatever the decoder does."""
        try:
            pcm = self._decoded(step)
        except Exception:  # the codec is foreign code fed by strangers: it may cost this voice, not the room
            self.decode_errors += 1
            pcm = _NOTHING
        pcm = pcm[step.skip : step.skip + step.samples]
        if len(pcm) < step.samples:
            pcm = np.concatenate((pcm, np.zeros(step.samples - len(pcm), np.float32)))
        return pcm

    def _decoded(self, step: Step) -> Pcm:
        match step.kind:
            case "packet":
                return self._decoder.decode(step.payload)
            case "fec":
                return self._decoder.recover(step.payload, step.samples)
            case "conceal":
                return self._decoder.conceal(step.samples)
            case "fade":
                return self._decoder.conceal(step.samples) * np.linspace(1, 0, step.samples, dtype=np.float32)
            case "silence":
                return np.zeros(step.samples, np.float32)

    def _checked(self, frame: Pcm) -> Pcm | None:
        """The frame within ±1.0 and its level noted. A decoder that makes NaN or infinities is silenced."""
        power = float(np.dot(frame, frame)) / FRAME_SAMPLES
        if not power < 1e6:
            self.decode_errors += 1
            self.level = SILENT_DBOV
            return None
        self.level = power_dbov(power)
        return np.clip(frame, -1.0, 1.0) if power > 0.01 else frame  # quieter frames have no such peaks
