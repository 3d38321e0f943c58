"""All allocations, their quotas, what is due when. Pure; what the edge has to do about it is told as ``Change``."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from turn.allocation import (
    CHANNEL_S,
    MAX_CHANNELS,
    MAX_PERMISSIONS,
    PERMISSION_S,
    RESERVATION_S,
    Allocation,
    Channel,
    FiveTuple,
    Permission,
    Relay,
    Reservation,
    TokenBucket,
    family_of,
)
from turn.deadlines import Deadlines
from turn.policy import Peer
from turn.refusals import Refused

_TRIES: Final = 64  # random ports looked at before the range counts as full


class Ports(Protocol):
    """Who has the sockets. ``bind`` is False when another program has the port, or no descriptor is left."""

    def bind(self, address: str, port: int) -> bool:
        """Take the port."""

    def release(self, address: str, port: int) -> None:
        """Let go of what ``bind`` took."""


@dataclass(frozen=True, slots=True)
class Change:
    """``channel`` None: the allocation itself has come or gone."""

    what: Literal["opened", "closed"]
    allocation: Allocation
    channel: Channel | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the table grants. ``addresses``: of this machine, one a family; ``shown``: what clients are told."""

    addresses: tuple[str, ...]
    shown: tuple[str, ...]
    ports: tuple[int, int]
    allocations: int
    a_user: int
    bandwidth_bps: int


class AllocationTable:
    """``changes`` is filled by what is called here; who reads it empties it."""

    def __init__(self, bounds: Bounds, ports: Ports) -> None:
        self.by_tuple: dict[FiveTuple, Allocation] = {}
        self.changes: list[Change] = []
        self._bounds = bounds
        self._ports = ports
        self._users: Counter[str] = Counter()
        self._reserved: dict[bytes, Reservation] = {}
        self._deadlines: Deadlines[Allocation | Permission | Channel | Reservation] = Deadlines()
        self._families = {family_of(address): index for index, address in enumerate(bounds.addresses)}

    def serves(self, family: int) -> bool:
        """Whether there is a relay address of the family."""
        return family in self._families

    def next_deadline(self) -> float | None:
        return self._deadlines.next()

    def of_subject(self, subject: str) -> list[Allocation]:
        return [allocation for allocation in self.by_tuple.values() if allocation.subject == subject]

    def holds(self, subject: str) -> bool:
        """Whether the subject has an allocation."""
        return subject in self._users

    def check_quota(self, subject: str) -> None:
        """RFC 8656 section 7.2 steps 10 and 11. Raises ``Refused``."""
        if self._users.get(subject, 0) >= self._bounds.a_user:
            raise Refused(486, "user quota")
        if len(self.by_tuple) >= self._bounds.allocations:
            raise Refused(508, "all allocations taken")

    # relayed addresses

    def open_relay(self, family: int, *, even: bool = False) -> Relay:
        """A relayed address at a random port (RFC 8656 section 7.2: not a guessable one). Raises ``Refused``."""
        low, high = self._bounds.ports
        for _ in range(_TRIES):
            port = low + secrets.randbelow(high - low + 1)
            port -= port & 1 if even else 0
            if port >= low and (relay := self._bind(family, port)) is not None:
                return relay
        raise Refused(508, "no relay port")

    def open_pair(self, subject: str, family: int, now_s: float) -> tuple[Relay, bytes]:
        """An even port, and the token for the odd one above it. Raises ``Refused``."""
        for _ in range(_TRIES):
            first = self.open_relay(family, even=True)
            if (
                first.port < self._bounds.ports[1]
                and (second := self._bind(family, first.port + 1)) is not None
            ):
                token = secrets.token_bytes(8)
                reservation = Reservation(token, subject, second)
                self._reserved[token] = reservation
                self._deadlines.set(reservation, now_s + RESERVATION_S)
                return first, token
            self.close_relay(first)
        raise Refused(508, "no pair of ports")

    def claim(self, token: bytes, subject: str) -> Relay:
        """The reserved port of a token; only who reserved it may have it. Raises ``Refused``."""
        reservation = self._reserved.get(token)
        if reservation is None or reservation.subject != subject:
            raise Refused(508, "no such reservation")
        del self._reserved[token]
        self._deadlines.cancel(reservation)
        return reservation.relay

    def close_relay(self, relay: Relay) -> None:
        self._ports.release(relay.address, relay.port)

    def _bind(self, family: int, port: int) -> Relay | None:
        index = self._families[family]
        address = self._bounds.addresses[index]
        if not self._ports.bind(address, port):
            return None
        return Relay(address, port, (self._bounds.shown[index], port), family)

    # allocations

    def open(
        self, five_tuple: FiveTuple, subject: str, relays: Sequence[Relay], *, now_s: float, until_s: float
    ) -> Allocation:
        """``until_s``: when the credential expires; the lifetime is set by ``prolong``."""
        rate = self._bounds.bandwidth_bps
        allocation = Allocation(
            five_tuple=five_tuple,
            subject=subject,
            expires_s=now_s,
            credential_until_s=until_s,
            relays=list(relays),
            to_peer=TokenBucket(rate, now_s),
            to_client=TokenBucket(rate, now_s),
        )
        self.by_tuple[five_tuple] = allocation
        self._users[subject] += 1
        self.changes.append(Change("opened", allocation))
        return allocation

    def prolong(self, allocation: Allocation, expires_s: float) -> None:
        allocation.expires_s = expires_s
        self._deadlines.set(allocation, expires_s)

    def close(self, allocation: Allocation) -> None:
        """The allocation, its ports, permissions and channels are gone."""
        for channel in list(allocation.channels.values()):
            self.unbind(channel)
        for permission in allocation.permissions.values():
            self._deadlines.cancel(permission)
        allocation.permissions.clear()
        self._deadlines.cancel(allocation)
        del self.by_tuple[allocation.five_tuple]
        self._users[allocation.subject] -= 1
        if not self._users[allocation.subject]:
            del self._users[allocation.subject]
        self.changes.append(Change("closed", allocation))
        for relay in allocation.relays:
            self.close_relay(relay)

    def close_family(self, allocation: Allocation, family: int) -> None:
        """One of two relayed addresses is let go (RFC 8656 section 8.2); the last one ends the allocation."""
        relay = allocation.relay(family)
        if relay is None or len(allocation.relays) == 1:
            self.close(allocation)
            return
        for channel in list(allocation.channels.values()):
            if channel.relay is relay:
                self.unbind(channel)
        for address in [address for address in allocation.permissions if family_of(address) == family]:
            self._deadlines.cancel(allocation.permissions.pop(address))
        allocation.relays.remove(relay)
        self.close_relay(relay)

    # permissions and channels

    def permit(self, allocation: Allocation, addresses: Sequence[str], now_s: float) -> None:
        """Install or refresh, all of them or none (RFC 8656 section 10.2). Raises ``Refused``."""
        held = allocation.permissions
        if len(held.keys() | set(addresses)) > MAX_PERMISSIONS:
            raise Refused(508, "permissions of an allocation")
        for address in addresses:
            permission = held.setdefault(address, Permission(allocation, address))
            self._deadlines.set(permission, now_s + PERMISSION_S)
            _mark(allocation, address, permitted=True)

    def bind(
        self, allocation: Allocation, relay: Relay, number: int, peer: Peer, target: Peer, now_s: float
    ) -> None:
        """Bind or refresh a channel, and its permission (RFC 8656 section 12.2). Raises ``Refused``."""
        by_number, by_peer = allocation.channels.get(number), allocation.channel_of.get(peer)
        if by_number is not by_peer:
            raise Refused(400, "channel or peer bound otherwise")
        if by_number is None and len(allocation.channels) >= MAX_CHANNELS:
            raise Refused(508, "channels of an allocation")
        self.permit(allocation, [peer[0]], now_s)
        channel = by_number
        if channel is None:
            channel = Channel(allocation, relay, number, peer, target)
            allocation.channels[number] = allocation.channel_of[peer] = channel
            self.changes.append(Change("opened", allocation, channel))
        self._deadlines.set(channel, now_s + CHANNEL_S)

    def unbind(self, channel: Channel) -> None:
        self._deadlines.cancel(channel)
        del channel.allocation.channels[channel.number]
        del channel.allocation.channel_of[channel.peer]
        self.changes.append(Change("closed", channel.allocation, channel))

    def expire(self, now_s: float) -> None:
        """Take out all that is due."""
        for item in self._deadlines.due(now_s):
            match item:
                case Allocation():
                    self.close(item)
                case Permission():
                    del item.allocation.permissions[item.address]
                    _mark(item.allocation, item.address, permitted=False)
                case Channel():
                    self.unbind(item)
                case Reservation():
                    del self._reserved[item.token]
                    self.close_relay(item.relay)


def _mark(allocation: Allocation, address: str, *, permitted: bool) -> None:
    """A channel outlives its permission by five minutes: what comes from its peer is then dropped."""
    for channel in allocation.channels.values():
        if channel.peer[0] == address:
            channel.permitted = permitted
