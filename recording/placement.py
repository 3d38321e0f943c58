"""Where archives go: what the configuration says, checked and completed from the providers' table. Pure.

A `Place` is all that `recording.stores` needs to open a store; it travels to the archiver's process as JSON
through a pipe, because it holds keys.
"""

from __future__ import annotations

import base64
import re
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer

from recording.errors import UnsafePath
from recording.keys import safe_key
from recording.providers import PROVIDERS, Jurisdiction, Provider, check_host, describe, european

LockMode = Literal["GOVERNANCE", "COMPLIANCE"]
KEY_BYTES: Final = 32  # AES-256, for SSE-C and for our own encryption
_ENDPOINT: Final = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?", re.ASCII)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)


class BadPlace(ValueError):
    """A setting that cannot be; ``field`` is its name in the ``archive`` section."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Place(BaseModel):
    """One store: a folder (``folder``), or a bucket. Keys are base64 of 32 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    folder: str = ""
    bucket: str = ""
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    access_key: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")
    jurisdiction: Jurisdiction = "eu"
    path_style: bool = True
    lock_mode: LockMode = "GOVERNANCE"
    ca_file: str = ""
    sse_c_key: SecretStr | None = None
    encrypt_key: SecretStr | None = None

    @field_serializer("access_key", "secret_key", "sse_c_key", "encrypt_key", when_used="json")
    def _revealed(self, value: SecretStr | None) -> str | None:
        """In JSON, which goes through a pipe and nowhere else."""
        return None if value is None else value.get_secret_value()

    @property
    def where(self) -> str:
        """For a person: the folder, or host and bucket."""
        return self.folder or f"{urlsplit(self.endpoint).hostname}/{self.bucket}"


class Places(BaseModel):
    """The archive, and its second copy's store when there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    first: Place
    second: Place | None = Field(default=None)


def key_bytes(text: str) -> bytes:
    """A key as the configuration has it, base64 (plain or URL-safe) of 32 bytes. Raises ValueError."""
    try:
        key = base64.b64decode(
            text.strip().rstrip("=").replace("-", "+").replace("_", "/") + "=", validate=True
        )
    except ValueError:  # binascii.Error is one
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError("takes base64 of 32 bytes, like `openssl rand -base64 32` prints")
    return key


def folder_of(url: str) -> str:
    """The folder of a ``file:`` URL (relative, absolute, ``file:///…``) or of a plain path. Raises BadPlace."""
    if not url.startswith("file:"):
        return url
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path or "\0" in url:
        raise BadPlace("url", "a file: archive names a folder on this machine, as in file:./var/archive")
    return unquote(parts.path)


def place(
    url: str,
    *,
    provider: str | None = None,
    endpoint: str | None = None,
    region: str | None = None,
    access_key: SecretStr | None = None,
    secret_key: SecretStr | None = None,
    jurisdiction: Jurisdiction = "eu",
    lock_mode: LockMode = "GOVERNANCE",
    ca_file: str = "",
    sse_c_key: SecretStr | None = None,
    encrypt_key: SecretStr | None = None,
) -> Place:
    """The store that these settings mean. Raises `BadPlace` naming the setting, `EndpointRefused`."""
    scheme, colon, _ = url.partition("://")
    if not colon or scheme == "file":
        if sse_c_key is not None:
            raise BadPlace("sse_c_key", "is for a bucket: with a folder, archive.encrypt encrypts")
        return Place(folder=folder_of(url), encrypt_key=encrypt_key)
    if scheme != "s3":
        raise BadPlace("url", f"{scheme}: is not a kind of archive; takes file:PATH or s3://BUCKET/PREFIX")
    bucket, prefix = _bucket(url)
    known = _provider(provider)
    host_url, region = _endpoint(known, endpoint, region)
    host = urlsplit(host_url).hostname or ""
    check_host(host, jurisdiction)
    known = known or european(host)
    pair = {"access_key": access_key or SecretStr(""), "secret_key": secret_key or SecretStr("")}
    for field, value in pair.items():
        if not value.get_secret_value():
            raise BadPlace(field, "is needed for an s3:// archive: the provider gives the pair")
    if known and sse_c_key is not None and not (known.sse_c or known.self_hosted):
        raise BadPlace(
            "sse_c_key", f"{known.title} does not encrypt with keys of its customers; archive.encrypt does"
        )
    return Place(
        bucket=bucket, prefix=prefix, endpoint=host_url, region=region,
        access_key=pair["access_key"], secret_key=pair["secret_key"],
        jurisdiction=jurisdiction, path_style=known.path_style if known else True,
        lock_mode="COMPLIANCE" if known and known.only_compliance else lock_mode, ca_file=ca_file, sse_c_key=sse_c_key,
        encrypt_key=encrypt_key,
    )  # fmt: skip


def _bucket(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise BadPlace("url", "takes s3://BUCKET/PREFIX, the bucket in lower case (3 to 63 of a-z 0-9 . -)")
    prefix = prefix.strip("/")
    try:
        return bucket, safe_key(prefix) if prefix else ""
    except UnsafePath:
        raise BadPlace("url", "the prefix is made of letters, digits, '.', '_', '-' and '/'") from None


def _provider(name: str | None) -> Provider | None:
    if name is None:
        return None
    if name not in PROVIDERS:
        raise BadPlace("provider", f"takes one of {describe()}; or leave it out and set endpoint and region")
    return PROVIDERS[name]


def _endpoint(provider: Provider | None, endpoint: str | None, region: str | None) -> tuple[str, str]:
    """Endpoint URL and region, each from the setting or from the provider's row."""
    if provider is None and endpoint is None:
        raise BadPlace("provider", f"an s3:// archive needs one of {describe()}; or endpoint and region")
    if region is None:
        if provider is None:
            raise BadPlace(
                "region", "is needed beside an endpoint without a provider: the provider's page has it"
            )
        region = provider.regions[0]
    elif provider is not None and provider.endpoint and endpoint is None and region not in provider.regions:
        raise BadPlace("region", f"{provider.title} takes one of {', '.join(provider.regions)}")
    if endpoint is None:
        assert provider is not None  # noqa: S101 - said above
        if not provider.endpoint:
            raise BadPlace("endpoint", f"{provider.title} needs it: {provider.note or 'https://HOST[:PORT]'}")
        return f"https://{provider.host(region)}", region
    return _endpoint_url(provider, endpoint), region


def _endpoint_url(provider: Provider | None, endpoint: str) -> str:
    url = endpoint if "://" in endpoint else f"https://{endpoint}"
    if not _ENDPOINT.fullmatch(url):
        raise BadPlace("endpoint", "takes https://HOST[:PORT], nothing behind it")
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and european(host):
        raise BadPlace("endpoint", "takes https:// for a provider; http:// is for a store on this machine")
    if provider is not None and not provider.self_hosted and european(host) is not provider:
        raise BadPlace("endpoint", f"{host} is not one of {provider.title}; correct it or archive.provider")
    return f"{parts.scheme}://{parts.netloc}"
