"""A camera that steers by REMB alone, its line (`Netem`), and us at the far end: everything but sockets, in fast time.

    call = RembSender(seed=1, delay_s=0.05, rate_bps=150_000)
    call.run(30.0)
    call.queue_s(20.0, 30.0)

It is a browser of before transport-cc, or aiortc: pictures of a size that varies, a keyframe now and then that is ten
times as large, sound, all stamped or not; what it is told takes the way back, and an encoder its time to follow.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from mixer.rtp.packet import RtpPacket
from mixer.rtp.rtcp import ReceiverEstimatedMaxBitrate, RtcpPacket
from mixer.video.demand import FULL
from mixer.webrtc.answer import ABS_SEND_TIME
from mixer.webrtc.feedback import PACKET_OVERHEAD, SOUND_BPS, Feedback
from mixer.webrtc.incoming import Router
from mixer.webrtc.outgoing import abs_send_time
from tests.fakes.netem import Netem

STAMP_ID: Final = 3
CAMERA, VOICE = 5, 6
OFFER: Final = (
    "audio 111|a=sendonly|a=rtpmap:111 opus/48000/2",
    "video 96|a=sendonly|a=rtpmap:96 VP8/90000|a=rtcp-fb:96 nack pli|a=rtcp-fb:96 goog-remb",
)
STAMPED: Final = f"|a=extmap:{STAMP_ID} {ABS_SEND_TIME}"
LEAST_BPS: Final = 40_000  # of pictures: encoders stop somewhere
ENCODER_S: Final = 0.2  # until a new rate is seen in what leaves
TICK_S: Final = 0.005
KEYFRAME_S: Final = 10.0
PACKET: Final = 1100  # bytes of a payload


@dataclass(slots=True)
class Sample:
    """At one moment: what it was told, bits a second, how long the line's queue was, and what came through."""

    at: float
    told_bps: float
    queue_s: float
    arrived: int
    newest_picture_at: float


class RembSender:
    """``routes``: of a session that offered ``OFFER``; ``greedy``: all that it is told goes into pictures, and sound
    comes on top, as aiortc's sender does. ``most_bps``: of its encoder. The rest is `Netem`'s.
    """

    def __init__(
        self, routes: Router, *, seed: int, stamped: bool = True, greedy: bool = False, most_bps: float = 2.5e6,
        **line: Any,
    ) -> None:  # fmt: skip
        self.feedback = Feedback(routes, ssrc=9, cname="us")
        self.line: Netem[RtpPacket] = Netem(
            seed=seed, size=lambda packet: len(packet.payload) + PACKET_OVERHEAD, **line
        )
        self.now = 100.0
        self.samples: list[Sample] = []
        self.told: list[int] = []
        self._routes = routes
        self._source = random.Random(seed)
        self._stamped, self._greedy, self._most_bps = stamped, greedy, most_bps
        self._told_bps = self._video_bps = 300_000.0  # libwebrtc's and aiortc's encoders begin about there
        self._back: list[tuple[float, float]] = []  # REMB on its way, then in the encoder
        self._sequences = {CAMERA: 0, VOICE: 0}
        self._picture_at = self._sound_at = self.now
        self._keyframe_at = self.now
        self._arrived = 0
        self._newest_picture_at = self.now

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += TICK_S
            self._follow()
            self._send()
            for packet in self.line.receive(self.now):
                self._receive(packet)
            packets = self.feedback.urgent(self.now, 0.1)
            if self.feedback.report_due(self.now):
                packets += self.feedback.report([], self.now)
            self._hear(packets)
            rate = self.line.rate_bps
            queue_s = 0.0 if rate is None else self.line.queued_bytes * 8 / rate
            self.samples.append(
                Sample(self.now, self._told_bps, queue_s, self._arrived, self._newest_picture_at)
            )

    def between(self, start: float, end: float) -> list[Sample]:
        """Of the seconds since the beginning."""
        return [sample for sample in self.samples if start <= sample.at - 100.0 < end]

    def least_told(self, start: float, end: float) -> float:
        return min(sample.told_bps for sample in self.between(start, end))

    def queues_s(self, start: float, end: float) -> list[float]:
        """Sorted."""
        return sorted(sample.queue_s for sample in self.between(start, end))

    def longest_pause_s(self, start: float, end: float) -> float:
        """Without a new picture of which anything came."""
        return max(sample.at - sample.newest_picture_at for sample in self.between(start, end))

    def arrived_bps(self, start: float, end: float) -> float:
        samples = self.between(start, end)
        return (samples[-1].arrived - samples[0].arrived) * 8 / (samples[-1].at - samples[0].at)

    def told_after_s(self, bps: float, start: float) -> float | None:
        """Seconds from ``start`` on until it was told so much."""
        return next(
            (s.at - 100.0 - start for s in self.samples if s.at - 100.0 >= start and s.told_bps >= bps), None
        )

    def _follow(self) -> None:
        while self._back and self._back[0][0] <= self.now:
            self._told_bps = self._back.pop(0)[1]
            pictures = self._told_bps if self._greedy else self._told_bps - SOUND_BPS
            self._video_bps = min(self._most_bps, max(LEAST_BPS, pictures))

    def _hear(self, packets: list[RtcpPacket]) -> None:
        for packet in packets:
            if isinstance(packet, ReceiverEstimatedMaxBitrate):
                self.told.append(packet.bitrate_bps)
                self._back.append((self.now + 0.05 + ENCODER_S, packet.bitrate_bps))

    def _send(self) -> None:
        if self.now >= self._sound_at:
            self._sound_at += 0.02
            self._push(VOICE, 111, 80, 960, marker=False)
        if self.now < self._picture_at:
            return
        self._picture_at += 1 / 30
        size = self._video_bps / 8 / 30 * self._source.uniform(0.6, 1.4)
        if self.now >= self._keyframe_at:
            self._keyframe_at, size = self.now + KEYFRAME_S, min(10 * size, 60_000)
        # headers are part of a browser's rate, and not of aiortc's
        room = PACKET if self._greedy else PACKET + PACKET_OVERHEAD
        while size > 0:
            part = min(size, room)
            size -= part
            self._push(CAMERA, 96, max(20, int(part - (room - PACKET))), 0, marker=size <= 0)

    def _push(self, ssrc: int, payload_type: int, size: int, step: int, *, marker: bool) -> None:
        self._sequences[ssrc] += 1
        sequence = self._sequences[ssrc]
        timestamp = sequence * step if step else round(self._picture_at * 30) * 3000
        extensions = {STAMP_ID: abs_send_time(self.now).to_bytes(3, "big")} if self._stamped else {}
        payload = b"\x90\x80\x01" + bytes(size - 3)
        packet = RtpPacket(
            payload_type, marker, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc, payload, (), extensions
        )
        self.line.send(packet, self.now)

    def _receive(self, packet: RtpPacket) -> None:
        self._arrived += len(packet.payload) + PACKET_OVERHEAD
        if self.feedback.notes_arrivals:
            self.feedback.arrived(packet, self.now)
        routed = self._routes.route(packet, self.now)
        assert routed is not None
        routed[0].stats.receive(routed[1], self.now)
        if packet.ssrc == CAMERA:
            self._newest_picture_at = self.now


FULL_BPS: Final = FULL.bitrate_bps + SOUND_BPS
"""What it is told while nothing is known of its tiles, and of its line."""
