"""The configuration: one frozen tree, read once at start.

    defaults  <  mosaique.toml (--config)  <  MOSAIQUE_<SECTION>__<KEY>  <  --set section.key=value

``load`` merges the four, ``Settings`` says what each key takes, ``with_secrets`` makes the secrets that nobody
chose. Whatever is wrong raises one ``ConfigError`` that names every wrong key, where it came from, and what it
takes. Where a key is left out because another one decides (``archive.url`` follows ``data_dir``), the effective
value is filled in here, so that no reader of the tree needs to know the rule.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import secrets
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from mixer.errors import ConfigError
from recording.errors import EndpointRefused
from recording.placement import BadPlace, Place, Places, key_bytes, place
from turn.policy import BadRule, parse_rule

ENV_PREFIX: Final = "MOSAIQUE_"
DEFAULT_FILE: Final = "mosaique.toml"
MASK: Final = "**********"  # what pydantic prints for a SecretStr
MIN_SECRET_BYTES: Final = 32  # RFC 7518 section 3.2: an HS256 key has at least 256 bits

_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750 section 2.1, b64token: what a header can carry
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")


# --- kinds of values ---------------------------------------------------------------------------------------


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


def _check_hosts(value: str) -> str:
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


def _check_peer(value: str) -> str:
    try:
        parse_rule(value)
    except BadRule as error:
        raise ValueError(f"takes networks in CIDR form, addresses, or address:port: {error}") from None
    return value


def _check_turn_url(value: str) -> str:
    # RFC 7064 section 3.1 and RFC 7065 section 3.1
    if not re.fullmatch(r"(stuns?:[^\s?,<>\"]+|turns?:[^\s?,<>\"]+(\?transport=(udp|tcp))?)", value):
        raise ValueError(
            "takes stun:, stuns:, turn: or turns: URLs, like turn:relay.example:3478?transport=udp"
        )
    return value


def _no_mask(value: SecretStr) -> SecretStr:
    if value.get_secret_value() == MASK:
        raise ValueError("is the mask that `mosaique config` prints, not a secret")
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
Ports = Annotated[
    range, BeforeValidator(parse_ports), PlainSerializer(lambda ports: f"{ports.start}-{ports.stop - 1}")
]
CommaList = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )


class _Listener(_Section):
    """What listens on ``host``, and what its TLS speaks with."""

    host: str
    tls_cert: Path | None = None
    tls_key: Path | None = None

    _host = field_validator("host")(_check_hosts)

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
    def _both_or_none(self) -> _Listener:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both or neither")
        return self


# --- sections ----------------------------------------------------------------------------------------------


class HttpSettings(_Listener):
    """API, WHIP, WHEP and pages. Port 0 asks the system for a free one (tests)."""

    host: str = "127.0.0.1"
    port: Port = 8080

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach the listener."""
        return all(_is_loopback(host) for host in self.hosts)


class AuthSettings(_Section):
    """Secrets, both generated once when left out. ``open_rooms``: whoever opens a room's page gets a participant's
    token without being invited; left out, that is so for callers on this machine, when ``http.host`` is loopback."""

    admin_token: SecretStr | None = None
    secret: SecretStr | None = None
    open_rooms: bool | None = None

    @field_validator("admin_token")
    @classmethod
    def _admin_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _BEARER.fullmatch(_no_mask(value).get_secret_value()):
            raise ValueError("takes letters, digits and -._~+/ only (RFC 6750 section 2.1)")
        return value

    @field_validator("secret")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(_no_mask(value).get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(
                f"takes at least {MIN_SECRET_BYTES} bytes (RFC 7518 section 3.2), like `openssl rand -hex 32`"
            )
        return value


class MediaSettings(_Section):
    """Where media sockets live. ``public_ip``: the address put in candidates behind 1:1 NAT. ``cpu_cores``: how
    many cores the rooms may use together; none: all that the machine has. ``overload``: act on it (refuse newcomers,
    then give up quality in steps), or only tell of it, where full quality goes before everything.
    """

    public_ip: str | None = None
    host: str = "0.0.0.0"  # noqa: S104 - media must reach callers; every datagram is filtered (webrtc/)
    udp_ports: Ports = range(40000, 41000)
    cpu_cores: Annotated[float, Field(gt=0, le=1024)] | None = None
    overload: Literal["act", "tell"] = "act"

    _host = field_validator("host")(_check_hosts)

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


class RoomsSettings(_Section):
    """``auto_create``: a publisher or a visitor of an unknown room makes it. ``max_participants``: of any room."""

    auto_create: bool = False
    max_participants: Annotated[int, Field(ge=1, le=1000)] = 100


class SipSettings(_Listener):
    """Telephones: UDP and TCP on ``port``, TLS on ``tls_port`` when there is a certificate."""

    enabled: bool = True
    host: str = "0.0.0.0"  # noqa: S104 - trunks and telephones call from outside
    port: Port = 5060
    tls_port: Port = 5061


class TurnSettings(_Listener):
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
        return _check_hosts(value)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The shared secrets, newest first: sign with the first, accept any."""
        text = self.secret.get_secret_value() if self.secret else ""
        return tuple(part.strip() for part in text.split(",") if part.strip())

    @field_validator("secret")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else _no_mask(value)

    @field_validator("urls")
    @classmethod
    def _urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_check_turn_url(url) for url in value)

    @field_validator("allowed_peers")
    @classmethod
    def _allowed_peers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_check_peer(peer) for peer in value)


class ArchiveSettings(_Section):
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
    def _no_mask(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else _no_mask(value)

    @field_validator("sse_c_key", "second_sse_c_key", "encrypt_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            key_bytes(_no_mask(value).get_secret_value())
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


class LogSettings(_Section):
    """``format``: JSON lines, or coloured lines for a person; ``auto`` looks whether standard error is a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(_Section):
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
        """The admin token of a tree that went through ``with_secrets``."""
        return _revealed(self.auth.admin_token, "auth.admin_token")

    @property
    def token_secret(self) -> str:
        """The HS256 key of a tree that went through ``with_secrets``."""
        return _revealed(self.auth.secret, "auth.secret")

    def secret_texts(self) -> tuple[str, ...]:
        """Every secret of the tree, for the log's filter."""
        held = (self.auth.admin_token, self.auth.secret, *self.archive.secrets)
        return (*(value.get_secret_value() for value in held if value is not None), *self.turn.secrets)


def _revealed(value: SecretStr | None, key: str) -> str:
    if value is None:
        raise ConfigError(f"{key} has not been generated yet")
    return value.get_secret_value()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


# --- reading -----------------------------------------------------------------------------------------------

Origins = dict[tuple[str, ...], str]


def load(
    *, file: Path | None = None, environ: Mapping[str, str] | None = None, assignments: Sequence[str] = ()
) -> Settings:
    """The effective tree. ``file``: None reads ``mosaique.toml`` of the working directory if there is one.
    ``assignments``: the ``section.key=value`` of the command line. Raises ``ConfigError``."""
    layers: list[tuple[tuple[str, ...], Any, str]] = []
    layers += _from_file(file)
    layers += _from_environment(os.environ if environ is None else environ)
    layers += _from_assignments(assignments)
    tree: dict[str, Any] = {}
    origins: Origins = {}
    for path, value, origin in layers:
        _put(tree, path, value, origin)
        origins[path] = origin
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from None


def _from_file(file: Path | None) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    path = file or Path(DEFAULT_FILE)
    if file is None and not path.exists():
        return
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config takes a TOML file; {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for key, value in tree.items():
        if isinstance(value, dict):
            for inner, leaf in value.items():
                yield (key, inner), leaf, str(path)
        else:
            yield (key,), value, str(path)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            path = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            yield path, environ[name], f"environment {name}"


def _from_assignments(assignments: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError("--set takes section.key=value, like --set http.port=8081")
        yield tuple(key.strip().split(".")), value, f"--set {key.strip()}"


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any, origin: str) -> None:
    """Set one leaf. A path that the tree cannot hold is as unknown as a name that it does not have."""
    node = tree
    for part in path[:-1]:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(path)}: unknown key ({origin})")
        node = inner
    if isinstance(node.get(path[-1]), dict) or (
        len(path) == 1 and path[0] in _sections() and not isinstance(value, dict)
    ):
        raise ConfigError(f"{path[-1]}: is a section, its keys are {_known(path[-1])} ({origin})")
    node[path[-1]] = value


def _sections() -> dict[str, type[BaseModel]]:
    fields = Settings.model_fields
    return {
        name: field.annotation
        for name, field in fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _known(section: str | None) -> str:
    model = _sections().get(section, Settings) if section else Settings
    return ", ".join(sorted(model.model_fields))


def _explain(error: ValidationError, origins: Origins) -> str:
    """One line a wrong key: the key, what it takes, where the value came from. Never the value: it may be a secret."""
    lines: list[str] = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        path = tuple(str(part) for part in item["loc"])
        if path[-1].startswith("tls_") and path not in origins and path[0] != "http":
            continue  # inherited from http, which says so itself
        origin = next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), None)
        if origin is None:  # a rule of a whole section: say where its keys came from
            origin = (
                ", ".join(sorted({o for p, o in origins.items() if p[: len(path)] == path})) or "defaults"
            )
        if item["type"] == "extra_forbidden":
            section = path[0] if len(path) > 1 else None
            message = f"unknown key; {section or 'the top level'} has {_known(section)}"
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "takes")
        lines.append(f"{'.'.join(path)}: {message} ({origin})")
    return "\n".join(lines)


# --- secrets -----------------------------------------------------------------------------------------------


def make_data_dir(settings: Settings) -> Path:
    """``data_dir``, made 0700 when it is not there. Raises ``ConfigError`` when it cannot be."""
    path = settings.data_dir
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"data_dir: takes a directory to write to; {path}: {error.strerror}") from None
    return path


def with_secrets(settings: Settings) -> Settings:
    """The same tree with the secrets that nobody chose: kept in ``data_dir``, generated at the first start."""
    generated: dict[str, SecretStr] = {}
    if settings.auth.admin_token is None:
        generated["admin_token"] = SecretStr(_kept(make_data_dir(settings) / "admin-token"))
    if settings.auth.secret is None:
        generated["secret"] = SecretStr(_kept(make_data_dir(settings) / "token-secret"))
    update: dict[str, BaseModel] = {}
    if generated:
        update["auth"] = settings.auth.model_copy(update=generated)
    if settings.turn.is_used and not settings.turn.secrets:
        secret = SecretStr(_kept(make_data_dir(settings) / "turn-secret"))
        update["turn"] = settings.turn.model_copy(update={"secret": secret})
    if settings.archive.encrypt and settings.archive.encrypt_key is None:
        key = SecretStr(_kept(make_data_dir(settings) / "archive-encryption-key"))
        update["archive"] = settings.archive.model_copy(update={"encrypt_key": key})
    return settings.model_copy(update=update) if update else settings


def _kept(path: Path) -> str:
    """The secret in ``path``; whoever makes the file first decides what it is, also against a second start."""
    try:
        try:
            return _read_secret(path)
        except FileNotFoundError:
            pass
        # Written aside and linked into place: no reader ever sees a file that is half written.
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return _read_secret(path)
    except OSError as error:
        raise ConfigError(f"data_dir: the secret in {path} cannot be kept: {error.strerror}") from None


def _read_secret(path: Path) -> str:
    secret = path.read_bytes().decode("ascii", "replace").strip()
    if not _BEARER.fullmatch(secret) or len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"data_dir: {path} holds no secret; delete it to have a new one made")
    path.chmod(0o600)
    return secret


# --- printing ----------------------------------------------------------------------------------------------


def to_toml(settings: Settings) -> str:
    """The effective tree as TOML with secrets masked. What is not set is a comment, since TOML has no null."""
    tree = settings.model_dump(mode="json")
    lines = [_toml_line(key, value) for key, value in tree.items() if not isinstance(value, dict)]
    for name, section in tree.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *(_toml_line(key, value) for key, value in section.items())]
    return "\n".join(lines) + "\n"


def _toml_line(key: str, value: Any) -> str:
    if value is None:
        return f"# {key} is not set"
    return f"{key} = {_toml_value(value)}"


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(value).replace("\x7f", "\\u007f")
