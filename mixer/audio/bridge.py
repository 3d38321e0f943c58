"""The audio bridge of a room: every 20 ms one frame of each voice in, one mix for each listener out.

Single-threaded, called on the loop thread. A tick takes one snapshot (mute flags, volumes and samples of
all legs together), adds, and then serves the recorder and the outputs from that snapshot. It never waits and
never raises because of one leg or one sink. Where the time goes: decoding about 35 µs a leg that is awake,
encoding about 200 µs a packet; one packet for all who are silent, one for each who is heard. A leg that sleeps
(see ``leg``) is not looked at, and at most ``loudest.PLACES`` voices are mixed, however many speak.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mixer.audio.contributors import MAX_CONTRIBUTORS, Contributors
from mixer.audio.leg import Enhancer, InboundLeg
from mixer.audio.loudest import Loudest
from mixer.audio.mix import SILENCE, Limiter, scaled, total
from mixer.audio.outlet import Format, Outlet, RoomMix, Shared, Sink
from mixer.audio.speaker import Speakers
from mixer.errors import Conflict, NotFound
from mixer.media import FRAME_SAMPLES, AudioCodec, EncodedAudio

Pcm = NDArray[np.float32]
Recorder = Callable[[Pcm, int], None]

MAX_VOLUME: Final = 4.0  # +12 dB
CHECK_EVERY_TICKS: Final = 25  # 0.5 s: then the next of those that sleep is decoded for a while ...
CHECK_AGAIN_S: Final = 5.0  # ... the same one not sooner than after this ...
CHECK_S: Final = 0.4  # ... so long: its header may say that it is silent when it is not
MAX_FILL_TICKS: Final = 500  # 10 s: a longer hole in the ticks is not a stall but a suspended machine


class AudioBridge:
    """Mixes the voices of one room. Time is the tick's index: frame ``k`` has pts ``960 * k`` at 48 kHz."""

    def __init__(self) -> None:
        self._legs: dict[str, InboundLeg] = {}
        self._awake: dict[str, InboundLeg] = {}
        self._to_check: deque[str] = deque()
        self._check_round_s = float("-inf")
        self._loudest = Loudest()
        self._outlets: dict[str, Outlet] = {}
        self._shared: dict[Format, Shared] = {}
        self._hearing: dict[str, set[str]] = {}  # by leg: the outputs without it
        self._recorder: Recorder | None = None
        self._recorder_errors = 0
        self._unrecorded: frozenset[str] = frozenset()
        self._recorded_limiter = Limiter()
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
        self._legs[leg] = InboundLeg(leg, codec, muted=muted, volume=_volume(volume))

    def remove_input(self, leg: str) -> None:
        """A voice leaves. Nothing happens if it was not there."""
        if self._legs.pop(leg, None) is not None:
            self._awake.pop(leg, None)
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

    def enhance(self, leg: str, enhancer: Enhancer | None) -> None:
        """Pass a voice through ``enhancer`` from the next tick on; None: leave it as it comes. Unknown: ignored.

        One that raises is taken out and counted; the voice goes on as it comes.
        """
        inbound = self._legs.get(leg)
        if inbound is not None:
            inbound.enhancer = enhancer

    def push(
        self,
        leg: str,
        sequence: int,
        timestamp: int,
        payload: bytes,
        codec: AudioCodec,
        now: float,
        ssrc: int | None = None,
        level: int | None = None,
        repaired: bool = False,
    ) -> None:
        """One RTP packet, in any order; ``now`` is its arrival in seconds, on the same clock as in ``tick``.

        Another ``codec`` or ``ssrc`` than before starts afresh. ``level``: what its header says (RFC 6464, 0 to
        127): it spares us decoding the silent, once it has proved right. ``repaired``: it is late because it had
        been lost. An unknown leg is counted and ignored: its last packets come when it has left already.
        """
        inbound = self._legs.get(leg)
        if inbound is None:
            self._unknown += 1
        elif inbound.push(sequence, timestamp, payload, codec, now, ssrc, level, repaired):
            self._awake[leg] = inbound

    def playhead(self, leg: str, now: float) -> tuple[int, float] | None:
        """What is heard of ``leg`` at ``now``, or would be: its RTP timestamp (32 bits), and for how many
        milliseconds it has waited in the jitter buffer. None when nothing came yet.
        """
        inbound = self._legs.get(leg)
        timestamp = None if inbound is None else inbound.playhead(now)
        return None if inbound is None or timestamp is None else (timestamp, inbound.waits_ms)

    def delay(self, leg: str, floor_ms: float) -> None:
        """Let a voice wait ``floor_ms`` at least in its jitter buffer (0 to 200): its picture comes so late."""
        inbound = self._legs.get(leg)
        if inbound is not None:
            inbound.floor_ms = floor_ms

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
        repeats: tuple[int, ...] = (),
    ) -> None:
        """A listener joins: ``sink`` gets every packet, with pts going up by its length.

        ``minus``: the leg whose voice is left out. ``ptime_ms``: 20, 40 or 60, else ``ValueError``. Of the
        codecs only Opus heeds ``bitrate_bps`` and ``fec`` (in-band FEC: it makes the encoder four times as dear
        and a lost packet inaudible, so it is for lines that lose) and ``repeats`` (see ``Format``). ``Conflict`` if
        ``key`` is there already.
        """
        if key in self._outlets:
            raise Conflict(f"the audio bridge has an output {key!r} already")
        form = Format.of(codec, ptime_ms, bitrate_bps, fec=fec, repeats=repeats)
        outlet = self._outlets[key] = Outlet(sink, minus, self._shared_of(form))
        outlet.shared.outlets[key] = outlet
        if minus is not None:
            self._hearing.setdefault(minus, set()).add(key)

    def remove_output(self, key: str) -> None:
        """A listener leaves; the last of a format takes its encoder along. Unknown keys are ignored."""
        outlet = self._outlets.pop(key, None)
        if outlet is None:
            return
        if outlet.minus is not None:
            self._hearing[outlet.minus].discard(key)
            if not self._hearing[outlet.minus]:
                del self._hearing[outlet.minus]
        self._unseat(key, outlet)

    def set_recorder(self, sink: Recorder | None) -> None:
        """``sink(frame, pts)`` gets the whole mix, float32 (960,), read-only by agreement.

        Its pts go up by exactly 960 from call to call: ticks that were left out are given as silence
        (at most 10 s of them).
        """
        self._recorder = sink

    def leave_out_of_recording(self, legs: frozenset[str]) -> None:
        """These voices are not given to the recorder, from the next tick on; the room hears them as before."""
        self._unrecorded = legs

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

        if self._ticks % CHECK_EVERY_TICKS == 0:
            self._check_next(now)
        rows = self._collect(now, skipped)
        summed = total(self._rows[: len(rows)])
        mixed = self._limiter.process(summed) if rows else self._quiet()
        self._room.add(index, mixed, self._contributors(rows))
        self._record(index, self._recorded(mixed, rows), skipped)
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
            "awake": len(self._awake),
            "place_swaps": self._loudest.swaps,
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
        frames: dict[str, Pcm | None] = {}
        for name, leg in self._awake.items():
            if leg.wants_decoding(now):
                frames[name] = leg.take(now, skipped=skipped)
        self._choose(now)
        rows: dict[str, int] = {}
        levels: dict[str, int] = {}
        asleep: list[str] = []
        for name, leg in self._awake.items():
            if name not in frames and not leg.chosen:
                leg.pass_by(now)
            elif (frame := frames[name] if name in frames else leg.take(now)) is not None:
                self._add(name, leg, frame, rows, now)
            else:
                leg.gain = 0.0
            if not leg.muted:
                levels[name] = leg.loudness
            if leg.may_sleep(now):
                asleep.append(name)
        self._speakers.update(levels, now)
        for name in asleep:
            self._awake.pop(name).sleep()
        return rows

    def _choose(self, now: float) -> None:
        """Give the places in the mix to the loudest."""
        heard = {n: leg.loudness for n, leg in self._awake.items() if not leg.muted and leg.audible(now)}
        chosen = self._loudest.update(heard, now)
        for name, leg in self._awake.items():
            leg.chosen = name in chosen

    def _add(self, name: str, leg: InboundLeg, frame: Pcm, rows: dict[str, int], now: float) -> None:
        """The frame of a leg into the matrix, if it is heard in this tick."""
        before = leg.gain
        leg.gain = leg.volume if leg.chosen and leg.gate.open(now) else 0.0
        if before or leg.gain:
            at = rows[name] = len(rows)
            if at == len(self._rows):
                self._rows = np.concatenate((self._rows, np.zeros_like(self._rows)))
            # who takes a place in the middle of a word fades in and out slowly; an onset must not be softened
            self._rows[at] = scaled(frame, before, leg.gain, slowly=leg.late or not leg.gain)
            leg.late = False

    def _check_next(self, now: float) -> None:
        """Wake the next of those that sleep, to see whether its levels still tell the truth."""
        if not self._to_check and now - self._check_round_s >= CHECK_AGAIN_S:
            self._to_check.extend(self._legs)
            self._check_round_s = now
        while self._to_check:
            leg = self._legs.get(self._to_check.popleft())
            if leg is not None and leg.asleep and not leg.muted:
                leg.checked_until = now + CHECK_S
                return

    def _contributors(self, rows: dict[str, int]) -> Contributors:
        if (
            len(rows) > MAX_CONTRIBUTORS
        ):  # places given and taken in one tick: those that fade out are no loss
            rows = dict(list(rows.items())[:MAX_CONTRIBUTORS])
        return tuple((self._legs[name].csrc, self._legs[name].level) for name in rows)

    def _quiet(self) -> Pcm:
        """Nobody is heard: the limiter lets go and all silent frames are one array."""
        self._limiter.gain = 1.0
        return SILENCE

    def _recorded(self, mixed: Pcm, rows: dict[str, int]) -> Pcm:
        """The mix as the recorder gets it: added anew when somebody who is heard must not be in it."""
        if self._recorder is None or self._unrecorded.isdisjoint(rows):
            return mixed
        kept = [row for name, row in rows.items() if name not in self._unrecorded]
        return self._recorded_limiter.process(total(self._rows[kept]))

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
        for name, row in rows.items():
            for key in self._hearing.get(name, ()):
                self._outlets[key].subtract(index, summed, self._rows[row], self._limiter.gain)
        for shared in list(self._shared.values()):
            for number in self._room.due(shared.form.frames):
                self._emit(shared, number)

    def _emit(self, shared: Shared, number: int) -> None:
        """Packet ``number`` to all listeners of one format. A sink may remove outputs; one that raises is counted and
        costs only its own listener.
        """
        plain: EncodedAudio | None = None
        for outlet in tuple(shared.outlets.values()):
            if not outlet.plain:
                packet = outlet.packet(number, self._room)
            elif plain is None:
                packet = plain = shared.packet(number, self._room)
            else:
                packet = plain
            try:
                outlet.sink(packet)
            except Exception:  # somebody else's code: the other listeners must not notice
                outlet.sink_errors += 1

    def _shared_of(self, form: Format) -> Shared:
        if form not in self._shared:
            self._shared[form] = Shared(form)
        return self._shared[form]

    def _unseat(self, key: str, outlet: Outlet) -> None:
        del outlet.shared.outlets[key]
        if not outlet.shared.outlets:
            del self._shared[outlet.shared.form]


def _volume(volume: float) -> float:
    return min(MAX_VOLUME, max(0.0, volume))
