"""The strict codec of STUN, TURN and ChannelData (RFC 8489 sections 5 and 14, RFC 8656 sections 12 and 18).

``parse_message`` takes strangers' bytes and raises one exception type, ``MalformedMessage``. It is stricter than most:
the cookie must be there, the length exact, no attribute may overrun, FINGERPRINT must be last and right. What is behind
MESSAGE-INTEGRITY is not protected and so not seen (RFC 8489 section 14.5), but for MESSAGE-INTEGRITY-SHA256 and
FINGERPRINT. Of attributes that come twice the first counts; only XOR-PEER-ADDRESS may be asked for all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

COOKIE: Final = 0x2112A442
HEADER_BYTES: Final = 20
MAX_ATTRIBUTES: Final = 64  # a request of ours has at most 30; a longer one only costs time
_HEADER: Final = struct.Struct("!HHI12s")
_TLV: Final = struct.Struct("!HH")
_COOKIE_BYTES: Final = COOKIE.to_bytes(4, "big")
_FINGERPRINT_XOR: Final = 0x5354554E  # RFC 8489 section 14.7

Endpoint = tuple[str, int]


class Method(IntEnum):
    """RFC 8489 section 18.2, RFC 8656 section 17."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009


class Class(IntEnum):
    """RFC 8489 section 5, as the two bits C1 and C0."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class Attribute(IntEnum):
    """RFC 8489 section 18.3, RFC 8656 section 18. From 0x8000 on who does not know it may ignore it."""

    MAPPED_ADDRESS = 0x0001
    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    EVEN_PORT = 0x0018
    REQUESTED_TRANSPORT = 0x0019
    DONT_FRAGMENT = 0x001A
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    PASSWORD_ALGORITHM = 0x001D
    USERHASH = 0x001E
    XOR_MAPPED_ADDRESS = 0x0020
    RESERVATION_TOKEN = 0x0022
    ADDITIONAL_ADDRESS_FAMILY = 0x8000
    ADDRESS_ERROR_CODE = 0x8001
    ADDITIONAL_ADDRESS_FAMILY_DRAFT = 0x8032  # of draft-martinsen-tram-ssoda; coturn up to 4.6 says it so
    PASSWORD_ALGORITHMS = 0x8002
    FINGERPRINT = 0x8028


_KNOWN: Final = frozenset(Attribute)


class MalformedMessage(ValueError):
    """The bytes are no STUN message. They get no answer: there is nobody to blame and no transaction to answer."""


@dataclass(frozen=True, slots=True)
class Message:
    """One STUN message as it came. ``attributes``: in order, without the integrity attributes and the fingerprint.

    ``sha1_at``, ``sha256_at``: where in ``raw`` the integrity attribute begins, None when there is none.
    """

    method: int
    kind: Class
    transaction: bytes
    attributes: tuple[tuple[int, bytes], ...]
    raw: bytes
    sha1_at: int | None = None
    sha256_at: int | None = None

    def get(self, attribute: Attribute) -> bytes | None:
        """The value of the first one, None when there is none."""
        return next((value for kind, value in self.attributes if kind == attribute), None)

    def all(self, attribute: Attribute) -> list[bytes]:
        return [value for kind, value in self.attributes if kind == attribute]

    def unknown(self) -> list[int]:
        """Comprehension-required attributes that we do not know: the request must be refused with 420."""
        return [kind for kind, _ in self.attributes if kind < 0x8000 and kind not in _KNOWN]

    def proves(self, key: bytes) -> bool:
        """Whether the integrity attribute was made with ``key``; the stronger one is looked at where both are there."""
        if self.sha256_at is not None:
            offered = self.raw[self.sha256_at + 4 :][: _TLV.unpack_from(self.raw, self.sha256_at)[1]]
            right = _digest(self.raw, self.sha256_at, len(offered), key, "sha256")[: len(offered)]
            return hmac.compare_digest(offered, right)
        if self.sha1_at is not None:
            offered = self.raw[self.sha1_at + 4 : self.sha1_at + 24]
            return hmac.compare_digest(offered, _digest(self.raw, self.sha1_at, 20, key, "sha1"))
        return False


def _digest(raw: bytes, at: int, size: int, key: bytes, algorithm: str) -> bytes:
    """HMAC over what stands before the attribute, with a length that ends behind it (RFC 8489 section 14.5)."""
    covered = raw[:2] + (at - HEADER_BYTES + 4 + size).to_bytes(2, "big") + raw[4:at]
    return hmac.digest(key, covered, algorithm)


def parse_message(data: bytes) -> Message:
    """STRANGERS' BYTES. One whole STUN message, no byte more. Raises ``MalformedMessage``."""
    if len(data) < HEADER_BYTES:
        raise MalformedMessage("shorter than a STUN header")
    first, length, cookie, transaction = _HEADER.unpack_from(data)
    if first & 0xC000 or cookie != COOKIE:
        raise MalformedMessage("no STUN message: top bits or cookie")
    if length % 4 or length + HEADER_BYTES != len(data):
        raise MalformedMessage("the length is not that of the message")
    attributes: list[tuple[int, bytes]] = []
    marks: dict[int, int] = {}
    at = HEADER_BYTES
    for _ in range(MAX_ATTRIBUTES):
        if at == len(data):
            break
        kind, size = _TLV.unpack_from(data, at)  # four bytes are there: both lengths are multiples of four
        end = at + 4 + size
        if end > len(data):
            raise MalformedMessage("an attribute overruns the message")
        if Attribute.FINGERPRINT in marks:
            raise MalformedMessage("FINGERPRINT is not the last attribute")
        if kind in _SEALS:
            _check_seal(data, kind, at, size)
            if kind not in marks and not (kind == Attribute.MESSAGE_INTEGRITY and _SHA256 in marks):
                marks[kind] = at
        elif not marks:
            attributes.append((kind, data[at + 4 : end]))
        at = end + (-size & 3)
    else:
        if at != len(data):
            raise MalformedMessage("more attributes than any request has")
    return Message(
        method=(first & 0x000F) | (first & 0x00E0) >> 1 | (first & 0x3E00) >> 2,
        kind=Class((first & 0x0100) >> 7 | (first & 0x0010) >> 4),
        transaction=transaction,
        attributes=tuple(attributes),
        raw=data,
        sha1_at=marks.get(Attribute.MESSAGE_INTEGRITY),
        sha256_at=marks.get(Attribute.MESSAGE_INTEGRITY_SHA256),
    )


_SHA256: Final = Attribute.MESSAGE_INTEGRITY_SHA256
_SEALS: Final = frozenset({Attribute.MESSAGE_INTEGRITY, _SHA256, Attribute.FINGERPRINT})


def _check_seal(data: bytes, kind: int, at: int, size: int) -> None:
    if kind == Attribute.MESSAGE_INTEGRITY and size != 20:
        raise MalformedMessage("MESSAGE-INTEGRITY has 20 bytes")
    if kind == _SHA256 and (size % 4 or not 16 <= size <= 32):  # RFC 8489 section 14.6
        raise MalformedMessage("MESSAGE-INTEGRITY-SHA256 has 16 to 32 bytes")
    if kind == Attribute.FINGERPRINT:
        if size != 4:
            raise MalformedMessage("FINGERPRINT has four bytes")
        covered = data[:2] + (at - HEADER_BYTES + 8).to_bytes(2, "big") + data[4:at]
        if zlib.crc32(covered) ^ _FINGERPRINT_XOR != int.from_bytes(data[at + 4 : at + 8], "big"):
            raise MalformedMessage("FINGERPRINT is wrong")


def write_message(
    method: int,
    kind: Class,
    transaction: bytes,
    attributes: Iterable[tuple[int, bytes]] = (),
    *,
    key: bytes | None = None,
    sha256: bool = False,
    fingerprint: bool = False,
) -> bytes:
    """A message; with ``key`` sealed by MESSAGE-INTEGRITY, or by -SHA256 where that was asked for."""
    bits = (
        (method & 0x000F)
        | (method & 0x0070) << 1
        | (method & 0x0F80) << 2
        | (kind & 1) << 4
        | (kind & 2) << 7
    )
    parts = [_COOKIE_BYTES, transaction]
    for attribute, value in attributes:
        parts.append(_TLV.pack(attribute, len(value)) + value + bytes(-len(value) & 3))
    body = b"".join(parts)
    raw = bits.to_bytes(2, "big") + (len(body) - 16).to_bytes(2, "big") + body
    if key is not None:
        algorithm, size, seal = (
            ("sha256", 32, _SHA256) if sha256 else ("sha1", 20, Attribute.MESSAGE_INTEGRITY)
        )
        raw += _TLV.pack(seal, size) + _digest(raw, len(raw), size, key, algorithm)
    if fingerprint:
        covered = raw[:2] + (len(raw) - HEADER_BYTES + 8).to_bytes(2, "big") + raw[4:]
        raw = (
            covered
            + _TLV.pack(Attribute.FINGERPRINT, 4)
            + (zlib.crc32(covered) ^ _FINGERPRINT_XOR).to_bytes(4, "big")
        )
    return raw[:2] + (len(raw) - HEADER_BYTES).to_bytes(2, "big") + raw[4:]


def read_address(value: bytes, transaction: bytes) -> Endpoint:
    """An XOR-…-ADDRESS (RFC 8489 section 14.2). Raises ``MalformedMessage``."""
    if len(value) not in {8, 20} or value[1] != (1 if len(value) == 8 else 2):
        raise MalformedMessage("an address is of family 1 with 8 bytes, or of family 2 with 20")
    port = int.from_bytes(value[2:4], "big") ^ COOKIE >> 16
    pad = _COOKIE_BYTES + transaction
    packed = bytes(byte ^ mask for byte, mask in zip(value[4:], pad, strict=False))
    return str(ipaddress.ip_address(packed)), port


def write_address(endpoint: Endpoint, transaction: bytes) -> bytes:
    """The value of an XOR-…-ADDRESS attribute."""
    packed = ipaddress.ip_address(endpoint[0]).packed
    pad = _COOKIE_BYTES + transaction
    xored = bytes(byte ^ mask for byte, mask in zip(packed, pad, strict=False))
    return bytes((0, 1 if len(packed) == 4 else 2)) + (endpoint[1] ^ COOKIE >> 16).to_bytes(2, "big") + xored


def write_error(code: int, reason: str) -> bytes:
    """The value of ERROR-CODE (RFC 8489 section 14.8)."""
    return bytes((0, 0, code // 100, code % 100)) + reason.encode()


def long_term_key(username: str, realm: str, password: str, *, sha256: bool = False) -> bytes:
    """RFC 8489 section 9.2.2: the hash of name, realm and password. MD5 is the standard's, as a key of an HMAC."""
    text = f"{username}:{realm}:{password}".encode()
    return hashlib.sha256(text).digest() if sha256 else hashlib.md5(text, usedforsecurity=False).digest()


def frame_bytes(head: bytes | bytearray | memoryview) -> int:
    """Of a stream: how long the frame is, padding included, that begins with these four bytes (RFC 8656 section 12.5).

    Raises ``MalformedMessage`` when it is neither ChannelData nor STUN: the stream can't be read on from there.
    """
    size = head[2] << 8 | head[3]
    if head[0] < 0x40:
        if size % 4:
            raise MalformedMessage("the length of a STUN message is a multiple of four")
        return HEADER_BYTES + size
    if head[0] < 0x80:
        return 4 + size + (-size & 3)
    raise MalformedMessage("neither STUN nor ChannelData")
