"""The core with ports that are only noted, for tests without a socket."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from turn.allocation import FiveTuple
from turn.authentication import Authenticator
from turn.core import Answer, Core, Output
from turn.credentials import issue
from turn.message import (
    Attribute,
    Class,
    Message,
    Method,
    long_term_key,
    parse_message,
    write_address,
    write_message,
)
from turn.nonces import Nonces
from turn.policy import PeerPolicy, parse_rule
from turn.table import AllocationTable, Bounds

NOW_S = 1000.0
UNIX_OFFSET_S = 1_700_000_000.0
REALM = "mosaique"
UDP = (Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0")
PEER = ("198.51.100.9", 5000)  # denied as a network, so only named exactly
PEER_V6 = ("2001:db8::9", 5000)


class FakePorts:
    """``taken``: what is bound now. ``foreign``: what another program has."""

    def __init__(self) -> None:
        self.taken: set[tuple[str, int]] = set()
        self.foreign: set[tuple[str, int]] = set()

    def bind(self, address: str, port: int) -> bool:
        if (address, port) in self.taken | self.foreign:
            return False
        self.taken.add((address, port))
        return True

    def release(self, address: str, port: int) -> None:
        self.taken.remove((address, port))


class Relay:
    """``ask`` speaks as an authenticated client does."""

    def __init__(
        self,
        *,
        allowed: Sequence[str] = (PEER[0], PEER_V6[0]),
        addresses: tuple[str, ...] = ("10.0.0.1", "fd00::1"),
        ports: tuple[int, int] = (50_000, 50_999),
        allocations: int = 500,
        a_user: int = 8,
        bandwidth_bps: int = 4_000_000,
        secrets_: Sequence[str] = ("north",),
    ) -> None:
        self.ports = FakePorts()
        bounds = Bounds(addresses, addresses, ports, allocations, a_user, bandwidth_bps)
        self.table = AllocationTable(bounds, self.ports)
        self.authenticator = Authenticator(REALM, secrets_, Nonces(b"k" * 32))
        self.policy = PeerPolicy([parse_rule(rule) for rule in allowed], lambda _: False)
        self.core = Core(self.table, self.policy, self.authenticator)
        self.core.unix_offset_s = UNIX_OFFSET_S
        self.now_s = NOW_S

    def raw(self, data: bytes, five_tuple: FiveTuple) -> list[Output]:
        return self.core.from_client(data, five_tuple, self.now_s)

    def answer(self, outputs: Sequence[Output]) -> Message:
        (data,) = (output.data for output in outputs if isinstance(output, Answer))
        return parse_message(data)

    def ask(
        self,
        five_tuple: FiveTuple,
        method: int,
        *attributes: tuple[int, bytes],
        subject: str = "alice",
        secret: str = "north",
        ttl_s: int = 3600,
        transaction: bytes | None = None,
        sha256: bool = False,
    ) -> Message:
        """The answer, whatever it is."""
        nonce = self.authenticator._nonces.issue(five_tuple, self.now_s)
        credential = issue(subject, secret, now_s=self.now_s + UNIX_OFFSET_S, ttl_s=ttl_s)
        key = long_term_key(credential.username, REALM, credential.password)
        sealed = [
            *attributes,
            (Attribute.USERNAME, credential.username.encode()),
            (Attribute.REALM, REALM.encode()),
            (Attribute.NONCE, nonce),
        ]
        transaction = transaction or secrets.token_bytes(12)
        data = write_message(method, Class.REQUEST, transaction, sealed, key=key, sha256=sha256)
        message = self.answer(self.raw(data, five_tuple))
        assert message.transaction == transaction
        return message


def five_tuple(port: int = 40_000, transport: str = "udp") -> FiveTuple:
    return FiveTuple(transport, ("203.0.113.7", port), ("10.0.0.1", 3478))


def code(message: Message) -> int:
    """Of an error; 0 of a success."""
    value = message.get(Attribute.ERROR_CODE)
    return 0 if value is None else value[2] * 100 + value[3]


def peer_request(
    relay: Relay, at: FiveTuple, method: int, *peers: tuple[str, int], channel: int | None = None
) -> Message:
    transaction = secrets.token_bytes(12)
    attributes = [(Attribute.XOR_PEER_ADDRESS, write_address(peer, transaction)) for peer in peers]
    if channel is not None:
        attributes.append((Attribute.CHANNEL_NUMBER, channel.to_bytes(2, "big") + bytes(2)))
    return relay.ask(at, method, *attributes, transaction=transaction)


def permit(relay: Relay, at: FiveTuple, *peers: tuple[str, int]) -> Message:
    return peer_request(relay, at, Method.CREATE_PERMISSION, *peers)


def bind(relay: Relay, at: FiveTuple, channel: int, peer: tuple[str, int]) -> Message:
    return peer_request(relay, at, Method.CHANNEL_BIND, peer, channel=channel)


def send_indication(peer: tuple[str, int], data: bytes, *more: tuple[int, bytes]) -> bytes:
    transaction = bytes(12)
    return write_message(
        Method.SEND,
        Class.INDICATION,
        transaction,
        [(Attribute.XOR_PEER_ADDRESS, write_address(peer, transaction)), (Attribute.DATA, data), *more],
    )
