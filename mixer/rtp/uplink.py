"""What the line of a sender carries that steers by REMB or TMMBR alone. Pure: arrivals in, bits a second out.

A sender that hears of each arrival (transport-cc) finds this out itself. For one that does not, we are the only one
who can: what it would make of our reports is made here, by the same `BandwidthEstimator`. Two things are different.

    | here                              | because                                                              |
    | --------------------------------- | -------------------------------------------------------------------- |
    | for 8 s after a fall the rate     | no burst of ours measures the way in: trying is all there is, and it |
    | grows slowly, then fast           | should hurt rarely while a line is narrow, and not last when it isn't |
    | a queue that stays lowers it more | encoders take REMB for their pictures alone, and sound comes on top  |

Without abs-send-time a late picture may be an encoder's doing: until losses have shown that the line was full, delay
alone lowers nothing.
"""

from __future__ import annotations

from typing import Final

from mixer.rtp.bandwidth import BACK_OFF, BandwidthEstimator
from mixer.rtp.departures import Departure
from mixer.rtp.line import STANDING_QUEUE_S
from mixer.rtp.packet import RtpPacket
from mixer.rtp.sendtimes import SendTimes

JUDGE_S: Final = 0.1  # as often as a report of arrivals would go out
MAX_WAITING: Final = (
    2048  # packets between two judgements: 20 times what a camera sends; more are not looked at
)
NEAR_GROWTH: Final = 1.06  # a second: 150 kbit/s are used to 82 to 90 % (tests.fakes.remb_sender)
FAR_GROWTH: Final = 1.7  # a second: from 150 kbit/s to 2 Mbit/s in 5 s
NEAR_S: Final = 8.0  # of slow growth; a line that opens is used again within 15 s
STANDING_S: Final = 1.0  # a round trip, and an encoder's time to follow
_EMPTIES: Final = 1 / 3  # of it a second: one that goes no faster is not waited for
_MOST_LOWERED: Final = 5  # times in a row, to 0.44: a longer way after a change of routes looks like a queue


class UplinkEstimator:
    """See the module. ``stamp_id``: id of abs-send-time's extension, ``None`` where it is not agreed.

    Counter: ``dropped``, packets beyond ``MAX_WAITING`` between two judgements.
    """

    def __init__(self, stamp_id: int | None) -> None:
        self._times = SendTimes(stamp_id)
        self._line = BandwidthEstimator(measured=False, patient=True)
        self._waiting: list[Departure] = []
        self._judge_at = 0.0
        self._number = 0
        self._queue_s = self._queue_before_s = float("inf")  # the shortest of this and of the last STANDING_S
        self._queue_until = 0.0
        self._lowered = 0  # times in a row
        self.dropped = 0

    @property
    def bps(self) -> float | None:
        """Headers of IP and UDP included; ``None`` while nothing speaks against any rate."""
        return self._line.bps

    def arrived(self, packet: RtpPacket, size: int, now: float, *, picture: bool) -> None:
        """A packet of any stream came, ``size`` bytes on the wire. ``picture``: of an agreed video's SSRC."""
        sent_at = self._times.sent_at(packet, now, picture=picture)
        if sent_at is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._number += 1
        self._waiting.append(Departure(self._number, sent_at, size, 0, now))

    def due(self, now: float) -> bool:
        """Whether to `judge` now."""
        return bool(self._waiting) and now >= self._judge_at

    def judge(self, came: int, lost: int, now: float) -> None:
        """Look at what came since the last call: ``came`` packets by the receivers' statistics, ``lost`` missing
        (< 0: late ones came).
        """
        arrived, self._waiting = sorted(self._waiting, key=lambda departure: departure.sent_at), []
        self._judge_at = now + JUDGE_S
        rate = self._line.rate
        if now >= self._queue_until and not rate.congested(now):
            self._look_at_queue(now)
        stands = STANDING_QUEUE_S < self._queue_before_s < float("inf")
        near = now - rate.decreased_at < NEAR_S
        self._line.heard(
            arrived,
            now,
            came=came,
            lost=lost,
            growth=1.0 if stands else NEAR_GROWTH if near else FAR_GROWTH,
            by_loss_alone=not self._times.exact and rate.bps is None,
        )
        self._queue_s = min(self._queue_s, self._line.queue_s)

    def _look_at_queue(self, now: float) -> None:
        """Less, if a queue has stood for ``STANDING_S`` and hardly gets shorter by what was told before."""
        rate, queue_s = self._line.rate, self._queue_s
        if queue_s < STANDING_QUEUE_S:
            self._lowered = 0
        stays = queue_s > (1 - _EMPTIES) * self._queue_before_s
        if queue_s >= STANDING_QUEUE_S and stays and rate.bps is not None and self._lowered < _MOST_LOWERED:
            self._lowered += 1
            rate.decrease(BACK_OFF * rate.bps, now, "standing")
        self._queue_before_s, self._queue_s = queue_s, float("inf")
        self._queue_until = now + STANDING_S
