"""How fast a burst of packets came through: what a line can carry, measured without filling it for long.

A keyframe leaves as a burst anyway and so measures for nothing; padding makes one where there is no keyframe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mixer.rtp.departures import Departure

MAX_OPEN: Final = 8  # bursts not settled; the oldest is given up
MIN_ARRIVED: Final = 4  # packets; fewer have no rate
GIVE_UP_S: Final = 1.0  # after its end: reports come ten times a second
_MIN_SPAN_S: Final = 0.002  # timers and sockets deliver in heaps: shorter is as good as no time
SATURATED: Final = 0.9  # arriving slower than this share of the sending rate, the line was full


@dataclass(frozen=True, slots=True)
class BurstResult:
    """``sent_bps``, ``arrived_bps``: the two rates of what arrived. ``late_s``: how much longer it took to arrive
    than to leave. ``loss``: share of the burst, 0 to 1.
    """

    burst: int
    began_at: float
    sent_bps: float
    arrived_bps: float
    late_s: float
    loss: float

    @property
    def saturated(self) -> bool:
        """The line was the limit, not the burst."""
        return self.arrived_bps < SATURATED * self.sent_bps

    @property
    def bps(self) -> float:
        """What the line carried."""
        return min(self.sent_bps, self.arrived_bps)


@dataclass(slots=True)
class _Burst:
    began_at: float
    sent: int = 0
    ended_at: float | None = None
    lost: int = 0
    arrived: int = 0
    octets: int = 0
    first: Departure | None = None
    last: Departure | None = None
    first_arrival: float = float("inf")
    last_arrival: float = float("-inf")


class BurstMeter:
    """Bursts by number, from 1 up; ``given_up`` counts those that were never settled."""

    def __init__(self) -> None:
        self._open: dict[int, _Burst] = {}
        self._next = 1
        self.given_up = 0

    def begin(self, now: float) -> int:
        """A new burst; its number goes along with each of its packets."""
        if len(self._open) >= MAX_OPEN:
            del self._open[next(iter(self._open))]
            self.given_up += 1
        number = self._next
        self._next += 1
        self._open[number] = _Burst(now)
        return number

    def sent(self, burst: int) -> None:
        """One packet of the burst left."""
        if (found := self._open.get(burst)) is not None:
            found.sent += 1

    def end(self, burst: int, now: float) -> None:
        """The last packet left."""
        if (found := self._open.get(burst)) is not None:
            found.ended_at = now

    def arrived(self, departure: Departure) -> None:
        """A packet of any burst arrived, in order of sending."""
        found = self._open.get(departure.burst)
        if found is None or departure.arrived_at is None:
            return
        found.lost -= departure.reported_lost
        found.arrived += 1
        found.octets += departure.size
        found.first = found.first or departure
        found.last = departure
        found.first_arrival = min(found.first_arrival, departure.arrived_at)
        found.last_arrival = max(found.last_arrival, departure.arrived_at)

    def lost(self, departure: Departure) -> None:
        """A packet of any burst is reported lost."""
        if (found := self._open.get(departure.burst)) is not None:
            found.lost += 1

    def results(self, now: float) -> list[BurstResult]:
        """Bursts that are settled since the last call: all of their packets, or a second after their end."""
        found: list[BurstResult] = []
        for number, burst in list(self._open.items()):
            if burst.ended_at is None:
                continue
            settled = burst.arrived + burst.lost >= burst.sent
            if not settled and now - burst.ended_at < GIVE_UP_S:
                continue
            del self._open[number]
            if burst.arrived < MIN_ARRIVED:
                self.given_up += 1
            else:
                found.append(_result(number, burst))
        return found


def _result(number: int, burst: _Burst) -> BurstResult:
    first, last = burst.first, burst.last
    assert first is not None  # noqa: S101 - MIN_ARRIVED packets arrived
    assert last is not None  # noqa: S101
    sent_s = max(_MIN_SPAN_S, last.sent_at - first.sent_at)
    arrived_s = max(_MIN_SPAN_S, burst.last_arrival - burst.first_arrival)
    return BurstResult(
        number,
        burst.began_at,
        sent_bps=(burst.octets - last.size) * 8 / sent_s,
        arrived_bps=(burst.octets - first.size) * 8 / arrived_s,
        late_s=arrived_s - sent_s,
        loss=1 - burst.arrived / burst.sent,
    )
