"""What a relay is told before it starts, from a command line or from one JSON object. Pure but for the secret file.

The names are the same in both: ``--relay-ports 49152-65535`` is ``{"relay_ports": "49152-65535"}``. Secrets never stand
on a command line, where every user of the machine can read them: they come from a file or in the object.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from turn.policy import BadRule, Rule, parse_rule

Endpoint = tuple[str, int]

KBPS: Final = 1000


class BadSettings(ValueError):
    """A setting that a relay cannot run with; the message names it and says what it takes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``listen``: UDP and TCP. ``relay_addresses``: where relayed sockets are bound, at most one IPv4 and one IPv6.

    ``public_ip``: what clients are told instead of the IPv4 relay address (1:1 NAT). ``bandwidth_bps``: of each
    allocation, each way, payload. ``secrets`` stay out of ``repr``.
    """

    listen: tuple[Endpoint, ...] = (("127.0.0.1", 3478),)
    tls_listen: tuple[Endpoint, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    relay_addresses: tuple[str, ...] = ("127.0.0.1",)
    public_ip: str | None = None
    relay_ports: tuple[int, int] = (49_152, 65_535)  # RFC 8656 section 7.2: the dynamic range
    realm: str = "mosaique"
    secrets: tuple[str, ...] = field(default=(), repr=False)
    secret_file: str | None = None
    allowed: tuple[Rule, ...] = ()
    max_allocations: int = 500
    user_quota: int = 8  # what a browser with two interfaces takes, and coturn's own client's five
    bandwidth_bps: int = 4000 * KBPS  # a 720p picture and its bursts, each way
    metrics_port: int | None = None


def parse_settings(body: Mapping[str, Any]) -> Settings:
    """Settings from a JSON object or from parsed arguments; None counts as not given. Raises ``BadSettings``."""
    given = {name: value for name, value in body.items() if value is not None}
    if unknown := given.keys() - _PARSERS.keys():
        raise BadSettings(f"unknown setting {min(unknown)!r}; there are {', '.join(_PARSERS)}")
    made: dict[str, Any] = {}
    for name, value in given.items():
        key, parse = _PARSERS[name]
        try:
            made[key] = parse(value)
        except BadRule as error:
            raise BadSettings(f"{name}: {error}") from None
        except (ValueError, TypeError, AttributeError):
            shown = "what was given" if name == "secrets" else repr(value)
            raise BadSettings(f"{name}: {shown} is not {_TAKES[name]}") from None
    settings = Settings(**made)
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if not settings.listen and not settings.tls_listen:
        raise BadSettings("listen: a relay needs at least one address to listen on")
    if settings.tls_listen and not (settings.tls_cert and settings.tls_key):
        raise BadSettings("tls_listen needs tls_cert and tls_key")
    if not settings.secrets and not settings.secret_file:
        raise BadSettings("secret_file: a relay needs a secret to check credentials with")
    versions = [ipaddress.ip_address(address).version for address in settings.relay_addresses]
    if not versions or len(set(versions)) != len(versions):
        raise BadSettings("relay_address: one IPv4 address, one IPv6 address, or one of each")


def _each(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else str(value).split(",")


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.strip().rpartition(":")
    address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    if not 0 <= int(port) < 65_536:
        raise ValueError("port")
    return str(address), int(port)


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text.strip()))


def _concrete(text: str) -> str:
    """A relayed address is told to clients: it can't be the wildcard."""
    address = ipaddress.ip_address(text.strip())
    if address.is_unspecified:
        raise ValueError("wildcard")
    return str(address)


def _port_range(text: str) -> tuple[int, int]:
    low, high = (int(part) for part in text.split("-"))
    if not 1024 <= low < high < 65_536:
        raise ValueError("range")
    return low, high


def _count(value: Any) -> int:
    number = int(value)
    if number < 1:
        raise ValueError("count")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("text")
    return value


def _realm(value: Any) -> str:
    if (
        len(_text(value).encode()) > 127 or '"' in value
    ):  # RFC 8489 section 14.9; it is a quoted string in SIP's sense
        raise ValueError("realm")
    return str(value)


_PARSERS: Final[Mapping[str, tuple[str, Any]]] = {
    "listen": ("listen", lambda value: tuple(_endpoint(text) for text in _each(value))),
    "tls_listen": ("tls_listen", lambda value: tuple(_endpoint(text) for text in _each(value))),
    "tls_cert": ("tls_cert", _text),
    "tls_key": ("tls_key", _text),
    "relay_address": ("relay_addresses", lambda value: tuple(_concrete(text) for text in _each(value))),
    "public_ip": ("public_ip", _address),
    "relay_ports": ("relay_ports", _port_range),
    "realm": ("realm", _realm),
    "secrets": ("secrets", lambda value: tuple(_text(secret) for secret in value)),
    "secret_file": ("secret_file", _text),
    "allow_peer": ("allowed", lambda value: tuple(parse_rule(text) for text in _each(value))),
    "max_allocations": ("max_allocations", _count),
    "user_quota": ("user_quota", _count),
    "bandwidth": ("bandwidth_bps", lambda value: _count(value) * KBPS),
    "metrics_port": ("metrics_port", _count),
}
_TAKES: Final[Mapping[str, str]] = {
    "listen": "ADDRESS:PORT, [IPv6]:PORT for IPv6",
    "tls_listen": "ADDRESS:PORT, [IPv6]:PORT for IPv6",
    "tls_cert": "the path of a PEM file",
    "tls_key": "the path of a PEM file",
    "relay_address": "an IP address of this machine, not the wildcard",
    "public_ip": "an IP address",
    "relay_ports": "LOW-HIGH, from 1024 on",
    "realm": "a name of at most 127 bytes",
    "secrets": "a list of secrets",
    "secret_file": "the path of a file with one secret a line",
    "allow_peer": "a list of networks, addresses or ADDRESS:PORT",
    "max_allocations": "a number from 1 on",
    "user_quota": "a number from 1 on",
    "bandwidth": "kbit/s, from 1 on",
    "metrics_port": "a port",
}
