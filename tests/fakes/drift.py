"""A sender whose clocks run apart: voice, camera and NTP each at a rate of its own, over a network that jitters.

Times are seconds of the room. Everything comes from a seed, and hours pass in seconds.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

PPM: Final = 1e-6
_EPOCH_S: Final = 3.9e9  # of the sender's NTP clock, at the room's zero
_SOUND_AT: Final = (1 << 32) - 48_000  # timestamps wrap after a second
_PICTURE_AT: Final = 12_345


@dataclass(frozen=True)
class Arrival:
    """A packet of sound or a whole picture: when it was taken, when it came, and its timestamp, unwrapped."""

    kind: Literal["voice", "camera"]
    taken: float
    arrived: float
    rtp: int
    number: int


class DriftingSender:
    """``sound_ppm``, ``picture_ppm``, ``ntp_ppm``: how much faster than the room's clock each of its clocks runs."""

    def __init__(
        self,
        *,
        seed: int,
        sound_ppm: float,
        picture_ppm: float,
        ntp_ppm: float,
        sound_hz: int = 48_000,
        fps: float = 30.0,
        report_s: float = 5.0,
        report_noise_s: float = 0.001,
        picture_delay_s: float = 0.04,
        jitter_s: float = 0.005,
    ) -> None:
        self._random = random.Random(seed)
        self._sound_rate = sound_hz * (1 + sound_ppm * PPM)
        self._picture_rate = 90_000 * (1 + picture_ppm * PPM)
        self._ntp_rate = 1 + ntp_ppm * PPM
        self.sound_hz = sound_hz
        self._fps = fps
        self._report_s = report_s
        self._noise_s = report_noise_s
        self._picture_delay_s = picture_delay_s
        self._jitter_s = jitter_s
        self._reports: dict[str, tuple[float, int]] = {}
        self._reported = -1

    def arrivals(self, until_s: float, *, every: int = 1) -> Iterator[Arrival]:
        """All that comes until then, in order of arrival. ``every``: of so many packets and pictures, one."""
        waiting: list[tuple[float, int, Arrival]] = []
        order = itertools.count()
        for made in heapq.merge(self._sounds(every), self._pictures(every), key=lambda a: a.taken):
            while waiting and waiting[0][0] <= made.taken:
                arrival = heapq.heappop(waiting)[2]
                self._report(arrival.arrived)
                yield arrival
            if made.taken > until_s:
                return
            heapq.heappush(waiting, (made.arrived, next(order), made))

    def taken_s(self, kind: str, rtp: int) -> float | None:
        """As ``Peer.sender_time``: by the latest report."""
        report = self._reports.get(kind)
        if report is None:
            return None
        rate = self.sound_hz if kind == "voice" else 90_000
        return report[0] + (rtp - report[1]) / rate

    def sound_taken(self, rtp: int) -> float:
        """When the sample of that timestamp was really taken."""
        return (rtp - _SOUND_AT) / self._sound_rate

    def _sounds(self, every: int) -> Iterator[Arrival]:
        step = self.sound_hz // 50
        for number in itertools.count(0, every):
            taken = number * step / self._sound_rate
            yield Arrival("voice", taken, taken + 0.02 + self._way(0.01), _SOUND_AT + number * step, number)

    def _pictures(self, every: int) -> Iterator[Arrival]:
        for number in itertools.count(0, every):
            taken = number / self._fps
            rtp = _PICTURE_AT + round(taken * self._picture_rate)
            yield Arrival("camera", taken, taken + self._way(0.01 + self._picture_delay_s), rtp, number)

    def _way(self, least_s: float) -> float:
        return least_s + min(0.1, self._random.expovariate(1 / self._jitter_s))

    def _report(self, now: float) -> None:
        number = int(now / self._report_s)
        if number == self._reported:
            return
        self._reported = number
        ntp = _EPOCH_S + now * self._ntp_rate
        for kind, rate, start in (
            ("voice", self._sound_rate, _SOUND_AT),
            ("camera", self._picture_rate, _PICTURE_AT),
        ):
            noise = self._random.uniform(-self._noise_s, self._noise_s)
            self._reports[kind] = ntp + noise, start + round(now * rate)
