"""``python -m turn``: the relay alone, or as a child of ``mosaique serve``."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Sequence
from typing import Any

from turn.service import run
from turn.settings import BadSettings, Settings, parse_settings

USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """0 after a drain, 1 when a socket cannot be had, 2 when it was asked for something that cannot be."""
    args = vars(_parser().parse_args(argv))
    control_fd = args.pop("control_fd")
    from_stdin = args.pop("config") is not None
    try:
        settings = _settings_of(args, from_stdin=from_stdin)
        control = None if control_fd is None else socket.socket(fileno=control_fd)
    except (BadSettings, OSError) as error:
        print(f"turn: {error}", file=sys.stderr)
        return USAGE
    return run(settings, control)


def _settings_of(args: dict[str, Any], *, from_stdin: bool) -> Settings:
    if not from_stdin:
        return parse_settings(args)
    try:
        body = json.load(sys.stdin)
    except ValueError:
        raise BadSettings("--config - reads one JSON object from standard input") from None
    if not isinstance(body, dict):
        raise BadSettings("--config - reads one JSON object from standard input")
    return parse_settings(body)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m turn", description="A TURN relay (RFC 8656, RFC 8489), closed by default."
    )
    many: dict[str, Any] = {"action": "append"}
    parser.add_argument("--listen", metavar="HOST:PORT", **many, help="UDP and TCP; again for more")
    parser.add_argument(
        "--tls-listen", metavar="HOST:PORT", **many, help="TLS; again for more (443 gets through most)"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="PEM, with its chain")
    parser.add_argument("--tls-key", metavar="FILE", help="PEM")
    parser.add_argument(
        "--relay-address", metavar="IP", **many, help="where relayed sockets are bound; one a family"
    )
    parser.add_argument("--public-ip", metavar="IP", help="told to clients instead (1:1 NAT)")
    parser.add_argument(
        "--relay-ports", metavar="A-B", help="ports of relayed sockets (default: 49152-65535)"
    )
    parser.add_argument("--realm", help="default: mosaique")
    parser.add_argument("--secret-file", metavar="FILE", help="one secret a line; read again on SIGHUP")
    parser.add_argument("--allow-peer", metavar="PEER", **many, help="CIDR, IP or IP:PORT; default: nobody")
    parser.add_argument("--max-allocations", metavar="N", help="in all (default: 500)")
    parser.add_argument("--user-quota", metavar="N", help="allocations a user (default: 8)")
    parser.add_argument("--bandwidth", metavar="KBPS", help="an allocation, each way (default: 4000)")
    parser.add_argument("--metrics-port", metavar="PORT", help="Prometheus on 127.0.0.1")
    parser.add_argument(
        "--config", choices=["-"], help="read all of this as one JSON object from standard input"
    )
    parser.add_argument(
        "--control-fd", metavar="N", type=int, help="inherited SOCK_STREAM socketpair to the parent"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
