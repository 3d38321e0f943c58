"""What one receiver knows of one source: RFC 3550 appendices A.1 (sequence), A.3 (loss), A.8 (jitter)."""

from __future__ import annotations

from typing import Final

from mixer.rtp.packet import RtpPacket
from mixer.rtp.rtcp import ReportBlock, SenderReport

MAX_DROPOUT: Final = 3000  # RFC 3550 appendix A.1
MAX_MISORDER: Final = 512  # appendix A.1 has 100; a packet repeated on request comes up to a second late
_CYCLE: Final = 1 << 16


class ReceptionStats:
    """Counts one SSRC's packets and writes its report block.

    ``clock_hz`` is the payload's RTP clock. A jump of the sequence number restarts the count only once two
    packets in a row agree on it (appendix A.1), so that one stray packet changes nothing. Appendix A.1's
    probation of a new source is left out: what comes here has passed SRTP's authentication.
    """

    def __init__(self, clock_hz: int) -> None:
        self._clock_hz = clock_hz
        self._ssrc = 0
        self._started = False
        self._base = 0
        self._cycles = 0
        self._max = 0
        self._suspect: int | None = None
        self._expected_prior = 0
        self._received_prior = 0
        self._last_arrival: float | None = None
        self._jitter = 0.0
        self._last_timestamp = -1
        self._last_report: SenderReport | None = None
        self._last_report_at = 0.0
        self.received = 0

    def receive(self, packet: RtpPacket, now: float) -> None:
        """Count a packet that arrived at ``now`` (seconds)."""
        sequence = packet.sequence
        if sequence == self._max + 1 and packet.ssrc == self._ssrc and self._started:
            self._max, self._suspect = sequence, None  # nearly all are the next one
        elif not self._started:
            self._restart(packet)
        elif packet.ssrc != self._ssrc:
            self._last_report = None
            self._restart(packet)
        elif not self._follow(sequence):
            return
        self.received += 1
        # Packets of one picture share a timestamp and late ones were repeated on request: neither tells
        # of the path's jitter (libwebrtc leaves them out, too).
        timestamp = packet.timestamp
        if sequence != self._max or timestamp == self._last_timestamp:
            return
        if self._last_arrival is not None:
            elapsed = ((timestamp - self._last_timestamp + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
            deviation = abs((now - self._last_arrival) * self._clock_hz - elapsed)
            self._jitter += (min(deviation, self._clock_hz) - self._jitter) / 16
        self._last_arrival = now
        self._last_timestamp = timestamp

    def sender_report(self, report: SenderReport, now: float) -> None:
        """Take the source's own report: round trips and the sender's clock follow from it."""
        if not self._started or report.ssrc == self._ssrc:
            self._last_report = report
            self._last_report_at = now

    def report_block(self, now: float) -> ReportBlock:
        """The block for the next report; the fraction of loss counts from the previous call."""
        expected = self._expected
        expected_interval = expected - self._expected_prior
        lost_interval = expected_interval - (self.received - self._received_prior)
        self._expected_prior, self._received_prior = expected, self.received
        fraction = 0
        if expected_interval > 0 and lost_interval > 0:
            fraction = min(255, (lost_interval << 8) // expected_interval)
        last_sr = delay = 0
        if self._last_report is not None:
            last_sr = self._last_report.ntp_time >> 16 & 0xFFFFFFFF
            delay = min(0xFFFFFFFF, max(0, round((now - self._last_report_at) * 65536)))
        return ReportBlock(
            ssrc=self._ssrc,
            fraction_lost=fraction,
            packets_lost=max(-0x800000, min(0x7FFFFF, self.lost)),
            highest_sequence=(self._cycles + self._max) & 0xFFFFFFFF,
            jitter=int(self._jitter),
            last_sr=last_sr,
            delay_since_last_sr=delay,
        )

    def sender_time(self, timestamp: int) -> float | None:
        """When the sender took the sample of that 32-bit RTP timestamp, in seconds of its NTP clock.

        The one scale on which a source's sound and picture compare. None before its first report.
        """
        report = self._last_report
        if report is None:
            return None
        ahead = ((timestamp - report.rtp_time + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        return report.ntp_time / 2**32 + ahead / self._clock_hz

    @property
    def lost(self) -> int:
        """Packets expected but not received; negative when duplicates came (RFC 3550 section 6.4.1)."""
        return self._expected - self.received

    @property
    def jitter_ms(self) -> float:
        return self._jitter / self._clock_hz * 1000

    @property
    def _expected(self) -> int:
        return self._cycles + self._max - self._base + 1 if self._started else 0

    def _restart(self, packet: RtpPacket) -> None:
        self._started = True
        self._ssrc = packet.ssrc
        self._base = self._max = packet.sequence
        self._cycles = 0
        self._suspect = None
        self._expected_prior = self._received_prior = self.received = 0
        self._last_arrival = None
        self._last_timestamp = -1

    def _follow(self, sequence: int) -> bool:
        """Appendix A.1 update_seq(): False when the packet is not to be counted."""
        ahead = (sequence - self._max) & 0xFFFF
        if ahead < MAX_DROPOUT:
            if sequence < self._max:
                self._cycles += _CYCLE
            self._max = sequence
        elif ahead <= _CYCLE - MAX_MISORDER:
            if self._suspect != sequence:
                self._suspect = (sequence + 1) & 0xFFFF
                return False
            self._base = self._max = sequence  # two in a row: the other side restarted without telling
            self._cycles = 0
            self._expected_prior = self._received_prior = self.received = 0
            self._last_arrival = None
        self._suspect = None
        return True
