"""The relay itself: a datagram, its 5-tuple and the time go in, what is to be done comes out. Pure.

The way of a packet through a channel that stands is the edge's (``server``), by the tables that stand here; all else is
decided here. Handlers are in the order of RFC 8656, and each refusal (``refusals``) names its paragraph.

``now_s`` is a clock that only goes forward; ``unix_offset_s`` added to it makes the time that credentials expire by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from turn.allocation import FIRST_CHANNEL, LAST_CHANNEL, LIFETIME_S, Allocation, FiveTuple, Relay, family_of
from turn.authentication import Authenticator, Proof
from turn.limits import AnswerLimit
from turn.message import (
    Attribute,
    Class,
    MalformedMessage,
    Message,
    Method,
    parse_message,
    read_address,
    write_address,
    write_error,
    write_message,
)
from turn.policy import Peer, PeerPolicy
from turn.refusals import Refused
from turn.revocations import Revocations
from turn.table import AllocationTable, Change

MAX_AMPLIFICATION: Final = 6  # an answer to a stranger over UDP is at most that many times what it sent
DRAIN_S: Final = LIFETIME_S  # how long what stands may stand on once the relay drains
_UDP: Final = 17
_IPV4, _IPV6 = 1, 2
_RESERVE: Final = 0x80  # the R bit of EVEN-PORT


@dataclass(frozen=True, slots=True)
class Answer:
    """To whom the datagram came from, by the same door."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ToPeer:
    """Out of the relayed address. ``dont_fragment``: drop it rather than cut it (RFC 8656 section 14)."""

    relay: Relay
    target: Peer
    data: bytes
    dont_fragment: bool


Output = Answer | ToPeer | Change
Attributes = list[tuple[int, bytes]]


class Core:
    """``drops`` and ``refusals`` count by reason. ``table`` and ``policy`` are the edge's to read."""

    def __init__(self, table: AllocationTable, policy: PeerPolicy, authenticator: Authenticator) -> None:
        self.table = table
        self.policy = policy
        self.authenticator = authenticator
        self.unix_offset_s = 0.0
        self.drops: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.revocations = Revocations()
        self._limit = AnswerLimit()
        self._drained_by_s: float | None = None

    # what comes in

    def from_client(self, data: bytes, five_tuple: FiveTuple, now_s: float) -> list[Output]:
        """One STUN message of a client or stranger: a whole datagram, or a whole frame of a stream."""
        try:
            message = parse_message(data)
        except MalformedMessage:
            self.drops["malformed"] += 1
            return []
        if message.kind == Class.INDICATION:
            if message.method == Method.SEND:
                return self._send(message, five_tuple, now_s)
            self.drops["indication"] += (
                message.method != Method.BINDING
            )  # that one keeps a NAT open: no answer
            return []
        if message.kind != Class.REQUEST:
            self.drops["not a request"] += 1
            return []
        answer = self._request(message, five_tuple, now_s)
        return [*self._changes(), *answer]  # a client must find its allocation standing

    def from_peer(self, data: bytes, allocation: Allocation, source: Peer, now_s: float) -> bytes | None:
        """A datagram at a relayed address, not by a channel's own socket: what the client gets for it, if anything."""
        names = [peer for peer in self.policy.names_of(source) if peer[0] in allocation.permissions]
        if not names:
            self.drops["peer without permission"] += 1
            return None
        if not allocation.to_client.take(len(data), now_s):
            self.drops["bandwidth to client"] += 1
            return None
        peer = names[0]
        channel = allocation.channel_of.get(peer)
        if channel is not None:
            return channel.number.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
        transaction = bytes(12)  # nobody answers an indication
        attributes = [(Attribute.XOR_PEER_ADDRESS, write_address(peer, transaction)), (Attribute.DATA, data)]
        return write_message(Method.DATA, Class.INDICATION, transaction, attributes)

    def disconnected(self, five_tuple: FiveTuple) -> list[Change]:
        """The stream of a client is closed, and its allocation with it."""
        allocation = self.table.by_tuple.get(five_tuple)
        if allocation is not None:
            self.table.close(allocation)
        return self._changes()

    def expire(self, now_s: float) -> list[Change]:
        """What is due by now is gone."""
        self.table.expire(now_s)
        return self._changes()

    # what control says

    def set_peers(self, add: Iterable[tuple[Peer, Peer]], remove: Iterable[Peer]) -> list[Change]:
        """Live media sockets came and went; channels to what is no peer any more end at once."""
        for peer in remove:
            self.policy.remove(peer)
        for peer, target in add:
            self.policy.add(peer, target)
        for allocation in self.table.by_tuple.values():
            for channel in list(allocation.channels.values()):
                if self.policy.target(channel.peer) != channel.target:
                    self.table.unbind(channel)
        return self._changes()

    def end(self, subjects: Iterable[str]) -> list[Change]:
        """These participants have left, and their allocations with them."""
        for subject in set(subjects):
            for allocation in self.table.of_subject(subject):
                self.table.close(allocation)
        return self._changes()

    def revoke(self, until: Mapping[str, int], now_s: float) -> None:
        """Credentials of these subjects that expire by then (Unix seconds) allocate no more; what stands stays."""
        self.revocations.add(until, now_s + self.unix_offset_s)

    def drain(self, now_s: float) -> None:
        """Nobody comes in any more; who is in may stay for ``DRAIN_S`` at most."""
        if self._drained_by_s is None:
            self._drained_by_s = now_s + DRAIN_S

    # requests

    def _request(self, message: Message, five_tuple: FiveTuple, now_s: float) -> list[Output]:
        proof: Proof | None = None
        try:
            if message.method == Method.BINDING:
                attributes = self._binding(message, five_tuple)
            else:
                proof = self.authenticator.check(message, five_tuple, now_s, now_s + self.unix_offset_s)
                attributes = self._authenticated(message, proof, five_tuple, now_s)
        except Refused as refused:
            return self._refuse(message, proof, refused, five_tuple, now_s)
        if message.method == Method.ALLOCATE:
            return [Answer(self.table.by_tuple[five_tuple].answer)]
        if proof is None:
            return self._to_stranger(message, _success(message, None, attributes), five_tuple, now_s)
        return [Answer(_success(message, proof, attributes))]

    def _authenticated(
        self, message: Message, proof: Proof, five_tuple: FiveTuple, now_s: float
    ) -> Attributes:
        _check_known(message)
        allocation = self.table.by_tuple.get(five_tuple)
        if message.method == Method.ALLOCATE:
            if allocation is None:
                self._allocate(message, proof, five_tuple, now_s)
            elif allocation.transaction != message.transaction:
                raise Refused(437, "allocated already")
            return []
        handle = {
            Method.REFRESH: self._refresh,
            Method.CREATE_PERMISSION: self._create_permission,
            Method.CHANNEL_BIND: self._channel_bind,
        }.get(Method(message.method) if message.method in set(Method) else Method.DATA)
        if handle is None:
            raise Refused(400, "unknown method")
        if allocation is None:
            raise Refused(437, "no allocation")
        if allocation.subject != proof.subject:
            raise Refused(441, "another subject")
        return handle(message, proof, allocation, now_s)

    def _binding(self, message: Message, five_tuple: FiveTuple) -> Attributes:
        _check_known(message)
        return [(Attribute.XOR_MAPPED_ADDRESS, write_address(five_tuple.client, message.transaction))]

    def _allocate(self, message: Message, proof: Proof, five_tuple: FiveTuple, now_s: float) -> None:
        """RFC 8656 section 7.2, in the order of its steps."""
        if self._drained_by_s is not None:
            raise Refused(508, "draining")
        if self.revocations.holds(proof.subject, proof.until_unix_s):
            raise Refused(403, "credential revoked")
        transport = message.get(Attribute.REQUESTED_TRANSPORT)
        if transport is None or len(transport) != 4:
            raise Refused(400, "no transport")
        if transport[0] != _UDP:
            raise Refused(442, "transport is not UDP")
        families = _families(message)
        even, token = message.get(Attribute.EVEN_PORT), message.get(Attribute.RESERVATION_TOKEN)
        _check_combination(even, token, families)
        lifetime = _lifetime(message)
        if not self.table.serves(families[0]):
            raise Refused(440, "address family")
        self.table.check_quota(proof.subject)
        attributes: Attributes = []
        relays: list[Relay] = []
        if token is not None:
            relays.append(self.table.claim(token, proof.subject))
        elif even is not None and even[0] & _RESERVE:
            relay, token = self.table.open_pair(proof.subject, families[0], now_s)
            relays.append(relay)
            attributes.append((Attribute.RESERVATION_TOKEN, token))
        else:
            relays.append(self.table.open_relay(families[0], even=even is not None))
        if len(families) == 2:
            attributes += self._second_relay(relays)
        until_s = proof.until_unix_s - self.unix_offset_s
        allocation = self.table.open(five_tuple, proof.subject, relays, now_s=now_s, until_s=until_s)
        granted = self._prolong(allocation, lifetime or LIFETIME_S, now_s)
        transaction = message.transaction
        attributes = [
            *((Attribute.XOR_RELAYED_ADDRESS, write_address(relay.shown, transaction)) for relay in relays),
            (Attribute.LIFETIME, granted.to_bytes(4, "big")),
            *attributes,
            (Attribute.XOR_MAPPED_ADDRESS, write_address(five_tuple.client, transaction)),
        ]
        allocation.transaction = transaction
        allocation.answer = _success(message, proof, attributes)

    def _second_relay(self, relays: list[Relay]) -> Attributes:
        """ADDITIONAL-ADDRESS-FAMILY: what can't be had is told, and the rest works (RFC 8656 section 7.2 step 9)."""
        missing = Refused(440, "address family")
        if self.table.serves(_IPV6):
            try:
                relays.append(self.table.open_relay(_IPV6))
            except Refused as refused:
                missing = refused
            else:
                return []
        value = bytes((_IPV6, 0)) + write_error(missing.code, missing.reason)[2:]
        return [(Attribute.ADDRESS_ERROR_CODE, value)]

    def _refresh(self, message: Message, proof: Proof, allocation: Allocation, now_s: float) -> Attributes:
        """RFC 8656 section 8.2."""
        wanted = message.get(Attribute.REQUESTED_ADDRESS_FAMILY)
        if wanted is not None and allocation.relay(_family(wanted)) is None:
            raise Refused(443, "address family of the allocation")
        lifetime = _lifetime(message)
        if lifetime == 0:
            if wanted is None:
                self.table.close(allocation)
            else:
                self.table.close_family(allocation, _family(wanted))
            return [(Attribute.LIFETIME, bytes(4))]
        allocation.credential_until_s = proof.until_unix_s - self.unix_offset_s
        granted = self._prolong(allocation, lifetime or LIFETIME_S, now_s)
        return [(Attribute.LIFETIME, granted.to_bytes(4, "big"))]

    def _create_permission(
        self, message: Message, proof: Proof, allocation: Allocation, now_s: float
    ) -> Attributes:
        """RFC 8656 section 10.2: all of them, or none."""
        peers = [_peer(value, message) for value in message.all(Attribute.XOR_PEER_ADDRESS)]
        if not peers:
            raise Refused(400, "no peer")
        for peer in peers:
            self._check_peer(allocation, peer, allowed=self.policy.allows_address(peer[0]))
        self.table.permit(allocation, [peer[0] for peer in peers], now_s)
        return []

    def _channel_bind(
        self, message: Message, proof: Proof, allocation: Allocation, now_s: float
    ) -> Attributes:
        """RFC 8656 section 12.2."""
        channel, value = message.get(Attribute.CHANNEL_NUMBER), message.get(Attribute.XOR_PEER_ADDRESS)
        if channel is None or len(channel) != 4 or value is None:
            raise Refused(400, "no channel or no peer")
        number = int.from_bytes(channel[:2], "big")
        if not FIRST_CHANNEL <= number <= LAST_CHANNEL:
            raise Refused(400, "channel number")
        peer = _peer(value, message)
        target = self.policy.target(peer)
        relay = self._check_peer(allocation, peer, allowed=target is not None)
        self.table.bind(allocation, relay, number, peer, target or peer, now_s)
        return []

    def _check_peer(self, allocation: Allocation, peer: Peer, *, allowed: bool) -> Relay:
        """The policy first: whether an allocation could reach it is nobody's business who may not."""
        if not allowed:
            raise Refused(403, "peer denied")
        relay = allocation.relay(family_of(peer[0]))
        if relay is None:
            raise Refused(443, "address family of the peer")
        return relay

    def _send(self, message: Message, five_tuple: FiveTuple, now_s: float) -> list[Output]:
        """RFC 8656 section 11.2. Ports are checked here: a permission knows none."""
        allocation = self.table.by_tuple.get(five_tuple)
        value, data = message.get(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
        if allocation is None or value is None or data is None or message.unknown():
            self.drops["send without allocation or data"] += 1
            return []
        try:
            peer = read_address(value, message.transaction)
        except MalformedMessage:
            self.drops["malformed"] += 1
            return []
        target, relay = self.policy.target(peer), allocation.relay(family_of(peer[0]))
        if target is None or relay is None or peer[0] not in allocation.permissions:
            self.drops["send without permission"] += 1
            return []
        if not allocation.to_peer.take(len(data), now_s):
            self.drops["bandwidth to peer"] += 1
            return []
        return [ToPeer(relay, target, data, message.get(Attribute.DONT_FRAGMENT) is not None)]

    # how it is answered

    def _refuse(
        self, message: Message, proof: Proof | None, refused: Refused, five_tuple: FiveTuple, now_s: float
    ) -> list[Output]:
        self.refusals[refused.cause] += 1
        attributes = [(Attribute.ERROR_CODE, write_error(refused.code, refused.reason)), *refused.attributes]
        if proof is None:
            answer = write_message(message.method, Class.ERROR, message.transaction, attributes)
            return self._to_stranger(message, answer, five_tuple, now_s)
        answer = write_message(
            message.method, Class.ERROR, message.transaction, attributes, key=proof.key, sha256=proof.sha256
        )
        return [Answer(answer)]

    def _to_stranger(
        self, message: Message, answer: bytes, five_tuple: FiveTuple, now_s: float
    ) -> list[Output]:
        """Over UDP nobody has proved to be where the datagram says it is from."""
        if five_tuple.transport == "udp":
            if len(answer) > MAX_AMPLIFICATION * len(message.raw):
                self.drops["answer too large"] += 1
                return []
            if not self._limit.allows(five_tuple.client[0], now_s):
                self.drops["answers to strangers"] += 1
                return []
        return [Answer(answer)]

    def _prolong(self, allocation: Allocation, wanted_s: int, now_s: float) -> int:
        """The lifetime that is granted: not beyond ours, the credential's, or the drain's."""
        until_s = min(now_s + min(wanted_s, LIFETIME_S), allocation.credential_until_s)
        if self._drained_by_s is not None:
            until_s = min(until_s, self._drained_by_s)
        self.table.prolong(allocation, until_s)
        return max(0, int(until_s - now_s))

    def _changes(self) -> list[Change]:
        changes, self.table.changes = self.table.changes, []
        return changes


def _success(message: Message, proof: Proof | None, attributes: Attributes) -> bytes:
    if proof is None:
        return write_message(message.method, Class.SUCCESS, message.transaction, attributes)
    return write_message(
        message.method, Class.SUCCESS, message.transaction, attributes, key=proof.key, sha256=proof.sha256
    )


def _check_known(message: Message) -> None:
    if unknown := message.unknown():
        value = b"".join(kind.to_bytes(2, "big") for kind in unknown)
        raise Refused(420, "unknown attribute", [(Attribute.UNKNOWN_ATTRIBUTES, value)])


def _peer(value: bytes, message: Message) -> Peer:
    try:
        return read_address(value, message.transaction)
    except MalformedMessage:
        raise Refused(400, "peer address") from None


def _family(value: bytes) -> int:
    if len(value) != 4:
        raise Refused(400, "address family")
    if value[0] not in {_IPV4, _IPV6}:
        raise Refused(440, "address family")
    return value[0]


def _families(message: Message) -> tuple[int, ...]:
    """What is asked for: one family, or IPv4 with IPv6 beside it (RFC 8656 section 7.2 steps 8 and 9)."""
    requested = message.get(Attribute.REQUESTED_ADDRESS_FAMILY)
    additional = message.get(Attribute.ADDITIONAL_ADDRESS_FAMILY)
    if additional is None:
        additional = message.get(Attribute.ADDITIONAL_ADDRESS_FAMILY_DRAFT)
    if additional is None:
        return (_IPV4,) if requested is None else (_family(requested),)
    if requested is not None or _family(additional) != _IPV6:
        raise Refused(400, "additional address family")
    return _IPV4, _IPV6


def _check_combination(even: bytes | None, token: bytes | None, families: tuple[int, ...]) -> None:
    """RFC 8656 section 7.2 steps 6 to 9: what does not go together."""
    if (even is not None and len(even) != 1) or (token is not None and len(token) != 8):
        raise Refused(400, "reservation")
    if token is not None and (even is not None or families != (_IPV4,)):
        raise Refused(400, "reservation with more")
    if even is not None and even[0] & _RESERVE and len(families) == 2:
        raise Refused(400, "reservation with more")


def _lifetime(message: Message) -> int | None:
    value = message.get(Attribute.LIFETIME)
    if value is None:
        return None
    if len(value) != 4:
        raise Refused(400, "lifetime")
    return int.from_bytes(value, "big")
