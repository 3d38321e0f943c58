"""The kinds of values that the configuration takes, and how each is checked.

A check raises ``ValueError`` saying what the key takes, never the value: it may be a secret.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    field_validator,
    model_validator,
)

from turn.policy import BadRule, parse_rule

MASK: Final = "**********"  # what pydantic prints for a SecretStr
MIN_SECRET_BYTES: Final = 32  # RFC 7518 section 3.2: an HS256 key has at least 256 bits
# RFC 6750 section 2.1, b64token: what a header can carry
BEARER: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")


def parse_ports(value: object) -> range:
    """``"40000-40999"`` or one port, as a range whose ``stop`` is one past the last port. Raises ``ValueError``."""
    if isinstance(value, range):
        first, last = value.start, value.stop - 1
    else:
        match = re.fullmatch(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", str(value), re.ASCII)
        if match is None:
            raise ValueError("takes FIRST-LAST, like 40000-40999")
        first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise ValueError("takes FIRST-LAST with 1 <= FIRST <= LAST <= 65535, like 40000-40999")
    return range(first, last + 1)


def check_hosts(value: str) -> str:
    hosts = [part.strip() for part in value.split(",")]
    for host in hosts:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            # Digits and dots that are no address are a slip of the finger, not the name of a host.
            if not _HOST_NAME.fullmatch(host) or re.fullmatch(r"[0-9.]+", host):
                raise ValueError("takes an address or a list of them separated by commas") from None
    return ",".join(hosts)


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def check_peer(value: str) -> str:
    try:
        parse_rule(value)
    except BadRule as error:
        raise ValueError(f"takes networks in CIDR form, addresses, or address:port: {error}") from None
    return value


def check_turn_url(value: str) -> str:
    # RFC 7064 section 3.1 and RFC 7065 section 3.1
    if not re.fullmatch(r"(stuns?:[^\s?,<>\"]+|turns?:[^\s?,<>\"]+(\?transport=(udp|tcp))?)", value):
        raise ValueError(
            "takes stun:, stuns:, turn: or turns: URLs, like turn:relay.example:3478?transport=udp"
        )
    return value


def no_mask(value: SecretStr) -> SecretStr:
    if value.get_secret_value() == MASK:
        raise ValueError("is the mask that `mosaique config` prints, not a secret")
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
Ports = Annotated[
    range, BeforeValidator(parse_ports), PlainSerializer(lambda ports: f"{ports.start}-{ports.stop - 1}")
]
CommaList = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )


class Listener(Section):
    """What listens on ``host``, and what its TLS speaks with."""

    host: str
    tls_cert: Path | None = None
    tls_key: Path | None = None

    _host = field_validator("host")(check_hosts)

    @property
    def hosts(self) -> tuple[str, ...]:
        """``host`` is a comma-separated list; each address of it."""
        return tuple(self.host.split(","))

    @field_validator("tls_cert", "tls_key")
    @classmethod
    def _readable(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"takes a PEM file; there is none at {path}")
        return path

    @model_validator(mode="after")
    def _both_or_none(self) -> Listener:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both or neither")
        return self


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
