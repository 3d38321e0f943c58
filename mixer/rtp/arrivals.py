"""What we received and when, for a sender that steers by it (transport-wide feedback)."""

from __future__ import annotations

from typing import Final

from mixer.rtp.twcc import MAX_PACKETS, TICK_S, TICKS_A_REFERENCE, TransportFeedback
from mixer.rtp.unwrap import Unwrapper

KEPT_S: Final = (
    0.5  # a packet that is overtaken by half a second is as good as lost to the sender's arithmetic
)
A_REPORT: Final = (
    400  # packets of one: 2.3 bytes each at worst, so that with SRTCP it fits every path (RFC 8831: 1200)
)
_JUMP: Final = MAX_PACKETS  # sequence numbers; more at once is a sender that started again


class ArrivalLog:
    """The arrivals of one connection since the last report.

    Bound: ``MAX_PACKETS`` sequence numbers from the first that is not reported yet; when more come between two
    reports, the oldest are given up and counted in ``dropped``.
    """

    def __init__(self) -> None:
        self._unwrap = Unwrapper(16)
        self._times: dict[int, float] = {}  # those of the last KEPT_S, by endless sequence number
        self._base: int | None = None  # the first that the next report is about
        self._highest = -1
        self._fresh = False
        self._count = 0
        self.dropped = 0

    def record(self, sequence: int, now: float) -> None:
        """The packet with that transport-wide number (16 bit) came at ``now`` (seconds)."""
        number = self._unwrap.unwrap(sequence)
        if self._base is None or number - self._highest > _JUMP:
            self._times.clear()
            self._base = self._highest = number
        elif number > self._highest:
            self._highest = number
        elif number < self._base:
            if number < self._base - MAX_PACKETS // 2 or number in self._times:
                return
            self._base = number  # overtaken, and reported as lost: the next report corrects that
        self._times.setdefault(number, now)
        self._fresh = True
        while self._highest - self._base >= MAX_PACKETS:
            self.dropped += self._times.pop(self._base, None) is not None
            self._base += 1

    @property
    def waiting(self) -> bool:
        """Whether anything came that is not reported."""
        return self._fresh

    def report(self, *, sender_ssrc: int, media_ssrc: int, now: float) -> list[TransportFeedback]:
        """All that came since the last call; several reports for many packets, or two that came over 8 s apart."""
        if self._base is None or not self._fresh:
            return []
        reports: list[TransportFeedback] = []
        deltas: list[int | None] = []
        base, reference, last = self._base, 0, None
        for number in range(self._base, self._highest + 1):
            at = self._times.get(number)
            if at is None:
                deltas.append(None)
                continue
            ticks = round(at / TICK_S)
            apart = last is not None and not -0x8000 <= ticks - last <= 0x7FFF
            if apart or (last is not None and number - base >= A_REPORT):
                reports.append(self._feedback(sender_ssrc, media_ssrc, base, reference, deltas))
                base, deltas, last = number, [], None
            if last is None:
                reference = ticks // TICKS_A_REFERENCE
                last = reference * TICKS_A_REFERENCE
            deltas.append(ticks - last)
            last = ticks
        reports.append(self._feedback(sender_ssrc, media_ssrc, base, reference, deltas))
        self._base, self._fresh = self._highest + 1, False
        self._times = {number: at for number, at in self._times.items() if now - at < KEPT_S}
        return reports

    def _feedback(
        self, sender_ssrc: int, media_ssrc: int, base: int, reference: int, deltas: list[int | None]
    ) -> TransportFeedback:
        count, self._count = self._count, (self._count + 1) & 0xFF
        signed = ((reference & 0xFFFFFF) ^ 0x800000) - 0x800000
        return TransportFeedback(sender_ssrc, media_ssrc, base & 0xFFFF, signed, count, tuple(deltas))
