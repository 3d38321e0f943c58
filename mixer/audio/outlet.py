"""Voices on their way out: who gets the packet that everyone gets, and who needs one of their own.

Whoever contributes nothing to a packet hears the plain mix; one encoder serves them all. Whoever is heard in
it gets the mix without themselves, from an encoder of their own, and stays with that for half a second more,
so that a pause between two words costs no switch. Both encoders have heard nearly the same before a switch:
the one that takes over is primed with the mix that the other has just sent (see ``OpusEncoder.prime``), so
the listener's decoder goes on without a click.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixer.audio.codec import AudioEncoder, make_encoder
from mixer.audio.contributors import Contributors, Naming, csrc_of, loudest
from mixer.audio.mix import SILENCE, Limiter
from mixer.audio.speaker import level_dbov
from mixer.media import FRAME_SAMPLES, AudioCodec, EncodedAudio

Pcm = NDArray[np.float32]
Sink = Callable[[EncodedAudio], None]

PERSONAL_HOLD_TICKS: Final = 25  # 0.5 s
_PRIME_FRAMES: Final = 3  # 60 ms: the longest packet; three short ones are enough to settle an Opus encoder
_HISTORY: Final = 8  # frames: a 60 ms packet, what primes it, and two that come late


class Format(NamedTuple):
    """Outputs of equal format can share packets. ``frames``: 20 ms frames a packet. ``fec``: Opus' in-band FEC.
    ``repeats``: which earlier packets each packet carries again, so many packets back, the farthest first.
    """

    codec: AudioCodec
    frames: int
    bitrate_bps: int
    fec: bool
    repeats: tuple[int, ...] = ()

    @staticmethod
    def of(
        codec: AudioCodec,
        ptime_ms: int,
        bitrate_bps: int,
        *,
        fec: bool = False,
        repeats: tuple[int, ...] = (),
    ) -> Format:
        """``ValueError`` unless ``ptime_ms`` is 20, 40 or 60 (the tick, and Opus' longer frames)."""
        if ptime_ms not in (20, 40, 60):
            raise ValueError(f"packets last 20, 40 or 60 ms, not {ptime_ms}")
        if codec != "opus":
            bitrate_bps, fec, repeats = 64_000, False, ()
        return Format(codec, ptime_ms // 20, bitrate_bps, fec, tuple(sorted(repeats, reverse=True)))


class RoomMix:
    """The plain mix of the last ticks and who was in it, by index; an index that was never ticked is silence."""

    def __init__(self) -> None:
        self._frames: list[Pcm] = [SILENCE] * _HISTORY
        self._contributors: list[Contributors] = [()] * _HISTORY
        self._index = -1
        self._before = -1

    def add(self, index: int, frame: Pcm, contributors: Contributors = ()) -> None:
        self._before, self._index = self._index, index
        gap = min(_HISTORY, index - self._before - 1)
        self._frames = [*self._frames, *[SILENCE] * gap, frame][-_HISTORY:]
        self._contributors = [*self._contributors, *[()] * gap, contributors][-_HISTORY:]

    def __getitem__(self, index: int) -> Pcm:
        at = index - self._index + _HISTORY - 1
        return self._frames[at] if 0 <= at < _HISTORY else SILENCE

    def contributors(self, indexes: range) -> list[Contributors]:
        """Who was in the mix, tick by tick."""
        at = indexes.start - self._index + _HISTORY - 1
        return self._contributors[max(0, at) : max(0, at + len(indexes))]

    def due(self, frames: int) -> list[int]:
        """Numbers of the packets of ``frames`` frames that the last ``add`` completed.

        A packet is left out when all its ticks were, or when it is too old to be remembered.
        """
        oldest = self._index - _HISTORY + 1 + _PRIME_FRAMES
        first = max(self._before + 1, oldest) // frames
        return [
            number
            for number in range(first, (self._index + 1) // frames)
            if number * frames >= oldest
            and (number * frames <= self._before or (number + 1) * frames > self._index)
        ]

    def completed_before(self, frames: int) -> int:
        """Number of the last packet of ``frames`` frames that was complete before the last ``add``."""
        return (self._before + 1) // frames - 1

    def before(self, index: int, frames: int) -> Pcm:
        """The mix up to ``index``, as whole packets of ``frames`` frames, to prime an encoder with."""
        length = _PRIME_FRAMES // frames * frames
        return np.concatenate([self[at] for at in range(index - length, index)])


class _Stream:
    """An encoder that is primed whenever another one made the packet before.

    Ticks that were left out made no packet, so after them it just goes on: priming costs three encodes, which is
    the last thing a machine needs that has just been too late.
    """

    def __init__(self, form: Format) -> None:
        self._form = form
        self._encoder: AudioEncoder = make_encoder(
            form.codec, frames=form.frames, bitrate_bps=form.bitrate_bps, fec=form.fec
        )
        self._naming = Naming(form.frames)
        self._last: int | None = None
        self._coded: dict[int, bytes] = {}  # by number, as far back as packets are repeated
        self.encoded = 0

    def encode(
        self,
        number: int,
        frames: list[Pcm],
        room: RoomMix,
        without: int | None = None,
        before: _Stream | None = None,
    ) -> EncodedAudio:
        """Packet ``number`` of ``frames``; ``without``: the CSRC of who is not in it. ``before``: who made the
        packets that this one did not.
        """
        form = self._form
        if self._last is None or self._last < room.completed_before(form.frames):
            self._encoder.prime(room.before(number * form.frames, form.frames))
        self._last = number
        self.encoded += 1
        pcm = frames[0] if len(frames) == 1 else np.concatenate(frames)
        ticks = room.contributors(range(number * form.frames, (number + 1) * form.frames))
        data = self._encoder.encode(pcm)
        earlier: tuple[tuple[int, bytes], ...] = ()
        if form.repeats:
            earlier = self._earlier(number, before)
            self._coded = {at: old for at, old in self._coded.items() if at >= number - form.repeats[0]}
            self._coded[number] = data
        return EncodedAudio(
            codec=form.codec,
            data=data,
            pts=number * form.frames * FRAME_SAMPLES,
            samples=form.frames * FRAME_SAMPLES,
            level_dbov=level_dbov(pcm),
            contributors=self._naming.of(loudest(ticks, without=without)),
            earlier=earlier,
        )

    def _earlier(self, number: int, before: _Stream | None) -> tuple[tuple[int, bytes], ...]:
        """What packet ``number`` carries again, as far as it is known: samples earlier, and the data."""
        length = self._form.frames * FRAME_SAMPLES
        known = self._coded if before is None else before._coded | self._coded
        return tuple(
            (back * length, known[number - back]) for back in self._form.repeats if number - back in known
        )


class Shared:
    """The packets of one format that everyone gets, made when the first one asks for them."""

    def __init__(self, form: Format) -> None:
        self.form = form
        self.stream: Final = _Stream(form)
        self._made: tuple[int, EncodedAudio] | None = None
        self.outlets: dict[str, Outlet] = {}  # who gets this format

    @property
    def encoded(self) -> int:
        return self.stream.encoded

    def packet(self, number: int, room: RoomMix) -> EncodedAudio:
        """Packet ``number`` of the plain mix."""
        if self._made is None or self._made[0] != number:
            first = number * self.form.frames
            frames = [room[at] for at in range(first, first + self.form.frames)]
            self._made = (number, self.stream.encode(number, frames, room))
        return self._made[1]


class Outlet:
    """One listener. ``minus``: the leg whose voice is left out.

    ``plain`` while nothing sets it apart: it then gets the shared packets, and ``emit`` need not be asked.
    """

    def __init__(self, sink: Sink, minus: str | None, shared: Shared) -> None:
        self.shared = shared
        self.minus = minus
        self.sink = sink
        self.sink_errors = 0
        self.plain = True
        self._csrc = csrc_of(minus) if minus is not None else None
        self._own: dict[int, Pcm] = {}  # by index: the mix without oneself, where it differs from the mix
        self._hold_until = -1
        self._limiter: Limiter | None = None
        self._stream: _Stream | None = None
        self._personal = False

    @property
    def personal(self) -> bool:
        """Whether the last packet was its own."""
        return self._personal and not self.plain

    @property
    def encoded(self) -> int:
        """Packets made for this listener alone."""
        return self._stream.encoded if self._stream else 0

    def subtract(self, index: int, total: Pcm, row: Pcm, room_gain: float) -> None:
        """This listener's own voice is in the mix of tick ``index`` as ``row``; ``total`` is not limited."""
        if self._limiter is None or index > self._hold_until:
            self._limiter = Limiter(room_gain)
        self._own[index] = self._limiter.process(total - row)
        self._hold_until = index + PERSONAL_HOLD_TICKS
        self.plain = False

    def packet(self, number: int, room: RoomMix) -> EncodedAudio:
        """Packet ``number``: its own while it is heard and a little longer, else the shared one."""
        frames = self.shared.form.frames
        indexes = range(number * frames, (number + 1) * frames)
        self._personal = any(at in self._own for at in indexes) or indexes.start <= self._hold_until
        if not self._personal:
            self.plain = not self._own
            return self.shared.packet(number, room)
        pcm = [self._own[at] if at in self._own else room[at] for at in indexes]
        self._own = {at: frame for at, frame in self._own.items() if at > indexes[-1]}
        if self._stream is None:
            self._stream = _Stream(self.shared.form)
        return self._stream.encode(number, pcm, room, self._csrc, self.shared.stream)
