"""The audio jitter buffer: packets go in as they come, 20 ms of instructions come out at each tick. Pure.

``push`` takes RTP packets in any order; ``pop`` says how the next 20 ms are to be made: decode this packet,
recover the one before it from this packet's FEC, conceal, or be silent, and whether the result should be
shortened or lengthened a little. It decodes nothing itself, so that a test can run ten minutes in a second.

Everything is counted in samples at 48 kHz. Four quantities matter:

- *playhead*: media time of the next sample to be heard;
- *delay*: how long after its earliest possible arrival a sample is heard (now - playhead - fastest transit);
- *target*: the delay that covers the arrival jitter, 40 to 120 ms (``arrival``), or up to 200 while lost packets
  are repaired that late, or the speaker's own picture comes later than that (``floor_ms``);
- *starved*: how much was invented because nothing was there, before it was known what had become of it.

======== ============================== ===================================================================
state    situation at a tick            what is done
======== ============================== ===================================================================
idle     nothing, or not yet due        silence
idle     the first packet's delay has   play from there (so each pause sets the delay to the target again)
         reached the target
playing  the packet is there            decode it, cutting off what was passed over already
playing  missing, a later one is here   up to 120 ms: conceal, the last part from the later packet's FEC if
                                        it has any
playing  nothing is here                conceal and let media time wait, at most 100 ms; then idle. If the
                                        packet comes after all, it is played (the delay has grown); if a
                                        later one comes, what was invented counts as its predecessor
playing  the sender paused (sequence    fade out, idle
         goes on, timestamp jumps: DTX)
playing  a packet that says so (DTX)    play it, idle
         was the last
idle     after such a packet            comfort noise, until the next packet is due, half a second at most (it
                                        is repeated each 400 ms)
playing  delay off the target           shorten or lengthen by ≤ 20 ms; far off: jump
any      two packets in a row of        start afresh with the second (SSRC change, restarted sender,
         another sequence or clock      RFC 3550 appendix A.1)
======== ============================== ===================================================================
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from mixer.audio.arrival import MAX_FLOOR, Arrivals
from mixer.audio.payload import opus_has_fec
from mixer.media import AUDIO_CLOCK_HZ, FRAME_SAMPLES

MAX_PACKETS: Final = 128  # `MAX_SPAN` in packets of 10 ms, and some to spare
MAX_SPAN: Final = AUDIO_CLOCK_HZ  # one second of sound is the most that is ever held
MAX_GAP: Final = 5_760  # 120 ms: a longer hole is silence, nothing sensible can be invented
MAX_STARVED: Final = 4_800  # 100 ms
MAX_COMFORT: Final = 24_000  # 500 ms: longer than the 400 ms after which a paused sender repeats itself
MAX_DROPOUT: Final = 3_000  # RFC 3550 appendix A.1
MAX_MISORDER: Final = 100  # RFC 3550 appendix A.1
MAX_CLOCK_STEP: Final = 2 * AUDIO_CLOCK_HZ  # a transit that far off is another clock, not a slow network

_START_EARLY: Final = FRAME_SAMPLES // 2  # start on the tick nearest to the target
_SETTLE_TICKS: Final = 10  # look at the delay for 200 ms before correcting it (again) ...
_HURRY_TICKS: Final = 5  # ... for 100 where it is far off: a line has begun to lose, or ended
_FAR: Final = 1_920  # 40 ms: that is noticed
_LONG_SLACK: Final = 720  # 15 ms too long: a frame is cut out while it is quiet, else a pitch period ...
_SHORT_SLACK: Final = 720  # ... 15 ms too short: a pitch period is repeated, while there still is one ...
_JUMP: Final = 7_680  # ... 160 ms too long: thrown away at once
_REBASE: Final = 9_600  # a talkspurt that starts 200 ms later than ever came over another path

Kind = Literal["packet", "fec", "conceal", "fade", "comfort", "silence"]
Shape = Literal["keep", "shorten", "lengthen"]


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction. It makes ``samples`` samples after the first ``skip`` that it makes are cut off.

    ``packet``: decode ``payload``. ``fec``: recover the ``samples`` before ``payload`` from it.
    ``conceal``: invent; ``fade``: invent, falling to nothing; ``comfort``: go on with the noise of a sender that
    has paused; ``silence``: zeros. ``level``: what the packet's
    header says of it (RFC 6464), None when it says nothing.
    """

    kind: Kind
    samples: int
    payload: bytes = b""
    skip: int = 0
    level: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do in this tick: the steps in order, then the shape to give to the result."""

    steps: tuple[Step, ...]
    shape: Shape = "keep"


@dataclass(slots=True)
class PlayoutCounters:
    """Counts of packets, of samples where the name says so, and of events (``resyncs``, corrections)."""

    received: int = 0
    lost: int = 0  # never heard, whether they came too late or not at all
    late: int = 0
    duplicate: int = 0
    recovered: int = 0  # of the lost: rebuilt from FEC
    overflow: int = 0  # thrown away because the buffer was full or far too long
    strange: int = 0  # of another sequence or clock than the rest
    resyncs: int = 0
    concealed_samples: int = 0
    shortened: int = 0
    lengthened: int = 0


@dataclass(slots=True)
class _Packet:
    sequence: int  # unwrapped
    start: int  # unwrapped, samples at 48 kHz
    end: int
    payload: bytes
    level: int | None
    dtx: bool


def _signed(value: int, bits: int) -> int:
    """The difference of two counters of ``bits`` bits, as the nearer of its two readings."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


class Playout:
    """Jitter buffer of one RTP audio source. ``clock_hz``: of its timestamps, a divisor of 48,000."""

    def __init__(self, *, clock_hz: int, fec: bool) -> None:
        self._scale = AUDIO_CLOCK_HZ // clock_hz
        self._fec = fec
        self._arrivals = Arrivals()
        self._packets: list[_Packet] = []  # by sequence; few, so insertion into a list is the fast way
        self._fresh = True  # the next packet begins a source
        self._highest = (0, 0)  # unwrapped sequence, timestamp (in clock_hz)
        self._seen = 0  # bit n: the packet n before the highest has come
        self._suspect: int | None = None  # the sequence number that would confirm a new source
        self._next: int | None = None  # media time of the next sample to decode; None = idle
        self._played: int | None = None  # sequence number last played
        self._starved = 0
        self._paused = False  # the packet played last said that the sender pauses
        self._comfort = 0  # samples of noise that may still be made of that
        self._delays: deque[float] = deque(maxlen=_SETTLE_TICKS)
        self._delay = 0.0
        self.counters = PlayoutCounters()

    # -- what the outside may look at -------------------------------------------------------------------

    @property
    def playing(self) -> bool:
        """False between talkspurts and before the first packet is due."""
        return self._next is not None

    @property
    def depth(self) -> int:
        """Packets that wait."""
        return len(self._packets)

    @property
    def floor_ms(self) -> float:
        """The least target, whatever the jitter; 0 to 200, set from outside."""
        return self._arrivals.floor * 1_000 / AUDIO_CLOCK_HZ

    @floor_ms.setter
    def floor_ms(self, floor_ms: float) -> None:
        self._arrivals.floor = int(min(MAX_FLOOR, max(0.0, floor_ms * AUDIO_CLOCK_HZ / 1_000)))

    def playhead(self, now: float) -> int | None:
        """RTP timestamp (32 bits) of what is heard at ``now``, or would be if anything was; None: nothing came."""
        if not self._arrivals.known:
            return None
        return round(now * AUDIO_CLOCK_HZ - self._arrivals.base - self._waits) // self._scale & 0xFFFFFFFF

    @property
    def _waits(self) -> float:
        return self._delay if self.playing and self._delays else self._arrivals.target

    @property
    def waits_ms(self) -> float:
        """How long sound waits here beyond the fastest transit, or would if there was any."""
        return self._waits * 1_000 / AUDIO_CLOCK_HZ

    @property
    def target_ms(self) -> float:
        return self._arrivals.target * 1_000 / AUDIO_CLOCK_HZ

    @property
    def delay_ms(self) -> float:
        """The least delay lately (200 ms at most); 0.0 when idle."""
        return self._delay * 1_000 / AUDIO_CLOCK_HZ if self.playing else 0.0

    @property
    def jitter_ms(self) -> float:
        return self._arrivals.jitter * 1_000 / AUDIO_CLOCK_HZ

    # -- in ---------------------------------------------------------------------------------------------

    def push(
        self,
        sequence: int,
        timestamp: int,
        payload: bytes,
        *,
        samples: int,
        now: float,
        level: int | None = None,
        dtx: bool = False,
        repaired: bool = False,
    ) -> None:
        """Take a packet of ``samples`` samples (at 48 kHz). ``sequence``, ``timestamp``: as in the header.

        ``dtx``: it says that the sender pauses after it (RFC 7587 section 3.1.3). ``repaired``: it comes late because
        it had been lost.
        """
        self.counters.received += 1
        if self._fresh:
            self._begin(sequence, timestamp)
        number, ticks = self._unwrap(sequence, timestamp)
        start = ticks * self._scale
        if self._is_strange(number, start, now):
            if sequence != self._suspect:
                self._suspect = (sequence + 1) & 0xFFFF
                self.counters.strange += 1
                return
            self.reset()
            self._begin(sequence, timestamp)
            self.counters.resyncs += 1
            number, start = sequence, timestamp * self._scale
        self._suspect = None
        if not self._mark(number, ticks):
            self.counters.duplicate += 1
            return
        if self._next is None and not self._packets and self._late_by(start, now) > _REBASE:
            self._arrivals.reset()
        if (repaired or self._overtaken(number, start, now)) and self._arrivals.known:
            self._arrivals.add_repaired(start, now)
        else:
            self._arrivals.add(start, now)
        end = start + samples
        if (self._played is not None and number <= self._played) or (
            self._next is not None and end <= self._next
        ):
            self.counters.late += 1
            return
        packets = self._packets
        packet = _Packet(number, start, end, payload, level, dtx)
        if not packets or packets[-1].sequence < number:
            packets.append(packet)
        else:
            packets.insert(bisect_left(packets, number, key=lambda held: held.sequence), packet)
        while len(packets) > MAX_PACKETS or packets[-1].end - packets[0].start > MAX_SPAN:
            del packets[0]
            self.counters.overflow += 1
            if not packets:
                break

    def reset(self) -> None:
        """Forget the source (another SSRC, unmuted after a while); counters and target stay."""
        self._packets.clear()
        self._arrivals.reset()
        self._fresh = True
        self._suspect = self._played = None
        self._go_idle()

    def _unwrap(self, sequence: int, timestamp: int) -> tuple[int, int]:
        number, ticks = self._highest
        return number + _signed(sequence - number, 16), ticks + _signed(timestamp - ticks, 32)

    def _late_by(self, start: int, now: float) -> float:
        return self._arrivals.late_by(start, now) if self._arrivals.known else 0.0

    def _overtaken(self, number: int, start: int, now: float) -> bool:
        """Whether it comes after its successors and so late that it must be a repeat: asked for and given up."""
        return number < self._highest[0] and self._late_by(start, now) > MAX_FLOOR

    def _is_strange(self, number: int, start: int, now: float) -> bool:
        ahead = number - self._highest[0]
        return not -MAX_MISORDER <= ahead <= MAX_DROPOUT or abs(self._late_by(start, now)) > MAX_CLOCK_STEP

    def _begin(self, sequence: int, timestamp: int) -> None:
        self._fresh = False
        self._highest = (sequence, timestamp)
        self._seen = 0

    def _mark(self, number: int, ticks: int) -> bool:
        """Note that packet ``number`` has come; False if it had come before."""
        ahead = number - self._highest[0]
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & ((1 << (MAX_MISORDER + 1)) - 1)
            self._highest = (number, ticks)
            return True
        bit = 1 << -ahead
        if self._seen & bit:
            return False
        self._seen |= bit
        return True

    # -- out --------------------------------------------------------------------------------------------

    def pop(self, now: float, *, buffered: int = 0) -> Plan:
        """The instructions for one tick. To be called exactly once every 20 ms.

        ``buffered``: samples already decoded and not heard yet (of a 60 ms packet, of a correction).
        """
        clock = now * AUDIO_CLOCK_HZ
        shape = self._correction(clock, buffered)
        need = FRAME_SAMPLES - buffered
        if shape == "shorten":
            need += FRAME_SAMPLES
        steps: list[Step] = []
        while need > 0:
            step = self._step(clock, need)
            steps.append(step)
            need -= step.samples
        return Plan(tuple(steps), shape)

    def pass_by(self, now: float) -> list[bytes]:
        """Instead of ``pop``, where nobody listens: drop what is due at ``now`` (``inf``: all), keep what is not.

        The next ``pop`` starts with the oldest that is not due yet. Returns the payloads of what was dropped, in
        order: a decoder that is to go on from there is primed with the last of them.
        """
        if self._next is not None:
            self._go_idle()
        self._played = None
        due = now * AUDIO_CLOCK_HZ - self._arrivals.base - self._arrivals.target
        passed = []
        while self._packets and self._packets[0].end <= due:
            passed.append(self._packets.pop(0).payload)
        return passed

    def skip(self, samples: int) -> None:
        """Ticks were dropped: pass over ``samples`` samples of media time unheard."""
        if self._next is not None:
            self._next += samples
            self._delays.clear()

    def _step(self, clock: float, need: int) -> Step:
        at = self._start(clock) if self._next is None else self._next
        if at is None:
            if self._comfort < need:
                return Step("silence", need)
            self._comfort -= need
            return Step("comfort", need)
        while self._packets and self._packets[0].end <= at:
            del self._packets[0]
        if not self._packets:
            return self._starve(need)
        head = self._packets[0]
        if head.start > at and self._starved:
            at += min(self._starved, head.start - at)
            self._next, self._starved = at, 0
        gap = head.start - at
        if gap <= 0:
            return self._play(head, -gap)
        if gap > MAX_GAP or self._played is None or head.sequence == self._played + 1:
            return self._pause(need)
        return self._bridge(head, at, gap)

    def _start(self, clock: float) -> int | None:
        """Leave idle if the first packet is due, and say where. Far too old packets are thrown away first."""
        packets = self._packets
        if not packets:
            return None
        arrivals = self._arrivals
        if clock - packets[0].start - arrivals.base < arrivals.target - _START_EARLY:
            return None
        while (
            len(packets) > 1
            and clock - packets[0].start - arrivals.base > arrivals.target + _JUMP
            and packets[-1].end - packets[1].start >= arrivals.target
        ):
            del packets[0]
            self.counters.overflow += 1
        self._next = packets[0].start
        self._starved = self._comfort = 0
        return self._next

    def _play(self, head: _Packet, skip: int) -> Step:
        del self._packets[0]
        if self._played is not None:
            self.counters.lost += head.sequence - self._played - 1
        self._played = head.sequence
        self._next = head.end
        self._starved = 0
        self._paused = head.dtx
        return Step("packet", head.end - head.start - skip, head.payload, skip, head.level)

    def _bridge(self, head: _Packet, at: int, gap: int) -> Step:
        """Fill a hole whose far side is known."""
        reach = max(FRAME_SAMPLES, head.end - head.start)  # FEC describes the one frame before its packet
        fec = self._fec and opus_has_fec(head.payload)
        if fec and gap <= reach:
            self._next = head.start
            self.counters.recovered += 1
            return Step("fec", gap, head.payload)
        samples = min(FRAME_SAMPLES, gap - reach if fec else gap)
        self._next = at + samples
        self.counters.concealed_samples += samples
        return Step("conceal", samples)

    def _starve(self, need: int) -> Step:
        if self._paused:
            self._go_idle()
            self._comfort = MAX_COMFORT - need
            return Step("comfort", need)
        if self._starved >= MAX_STARVED:
            return self._pause(need)
        self._starved += need
        self.counters.concealed_samples += need
        return Step("conceal", need)

    def _pause(self, need: int) -> Step:
        self._go_idle()
        return Step("fade", need)

    def _go_idle(self) -> None:
        self._next = None
        self._starved = self._comfort = 0
        self._paused = False
        self._delays.clear()

    # -- keeping the delay ------------------------------------------------------------------------------

    def _correction(self, clock: float, buffered: int) -> Shape:
        """Whether this tick's sound should be shorter or longer than what is heard of it."""
        at = self._next
        if at is None:
            return "keep"
        self._delays.append(clock - (at - buffered) - self._arrivals.base)
        self._delay = min(self._delays)  # a tick that comes late looks like delay: believe the least
        excess = self._delay - self._arrivals.target
        if len(self._delays) < (_HURRY_TICKS if abs(excess) > _FAR else _SETTLE_TICKS) or self._starved:
            return "keep"
        if excess > _LONG_SLACK:
            if excess > _JUMP and self._jump(clock):
                return "keep"
            if self._covers(at, 2 * FRAME_SAMPLES - buffered):
                self._delays.clear()
                self.counters.shortened += 1
                return "shorten"
        elif excess < -_SHORT_SLACK and self._covers(at, FRAME_SAMPLES - buffered):
            self._delays.clear()
            self.counters.lengthened += 1
            return "lengthen"
        return "keep"

    def _jump(self, clock: float) -> bool:
        """Far behind with a full buffer: go on at the target. False when there is nothing to jump over."""
        wanted = clock - self._arrivals.base - self._arrivals.target
        if not self._packets or self._packets[-1].end <= wanted:
            return False
        while self._packets[0].end <= wanted:
            del self._packets[0]
            self.counters.overflow += 1
        self._go_idle()
        return True

    def _covers(self, at: int, samples: int) -> bool:
        """Whether the ``samples`` samples from ``at`` on are here without a hole."""
        wanted = at + samples
        for packet in self._packets:
            if packet.start > at or at >= wanted:
                break
            at = max(at, packet.end)
        return at >= wanted
