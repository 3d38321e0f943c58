"""A boto3 client that goes to one endpoint and nowhere else.

boto3 follows what a store answers: a region redirect leads it to another host, a name that is looked up again
to another address. So requests leave through our own session: each request's host must be the endpoint's,
and each connection looks the name up, has the addresses checked by the jurisdiction guard, and connects to
one of those.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSPreparedRequest,
    AWSResponse,
)
from botocore.config import Config
from botocore.exceptions import HTTPClientError
from botocore.httpsession import URLLib3Session
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from recording.endpoint import resolve
from recording.errors import EndpointRefused
from recording.providers import Jurisdiction, check_host

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = (
    60.0  # between two pieces of an answer; completing 1,000 parts takes some stores half a minute
)
_POOL: Final = 10  # connections kept: a few readers, the read-back's two


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How to reach a bucket. ``endpoint``: ``https://HOST[:PORT]``. ``ca_file``: PEM of whoever vouches for it, when
    that is nobody that the world knows. ``attempts``: of each request, retries included;
    above that there is the uploader's own patience."""

    endpoint: str
    region: str
    access_key: str
    secret_key: str
    jurisdiction: Jurisdiction = "eu"
    path_style: bool = True
    ca_file: str = ""
    attempts: int = 8
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    read_timeout_s: float = READ_TIMEOUT_S

    @property
    def host(self) -> str:
        """The endpoint's host, without its port."""
        return urlsplit(self.endpoint).hostname or ""

    def __repr__(self) -> str:
        return f"S3Access({self.endpoint}, {self.region})"  # no keys in a traceback


def make_client(access: S3Access) -> Any:
    """A boto3 S3 client (safe in threads). Raises `EndpointRefused` by the endpoint's name; by its address, each
    call does."""
    check_host(access.host, access.jurisdiction)
    session = boto3.session.Session(
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name=access.region,
    )
    config = Config(
        signature_version="s3v4",
        s3={
            "addressing_style": "path" if access.path_style else "virtual",
            "payload_signing_enabled": True,  # also over TLS: the store checks the body that it got
        },
        request_checksum_calculation="when_required",  # the default sends trailers that several stores refuse
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": access.attempts},
        connect_timeout=access.connect_timeout_s,
        read_timeout=access.read_timeout_s,
        max_pool_connections=_POOL,
    )
    client = session.client("s3", endpoint_url=access.endpoint, config=config)
    # botocore takes the answer of a "before-send" handler for the store's: the request goes out through us.
    client.meta.events.register("before-send.s3", _Door(access).send)
    client.meta.events.register_first("needs-retry.s3", _stay)
    return client


def _stay(request_dict: dict[str, Any], **_: object) -> None:
    """Tell botocore that it has followed a region redirect already: it asks the store where the bucket is, which a
    store that always redirects makes endless, and would send the request there."""
    request_dict.get("context", {}).setdefault("s3_redirect", {})["redirected"] = True


class _Door:
    """Sends botocore's requests to the endpoint of ``access``, and refuses every other."""

    def __init__(self, access: S3Access) -> None:
        self._access = access
        # No proxies, whatever the environment says: a request must not reach a host that was not checked.
        self._session = URLLib3Session(
            verify=access.ca_file or True,
            timeout=(access.connect_timeout_s, access.read_timeout_s),
            max_pool_connections=_POOL,
        )
        http, https = _pools(self._checked)
        self._session._manager.pool_classes_by_scheme = {"http": http, "https": https}

    def send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        host = (urlsplit(request.url).hostname or "").lower()
        if host != self._access.host and not host.endswith("." + self._access.host):
            raise EndpointRefused(
                host, f"{self._access.host} sent us there; only that endpoint is configured"
            )
        try:
            return self._session.send(request)
        except HTTPClientError as error:
            refused = error.kwargs.get("error")
            raise refused if isinstance(refused, EndpointRefused) else error from None

    def _checked(self, host: str, port: int) -> list[str]:
        return resolve(host, port, self._access.jurisdiction)


def _pools(
    checked: Callable[[str, int], list[str]],
) -> tuple[type[AWSHTTPConnectionPool], type[AWSHTTPSConnectionPool]]:
    """Connection pools whose connections go only to addresses that ``checked`` let pass."""

    class Plain(AWSHTTPConnection):  # type: ignore[misc]  # botocore has no types
        def _new_conn(self) -> socket.socket:
            return _connect(self, checked)

    class Secure(AWSHTTPSConnection):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            return _connect(self, checked)

    class PlainPool(AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = Plain

    class SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = Secure

    return PlainPool, SecurePool


def _connect(connection: Any, checked: Callable[[str, int], list[str]]) -> socket.socket:
    """urllib3's own step from a name to a socket, with the check in between."""
    last: OSError | None = None
    try:
        addresses = checked(connection.host, connection.port)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    for address in addresses:
        try:
            made = socket.create_connection((address, connection.port), connection.timeout)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            last = error
        else:
            return made
    if isinstance(last, TimeoutError):
        raise ConnectTimeoutError(connection, f"no answer from {connection.host}") from last
    raise NewConnectionError(connection, f"no connection to {connection.host}: {last}") from last
