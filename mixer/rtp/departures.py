"""What we sent and when, matched with what the receiver says came (transport-wide feedback)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mixer.rtp.twcc import REFERENCE_S, TICK_S, TransportFeedback
from mixer.rtp.unwrap import Unwrapper

MAX_IN_FLIGHT: Final = 2048  # packets; 6 s of the fastest stream: nobody reports that late


@dataclass(slots=True)
class Departure:
    """One packet: ``sent_at`` seconds on our clock, ``arrived_at`` on the receiver's, ``size`` bytes on the wire,
    headers included. ``burst``: the number of the burst it was part of, 0 for none.
    """

    number: int
    sent_at: float
    size: int
    burst: int
    arrived_at: float | None = None
    reported_lost: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One report, resolved: ``arrived`` in order of sending, ``lost`` for the first time."""

    arrived: list[Departure]
    lost: list[Departure]


class Departures:
    """Numbers the packets of one connection, all SSRCs, and remembers them until they are reported.

    Bound: ``MAX_IN_FLIGHT``; the oldest are forgotten, counted in ``forgotten``.
    """

    def __init__(self) -> None:
        self._next = 0
        self._in_flight: dict[int, Departure] = {}
        self._reference = Unwrapper(24)
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._in_flight)

    @property
    def next(self) -> int:
        """The endless number of the next packet."""
        return self._next

    def depart(self, size: int, now: float, burst: int = 0) -> int:
        """A packet of ``size`` bytes leaves; its transport-wide number, 16 bit."""
        number = self._next
        self._next += 1
        self._in_flight[number] = Departure(number, now, size, burst)
        if len(self._in_flight) > MAX_IN_FLIGHT:
            del self._in_flight[next(iter(self._in_flight))]
            self.forgotten += 1
        return number & 0xFFFF

    def resolve(self, feedback: TransportFeedback) -> Outcome:
        """What a report (untrusted) says of packets that are not settled yet; numbers never sent are ignored."""
        arrived: list[Departure] = []
        lost: list[Departure] = []
        for number, arrived_at in self._statuses(feedback):
            departure = self._in_flight.get(number)
            if departure is None:
                continue
            if arrived_at is not None:
                departure.arrived_at = arrived_at
                arrived.append(departure)
                del self._in_flight[number]
            elif not departure.reported_lost:  # kept: it may only be late
                departure.reported_lost = True
                lost.append(departure)
        return Outcome(arrived, lost)

    def _statuses(self, feedback: TransportFeedback) -> Iterator[tuple[int, float | None]]:
        newest = self._next - 1
        base = newest - (newest - feedback.base_sequence & 0xFFFF)
        clock = self._reference.unwrap(feedback.reference_time) * REFERENCE_S
        for number, delta in enumerate(feedback.deltas, base):
            if delta is None:
                yield number, None
            else:
                clock += delta * TICK_S
                yield number, clock
