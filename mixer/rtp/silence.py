"""What a peer may have asked for in vain: it is called, and where it does not answer, its requests got lost. Pure.

Who only watches sends little, five to nine packets a second: a burst of losses on the way back takes one request
after the other, the picture stands, and nobody but the viewer knows what it misses. Its silence tells. A call (a
connectivity check of ICE) is answered at once, so that two in a row without an answer mean that whatever else the
peer sent at that time is lost as well. What left between the call before those two and the one after them is then
sent again, unasked.

A late answer is a queue and no loss, and more packets are the last thing that a queue needs: for a while silence
tells nothing then. Nor does it where nothing at all was answered of late: that is an outage.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

CALL_S: Final = 0.035  # between two calls at least, which is each second poll
CALL_BYTES: Final = 124  # a connectivity check with the usual attributes, headers included
CALLS: Final = 0.05  # of what is sent: that much each rendition leaves of its limit on the wire
LOSSY: Final = 0.003  # from that share of lost packets on; with 1 % there were 1.6 times as many stops at 2 %
IN_A_ROW: Final = 2  # one alone may be lost on its way out, and what is lost with it is asked for
MARGIN_S: Final = 0.02  # over the usual round trip: timers of the other side, and ours
OUTAGE_S: Final = 1.0  # without any answer; repeats older than that come too late for every receiver
DISTRUST_S: Final = 5.0  # after an answer that came late
_KEPT_S: Final = 2.0
_SMOOTHING: Final = 1 / 8  # this and the next two: RFC 6298 section 2
_VARIATION_SMOOTHING: Final = 1 / 4
_VARIATIONS: Final = 4


@dataclass(slots=True)
class _Call:
    """``position``: packets sent before it."""

    number: int
    at: float
    position: int
    answered: bool = False
    overdue: bool = False


class Silence:
    """Calls to one peer, and the packets that left around those without an answer.

    A position is a count of the packets sent on one stream: that of the next one. ``late``: answers that came after
    they had been given up.
    """

    def __init__(self) -> None:
        self._calls: deque[_Call] = deque()  # the oldest first
        self._next = 1
        self._answered_at = float("-inf")
        self._trusted_at = float("-inf")
        self._usual_s: float | None = None
        self._variation_s = 0.0
        self._repeated = 0  # packets before this position are not repeated once more
        self.late = 0

    def listening(self, loss: float) -> bool:
        """Whether the peer is to be called, and `due` to be looked at each 20 ms. ``loss``: share, 0 to 1."""
        return loss >= LOSSY

    def due(self, sent_bps: float, now: float) -> bool:
        """Whether it is time for a call, to a peer that is sent ``sent_bps``."""
        called_at = self._calls[-1].at if self._calls else float("-inf")
        return now >= called_at + max(CALL_S, CALL_BYTES * 8 / max(1.0, CALLS * sent_bps))

    def called(self, position: int, now: float) -> int:
        """The peer was called; the number of the call."""
        while self._calls and now - self._calls[0].at > _KEPT_S:
            self._calls.popleft()
        number, self._next = self._next, self._next + 1
        self._calls.append(_Call(number, now, position))
        return number

    def answered(self, number: int, now: float) -> None:
        """The answer to a call."""
        call = next((call for call in self._calls if call.number == number), None)
        if call is None or call.answered:
            return
        call.answered = True
        self._answered_at = now
        if call.overdue:
            self.late += 1
            self._trusted_at = now + DISTRUST_S
        self._learn(now - call.at)

    def suspects(self, position: int, now: float) -> list[range]:
        """Positions of packets to send again now, each only once; ``position``: of the next packet."""
        if self._usual_s is None:
            return []
        patience_s = self._usual_s + max(MARGIN_S, _VARIATIONS * self._variation_s)
        calls, found = list(self._calls), []
        for call in calls:
            call.overdue = not call.answered and now - call.at > patience_s
        first = 0
        while first < len(calls):
            stop = first
            while stop < len(calls) and calls[stop].overdue:
                stop += 1
            if stop - first >= IN_A_ROW:
                start = max(self._repeated, calls[max(0, first - 1)].position)
                end = calls[stop].position if stop < len(calls) else position
                if start < end:
                    self._repeated = end
                    found.append(range(start, end))
            first = stop + 1
        silent = now < self._trusted_at or now - self._answered_at > OUTAGE_S
        return [] if silent else found

    def _learn(self, round_trip_s: float) -> None:
        if self._usual_s is None:
            self._usual_s, self._variation_s = round_trip_s, round_trip_s / 2
            return
        off = abs(self._usual_s - round_trip_s)
        self._variation_s += _VARIATION_SMOOTHING * (off - self._variation_s)
        self._usual_s += _SMOOTHING * (round_trip_s - self._usual_s)
