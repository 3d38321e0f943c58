"""What one peer's line carries of what we send: bursts, tries, and whatever tells of the line put together. Pure.

`TimedLine` is for peers that report when each packet came (transport-cc), `mixer.webrtc.echoed_line` for all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mixer.rtp.bandwidth import BandwidthEstimator
from mixer.rtp.burst import BurstMeter
from mixer.rtp.departures import Departures
from mixer.rtp.line import LineState
from mixer.rtp.probing import Prober
from mixer.rtp.roundtrip import RoundTripEstimator
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
_REPEAT_BURST_S: Final = 1.0  # of that share at once: what a burst of losses took is asked for in one request
DRAIN_S: Final = 4.0  # at most: a queue that holds more is not waited for

SentBlock = tuple[ReportBlock, int]  # and how many packets of that stream have been sent


class SentRate:
    """Bits a second over the last half to whole second, of a count that is looked at more often than that."""

    def __init__(self) -> None:
        self._since = 0.0
        self._before = 0
        self._bps = 0.0

    def bps(self, octets: int, now: float) -> float:
        """``octets``: sent since the beginning."""
        elapsed_s = now - self._since
        if elapsed_s >= 0.5:
            self._bps = (octets - self._before) * 8 / elapsed_s if elapsed_s < 2.0 else 0.0
            self._since, self._before = now, octets
        return self._bps


class Downlink:
    """See the module. ``pads``: what is sent can be made more, to try the line; ``narrow``: see there."""

    def __init__(self, estimator: BandwidthEstimator | RoundTripEstimator, *, pads: bool) -> None:
        self._estimator = estimator
        self._pads = pads
        self._prober = Prober()
        self._rate = SentRate()
        self._octets = 0
        self._heard = False
        self._repeat_bits = 0.0
        self._repeat_at = 0.0
        self._drain_until = float("-inf")

    # --- out

    def depart(self, size: int, now: float, burst: int = 0) -> int:
        """A packet of ``size`` bytes (RTP, in clear) leaves, part of ``burst``; its transport-wide number if any."""
        self.count(size)
        return 0

    def count(self, size: int) -> None:
        """A packet leaves that is part of nothing."""
        self._octets += size + WIRE_OVERHEAD

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
        bps = self._estimator.bps or max(UNKNOWN_BPS, self.sent_bps(now))
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
        self.sent_bps(now)  # keeps its half seconds apart
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

    def sent_bps(self, now: float) -> float:
        """What is sent, with all headers; of the last second."""
        return self._rate.bps(self._octets, now)

    def stats(self, now: float) -> dict[str, int]:
        """Counters; ``sent_kbps`` with all headers, of the last second."""
        return {
            "sent_kbps": round(self.sent_bps(now) / 1000),
            "probes": self._prober.tries,
            "probes_passed": self._prober.passed,
            "decreases": sum(self._estimator.rate.decreases.values()),
        }

    def _busy(self, now: float) -> bool:
        """Whether a try would only confuse what is going on."""
        return False

    @property
    def heard(self) -> bool:
        """Whether the peer has told anything that the line is measured by."""
        return self._heard

    def _began_to_hear(self, now: float) -> None:
        if not self._heard:
            self._heard = True
            self._prober.wait(now + FIRST_TRY_S)


class TimedLine(Downlink):
    """Towards a peer that answers transport-wide numbers."""

    def __init__(self, *, pads: bool) -> None:
        self._timed = BandwidthEstimator(measured=pads)
        super().__init__(self._timed, pads=pads)
        self._departures = Departures()
        self._meter = BurstMeter()
        self._drain_from = 0

    def depart(self, size: int, now: float, burst: int = 0) -> int:
        self.count(size)
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
        self._timed.poll(self.sent_bps(now), now)
        super().poll(now)
