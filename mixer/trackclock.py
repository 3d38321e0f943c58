"""When what a participant sent belongs in the mix: from the sender's clocks to the room's. Pure.

Three clocks run apart from each other, by up to 200 ppm or three seconds in four hours: the one of each RTP stream,
the sender's NTP clock, and the room's. Sender reports tie the streams to the NTP clock (RFC 3550 section 6.4.1), so
voice, camera and screen of a participant stay together whatever the network does to each of them. The NTP clock is
tied to the room's by the packets that came fastest lately, as in the jitter buffer (`mixer.audio.arrival`): what is
slower waited somewhere. And the mix plays a voice no sooner than 40 ms after it could have come, so that is added;
what it waits beyond that comes and goes with the line's jitter, and is noted beside the tracks, not done to them.

Both ties are followed slowly: a report that is off by some milliseconds, or a quicker way, must not make a picture
jump; a clock that has been set is followed at once.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from recording.timeline import USUAL_WAIT_MS

MIX_S: Final = USUAL_WAIT_MS / 1000  # the least in a voice's jitter buffer (`arrival.MIN_TARGET`)
SLEW: Final = 0.005  # seconds a second: 25 times what two clocks drift apart at worst
JUMP_S: Final = 0.2  # further off is another clock, or another way
SETTLE_S: Final = 2.0  # at first every packet may be the fastest so far
STRANGE_S: Final = 2.0  # a stream's own time and its arrivals differ by so much more: its clock began anew
_BUCKET_S: Final = 1.0
_BUCKETS: Final = 10


class _Slewed:
    """A value that follows another one slowly, after it has settled."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._began_s = 0.0
        self._at_s = 0.0

    def follow(self, target: float, now: float) -> float:
        value = self.value
        if value is None:
            self._began_s = self._at_s = now
            value = target
        elif now - self._began_s < SETTLE_S or abs(target - value) > JUMP_S:
            value = target
        else:
            most = SLEW * max(0.0, now - self._at_s)
            value += max(-most, min(most, target - value))
        self._at_s = max(self._at_s, now)
        self.value = value
        return value


class SenderClock:
    """One clock of a sender against the room's. Seconds."""

    def __init__(self) -> None:
        self._minima: deque[tuple[float, float]] = deque(maxlen=_BUCKETS)  # start of its second, least delay
        self._offset = _Slewed()

    def to_room(self, sender_s: float, arrived_s: float) -> float:
        """The room's time of ``sender_s``, of which something arrived at ``arrived_s`` (room)."""
        delay = arrived_s - sender_s
        minima = self._minima
        if minima and abs(delay - minima[-1][1]) > STRANGE_S:
            minima.clear()  # the clock was set, or nothing came for seconds: what comes now is heard now
        if not minima or arrived_s - minima[-1][0] >= _BUCKET_S:
            minima.append((arrived_s, delay))
        elif delay < minima[-1][1]:
            minima[-1] = (minima[-1][0], delay)
        return sender_s + self._offset.follow(min(least for _, least in minima), arrived_s)


class TrackClock:
    """One RTP stream of the sender whose NTP clock is ``sender``. ``rate_hz``: of its timestamps."""

    def __init__(self, sender: SenderClock, rate_hz: int) -> None:
        self._sender = sender
        self._rate_hz = rate_hz
        self._own = SenderClock()  # until the first report
        self._zero = _Slewed()  # the sender's NTP time at timestamp 0

    def place(self, rtp: int, taken_s: float | None, arrived_s: float) -> float:
        """The room's time in seconds at which the mix has the sample of timestamp ``rtp`` (unwrapped).

        ``taken_s``: the same on the sender's NTP clock, None before a report. ``arrived_s``: when it came.
        """
        stream_s = rtp / self._rate_hz
        if taken_s is None:
            room_s = self._own.to_room(stream_s, arrived_s)
        else:
            zero = self._zero.follow(taken_s - stream_s, arrived_s)
            room_s = self._sender.to_room(stream_s + zero, arrived_s)
        # whatever a sender says of its clocks: nothing is from the future, nor of long ago
        return min(max(room_s, arrived_s - STRANGE_S), arrived_s + JUMP_S) + MIX_S
