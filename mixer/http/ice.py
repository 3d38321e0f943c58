"""Which STUN and TURN servers a client should use, and with what ephemeral credentials."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from aiohttp import web

from mixer.http.auth import VIEWER
from mixer.http.bodies import json_response
from mixer.http.routing import CALLER, Route, json_answer
from mixer.relay import Listening, Relay
from mixer.relay_book import RelayBook
from mixer.relay_config import tls_ports
from mixer.sessions import Caller
from mixer.settings import Settings, TurnSettings
from turn import credentials

SERVERS: Final = {  # W3C WebRTC section 4.2.4: RTCIceServer
    "type": "array",
    "items": {
        "type": "object",
        "required": ["urls"],
        "properties": {
            "urls": {"type": "array", "items": {"type": "string"}, "description": "RFC 7064, RFC 7065"},
            "username": {"type": "string", "description": "Unix time of expiry, colon, whom it is for"},
            "credential": {"type": "string"},
        },
    },
}

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]")
# What stands in a URI's host (RFC 3986 section 3.2.2), without escapes; a zone has no meaning to somebody else.


class IceServers:
    """Hands out the relay's URLs with credentials for the caller; an empty list when there is no relay.

    ``turn.urls`` if they are given. Else those that follow from what listens: what ``relay`` does if it is our own,
    the configured ports if it is another one, at ``turn.public_host``, ``media.public_ip``, or the host that the caller
    asked. ``clock``: Unix seconds. ``monotonic``: of the book.
    """

    def __init__(
        self,
        settings: Settings,
        relay: Relay | None,
        book: RelayBook,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        turn = settings.turn
        self._settings = turn
        self._stun = [url for url in turn.urls if url.startswith("stun")]
        self._turn = [url for url in turn.urls if url.startswith("turn")]
        self._relay = relay
        self._host = turn.public_host or settings.media.public_ip
        self._book = book
        self._clock = clock
        self._monotonic = monotonic

    def servers(self, subject: str, asked_host: str) -> list[dict[str, Any]]:
        """The W3C ``RTCIceServer`` dictionaries for one subject. ``asked_host``: of the request, with its port."""
        result: list[dict[str, Any]] = [{"urls": [url]} for url in self._stun]
        urls = self._urls(asked_host)
        if urls:
            # The name of TURN's user is a colon away from its expiry; nothing after the first colon is parsed.
            now_s = self._clock()
            ttl_s = self._book.expiry(subject, now_s) - int(now_s)
            made = credentials.issue(subject, self._settings.secrets[0], now_s=now_s, ttl_s=ttl_s)
            result.append({"urls": urls, "username": made.username, "credential": made.password})
        return result

    def servers_for(self, request: web.Request, caller: Caller) -> list[dict[str, Any]]:
        """The same for somebody who has no session yet. The allocation's subject is the participant's id, which the
        admin token has none of: each of its callers gets one of its own, and a quota of its own with it."""
        if caller.is_service:
            return self.servers(f"{caller.sub}-{secrets.token_hex(4)}", request.host)
        found = self.servers(caller.sub, request.host)
        self._book.issued(caller.sub, self._monotonic())
        return found

    def routes(self) -> list[Route]:
        """``GET /v1/ice-servers``."""
        return [
            Route(
                "GET", "/v1/ice-servers", self._list, "STUN and TURN servers with ephemeral credentials", "media",
                VIEWER, (json_answer(200, "Servers for an RTCPeerConnection; empty when there is no relay", SERVERS),),
            ),
        ]  # fmt: skip

    async def _list(self, request: web.Request) -> web.Response:
        return json_response(self.servers_for(request, request[CALLER]))

    def _urls(self, asked_host: str) -> list[str]:
        if not self._settings.is_used or not self._settings.secrets:
            return []
        if self._settings.urls:
            return list(self._turn)
        host = _bracketed(self._host) if self._host else _without_port(asked_host)
        if not _HOST.fullmatch(host):
            return []
        if self._settings.is_embedded:
            return turn_urls(host, self._relay.listening if self._relay is not None else ())
        return turn_urls(host, _configured(self._settings))


def links(servers: Iterable[dict[str, Any]]) -> list[str]:
    """``RTCIceServer`` dictionaries as ``Link`` header values (RFC 9725 section 4.6), one a URL."""
    found: list[str] = []
    for server in servers:
        for url in server["urls"]:
            link = f'<{url}>; rel="ice-server"'
            if "username" in server:
                link += (
                    f'; username="{server["username"]}"; credential="{server["credential"]}"'
                    '; credential-type="password"'
                )
            found.append(link)
    return found


def turn_urls(host: str, listening: Iterable[Listening]) -> list[str]:
    """One URL (RFC 7065) a way in, UDP first, TLS last: what costs least comes first, what passes most firewalls is
    there too. Of several TLS ports the lowest, 443 if it is one: a browser allocates by each URL it is given.
    """
    ports: dict[str, int] = {}
    for kind, _, port in listening:
        if kind not in ports or port < ports[kind]:
            ports[kind] = port
    ways = (("udp", "turn", "udp"), ("tcp", "turn", "tcp"), ("tls", "turns", "tcp"))
    return [
        f"{scheme}:{host}:{ports[kind]}?transport={transport}"
        for kind, scheme, transport in ways
        if kind in ports
    ]


def _configured(turn: TurnSettings) -> list[Listening]:
    """Where a relay listens that runs with what ``mosaique turn-config`` wrote."""
    return [
        ("udp", turn.host, turn.port),
        ("tcp", turn.host, turn.port),
        *(("tls", turn.host, port) for port in tls_ports(turn)),
    ]


def _without_port(authority: str) -> str:
    return re.sub(r":[0-9]*$", "", authority)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
