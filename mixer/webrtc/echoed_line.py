"""The line towards a peer that tells of losses, and perhaps its own estimate: it is called. Pure.

A call is a connectivity check of ICE, which is answered at once: what it waits is the queue (`mixer.rtp.echo`). Calls
are few while all is well, dense while a queue may fill or is waited for, and three after each burst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mixer.rtp.echo import EchoMeter
from mixer.rtp.roundtrip import Report, RoundTripEstimator
from mixer.rtp.rtcp import ReportBlock
from mixer.rtp.silence import CALL_BYTES
from mixer.webrtc.downlink import UNKNOWN_BPS, Downlink, SentBlock

CALL_S: Final = 0.1  # between two calls at least,
RARE_CALL_S: Final = 1.0  # at most,
CALLS: Final = 0.02  # and so much of what is sent
DENSE_CALL_S: Final = 0.025  # the same while something is wrong, or a queue is waited for
DENSE_CALLS: Final = 0.2  # of what is sent: a fall is found in time, for a fifth of a narrow line
DENSE_S: Final = 1.5  # so long; on a line of 30 kbit/s that would be all that it carries
WORRIED_CALLS: Final = 0.05  # after that: what RTCP may take of a session (RFC 3550 section 6.2)
TRY_CALLS: Final = 0.1  # of what a try sends


MOST_REPORTED: Final = 20_000  # packets of one report: more is a sequence that began again


@dataclass(frozen=True, slots=True)
class _Told:
    """A stream's last report: when it came, packets of it and octets of all sent until then."""

    block: ReportBlock
    packets: int
    octets: int
    at: float


class EchoedLine(Downlink):
    """Towards a peer that tells of losses, and perhaps its own estimate. ``calls``: it may be called."""

    def __init__(self, *, pads: bool, calls: bool) -> None:
        self._meter = EchoMeter()
        self._echoed = RoundTripEstimator(self._meter, measured=pads and calls)
        super().__init__(self._echoed, pads=pads and calls)
        self._calls = calls
        self._called_at = float("-inf")
        self._worried_at: float | None = None
        self._drain_from: float | None = None
        self._told: dict[int, _Told] = {}  # by SSRC

    # --- out

    def begin_burst(self, now: float) -> int:
        self._called_at = float("-inf")
        return self._meter.begin_burst(self._octets, now)

    def end_burst(self, burst: int, now: float) -> None:
        self._meter.end_burst(burst, self._octets, now)
        self._called_at = float("-inf")

    def pacing_s(self, size: int, packets: int) -> float | None:
        # Without calls the estimate follows what is sent until something goes wrong, and is no limit: large pictures
        # that left no faster than the usual ones made holes of 330 ms on a line that carries anything.
        if not self._calls and not self._echoed.rate.decreases:
            return None
        return super().pacing_s(size, packets)

    def call_due(self, now: float) -> bool:
        return self._calls and now >= self._called_at + self._interval_s(now)

    def called(self, now: float) -> int:
        number = self._meter.call(self._octets, now)
        self._octets += CALL_BYTES
        self._called_at = now
        return number

    def restless(self, now: float) -> bool:
        return self._calls and (self._meter.measuring(now) or self._worried(now))

    def _interval_s(self, now: float) -> float:
        if self._meter.in_tail(now):
            return 0.0
        sent_bps = self.sent_bps(now) or UNKNOWN_BPS
        if self.probing:
            return max(DENSE_CALL_S, CALL_BYTES * 8 / (TRY_CALLS * (self._prober.wanted_bps or sent_bps)))
        if not self._worried(now):
            self._worried_at = None
        else:
            self._worried_at = self._worried_at or now
            share = DENSE_CALLS if now - self._worried_at < DENSE_S else WORRIED_CALLS
            return max(DENSE_CALL_S, CALL_BYTES * 8 / (share * max(sent_bps, self._estimator.bps or 0.0)))
        return min(RARE_CALL_S, max(CALL_S, CALL_BYTES * 8 / (CALLS * sent_bps)))

    def _worried(self, now: float) -> bool:
        """Whether a queue may fill, or one is waited for."""
        waiting = self._meter.waiting(now)
        late = bool(waiting) and self._meter.overdue_s(waiting[0], now) > CALL_S
        return late or self._echoed.suspects or self.draining(now)

    # --- back

    def answered(self, call: int, now: float) -> None:
        before = self._meter.newest
        echo = self._meter.answer(call, now)
        if echo is None:
            return
        self._began_to_hear(now)
        disturbed = self._disturbed(now)
        if self._drain_from is not None and echo.call.sent_at >= self._drain_from:
            self._echoed.drained(self._drain_from, now)
            self._drain_until, self._drain_from = float("-inf"), None
        self._echoed.echo(echo, before, self.sent_bps(now), now, disturbed=disturbed)
        self._settle(now)

    def remb(self, bps: int, now: float) -> None:
        self._echoed.remb(bps, self.sent_bps(now), now)

    def reported(self, blocks: Sequence[SentBlock], rtt_s: float | None, now: float) -> None:
        arrived = lost = sent = 0
        since = None
        for block, packets in blocks:
            before, self._told[block.ssrc] = (
                self._told.get(block.ssrc),
                _Told(block, packets, self._octets, now),
            )
            if (
                before is None
                or not 0 < block.highest_sequence - before.block.highest_sequence <= MOST_REPORTED
            ):
                continue
            expected = block.highest_sequence - before.block.highest_sequence
            missing = min(expected, max(0, block.packets_lost - before.block.packets_lost))
            arrived, lost, sent = (
                arrived + expected - missing,
                lost + missing,
                sent + packets - before.packets,
            )
            since = before if since is None else since
        if since is None or now <= since.at:
            return
        share = min(1.0, arrived / sent) if sent else 1.0
        sent_bps = (self._octets - since.octets) * 8 / (now - since.at)
        if not self.draining(now):
            self._echoed.report(Report(since.at, arrived, lost, share * sent_bps), rtt_s, now)
        self._settle(now)

    # --- a full queue, time

    def drain(self, now: float) -> None:
        if self._calls:
            super().drain(now)
            self._drain_from, self._called_at = now, float("-inf")

    def poll(self, now: float) -> None:
        self._echoed.poll(now, disturbed=self._disturbed(now))
        self._settle(now)
        super().poll(now)

    def _busy(self, now: float) -> bool:
        return self._meter.measuring(now) or self._worried(now)

    def stats(self, now: float) -> dict[str, int]:
        return {
            **super().stats(now),
            "calls": self._meter.answered + self._meter.lost,
            "calls_lost": self._meter.lost,
        }

    def _disturbed(self, now: float) -> bool:
        return self._prober.disturbs(now) or self.draining(now)

    def _settle(self, now: float) -> None:
        """Take what bursts measured, and give up trying once the line is full."""
        for result in self._meter.results(now):
            if not self._prober.owns(result.burst) or self._prober.result(result, now):
                self._echoed.burst(result, now)
        if self._echoed.rate.congested(now):
            self._prober.congested(now)
