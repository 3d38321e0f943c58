"""An allocation and what hangs on it: relayed addresses, permissions, channels, allowances. Pure: time is an argument.

No lifetime is looked at a packet: what has expired is taken out of these tables when it is due (``table``), so that the
way of a packet is a look-up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from turn.policy import Peer

LIFETIME_S: Final = 600  # RFC 8656 section 3.2: the default, and the longest that we grant
PERMISSION_S: Final = 300  # RFC 8656 section 9: exactly that
CHANNEL_S: Final = 600  # RFC 8656 section 12
RESERVATION_S: Final = 30  # RFC 8656 section 7.2: at least that
MAX_PERMISSIONS: Final = (
    16  # a conference has one peer address, two with IPv6; browsers ask for each candidate
)
MAX_CHANNELS: Final = 16
FIRST_CHANNEL: Final = 0x4000
LAST_CHANNEL: Final = (
    0x7FFF  # RFC 5766 section 11; RFC 8656 keeps 0x5000 up for later, coturn 4.6's client uses it
)


class FiveTuple(NamedTuple):
    """Who speaks with us, by which of our doors. ``transport``: ``udp``, ``tcp``, ``tls``."""

    transport: str
    client: tuple[str, int]
    server: tuple[str, int]


class TokenBucket:
    """Bytes that may pass. A packet subtracts from ``left``; only when that is spent is the clock looked at."""

    __slots__ = ("_at_s", "_rate", "burst", "granted", "left")

    def __init__(self, rate_bps: int, now_s: float) -> None:
        self._rate = rate_bps / 8
        self.burst: float = max(
            self._rate / 2, 65_536
        )  # half a second: a keyframe of 720p comes through whole
        self.left = self.burst
        self.granted = self.burst  # all that ever might pass: less ``left`` it is what did
        self._at_s = now_s

    @property
    def spent(self) -> int:
        """Bytes that have passed since the beginning."""
        return int(self.granted - self.left)

    def refill(self, now_s: float) -> float:
        """What is left at ``now_s``."""
        more = min(self.burst - self.left, max(0.0, now_s - self._at_s) * self._rate)
        self.left += more
        self.granted += more
        self._at_s = now_s
        return self.left

    def take(self, size: int, now_s: float) -> bool:
        """Whether ``size`` bytes may pass; if so they are taken."""
        if self.left < size and self.refill(now_s) < size:
            return False
        self.left -= size
        return True


@dataclass(slots=True, eq=False)
class Relay:
    """A relayed transport address. ``port`` is bound at ``address``; clients are told ``shown``."""

    address: str
    port: int
    shown: Peer
    family: int  # 1 IPv4, 2 IPv6, as on the wire


@dataclass(slots=True, eq=False)
class Permission:
    """Data from this address may come in (RFC 8656 section 9)."""

    allocation: Allocation
    address: str


@dataclass(slots=True, eq=False)
class Channel:
    """``peer``: as the client knows it; ``target``: where that is (the same, but behind 1:1 NAT).

    ``permitted``: whether what comes from the peer may pass (RFC 8656 section 12.7 asks for a permission that way).
    """

    allocation: Allocation
    relay: Relay
    number: int
    peer: Peer
    target: Peer
    permitted: bool = True


@dataclass(slots=True, eq=False)
class Allocation:
    """RFC 8656 section 3.2. ``answer``: the success response of ``transaction``, for when it is asked again."""

    five_tuple: FiveTuple
    subject: str
    expires_s: float
    credential_until_s: float
    relays: list[Relay]
    to_peer: TokenBucket
    to_client: TokenBucket
    transaction: bytes = b""
    answer: bytes = b""
    permissions: dict[str, Permission] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    channel_of: dict[Peer, Channel] = field(default_factory=dict)

    def relay(self, family: int) -> Relay | None:
        """The relayed address of a family, None when it has none."""
        return next((relay for relay in self.relays if relay.family == family), None)


@dataclass(slots=True, eq=False)
class Reservation:
    """The odd port beside an even one, kept for who shows the token (RFC 8656 section 7.2, EVEN-PORT)."""

    token: bytes
    subject: str
    relay: Relay


def family_of(address: str) -> int:
    """1 for IPv4, 2 for IPv6, as REQUESTED-ADDRESS-FAMILY has it."""
    return 2 if ":" in address else 1
