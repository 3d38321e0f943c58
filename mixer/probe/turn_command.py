"""``mosaique probe --turn``: which relay, with what credentials, and the report."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import ipaddress
import json
import os
import ssl
import sys
from pathlib import Path
from typing import Any, Final

import aiohttp

from mixer.errors import ConfigError
from mixer.probe.turn_checks import Finding, Subject
from mixer.probe.turn_client import Login
from mixer.probe.turn_run import Report, examine
from mixer.probe.turn_wire import Target, parse_url
from turn.policy import Network

OWN: Final = "own"  # --turn without a URL
SECRET: Final = "MOSAIQUE_TURN__SECRET"  # noqa: S105 - a variable's name
EXIT_SOUND: Final = 0
EXIT_NOT: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the relay's probe."""
    group = parser.add_argument_group(
        "relay", "instead of callers: what a TURN relay does, and what it lets through"
    )
    group.add_argument(
        "--turn",
        nargs="?",
        const=OWN,
        metavar="URL",
        help="probe this relay (turn:HOST:PORT?transport=udp, turns:…); without URL those that --url hands out",
    )
    group.add_argument(
        "--secret-file",
        type=Path,
        metavar="FILE",
        help=f"its REST secret, the first line (default: ${SECRET}); makes expired names possible, too",
    )
    group.add_argument(
        "--secret", metavar="SECRET", help="the same on the command line, which others can read"
    )
    group.add_argument("--user", metavar="NAME", help="its user name, in place of a secret")
    group.add_argument("--password", metavar="PASSWORD", help="of --user (default: $MOSAIQUE_TURN_PASSWORD)")
    group.add_argument("--ca", type=Path, metavar="FILE", help="PEM of the authority of its certificate")
    group.add_argument(
        "--allow-peer",
        action="append",
        default=[],
        metavar="CIDR",
        help="it is meant to reach these: where media live, turn.allowed_peers (may be given several times)",
    )


def run(args: argparse.Namespace) -> int:
    """Probe; returns the exit status. Raises ``ConfigError`` for arguments that make no sense."""
    allowed = [_network(text) for text in args.allow_peer]
    trust = None if args.ca is None else _trust(args.ca)
    if args.turn == OWN:
        subjects = asyncio.run(_own(args.url, args.token, allowed, trust))
    else:
        subjects = [_given(args, parse_url(args.turn), allowed, trust)]
    reports: list[Report] = []
    unreachable = False
    for subject in subjects:
        sys.stderr.write(f"probe: asking {subject.target} …\n")
        try:
            reports.append(asyncio.run(examine(subject)))
        except OSError as error:
            unreachable = True
            sys.stderr.write(f"probe: {subject.target}: {_words(error)}\n")
    if args.json:
        sys.stdout.write(json.dumps([as_json(report) for report in reports], indent=2) + "\n")
    else:
        sys.stdout.write("\n\n".join(as_table(report) for report in reports) + "\n" if reports else "")
    return EXIT_SOUND if not unreachable and all(report.is_sound for report in reports) else EXIT_NOT


# --- whom to ask --------------------------------------------------------------------------------------------


def _given(
    args: argparse.Namespace, target: Target, allowed: list[Network], trust: ssl.SSLContext | None
) -> Subject:
    secret = args.secret or _secret(args.secret_file)
    if args.user is not None:
        password = args.password or os.environ.get("MOSAIQUE_TURN_PASSWORD")
        if not password:
            raise ConfigError("--user takes --password as well, or $MOSAIQUE_TURN_PASSWORD")
        return Subject(target, login=Login(args.user, password), allowed=allowed, trust=trust)
    if secret is None:
        raise ConfigError(f"--turn URL takes --secret, --secret-file, ${SECRET}, or --user and --password")
    return Subject(target, secret=secret, allowed=allowed, trust=trust)


def _secret(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(SECRET, "").partition(",")[0].strip() or None
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0].strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--secret-file takes a text file; {file}: {error}") from None


async def _own(
    url: str, token: str | None, allowed: list[Network], trust: ssl.SSLContext | None
) -> list[Subject]:
    """What the server of ``url`` hands out to somebody with ``token``."""
    if token is None:
        raise ConfigError(
            "--turn without a URL asks the server of --url, which takes --token or $MOSAIQUE_TOKEN"
        )
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.get(url.rstrip("/") + "/v1/ice-servers") as response,
        ):
            response.raise_for_status()
            servers: list[dict[str, Any]] = await response.json()
    except aiohttp.ClientError as error:
        raise ConfigError(f"--url: {url} hands out no servers: {error}") from None
    subjects = [
        Subject(
            parse_url(text),
            login=Login(server["username"], server["credential"]),
            allowed=allowed,
            trust=trust,
        )
        for server in servers
        for text in server["urls"]
        if text.startswith("turn")
    ]
    if not subjects:
        raise ConfigError(f"--url: {url} hands out no relay; is turn.mode off?")
    return subjects


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"--allow-peer takes an address or a network in CIDR form: {error}") from None


def _trust(file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--ca takes a PEM file; {file}: {error}") from None


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); --ca names an authority"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror or str(error) or type(error).__name__


# --- the report ---------------------------------------------------------------------------------------------

_MARKS: Final = {"ok": "ok", "failed": "FAILED", "open": "OPEN", "skipped": "-", "note": "note"}


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "url": report.url,
        "software": report.software,
        "sound": report.is_sound,
        "forbidden_peers_asked": report.peers,
        "open": [f.name for f in report.findings if f.verdict == "open"],
        "failed": [f.name for f in report.findings if f.verdict == "failed"],
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
    }


def as_table(report: Report) -> str:
    """The report for a person, without a final newline. Peers that are refused alike share a line."""
    lines = [f"{report.url}{f' ({report.software})' if report.software else ''}"]
    peers = [f for f in report.findings if f.name.startswith("peer ")]
    lines += [_row(f) for f in report.findings if f not in peers]
    refused = [f for f in peers if f.verdict == "ok"]
    lines.append(_row(Finding("forbidden peers refused", "", "ok", f"{len(refused)} of {len(peers)}")))
    lines += [_row(f, with_source=True) for f in peers if f.verdict != "ok"]
    open_ = sum(f.verdict == "open" for f in report.findings)
    failed = sum(f.verdict == "failed" for f in report.findings)
    lines.append("sound" if report.is_sound else f"NOT sound: {open_} open, {failed} failed")
    return "\n".join(lines)


def _row(finding: Finding, *, with_source: bool = False) -> str:
    source = f" ({finding.source})" if with_source and finding.source else ""
    return f"  {_MARKS[finding.verdict]:<7} {finding.name:<46} {finding.detail}{source}".rstrip()
