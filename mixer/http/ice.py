"""Which STUN and TURN servers a client should use, and with what ephemeral credentials."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from mixer.config import TurnSettings
from mixer.http.auth import VIEWER
from mixer.http.bodies import json_response
from mixer.http.routing import CALLER, OBJECTS, Route, json_answer
from turn import credentials

TTL_S: Final = 6 * 3600  # a long meeting; a client that stays longer asks again when it reconnects


class IceServers:
    """Hands out ``turn.urls`` with credentials made from ``turn.secret``; an empty list when there is no relay."""

    def __init__(self, settings: TurnSettings, *, clock: Callable[[], float] = time.time) -> None:
        active = settings.enabled and settings.mode != "off"
        self._stun = [url for url in settings.urls if url.startswith("stun")]
        self._turn = (
            [url for url in settings.urls if active and url.startswith("turn")] if settings.secrets else []
        )
        self._secret = settings.secrets[0] if settings.secrets else ""
        self._clock = clock

    def servers(self, subject: str) -> list[dict[str, Any]]:
        """The W3C ``RTCIceServer`` dictionaries for one participant."""
        result: list[dict[str, Any]] = [{"urls": [url]} for url in self._stun]
        if self._turn:
            # The name of TURN's user is a colon away from its expiry; nothing after the first colon is parsed.
            made = credentials.issue(subject, self._secret, now_s=self._clock(), ttl_s=TTL_S)
            result.append({"urls": list(self._turn), "username": made.username, "credential": made.password})
        return result

    def links(self, subject: str) -> list[str]:
        """The same as ``Link`` header values (RFC 9725 section 4.6), one a URL."""
        links: list[str] = []
        for server in self.servers(subject):
            for url in server["urls"]:
                link = f'<{url}>; rel="ice-server"'
                if "username" in server:
                    link += (
                        f'; username="{server["username"]}"; credential="{server["credential"]}"'
                        '; credential-type="password"'
                    )
                links.append(link)
        return links

    def routes(self) -> list[Route]:
        """``GET /v1/ice-servers``."""
        return [
            Route(
                "GET", "/v1/ice-servers", self._list, "STUN and TURN servers with ephemeral credentials", "media",
                VIEWER, (json_answer(200, "Servers for an RTCPeerConnection; empty when there is no relay", OBJECTS),),
            ),
        ]  # fmt: skip

    async def _list(self, request: web.Request) -> web.Response:
        return json_response(self.servers(request[CALLER].sub))
