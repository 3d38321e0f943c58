"""The configuration's tree: what sections there are, what each key takes, and which keys follow others.

Where a key is left out because another one decides (``archive.url`` follows ``data_dir``), the effective value is
filled in here, so that no reader of the tree needs to know the rule. ``mixer.config`` reads it, ``mixer.kept_secrets``
makes the secrets that nobody chose.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from mixer.errors import ConfigError
from mixer.settings_values import (
    BEARER,
    MIN_SECRET_BYTES,
    CommaList,
    Listener,
    Port,
    Ports,
    Section,
    check_hosts,
    check_peer,
    check_turn_url,
    is_loopback,
    no_mask,
)
from recording.errors import EndpointRefused
from recording.placement import BadPlace, Place, Places, key_bytes, place


class HttpSettings(Listener):
    """API, WHIP, WHEP and pages. Port 0 asks the system for a free one (tests)."""

    host: str = "127.0.0.1"
    port: Port = 8080

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach the listener."""
        return all(is_loopback(host) for host in self.hosts)


class AuthSettings(Section):
    """Secrets, both generated once when left out. ``open_rooms``: whoever opens a room's page gets a participant's
    token without being invited; left out, that is so for callers on this machine, when ``http.host`` is loopback."""

    admin_token: SecretStr | None = None
    secret: SecretStr | None = None
    open_rooms: bool | None = None

    @field_validator("admin_token")
    @classmethod
    def _admin_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not BEARER.fullmatch(no_mask(value).get_secret_value()):
            raise ValueError("takes letters, digits and -._~+/ only (RFC 6750 section 2.1)")
        return value

    @field_validator("secret")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(no_mask(value).get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(
                f"takes at least {MIN_SECRET_BYTES} bytes (RFC 7518 section 3.2), like `openssl rand -hex 32`"
            )
        return value


class MediaSettings(Section):
    """Where media sockets live. ``public_ip``: the address put in candidates behind 1:1 NAT. ``cpu_cores``: how
    many cores the rooms may use together; none: all that the machine has. ``overload``: act on it (refuse newcomers,
    then give up quality in steps), or only tell of it, where full quality goes before everything.
    """

    public_ip: str | None = None
    host: str = "0.0.0.0"  # noqa: S104 - media must reach callers; every datagram is filtered (webrtc/)
    udp_ports: Ports = range(40000, 41000)
    cpu_cores: Annotated[float, Field(gt=0, le=1024)] | None = None
    overload: Literal["act", "tell"] = "act"

    _host = field_validator("host")(check_hosts)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Each address of ``host``."""
        return tuple(self.host.split(","))

    @field_validator("public_ip")
    @classmethod
    def _public_ip(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ipaddress.ip_address(value)
            except ValueError:
                raise ValueError("takes one IP address") from None
        return value


class RoomsSettings(Section):
    """``auto_create``: a publisher or a visitor of an unknown room makes it. ``max_participants``: of any room."""

    auto_create: bool = False
    max_participants: Annotated[int, Field(ge=1, le=1000)] = 100


class SipSettings(Listener):
    """Telephones: UDP and TCP on ``port``, TLS on ``tls_port`` when there is a certificate."""

    enabled: bool = True
    host: str = "0.0.0.0"  # noqa: S104 - trunks and telephones call from outside
    port: Port = 5060
    tls_port: Port = 5061


class TurnSettings(Listener):
    """The relay: ours, someone else's, or none. ``secret`` may hold several, separated by commas, newest first; left
    out, one is generated. ``public_host``: what clients call the relay; left out, ``media.public_ip``, or the host
    that they asked. ``tls_443``: TLS on port 443 as well. ``max_kbps``: of one allocation, each way. The rest bounds
    what the embedded relay, or one that ``mosaique turn-config`` configures, gives away.
    """

    enabled: bool = True
    mode: Literal["embedded", "coturn", "eturnal", "off"] = "embedded"
    host: str = "0.0.0.0"  # noqa: S104 - a relay is for those outside; its policy is closed by default
    port: Port = 3478
    tls_port: Port = 5349
    tls_443: bool = False
    public_host: str | None = None
    secret: SecretStr | None = None
    urls: CommaList = ()
    allowed_peers: CommaList = ()
    realm: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,126}$")] = "mosaique"
    relay_ports: Ports = range(49152, 65536)  # RFC 8656 section 7.2: the dynamic ports
    max_allocations: Annotated[int, Field(ge=1, le=100_000)] = 2000
    # A page has two connections, and a browser allocates for each by each of three URLs on each interface, before it
    # knows whether it needs a relay at all: Chromium on a machine with two took 16 and was refused more (Nov 2026).
    user_quota: Annotated[int, Field(ge=1, le=1000)] = 32
    max_kbps: Annotated[int, Field(ge=64, le=1_000_000)] = 4000  # three times the wire of `high`

    @property
    def is_embedded(self) -> bool:
        """Whether the server starts a relay of its own."""
        return self.enabled and self.mode == "embedded"

    @property
    def is_used(self) -> bool:
        """Whether clients are told of a relay, ours or another."""
        return self.enabled and self.mode != "off"

    @field_validator("public_host")
    @classmethod
    def _public_host(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if "," in value:
            raise ValueError("takes one name or address")
        return check_hosts(value)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The shared secrets, newest first: sign with the first, accept any."""
        text = self.secret.get_secret_value() if self.secret else ""
        return tuple(part.strip() for part in text.split(",") if part.strip())

    @field_validator("secret")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else no_mask(value)

    @field_validator("urls")
    @classmethod
    def _urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_turn_url(url) for url in value)

    @field_validator("allowed_peers")
    @classmethod
    def _allowed_peers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_peer(peer) for peer in value)


class ArchiveSettings(Section):
    """Where sealed recordings go: ``file:PATH``, or ``s3://BUCKET/PREFIX`` with the keys beside it (docs/stores.md).

    ``provider`` fills in ``endpoint`` and ``region``. ``ca_file``: PEM of who vouches for a store of one's own.
    ``sse_c_key``: the store encrypts with it. ``encrypt``: we do, each recording with a key of its own, wrapped
    with ``encrypt_key`` (made once when left out). ``second_…``: another store that gets everything too.

    ``retention_days``: each is kept at least so long, by room in ``room_retention_days`` (``room=days``); under
    ``retention_mode`` compliance nobody makes that shorter. ``delete_expired``: delete when it is over. Each recording
    is read again and compared within ``fixity_days`` (0: never), at ``fixity_mb_s`` at most. ``redirect`` auto: who can
    follow gets a link to the store instead of the bytes.
    """

    url: str = ""  # filled in from data_dir by Settings
    provider: str | None = None
    endpoint: str | None = None
    region: str | None = None
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    jurisdiction: Literal["eu", "any", "self"] = "eu"
    ca_file: Path | None = None
    sse_c_key: SecretStr | None = None
    encrypt: bool = False
    encrypt_key: SecretStr | None = None
    second_url: str | None = None
    second_provider: str | None = None
    second_endpoint: str | None = None
    second_region: str | None = None
    second_access_key: SecretStr | None = None
    second_secret_key: SecretStr | None = None
    second_sse_c_key: SecretStr | None = None
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    room_retention_days: CommaList = ()
    retention_mode: Literal["governance", "compliance"] = "governance"
    delete_expired: bool = False
    fixity_days: Annotated[int, Field(ge=0, le=3650)] = 90
    fixity_mb_s: Annotated[float, Field(gt=0, le=10_000)] = 20.0
    redirect: Literal["off", "auto"] = "off"

    @field_validator("room_retention_days")
    @classmethod
    def _room_retention_days(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}=[1-9][0-9]{0,4}", text, re.ASCII):
                raise ValueError("takes ROOM=DAYS, several separated by commas, like council=3650,demo=30")
        return value

    @property
    def retention_by_room(self) -> dict[str, int]:
        """``room_retention_days`` as days by room."""
        return {
            room: int(days) for room, _, days in (text.partition("=") for text in self.room_retention_days)
        }

    @field_validator("ca_file")
    @classmethod
    def _ca_file(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"takes a PEM file; there is none at {path}")
        return path

    @field_validator("access_key", "secret_key", "second_access_key", "second_secret_key")
    @classmethod
    def _not_masked(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else no_mask(value)

    @field_validator("sse_c_key", "second_sse_c_key", "encrypt_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            key_bytes(no_mask(value).get_secret_value())
        return value

    @model_validator(mode="after")
    def _stores(self) -> ArchiveSettings:
        """Both stores can be, as they are set; the jurisdiction guard's word by name is here too."""
        if self.url:
            self.places()
        return self

    def places(self) -> Places:
        """The archive's store, and the second one's. Raises ValueError naming the key."""
        second = self._place("second_") if self.second_url is not None else None
        return Places(first=self._place(""), second=second)

    def _place(self, which: Literal["", "second_"]) -> Place:
        def value(name: str) -> Any:
            return getattr(self, which + name)

        try:
            found = place(
                value("url"),
                provider=value("provider"),
                endpoint=value("endpoint"),
                region=value("region"),
                access_key=value("access_key"),
                secret_key=value("secret_key"),
                sse_c_key=value("sse_c_key"),
                jurisdiction=self.jurisdiction,
                lock_mode="COMPLIANCE" if self.retention_mode == "compliance" else "GOVERNANCE",
                ca_file=str(self.ca_file or ""),
                encrypt_key=self.encrypt_key if self.encrypt else None,
            )
            # What nobody may shorten here nobody may shorten there.
            compliance = {"lock_mode": "COMPLIANCE"} if self.retention_mode == "compliance" else {}
            return found.model_copy(update=compliance)
        except BadPlace as error:
            raise ValueError(f"{which}{error.field}: {error}") from None
        except EndpointRefused as error:
            raise ValueError(f"{which}endpoint: {error}") from None

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """All that must not be seen."""
        fields = (getattr(self, name) for name in type(self).model_fields)
        return tuple(value for value in fields if isinstance(value, SecretStr))

    @property
    def directory(self) -> Path | None:
        """The folder of a ``file:`` archive, None for another store."""
        folder = self.places().first.folder
        return Path(folder) if folder else None


class LogSettings(Section):
    """``format``: JSON lines, or coloured lines for a person; ``auto`` looks whether standard error is a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Section):
    """The whole tree. Every section's docstring says what its keys mean; contract section 2 lists them."""

    data_dir: Path = Path("./var")
    http: HttpSettings = HttpSettings()
    auth: AuthSettings = AuthSettings()
    media: MediaSettings = MediaSettings()
    rooms: RoomsSettings = RoomsSettings()
    sip: SipSettings = SipSettings()
    turn: TurnSettings = TurnSettings()
    archive: ArchiveSettings = ArchiveSettings(url="file:./var/archive")
    log: LogSettings = LogSettings()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tree: Any) -> Any:
        """Defaults that follow another key. Works on the raw tree, so that each value is still validated."""
        if not isinstance(tree, Mapping):
            return tree
        filled = dict(tree)
        archive = filled.get("archive", {})
        if isinstance(archive, Mapping) and "url" not in archive:
            filled["archive"] = {
                **archive,
                "url": f"file:{Path(str(filled.get('data_dir', './var'))) / 'archive'}",
            }
        http = filled.get("http", {})
        pair = {
            key: http[key] for key in ("tls_cert", "tls_key") if isinstance(http, Mapping) and key in http
        }
        for name in ("sip", "turn"):
            section = filled.get(name, {})
            if pair and isinstance(section, Mapping) and not {"tls_cert", "tls_key"} & set(section):
                filled[name] = {**section, **pair}
        return filled

    @property
    def admin_token(self) -> str:
        """The admin token of a tree that went through ``kept_secrets.with_secrets``."""
        return _revealed(self.auth.admin_token, "auth.admin_token")

    @property
    def token_secret(self) -> str:
        """The HS256 key of a tree that went through ``kept_secrets.with_secrets``."""
        return _revealed(self.auth.secret, "auth.secret")

    def secret_texts(self) -> tuple[str, ...]:
        """Every secret of the tree, for the log's filter."""
        held = (self.auth.admin_token, self.auth.secret, *self.archive.secrets)
        return (*(value.get_secret_value() for value in held if value is not None), *self.turn.secrets)


def _revealed(value: SecretStr | None, key: str) -> str:
    if value is None:
        raise ConfigError(f"{key} has not been generated yet")
    return value.get_secret_value()
