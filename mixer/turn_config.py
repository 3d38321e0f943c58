"""``mosaique turn-config``: coturn's or eturnal's configuration, written from the policy that the embedded relay keeps.

The same secret, realm, ports, quotas, and the same idea of peers: everything is denied but where media live. Neither
relay can be told of rooms while it runs, nor of ports: it may reach the whole of our media addresses, at any port,
whether somebody meets there or not. The output says so.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from mixer import config
from mixer.errors import ConfigError
from mixer.kept_secrets import with_secrets
from mixer.relay_config import relay_addresses, tls_ports
from mixer.settings import Settings
from mixer.version import version
from mixer.webrtc.udp import advertised
from turn import policy
from turn.policy import Network

DENIED: Final[tuple[Network, ...]] = (
    *(ipaddress.ip_network(text) for text in policy.DENIED),
    ipaddress.ip_network(
        "::ffff:0:0:0/96"
    ),  # IPv4-translated, RFC 2765 section 2.1: our own relay looks behind it
)
EVERYTHING: Final[tuple[Network, ...]] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
NONCE_S: Final = 600  # RFC 8656 section 5: a nonce lives for at most an hour; ours, too, for ten minutes
OK: Final = 0
USAGE: Final = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``mosaique turn-config``."""
    parser.description = (
        "Writes the configuration of another relay from this server's own: secret, ports, quotas, and peers closed "
        "but for our media. Set turn.mode and turn.public_host, start that relay with it, then check what it lets "
        "through with `mosaique probe --turn`."
    )
    parser.add_argument("relay", choices=["coturn", "eturnal"])
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write there, mode 0600 (default: print)"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: ./mosaique.toml)")
    parser.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="SECTION.KEY=VALUE",
        help="set one key; may be given several times",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status. Raises ``ConfigError``."""
    settings = config.load(file=args.config, assignments=args.assignments)
    if not settings.turn.is_used:
        raise ConfigError("turn.enabled, turn.mode: the relay is switched off; there is nothing to configure")
    settings = with_secrets(settings)
    text = coturn(settings) if args.relay == "coturn" else eturnal(settings)
    if args.output is None:
        sys.stdout.write(text)
        return OK
    try:
        # It holds the secret: nobody else reads it. Give it to the relay's user.
        descriptor = os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
    except OSError as error:
        sys.stderr.write(f"mosaique turn-config: {args.output} cannot be written: {error.strerror}\n")
        return USAGE
    return OK


# --- the policy ---------------------------------------------------------------------------------------------


def peers(settings: Settings) -> tuple[Network, ...]:
    """What a relay may reach: the addresses of our media, and ``turn.allowed_peers`` without what is always denied.
    A single address there is named exactly, and is allowed as it is; its port, if it has one, is lost."""
    media = [
        ipaddress.ip_network(address)
        for host in settings.media.hosts
        for address in advertised(host, settings.media.public_ip)
    ]
    more = [
        part
        for text in settings.turn.allowed_peers
        for part in _without_denied(policy.parse_rule(text).network)
    ]
    return tuple(dict.fromkeys([*media, *more]))


def _without_denied(network: Network) -> list[Network]:
    if network.num_addresses == 1:
        return [network]
    left: list[Network] = [network]
    for denied in DENIED:
        left = [part for whole in left for part in _minus(whole, denied)]
    return left


def _minus(whole: Network, hole: Network) -> Iterator[Network]:
    if isinstance(whole, ipaddress.IPv4Network) and isinstance(hole, ipaddress.IPv4Network):
        if hole.supernet_of(whole):
            return
        if whole.supernet_of(hole):
            yield from whole.address_exclude(hole)
            return
    if isinstance(whole, ipaddress.IPv6Network) and isinstance(hole, ipaddress.IPv6Network):
        if hole.supernet_of(whole):
            return
        if whole.supernet_of(hole):
            yield from whole.address_exclude(hole)
            return
    yield whole


def _private_and_public(settings: Settings) -> tuple[str, str] | None:
    """The relay's address behind 1:1 NAT, and the one in front of it."""
    public = settings.media.public_ip
    if public is None:
        return None
    version_ = ipaddress.ip_address(public).version
    own = (a for a in relay_addresses(settings) if ipaddress.ip_address(a).version == version_)
    private = next(own, public)
    return None if private == public else (private, public)


# --- coturn -------------------------------------------------------------------------------------------------


def coturn(settings: Settings) -> str:
    """``turnserver.conf`` for coturn 4.6 and later."""
    turn = settings.turn
    lines = [
        *_head("coturn", "turnserver -c FILE"),
        "# coturn before 4.17 has known holes in its checks of peers; this file closes those that a file can close.",
        "",
        "use-auth-secret",
        *(f"static-auth-secret={secret}" for secret in turn.secrets),
        f"realm={turn.realm}",
        f"stale-nonce={NONCE_S}",
        "fingerprint",
        "",
        *(f"listening-ip={host}" for host in turn.hosts),
        f"listening-port={turn.port}",
        *(f"relay-ip={address}" for address in relay_addresses(settings)),
        f"min-port={turn.relay_ports.start}",
        f"max-port={turn.relay_ports.stop - 1}",
    ]
    if (pair := _private_and_public(settings)) is not None:
        lines.append(f"external-ip={pair[1]}/{pair[0]}")
    lines += ["", *_coturn_tls(settings), "", *_coturn_limits(settings), ""]
    lines += [
        "# Peers: all denied, then what is always denied (in case you open the first), then what is allowed."
    ]
    lines += [f"denied-peer-ip={_range(network)}" for network in (*EVERYTHING, *DENIED)]
    lines += [f"allowed-peer-ip={_range(network)}" for network in peers(settings)]
    if any(network.is_loopback for network in peers(settings)):
        lines += [
            "# Media live on the loopback of this machine, which coturn refuses unless told otherwise.",
            "allow-loopback-peers",
        ]
    return "\n".join(lines) + "\n"


def _coturn_tls(settings: Settings) -> list[str]:
    turn = settings.turn
    if turn.tls_cert is None:
        return ["# no TLS: set turn.tls_cert and turn.tls_key, or those of http", "no-tls", "no-dtls"]
    lines = [f"cert={turn.tls_cert.resolve()}", f"pkey={turn.tls_key.resolve()}" if turn.tls_key else ""]
    ports = tls_ports(turn)
    lines.append(f"tls-listening-port={ports[-1]}")
    if len(ports) > 1:
        lines.append(
            f"# 443 in place of {turn.tls_port}: coturn has one TLS port. As a service it may bind it."
        )
    return [*lines, "no-dtls"]


def _coturn_limits(settings: Settings) -> list[str]:
    turn = settings.turn
    return [
        f"user-quota={turn.user_quota}",
        f"total-quota={turn.max_allocations}",
        f"max-bps={turn.max_kbps * 1000 // 8}",
        "# bytes a second, each way, of one allocation",
        "no-cli",
        "no-multicast-peers",
        "no-tcp-relay",
        "no-rfc5780",
        "no-software-attribute",
        "no-stdout-log",
        "syslog",
    ]


def _range(network: Network) -> str:
    if network.num_addresses == 1:
        return str(network.network_address)
    return f"{network.network_address}-{network.broadcast_address}"


# --- eturnal ------------------------------------------------------------------------------------------------


def eturnal(settings: Settings) -> str:
    """``eturnal.yml`` for eturnal 1.11 and later."""
    turn = settings.turn
    lines = [*_head("eturnal", "/etc/eturnal.yml"), "eturnal:"]
    lines += ["  secret:", *(f"    - {_quoted(secret)}" for secret in turn.secrets)]
    lines += [f"  realm: {_quoted(turn.realm)}", "  software_name: none", "  strict_expiry: true"]
    lines += ["  listen:"]
    listeners = [(turn.port, "udp"), (turn.port, "tcp"), *((port, "tls") for port in tls_ports(turn))]
    for host in turn.hosts:
        for port, transport in listeners:
            lines += [f"    - ip: {_quoted(host)}", f"      port: {port}", f"      transport: {transport}"]
    if turn.tls_cert is not None and turn.tls_key is not None:
        lines += [f"  tls_crt_file: {_quoted(str(turn.tls_cert.resolve()))}"]
        lines += [f"  tls_key_file: {_quoted(str(turn.tls_key.resolve()))}"]
    lines += _eturnal_relay(settings)
    lines += [
        f"  max_allocations: {turn.user_quota}",
        "  max_permissions: 16",
        f"  max_bps: {turn.max_kbps * 1000 // 8}  # bytes a second",
        "  # Peers: all denied, then what is always denied (in case you open the first), then what is allowed.",
        "  blacklist_peers:",
        *(f"    - {_quoted(str(network))}" for network in (*EVERYTHING, *DENIED)),
        "  whitelist_peers:",
        *(f"    - {_quoted(str(network))}" for network in peers(settings)),
        "  log_level: notice",
        "  log_dir: stdout",
    ]
    return "\n".join(lines) + "\n"


def _eturnal_relay(settings: Settings) -> list[str]:
    turn = settings.turn
    pair = _private_and_public(settings)
    lines: list[str] = []
    for family in (4, 6):
        own = (a for a in relay_addresses(settings) if ipaddress.ip_address(a).version == family)
        address = next(own, None)
        if pair is not None and address == pair[0]:
            address = pair[1]  # eturnal wants the address that clients see
        lines.append(f"  relay_ipv{family}_addr: {_quoted(address) if address else 'none'}")
    return [
        *lines,
        f"  relay_min_port: {max(turn.relay_ports.start, 1025)}",
        f"  relay_max_port: {turn.relay_ports.stop - 1}",
    ]


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar (YAML 1.2 section 7.3.1)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _head(relay: str, usage: str) -> Iterable[str]:
    return (
        f"# {relay}, configured by mosaique {version()} (`mosaique turn-config {relay}`): {usage}",
        "# It holds the secret of the relay's credentials: keep it from other users.",
        "# This relay cannot follow the rooms: it reaches our media addresses at every port, where the embedded one",
        "# reaches the sockets of live rooms only. Let a firewall keep it to media.udp_ports.",
    )
