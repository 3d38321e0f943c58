"""Which voices are mixed when more are heard than anyone can follow: the loudest few, kept with patience. Pure.

A place is taken at once while one is free, so up to ``PLACES`` voices nothing here is noticed. When all are
taken, someone louder must be so for a while, and only a holder that has had its place for a second gives it up:
nobody is cut off between two syllables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

PLACES: Final = 10
# More voices at once are a murmur (OWT mixes three; FreeSWITCH and Janus all, and drown). With ten nobody is left out
# in a room of eight, nor in a whole 3×3 grid: the choice begins with the eleventh voice at once. They bound the dear
# part of a tick, one decode and one own encode each, to some 2.5 ms.

HOLD_S: Final = 1.0  # whoever has a place keeps it at least so long: a word, not a syllable
CHALLENGE_S: Final = 0.4  # a cough is shorter, even as slowly as its loudness is forgotten
CHALLENGE_DB: Final = 3.0  # louder than the quietest holder; less is not heard as louder
_RISE_S: Final = 0.06  # loudness follows an onset within a few frames ...
_FALL_S: Final = 0.5  # ... and forgets it slowly: pauses between syllables last 0.1 to 0.3 s


@dataclass(slots=True)
class _Voice:
    loudness_db: float  # as -dBov, like the levels: less is louder
    since_s: float | None = None  # when it got its place
    louder_since_s: float | None = None  # when it began to be louder than the quietest holder


class Loudest:
    """See the module. At most ``places`` voices have a place."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._voices: dict[str, _Voice] = {}
        self._holders: set[str] = set()
        self._updated_s: float | None = None
        self.swaps = 0

    def update(self, levels: Mapping[str, int], now: float) -> Collection[str]:
        """Who is mixed in this tick. ``levels``: all that can be heard (RFC 6464); who is missing has stopped."""
        elapsed_s = 0.02 if self._updated_s is None else max(0.0, now - self._updated_s)
        self._updated_s = now
        for leg in [leg for leg in self._voices if leg not in levels]:
            del self._voices[leg]
            self._holders.discard(leg)
        for leg, level in levels.items():
            self._follow(leg, level, elapsed_s)
        waiting = [leg for leg in self._voices if leg not in self._holders]
        if waiting:
            waiting.sort(key=lambda leg: self._voices[leg].loudness_db)
            self._admit(waiting, now)
        return self._holders

    def _follow(self, leg: str, level: int, elapsed_s: float) -> None:
        voice = self._voices.get(leg)
        if voice is None:
            self._voices[leg] = _Voice(level)
            return
        constant_s = _RISE_S if level < voice.loudness_db else _FALL_S
        voice.loudness_db += (level - voice.loudness_db) * min(1.0, elapsed_s / constant_s)

    def _admit(self, waiting: list[str], now: float) -> None:
        """Fill free places; else let the loudest that waits have the quietest holder's, if it earned it."""
        while waiting and len(self._holders) < self._places:
            self._seat(waiting.pop(0), now)
        if not waiting:
            return
        quietest = max(self._holders, key=lambda leg: self._voices[leg].loudness_db)
        bar_db = self._voices[quietest].loudness_db - CHALLENGE_DB
        for leg in waiting:
            voice = self._voices[leg]
            if voice.loudness_db > bar_db:
                voice.louder_since_s = None
            elif voice.louder_since_s is None:
                voice.louder_since_s = now
        challenger = self._voices[waiting[0]]
        taken_s = self._voices[quietest].since_s
        if (
            challenger.louder_since_s is not None
            and now - challenger.louder_since_s >= CHALLENGE_S - 1e-6
            and taken_s is not None
            and now - taken_s >= HOLD_S - 1e-6
        ):
            self._holders.discard(quietest)
            self._voices[quietest].since_s = None
            self._seat(waiting[0], now)
            self.swaps += 1

    def _seat(self, leg: str, now: float) -> None:
        voice = self._voices[leg]
        voice.since_s, voice.louder_since_s = now, None
        self._holders.add(leg)
