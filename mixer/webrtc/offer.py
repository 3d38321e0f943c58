"""Reading an offer (RFC 8866 and what RFC 8829 builds on it). Untrusted text: strict, bounded, pure.

aiortc's own parser asserts, raises KeyError and answers rejected sections as active ones, so it never sees an
offer. ``parse_offer`` gives plain data; ``answer`` decides what becomes of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from mixer.errors import BadOffer, UnsupportedOffer
from mixer.webrtc.sdp import PASSWORD, UFRAG, IceCandidate, attribute, lines, parse_candidate

MAX_SECTIONS: Final = 32  # m-lines; a browser tab that has renegotiated all day has a dozen
MAX_LAYERS: Final = 4  # of simulcast; browsers send three
MAX_PER_SECTION: Final = 128  # payload types are 7 bits; also the bound for ssrcs and candidates
DIGESTS: Final = (
    "sha-256",
    "sha-384",
    "sha-512",
)  # what aiortc verifies; RFC 8122 section 5 deprecates the rest

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
Setup = Literal["actpass", "active", "passive"]

_MEDIA: Final = re.compile(r"([a-z]+) (\d{1,5})(?:/\d+)? ([A-Za-z/]+) ([A-Za-z0-9._ -]+)")
_RTPMAP: Final = re.compile(r"(\d{1,3}) ([A-Za-z0-9_.+-]+)/(\d{1,9})(?:/(\d{1,3}))?")
_NUMBERED: Final = re.compile(r"(\d{1,3}) (.*)")
_EXTMAP: Final = re.compile(r"(\d{1,5})(?:/\w+)? (\S+)(?: .*)?")
_FINGERPRINT: Final = re.compile(r"([A-Za-z0-9-]{1,20}) ([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){15,63})")
_SSRC: Final = re.compile(r"(\d{1,10})(?: .*)?")
_RID: Final = re.compile(
    r"([A-Za-z0-9_-]{1,16}) (send|recv)(?: .*)?"
)  # RFC 8851 section 10; 16: RFC 8285 one byte
_TOKEN: Final = re.compile(r"[!#-'*+\-.0-9A-Z^-~]{1,64}")  # RFC 8866 section 9: token

# RFC 3551 table 4 and 5: payload types that need no rtpmap
_STATIC: Final = {0: ("PCMU", 8000), 8: ("PCMA", 8000), 9: ("G722", 8000)}


@dataclass(frozen=True, slots=True)
class Codec:
    """One payload type. ``parameters``: fmtp, keys in lower case. ``feedback``: rtcp-fb values."""

    payload_type: int
    name: str  # upper case, as in rtpmap: OPUS, H264, RTX
    clock_hz: int
    channels: int
    parameters: Mapping[str, str]
    feedback: frozenset[str]


@dataclass(frozen=True, slots=True)
class Transport:
    """Where and who the peer is: ICE credentials, DTLS fingerprints, DTLS setup role."""

    ufrag: str
    password: str
    lite: bool
    fingerprints: tuple[tuple[str, str], ...]
    setup: Setup
    candidates: tuple[IceCandidate, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One m-line. ``codecs`` in the sender's order; ``ssrcs``: those of media, no RTX or FEC among them."""

    kind: str
    protocol: str
    formats: str
    mid: str | None
    direction: Direction
    rejected: bool
    rtcp_mux: bool
    rtcp_rsize: bool
    codecs: tuple[Codec, ...]
    extensions: Mapping[str, int]
    ssrcs: tuple[int, ...]
    rtx_ssrcs: Mapping[int, int]  # RTX SSRC -> media SSRC (RFC 5576 FID groups)
    layers: tuple[str, ...]  # rids of a simulcast that is sent (RFC 8853), in the sender's order; empty: none


@dataclass(frozen=True, slots=True)
class Offer:
    sections: tuple[Section, ...]
    bundle: tuple[str, ...]  # mids of the first BUNDLE group, in its order; empty: none
    transport: Transport


@dataclass(slots=True)
class _Draft:
    """A session or media level while its lines are read."""

    media: tuple[str, int, str, str] | None = None
    attributes: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]

    def first(self, name: str) -> str | None:
        return next((value for key, value in self.attributes if key == name), None)

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.attributes)


def parse_offer(text: str) -> Offer:
    """Read an offer. Raises ``BadOffer`` for what is none, ``UnsupportedOffer`` for a transport not ours.

    Untrusted input: no other exception leaves this function (fuzzed in the tests).
    """
    session, media = _drafts(text)
    groups = [value.split() for value in session.all("group")]
    bundle = next((tuple(group[1:]) for group in groups if group and group[0] == "BUNDLE"), ())
    sections = tuple(_section(draft, session) for draft in media)
    mids = [section.mid for section in sections if section.mid is not None]
    if len(set(mids)) != len(mids):
        raise BadOffer("two m-lines have the same a=mid")
    return Offer(sections, bundle, _transport(session, media, sections, bundle))


def _drafts(text: str) -> tuple[_Draft, list[_Draft]]:
    session = _Draft()
    media: list[_Draft] = []
    current = session
    for number, (kind, value) in enumerate(lines(text)):
        if number == 0 and (kind, value.strip()) != ("v", "0"):
            raise BadOffer("SDP does not start with v=0")
        if kind == "m":
            current = _Draft(_media_line(value))
            media.append(current)
        elif kind == "a":
            current.attributes.append(attribute(value))
    if not media:
        raise BadOffer("SDP has no m-line")
    if len(media) > MAX_SECTIONS:
        raise BadOffer(f"SDP has more than {MAX_SECTIONS} m-lines")
    return session, media


def _media_line(value: str) -> tuple[str, int, str, str]:
    match = _MEDIA.fullmatch(value.strip())
    if match is None or int(match[2]) > 65535:
        raise BadOffer("an m-line cannot be read (RFC 8866 section 5.14)")
    return match[1], int(match[2]), match[3], match[4]


def _section(draft: _Draft, session: _Draft) -> Section:
    assert draft.media is not None  # noqa: S101 - _drafts makes none without
    kind, port, protocol, formats = draft.media
    mid = draft.first("mid")
    if mid is not None and not _TOKEN.fullmatch(mid):
        raise BadOffer("an a=mid is not a token")
    is_rtp = kind in {"audio", "video"}
    ssrcs, rtx_ssrcs = _ssrcs(draft)
    return Section(
        kind=kind,
        protocol=protocol,
        formats=formats,
        mid=mid,
        direction=_direction(draft, session),
        # RFC 9143 section 6: port 0 with bundle-only is an offer, port 0 without is a refusal
        rejected=port == 0 and not draft.has("bundle-only"),
        rtcp_mux=draft.has("rtcp-mux"),
        rtcp_rsize=draft.has("rtcp-rsize"),
        codecs=_codecs(draft, formats) if is_rtp else (),
        extensions=_extensions(draft) | _extensions(session) if is_rtp else {},
        ssrcs=ssrcs,
        rtx_ssrcs=rtx_ssrcs,
        layers=_layers(draft) if kind == "video" else (),
    )


def _direction(draft: _Draft, session: _Draft) -> Direction:
    for level in (draft, session):
        for name, _ in level.attributes:
            match name:
                case "sendrecv" | "sendonly" | "recvonly" | "inactive":
                    return name
                case _:
                    continue
    return "sendrecv"  # RFC 8866 section 6.7


def _codecs(draft: _Draft, formats: str) -> tuple[Codec, ...]:
    order = formats.split()
    if len(order) > MAX_PER_SECTION or not all(part.isascii() and part.isdigit() for part in order):
        raise BadOffer("an m-line's payload types are not numbers")
    numbers = [int(part) for part in order]
    if any(number > 127 for number in numbers):
        raise BadOffer("a payload type is greater than 127")
    maps: dict[int, tuple[str, int, int]] = {}
    for value in draft.all("rtpmap"):
        match = _RTPMAP.fullmatch(value)
        if match is None:
            raise BadOffer("an a=rtpmap cannot be read (RFC 8866 section 6.6)")
        maps[int(match[1])] = (match[2].upper(), int(match[3]), int(match[4] or 1))
    parameters = _numbered(draft, "fmtp")
    feedback = _feedback(draft)
    found = []
    for number in dict.fromkeys(numbers):
        name, clock_hz, channels = maps.get(number) or (*_STATIC.get(number, ("", 0)), 1)
        if name:
            fmtp = _parameters(parameters.get(number, ""))
            applied = feedback.get("*", set()) | feedback.get(str(number), set())
            found.append(Codec(number, name, clock_hz, channels, fmtp, frozenset(applied)))
    return tuple(found)


def _numbered(draft: _Draft, name: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for value in draft.all(name):
        match = _NUMBERED.fullmatch(value)
        if match is not None:
            found[int(match[1])] = match[2]
    return found


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(";"):
        key, _, value = part.partition("=")
        if key.strip():
            found[key.strip().lower()] = value.strip()
    return found


def _feedback(draft: _Draft) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for value in draft.all("rtcp-fb"):
        payload_type, _, what = value.partition(" ")
        found.setdefault(payload_type, set()).add(" ".join(what.split()).lower())
    return found


def _extensions(draft: _Draft) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in draft.all("extmap"):
        match = _EXTMAP.fullmatch(value)
        if match is None:
            raise BadOffer("an a=extmap cannot be read (RFC 8285 section 8)")
        found.setdefault(match[2], int(match[1]))
    return found


def _layers(draft: _Draft) -> tuple[str, ...]:
    """The first alternative of each simulcast stream that is sent (RFC 8853 section 5.1)."""
    sent: set[str] = set()
    for value in draft.all("rid"):
        match = _RID.fullmatch(value)
        if match is None:
            raise BadOffer("an a=rid cannot be read (RFC 8851 section 10)")
        if match[2] == "send":
            sent.add(match[1])
    simulcast = draft.first("simulcast")
    if simulcast is None:
        return ()
    words = simulcast.split()
    directions = words[::2]
    if (
        len(words) not in {2, 4}
        or len(set(directions)) != len(directions)
        or set(directions) - {"send", "recv"}
    ):
        raise BadOffer("an a=simulcast cannot be read (RFC 8853 section 5.1)")
    streams = dict(zip(directions, words[1::2], strict=True)).get("send", "")
    named = [stream.split(",")[0].removeprefix("~") for stream in streams.split(";")] if streams else []
    if len(named) > MAX_PER_SECTION or any(rid not in sent for rid in named):
        raise BadOffer("a=simulcast names a stream that no a=rid describes (RFC 8853 section 5.1)")
    return tuple(dict.fromkeys(named))[:MAX_LAYERS]


def _ssrcs(draft: _Draft) -> tuple[tuple[int, ...], dict[int, int]]:
    declared: dict[int, None] = {}
    for value in draft.all("ssrc"):
        match = _SSRC.fullmatch(value)
        if match is None or int(match[1]) >= 2**32:
            raise BadOffer("an a=ssrc cannot be read (RFC 5576 section 4.1)")
        declared[int(match[1])] = None
    if len(declared) > MAX_PER_SECTION:
        raise BadOffer("an m-line declares too many SSRCs")
    rtx: dict[int, int] = {}
    others: set[int] = set()
    for value in draft.all("ssrc-group"):
        semantics, *members = value.split() or [""]
        if not all(member.isascii() and member.isdigit() for member in members):
            raise BadOffer("an a=ssrc-group cannot be read (RFC 5576 section 4.2)")
        if semantics == "FID" and len(members) == 2:
            rtx[int(members[1])] = int(members[0])
        elif semantics in {"FEC", "FEC-FR"}:
            others.update(int(member) for member in members[1:])
    return tuple(ssrc for ssrc in declared if ssrc not in rtx and ssrc not in others), rtx


def _transport(
    session: _Draft, media: list[_Draft], sections: tuple[Section, ...], bundle: tuple[str, ...]
) -> Transport:
    """The transport of the BUNDLE group: its first live section's (RFC 9143 7.2), else the session's."""
    live = [
        draft
        for draft, section in zip(media, sections, strict=True)
        if not section.rejected and (not bundle or section.mid in bundle)
    ]
    levels = [*live, session]

    def read(name: str) -> str | None:
        return next((value for level in levels if (value := level.first(name)) is not None), None)

    ufrag, password, setup = read("ice-ufrag"), read("ice-pwd"), read("setup")
    if ufrag is None or password is None:
        raise BadOffer("SDP has no a=ice-ufrag and a=ice-pwd")
    if not UFRAG.fullmatch(ufrag) or not PASSWORD.fullmatch(password):
        raise BadOffer("a=ice-ufrag or a=ice-pwd breaks RFC 8839 section 5.4")
    match setup:
        case "actpass" | "active" | "passive":
            role: Setup = setup
        case None:
            role = "actpass"  # RFC 8842 section 5.2: an offer's default
        case _:
            raise BadOffer("a=setup of an offer is actpass, active or passive")
    fingerprints = tuple(dict.fromkeys(pair for level in levels for pair in _fingerprints(level)))
    if not fingerprints:
        raise BadOffer("SDP has no a=fingerprint: media must be DTLS-SRTP")
    if not any(digest in DIGESTS for digest, _ in fingerprints):
        raise UnsupportedOffer(f"a=fingerprint must be one of {', '.join(DIGESTS)}")
    candidates = [c for level in levels for value in level.all("candidate") if (c := parse_candidate(value))]
    return Transport(
        ufrag=ufrag,
        password=password,
        lite=session.has("ice-lite"),
        fingerprints=fingerprints,
        setup=role,
        candidates=tuple(dict.fromkeys(candidates))[:MAX_PER_SECTION],
    )


def _fingerprints(level: _Draft) -> list[tuple[str, str]]:
    found = []
    for value in level.all("fingerprint"):
        match = _FINGERPRINT.fullmatch(value)
        if match is None:
            raise BadOffer("an a=fingerprint cannot be read (RFC 8122 section 5)")
        found.append((match[1].lower(), match[2].upper()))
    return found
