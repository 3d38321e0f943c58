"""Addresses that no relay may reach, each in every way in which it can be written on the wire. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from turn.policy import DENIED, Network

# What stands behind a network's first address is what an attacker is after: metadata services, the machine itself.
_NAMED: Final = {
    "169.254.169.254": "metadata service of most clouds",
    "100.100.100.200": "metadata service of Alibaba Cloud",
    "127.0.0.1": "the relay's own machine",
    "0.0.0.0": "the relay's own machine, as Linux takes it (CVE-2020-26262)",  # noqa: S104 - a peer, not a listener
    "255.255.255.255": "broadcast",
    "::1": "the relay's own machine",
    "::": "the relay's own machine, as Linux takes it (CVE-2020-26262)",
    "fd00:ec2::254": "metadata service of Amazon, IPv6",
    "ff02::1": "all nodes of the link",
}
# Enough to know how a relay takes a notation; each denied network in each of them would tell nothing new.
_REWRITTEN: Final = ("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1", "172.16.0.1", "0.0.0.0")  # noqa: S104


@dataclass(frozen=True, slots=True)
class ForbiddenPeer:
    """``ip``: as it is sent. ``meant``: what it reaches, which differs where one address is written in another."""

    ip: str
    meant: str
    label: str

    @property
    def version(self) -> int:
        """4 or 6, as sent."""
        return ipaddress.ip_address(self.ip).version

    def is_in(self, networks: Iterable[Network]) -> bool:
        """Whether what it reaches is in one of ``networks``."""
        meant = ipaddress.ip_address(self.meant)
        return any(meant in network for network in networks)


def forbidden(own: Sequence[str] = ()) -> list[ForbiddenPeer]:
    """The matrix. ``own``: further addresses that are the relay's own (where it listens, where it relays from)."""
    found: dict[str, ForbiddenPeer] = {}

    def add(ip: str, meant: str, label: str) -> None:
        text = str(ipaddress.ip_address(ip))
        found.setdefault(text, ForbiddenPeer(text, meant, label))

    for ip, label in _NAMED.items():
        add(ip, ip, label)
    for network in map(ipaddress.ip_network, DENIED):
        first = network.network_address if network.num_addresses == 1 else network.network_address + 1
        add(str(first), str(first), str(network))
    for ip in own:
        add(ip, ip, "the relay's own address")
    for ip in _REWRITTEN:
        for written, how in _notations(ipaddress.IPv4Address(ip)):
            add(written, ip, f"{ip}, {how}")
    return list(found.values())


def _notations(ip: ipaddress.IPv4Address) -> list[tuple[str, str]]:
    value = int(ip)
    made = [
        ((0xFFFF << 32) | value, "IPv4-mapped (CVE-2026-27624)"),  # RFC 4291 section 2.5.5.2
        ((0xFFFF << 48) | value, "IPv4-translated"),  # RFC 2765 section 2.1
        (value, "IPv4-compatible"),  # RFC 4291 section 2.5.5.1
        ((0x2002 << 112) | (value << 80), "6to4"),  # RFC 3056 section 2
        ((0x64FF9B << 96) | value, "NAT64"),  # RFC 6052 section 2.1
    ]
    return [(str(ipaddress.IPv6Address(number)), how) for number, how in made]
