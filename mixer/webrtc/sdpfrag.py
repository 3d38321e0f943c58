"""Trickled candidates (RFC 8840, as RFC 9725 section 4.3 uses it): the body of a WHIP or WHEP PATCH. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mixer.errors import BadOffer, InvalidBody
from mixer.webrtc.offer import MAX_PER_SECTION
from mixer.webrtc.sdp import IceCandidate, attribute, lines, parse_candidate


@dataclass(frozen=True, slots=True)
class Fragment:
    """``ufrag``, ``password``: the generation of the candidates, if named. ``ended``: no more will come."""

    ufrag: str | None
    password: str | None
    candidates: tuple[IceCandidate, ...]
    ended: bool

    def check_generation(self, ufrag: str, password: str) -> None:
        """Refuse an ICE restart: credentials other than the offer's.

        Raises ``InvalidBody`` (422), which is what RFC 9725 section 4.3.1 asks of a server that trickles
        but does not restart.
        """
        if self.ufrag not in {None, ufrag} or self.password not in {None, password}:
            raise InvalidBody(
                "ICE restart is not supported: POST a new offer",
                [{"loc": ["ice-ufrag"], "msg": "is not the offer's"}],
            )


def parse_fragment(text: str) -> Fragment:
    """Read an ``application/trickle-ice-sdpfrag`` body. Raises ``BadOffer`` on anything that is none.

    Untrusted input: no other exception leaves this function (fuzzed in the tests). BUNDLE leaves one
    transport, so which m-line a candidate stands under does not matter.
    """
    ufrag: str | None = None
    password: str | None = None
    candidates: list[IceCandidate] = []
    ended = seen = False
    for kind, value in lines(text):
        if kind not in "acm":
            raise BadOffer(f"a line of type {kind}= has no place in an SDP fragment (RFC 8840 section 9)")
        if kind != "a":
            continue
        name, rest = attribute(value)
        match name:
            case "candidate":
                found = parse_candidate(rest)
                if found is not None:
                    candidates.append(found)
            case "ice-ufrag":
                ufrag = ufrag or rest
            case "ice-pwd":
                password = password or rest
            case "end-of-candidates":
                ended = True
            case _:
                continue
        seen = True
    if not seen:
        raise BadOffer("the SDP fragment has neither candidates nor ICE credentials")
    if len(candidates) > MAX_PER_SECTION:
        raise BadOffer(f"the SDP fragment has more than {MAX_PER_SECTION} candidates")
    return Fragment(ufrag, password, tuple(dict.fromkeys(candidates)), ended)
