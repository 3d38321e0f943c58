"""The probe's side of TURN (RFC 8656): requests that are right, or wrong on purpose, and what their answers say.

The bytes are ``turn.message``'s. ``Asker`` sends requests over a ``Wire``, over UDP more than once, as RFC 8489
section 6.2.1 has it, and finds their answers.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass
from typing import Final

from mixer.probe.turn_wire import Address, Wire
from turn.message import (
    Attribute,
    Class,
    MalformedMessage,
    Message,
    Method,
    long_term_key,
    parse_message,
    read_address,
    write_address,
    write_message,
)

SOFTWARE: Final = 0x8022  # RFC 8489 section 14.14; our own relay neither reads nor writes it
UDP_PROTOCOL: Final = 17  # IANA protocol numbers, in REQUESTED-TRANSPORT
TRIES_S: Final = (
    0.5,
    1.0,
    1.5,
)  # RFC 8489 section 6.2.1 goes on for 39.5 s; who probes does not wait that long
RELIABLE_S: Final = 3.0

Field = tuple[int, bytes | Address]  # an attribute; an address is written XORed (RFC 8489 section 14.2)


@dataclass(frozen=True, slots=True)
class Answer:
    """One STUN message of the relay. ``error``: None for a success or an indication."""

    message: Message
    error: int | None

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.message.raw)

    def first(self, kind: int) -> bytes | None:
        """The value of the first attribute of that type."""
        return next((value for found, value in self.message.attributes if found == kind), None)

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

    def addresses(self, kind: Attribute) -> list[Address]:
        """Each XOR address of that type. Raises ``MalformedMessage``."""
        return [read_address(value, self.message.transaction) for value in self.message.all(kind)]

    @property
    def says(self) -> str:
        """How it ended, for a report."""
        return "success" if self.error is None else f"error {self.error}"


@dataclass(slots=True)
class Login:
    """Credentials, and the realm and nonce that the relay last asked for them with."""

    username: str
    password: str
    realm: str = ""
    nonce: bytes = b""

    def learn(self, answer: Answer) -> None:
        """Take the realm and nonce of a 401 or 438."""
        if answer.error in {401, 438}:
            self.realm = answer.text(Attribute.REALM) or self.realm
            self.nonce = answer.first(Attribute.NONCE) or self.nonce

    @property
    def fields(self) -> tuple[Field, ...]:
        """What stands in a request beside its integrity."""
        return (
            (Attribute.USERNAME, self.username.encode()),
            (Attribute.REALM, self.realm.encode()),
            (Attribute.NONCE, self.nonce),
        )

    @property
    def key(self) -> bytes:
        """Of MESSAGE-INTEGRITY."""
        return long_term_key(self.username, self.realm, self.password)


def request(
    method: Method, *fields: Field, login: Login | None = None, transaction: bytes | None = None
) -> bytes:
    """A request, signed by ``login``."""
    transaction = transaction or secrets.token_bytes(12)
    all_fields = (*fields, *(login.fields if login else ()))
    return write_message(
        method,
        Class.REQUEST,
        transaction,
        [(kind, _octets(value, transaction)) for kind, value in all_fields],
        key=login.key if login else None,
        fingerprint=True,
    )


def indication(method: Method, *fields: Field) -> bytes:
    """An indication: nobody answers it."""
    transaction = secrets.token_bytes(12)
    return write_message(
        method, Class.INDICATION, transaction, [(kind, _octets(value, transaction)) for kind, value in fields]
    )


def _octets(value: bytes | Address, transaction: bytes) -> bytes:
    return value if isinstance(value, bytes) else write_address(value, transaction)


def read(data: bytes) -> Answer:
    """A message of the relay, which is a stranger too. Raises ``MalformedMessage``."""
    message = parse_message(data)
    error: int | None = None
    if message.kind is Class.ERROR:
        value = message.get(Attribute.ERROR_CODE) or b""
        if len(value) < 4:
            raise MalformedMessage("an error without its code")
        error = (value[2] & 7) * 100 + value[3]
    return Answer(message, error)


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
