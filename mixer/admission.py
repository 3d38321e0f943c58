"""Who is let in while others are inside: by what the rooms were measured to use, and what newcomers are going to. Pure.

What somebody costs shows seconds after they were let in, and in those seconds a whole class may have come through a
door that only measures. So everyone who is let in is reckoned with at once, at what the layout's prediction says
(``video.layout.predict_cost``), until the measuring has seen them. A newcomer for whom there is no room gets a 503, and
nobody inside feels it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from mixer.errors import NoCapacity
from mixer.overload import FULL_AT
from mixer.protocol import LoadChanged
from mixer.video.demand import demands
from mixer.video.layout import SOURCE_PX, Cost, LayoutBody, Source, arrange, predict_cost
from mixer.video.rendition import RENDITIONS, Rendition

SHOWS_S: Final = 5.0
# A second for ICE and DTLS, two for an encoder to ramp up, a whole second to be measured, and the way here.

HEEDED: Final = 2.0
# Times the pixels that a sender is asked for: encoders have a few sizes to choose from. Browsers follow within one:
# with 720p for everybody two cores refused the fourteenth of a class, whose pictures take a tenth of that. Who follows
# nothing is measured like everything else, and found in time.

LEG_CORES: Final = 0.003
# Of a further leg: 0.0016 silent, 0.0021 of a viewer at `medium` (bench). Ten at most talk and cost more; with what
# they take, two cores refused the 136th of a conference that was silent.


def newcomer(body: LayoutBody, pictures: int, *, shows: bool, first: bool) -> Cost:
    """What one more costs in a room of ``body`` where ``pictures`` people send theirs. ``shows``: sends one, too.

    ``first``: nothing is composed or encoded yet.
    """
    renditions = (RENDITIONS["high"],)
    after = _predicted(body, pictures + shows, renditions)
    before = Cost(0.0, 0) if first else _predicted(body, pictures, renditions)
    return Cost(
        cpu_cores=LEG_CORES + max(0.0, after.cpu_cores - before.cpu_cores),
        kbps=max(0, after.kbps - before.kbps),
        decoding_cores=max(0.0, after.decoding_cores - before.decoding_cores),
        canvas_cores=max(0.0, after.canvas_cores - before.canvas_cores),
    )


def _predicted(body: LayoutBody, pictures: int, renditions: tuple[Rendition, ...]) -> Cost:
    sources = [Source(str(number), "", "webrtc", has_video=True) for number in range(pictures)]
    tiles, canvas = arrange(body, sources, None), body.canvas
    asked = demands(tiles, (canvas.width, canvas.height, canvas.fps), renditions, "#screen", {})
    sizes = {name: min(SOURCE_PX, round(HEEDED * one.width * one.height)) for name, one in asked.items()}
    return predict_cost(body, tiles, renditions, sizes)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Somebody who was let in ``at``. ``used``, ``pressure``: of the server and of the room, as measured then."""

    room: str
    at: float
    cores: float
    share: float
    used: float
    pressure: float


class Admission:
    """What the rooms say of their load, and who is on the way in. ``cores``: that all rooms together may use;
    ``decoders``: decoding threads of a room. ``now``: seconds, monotonic.

    Places are as many as there is capacity for within ``SHOWS_S``: each has a cost of at least ``LEG_CORES``.
    """

    def __init__(self, cores: float, decoders: int) -> None:
        self._cores = cores
        self._decoders = decoders
        self._loads: dict[str, LoadChanged] = {}  # of the rooms that have a worker
        self._places: list[_Place] = []  # in the order of their coming

    def measured(self, room: str, load: LoadChanged) -> LoadChanged | None:
        """What the room's worker says; returned is what it had said before."""
        before = self._loads.get(room)
        self._loads[room] = load
        return before

    def lost(self, room: str) -> LoadChanged | None:
        """The room has no worker any more; returned is what that said last."""
        self._places = [place for place in self._places if place.room != room]
        return self._loads.pop(room, None)

    @contextmanager
    def place(self, room: str, cost: Cost, now: float) -> Iterator[None]:
        """One more in ``room``, reckoned with from here on; not any more when what is done inside fails.

        Raises ``NoCapacity`` when those inside could feel it. Into a server where nobody is, one may always come.
        """
        place = self._place(room, cost, now)
        self._places.append(place)
        try:
            yield
        except BaseException:
            self._places = [other for other in self._places if other is not place]
            raise

    def _place(self, room: str, cost: Cost, now: float) -> _Place:
        self._places = [place for place in self._places if now - place.at < SHOWS_S]
        load = self._loads.get(room)
        if load is not None and load.full:
            raise NoCapacity(
                f"room {room} is at the limit of what this machine carries ({load.cause}); try again soon"
            )
        used, pressure = sum(load.cores for load in self._loads.values()), load.pressure if load else 0.0
        share = max(cost.canvas_cores, cost.decoding_cores / self._decoders, cost.cpu_cores / self._cores)
        if self._loads or self._places:
            self._refuse_beyond(room, cost.cpu_cores, share, used, pressure)
        return _Place(room, now, cost.cpu_cores, share, used, pressure)

    def _refuse_beyond(self, room: str, cores: float, share: float, used: float, pressure: float) -> None:
        expected = _expected(used, [(place.used, place.cores) for place in self._places])
        if expected + cores >= FULL_AT * self._cores:
            raise NoCapacity(
                f"the rooms of this server use {used:.1f} of its {self._cores:g} cores, {expected + cores:.1f} with "
                "who is coming in; try again soon"
            )
        theirs = [(place.pressure, place.share) for place in self._places if place.room == room]
        if _expected(pressure, theirs) + share >= FULL_AT:
            raise NoCapacity(
                f"room {room} will be at the limit of what this machine carries with who is coming in; "
                "try again soon"
            )


def _expected(measured: float, coming: list[tuple[float, float]]) -> float:
    """What will be measured once all of ``coming`` show: what was measured when each came, and what each costs.

    Part of that may be in the figures already, and is not counted twice: from whoever on it comes to most, it is at
    least what was measured when they came, and they and all after them.
    """
    expected, costs = measured, 0.0
    for before, cost in reversed(coming):
        costs += cost
        expected = max(expected, before + costs)
    return expected
