"""The observer's ear: a mix's Opus packets to sound, what was lost on the way waited for, or invented, and counted."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

from mixer.audio.opus import OpusDecoder
from mixer.audio.payload import duration_samples, opus_frame_samples
from mixer.media import AUDIO_CLOCK_HZ, FRAME_SAMPLES
from mixer.rtp.packet import RtpPacket

Sound = npt.NDArray[np.float32]

WAIT_S: Final = 0.15
MAX_GAP_SAMPLES: Final = 24_000  # half a second: what is missing longer is a pause, not a loss
_KEPT: Final = 200
_CELT_ONLY: Final = 0x80  # of the TOC byte: configurations 16 to 31, RFC 6716 table 2


def carries_fec(payload: bytes) -> bool:
    """Whether this Opus packet describes what was before it, too: the LBRR flag of its first frame, which follows
    a voice flag for each 20 ms of it (RFC 6716 section 4.2.3; mono, as mixes are)."""
    if not payload or payload[0] & _CELT_ONLY:
        return False
    at = _first_frame(payload)
    voice_flags = max(1, opus_frame_samples(payload) // FRAME_SAMPLES)
    return at < len(payload) and bool(payload[at] >> (7 - voice_flags) & 1)


def _first_frame(payload: bytes) -> int:
    """Where the first frame's bytes begin (RFC 6716 section 3.2)."""
    code = payload[0] & 0x03
    if code < 2:
        return 1
    at, lengths = 1, 1
    if code == 3:
        variable, padded, lengths = _count_byte(payload)
        at = 2
        while padded and at < len(payload):  # 255: 254 bytes of padding, and another length byte follows
            at += 1
            padded = payload[at - 1] == 255
        lengths = lengths - 1 if variable else 0
    for _ in range(lengths):
        at += 2 if at < len(payload) and payload[at] >= 252 else 1
    return at


def _count_byte(payload: bytes) -> tuple[bool, bool, int]:
    """Variable lengths, padding, frames."""
    count = payload[1] if len(payload) > 1 else 0
    return bool(count & 0x80), bool(count & 0x40), count & 0x3F


class Ear:
    """Feed it packets as they come; those that come too late or twice are passed over.

    What is missing is waited for, ``WAIT_S`` from when its successor came, as long as a player's jitter buffer does;
    but what is heard is timed to its own packet's arrival. ``samples`` were decoded in all, ``concealed`` of them
    invented, because the packet did not come and the next one carried no FEC for it.
    """

    def __init__(self) -> None:
        self._opus = OpusDecoder()
        self._waiting: dict[int, tuple[RtpPacket, float]] = {}  # by sequence number, with its arrival
        self._newest: tuple[int, int] | None = None  # sequence number; the timestamp that comes next
        # where sound came from: (first sample, arrival, RTP timestamp), newest last
        self._arrivals: deque[tuple[int, float, int]] = deque(maxlen=_KEPT)
        self.samples = 0
        self.concealed = 0

    def feed(self, packet: RtpPacket, now: float) -> Sound:
        """The sound up to here, as far as nothing is waited for. ``MalformedPacket`` if one is no Opus."""
        if self._newest is None:
            return self._hear(packet, now)
        if (packet.sequence - self._newest[0] - 1) & 0x8000:
            return np.empty(0, np.float32)
        self._waiting.setdefault(packet.sequence, (packet, now))
        heard: list[Sound] = []
        while self._waiting:
            newest = self._newest[0]
            first = min(self._waiting, key=lambda sequence: (sequence - newest) & 0xFFFF)
            waiting, came = self._waiting[first]
            if first != (newest + 1) & 0xFFFF and now - came < WAIT_S:
                break
            del self._waiting[first]
            heard.append(self._hear(waiting, came))
        return np.concatenate(heard) if heard else np.empty(0, np.float32)

    def _hear(self, packet: RtpPacket, came: float) -> Sound:
        length = duration_samples("opus", packet.payload)
        filled = self._filled(packet)
        self._newest = packet.sequence, (packet.timestamp + length) & 0xFFFFFFFF
        self._arrivals.append((self.samples + sum(map(len, filled)), came, packet.timestamp))
        sound = np.concatenate((*filled, self._opus.decode(packet.payload)))
        self.samples += sound.size
        return sound

    def arrival(self, sample: float) -> tuple[float, int] | None:
        """When a sample came, and its RTP timestamp; None when that is long ago."""
        for first, arrival, timestamp in reversed(self._arrivals):
            if first <= sample:
                return (
                    arrival + (sample - first) / AUDIO_CLOCK_HZ,
                    (timestamp + round(sample - first)) & 0xFFFFFFFF,
                )
        return None

    def _filled(self, packet: RtpPacket) -> list[Sound]:
        """In place of what was lost just before ``packet``."""
        if self._newest is None or packet.sequence == (self._newest[0] + 1) & 0xFFFF:
            return []
        missing = (packet.timestamp - self._newest[1]) & 0xFFFFFFFF
        if not 0 < missing <= MAX_GAP_SAMPLES:
            return []
        recovered = min(missing, opus_frame_samples(packet.payload)) if carries_fec(packet.payload) else 0
        invented = [
            self._opus.conceal(min(FRAME_SAMPLES, missing - recovered - done))
            for done in range(0, missing - recovered, FRAME_SAMPLES)
        ]
        self.concealed += missing - recovered
        return [*invented, self._opus.recover(packet.payload, recovered)] if recovered else invented
