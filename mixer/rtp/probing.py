"""When to try whether a line carries more than is sent on it, and with how much padding.

What a mixer sends is as much as the rendition takes and no more, so a line that has recovered would never be
noticed. A short burst comes first: it costs a narrow line a tenth of a second of queue. Only if it came through
at its own speed, a longer one follows, which a router's burst allowance does not carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mixer.rtp.burst import BurstResult

INTERVAL_S: Final = 6.0  # between tries; a line that recovers is found within 15 s, a rung after the other
SETTLE_S: Final = 4.0  # after congestion, until the first try
MARGIN: Final = 1.08  # tried above what is wanted: what arrives is measured a little lower
GRACE_S: Final = 0.5  # after a try, until the queue that it made is gone
ANSWER_S: Final = 2.0  # a try without a result until then has failed
MAX_PADDING: Final = 255  # bytes, RFC 3550 section 5.1: the last byte counts them
_PASSED: Final = 0.88  # of the sending rate must arrive: with `MARGIN` on top, 0.95 of what is wanted
_MAX_LOSS: Final = 0.25  # as `line.VERY_LOSSY`: a radio loses less
_THIN: Final = 0.6  # of the rate tried: what came through thinner proves too little
_JITTER_S: Final = 0.025  # half a short burst; the long one tells jitter and a queue apart

Stage = Literal["idle", "short", "long"]

_DURATION_S: Final[dict[Stage, float]] = {"short": 0.05, "long": 0.25}
_MIN_PACKETS: Final = 6  # of a try: two may be lost, and `burst.MIN_ARRIVED` still have a rate


@dataclass(slots=True)
class _Try:
    burst: int
    began_at: float
    bps: float
    octets: int  # sent on the whole connection when it began
    ended_at: float | None = None
    filled: bool = False  # all its padding has been given out


class Prober:
    """Says how much padding to send when; ``wanted_bps`` is the rate that somebody would like to use."""

    def __init__(self) -> None:
        self.wanted_bps: int | None = None
        self.tries = 0
        self.passed = 0
        self._stage: Stage = "idle"
        self._try: _Try | None = None
        self._next_at = float("-inf")
        self._quiet_until = float("-inf")

    @property
    def sending(self) -> int | None:
        """The number of the burst that is being sent; all packets of the connection belong to it."""
        return self._try.burst if self._try is not None and self._try.ended_at is None else None

    def owns(self, burst: int) -> bool:
        """Whether a burst is the present try's."""
        return self._try is not None and self._try.burst == burst

    def disturbs(self, now: float) -> bool:
        """Whether a growing delay may be our own doing."""
        return self._try is not None or now < self._quiet_until

    def wait(self, until: float) -> None:
        """No try before ``until``."""
        self._next_at = max(self._next_at, until)

    def congested(self, now: float) -> None:
        """The line is full: give up a try, and make none for a while."""
        if self._try is not None:
            self._over(now + INTERVAL_S, now)
        self.wait(now + SETTLE_S)

    def due(self, estimate_bps: float | None, now: float) -> bool:
        """Whether to `begin` a try now."""
        if self._try is not None or self.wanted_bps is None:
            return False
        return now >= self._next_at and (estimate_bps is None or estimate_bps < self.wanted_bps)

    def begin(self, burst: int, octets: int, now: float) -> None:
        """Start the short burst. ``octets``: sent on the connection so far, headers included."""
        if self._stage == "idle":
            self._stage = "short"
            self.tries += 1
        self._try = _Try(burst, now, MARGIN * (self.wanted_bps or 0), octets)

    def padding(self, octets: int, header: int, now: float) -> list[int]:
        """Sizes of the padding packets to send now, without their ``header`` bytes. ``[]``: none, or not yet."""
        attempt = self._try
        if attempt is None or attempt.filled:
            return []
        duration_s = _DURATION_S[self._stage]
        total = attempt.bps * duration_s / 8
        size = round(min(MAX_PADDING, max(1.0, total / _MIN_PACKETS - header)))
        elapsed_s = min(now - attempt.began_at, duration_s)
        attempt.filled = elapsed_s >= duration_s
        missing = attempt.bps * elapsed_s / 8 - (octets - attempt.octets)
        return [size] * int(missing / (size + header))

    def ended(self, now: float) -> int | None:
        """The number of a burst that has just lasted long enough."""
        attempt = self._try
        if attempt is None or attempt.ended_at is not None:
            return None
        if now - attempt.began_at < _DURATION_S[self._stage]:
            return None
        attempt.ended_at = now
        return attempt.burst

    def result(self, result: BurstResult, now: float) -> bool:
        """Take the result of a burst that it `owns`; ``True`` when the line has proved to carry what was wanted."""
        attempt = self._try
        if attempt is None:
            return False
        jitter = self._stage == "short" and result.late_s < _JITTER_S
        thin = result.sent_bps < _THIN * attempt.bps  # there was not enough to send
        if thin or result.loss > _MAX_LOSS or (result.arrived_bps < _PASSED * result.sent_bps and not jitter):
            self._over(now + INTERVAL_S, now)
            return False
        if self._stage == "short":
            self._stage, self._try = "long", None
            self._next_at = now
            return False
        self.passed += 1
        self._over(now, now)
        return True

    def poll(self, now: float) -> None:
        """Give up a try that nobody answers."""
        attempt = self._try
        if attempt is not None and now - attempt.began_at > ANSWER_S:
            self._over(now + INTERVAL_S, now)

    def _over(self, next_at: float, now: float) -> None:
        self._stage, self._try = "idle", None
        self._next_at = next_at
        self._quiet_until = now + GRACE_S
