"""The few bytes of STUN that a shared port must read to know whose datagram it is (RFC 8489 sections 5, 14).

Everything behind that (integrity, transactions, roles) is aioice's. This peek runs on datagrams of strangers
before anything else does, so it is strict, allocates little and never trusts a length.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import unpack_from
from typing import Final, Literal

from mixer.errors import MalformedPacket

HEADER_BYTES: Final = 20  # RFC 8489 section 5
MAGIC_COOKIE: Final = 0x2112A442  # RFC 8489 section 5
USERNAME: Final = 0x0006  # RFC 8489 section 18.3
USERNAME_MAX_BYTES: Final = (
    513  # RFC 8489 section 14.3: less than 509 bytes of UTF-8; 513 is RFC 5389's limit
)

StunClass = Literal["request", "indication", "response", "error"]
_CLASSES: Final[dict[int, StunClass]] = {
    0x000: "request",
    0x010: "indication",
    0x100: "response",
    0x110: "error",
}


@dataclass(frozen=True, slots=True)
class StunPeek:
    """``transaction``: 12-byte id. ``local_ufrag``: before the colon in USERNAME (RFC 8445 section 7.2.2)."""

    kind: StunClass
    transaction: bytes
    local_ufrag: str | None


def peek_stun(data: bytes) -> StunPeek:
    """Read class, transaction id and the receiver's ICE username fragment of a STUN message.

    Untrusted input. Raises only ``MalformedPacket``.
    """
    if len(data) < HEADER_BYTES or data[0] > 3:  # RFC 7983 section 7: STUN is 0..3
        raise MalformedPacket("not a STUN header")
    message_type, length, cookie = unpack_from("!HHI", data)
    if cookie != MAGIC_COOKIE or length % 4 or HEADER_BYTES + length != len(data):
        raise MalformedPacket("STUN length or cookie is wrong")
    return StunPeek(_CLASSES[message_type & 0x0110], data[8:20], _local_ufrag(data))


def _local_ufrag(data: bytes) -> str | None:
    position = HEADER_BYTES
    while position + 4 <= len(data):
        attribute, length = unpack_from("!HH", data, position)
        value_end = position + 4 + length
        if value_end > len(data):
            raise MalformedPacket("STUN attribute runs past the message")
        if attribute == USERNAME:
            if length > USERNAME_MAX_BYTES:
                raise MalformedPacket("STUN username is too long")
            fragment, colon, _ = data[position + 4 : value_end].partition(b":")
            if not colon or not fragment.isascii():
                return None
            return fragment.decode("ascii")
        position = value_end + (-length % 4)
    return None
