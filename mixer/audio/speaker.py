"""Who is heard and who has the floor. Pure: levels and time go in.

Levels are those of RFC 6464: the RMS of a frame in -dBov, so 0 is the loudest possible and 127 silence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SILENT_DBOV: Final = 127  # RFC 6464 section 3: digital silence, or quieter than -126 dBov

GATE_DBOV: Final = 64  # quieter than a microphone's noise in a quiet room: nothing that anyone misses
GATE_HOLD_S: Final = 0.8  # FreeSWITCH closes its gate after 800 ms too; shorter chops syllables

SPEAKING_DBOV: Final = 40  # louder than -40 dBov is speech, whatever the noise
FAINT_DBOV: Final = 55  # quieter than -55 dBov never is
NOISE_MARGIN_DB: Final = 10  # between the two: so far above the leg's own background
SPEAKING_HOLD_S: Final = 0.8
_NOISE_RISE_DB_PER_S: Final = 3.0  # background is the lowest level lately: falls at once, rises slowly

FLOOR_HOLD_S: Final = 2.0  # whoever has the floor keeps it at least so long (Medooze holds 2 s as well)
CHALLENGE_S: Final = 0.4  # a cough is shorter
CHALLENGE_DB: Final = 3.0  # louder than a holder who is still speaking
_LOUDNESS_S: Final = 0.5  # time constant of the loudness that is compared


def level_dbov(pcm: NDArray[np.float32]) -> int:
    """RFC 6464 level of a float frame, 0 (full-scale square wave) to 127 (silence)."""
    return power_dbov(float(np.dot(pcm, pcm)) / len(pcm)) if len(pcm) else SILENT_DBOV


def power_dbov(mean_square: float) -> int:
    """RFC 6464 level of a mean square (full scale 1.0). NaN counts as silence."""
    if not mean_square > 1e-13:
        return SILENT_DBOV
    return min(SILENT_DBOV, max(0, round(-10 * math.log10(mean_square))))


class Gate:
    """Whether a leg is mixed: opens with the first frame that can be heard, closes 0.8 s after the last.

    Those behind a closed gate hear exactly what everyone hears, so one encoder serves them all.
    """

    def __init__(self) -> None:
        self._heard_s = -math.inf

    def update(self, level: int, now: float) -> bool:
        """Take the level of one frame; whether it is mixed."""
        if level <= GATE_DBOV:
            self._heard_s = now
        return self.open(now)

    def open(self, now: float) -> bool:
        """Whether it is open at ``now``."""
        return now - self._heard_s < GATE_HOLD_S


class _Voice:
    """What is known of one leg."""

    def __init__(self, place: int) -> None:
        self.place = place  # in the order of arrival
        self.noise_db: float = SILENT_DBOV  # as -dBov, like the levels
        self.loudness_db: float = SILENT_DBOV
        self.since_s: float | None = None  # when this stretch of speech began
        self.last_s = -math.inf

    def update(self, level: int, elapsed_s: float, now: float) -> None:
        self.noise_db = max(float(level), self.noise_db - _NOISE_RISE_DB_PER_S * elapsed_s)
        share = min(1.0, elapsed_s / _LOUDNESS_S)
        self.loudness_db += (level - self.loudness_db) * share
        threshold = min(max(self.noise_db - NOISE_MARGIN_DB, SPEAKING_DBOV), FAINT_DBOV)
        if level <= threshold:
            self.last_s = now
            if self.since_s is None:
                self.since_s = now
        elif now - self.last_s >= SPEAKING_HOLD_S:
            self.since_s = None

    def spoken_s(self, now: float) -> float:
        """Length of this stretch of speech, 0.0 when silent."""
        return 0.0 if self.since_s is None else now - self.since_s

    def speaks(self, now: float) -> bool:
        return self.since_s is not None and now - self.last_s < SPEAKING_HOLD_S


class Speakers:
    """Speaking flags (held 0.8 s) and the active speaker (kept at least 2 s).

    The floor goes to whoever has been speaking for 0.4 s, once its holder has had it for 2 s and either is
    silent or is 3 dB quieter. A holder who falls silent keeps it until someone takes it: pictures rest.
    """

    def __init__(self) -> None:
        self._voices: dict[str, _Voice] = {}
        self._places = itertools.count()
        self._lively: dict[
            str, _Voice
        ] = {}  # those that spoke a moment ago, or had a level in the last update
        self._speaking: tuple[str, ...] = ()
        self._holder: str | None = None
        self._taken_s = -math.inf
        self._updated_s: float | None = None

    def remove(self, leg: str) -> None:
        """The leg has left; if it had the floor, the next update gives it away."""
        self._voices.pop(leg, None)
        self._lively.pop(leg, None)
        self._speaking = tuple(name for name in self._speaking if name != leg)
        if self._holder == leg:
            self._holder = None

    def update(self, levels: Mapping[str, int], now: float) -> None:
        """Take the levels of one tick; a leg that is not in ``levels`` counts as silent and costs nothing."""
        elapsed_s = 0.02 if self._updated_s is None else max(0.0, now - self._updated_s)
        self._updated_s = now
        for leg in levels:
            if leg not in self._lively:
                self._lively[leg] = self._voice(leg)
        for leg, voice in list(self._lively.items()):
            voice.update(levels.get(leg, SILENT_DBOV), elapsed_s, now)
            if leg not in levels and voice.since_s is None:
                del self._lively[leg]
        speakers = [(voice.place, leg) for leg, voice in self._lively.items() if voice.speaks(now)]
        self._speaking = tuple(leg for _, leg in sorted(speakers))
        self._award(now)

    def speaking(self) -> Sequence[str]:
        """Those who speak or did 0.8 s ago, in the order of their arrival."""
        return self._speaking

    def active(self) -> str | None:
        """Who has the floor; None until someone has spoken."""
        return self._holder

    def _voice(self, leg: str) -> _Voice:
        if leg not in self._voices:
            self._voices[leg] = _Voice(next(self._places))
        return self._voices[leg]

    def _award(self, now: float) -> None:
        ready = [
            (self._voices[leg].loudness_db, leg)
            for leg in self._speaking
            if leg != self._holder and self._voices[leg].spoken_s(now) >= CHALLENGE_S - 1e-6
        ]
        if not ready:
            return
        loudness_db, challenger = min(ready)
        if self._holder is not None:
            if now - self._taken_s < FLOOR_HOLD_S - 1e-6:
                return
            holder = self._voices[self._holder]
            if holder.speaks(now) and loudness_db > holder.loudness_db - CHALLENGE_DB:
                return
        self._holder = challenger
        self._taken_s = now
