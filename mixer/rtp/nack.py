"""Which lost packets to ask for, when to ask again, and when to stop: a schedule without a clock.

A packet is asked for at once, or on a line that mixes up packets after a moment (it may only be late); again after
a round trip, because requests and repeats get lost like everything else, and then each half of one. After
``GIVE_UP_S`` nobody keeps it any more. When too many are missing at once the path is broken and a keyframe is
cheaper: all are given up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REORDER_S: Final = 0.005  # packets overtaken on their way come within a few milliseconds
MIXED_S: Final = 10.0  # how long a line that mixed up packets is expected to do it again
TWICE_S: Final = 0.02  # to the second request of two: what loses the first one, a burst, may be over by then
GIVE_UP_S: Final = 1.0  # libwebrtc's senders keep packets about this long
MAX_MISSING: Final = 400  # 2.5 s of 1.5 Mbit/s video: no repair will catch up with that
_GUARD_S: Final = 0.01  # above the round trip: the other side's and our own timers
_MIN_RETRY_S: Final = 0.02  # one poll


@dataclass(slots=True)
class _Missing:
    since: float
    ask_at: float
    asks: int = 0
    again_from: float = 0.0  # when the first of the last two requests went out


class NackSchedule:
    """The missing packets of one SSRC, by unwrapped sequence number.

    ``twice``: each request goes out twice, as half of the way to a repeat is the request's, and a burst of losses
    lasts long where little is sent.
    Counters: ``recovered`` packets came after they had been asked for, ``lost`` never came.
    """

    def __init__(
        self, *, max_missing: int = MAX_MISSING, give_up_s: float = GIVE_UP_S, twice: bool = False
    ) -> None:
        self._twice = twice
        self._mixed_until = float("-inf")
        self._max_missing = max_missing
        self._give_up_s = give_up_s
        self._missing: dict[int, _Missing] = {}  # in the order of discovery, so the oldest is first
        self._retry_s = 0.1 + _GUARD_S  # until a round trip is known
        self.recovered = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._missing)

    def set_rtt(self, rtt_s: float) -> None:
        """Ask again after this round trip."""
        self._retry_s = max(_MIN_RETRY_S, rtt_s) + _GUARD_S

    def add(self, first: int, stop: int, now: float) -> bool:
        """Packets ``first`` … ``stop - 1`` were skipped. False: that is too many, all are given up."""
        ask_at = now + REORDER_S if now < self._mixed_until else now
        count = stop - first
        if len(self._missing) + count > self._max_missing:
            self.lost += count
            self.clear()
            return False
        for sequence in range(first, stop):
            self._missing[sequence] = _Missing(now, ask_at)
        return True

    def arrived(self, sequence: int, now: float) -> bool:
        """It came after all, by itself or repeated; whether that is because it was asked for."""
        entry = self._missing.pop(sequence, None)
        if entry is None:
            return False
        if not entry.asks or now - entry.since < self._retry_s / 2:  # no request is answered so fast
            self._mixed_until = now + MIXED_S
            return False
        self.recovered += 1
        return True

    def forget_below(self, sequence: int) -> None:
        """Nobody waits for packets before ``sequence`` any more."""
        if not self._missing:
            return
        for missing in [key for key in self._missing if key < sequence]:
            del self._missing[missing]
            self.lost += 1

    def clear(self) -> None:
        """Nobody waits for anything any more."""
        self.lost += len(self._missing)
        self._missing.clear()

    def expire(self, now: float) -> list[int]:
        """Take out and return those missing for too long, oldest first."""
        expired: list[int] = []
        for sequence, entry in self._missing.items():
            if now - entry.since < self._give_up_s:
                break
            expired.append(sequence)
        for sequence in expired:
            del self._missing[sequence]
        self.lost += len(expired)
        return expired

    def due(self, now: float) -> list[int]:
        """Those to ask for now, ascending; each is armed again for the next round trip, then for each half of one:
        what did not come after a round trip was lost twice already, and the picture stands.
        """
        due: list[int] = []
        for sequence, entry in self._missing.items():
            if now >= entry.ask_at:
                self._arm(entry, now)
                due.append(sequence)
        return sorted(due)

    def _arm(self, entry: _Missing, now: float) -> None:
        entry.asks += 1
        if self._twice and entry.asks % 2:
            entry.again_from = now
            entry.ask_at = now + min(TWICE_S, self._retry_s / 4)
            return
        first = entry.asks <= 1 + self._twice
        since = entry.again_from if self._twice else now
        entry.ask_at = since + (self._retry_s if first else self._retry_s / 2)
