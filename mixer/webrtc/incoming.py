"""What a peer sends us: which m-line a packet belongs to, and the state kept of each m-line. Pure.

Browsers change SSRCs without a word (replaceTrack, a camera switched), announce none at all, and send BYE
for tracks that go on: a packet is routed by its SSRC once known, at first by MID, then by what the offer
declared, then by payload type (RFC 9143 section 9.2), and BYE ends nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from mixer.errors import MalformedPacket
from mixer.media import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, AudioCodec, EncodedVideo, VideoCodec
from mixer.rtp.assemble import FrameAssembler
from mixer.rtp.gaps import SoundGaps
from mixer.rtp.history import unwrap_rtx
from mixer.rtp.packet import RtpPacket
from mixer.rtp.payload.h264 import SPS, START_CODE, identify
from mixer.rtp.reception import ReceptionStats
from mixer.rtp.red import RedUnpacker
from mixer.video.headers import picture_size
from mixer.webrtc.answer import MID, REPAIRED_RID, RID, Plan, Track
from mixer.webrtc.offer import Codec

MAX_SSRCS: Final = (
    64  # known at a time; a session changes its camera now and then, and the oldest are forgotten
)
SSRC_QUIET_S: Final = 0.5  # an earlier SSRC may come back once the current one has been silent so long
MAX_PARAMETER_SETS: Final = 8  # senders put two
REPAIRS_LATE_S: Final = (
    2.0  # after a change of SSRC, repairs of the old one may still come: asked for, or probing
)
KEYFRAME_INTERVAL_S: Final = 0.3  # one request on its way at a time: a round trip and a frame

_AUDIO_CLOCKS: Final[dict[str, int]] = {"opus": AUDIO_CLOCK_HZ}  # the rest 8 kHz, G.722 too (RFC 3551 4.5.2)


class IncomingTrack:
    """One m-line that we receive, or one simulcast layer of it (``rid``).

    ``frames`` go to a decoder, ``sounds`` go on as packets. ``received_bps``: of payloads, by ``measure``.
    """

    def __init__(self, track: Track, rid: str | None = None) -> None:
        assert track.receives is not None  # noqa: S101 - Router makes none for send-only sections
        self.track = track
        self.rid = rid
        self.codecs: dict[int, VideoCodec | AudioCodec] = {
            agreed.codec.payload_type: agreed.name for agreed in track.codecs
        }
        clock_hz = VIDEO_CLOCK_HZ if track.kind == "video" else _AUDIO_CLOCKS.get(track.receives.name, 8000)
        self.red: RedUnpacker | None = None
        if track.red is not None:
            self.codecs[track.red] = track.receives.name
            self.red = RedUnpacker(red_type=track.red, inner_type=track.receives.codec.payload_type)
        self.gaps: SoundGaps | None = None
        if track.kind == "audio" and "nack" in track.feedback:
            self.gaps = SoundGaps(clock_hz)
        self.stats = ReceptionStats(clock_hz)
        self.ssrc: int | None = None
        self.ssrc_since = float("-inf")
        self.assembler: FrameAssembler | None = None
        self.heard_at: float | None = None
        self.payload_bytes = 0
        self.received_bps = 0
        self.plis = 0
        self.nacks = 0
        self._payload_type: int | None = None
        self._keyframe_wanted = False
        self._keyframe_asked_at = float("-inf")
        self._measured: tuple[float, int] | None = None  # when, how many bytes
        self._parameter_sets: dict[int, list[bytes]] = {}
        self.unfit_sets = 0
        """Parameter sets of the offer that are none."""
        for agreed in track.codecs:
            if agreed.name == "H264":
                sets, unfit = _parameter_sets(agreed.codec)
                self._parameter_sets[agreed.codec.payload_type] = sets
                self.unfit_sets += unfit

    def accept(self, packet: RtpPacket, now: float) -> bool:
        """Take note of a packet that was routed here; ``False`` when it must be ignored."""
        if packet.payload_type not in self.codecs:
            return False
        if packet.ssrc != self.ssrc:
            self.ssrc, self.ssrc_since = packet.ssrc, now
            if self.assembler is not None:
                self.assembler.reset()
        self.heard_at = now
        self.payload_bytes += len(packet.payload)
        return True

    def busy(self, now: float) -> bool:
        """Whether the current SSRC has been heard a moment ago."""
        return self.heard_at is not None and now - self.heard_at < SSRC_QUIET_S

    def frames(self, packet: RtpPacket, now: float) -> list[EncodedVideo]:
        """Whole pictures that this packet completes, in decode order."""
        if self.assembler is None or packet.payload_type != self._payload_type:
            self._payload_type = packet.payload_type
            self.assembler = self._new_assembler(packet.payload_type)
        return self.assembler.push(packet, now)

    @property
    def video_gaps(self) -> int:
        """How often packets of pictures were found missing so far."""
        return self.assembler.gaps if self.assembler is not None else 0

    def marked(self, packet: RtpPacket, now: float) -> RtpPacket:
        """A packet of sound, marked if it came because it was asked for: it has no RTX to tell."""
        if self.gaps is None or not self.gaps.take(packet, now):
            return packet
        return replace(packet, repaired=True)

    def sounds(self, packet: RtpPacket, now: float) -> Sequence[RtpPacket]:
        """Packets of the bare codec: this one, and the lost ones that it repeats. Raises ``MalformedPacket``."""
        if self.red is None:
            return (packet,)
        found = self.red.unpack(packet)
        if self.gaps is not None:
            for earlier in found[:-1]:
                self.gaps.found(earlier, now)
        return found

    def measure(self, now: float) -> None:
        """Count the rate since the last call into ``received_bps``."""
        if self._measured is not None and now > self._measured[0]:
            at, before = self._measured
            self.received_bps = round((self.payload_bytes - before) * 8 / (now - at))
        self._measured = now, self.payload_bytes

    def _new_assembler(self, payload_type: int) -> FrameAssembler:
        agreed = next(a for a in self.track.codecs if a.codec.payload_type == payload_type)
        match agreed.name:
            case "H264" | "VP8" | "VP9":
                sets = self._parameter_sets.get(payload_type, ())
                return FrameAssembler(agreed.name, parameter_sets=sets, insists=True)
            case _:
                raise ValueError(f"{agreed.name} is not a video codec")

    def want_keyframe(self) -> None:
        self._keyframe_wanted = True

    def keyframe_due(self, now: float) -> bool:
        """Whether to send a wanted keyframe request now; asks are merged, none is lost."""
        if not self._keyframe_wanted or now - self._keyframe_asked_at < KEYFRAME_INTERVAL_S:
            return False
        self._keyframe_wanted = False
        self._keyframe_asked_at = now
        self.plis += 1
        return True


def _parameter_sets(codec: Codec) -> tuple[list[bytes], int]:
    """SPS and PPS that the offer brought (RFC 6184 section 8.1), and how many entries beside them are unfit.

    A sender may send them nowhere else; one that sends good ones in its stream must not suffer for bad ones here.
    """
    text = codec.parameters.get("sprop-parameter-sets", "")
    parts = text.split(",") if text else []
    found: list[bytes] = []
    for part in parts[:MAX_PARAMETER_SETS]:
        try:
            nal = base64.b64decode(part, validate=True)
            kind, _ = identify(nal)
            if kind == SPS:  # it is put before keyframes, where one that cannot be read spoils them
                picture_size("H264", START_CODE + nal)
        except (binascii.Error, ValueError, MalformedPacket):
            continue
        found.append(nal)
    return found, len(parts) - len(found)


class _Repairs(NamedTuple):
    """What the RTX packets of one SSRC repair. ``media``: the SSRC declared for it, or the current one when it came."""

    incoming: IncomingTrack
    media: int | None
    declared: bool


class Router:
    """Finds the track of a packet; unwraps RTX on the way. ``tracks``: of simulcast, one for each layer."""

    def __init__(self, plan: Plan) -> None:
        self.tracks = [
            IncomingTrack(track, rid)
            for track in plan.tracks
            if track.receives is not None
            for rid in track.layers or (None,)
        ]
        self.dropped: Counter[str] = Counter()
        self._by_ssrc: dict[int, IncomingTrack] = {}
        self._rtx: dict[int, _Repairs] = {}  # by the SSRC of the RTX packets
        self._declared: dict[int, IncomingTrack] = {}
        # RFC 9143 section 9.2 and RFC 8852: by MID, and by the layer's name where there are layers
        self._by_mid: dict[tuple[bytes, bytes | None], IncomingTrack] = {}
        self._rtx_types: set[int] = set()
        for incoming in self.tracks:
            section = incoming.track.section
            self._declared |= dict.fromkeys(section.ssrcs, incoming)
            self._rtx |= {
                rtx: _Repairs(incoming, media, declared=True) for rtx, media in section.rtx_ssrcs.items()
            }
            if incoming.unfit_sets:
                self.dropped["parameter_set"] += incoming.unfit_sets
            self._rtx_types |= set(incoming.track.rtx)
            if section.mid is not None:
                rid = None if incoming.rid is None else incoming.rid.encode()
                self._by_mid[section.mid.encode(), rid] = incoming

    def route(self, packet: RtpPacket, now: float) -> tuple[IncomingTrack, RtpPacket] | None:
        """The packet's track and the packet itself (out of its RTX wrapping); ``None``: drop it (counted)."""
        if packet.payload_type in self._rtx_types:
            return self._repaired(packet, now)
        incoming = self._by_ssrc.get(packet.ssrc)
        if incoming is None:
            incoming = self._first(packet, now)
            if incoming is None:
                return None
        elif packet.ssrc != incoming.ssrc and incoming.busy(now):
            self.dropped["old_ssrc"] += 1
            return None
        if not incoming.accept(packet, now):
            self.dropped["payload_type"] += 1
            return None
        return incoming, packet if incoming.gaps is None else incoming.marked(packet, now)

    def asks_for_sound(self, now: float) -> bool:
        """Whether a sound comes over a line that loses, so that what is missing has to be looked for often."""
        return any(incoming.gaps is not None and incoming.gaps.waits(now) for incoming in self.tracks)

    def _first(self, packet: RtpPacket, now: float) -> IncomingTrack | None:
        """The first packet of an SSRC."""
        if packet.ssrc in self._rtx:
            return None
        incoming = self._owner(packet)
        if incoming is None:
            self.dropped["unknown_ssrc"] += 1
            return None
        if len(self._by_ssrc) >= MAX_SSRCS:
            self._forget_oldest()
        self._by_ssrc[packet.ssrc] = incoming
        return incoming

    def _forget_oldest(self) -> None:
        """Of the SSRCs that nobody uses now; there are, for a track uses one and an offer has fewer tracks."""
        oldest = next((ssrc for ssrc, incoming in self._by_ssrc.items() if ssrc != incoming.ssrc), None)
        if oldest is not None:
            del self._by_ssrc[oldest]
            self.dropped["forgotten_ssrc"] += 1

    def _owner(self, packet: RtpPacket) -> IncomingTrack | None:
        named = self._named(packet, RID)
        if named is not None:
            return named
        declared = self._declared.get(packet.ssrc)
        if declared is not None:
            return declared
        # a layer without its name could be any of them: it is named again in the next packet (RFC 8852 section 3)
        takers = [
            incoming
            for incoming in self.tracks
            if incoming.rid is None and packet.payload_type in incoming.codecs
        ]
        # two videos share payload types: the first unbound one, as a sender starts its tracks in order
        unbound = [incoming for incoming in takers if incoming.ssrc is None]
        return next(iter(unbound or takers), None)

    def _named(self, packet: RtpPacket, rid_uri: str) -> IncomingTrack | None:
        """The track that the packet's MID names, and of its layers the one that the RtpStreamId does."""
        for incoming in self.tracks:
            mid = _element(packet, incoming.track, MID)
            if mid is not None:
                found = self._by_mid.get((mid, _element(packet, incoming.track, rid_uri)))
                found = found or self._by_mid.get((mid, None))
                if found is not None:
                    return found
        return None

    def _repaired(self, packet: RtpPacket, now: float) -> tuple[IncomingTrack, RtpPacket] | None:
        repairs = self._rtx.get(packet.ssrc) or self._learn(packet)
        if repairs is None:
            self.dropped["unknown_rtx"] += 1
            return None
        incoming, media, declared = repairs
        if declared and media is not None:  # of layers, the one that this SSRC turned out to be
            incoming = self._by_ssrc.get(media, incoming)
        if incoming.ssrc is None:  # a repair of nothing yet: probing before the first picture
            return None
        if media != incoming.ssrc:
            # Its numbers are those of the SSRC before: two of them would put the assembler out of step.
            if declared or (media is not None and now - incoming.ssrc_since < REPAIRS_LATE_S):
                self.dropped["old_rtx"] += 1
                return None
            self._rtx[packet.ssrc] = repairs._replace(media=incoming.ssrc)  # a sender that keeps it
        rtx_of = incoming.track.rtx
        if packet.payload_type not in rtx_of:
            self.dropped["payload_type"] += 1
            return None
        original = unwrap_rtx(packet, payload_type=rtx_of[packet.payload_type], ssrc=incoming.ssrc)
        return None if original is None else (incoming, replace(original, extensions={}))

    def _learn(self, packet: RtpPacket) -> _Repairs | None:
        """Whose repairs an undeclared SSRC carries, if only one track can be meant."""
        named = self._named(packet, REPAIRED_RID)
        takers = [incoming for incoming in self.tracks if packet.payload_type in incoming.track.rtx]
        if named is not None:
            takers = [named]
        if len(takers) != 1 or packet.payload_type not in takers[0].track.rtx:
            return None
        learned = [ssrc for ssrc, repairs in self._rtx.items() if not repairs.declared]
        if len(learned) >= MAX_SSRCS:
            del self._rtx[learned[0]]
        self._rtx[packet.ssrc] = _Repairs(takers[0], takers[0].ssrc, declared=False)
        return self._rtx[packet.ssrc]


def _element(packet: RtpPacket, track: Track, uri: str) -> bytes | None:
    number = track.extensions.get(uri)
    return packet.extensions.get(number) if number is not None else None
