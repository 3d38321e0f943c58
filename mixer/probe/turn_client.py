"""The probe's side of TURN (RFC 8656): requests that are right, or wrong on purpose, and what their answers say.

``request``, ``indication`` and ``read`` make bytes of attributes and attributes of bytes: a prober has to write what
the relay's own codec (``turn.message``) refuses to. ``Asker`` sends them over a ``Wire``, over UDP more than once, as
RFC 8489 section 6.2.1 has it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import struct
import zlib
from collections import deque
from dataclasses import dataclass
from typing import Final

from mixer.errors import MalformedPacket
from mixer.probe.turn_wire import Address, Wire

# Methods: RFC 8489 section 18.2, RFC 8656 section 18
BINDING: Final = 0x001
ALLOCATE: Final = 0x003
REFRESH: Final = 0x004
SEND: Final = 0x006
DATA: Final = 0x007
CREATE_PERMISSION: Final = 0x008
CHANNEL_BIND: Final = 0x009

# Attributes: RFC 8489 section 18.3, RFC 8656 section 18
MAPPED_ADDRESS: Final = 0x0001
USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
CHANNEL_NUMBER: Final = 0x000C
LIFETIME: Final = 0x000D
XOR_PEER_ADDRESS: Final = 0x0012
DATA_ATTRIBUTE: Final = 0x0013
REALM: Final = 0x0014
NONCE: Final = 0x0015
XOR_RELAYED_ADDRESS: Final = 0x0016
REQUESTED_ADDRESS_FAMILY: Final = 0x0017
REQUESTED_TRANSPORT: Final = 0x0019
XOR_MAPPED_ADDRESS: Final = 0x0020
ADDITIONAL_ADDRESS_FAMILY: Final = 0x8000
ADDRESS_ERROR_CODE: Final = 0x8001
SOFTWARE: Final = 0x8022
FINGERPRINT: Final = 0x8028

UDP_PROTOCOL: Final = 17  # IANA protocol numbers, in REQUESTED-TRANSPORT
TRIES_S: Final = (
    0.5,
    1.0,
    1.5,
)  # RFC 8489 section 6.2.1 goes on for 39.5 s; who probes does not wait that long
RELIABLE_S: Final = 3.0

Attribute = tuple[int, bytes | Address]  # an address is written XORed (RFC 8489 section 14.2)
_COOKIE: Final = 0x2112A442
_HEADER: Final = struct.Struct("!HHI12s")
_INTEGRITY_BYTES: Final = 24
_FINGERPRINT_XOR: Final = 0x5354554E  # RFC 8489 section 14.7


@dataclass(frozen=True, slots=True)
class Answer:
    """One STUN message of the relay. ``error``: None for a success or an indication. ``size``: bytes on the wire."""

    method: int
    transaction: bytes
    error: int | None
    attributes: tuple[tuple[int, bytes], ...]
    size: int

    def first(self, kind: int) -> bytes | None:
        """The value of the first attribute of that type."""
        return next((value for found, value in self.attributes if found == kind), None)

    def text(self, kind: int) -> str | None:
        """The same as text, made printable."""
        value = self.first(kind)
        return (
            None if value is None else "".join(c for c in value.decode(errors="replace") if c.isprintable())
        )

    def number(self, kind: int) -> int | None:
        """The same as a whole number."""
        value = self.first(kind)
        return None if value is None else int.from_bytes(value, "big")

    def addresses(self, kind: int) -> list[Address]:
        """Each XOR address of that type. Raises ``MalformedPacket``."""
        return [_unxored(value, self.transaction) for found, value in self.attributes if found == kind]

    @property
    def says(self) -> str:
        """How it ended, for a report."""
        return "success" if self.error is None else f"error {self.error}"


@dataclass(slots=True)
class Login:
    """Credentials, and the realm and nonce that the relay last asked them for with."""

    username: str
    password: str
    realm: str = ""
    nonce: bytes = b""

    def learn(self, answer: Answer) -> None:
        """Take the realm and nonce of a 401 or 438."""
        if answer.error in {401, 438}:
            self.realm = answer.text(REALM) or self.realm
            self.nonce = answer.first(NONCE) or self.nonce

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What stands in a request beside its integrity."""
        return (USERNAME, self.username.encode()), (REALM, self.realm.encode()), (NONCE, self.nonce)

    @property
    def key(self) -> bytes:
        """RFC 8489 section 9.2.2."""
        text = f"{self.username}:{self.realm}:{self.password}".encode()
        return hashlib.md5(text, usedforsecurity=False).digest()


# --- bytes --------------------------------------------------------------------------------------------------


def request(
    method: int, *attributes: Attribute, login: Login | None = None, transaction: bytes | None = None
) -> bytes:
    """A request, signed by ``login``."""
    return _message(method, attributes, login, transaction or secrets.token_bytes(12))


def indication(method: int, *attributes: Attribute) -> bytes:
    """An indication (RFC 8489 section 5: class 0b01)."""
    return _message(method | 0x0010, attributes, None, secrets.token_bytes(12))


def _message(kind: int, attributes: tuple[Attribute, ...], login: Login | None, transaction: bytes) -> bytes:
    body = b""
    for number, value in (*attributes, *(login.attributes if login else ())):
        octets = value if isinstance(value, bytes) else _xored(value, transaction)
        body += struct.pack("!HH", number, len(octets)) + octets + bytes(-len(octets) % 4)
    if login is not None:
        head = _HEADER.pack(kind, len(body) + _INTEGRITY_BYTES, _COOKIE, transaction)
        digest = hmac.new(login.key, head + body, hashlib.sha1).digest()
        body += struct.pack("!HH", MESSAGE_INTEGRITY, len(digest)) + digest
    head = _HEADER.pack(kind, len(body) + 8, _COOKIE, transaction)
    fingerprint = zlib.crc32(head + body) ^ _FINGERPRINT_XOR
    return head + body + struct.pack("!HHI", FINGERPRINT, 4, fingerprint)


def read(data: bytes) -> Answer:
    """A message of the relay, which is a stranger too. Raises ``MalformedPacket``."""
    if len(data) < _HEADER.size or data[0] > 0x3F:
        raise MalformedPacket("not a STUN message")
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if cookie != _COOKIE or length % 4 or length + _HEADER.size != len(data):
        raise MalformedPacket("a STUN message whose cookie or length is wrong")
    attributes: list[tuple[int, bytes]] = []
    at = _HEADER.size
    while at < len(data):
        number, size = struct.unpack_from("!HH", data, at)
        if at + 4 + size > len(data):
            raise MalformedPacket("an attribute runs over the message")
        attributes.append((number, data[at + 4 : at + 4 + size]))
        at += 4 + size + -size % 4
    error: int | None = None
    if kind & 0x0110 == 0x0110:
        value = next((value for number, value in attributes if number == ERROR_CODE), b"")
        if len(value) < 4:
            raise MalformedPacket("an error without its code")
        error = (value[2] & 7) * 100 + value[3]
    return Answer(kind & ~0x0110, transaction, error, tuple(attributes), len(data))


def _mask(transaction: bytes) -> bytes:
    return struct.pack("!I", _COOKIE) + transaction


def _xored(value: Address, transaction: bytes) -> bytes:
    ip = ipaddress.ip_address(value[0])
    octets = bytes(a ^ b for a, b in zip(ip.packed, _mask(transaction), strict=False))
    return struct.pack("!BBH", 0, 1 if ip.version == 4 else 2, value[1] ^ (_COOKIE >> 16)) + octets


def _unxored(value: bytes, transaction: bytes) -> Address:
    if len(value) not in {8, 20} or value[1] != (1 if len(value) == 8 else 2):
        raise MalformedPacket("an address of no known family")
    octets = bytes(a ^ b for a, b in zip(value[4:], _mask(transaction), strict=False))
    return str(ipaddress.ip_address(octets)), int.from_bytes(value[2:4], "big") ^ (_COOKIE >> 16)


# --- asking -------------------------------------------------------------------------------------------------


class Asker:
    """Sends requests and finds their answers. ``others``: indications and ChannelData that came meanwhile."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.others: deque[bytes] = deque(maxlen=64)

    async def ask(self, message: bytes) -> Answer | None:
        """The answer to ``message``; None when there is none. Raises ``ConnectionError`` when the relay hung up."""
        for patience_s in (RELIABLE_S,) if self.wire.is_reliable else TRIES_S:
            self.wire.send(message)
            try:
                async with asyncio.timeout(patience_s):
                    while True:
                        data = await self.wire.receive()
                        if data[8:20] == message[8:20] and data[0] <= 0x3F:
                            return read(data)
                        self.others.append(data)
            except TimeoutError:
                continue
        return None

    async def next_other(self, patience_s: float) -> bytes | None:
        """The next indication or ChannelData message, None when none comes in time."""
        if self.others:
            return self.others.popleft()
        try:
            async with asyncio.timeout(patience_s):
                return await self.wire.receive()
        except TimeoutError:
            return None
