"""One voice on its way in: jitter buffer, decoder, and the samples left over between ticks.

A leg that says nothing sleeps: where the level of its packets is known without decoding them, they cost an
append. The last few are kept: when a loud one comes, the decoder settles on those first, and the word begins without
a click, and on time, since the jitter buffer holds it back as long as any other.

============= ================================================== =========================================
a leg is      while                                              costs a tick
============= ================================================== =========================================
asleep        silent for a second by levels that are trusted,    nothing (an append a packet)
              or nothing comes
passed by     it is heard, by its levels, but has no place among a look at the jitter buffer
              the loudest
decoded       all else: its level is unknown, or not trusted     decoding
              yet, or being checked, or it is in the mix
============= ================================================== =========================================
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mixer.audio import g711
from mixer.audio.codec import AudioDecoder, make_decoder
from mixer.audio.contributors import csrc_of
from mixer.audio.payload import RTP_CLOCK_HZ, duration_samples
from mixer.audio.playout import Playout, Step
from mixer.audio.speaker import GATE_DBOV, SILENT_DBOV, Gate, level_dbov, power_dbov
from mixer.audio.stretch import lengthen, shorten
from mixer.audio.trust import LevelTrust
from mixer.errors import MalformedPacket
from mixer.media import FRAME_SAMPLES, AudioCodec

Pcm = NDArray[np.float32]

_POWER: Final[Mapping[AudioCodec, Callable[[bytes], float]]] = {
    "PCMU": g711.power_pcmu,
    "PCMA": g711.power_pcma,
}
_QUIET_DBOV: Final = 50  # quieter than -50 dBov: 20 ms more or less of it are not noticed
_NOTHING: Final[Pcm] = np.empty(0, np.float32)
_DTX_BYTES: Final = 2  # Opus sends no less for sound; RFC 6716 section 2.1.9 (DTX), libopus: 1 or 2 bytes
_PRIMER: Final = (
    5  # packets: a CELT frame inherits half of its predecessor's energy (RFC 6716 section 4.3.2.1)
)
_CLOCK_CHECK: Final = 32  # every so many packets of a sleeper its clock and its line are looked at
_LISTEN_S: Final = (
    1.0  # awake so long after the last loud packet: longer than the gate (0.8 s) and the playout
)


class Enhancer(Protocol):
    """What a voice may be passed through before it is mixed."""

    def process(self, frame: Pcm) -> Pcm:
        """One frame, 960 samples in ±1.0, the same out, a little later."""
        ...


class InboundLeg:
    """Turns RTP packets into one frame a tick. The bridge sets ``muted`` and ``volume`` and reads ``level``.

    ``level``: RFC 6464 level of the frame taken last. ``gain``: what the bridge applied to it.
    """

    def __init__(self, name: str, codec: AudioCodec, *, muted: bool, volume: float) -> None:
        self.csrc: Final = csrc_of(name)
        self._muted = muted
        self.volume = volume
        self.gain = 0.0
        self.level = SILENT_DBOV
        self.gate = Gate()
        self.chosen = False  # has a place among the loudest
        self.late = False  # it was heard before it got its place
        self.checked_until = 0.0  # decoded until then, to compare its levels with its sound
        self.asleep = True
        self.enhancer: Enhancer | None = None
        self.enhance_errors = 0
        self.decode_errors = 0
        self.malformed = 0
        self.dropped_muted = 0
        self.slept = 0
        self.passed_by = 0
        self.lies = 0
        self._rest: Pcm = _NOTHING
        self._ssrc: int | None = None
        self._said: int | None = None  # the newest packet's level, if it can be believed
        self._loud_s = float("-inf")  # when a packet last came that says it can be heard
        self._primer: deque[bytes] = deque(maxlen=_PRIMER)  # what came last and was not decoded
        self._use(codec)

    @property
    def muted(self) -> bool:
        return self._muted

    @muted.setter
    def muted(self, muted: bool) -> None:
        self._muted = muted
        if muted and self.gain == 0.0:
            self.rest()  # nothing said before muting may come out after unmuting

    @property
    def floor_ms(self) -> float:
        """See ``Playout.floor_ms``."""
        return self._playout.floor_ms

    @floor_ms.setter
    def floor_ms(self, floor_ms: float) -> None:
        self._playout.floor_ms = floor_ms

    def _use(self, codec: AudioCodec) -> None:
        self._codec: AudioCodec = codec
        self._power = _POWER.get(codec)
        self._decoder: AudioDecoder = make_decoder(codec)
        self._playout = Playout(clock_hz=RTP_CLOCK_HZ[codec], fec=self._decoder.fec)
        self._trust = LevelTrust()

    # -- in ---------------------------------------------------------------------------------------------

    def push(
        self,
        sequence: int,
        timestamp: int,
        payload: bytes,
        codec: AudioCodec,
        now: float,
        ssrc: int | None,
        level: int | None = None,
        repaired: bool = False,
    ) -> bool:
        """Take one RTP packet; whether the leg is awake now. ``level``: what its header says (RFC 6464).
        ``repaired``: it is late because it had been lost.

        A muted leg's packets are dropped here, before anything is spent on them.
        """
        if self._muted and self.gain == 0.0:
            self.dropped_muted += 1
            return False
        if codec != self._codec or ssrc != self._ssrc:
            self._follow(codec, ssrc)
        said = self._said = self._known(payload, level)
        if said is not None and said <= GATE_DBOV:
            self._loud_s = now
        elif said is not None and self.asleep and now >= self.checked_until:
            self.slept += 1
            self._primer.append(payload)
            if self.slept % _CLOCK_CHECK == 0:
                self._enqueue(sequence, timestamp, payload, now, level, repaired)
                self._playout.pass_by(math.inf)
            return False
        self._enqueue(sequence, timestamp, payload, now, level, repaired)
        self.asleep = False
        return True

    def _known(self, payload: bytes, level: int | None) -> int | None:
        """The packet's level without decoding it, if that is to be had."""
        if self._power is not None:
            return power_dbov(self._power(payload))
        if self._codec == "opus" and len(payload) <= _DTX_BYTES:
            return SILENT_DBOV
        return level if self._trust.good else None

    def _follow(self, codec: AudioCodec, ssrc: int | None) -> None:
        """The sender goes on with another source, or in another codec."""
        self._primer.clear()
        if codec != self._codec:
            counters, floor_ms = self._playout.counters, self.floor_ms
            self._use(codec)
            self._playout.counters, self.floor_ms = counters, floor_ms
        else:
            self._playout.reset()
            self._trust = LevelTrust()
        self._ssrc = ssrc

    def _enqueue(
        self, sequence: int, timestamp: int, payload: bytes, now: float, level: int | None, repaired: bool
    ) -> None:
        try:
            samples = duration_samples(self._codec, payload)
        except MalformedPacket:
            self.malformed += 1
            return
        dtx = self._codec == "opus" and len(payload) <= _DTX_BYTES
        self._playout.push(
            sequence, timestamp, payload, samples=samples, now=now, level=level, dtx=dtx, repaired=repaired
        )

    # -- what the bridge decides by ---------------------------------------------------------------------

    def audible(self, now: float) -> bool:
        """Whether it may be wanted in the mix: it was heard, or its levels say it is about to be."""
        return self.gate.open(now) or now - self._loud_s < _LISTEN_S

    def wants_decoding(self, now: float) -> bool:
        """Whether only decoding tells how loud it is, or it is in the mix."""
        return self._said is None or self.chosen or self.gain > 0.0 or now < self.checked_until

    def may_sleep(self, now: float) -> bool:
        """Whether there is nothing to be heard of it for now."""
        if self.gain > 0.0:
            return False
        if self._muted:
            return True
        if self.gate.open(now) or now < self.checked_until:
            return False
        if not self._playout.playing and not self._playout.depth and not len(self._rest):
            return True
        return self._said is not None and now - self._loud_s >= _LISTEN_S

    @property
    def loudness(self) -> int:
        """Level to compare it with others by: of its sound if that is decoded, else of its headers."""
        return self.level if self._said is None or self.gain > 0.0 else self._said

    def playhead(self, now: float) -> int | None:
        """See ``Playout.playhead``."""
        return self._playout.playhead(now)

    @property
    def waits_ms(self) -> float:
        """See ``Playout.waits_ms``."""
        return self._playout.waits_ms

    # -- out --------------------------------------------------------------------------------------------

    def take(self, now: float, *, skipped: int = 0) -> Pcm | None:
        """The 960 samples of this tick, or None for silence. ``skipped``: ticks left out before it."""
        frame = self._take(now, skipped)
        if frame is not None and self.enhancer is not None:
            frame = self._enhanced(frame, self.enhancer)
        self.gate.update(self.level, now)
        return frame

    def _take(self, now: float, skipped: int) -> Pcm | None:
        if self._primer:
            self._prime()
        if skipped:
            self._pass_over(skipped * FRAME_SAMPLES)
        plan = self._playout.pop(now, buffered=len(self._rest))
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

    def _enhanced(self, frame: Pcm, enhancer: Enhancer) -> Pcm | None:
        try:
            return self._checked(enhancer.process(frame))
        except Exception:  # foreign code: it may cost this voice its polish, not the room its sound
            self.enhance_errors += 1
            self.enhancer = None
            return frame

    def _prime(self) -> None:
        """Let the decoder hear what was passed over last: it predicts each packet from those before."""
        self._decoder.reset()
        for payload in self._primer:
            with contextlib.suppress(MalformedPacket):
                self._decoder.decode(payload)
        self._primer.clear()

    def pass_by(self, now: float) -> None:
        """Instead of ``take``: it is heard in this tick, but not wanted."""
        self._rest = _NOTHING
        self.passed_by += 1
        self.late = True
        self.level = SILENT_DBOV
        self._primer.extend(self._playout.pass_by(now))

    def sleep(self) -> None:
        """Nothing to be heard: from here on packets are only looked at."""
        self.asleep = True
        if self._muted:
            self.rest()
        else:
            self._primer.extend(self._playout.pass_by(math.inf))
            self._rest = _NOTHING
            self.level = SILENT_DBOV

    def rest(self) -> None:
        """Forget what waits: the leg has been muted and will start afresh."""
        self._playout.reset()
        self._primer.clear()
        self._rest = _NOTHING
        self.level = SILENT_DBOV

    def stats(self) -> dict[str, Any]:
        """Counters and gauges of this leg, JSON-serialisable."""
        playout = self._playout
        return {
            **asdict(playout.counters),
            "codec": self._codec,
            "csrc": self.csrc,
            "depth": playout.depth,
            "delay_ms": round(playout.delay_ms, 1),
            "target_ms": round(playout.target_ms, 1),
            "jitter_ms": round(playout.jitter_ms, 2),
            "level_dbov": self.level,
            "asleep": self.asleep,
            "slept": self.slept,
            "passed_by": self.passed_by,
            "level_lies": self.lies,
            "decode_errors": self.decode_errors,
            "enhance_errors": self.enhance_errors,
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
                pcm = self._decoder.decode(step.payload)
                if step.level is not None:
                    self.lies += self._trust.compare(step.level, level_dbov(pcm))
                return pcm
            case "fec":
                return self._decoder.recover(step.payload, step.samples)
            case "conceal" | "comfort":
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
