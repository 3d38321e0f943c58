"""A relay in memory for the probe: it grants what a test says, and sends to real sockets of the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from dataclasses import dataclass, field

from mixer.probe.turn_wire import Address, Target
from turn.message import (
    Attribute,
    Class,
    Message,
    Method,
    parse_message,
    read_address,
    write_address,
    write_error,
    write_message,
)

RELAYED = ("127.0.0.1", 50_000)


@dataclass
class FakeRelay:
    """``addresses``: granted by CreatePermission, None for all. ``ports``: whether ChannelBind looks at ports, and
    grants none. ``leaks``: Send goes to ports that a channel would not be given. ``ipv6``: allocates that, too."""

    addresses: frozenset[str] | None = frozenset()
    ports: bool = False
    leaks: bool = False
    ipv6: bool = True
    permitted: set[str] = field(default_factory=set)

    def answer(self, message: Message) -> list[tuple[int, bytes]] | int:
        """Attributes of a success, or the code of an error."""
        if message.method == Method.ALLOCATE:
            family = message.get(Attribute.REQUESTED_ADDRESS_FAMILY)
            if family is not None and not self.ipv6:
                return 440
            relayed = RELAYED if family is None else ("::1", RELAYED[1])
            return [
                (Attribute.XOR_RELAYED_ADDRESS, write_address(relayed, message.transaction)),
                (Attribute.LIFETIME, (600).to_bytes(4, "big")),
            ]
        if message.method in {Method.CREATE_PERMISSION, Method.CHANNEL_BIND}:
            ip, _ = read_address(message.get(Attribute.XOR_PEER_ADDRESS) or b"", message.transaction)
            if self.addresses is not None and ip not in self.addresses:
                return 403
            if message.method == Method.CHANNEL_BIND and self.ports:
                return 403
            self.permitted.add(ip)
        return []

    def carry(self, message: Message) -> None:
        """A Send indication."""
        to = read_address(message.get(Attribute.XOR_PEER_ADDRESS) or b"", message.transaction)
        if to[0] in self.permitted and (self.leaks or not self.ports):
            deliver(message.get(Attribute.DATA) or b"", to)


def deliver(data: bytes, to: Address) -> None:
    """From wherever: who listens takes it."""
    family = socket.AF_INET if ipaddress.ip_address(to[0]).version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
        out.sendto(data, to)


class FakeWire:
    """``mixer.probe.turn_wire.Wire`` to a ``FakeRelay``."""

    is_reliable = True
    local = ("127.0.0.1", 40_000)

    def __init__(self, relay: FakeRelay, target: Target) -> None:
        self.target = target
        self._relay = relay
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()

    async def open(self, *, trust: ssl.SSLContext | None = None) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def send(self, data: bytes) -> None:
        message = parse_message(data)
        if message.kind is Class.INDICATION:
            self._relay.carry(message)
            return
        said: list[tuple[int, bytes]] | int = 401
        if message.get(Attribute.NONCE) is not None:
            said = self._relay.answer(message)
        if isinstance(said, int):
            attributes = [(Attribute.ERROR_CODE, write_error(said, "no"))]
            attributes += [(Attribute.REALM, b"fake"), (Attribute.NONCE, b"nonce")] if said == 401 else []
            answer = write_message(message.method, Class.ERROR, message.transaction, attributes)
        else:
            answer = write_message(message.method, Class.SUCCESS, message.transaction, said)
        self._waiting.put_nowait(answer)

    async def receive(self) -> bytes:
        return await self._waiting.get()
