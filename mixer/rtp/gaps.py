"""What of a sound is missing and worth asking for: found by the clock too, since sound comes like one. Pure.

Of pictures a gap shows when the next packet comes. Sound comes every 20 ms, so that a packet which should be here by
now can be asked for before its successor shows that it is lost, and of a burst the first ones are not a burst later
than the last ones. That is done only on a line that has lost something lately: on others a late packet is just late,
and a sender that pauses (DTX) looks the same.
"""

from __future__ import annotations

from typing import Final

from mixer.media import AUDIO_CLOCK_HZ
from mixer.rtp.nack import NackSchedule
from mixer.rtp.packet import RtpPacket

LOSSY_S: Final = 10.0  # how long a line that lost a packet counts as one that loses
MAX_FORESEEN: Final = 10  # 200 ms: what is silent for longer has paused, or the line is gone
MAX_MISSING: Final = 25  # half a second
GIVE_UP_S: Final = 0.35  # no playout waits for so long
PAUSE_BYTES: Final = 2  # an Opus packet that says that the sender pauses (DTX; libopus sends 1 or 2 bytes)
_NEAR: Final = 100  # RFC 3550 appendix A.1, MAX_MISORDER: further apart is another numbering
_LATE_S: Final = 0.01  # after its time a packet is late ...
_LATE_JITTERS: Final = 3  # ... or so many times the usual jitter, if that is more
_LONGEST_STEP: Final = AUDIO_CLOCK_HZ * 120 // 1000  # RFC 6716: no Opus packet is longer


class SoundGaps:
    """The gaps of one sound. ``clock_hz``: of its timestamps. ``foresees``: as the module says; without, a gap shows
    when the next packet comes, as in browsers. ``recovered`` packets came after they were asked for.
    """

    def __init__(self, clock_hz: int, *, foresees: bool = True) -> None:
        self._clock_hz = clock_hz
        self._foresees = foresees
        self._nacks = NackSchedule(max_missing=MAX_MISSING, give_up_s=GIVE_UP_S, insists=foresees)
        self._ssrc: int | None = None
        self._highest = 0  # unwrapped sequence number, of what came or should have come
        self._came = (0, 0, 0.0)  # the newest that came: sequence number, timestamp, when
        self._step_s: float | None = None  # from packet to packet; None: not known, or it pauses
        self._jitter_s = 0.0
        self._lossy_until = float("-inf")

    @property
    def recovered(self) -> int:
        return self._nacks.recovered

    def set_rtt(self, rtt_s: float) -> None:
        """Ask again after this round trip."""
        self._nacks.set_rtt(rtt_s)

    def waits(self, now: float) -> bool:
        """Whether `due` should be asked often: the line loses."""
        return now < self._lossy_until

    def take(self, packet: RtpPacket, now: float) -> bool:
        """A packet came; whether it is one that had been asked for."""
        self._nacks.paid()
        sequence = self._highest + ((packet.sequence - self._highest + 0x8000) & 0xFFFF) - 0x8000
        if packet.ssrc != self._ssrc or abs(sequence - self._highest) > _NEAR:
            self._ssrc, self._step_s, self._jitter_s = packet.ssrc, None, 0.0
            self._nacks.clear()
            self._highest = packet.sequence
            self._came = packet.sequence, packet.timestamp, now
            return False
        repaired = self._nacks.arrived(sequence, now)
        if sequence > self._highest:
            if sequence > self._highest + 1:
                self._nacks.add(self._highest + 1, sequence, now)
            self._highest = sequence
        if sequence > self._came[0] and not repaired:
            if sequence > self._came[0] + 1:
                self._lossy_until = now + LOSSY_S
            self._learn(sequence, packet, now)
        return repaired

    def found(self, packet: RtpPacket, now: float) -> None:
        """A packet came inside another one: it need not be asked for."""
        sequence = self._highest + ((packet.sequence - self._highest + 0x8000) & 0xFFFF) - 0x8000
        self._nacks.arrived(sequence, now)

    def due(self, now: float) -> list[int]:
        """The 16-bit numbers to ask for now. To be called each 20 ms or so while `waits`."""
        self._foresee(now)
        self._nacks.expire(now)
        return [sequence & 0xFFFF for sequence in self._nacks.due(now)]

    def _learn(self, sequence: int, packet: RtpPacket, now: float) -> None:
        before, stamp, at = self._came
        self._came = sequence, packet.timestamp, now
        step, uneven = divmod((packet.timestamp - stamp) & 0xFFFFFFFF, sequence - before)
        pauses = len(packet.payload) <= PAUSE_BYTES
        if uneven or not 0 < step <= _LONGEST_STEP * self._clock_hz // AUDIO_CLOCK_HZ or pauses:
            self._step_s = None
            return
        self._step_s = step / self._clock_hz
        off_s = abs(now - at - self._step_s * (sequence - before))
        self._jitter_s += (off_s - self._jitter_s) / 16  # RFC 3550 section 6.4.1

    def _foresee(self, now: float) -> None:
        """Packets that should be here by now are missing."""
        if not self._foresees or self._step_s is None or not self.waits(now):
            return
        sequence, _, at = self._came
        late_s = max(_LATE_S, _LATE_JITTERS * self._jitter_s)
        due = sequence + int((now - at - late_s) / self._step_s)
        due = min(due, sequence + MAX_FORESEEN)
        if due > self._highest:
            self._nacks.add(self._highest + 1, due + 1, now)
            self._highest = due
