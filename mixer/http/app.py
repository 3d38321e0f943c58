"""The HTTP application: every route table together, behind the same guards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from mixer.http import docs, openapi
from mixer.http.auth import Authenticator
from mixer.http.bodies import MAX_JSON_BYTES
from mixer.http.custody import CustodyRoutes
from mixer.http.events import HEARTBEAT_S, EventRoutes
from mixer.http.holdings import Desk
from mixer.http.ice import IceServers
from mixer.http.join import JoinRoutes
from mixer.http.layouts import LayoutRoutes
from mixer.http.metrics import MetricRoutes
from mixer.http.packages import PackageRoutes
from mixer.http.pages import WEB_DIRECTORY, Asset, PageRoutes, made_page
from mixer.http.participants import ParticipantRoutes
from mixer.http.problems import problems
from mixer.http.recordings import RecordingRoutes
from mixer.http.rooms import RoomRoutes
from mixer.http.routing import Route, install
from mixer.http.whip import CORS_HEADERS, SignallingRoutes, is_cors_path
from mixer.registry import Registry
from mixer.relay import Relay
from mixer.relay_book import RelayBook
from mixer.settings import Settings
from mixer.version import version
from recording.holdings import Holdings

ROUTES: Final = web.AppKey("routes", tuple[Route, ...])
AUTHENTICATOR: Final = web.AppKey("authenticator", Authenticator)

_API_CSP: Final = "default-src 'none'; frame-ancestors 'none'"
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # room links carry tokens
    "Cross-Origin-Opener-Policy": "same-origin",
    "Server": "mosaique",
}


def build_app(
    registry: Registry,
    holdings: Holdings,
    settings: Settings,
    *,
    web_directory: Path = WEB_DIRECTORY,
    clock: Callable[[], float] = time.time,
    heartbeat_s: float = HEARTBEAT_S,
    relay: Relay | None = None,
    relay_book: RelayBook | None = None,
) -> web.Application:
    """The application for a started ``registry``. ``settings`` went through ``kept_secrets.with_secrets``.

    ``clock``: Unix seconds, for tokens and TURN credentials. ``relay``: the embedded one, if there is one;
    ``relay_book``: the registry's. Run it with ``access_log=None``: each request is
    logged by the application itself, without tokens.
    """
    auth = Authenticator(settings.admin_token, settings.token_secret, clock=clock)
    ice = IceServers(settings, relay, relay_book or RelayBook(), clock=clock)
    events = EventRoutes(registry, heartbeat_s=heartbeat_s)
    desk = Desk(holdings)
    metrics = MetricRoutes(registry, events, holdings, settings.data_dir / "spool", relay)
    api: list[Route] = [
        *RoomRoutes(registry, auth).routes(),
        *ParticipantRoutes(registry).routes(),
        *LayoutRoutes(registry).routes(),
        *RecordingRoutes(registry, desk).routes(),
        *PackageRoutes(desk, redirect=settings.archive.redirect == "auto").routes(),
        *CustodyRoutes(desk, registry.hub).routes(),
        *SignallingRoutes("whip", registry, ice, auth).routes(),
        *SignallingRoutes("whep", registry, ice, auth).routes(),
        *ice.routes(),
        *events.routes(),
        *metrics.routes(),
        *JoinRoutes(registry, auth, settings).routes(),
    ]
    routes = (*api, *_page_routes(api, web_directory))

    app = web.Application(middlewares=[metrics.measure, problems], client_max_size=MAX_JSON_BYTES)
    app[ROUTES] = routes
    app[AUTHENTICATOR] = auth
    install(app, routes, auth)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(lambda _: events.close())
    return app


def _page_routes(api: list[Route], web_directory: Path) -> list[Route]:
    """The pages, and the two that describe everything, themselves included."""
    # The description lists its own two routes, so the assets of those are put in after it is made.
    made: dict[str, Asset] = {}
    pages = [
        *PageRoutes(web_directory).routes(),
        made_page(made, "/openapi.json", "This description, for programs", "application/json", _API_CSP),
        made_page(made, "/docs", "This description, for people", "text/html", docs.DOCS_CSP),
    ]
    document = openapi.describe([*api, *pages], version=version())
    made["/openapi.json"] = Asset.make(
        json.dumps(document, separators=(",", ":")).encode(), "application/json"
    )
    made["/docs"] = Asset.make(docs.render(document), "text/html")
    return pages


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _ALWAYS.items():
        response.headers[name] = value
    response.headers.setdefault("Content-Security-Policy", _API_CSP)
    response.headers.setdefault("Cache-Control", "no-store")
    if is_cors_path(request.path):
        response.headers.update(CORS_HEADERS)
