"""What we tell a publisher: lost packets, wanted keyframes, reports, arrivals, how much it may send. Pure."""

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
from mixer.video.demand import FULL, TRICKLE_BPS, Demand
from mixer.webrtc.answer import Track
from mixer.webrtc.incoming import IncomingTrack, Router
from mixer.webrtc.layers import Layers

REPORT_S: Final = 1.0  # RFC 3550 section 6.2 allows 5 s; senders steer by our loss and REMB, so more often
ARRIVALS_S: Final = 0.1  # of arrivals; libwebrtc takes 50 to 250 ms
ARRIVALS_BUSY_S: Final = 0.25  # while the mix that we send has to be small: ours is its line, too
SOUND_BPS: Final = 64_000  # Opus of 32 kbit/s at 50 packets a second with its headers; REMB covers both
# Layers below the one that is looked at are sent as well, each with a quarter of the pixels of the next.
SIMULCAST_FACTOR: Final = 1.5
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
        self.notes_arrivals = self._transport_id is not None
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
        tracks = {i.track.index: i.track for i in self._router.tracks if i.track.kind == "video" and i.ssrc}
        return sum(self._video_bps(track) for track in tracks.values())

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
        if ssrcs := tuple(ssrc for ssrc, track in heard if "goog-remb" in track.feedback):
            hears = any(incoming.track.kind == "audio" for incoming in self._router.tracks)
            total = self.asked_bps + (SOUND_BPS if hears else 0)
            packets.append(ReceiverEstimatedMaxBitrate(total, ssrcs, self._ssrc))
        # a layer's share of the whole is the sender's business: RFC 5104 knows no simulcast
        if limits := tuple(
            (ssrc, self._video_bps(track), PACKET_OVERHEAD)
            for ssrc, track in heard
            if "ccm tmmbr" in track.feedback and not track.layers
        ):
            packets.append(TemporaryMaxBitrateRequest(self._ssrc, limits))
        return packets

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
