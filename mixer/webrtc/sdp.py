"""Lines of SDP shared by offers and trickle fragments (RFC 8866, RFC 8839). Strict, bounded, pure.

Both are text from strangers: everything here raises only ``BadOffer``, with a sentence that names the line.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from mixer.errors import BadOffer

MAX_SDP_BYTES: Final = 64 * 1024  # the contract, section 3
MAX_LINES: Final = 4000  # Chromium's offer with every codec and 3 m-lines has about 500
UFRAG: Final = re.compile(r"[A-Za-z0-9+/]{4,256}")  # RFC 8839 section 5.4
# RFC 8839 says ice-char only; libnice and old Firefox never leave it either
PASSWORD: Final = re.compile(r"[A-Za-z0-9+/]{22,256}")
_LINE: Final = re.compile(r"([a-z])=(.*)")
_CANDIDATE: Final = re.compile(
    r"([A-Za-z0-9+/]{1,32}) (\d{1,5}) (\S{1,16}) (\d{1,10}) (\S{1,255}) (\d{1,5}) typ (\S{1,16})(?: .*)?"
)

CandidateKind = Literal["host", "srflx", "relay", "prflx"]


@dataclass(frozen=True, slots=True)
class IceCandidate:
    """A UDP candidate of component 1 with a numeric address: the only kind we can pair with."""

    foundation: str
    priority: int
    host: str
    port: int
    kind: CandidateKind


def lines(text: str) -> Iterator[tuple[str, str]]:
    """``(type, value)`` of each line. Raises ``BadOffer`` for what is no SDP at all."""
    if len(text) > MAX_SDP_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_SDP_BYTES:
        raise BadOffer(f"SDP is longer than {MAX_SDP_BYTES} bytes")
    if "\0" in text:
        raise BadOffer("SDP contains a NUL byte")
    rows = text.replace("\r\n", "\n").split("\n")
    if len(rows) > MAX_LINES:
        raise BadOffer(f"SDP has more than {MAX_LINES} lines")
    for number, row in enumerate(rows, 1):
        if not row:
            continue  # RFC 8866 has no empty lines; a trailing one is common and harmless
        match = _LINE.fullmatch(row)
        if match is None:
            raise BadOffer(f"SDP line {number} is not of the form <type>=<value>")
        yield match[1], match[2]


def attribute(value: str) -> tuple[str, str]:
    """``name:value`` of an ``a=`` line; the value is empty for a property."""
    name, _, rest = value.partition(":")
    return name, rest.strip()


def parse_candidate(value: str) -> IceCandidate | None:
    """A candidate line after ``a=candidate:`` (RFC 8839 section 5.1).

    ``None`` for one that is well formed but of no use here: TCP, another component, a name instead of an
    address (mDNS: the peer's own checks will come as peer-reflexive), port 9. Raises ``BadOffer``.
    """
    match = _CANDIDATE.fullmatch(value.strip())
    if match is None:
        raise BadOffer("a candidate line cannot be read (RFC 8839 section 5.1)")
    foundation, component, transport, priority, host, port, kind = match.groups()
    if int(port) > 65535 or int(priority) > 2**32 - 1:
        raise BadOffer("a candidate's port or priority is out of range")
    if transport.lower() != "udp" or component != "1" or port in {"0", "9"}:
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.is_unspecified or address.is_multicast or "%" in host:
        return None
    match kind:
        case "host" | "srflx" | "relay" | "prflx":
            return IceCandidate(foundation, int(priority), str(address), int(port), kind)
        case _:
            return None  # RFC 8839 section 5.1: unknown types are ignored
