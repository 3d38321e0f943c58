"""What `mixer.webrtc.client` sends and receives: one stream of either direction, and what its receiver says of it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Final

from mixer.media import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, Kind, VideoCodec
from mixer.rtp.assemble import FrameAssembler
from mixer.rtp.gaps import SoundGaps
from mixer.rtp.packet import RtpPacket
from mixer.rtp.reception import ReceptionStats
from mixer.rtp.red import RedUnpacker
from mixer.rtp.rtcp import ReportBlock, SenderReport
from mixer.webrtc.client_offer import OPUS_PT, RED_PT
from mixer.webrtc.outgoing import OutgoingStream

CLOCK_HZ: Final[dict[Kind, int]] = {"audio": AUDIO_CLOCK_HZ, "video": VIDEO_CLOCK_HZ}


@dataclass(frozen=True, slots=True)
class Loss:
    """One direction's packets, as its receiver counts them."""

    packets: int
    lost: int

    @property
    def share(self) -> float:
        """0.0 … 1.0; repeats that outnumber losses make no negative loss."""
        expected = self.packets + self.lost
        return max(0, self.lost) / expected if expected > 0 else 0.0


class Outgoing:
    """One stream that we send, the moment of its newest sample, and what its receiver last said of it."""

    def __init__(self, kind: Kind, payload_type: int) -> None:
        self.stream = OutgoingStream(
            ssrc=secrets.randbits(32), payload_type=payload_type, clock_hz=CLOCK_HZ[kind]
        )
        self.newest: tuple[float, int] | None = None  # loop time, pts
        self.receiver: ReportBlock | None = None

    def report(self, now: float) -> SenderReport | None:
        if self.newest is None:
            return None
        at, pts = self.newest
        return self.stream.report(room_s=pts / self.stream.clock_hz + now - at, unix_s=time.time())

    @property
    def loss(self) -> Loss:
        lost = self.receiver.packets_lost if self.receiver is not None else 0
        return Loss(self.stream.packets - lost, lost)


class Incoming:
    """One stream that we receive. ``assembler`` is there only when someone wants its pictures, ``red`` and ``gaps``
    only of sound.
    """

    def __init__(self, kind: Kind, codec: VideoCodec | None, *, assemble: bool) -> None:
        self.kind = kind
        self.codec = codec
        self.stats = ReceptionStats(CLOCK_HZ[kind])
        self.assembler = FrameAssembler(codec) if assemble and codec is not None else None
        sounds = kind == "audio"
        self.red = RedUnpacker(red_type=RED_PT, inner_type=OPUS_PT) if sounds else None
        self.gaps = SoundGaps(AUDIO_CLOCK_HZ, foresees=False) if sounds else None
        self.ssrc: int | None = None

    def sounds(self, packet: RtpPacket, now: float) -> list[RtpPacket]:
        """Packets of bare Opus: this one, after the lost ones that it repeats. Raises ``MalformedPacket``."""
        found = self.red.unpack(packet) if self.red is not None else [packet]
        if self.gaps is not None:
            for earlier in found[:-1]:
                self.gaps.found(earlier, now)
        return found

    def is_repair(self, packet: RtpPacket, now: float) -> bool:
        """Whether a packet of sound came because it was asked for."""
        return self.gaps is not None and self.gaps.take(packet, now)
