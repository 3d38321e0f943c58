"""What we make of an offer (``negotiate``) and the answer that says so (``write_answer``). Pure.

One codec a direction is answered, so a sender has no choice left to get wrong: receiving follows the sender's
own order between H.264 and VP8, sending prefers H.264 because every viewer that takes it shares one encode.
Sections that nobody can serve (other codecs, data channels, a third video) get port 0 and the rest works.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mixer.errors import UnsupportedOffer
from mixer.media import AudioCodec, Kind, VideoCodec
from mixer.webrtc.offer import Codec, Offer, Section
from mixer.webrtc.sdp import IceCandidate

MAX_VIDEOS: Final = 2  # a camera and, in the second section, a shared screen
MAX_AUDIOS: Final = 1

MID: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"  # RFC 9143 section 15.2
AUDIO_LEVEL: Final = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"  # RFC 6464
MIXER_LEVELS: Final = "urn:ietf:params:rtp-hdrext:csrc-audio-level"  # RFC 6465
ABS_SEND_TIME: Final = (
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"  # what REMB is computed from
)
TRANSPORT_CC: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"

RID: Final = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"  # RFC 8852 section 4.1
REPAIRED_RID: Final = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"  # RFC 8852 section 4.2

_EXTENSIONS: Final[dict[Kind, tuple[str, ...]]] = {
    "audio": (MID, AUDIO_LEVEL, MIXER_LEVELS, ABS_SEND_TIME, TRANSPORT_CC),
    "video": (MID, ABS_SEND_TIME, TRANSPORT_CC),
}
_FEEDBACK: Final[dict[Kind, tuple[str, ...]]] = {
    "audio": ("nack", "transport-cc"),
    "video": ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc", "ccm tmmbr"),
}
_LAYER_EXTENSIONS: Final = (RID, REPAIRED_RID)  # of no use without simulcast
_PROTOCOLS: Final = frozenset(
    {"UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF"}
)  # RFC 8829 section 5.1.2
# our order; (name, clock, channels) as rtpmap writes them (RFC 7587 section 7, RFC 3551 section 6)
_AUDIO: Final[tuple[tuple[AudioCodec, tuple[str, int, int]], ...]] = (
    ("opus", ("OPUS", 48_000, 2)),
    ("G722", ("G722", 8_000, 1)),
    ("PCMU", ("PCMU", 8_000, 1)),
    ("PCMA", ("PCMA", 8_000, 1)),
)
_RTPMAP: Final[dict[str, str]] = {
    "opus": "opus/48000/2",
    "G722": "G722/8000",
    "PCMU": "PCMU/8000",
    "PCMA": "PCMA/8000",
    "H264": "H264/90000",
    "VP8": "VP8/90000",
    "VP9": "VP9/90000",
}
# RFC 7741 section 6.1, macroblocks and pictures a second. Firefox alone reads it: of 3600 (1280×720) and more it
# sends 1200 kbit/s whatever REMB says (its table of least rates), of 1260×709 what it is asked for.
_VP8_FMTP: Final = "max-fr=30;max-fs=3500"
_OPUS_FMTP: Final = "minptime=10;useinbandfec=1;usedtx=1"
# RFC 7587 section 6.1: FEC, because we conceal with it. DTX, because a silent sender then sends 2.5 packets a second
# instead of 50; measured: the pause sounds the same, the first 60 ms of a word are 1 dB weaker.
# profile_idc of RFC 6184 section 8.1 that FFmpeg decodes to 8-bit 4:2:0: baseline, main, high
_H264_DECODABLE: Final = frozenset({0x42, 0x4D, 0x64})
_H264_SENT: Final = "42e01f"  # constrained baseline, level 3.1: 720p30


@dataclass(frozen=True, slots=True)
class Negotiated:
    """A codec agreed for one direction, with its number on this connection."""

    name: VideoCodec | AudioCodec
    codec: Codec


@dataclass(frozen=True, slots=True)
class Track:
    """One accepted m-line. ``screen``: the second video. ``extensions``: agreed ids by URI."""

    index: int
    section: Section
    kind: Kind
    screen: bool
    receives: Negotiated | None
    sends: Negotiated | None
    rtx: Mapping[int, int]  # RTX payload type -> the one it repairs (RFC 4588)
    extensions: Mapping[str, int]
    layers: tuple[str, ...] = ()  # rids of the simulcast that we take (RFC 8853)
    red: int | None = None  # payload type of RFC 2198 around the sound, in both directions

    @property
    def formats(self) -> tuple[int, ...]:
        """Payload types as the answer lists them."""
        media = [n.codec.payload_type for n in self.codecs]
        if self.red is not None:
            order = [codec.payload_type for codec in self.section.codecs]
            # As the sender has it: a browser sends RED when it stands first, and it costs the sender's line.
            media.insert(int(order.index(self.red) > order.index(media[0])), self.red)
        return (*media, *self.rtx)

    @property
    def rtx_sent(self) -> int | None:
        """Payload type to wrap our own retransmissions in, if the peer takes RTX."""
        if self.sends is None:
            return None
        repaired = self.sends.codec.payload_type
        return next((number for number, apt in self.rtx.items() if apt == repaired), None)

    @property
    def codecs(self) -> tuple[Negotiated, ...]:
        """What the answer lists: the peer sends the first, we send any."""
        agreed = {n.codec.payload_type: n for n in (self.receives, self.sends) if n is not None}
        return tuple(agreed.values())

    @property
    def feedback(self) -> tuple[str, ...]:
        offered = frozenset[str]().union(*(n.codec.feedback for n in self.codecs))
        if TRANSPORT_CC not in self.extensions:  # nothing to report on
            offered -= {"transport-cc"}
        return tuple(value for value in _FEEDBACK[self.kind] if value in offered)

    @property
    def transport_cc(self) -> int | None:
        """The extension id of transport-wide numbers, if they are reported on too; else they are not sent."""
        return self.extensions.get(TRANSPORT_CC) if "transport-cc" in self.feedback else None


@dataclass(frozen=True, slots=True)
class Plan:
    """``dtls_server``: we wait for the ClientHello (``setup:passive``)."""

    tracks: tuple[Track, ...]
    dtls_server: bool


@dataclass(frozen=True, slots=True)
class LocalSide:
    """Our half of the transport, as the answer shows it."""

    session_id: int
    ufrag: str
    password: str
    fingerprint: tuple[str, str]
    candidates: Sequence[IceCandidate]
    cname: str
    ssrcs: Mapping[Kind, int]
    rtx_ssrc: int


def negotiate(offer: Offer, *, send: bool, receive: bool, measure: bool = True) -> Plan:
    """Choose per section. Raises ``UnsupportedOffer`` when nothing can be answered, with the reason.

    ``measure``: what we send is to be reported on by transport-cc. For who takes one rendition whatever its line
    is, ten reports a second are a fifth of what it costs us; REMB and receiver reports remain.
    """
    live = [section for section in offer.sections if not section.rejected and _is_media(section)]
    if not offer.bundle and len(live) > 1:
        raise UnsupportedOffer("the offer must BUNDLE its m-lines (RFC 9725 section 4.4.1): use max-bundle")
    tracks: list[Track] = []
    for index, section in enumerate(offer.sections):
        bundled = not offer.bundle or section.mid in offer.bundle
        if section.rejected or not bundled or not section.rtcp_mux or not _is_media(section):
            continue
        track = _track(index, section, tracks, send=send, receive=receive, measure=measure)
        if track is not None:
            tracks.append(track)
    if not tracks:
        raise UnsupportedOffer(_why_nothing(live, send=send, receive=receive))
    return Plan(tuple(tracks), dtls_server=offer.transport.setup != "passive")


def _is_media(section: Section) -> bool:
    return section.kind in {"audio", "video"} and section.protocol in _PROTOCOLS


def _why_nothing(live: Sequence[Section], *, send: bool, receive: bool) -> str:
    if not live:
        return "the offer has no live audio or video m-line over DTLS-SRTP"
    if not any(section.rtcp_mux for section in live):
        return "the offer must multiplex RTP and RTCP (a=rtcp-mux)"
    direction = "send" if not receive else "receive" if not send else "send or receive"
    codecs = sorted({codec.name for section in live for codec in section.codecs})
    return (
        "no m-line has a direction and a codec that we can answer: we "
        f"{direction} H264, VP8 and opus, G722, PCMU, PCMA; offered are {', '.join(codecs) or 'none'}"
    )


def _track(
    index: int, section: Section, taken: Sequence[Track], *, send: bool, receive: bool, measure: bool
) -> Track | None:
    kind: Kind = "audio" if section.kind == "audio" else "video"
    of_kind = [track for track in taken if track.kind == kind]
    if len(of_kind) >= (MAX_AUDIOS if kind == "audio" else MAX_VIDEOS):
        return None
    wants_in = receive and section.direction in {"sendrecv", "sendonly"}
    wants_out = send and section.direction in {"sendrecv", "recvonly"}
    if any(track.sends for track in of_kind):
        wants_out = False  # one mix a connection
    if kind == "audio":
        chosen = _audio(section.codecs)
        receives, sends = (chosen if wants_in else None), (chosen if wants_out else None)
    else:
        receives = _video_in(section.codecs) if wants_in else None
        sends = _video_out(section.codecs) if wants_out else None
    if receives is None and sends is None:
        return None
    usable = {
        uri: number
        for uri, number in section.extensions.items()
        if 1 <= number <= 14  # RFC 8285 section 4.2: one-byte ids
    }
    # without both names no packet could be told to be of which layer
    layers = section.layers if receives and {MID, RID} <= usable.keys() else ()
    known = _EXTENSIONS[kind] + (_LAYER_EXTENSIONS if layers else ())
    useless = {
        uri
        for uri, is_used in (
            (MIXER_LEVELS, sends is not None),
            (TRANSPORT_CC, measure or receives is not None),
        )
        if not is_used
    }
    return Track(
        index=index,
        section=section,
        kind=kind,
        screen=kind == "video" and any(track.receives for track in of_kind),
        receives=receives,
        sends=sends,
        rtx=_rtx(section.codecs, (receives, sends)),
        extensions={uri: number for uri, number in usable.items() if uri in known and uri not in useless},
        layers=layers,
        red=_red(section.codecs, receives or sends),
    )


def _audio(codecs: Iterable[Codec]) -> Negotiated | None:
    offered = {(codec.name, codec.clock_hz, codec.channels): codec for codec in reversed(tuple(codecs))}
    for name, shape in _AUDIO:
        if shape in offered:
            return Negotiated(name, offered[shape])
    return None


def _red(codecs: Iterable[Codec], sound: Negotiated | None) -> int | None:
    """RFC 2198 around Opus and nothing else: ``a=fmtp:63 111/111``."""
    if sound is None or sound.name != "opus":
        return None
    inner = str(sound.codec.payload_type)
    for codec in codecs:
        if (codec.name, codec.clock_hz, codec.channels) == ("RED", 48_000, 2):
            listed = next(iter(codec.parameters), "").split("/")
            if set(listed) == {inner}:
                return codec.payload_type
    return None


def _video_in(codecs: Sequence[Codec]) -> Negotiated | None:
    """The sender's first choice of H.264 and VP8; VP9 when it offers nothing else."""
    h264 = [codec for codec in codecs if _is(codec, "H264") and _h264_decodable(codec)]
    vp8 = [codec for codec in codecs if _is(codec, "VP8")]
    vp9 = [codec for codec in codecs if _is(codec, "VP9") and codec.parameters.get("profile-id", "0") == "0"]
    if h264 and (not vp8 or codecs.index(h264[0]) < codecs.index(vp8[0])):
        return Negotiated("H264", min(h264, key=_h264_rank))
    if vp8:
        return Negotiated("VP8", vp8[0])
    return Negotiated("VP9", vp9[0]) if vp9 else None


def _video_out(codecs: Sequence[Codec]) -> Negotiated | None:
    """H.264 with fragmentation (mode 1), constrained baseline if offered: it decodes in main and high too."""
    h264 = [
        codec
        for codec in codecs
        if _is(codec, "H264") and _h264_mode(codec) == "1" and _h264_decodable(codec)
    ]
    if h264:
        return Negotiated("H264", min(h264, key=_h264_rank))
    vp8 = next((codec for codec in codecs if _is(codec, "VP8")), None)
    return Negotiated("VP8", vp8) if vp8 else None


def _is(codec: Codec, name: VideoCodec) -> bool:
    return codec.name == name and codec.clock_hz == 90_000


def _h264_profile(codec: Codec) -> int | None:
    """``profile_idc << 8 | profile_iop``; ``None`` for nonsense. Absent: baseline (RFC 6184 section 8.1)."""
    value = codec.parameters.get("profile-level-id", "42000a")
    if len(value) != 6 or not all(character in string.hexdigits for character in value):
        return None
    return int(value[:4], 16)


def _h264_mode(codec: Codec) -> str:
    return codec.parameters.get("packetization-mode", "0")


def _h264_decodable(codec: Codec) -> bool:
    profile = _h264_profile(codec)
    return profile is not None and profile >> 8 in _H264_DECODABLE and _h264_mode(codec) in {"0", "1"}


def _h264_rank(codec: Codec) -> tuple[bool, bool]:
    profile = _h264_profile(codec) or 0
    constrained = (profile >> 8 == 0x42 and bool(profile & 0x40)) or (
        profile >> 8 == 0x4D and bool(profile & 0x80)
    )
    return (_h264_mode(codec) != "1", not constrained)


def _rtx(codecs: Iterable[Codec], agreed: Iterable[Negotiated | None]) -> dict[int, int]:
    repaired = {str(n.codec.payload_type): n.codec.payload_type for n in agreed if n is not None}
    found: dict[int, int] = {}
    for codec in codecs:
        apt = codec.parameters.get("apt", "")
        if codec.name == "RTX" and apt in repaired and repaired[apt] not in found.values():
            found[codec.payload_type] = repaired[apt]
    return found


def write_answer(offer: Offer, plan: Plan, local: LocalSide) -> str:
    """The answer's SDP: every m-line of the offer in its place (RFC 3264 section 6, RFC 8829 5.3.1)."""
    accepted = {track.index: track for track in plan.tracks}
    mids = [track.section.mid for track in plan.tracks if track.section.mid is not None]
    ordered = [mid for mid in offer.bundle if mid in mids]
    rows = ["v=0", f"o=mosaique {local.session_id} 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    if ordered:
        rows.append(f"a=group:BUNDLE {' '.join(ordered)}")
    rows.append("a=msid-semantic:WMS *")
    rows += _transport_rows(plan, local)
    for index, section in enumerate(offer.sections):
        track = accepted.get(index)
        if track is None:
            rows += _rejected_rows(section, plan)
        else:
            rows += _track_rows(track, plan, local, first=track is plan.tracks[0])
    return "\r\n".join(rows) + "\r\n"


def _transport_rows(plan: Plan, local: LocalSide) -> list[str]:
    # at session level too: serves those who read only media level and those who want it for every section
    return [
        f"a=ice-ufrag:{local.ufrag}",
        f"a=ice-pwd:{local.password}",
        "a=ice-options:trickle",
        f"a=fingerprint:{local.fingerprint[0]} {local.fingerprint[1]}",
        _setup(plan),
    ]


def _setup(plan: Plan) -> str:
    return f"a=setup:{'passive' if plan.dtls_server else 'active'}"


def _rejected_rows(section: Section, plan: Plan) -> list[str]:
    # GStreamer's webrtcbin takes no answer that has a section without a=setup, refused or not
    rows = [
        f"m={section.kind} 0 {section.protocol} {section.formats}",
        "c=IN IP4 0.0.0.0",
        "a=inactive",
        _setup(plan),
    ]
    if section.mid is not None:
        rows.append(f"a=mid:{section.mid}")
    if section.rtcp_mux:
        rows.append("a=rtcp-mux")
    return rows


def _track_rows(track: Track, plan: Plan, local: LocalSide, *, first: bool) -> list[str]:
    default = local.candidates[0]  # RFC 8839 section 5.1: the default candidate is the first
    family = "IP6" if ":" in default.host else "IP4"
    rows = [
        f"m={track.kind} {default.port} {track.section.protocol} {' '.join(map(str, track.formats))}",
        f"c=IN {family} {default.host}",
        f"a=rtcp:{default.port} IN {family} {default.host}",
        *_transport_rows(plan, local),
    ]
    if track.section.mid is not None:
        rows.append(f"a=mid:{track.section.mid}")
    rows += [f"a=extmap:{number}{_one_way(uri)} {uri}" for uri, number in track.extensions.items()]
    rows += [f"a={_direction(track)}", "a=rtcp-mux"]
    if track.section.rtcp_rsize:
        rows.append("a=rtcp-rsize")
    for negotiated in track.codecs:
        rows += _codec_rows(negotiated, track.feedback)
        if track.receives is not None and negotiated.name == "VP8" and not track.screen:
            rows.append(f"a=fmtp:{negotiated.codec.payload_type} {_VP8_FMTP}")
    if track.red is not None:
        inner = track.codecs[0].codec.payload_type
        rows += [f"a=rtpmap:{track.red} red/48000/2", f"a=fmtp:{track.red} {inner}/{inner}"]
    for number, repaired in track.rtx.items():
        rows += [f"a=rtpmap:{number} rtx/90000", f"a=fmtp:{number} apt={repaired}"]
    if track.layers:
        rows += [f"a=rid:{rid} recv" for rid in track.layers]
        rows.append(f"a=simulcast:recv {';'.join(track.layers)}")
    if track.sends is not None:
        rows.append(f"a=msid:mosaique {track.kind}")
        ssrcs = [local.ssrcs[track.kind]]
        if track.rtx_sent is not None:
            ssrcs.append(local.rtx_ssrc)
            rows.append(f"a=ssrc-group:FID {ssrcs[0]} {ssrcs[1]}")
        for ssrc in ssrcs:
            rows += [f"a=ssrc:{ssrc} cname:{local.cname}", f"a=ssrc:{ssrc} msid:mosaique {track.kind}"]
    if first:  # the rest of the group shares them (RFC 9143 section 7.4)
        rows += [f"a=candidate:{_candidate(c)}" for c in local.candidates]
        rows.append("a=end-of-candidates")
    return rows


def _one_way(uri: str) -> str:
    """Firefox offers the mixer's levels as ``recvonly``, to be answered in kind (RFC 8285 section 6)."""
    return "/sendonly" if uri == MIXER_LEVELS else ""


def _direction(track: Track) -> str:
    if track.receives and track.sends:
        return "sendrecv"
    return "recvonly" if track.receives else "sendonly"


def _codec_rows(negotiated: Negotiated, feedback: Iterable[str]) -> list[str]:
    number = negotiated.codec.payload_type
    rows = [f"a=rtpmap:{number} {_RTPMAP[negotiated.name]}"]
    rows += [f"a=rtcp-fb:{number} {value}" for value in feedback if value in negotiated.codec.feedback]
    match negotiated.name:
        case "opus":
            rows.append(f"a=fmtp:{number} {_OPUS_FMTP}")
        case "H264":
            profile = negotiated.codec.parameters.get("profile-level-id", _H264_SENT)
            # RFC 6184 section 8.2.2: the profile is symmetric, the level need not be
            rows.append(
                f"a=fmtp:{number} level-asymmetry-allowed=1;packetization-mode={_h264_mode(negotiated.codec)}"
                f";profile-level-id={profile[:4].lower()}{_H264_SENT[4:]}"
            )
        case "VP9":
            rows.append(f"a=fmtp:{number} profile-id=0")
        case _:
            pass
    return rows


def _candidate(candidate: IceCandidate) -> str:
    c = candidate
    return f"{c.foundation} 1 udp {c.priority} {c.host} {c.port} typ {c.kind}"
