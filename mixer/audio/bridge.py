"""The audio bridge of a room: every 20 ms one frame of each voice in, one mix for each listener out.

Single-threaded, called on the loop thread. A tick takes one snapshot (mute flags, volumes and samples of
all legs together), adds, and then serves the recorder and the outputs from that snapshot. It never waits and
never raises because of one leg or one sink. Where the time goes: decoding about 35 µs a leg,
encoding about 200 µs a packet; one packet for all who are silent, one for each who is heard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mixer.audio.leg import InboundLeg
from mixer.audio.mix import SILENCE, Limiter, scaled, total
from mixer.audio.outlet import Format, Outlet, RoomMix, Shared, Sink
from mixer.audio.speaker import Speakers
from mixer.errors import Conflict, NotFound
from mixer.media import FRAME_SAMPLES, AudioCodec

Pcm = NDArray[np.float32]
Recorder = Callable[[Pcm, int], None]

MAX_VOLUME: Final = 4.0  # +12 dB
MAX_FILL_TICKS: Final = 500  # 10 s: a longer hole in the ticks is not a stall but a suspended machine


class AudioBridge:
    """Mixes the voices of one room. Time is the tick's index: frame ``k`` has pts ``960 * k`` at 48 kHz."""

    def __init__(self) -> None:
        self._legs: dict[str, InboundLeg] = {}
        self._outlets: dict[str, Outlet] = {}
        self._shared: dict[Format, Shared] = {}
        self._recorder: Recorder | None = None
        self._recorder_errors = 0
        self._speakers = Speakers()
        self._limiter = Limiter()
        self._room = RoomMix()
        self._rows = np.zeros((16, FRAME_SAMPLES), np.float32)
        self._last: int | None = None
        self._ticks = 0
        self._skipped = 0
        self._unfilled = 0
        self._unknown = 0

    # -- voices in --------------------------------------------------------------------------------------

    def add_input(self, leg: str, codec: AudioCodec, *, muted: bool = False, volume: float = 1.0) -> None:
        """A voice joins. ``Conflict`` if ``leg`` is there already."""
        if leg in self._legs:
            raise Conflict(f"the audio bridge has an input {leg!r} already")
        self._legs[leg] = InboundLeg(codec, muted=muted, volume=_volume(volume))

    def remove_input(self, leg: str) -> None:
        """A voice leaves. Nothing happens if it was not there."""
        if self._legs.pop(leg, None) is not None:
            self._speakers.remove(leg)

    def set_input(self, leg: str, *, muted: bool | None = None, volume: float | None = None) -> None:
        """Mute, unmute, turn up or down (0.0 to 4.0), from the next tick on. ``NotFound`` if not there."""
        inbound = self._legs.get(leg)
        if inbound is None:
            raise NotFound(f"the audio bridge has no input {leg!r}")
        if muted is not None:
            inbound.muted = muted
        if volume is not None:
            inbound.volume = _volume(volume)

    def push(
        self,
        leg: str,
        *,
        sequence: int,
        timestamp: int,
        payload: bytes,
        codec: AudioCodec,
        now: float,
        ssrc: int | None = None,
    ) -> None:
        """One RTP packet, in any order; ``now`` is its arrival in seconds, on the same clock as in ``tick``.

        Another ``codec`` or ``ssrc`` than before starts afresh. An unknown leg is counted and ignored: its
        last packets come when it has left already.
        """
        inbound = self._legs.get(leg)
        if inbound is None:
            self._unknown += 1
            return
        inbound.push(sequence=sequence, timestamp=timestamp, payload=payload, codec=codec, now=now, ssrc=ssrc)

    # -- mixes out --------------------------------------------------------------------------------------

    def add_output(
        self,
        key: str,
        sink: Sink,
        *,
        codec: AudioCodec,
        minus: str | None,
        ptime_ms: int = 20,
        bitrate_bps: int = 32_000,
        fec: bool = False,
    ) -> None:
        """A listener joins: ``sink`` gets every packet, with pts going up by its length.

        ``minus``: the leg whose voice is left out. ``ptime_ms``: 20, 40 or 60, else ``ValueError``. Of the
        codecs only Opus heeds ``bitrate_bps`` and ``fec`` (in-band FEC: it makes the encoder four times as dear
        and a lost packet inaudible, so it is for lines that lose). ``Conflict`` if ``key`` is there already.
        """
        if key in self._outlets:
            raise Conflict(f"the audio bridge has an output {key!r} already")
        form = Format.of(codec, ptime_ms, bitrate_bps, fec=fec)
        shared = self._shared.setdefault(form, Shared(form))
        shared.users += 1
        self._outlets[key] = Outlet(form, sink, minus, shared)

    def remove_output(self, key: str) -> None:
        """A listener leaves; the last of a format takes its encoder along. Unknown keys are ignored."""
        outlet = self._outlets.pop(key, None)
        if outlet is None:
            return
        shared = self._shared[outlet.form]
        shared.users -= 1
        if not shared.users:
            del self._shared[outlet.form]

    def set_recorder(self, sink: Recorder | None) -> None:
        """``sink(frame, pts)`` gets the whole mix, float32 (960,), read-only by agreement.

        Its pts go up by exactly 960 from call to call: ticks that were left out are given as silence
        (at most 10 s of them).
        """
        self._recorder = sink

    # -- the tick ---------------------------------------------------------------------------------------

    def tick(self, index: int, now: float) -> None:
        """Mix frame ``index`` and call the sinks. Indexes go up; those left out are passed over.

        ``ValueError`` if ``index`` is not greater than the last one.
        """
        skipped = 0 if self._last is None else index - self._last - 1
        if index < 0 or skipped < 0:
            raise ValueError(f"tick {index} after tick {self._last}")
        self._last = index
        self._ticks += 1
        self._skipped += skipped

        rows = self._collect(now, skipped)
        summed = total(self._rows[: len(rows)])
        mixed = self._limiter.process(summed) if rows else self._quiet()
        self._room.add(index, mixed)
        self._record(index, mixed, skipped)
        self._serve(index, summed, rows)

    def speaking(self) -> Sequence[str]:
        """Legs that speak or did so in the last 0.8 s, and are not muted."""
        return tuple(leg for leg in self._speakers.speaking() if not self._legs[leg].muted)

    def speaker(self) -> str | None:
        """The leg that has the floor; None until someone has spoken."""
        return self._speakers.active()

    def stats(self) -> dict[str, Any]:
        """Counters and gauges, JSON-serialisable; ``inputs`` by leg, ``outputs`` by key."""
        return {
            "ticks": self._ticks,
            "skipped": self._skipped,
            "unfilled": self._unfilled,
            "unknown_leg": self._unknown,
            "recorder_errors": self._recorder_errors,
            "limiter_gain": round(self._limiter.gain, 3),
            "shared_encoders": len(self._shared),
            "shared_packets": sum(shared.encoded for shared in self._shared.values()),
            "personal_packets": sum(outlet.encoded for outlet in self._outlets.values()),
            "inputs": {leg: inbound.stats() for leg, inbound in self._legs.items()},
            "outputs": {
                key: {"personal": outlet.personal, "sink_errors": outlet.sink_errors}
                for key, outlet in self._outlets.items()
            },
        }

    def _collect(self, now: float, skipped: int) -> dict[str, int]:
        """Fill the matrix with those who are heard; returns the row of each. Levels go to ``Speakers``."""
        rows: dict[str, int] = {}
        levels: dict[str, int] = {}
        if len(self._legs) > len(self._rows):
            self._rows = np.zeros((2 * len(self._legs), FRAME_SAMPLES), np.float32)
        for name, leg in self._legs.items():
            muted = leg.muted
            if muted and leg.gain == 0.0:
                continue
            frame = leg.take(now, skipped=skipped)
            if not muted:
                levels[name] = leg.level
            before = leg.gain
            leg.gain = leg.volume if leg.gate.update(leg.level, now) and not muted else 0.0
            if frame is not None and (before or leg.gain):
                self._rows[len(rows)] = scaled(frame, before, leg.gain)
                rows[name] = len(rows)
            if muted:
                leg.rest()
        self._speakers.update(levels, now)
        return rows

    def _quiet(self) -> Pcm:
        """Nobody is heard: the limiter lets go and all silent frames are one array."""
        self._limiter.gain = 1.0
        return SILENCE

    def _record(self, index: int, mixed: Pcm, skipped: int) -> None:
        if self._recorder is None:
            return
        filled = min(skipped, MAX_FILL_TICKS)
        self._unfilled += skipped - filled
        try:
            for at in range(index - filled, index):
                self._recorder(SILENCE, at * FRAME_SAMPLES)
            self._recorder(mixed, index * FRAME_SAMPLES)
        except Exception:  # a recorder that fails must not silence the room
            self._recorder_errors += 1

    def _serve(self, index: int, summed: Pcm, rows: dict[str, int]) -> None:
        due = {frames: self._room.due(frames) for frames in {form.frames for form in self._shared}}
        for outlet in list(self._outlets.values()):  # a sink may remove outputs
            row = rows.get(outlet.minus) if outlet.minus is not None else None
            if row is not None:
                outlet.subtract(index, summed, self._rows[row], self._limiter.gain)
            for number in due[outlet.form.frames]:
                outlet.emit(number, self._room)


def _volume(volume: float) -> float:
    return min(MAX_VOLUME, max(0.0, volume))
