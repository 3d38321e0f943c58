"""What we tell a publisher: lost packets, wanted keyframes, reports, arrivals, how much it may send. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mixer.rtp.arrivals import ArrivalLog
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
)
from mixer.webrtc.incoming import IncomingTrack, Router

REPORT_S: Final = 1.0  # RFC 3550 section 6.2 allows 5 s; senders steer by our loss and REMB, so more often
ALLOWED_BPS: Final = 2_500_000  # a REMB that lets browsers ramp up to 720p30; without one they stay low
MIN_ALLOWED_BPS: Final = 30_000  # libwebrtc's encoders stop below that
ARRIVALS_S: Final = 0.1  # of arrivals; libwebrtc takes 50 to 250 ms
ARRIVALS_BUSY_S: Final = 0.25  # while the mix that we send has to be small: ours is its line, too


class Feedback:
    """RTCP for the tracks of one peer. ``ssrc`` and ``cname`` sign what is sent."""

    def __init__(self, router: Router, *, ssrc: int, cname: str) -> None:
        self._router = router
        self._ssrc = ssrc
        self._cname = cname
        self._allowed_bps = ALLOWED_BPS
        self._fir_sequence = 0
        self._report_at = 0.0
        self._reported = self._sources()
        self._transport_id = next(
            (i.track.transport_cc for i in router.tracks if i.track.transport_cc is not None), None
        )
        self._reduced_size = all(incoming.track.section.rtcp_rsize for incoming in router.tracks)
        self._arrivals = ArrivalLog()
        self._arrivals_at = 0.0

    def schedule(self, at: float) -> None:
        """When the first report is due."""
        self._report_at = at

    def limit(self, bitrate_bps: int) -> None:
        """What the publisher may send from now on."""
        self._allowed_bps = max(MIN_ALLOWED_BPS, bitrate_bps)

    def report_due(self, now: float) -> bool:
        """Each ``REPORT_S``, and at once for a new source: it is to hear what it may send."""
        sources = self._sources()
        if now < self._report_at and sources == self._reported:
            return False
        self._report_at, self._reported = now + REPORT_S, sources
        return True

    def report(self, sent: Sequence[SenderReport], now: float) -> list[RtcpPacket]:
        """One compound (RFC 3550 section 6.1): ``sent``, a report on what is received, CNAMEs, REMB."""
        blocks = tuple(i.stats.report_block(now) for i in self._router.tracks if i.ssrc is not None)
        received = [ReceiverReport(self._ssrc, blocks)] if blocks or not sent else []
        ssrcs = [report.ssrc for report in sent] + [report.ssrc for report in received]
        return [*sent, *received, *(SourceDescription.of(ssrc, self._cname) for ssrc in ssrcs), *self.remb()]

    def compound(self, packets: Sequence[RtcpPacket]) -> list[RtcpPacket]:
        """Feedback that can't wait for a report: in the smallest compound (RFC 4585 section 3.1)."""
        return [ReceiverReport(self._ssrc), SourceDescription.of(self._ssrc, self._cname), *packets]

    def urgent(self, now: float, rtt_s: float | None) -> list[RtcpPacket]:
        """NACKs and keyframe requests that are due."""
        packets: list[RtcpPacket] = []
        for incoming in self._router.tracks:
            if incoming.assembler is None or incoming.ssrc is None:
                continue
            if rtt_s is not None:
                incoming.assembler.set_rtt(rtt_s)
            wanted = incoming.assembler.poll(now)
            if wanted.nack and "nack" in incoming.track.feedback:  # GStreamer and ffmpeg 8 repeat nothing
                incoming.nacks += len(wanted.nack)
                packets.append(Nack(self._ssrc, incoming.ssrc, tuple(wanted.nack)))
            if wanted.keyframe:
                incoming.want_keyframe()
            packets += self._keyframe_requests(incoming, now)
        return packets

    def arrived(self, packet: RtpPacket, now: float) -> None:
        """A packet came, of whatever stream: a repeat, and one that nobody waits for, too."""
        if self._transport_id is not None:
            number = packet.extensions.get(self._transport_id, b"")
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
            if incoming.track.kind == "video" and incoming.track.screen == screen:
                incoming.want_keyframe()
                packets += self._keyframe_requests(incoming, now)
        return packets

    def remb(self) -> list[RtcpPacket]:
        """The limit, for all sources that agreed to REMB; empty while there is none."""
        ssrcs = tuple(
            incoming.ssrc
            for incoming in self._router.tracks
            if incoming.ssrc is not None and "goog-remb" in incoming.track.feedback
        )
        return [ReceiverEstimatedMaxBitrate(self._allowed_bps, ssrcs, self._ssrc)] if ssrcs else []

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
