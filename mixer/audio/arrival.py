"""How late packets arrive: the fastest transit, the spread above it, and the delay that covers it. Pure.

A packet's transit is its arrival time minus its media time. Nobody knows the sender's clock, so only
differences mean anything: the smallest transit of the last ten seconds is the zero, and follows clock
drift by itself, because old minima are forgotten.

Packets that had been lost and were repaired say nothing of the jitter: they come a round trip later, or a packet
or two. While some do, sound waits as long as they take; when they end, that is over within seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mixer.media import AUDIO_CLOCK_HZ

MIN_TARGET: Final = 1_920  # 40 ms: two ticks, one for the packet and one for our own tick's lateness
MAX_TARGET: Final = 5_760  # 120 ms: beyond it delay hurts conversation more (ITU-T G.114) than loss does
MAX_FLOOR: Final = (
    9_600  # 200 ms: what a voice waits for its speaker's picture at most, or for its own repairs
)

# Ten seconds: within them clocks that run 200 ppm apart move by 2 ms, and a line seldom has no fast packet at all.
_BUCKET_S: Final = 1.0
_BUCKETS: Final = 10
_SPREAD_PACKETS: Final = 256  # about five seconds of 20 ms packets
_COVERED: Final = 0.97  # of the packets are in time; concealment is better than the rest's delay
_MARGIN: Final = 960  # 20 ms above that, since we look only once a tick
_REVIEW_S: Final = 0.25  # 256 transits are sorted each time; a delay falls by 2.5 ms meanwhile
_FALL_PER_S: Final = 480  # 10 ms a second: rise at once, fall slowly
_REPAIR_MEMORY_S: Final = 4.0  # a line that loses 2 % of 50 packets has one to repair each second ...
_REPAIRS: Final = 2  # ... and one alone may be an accident
_REPAIR_FALL_PER_S: Final = 2_880  # 60 ms a second: about what a voice is shortened by


class Arrivals:
    """Arrival statistics of one RTP source. Times are samples at 48 kHz; ``now`` is seconds."""

    def __init__(self) -> None:
        self._minima: deque[tuple[float, float]] = deque(maxlen=_BUCKETS)  # (start of its second, minimum)
        self._transits: deque[float] = deque(maxlen=_SPREAD_PACKETS)
        self._reviewed_s = 0.0
        self.base: float = 0.0
        self.floor = 0
        self._repairs: deque[tuple[float, float]] = deque(maxlen=_SPREAD_PACKETS)  # when, how late
        self._repair: float = 0.0
        self._spread: int = MIN_TARGET
        self.jitter: float = 0.0  # RFC 3550 section 6.4.1, in samples

    @property
    def target(self) -> int:
        """The delay to aim at: what the jitter needs, and the repairs, and not less than ``floor``."""
        return max(self._spread, self.floor, int(self._repair))

    @property
    def known(self) -> bool:
        """Whether any packet has been seen since the last reset."""
        return bool(self._minima)

    def add(self, start: int, now: float) -> float:
        """Count a packet whose first sample is ``start``; returns how much later than the fastest it came."""
        transit = now * AUDIO_CLOCK_HZ - start
        if self._transits:
            self.jitter += (abs(transit - self._transits[-1]) - self.jitter) / 16
        self._transits.append(transit)
        if not self._minima or now - self._minima[-1][0] >= _BUCKET_S:
            self._minima.append((now, transit))
            self.base = min(minimum for _, minimum in self._minima)
        elif transit < self._minima[-1][1]:
            self._minima[-1] = (self._minima[-1][0], transit)
            self.base = min(self.base, transit)
        if now - self._reviewed_s >= _REVIEW_S:
            self._review(now)
        return transit - self.base

    def add_repaired(self, start: int, now: float) -> None:
        """Count a packet that had been lost. Repairs that take longer than anybody waits are not waited for."""
        late = self.late_by(start, now)
        if late + _MARGIN <= MAX_FLOOR:
            self._repairs.append((now, late))
            self._wait_for_repairs(now)

    def late_by(self, start: int, now: float) -> float:
        """How much later than the fastest a packet would be, without counting it. May be negative."""
        return now * AUDIO_CLOCK_HZ - start - self.base

    def reset(self) -> None:
        """Another clock from here on; the target is kept, the network is still the same."""
        self._minima.clear()
        self._transits.clear()

    def _wait_for_repairs(self, now: float) -> None:
        repairs = self._repairs
        while repairs and now - repairs[0][0] > _REPAIR_MEMORY_S:
            repairs.popleft()
        if len(repairs) >= _REPAIRS:
            self._repair = max(self._repair, max(late for _, late in repairs) + _MARGIN)

    def _review(self, now: float) -> None:
        fallen = self._repair - _REPAIR_FALL_PER_S * min(1.0, now - self._reviewed_s)
        self._repair = max(0.0, fallen)
        self._wait_for_repairs(now)
        ordered = sorted(self._transits)
        needed = ordered[int(_COVERED * (len(ordered) - 1))] - self.base + _MARGIN
        fallen = self._spread - _FALL_PER_S * min(1.0, now - self._reviewed_s)
        self._spread = int(min(MAX_TARGET, max(MIN_TARGET, needed, fallen)))
        self._reviewed_s = now
