"""Which peers a relay may speak with. Closed by default; pure, and one floor under the allocations.

A relay stands inside: whoever may name any peer reaches what stands beside it. So nothing is allowed but

- the product's own live media sockets, each by address and port (``add``, ``remove``: they follow the rooms), and
- what the operator names: a network (``198.51.0.0/16``), an address, or an address and port.

A network never opens what the hard list denies, nor an address of this machine's own interfaces; only an entry that
names that very address does. Every address is brought back to what it leads to before it is looked up: IPv4 hides in
mapped (RFC 4291 2.5.5.2), compatible (2.5.5.1), 6to4 (RFC 3056) and NAT64 (RFC 6052) notations, and relays that looked
only at the outside were open (CVE-2020-26262, CVE-2026-27624).

Addresses are text as ``socket`` writes it; a peer is ``(address, port)``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Peer = tuple[str, int]

# IANA's special-purpose registries for IPv4 and IPv6 (RFC 6890 and what was added since), multicast, and site-local
# (RFC 3879): nothing in there is a peer on the public internet. What coturn 4.17 still grants is in it.
DENIED: Final[tuple[str, ...]] = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
_DENIED: Final[tuple[Network, ...]] = tuple(ipaddress.ip_network(text) for text in DENIED)
_EMBEDDING: Final = (  # prefix, and how many bits stand behind the IPv4 address in it
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # RFC 2765 section 2.1: IPv4-translated
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("64:ff9b:1::/48"), 0),  # RFC 8215, as if used with /96 prefixes
    (ipaddress.IPv6Network("2002::/16"), 80),
)


class BadRule(ValueError):
    """An entry of ``allowed_peers`` that says nothing, or that would silently open nothing. The message says which."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the operator's list. ``port`` None: every port. A ``network`` of one address names it exactly."""

    network: Network
    port: int | None = None

    @property
    def exact(self) -> bool:
        return self.network.num_addresses == 1

    def matches(self, address: Address, port: int | None) -> bool:
        """Whether the rule is about this peer; ``port`` None: about any port of it."""
        return address in self.network and (self.port is None or port is None or port == self.port)


def parse_rule(text: str) -> Rule:
    """``CIDR``, ``IP`` or ``IP:PORT`` (``[IPv6]:PORT``). Raises ``BadRule``."""
    host, port = _split_port(text.strip())
    try:
        network = ipaddress.ip_network(host)
    except ValueError as error:
        raise BadRule(f"{text!r} is no network, address or address:port ({error})") from None
    rule = Rule(network, port)
    if port is not None and not rule.exact:
        raise BadRule(f"{text!r}: a port goes with one address, not with a network")
    if not rule.exact and any(
        network.network_address in denied and network.prefixlen >= denied.prefixlen for denied in _DENIED
    ):
        raise BadRule(f"{text!r} lies in what a relay never opens as a network; name each address in it")
    return rule


def _split_port(text: str) -> tuple[str, int | None]:
    bracketed = text.startswith("[")
    if not bracketed and text.count(":") != 1:
        return text, None
    host, _, port = text.rpartition(":")
    if bracketed:
        if text.endswith("]"):
            return text[1:-1], None
        if not host.endswith("]"):
            raise BadRule(f"{text!r}: an IPv6 address with a port is [address]:port")
        host = host[1:-1]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise BadRule(f"{text!r}: a port is 1 to 65535")
    return host, int(port)


def canonical(address: Address) -> Address:
    """What an address leads to: the IPv4 address that an IPv6 notation carries, else itself."""
    if isinstance(address, ipaddress.IPv6Address):
        for prefix, behind in _EMBEDDING:
            if address in prefix:
                return ipaddress.IPv4Address(int(address) >> behind & 0xFFFF_FFFF)
    return address


def is_denied(address: Address) -> bool:
    """Whether the hard list holds the address, as it is written or as what it leads to."""
    return any(candidate in network for candidate in (address, canonical(address)) for network in _DENIED)


class PeerPolicy:
    """The one place that says yes. ``is_local``: whether an interface of this machine has the address right now."""

    def __init__(self, rules: Iterable[Rule], is_local: Callable[[str], bool]) -> None:
        self._rules = tuple(rules)
        self._is_local = is_local
        self._live: dict[Peer, Peer] = {}
        self._names: dict[Peer, list[Peer]] = {}
        self._live_ports: dict[str, int] = {}  # how many live sockets an address has

    def add(self, peer: Peer, target: Peer | None = None) -> None:
        """A live media socket of ours. ``target``: where it really is, when ``peer`` is its address in public."""
        self.remove(peer)
        self._live_ports[peer[0]] = self._live_ports.get(peer[0], 0) + 1
        self._live[peer] = target = peer if target is None else target
        self._names.setdefault(target, []).append(peer)

    def remove(self, peer: Peer) -> None:
        """The socket is gone; unknown ones are no matter."""
        target = self._live.pop(peer, None)
        if target is not None:
            self._names[target].remove(peer)
            if not self._names[target]:
                del self._names[target]
            self._live_ports[peer[0]] -= 1
            if not self._live_ports[peer[0]]:
                del self._live_ports[peer[0]]

    def target(self, peer: Peer) -> Peer | None:
        """Where a datagram for ``peer`` goes, None when it may not go anywhere."""
        live = self._live.get(peer)
        if live is not None:
            return live
        return peer if self._opened(peer[0], peer[1]) else None

    def names_of(self, source: Peer) -> Sequence[Peer]:
        """The reverse of ``target``: what clients may know ``source`` as; empty when nothing may come from it."""
        live = self._names.get(source)
        if live is not None:
            return live
        return (source,) if self._opened(source[0], source[1]) else ()

    def allows_address(self, address: str) -> bool:
        """Whether a permission for the address may be installed: permissions know no port (RFC 8656 section 9)."""
        return address in self._live_ports or self._opened(address, None)

    def _opened(self, text: str, port: int | None) -> bool:
        if port == 0:
            return False
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        matching = [rule for rule in self._rules if rule.matches(address, port)]
        if any(rule.exact for rule in matching):
            return True
        return bool(matching) and not is_denied(address) and not self._is_local(str(canonical(address)))
