"""What we tell a publisher: lost packets, wanted keyframes, reports, arrivals, how much it may send. Pure.

How much is what its tiles show. A sender that is told of arrivals (transport-cc) looks after its own line; to one that
steers by our limits alone we say no more than its line carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mixer.rtp.arrivals import ArrivalLog
from mixer.rtp.gaps import SoundGaps
from mixer.rtp.packet import RtpPacket
from mixer.rtp.rtcp import (
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    TemporaryMaxBitrateRequest,
)
from mixer.rtp.uplink import UplinkEstimator
from mixer.video.demand import FULL, TRICKLE_BPS, Demand
from mixer.webrtc.answer import ABS_SEND_TIME, Track
from mixer.webrtc.incoming import IncomingTrack, Router
from mixer.webrtc.layers import Layers

REPORT_S: Final = 1.0  # RFC 3550 section 6.2 allows 5 s; senders steer by our loss and REMB, so more often
ARRIVALS_S: Final = 0.1  # of arrivals; libwebrtc takes 50 to 250 ms
ARRIVALS_BUSY_S: Final = 0.25  # while the mix that we send has to be small: ours is its line, too
SOUND_BPS: Final = 64_000  # Opus of 32 kbit/s at 50 packets a second with its headers; REMB covers both
# Layers below the one that is looked at are sent as well, each with a quarter of the pixels of the next.
SIMULCAST_FACTOR: Final = 1.5
TOLD_AGAIN: Final = 1.03  # so much less is told at once: libwebrtc's RembThrottler, kSendThresholdPercent
PACKET_OVERHEAD: Final = 28 + 12 + 10 + 8  # bytes: IP and UDP, RTP, SRTP's tag, extensions (RFC 5104 4.2.1.2)


class Feedback:
    """RTCP for the tracks of one peer. ``ssrc`` and ``cname`` sign what is sent."""

    def __init__(self, router: Router, *, ssrc: int, cname: str) -> None:
        self._router = router
        self._ssrc = ssrc
        self._cname = cname
        videos = dict.fromkeys(i.track.index for i in router.tracks if i.track.kind == "video")
        self._layers = {
            index: Layers([i for i in router.tracks if i.track.index == index]) for index in videos
        }
        self._demands: dict[bool, Demand] = {}  # by whether it is the screen's
        self._fir_sequence = 0
        self._report_at = 0.0
        self._reported = self._sources()
        self._transport_id = next(
            (i.track.transport_cc for i in router.tracks if i.track.transport_cc is not None), None
        )
        self._uplink = self._new_uplink()
        self._told_bps = 0.0  # last, by `limits`
        self._counted = 0, 0  # packets that came and are missing, by the last judgement
        self.notes_arrivals = self._transport_id is not None or self._uplink is not None
        """Whether `arrived` is to be told."""
        self._reduced_size = all(incoming.track.section.rtcp_rsize for incoming in router.tracks)
        self._arrivals = ArrivalLog()
        self._arrivals_at = 0.0

    def schedule(self, at: float) -> None:
        """When the first report is due."""
        self._report_at = at

    def ask(self, demand: Demand, *, screen: bool, now: float) -> None:
        """What the publisher is to send of its camera or its screen from now on."""
        self._demands[screen] = demand
        for layers in self._layers.values():
            if layers.all[0].track.screen == screen:
                layers.want(demand, now)

    @property
    def asked_bps(self) -> int:
        """What it may send of its pictures, all together."""
        return round(self._wanted_bps * self._share)

    @property
    def received_bps(self) -> int:
        """What it sent of them in the last second."""
        return sum(i.received_bps for i in self._router.tracks if i.track.kind == "video")

    @property
    def layer(self) -> str | None:
        """The simulcast layer of its camera that is looked at."""
        actives = (layers.active for layers in self._layers.values())
        return next((i.rid for i in actives if i is not None and not i.track.screen), None)

    def layers(self, incoming: IncomingTrack) -> Layers:
        """The simulcast layers of the m-line that ``incoming``, a picture's, belongs to."""
        return self._layers[incoming.track.index]

    def report_due(self, now: float) -> bool:
        """Each ``REPORT_S``, and at once for a new source: it is to hear what it may send."""
        sources = self._sources()
        if now < self._report_at and sources == self._reported:
            return False
        self._report_at, self._reported = now + REPORT_S, sources
        return True

    def report(self, sent: Sequence[SenderReport], now: float) -> list[RtcpPacket]:
        """One compound (RFC 3550 section 6.1): ``sent``, a report on what is received, CNAMEs, limits."""
        for incoming in self._router.tracks:
            incoming.measure(now)
        blocks = tuple(i.stats.report_block(now) for i in self._router.tracks if i.ssrc is not None)
        received = [ReceiverReport(self._ssrc, blocks)] if blocks or not sent else []
        ssrcs = [report.ssrc for report in sent] + [report.ssrc for report in received]
        return [
            *sent,
            *received,
            *(SourceDescription.of(ssrc, self._cname) for ssrc in ssrcs),
            *self.limits(),
        ]

    def compound(self, packets: Sequence[RtcpPacket]) -> list[RtcpPacket]:
        """Feedback that can't wait for a report: in the smallest compound (RFC 4585 section 3.1)."""
        return [ReceiverReport(self._ssrc), SourceDescription.of(self._ssrc, self._cname), *packets]

    def urgent(self, now: float, rtt_s: float | None) -> list[RtcpPacket]:
        """NACKs and keyframe requests that are due."""
        packets: list[RtcpPacket] = []
        if self._uplink is not None and self._limit_bps * TOLD_AGAIN < self._told_bps:
            packets += self.limits()
        for incoming in self._router.tracks:
            if incoming.ssrc is None:
                continue
            if incoming.gaps is not None:
                packets += self._sounds(incoming, incoming.gaps, now, rtt_s)
            if incoming.assembler is None:
                continue
            if rtt_s is not None:
                incoming.assembler.set_rtt(rtt_s)
            wanted = incoming.assembler.poll(now)
            layers = self._layers[incoming.track.index]
            layers.choose(now)
            if not layers.watched(incoming):
                continue
            if wanted.nack and "nack" in incoming.track.feedback:  # GStreamer and ffmpeg 8 repeat nothing
                incoming.nacks += len(wanted.nack)
                packets.append(Nack(self._ssrc, incoming.ssrc, tuple(wanted.nack)))
            if wanted.keyframe:
                incoming.want_keyframe()
            packets += self._keyframe_requests(incoming, now)
        return packets

    def _sounds(
        self, incoming: IncomingTrack, gaps: SoundGaps, now: float, rtt_s: float | None
    ) -> list[RtcpPacket]:
        if rtt_s is not None:
            gaps.set_rtt(rtt_s)
        lost = gaps.due(now)
        if not lost or incoming.ssrc is None:
            return []
        incoming.nacks += len(lost)
        return [Nack(self._ssrc, incoming.ssrc, tuple(lost))]

    def arrived(self, packet: RtpPacket, now: float) -> None:
        """A packet came, of whatever stream: a repeat, and one that nobody waits for, too."""
        if self._uplink is not None:
            self._measure(self._uplink, packet, now)
        number = packet.extensions.get(self._transport_id or 0, b"")
        if len(number) == 2:  # the draft's section 2
            self._arrivals.record(int.from_bytes(number, "big"), now)

    def transport(self, now: float, *, busy: bool) -> list[list[RtcpPacket]]:
        """Reports on arrivals that are due, each a compound of its own. ``busy``: as few as possible."""
        if not self._arrivals.waiting or now < self._arrivals_at:
            return []
        ssrc = next((i.ssrc for i in self._router.tracks if i.ssrc is not None), None)
        if ssrc is None:  # libwebrtc takes no report about a stream that is not its own
            return []
        self._arrivals_at = now + (ARRIVALS_BUSY_S if busy else ARRIVALS_S)
        reports = self._arrivals.report(sender_ssrc=self._ssrc, media_ssrc=ssrc, now=now)
        return [[report] if self._reduced_size else self.compound([report]) for report in reports]

    def keyframe(self, *, screen: bool, now: float) -> list[RtcpPacket]:
        """Ask for a keyframe of the camera or the screen; empty when one is on its way."""
        packets: list[RtcpPacket] = []
        for incoming in self._router.tracks:
            is_it = incoming.track.kind == "video" and incoming.track.screen == screen
            if is_it and self._layers[incoming.track.index].watched(incoming):
                incoming.want_keyframe()
                packets += self._keyframe_requests(incoming, now)
        return packets

    def limits(self) -> list[RtcpPacket]:
        """What it may send: REMB for the connection, TMMBR for each source, as far as it agreed to them."""
        heard = [
            (i.ssrc, i.track) for i in self._router.tracks if i.ssrc is not None and i.track.kind == "video"
        ]
        packets: list[RtcpPacket] = []
        self._told_bps = self._limit_bps
        if ssrcs := tuple(ssrc for ssrc, track in heard if "goog-remb" in track.feedback):
            packets.append(ReceiverEstimatedMaxBitrate(self._limit_bps, ssrcs, self._ssrc))
        # a layer's share of the whole is the sender's business: RFC 5104 knows no simulcast
        share = self._share
        if limits := tuple(
            (ssrc, round(self._video_bps(track) * share), PACKET_OVERHEAD)
            for ssrc, track in heard
            if "ccm tmmbr" in track.feedback and not track.layers
        ):
            packets.append(TemporaryMaxBitrateRequest(self._ssrc, limits))
        return packets

    def _new_uplink(self) -> UplinkEstimator | None:
        """For who steers by what we say, and by nothing else."""
        offered = {value for i in self._router.tracks for value in i.track.feedback}
        if self._transport_id is not None or offered.isdisjoint({"goog-remb", "ccm tmmbr"}):
            return None
        stamps = (i.track.extensions.get(ABS_SEND_TIME) for i in self._router.tracks)
        return UplinkEstimator(next((number for number in stamps if number is not None), None))

    def _measure(self, uplink: UplinkEstimator, packet: RtpPacket, now: float) -> None:
        tracks = self._router.tracks
        picture = any(i.ssrc == packet.ssrc and i.track.kind == "video" for i in tracks)
        uplink.arrived(packet, len(packet.payload) + PACKET_OVERHEAD, now, picture=picture)
        if uplink.due(now):
            before = self._counted
            came, lost = self._counted = (
                sum(i.stats.received for i in tracks),
                sum(i.stats.lost for i in tracks),
            )
            if came < before[0]:  # a source that began anew
                before = came, lost
            uplink.judge(came - before[0], lost - before[1], now)

    @property
    def _wanted_bps(self) -> int:
        """What its tiles need of its pictures, all together."""
        tracks = {i.track.index: i.track for i in self._router.tracks if i.track.kind == "video" and i.ssrc}
        return sum(self._video_bps(track) for track in tracks.values())

    @property
    def _limit_bps(self) -> int:
        """Of the whole connection: pictures and sound. Of a narrow line all that it carries, so that a sender which
        takes it for its pictures alone can be told less than its sound."""
        limit_bps = self._wanted_bps + self._sound_bps
        bps = None if self._uplink is None else self._uplink.bps
        return limit_bps if bps is None else min(limit_bps, max(TRICKLE_BPS, round(bps)))

    @property
    def _sound_bps(self) -> int:
        hears = any(incoming.track.kind == "audio" for incoming in self._router.tracks)
        return SOUND_BPS if hears else 0

    @property
    def _share(self) -> float:
        """Of what its tiles need, as much as its line carries; 0 to 1. A trickle always may come."""
        bps, wanted_bps = None if self._uplink is None else self._uplink.bps, self._wanted_bps
        if bps is None or not wanted_bps:
            return 1.0
        return min(1.0, max(TRICKLE_BPS, bps - self._sound_bps) / wanted_bps)

    def _video_bps(self, track: Track) -> int:
        demand = self._demands.get(track.screen, FULL)
        factor = SIMULCAST_FACTOR if track.layers and demand.shown else 1.0
        return max(TRICKLE_BPS, round(demand.bitrate_bps * factor))

    def _sources(self) -> tuple[int | None, ...]:
        return tuple(incoming.ssrc for incoming in self._router.tracks)

    def _keyframe_requests(self, incoming: IncomingTrack, now: float) -> list[RtcpPacket]:
        if incoming.ssrc is None or not incoming.keyframe_due(now):
            return []
        offered = incoming.track.feedback
        if "ccm fir" in offered and "nack pli" not in offered:
            self._fir_sequence = (self._fir_sequence + 1) & 0xFF  # RFC 5104 section 4.3.1.1
            return [FullIntraRequest(self._ssrc, ((incoming.ssrc, self._fir_sequence),))]
        return [PictureLossIndication(self._ssrc, incoming.ssrc)]
