"""What the embedded relay is told at its start, made from the configuration, and whether its ports are free."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import Any, Final

import structlog

from mixer.errors import ConfigError
from mixer.settings import Settings, TurnSettings
from mixer.webrtc.udp import advertised

log = structlog.get_logger(__name__)

PORT_443: Final = 443


def configuration(settings: Settings) -> dict[str, Any]:
    """The JSON object that ``python -m turn --config -`` reads; absent is what is not set."""
    turn = settings.turn
    wanted: dict[str, Any] = {
        "listen": [_authority(host, turn.port) for host in turn.hosts],
        "relay_address": list(relay_addresses(settings)),
        "relay_ports": f"{turn.relay_ports.start}-{turn.relay_ports.stop - 1}",
        "realm": turn.realm,
        "secrets": list(turn.secrets),
        "allow_peer": list(turn.allowed_peers),
        "max_allocations": turn.max_allocations,
        "user_quota": turn.user_quota,
        "bandwidth": turn.max_kbps,
    }
    if settings.media.public_ip is not None:
        wanted["public_ip"] = settings.media.public_ip
    if turn.tls_cert is not None:
        wanted["tls_listen"] = [_authority(host, port) for port in tls_ports(turn) for host in turn.hosts]
        wanted["tls_cert"], wanted["tls_key"] = str(turn.tls_cert), str(turn.tls_key)
    return wanted


def tls_ports(turn: TurnSettings) -> tuple[int, ...]:
    """Where TLS is spoken; nowhere without a certificate."""
    if turn.tls_cert is None:
        return ()
    return (turn.tls_port, PORT_443) if turn.tls_443 else (turn.tls_port,)


def relay_addresses(settings: Settings) -> tuple[str, ...]:
    """The addresses that allocations are made on: one a family, of this machine. A relay that listens everywhere
    relays from where the default route leaves, or from the loopback where media stay there."""
    found: dict[int, str] = {}
    for host in (*settings.turn.hosts, *settings.media.hosts):
        for address in advertised(host, None):
            found.setdefault(ipaddress.ip_address(address).version, address)
    return tuple(found.values())


def free_ports(settings: Settings) -> Settings:
    """The same tree when the relay can have its ports, raises ``ConfigError`` naming key and port when not. Port 443
    is a privileged one: where it may not be had, the relay does without and the log says so.
    """
    turn = settings.turn
    for host in turn.hosts:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ConfigError(f"turn.host: takes IP addresses; {host!r} is none") from None
        _check(host, turn.port, socket.SOCK_DGRAM, "turn.port")
        _check(host, turn.port, socket.SOCK_STREAM, "turn.port")
        if turn.tls_cert is not None:
            _check(host, turn.tls_port, socket.SOCK_STREAM, "turn.tls_port")
    if turn.tls_443 and turn.tls_cert is None:
        raise ConfigError(
            "turn.tls_443: takes turn.tls_cert and turn.tls_key, or http.tls_cert and http.tls_key"
        )
    if turn.tls_443:
        try:
            for host in turn.hosts:
                _check(host, PORT_443, socket.SOCK_STREAM, "turn.tls_443")
        except PermissionError:
            log.warning(
                "relay.no_443",
                reason="this user may not bind port 443; grant CAP_NET_BIND_SERVICE, or forward it to turn.tls_port",
            )
            return settings.model_copy(update={"turn": turn.model_copy(update={"tls_443": False})})
    return settings


def _check(host: str, port: int, kind: socket.SocketKind, key: str) -> None:
    """Bind once and let go. Raises ``ConfigError``, or ``PermissionError`` for a privileged port."""
    with contextlib.ExitStack() as stack:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            probe = stack.enter_context(socket.socket(family, kind))
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:  # connections of a relay that just ended do not count
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except PermissionError:
            if key == "turn.tls_443":
                raise
            raise ConfigError(f"{key}: this user may not bind port {port}; take one above 1023") from None
        except OSError as error:
            words = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
            raise ConfigError(
                f"turn.host, {key}: the relay cannot have {words} port {port} on {host}: {error.strerror}; "
                "end what holds it, set another one, or turn.mode=off for no relay"
            ) from None


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
