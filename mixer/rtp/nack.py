"""Which lost packets to ask for, when to ask again, and when to stop: a schedule without a clock.

A packet is asked for at once, or on a line that mixes up packets after a moment (it may only be late); again after
a round trip, because requests and repeats get lost like everything else, and then each half of one. After
``GIVE_UP_S`` nobody keeps it any more. When too many are missing at once the path is broken and a keyframe is
cheaper: all are given up.

Who insists sends each request ``ASKS`` times. The way of the requests carries little else, so that a burst of losses
that takes five packets takes five requests; and one that is lost costs a round trip, at which pictures stop. That
costs nothing with senders that repeat nothing twice within a round trip, as browsers do. Those that answer each
request (libdatachannel, so OBS) are known by their echoes, and asked twice.

A line that is full loses repeats like everything else, and the more is asked of a sender that answers everything the
longer it stays full: aiortc on 400 kbit/s stood until the line was opened. So each packet that comes pays for one
request. On a line that loses a tenth five requests a packet take two thirds of that; on one that loses nine tenths
hardly anything is asked for any more, and the keyframe that ends it comes through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REORDER_S: Final = 0.005  # packets overtaken on their way come within a few milliseconds
MIXED_S: Final = 10.0  # how long a line that mixed up packets is expected to do it again
ASKS: Final = 5  # requests of a round; frozen at 10 % in bursts of 5: 3.3 % of the time with 2, 2.0 with 5
FEW_ASKS: Final = 2  # each is answered, so that each costs the packet again: one to spare
AGAIN_S: Final = 0.02  # between two of them: what loses the first one, a burst, may be over by then
CREDIT: Final = 256  # requests that may be ahead of what has come: five for each packet of a burst of fifty
ECHOES: Final = 0.5  # for each repaired packet, from there on the sender answers each request
_ECHO_SHARE: Final = 1 / 16  # the weight of the newest, as of jitter (RFC 3550 section 6.4.1)
_ECHO_MEMORY: Final = 64  # packets repaired last
GIVE_UP_S: Final = 1.0  # libwebrtc's senders keep packets about this long
MAX_MISSING: Final = 400  # 2.5 s of 1.5 Mbit/s video: no repair will catch up with that
_GUARD_S: Final = 0.01  # above the round trip: the other side's and our own timers
_MIN_RETRY_S: Final = 0.02  # one poll


@dataclass(slots=True)
class _Missing:
    since: float
    ask_at: float
    rounds: int = 0
    left: int = 0  # requests of this round that have not gone out
    round_at: float = 0.0


class NackSchedule:
    """The missing packets of one SSRC, by unwrapped sequence number.

    ``insists``: see the module.
    Counters: ``recovered`` packets came after they had been asked for, ``lost`` never came.
    """

    def __init__(
        self, *, max_missing: int = MAX_MISSING, give_up_s: float = GIVE_UP_S, insists: bool = False
    ) -> None:
        self._insists = insists
        self._repaired: dict[int, None] = {}  # lately, the oldest first
        self._echoes: float = 0.0  # repeats beyond the first one, for each packet that was repaired
        self._mixed_until = float("-inf")
        self._max_missing = max_missing
        self._give_up_s = give_up_s
        self._missing: dict[int, _Missing] = {}  # in the order of discovery, so the oldest is first
        self._retry_s = 0.1 + _GUARD_S  # until a round trip is known
        self._credit = CREDIT
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

    def paid(self) -> None:
        """A packet of the stream came, whichever."""
        if self._credit < CREDIT:
            self._credit += 1

    def arrived(self, sequence: int, now: float) -> bool:
        """It came after all, by itself or repeated; whether that is because it was asked for."""
        entry = self._missing.pop(sequence, None)
        if entry is None:
            if sequence in self._repaired:
                self._echoes = min(ASKS, self._echoes + _ECHO_SHARE)
            return False
        if not entry.rounds or now - entry.since < self._retry_s / 2:  # no request is answered so fast
            self._mixed_until = now + MIXED_S
            return False
        self.recovered += 1
        self._echoes -= _ECHO_SHARE * self._echoes
        self._repaired[sequence] = None
        if len(self._repaired) > _ECHO_MEMORY:
            del self._repaired[next(iter(self._repaired))]
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
        what did not come after a round trip was lost twice already, and the picture stands. Where there is not credit
        for all, those that were never asked for go first, and of the rest the oldest.
        """
        due: list[int] = []
        waiting = [(sequence, entry) for sequence, entry in self._missing.items() if now >= entry.ask_at]
        for sequence, entry in sorted(waiting, key=lambda item: item[1].rounds > 0)[: self._credit]:
            self._arm(entry, now)
            due.append(sequence)
        self._credit -= len(due)
        return sorted(due)

    def _arm(self, entry: _Missing, now: float) -> None:
        if entry.left:
            entry.left -= 1
        else:
            entry.rounds += 1
            entry.round_at = now
            entry.left = self._asks - 1
        if entry.left:
            entry.ask_at = now + min(AGAIN_S, self._retry_s / ASKS)
        else:
            wait_s = self._retry_s if entry.rounds == 1 else self._retry_s / 2
            entry.ask_at = max(entry.round_at + wait_s, now + _MIN_RETRY_S)

    @property
    def _asks(self) -> int:
        """Requests of a round."""
        if not self._insists:
            return 1
        return ASKS if self._echoes < ECHOES else FEW_ASKS
