"""Round trips as a measure of the way out: what was sent before an echo is through when the echo is back. Pure.

A receiver that tells of nothing but losses answers at once when it is called (a connectivity check of ICE, which
every agent must answer: RFC 8445 section 7.3). The call waits in the line's queue like every other packet, so

    queue of an echo   = its round trip - the smallest of late
    what was delivered = bytes sent between two echoes / the time between their answers

The way back is taken to be as it was: its jitter is noise here, its queue would count as ours.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final

from mixer.rtp.bandwidth import BASE_DELAY_S
from mixer.rtp.burst import BurstResult
from mixer.rtp.line import Smallest

MAX_OPEN: Final = 128  # calls without an answer; the oldest are given up
LOST_S: Final = 3.0  # a queue that holds more is not waited for
KEPT: Final = 64  # echoes; 1.3 s of the fastest calling
RECENT_S: Final = 5.0  # echoes before a burst that tell how the line is without it,
RECENT: Final = 7  # so many at most; their median: jitter is no queue of the burst's
_MOST_BEFORE_S: Final = 0.05  # and more than so much over the shortest is a queue
TAIL_S: Final = 0.012  # after a burst: three calls, the best of which is free of jitter
_FEW: Final = 3  # calls whose fate is known: of fewer, one lost by chance would halve what came through
_GIVE_UP_S: Final = (
    1.2  # of answers after a burst: longer than a home router's queue, within `probing.ANSWER_S`
)
MAX_BURSTS: Final = 8  # not settled; the oldest is given up


@dataclass(frozen=True, slots=True)
class Call:
    """One call: ``sent_at`` seconds, ``octets``: sent on the connection before it, headers included."""

    number: int
    sent_at: float
    octets: int


@dataclass(frozen=True, slots=True)
class Echo:
    """One that is back. ``queue_s``: its round trip over the smallest of late."""

    call: Call
    rtt_s: float
    queue_s: float


@dataclass(slots=True)
class _Burst:
    began_at: float
    octets: int
    before_s: float | None  # usual round trip
    ended_at: float | None = None
    octets_at_end: int = 0


class EchoMeter:
    """Calls by number, from 1 up. ``answered``: of all, ``lost``: given up, or overtaken by a later one's answer."""

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}
        self._next = 1
        self._base = Smallest(BASE_DELAY_S)
        self._base_s = float("inf")
        self._echoes: deque[Echo] = deque(maxlen=KEPT)
        self._lost: deque[Call] = deque(maxlen=KEPT)
        self._bursts: dict[int, _Burst] = {}
        self._next_burst = 1
        self.answered = self.lost = 0

    # --- calls

    def call(self, octets: int, now: float) -> int:
        """A call leaves; its number."""
        number = self._next
        self._next += 1
        self._open[number] = Call(number, now, octets)
        if len(self._open) > MAX_OPEN:
            self._give_up(next(iter(self._open)))
        return number

    def answer(self, number: int, now: float) -> Echo | None:
        """A call is back. ``None``: it was given up before."""
        call = self._open.pop(number, None)
        if call is None:
            return None
        for older in [other for other in self._open if other < number]:
            self._give_up(older)
        rtt_s = max(0.0, now - call.sent_at)
        self._base_s = self._base.add(rtt_s, now)
        echo = Echo(call, rtt_s, rtt_s - self._base_s)
        self._echoes.append(echo)
        self.answered += 1
        return echo

    @property
    def newest(self) -> Echo | None:
        """The last one that came back."""
        return self._echoes[-1] if self._echoes else None

    def before(self, sent_at: float) -> Echo | None:
        """The last echo of a call made until ``sent_at``."""
        return next((echo for echo in reversed(self._echoes) if echo.call.sent_at <= sent_at), None)

    def since(self, sent_at: float) -> list[Echo]:
        """Echoes of calls made from ``sent_at`` on, oldest first."""
        return [echo for echo in self._echoes if echo.call.sent_at >= sent_at]

    def through(self, sent_at: float) -> float:
        """The share of the calls made from ``sent_at`` on that came back, of those whose fate is known; 0 to 1."""
        came = sum(echo.call.sent_at >= sent_at for echo in self._echoes)
        lost = sum(call.sent_at >= sent_at for call in self._lost)
        return came / (came + lost) if came + lost >= _FEW else 1.0

    def waiting(self, now: float) -> list[Call]:
        """Calls without an answer yet, oldest first; the too old are given up."""
        for number in [number for number, call in self._open.items() if now - call.sent_at > LOST_S]:
            self._give_up(number)
        return list(self._open.values())

    def overdue_s(self, call: Call, now: float) -> float:
        """How long a call has been waiting beyond the shortest round trip; 0 while none is known."""
        return max(0.0, now - call.sent_at - self._base_s)

    def _give_up(self, number: int) -> None:
        self._lost.append(self._open.pop(number))
        self.lost += 1

    # --- bursts

    def begin_burst(self, octets: int, now: float) -> int:
        """Many packets follow; the number of the burst."""
        if len(self._bursts) >= MAX_BURSTS:
            del self._bursts[next(iter(self._bursts))]
        number = self._next_burst
        self._next_burst += 1
        recent = [echo.rtt_s for echo in self.since(now - RECENT_S)][-RECENT:]
        before_s = median(recent) if recent else None
        self._bursts[number] = _Burst(now, octets, before_s)
        return number

    def end_burst(self, burst: int, octets: int, now: float) -> None:
        """The last of them has left. Calls made within ``TAIL_S`` from now measure it."""
        if (found := self._bursts.get(burst)) is not None:
            found.ended_at, found.octets_at_end = now, octets

    def in_tail(self, now: float) -> bool:
        """Whether a burst has just ended."""
        return any(
            burst.ended_at is not None and now - burst.ended_at <= TAIL_S for burst in self._bursts.values()
        )

    def measuring(self, now: float) -> bool:
        """Whether a burst is being sent, or has just ended."""
        return any(
            burst.ended_at is None or now - burst.ended_at <= TAIL_S for burst in self._bursts.values()
        )

    def results(self, now: float) -> list[BurstResult]:
        """Bursts that are settled since the last call: all calls after them answered, or given up."""
        found: list[BurstResult] = []
        for number, burst in list(self._bursts.items()):
            end = burst.ended_at
            if end is None or now <= end + TAIL_S:
                continue
            open_calls = any(burst.began_at <= call.sent_at <= end + TAIL_S for call in self._open.values())
            if open_calls and now - end < _GIVE_UP_S:
                continue
            del self._bursts[number]
            if (result := self._result(number, burst, end)) is not None:
                found.append(result)
        return found

    def _result(self, number: int, burst: _Burst, end: float) -> BurstResult | None:
        until = end + TAIL_S
        within = [echo for echo in self._echoes if burst.began_at <= echo.call.sent_at <= until]
        lost = sum(burst.began_at <= call.sent_at <= until for call in (*self._lost, *self._open.values()))
        tail = [echo for echo in within if echo.call.sent_at >= end]
        if not tail or end <= burst.began_at:
            return None
        before_s = self._base_s
        if burst.before_s is not None:
            before_s = min(burst.before_s, before_s + _MOST_BEFORE_S)
        sent_s = end - burst.began_at
        sent_bps = (burst.octets_at_end - burst.octets) * 8 / sent_s
        best = min(tail, key=lambda echo: echo.rtt_s)
        late_s = max(0.0, best.rtt_s - before_s)
        elapsed_s = best.call.sent_at - burst.began_at
        return BurstResult(
            number,
            burst.began_at,
            sent_bps=sent_bps,
            arrived_bps=(best.call.octets - burst.octets) * 8 / (elapsed_s + late_s),
            late_s=late_s,
            loss=lost / (lost + len(within)),
        )
