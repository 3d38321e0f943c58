"""The static pages, kept in memory: what is not in the dictionary is not served, so there is no path to escape."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from mixer.http.ranges import select
from mixer.http.routing import Answer, Handler, Route

WEB_DIRECTORY: Final = Path(__file__).resolve().parent.parent / "web"

PAGE_CSP: Final = (
    "default-src 'self'; media-src 'self' blob: mediastream:; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PERMISSIONS: Final = (
    "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), geolocation=()"
)

_TYPES: Final = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_TEXT: Final = ("text/", "application/json", "image/svg+xml", "application/manifest+json")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, and the same compressed when that makes it smaller."""

    content_type: str
    plain: bytes
    packed: bytes | None
    tag: str

    @classmethod
    def make(cls, content: bytes, content_type: str) -> Asset:
        """An asset of ``content``; its tag follows from the content alone."""
        packed = gzip.compress(content, 9, mtime=0) if content_type.startswith(_TEXT) else None
        if packed is not None and len(packed) >= len(content):
            packed = None
        return cls(content_type, content, packed, hashlib.sha256(content).hexdigest()[:20])

    def response(self, request: web.Request, headers: dict[str, str]) -> web.Response:
        """200 or 304. ``no-cache``: kept by the browser, asked for again each time, so an upgrade shows at once."""
        use_packed = self.packed is not None and "gzip" in request.headers.get("Accept-Encoding", "").lower()
        etag = f'"{self.tag}-gz"' if use_packed else f'"{self.tag}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", **headers}
        if select(request.headers, size=len(self.plain), etag=etag).outcome == "not-modified":
            return web.Response(status=304, headers=headers)
        if use_packed:
            headers["Content-Encoding"] = "gzip"
        response = web.Response(body=self.packed if use_packed else self.plain, headers=headers)
        response.content_type = self.content_type
        if self.content_type.startswith("text/"):
            response.charset = "utf-8"
        return response


def load_assets(directory: Path) -> dict[str, Asset]:
    """All files below ``directory`` by their relative path."""
    assets: dict[str, Asset] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            guessed = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
            content_type = guessed or "application/octet-stream"
            assets[path.relative_to(directory).as_posix()] = Asset.make(path.read_bytes(), content_type)
    return assets


class PageRoutes:
    """``/``, ``/r/{room}``, ``/admin``, ``/archive`` and ``/static/…``."""

    def __init__(self, directory: Path = WEB_DIRECTORY) -> None:
        self._assets = load_assets(directory)

    def routes(self) -> list[Route]:
        """The table."""
        pages = {
            "/": ("index.html", "Make or enter a room"),
            "/r/{room}": ("room.html", "A room"),
            "/admin": ("admin.html", "Rooms, people, layouts"),
            "/archive": ("archive.html", "Recordings"),
        }
        html = _answers("text/html")
        routes = [
            Route("GET", path, self._page(name), summary, "pages", None, html)
            for path, (name, summary) in pages.items()
        ]
        routes.append(
            Route(
                "GET", "/static/{path:.+}", self._static, "Style, scripts, pictures of the pages", "pages", None,
                _answers("*/*"),
            )
        )  # fmt: skip
        return routes

    def _page(self, name: str) -> Handler:
        async def page(request: web.Request) -> web.StreamResponse:
            asset = self._assets.get(name)
            if asset is None:
                raise web.HTTPNotFound(text="This page is not installed.")
            headers = {"Content-Security-Policy": PAGE_CSP, "Permissions-Policy": PERMISSIONS}
            return asset.response(request, headers)

        return page

    async def _static(self, request: web.Request) -> web.StreamResponse:
        asset = self._assets.get("static/" + request.match_info["path"])
        if asset is None:
            raise web.HTTPNotFound(text="There is no such file.")
        return asset.response(request, {"Content-Security-Policy": PAGE_CSP})


def made_page(made: Mapping[str, Asset], path: str, summary: str, content_type: str, csp: str) -> Route:
    """A page that is made at start and found in ``made`` under its path when it is asked for."""

    async def page(request: web.Request) -> web.StreamResponse:
        return made[path].response(request, {"Content-Security-Policy": csp})

    return Route("GET", path, page, summary, "pages", None, _answers(content_type))


def _answers(content_type: str) -> tuple[Answer, ...]:
    return (Answer(200, "The content", {content_type: None}), Answer(304, "It has not changed"))
