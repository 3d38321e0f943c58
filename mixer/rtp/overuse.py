"""Whether a queue is filling on the way, seen in how packets that left apart arrive further apart.

The delay-based half of draft-ietf-rmcat-gcc-02 (sections 5.2 to 5.4), with a line fitted through the last delays
in place of its Kalman filter, as libwebrtc does since 2016: the same signal, fewer constants to tune.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

Usage = Literal["normal", "overuse", "underuse"]

GROUP_S: Final = 0.005  # section 5.2: packets that leave within 5 ms are one observation
WINDOW: Final = 20  # groups under the line; libwebrtc's trendline window
_SMOOTHING: Final = 0.9  # libwebrtc: kDefaultTrendlineSmoothingCoeff
_GAIN: Final = 4.0  # libwebrtc: kDefaultTrendlineThresholdGain
_MAX_DELTAS: Final = (
    60  # libwebrtc: kMinNumDeltas; so many groups must have come until a slope has its full weight
)
_THRESHOLD_MS: Final = 12.5  # section 5.4: del_var_th(0)
_MIN_THRESHOLD_MS, _MAX_THRESHOLD_MS = 6.0, 600.0  # section 5.4
# a millisecond; section 5.4: K_u and K_d. Its values go with a Kalman filter, libwebrtc's k_up and k_down with a line
_RISE, _FALL = 0.0087, 0.039
_OUTLIER_MS: Final = (
    15.0  # section 5.4, libwebrtc: kMaxAdaptOffsetMs; beyond the threshold by so much: not learned from
)
_OVERUSE_MS: Final = 10.0  # section 5.4: overuse_time_th
_RESTART_S: Final = 3.0  # libwebrtc: kArrivalTimeOffsetThreshold; after a silence or a clock that jumped


@dataclass(slots=True)
class _Group:
    first_sent: float
    last_sent: float
    last_arrived: float


class OveruseDetector:
    """Takes arrivals in order of sending; ``usage`` is what they said when `judge` was called last."""

    def __init__(self) -> None:
        self.usage: Usage = "normal"
        self._threshold_ms = _THRESHOLD_MS
        self._group: _Group | None = None
        self._before: _Group | None = None
        self._points: deque[tuple[float, float]] = deque(maxlen=WINDOW)  # arrival, smoothed delay; ms
        self._origin = 0.0
        self._accumulated = self._smoothed = 0.0
        self._deltas = 0
        self._trend = 0.0
        self._over_ms = 0.0
        self._overs = 0
        self._ended_at = 0.0  # when the last group was sent
        self._judged_at = 0.0

    def arrived(self, sent_at: float, arrived_at: float) -> None:
        """One packet: seconds on our clock, seconds on the receiver's."""
        group = self._group
        if group is None:
            self._group = _Group(sent_at, sent_at, arrived_at)
        elif sent_at < group.first_sent:
            return  # overtaken by a whole group: it would look like a queue that empties
        elif abs(arrived_at - group.last_arrived) > _RESTART_S:
            self._restart()
        elif sent_at - group.first_sent <= GROUP_S:
            group.last_sent = max(group.last_sent, sent_at)
            group.last_arrived = max(group.last_arrived, arrived_at)
        else:
            if self._before is not None:
                self._observe(self._before, group)
            self._before, self._group = group, _Group(sent_at, sent_at, arrived_at)

    def judge(self) -> Usage:
        """What the arrivals so far say; once a report, which costs a fifth of once a group."""
        if self._judged_at < self._ended_at:
            trend = _slope(self._points) if len(self._points) == WINDOW else 0.0
            elapsed_ms = (self._ended_at - self._judged_at) * 1000 if self._judged_at else 0.0
            self._judged_at = self._ended_at
            self._decide(trend, elapsed_ms)
            self._learn(abs(trend * self._deltas * _GAIN), elapsed_ms)
        return self.usage

    def _restart(self) -> None:
        self.usage = "normal"
        self._group = self._before = None
        self._points.clear()
        self._accumulated = self._smoothed = self._trend = self._over_ms = 0.0
        self._deltas = self._overs = 0

    def _observe(self, before: _Group, group: _Group) -> None:
        sent_ms = (group.last_sent - before.last_sent) * 1000
        arrived_ms = (group.last_arrived - before.last_arrived) * 1000
        if not self._deltas:
            self._origin = group.last_arrived
        self._deltas = min(self._deltas + 1, _MAX_DELTAS)
        self._accumulated += arrived_ms - sent_ms
        self._smoothed = _SMOOTHING * self._smoothed + (1 - _SMOOTHING) * self._accumulated
        self._points.append(((group.last_arrived - self._origin) * 1000, self._smoothed))
        self._ended_at = group.last_sent

    def _decide(self, trend: float, elapsed_ms: float) -> None:
        modified = trend * self._deltas * _GAIN
        if modified > self._threshold_ms:
            self._over_ms += elapsed_ms
            if self._over_ms > _OVERUSE_MS and self._overs and trend >= self._trend:
                self.usage = "overuse"
            self._overs += 1
        else:
            self._over_ms, self._overs = 0.0, 0
            self.usage = "underuse" if modified < -self._threshold_ms else "normal"
        self._trend = trend

    def _learn(self, modified: float, elapsed_ms: float) -> None:
        """Section 5.4: a threshold that follows the jitter, so that other traffic does not starve us."""
        if modified > self._threshold_ms + _OUTLIER_MS:
            return
        gain = _FALL if modified < self._threshold_ms else _RISE
        step = gain * (modified - self._threshold_ms) * min(max(elapsed_ms, 0.0), 100.0)
        self._threshold_ms = min(_MAX_THRESHOLD_MS, max(_MIN_THRESHOLD_MS, self._threshold_ms + step))


def _slope(points: deque[tuple[float, float]]) -> float:
    """Least squares; 0 when all came in one instant."""
    origin, count = points[0][0], len(points)
    sum_x = sum_y = sum_xx = sum_xy = 0.0
    for at, y in points:
        x = at - origin
        sum_x += x
        sum_y += y
        sum_xx += x * x
        sum_xy += x * y
    below = count * sum_xx - sum_x * sum_x
    return (count * sum_xy - sum_x * sum_y) / below if below else 0.0
