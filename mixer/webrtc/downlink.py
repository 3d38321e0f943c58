"""What one peer's line carries of what we send: bursts, tries, and whatever tells of the line put together. Pure.

`TimedLine` is for peers that report when each packet came (transport-cc), `EchoedLine` for all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mixer.rtp.bandwidth import BandwidthEstimator
from mixer.rtp.burst import BurstMeter
from mixer.rtp.departures import Departures
from mixer.rtp.echo import EchoMeter
from mixer.rtp.line import LineState
from mixer.rtp.probing import Prober
from mixer.rtp.roundtrip import Report, RoundTripEstimator
from mixer.rtp.rtcp import ReportBlock
from mixer.rtp.twcc import TransportFeedback

WIRE_OVERHEAD: Final = (
    38  # bytes a packet: IPv4 20, UDP 8, SRTP's authentication tag 10 (RFC 3711 section 4.2)
)
FIRST_TRY_S: Final = 0.3  # after the first report: the first keyframe may have measured the line by then
PACING: Final = 1.1  # times the estimate: what waits here gets out faster than more comes in
REPEATS: Final = 0.3  # of the estimate may go into repeats: a line that is full is not helped by more
UNKNOWN_BPS: Final = 1_000_000  # of a line that tells nothing; more repeats come with more that is sent
NARROW_BPS: Final = 200_000  # ten reports a second are 6 kbit/s
_REPEAT_BURST_S: Final = 1.0
DRAIN_S: Final = 4.0  # at most: a queue that holds more is not waited for
CALL_BYTES: Final = 124  # a connectivity check with the usual attributes, headers included
CALL_S: Final = 0.1  # between two calls at least,
RARE_CALL_S: Final = 1.0  # at most,
CALLS: Final = 0.02  # and so much of what is sent
DENSE_CALL_S: Final = 0.025  # the same while something is wrong, or a queue is waited for
DENSE_CALLS: Final = 0.2
DENSE_S: Final = 1.5  # so long; on a line of 30 kbit/s that would be all that it carries
WORRIED_CALLS: Final = 0.05
TRY_CALLS: Final = 0.1  # of what a try sends


MOST_REPORTED: Final = 20_000  # packets of one report: more is a sequence that began again

SentBlock = tuple[ReportBlock, int]  # and how many packets of that stream have been sent


@dataclass(frozen=True, slots=True)
class _Told:
    """A stream's last report: when it came, packets of it and octets of all sent until then."""

    block: ReportBlock
    packets: int
    octets: int
    at: float


class _SentRate:
    """Bits a second over the last half to whole second."""

    def __init__(self) -> None:
        self._since = 0.0
        self._octets = 0
        self._bps = 0.0

    def add(self, size: int, now: float) -> None:
        if now - self._since >= 0.5:
            self._turn(now)
        self._octets += size

    def bps(self, now: float) -> float:
        self._turn(now)
        return self._bps

    def _turn(self, now: float) -> None:
        elapsed_s = now - self._since
        if elapsed_s >= 0.5:
            self._bps = self._octets * 8 / elapsed_s if elapsed_s < 2.0 else 0.0
            self._since, self._octets = now, 0


class Downlink:
    """See the module. ``pads``: what is sent can be made more, to try the line; ``narrow``: see there."""

    reports = False

    def __init__(self, estimator: BandwidthEstimator | RoundTripEstimator, *, pads: bool) -> None:
        self._estimator = estimator
        self._pads = pads
        self._prober = Prober()
        self._rate = _SentRate()
        self._octets = 0
        self._packets = 0
        self._heard = False
        self._repeat_bits = 0.0
        self._repeat_at = 0.0
        self._drain_until = float("-inf")

    # --- out

    def depart(self, size: int, now: float, burst: int = 0) -> int:
        """A packet of ``size`` bytes (RTP, in clear) leaves, part of ``burst``; its transport-wide number if any."""
        self.count(size, now)
        return 0

    def count(self, size: int, now: float) -> None:
        """A packet leaves that is part of nothing."""
        size += WIRE_OVERHEAD
        self._rate.add(size, now)
        self._octets += size
        self._packets += 1

    def begin_burst(self, now: float) -> int:
        """A picture begins that is big enough to measure the line with; goes along with its packets."""
        raise NotImplementedError

    def end_burst(self, burst: int, now: float) -> None:
        """Its last packet has left."""
        raise NotImplementedError

    def pacing_s(self, size: int, packets: int) -> float | None:
        """How long a picture of ``size`` bytes may take to leave; ``None``: nothing is known of the line."""
        bps = self._estimator.bps
        return (size + packets * WIRE_OVERHEAD) * 8 / (PACING * bps) if bps is not None else None

    def may_repeat(self, size: int, now: float) -> bool:
        """Whether a repeat of ``size`` bytes fits what the line can spare; takes it from the budget."""
        bps = self._estimator.bps or max(UNKNOWN_BPS, self._rate.bps(now))
        most = REPEATS * bps * _REPEAT_BURST_S
        self._repeat_bits = min(most, self._repeat_bits + REPEATS * bps * (now - self._repeat_at))
        self._repeat_at = now
        bits = (size + WIRE_OVERHEAD) * 8
        if self._repeat_bits < min(bits, most):
            return False
        self._repeat_bits -= bits
        return True

    def padding(self, header: int, now: float) -> list[int]:
        """Sizes of the padding packets to send now, without their ``header`` bytes."""
        sizes = self._prober.padding(self._octets, header + WIRE_OVERHEAD, now)
        if not sizes and (ended := self._prober.ended(now)) is not None:
            self.end_burst(ended, now)
        return sizes

    @property
    def probing(self) -> bool:
        """Whether the line is being tried."""
        return self._prober.sending is not None

    def restless(self, now: float) -> bool:
        """Whether there may be something to send each few milliseconds: padding, or a call."""
        return self.probing

    def call_due(self, now: float) -> bool:
        """Whether to call the peer now: it answers at once, which tells of the queue."""
        return False

    def called(self, now: float) -> int:
        """It was called; the number of the call."""
        return 0

    # --- back

    def answered(self, call: int, now: float) -> None:
        """The answer to a call."""

    def feedback(self, packet: TransportFeedback, rtt_s: float | None, now: float) -> None:
        """A transport-wide report of the peer."""

    def remb(self, bps: int, now: float) -> None:
        """The peer's own estimate."""

    def reported(self, blocks: Sequence[SentBlock], rtt_s: float | None, now: float) -> None:
        """A receiver report on our streams."""

    # --- a full queue

    def drain(self, now: float) -> None:
        """Wait until what has been sent is through; sound goes on and tells when that is."""
        self._drain_until = now + DRAIN_S

    def draining(self, now: float) -> bool:
        """Whether nothing sent since `drain` has arrived yet."""
        return now < self._drain_until

    # --- time

    def seek(self, bps: int | None) -> None:
        """What somebody would like to send; the line is tried for it from time to time. ``None``: enough."""
        self._prober.wanted_bps = bps

    def poll(self, now: float) -> None:
        """Each 100 ms or so."""
        self._prober.poll(now)
        if self._pads and self._heard and not self._busy(now) and self._prober.due(self._estimator.bps, now):
            self._prober.begin(self.begin_burst(now), self._octets, now)

    @property
    def narrow(self) -> bool:
        """Whether the line is so narrow that our reports on the other direction count."""
        bps = self._estimator.bps
        return bps is not None and bps < NARROW_BPS

    @property
    def state(self) -> LineState:
        """How the line is."""
        return self._estimator.state

    def stats(self, now: float) -> dict[str, int]:
        """Counters; ``sent_kbps`` with all headers, of the last second."""
        return {
            "sent_kbps": round(self._rate.bps(now) / 1000),
            "probes": self._prober.tries,
            "probes_passed": self._prober.passed,
            "decreases": sum(self._estimator.rate.decreases.values()),
        }

    def _busy(self, now: float) -> bool:
        """Whether a try would only confuse what is going on."""
        return False

    def _began_to_hear(self, now: float) -> None:
        if not self._heard:
            self._heard = True
            self._prober.wait(now + FIRST_TRY_S)


class TimedLine(Downlink):
    """Towards a peer that answers transport-wide numbers."""

    reports = True

    def __init__(self, *, pads: bool) -> None:
        self._timed = BandwidthEstimator(measured=pads)
        super().__init__(self._timed, pads=pads)
        self._departures = Departures()
        self._meter = BurstMeter()
        self._drain_from = 0

    def depart(self, size: int, now: float, burst: int = 0) -> int:
        self.count(size, now)
        burst = self._prober.sending or burst
        self._meter.sent(burst)
        return self._departures.depart(size + WIRE_OVERHEAD, now, burst)

    def begin_burst(self, now: float) -> int:
        return self._meter.begin(now)

    def end_burst(self, burst: int, now: float) -> None:
        self._meter.end(burst, now)

    def feedback(self, packet: TransportFeedback, rtt_s: float | None, now: float) -> None:
        self._began_to_hear(now)
        outcome = self._departures.resolve(packet)
        for departure in outcome.arrived:
            if departure.number >= self._drain_from:
                self._drain_until = float("-inf")
            if departure.burst:
                self._meter.arrived(departure)
        for departure in outcome.lost:
            if departure.burst:
                self._meter.lost(departure)
        self._timed.rtt_s = rtt_s
        self._timed.feedback(outcome, now, disturbed=self._prober.disturbs(now))
        for result in self._meter.results(now):
            if not self._prober.owns(result.burst) or self._prober.result(result, now):
                self._timed.burst(result, now)
        if self._timed.rate.congested(now):
            self._prober.congested(now)

    def remb(self, bps: int, now: float) -> None:
        self._timed.remb(bps)

    def reported(self, blocks: Sequence[SentBlock], rtt_s: float | None, now: float) -> None:
        self._timed.rtt_s = rtt_s

    def drain(self, now: float) -> None:
        super().drain(now)
        self._drain_from = self._departures.next

    def poll(self, now: float) -> None:
        self._timed.poll(self._rate.bps(now), now)
        super().poll(now)


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

    def call_due(self, now: float) -> bool:
        return self._calls and now >= self._called_at + self._interval_s(now)

    def called(self, now: float) -> int:
        number = self._meter.call(self._octets, now)
        self._octets += CALL_BYTES
        self._rate.add(CALL_BYTES, now)
        self._called_at = now
        return number

    def restless(self, now: float) -> bool:
        return self._calls and (self._meter.measuring(now) or self._worried(now))

    def _interval_s(self, now: float) -> float:
        if self._meter.in_tail(now):
            return 0.0
        sent_bps = self._rate.bps(now) or UNKNOWN_BPS
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
        self._echoed.echo(echo, before, self._rate.bps(now), now, disturbed=disturbed)
        self._settle(now)

    def remb(self, bps: int, now: float) -> None:
        self._echoed.remb(bps, self._rate.bps(now), now)

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

    def _disturbed(self, now: float) -> bool:
        return self._prober.disturbs(now) or self.draining(now)

    def _settle(self, now: float) -> None:
        """Take what bursts measured, and give up trying once the line is full."""
        for result in self._meter.results(now):
            if not self._prober.owns(result.burst) or self._prober.result(result, now):
                self._echoed.burst(result, now)
        if self._echoed.rate.congested(now):
            self._prober.congested(now)
