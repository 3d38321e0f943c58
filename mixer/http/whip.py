"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): one POST an offer, then PATCH and DELETE on its session.

Both have the same shape and differ in who may offer and in what is asked of the registry. CORS is open on these
paths: a bearer token is sent by intent, never by the browser on its own, so another site's page can do nothing
here that its visitor did not give it a token for.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

from aiohttp import web

from mixer.errors import BadOffer, BadRequest, InvalidBody, NotAllowed, NotAuthenticated, NotFound
from mixer.http.auth import PARTICIPANT, VIEWER, Authenticator, require
from mixer.http.bodies import MAX_SDP_BYTES, no_content, read_text
from mixer.http.ice import IceServers, links
from mixer.http.routing import CALLER, Answer, Query, Route
from mixer.registry import Registry

SDP: Final = "application/sdp"
FRAGMENT: Final = "application/trickle-ice-sdpfrag"
RENDITIONS: Final = ("auto", "high", "medium", "low", "audio")  # contract section 4

CORS_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Location, ETag, Link, Accept-Post, Accept-Patch, Retry-After, WWW-Authenticate",
}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "POST, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
    "Access-Control-Max-Age": "86400",
}


def is_cors_path(path: str) -> bool:
    """Whether other sites' pages may call ``path``."""
    return path.startswith(("/whip/", "/whep/"))


def entity_tag(session: str) -> str:
    """The session's ETag (RFC 9725 section 4.3.1). It names the ICE session, and ours are never restarted, so it
    follows from the session's id, without giving that away."""
    return f'"{hashlib.sha256(session.encode()).hexdigest()[:16]}"'


class SignallingRoutes:
    """WHIP or WHEP, by ``direction``."""

    def __init__(
        self, direction: Literal["whip", "whep"], registry: Registry, ice: IceServers, auth: Authenticator
    ) -> None:
        self._direction: Literal["whip", "whep"] = direction
        self._registry = registry
        self._ice = ice
        self._auth = auth
        self._access = PARTICIPANT if direction == "whip" else VIEWER

    def routes(self) -> list[Route]:
        """The table."""
        kind = self._direction
        endpoint, session = f"/{kind}/{{room}}", f"/{kind}/{{room}}/{{session}}"
        verb = "Publish into" if kind == "whip" else "Watch"
        query: tuple[Query, ...] = (
            Query(
                "recorded",
                "false: leave this participant out of recordings",
                {"type": "boolean", "default": True},
            ),
        )
        if kind == "whep":
            query = (
                Query("rendition", "Which size of the mix", {"type": "string", "enum": list(RENDITIONS)}),
                Query("participant", "Whose voice the mix leaves out; default: the token's own"),
            )
        created = Answer(
            201, "The answer", {SDP: None},
            {"Location": "The session's URL", "ETag": "The ICE session", "Link": "ICE servers, rel=ice-server"},
        )  # fmt: skip
        return [
            Route(
                "POST", endpoint, self._offer, f"{verb} a room: an SDP offer in, the answer out", kind,
                self._access, (created,),
                body={SDP: None}, query=query, errors=(400, 406, 415, 422, 503),
            ),
            Route(
                "OPTIONS", endpoint, self._options, "What this endpoint accepts", kind, None,
                (
                    Answer(
                        204, "See Accept-Post",
                        headers={"Accept-Post": SDP, "Link": "ICE servers, for a token that may make a session"},
                    ),
                ),
            ),
            Route(
                "PATCH", session, self._trickle, "Add ICE candidates (RFC 8840)", kind, VIEWER,
                (Answer(204, "Added"),), body={FRAGMENT: None}, errors=(400, 406, 412, 415, 422),
            ),
            Route("DELETE", session, self._hang_up, "End the session", kind, VIEWER, (Answer(200, "Ended"),)),
            Route(
                "OPTIONS", session, self._session_options, "What this session accepts", kind, None,
                (Answer(204, "See Accept-Patch", headers={"Accept-Patch": FRAGMENT}),),
            ),
        ]  # fmt: skip

    async def _options(self, request: web.Request) -> web.Response:
        response = web.Response(
            status=204, headers={"Accept-Post": SDP, "Allow": "POST, OPTIONS", **_PREFLIGHT}
        )
        # A client that wants to gather before it offers (GStreamer's whipsink) asks here, with its token. A browser's
        # preflight has none and is answered all the same.
        try:
            caller = self._auth.authenticate(request, self._access)
            require(caller, self._access, request.match_info["room"])
        except (NotAuthenticated, NotAllowed):
            return response
        for link in links(self._ice.servers_for(request, caller)):
            response.headers.add("Link", link)
        return response

    async def _session_options(self, request: web.Request) -> web.Response:
        headers = {"Accept-Patch": FRAGMENT, "Allow": "PATCH, DELETE, OPTIONS", **_PREFLIGHT}
        return web.Response(status=204, headers=headers)

    async def _offer(self, request: web.Request) -> web.Response:
        if request.content_type != SDP:
            raise web.HTTPUnsupportedMediaType(text=f"An offer is {SDP}.", headers={"Accept-Post": SDP})
        rendition, minus, recorded = "auto", None, True
        if self._direction == "whep":
            rendition = request.query.get("rendition", "auto")
            if rendition not in RENDITIONS:
                raise _wrong_query("rendition", f"takes one of {', '.join(RENDITIONS)}")
            minus = request.query.get("participant") or None
            if minus is not None and (len(minus) > 128 or not minus.isprintable()):
                raise _wrong_query("participant", "takes the id of a participant")
        else:
            wanted = request.query.get("recorded", "true")
            if wanted not in {"true", "false"}:
                raise _wrong_query("recorded", "takes true or false")
            recorded = wanted == "true"
        sdp = await self._read(request, "SDP")
        caller, room = request[CALLER], request.match_info["room"]
        made = await self._registry.offer(
            room, self._direction, caller, sdp, rendition=rendition, minus=minus, recorded=recorded
        )
        response = web.Response(
            status=201,
            body=made.sdp.encode(),
            content_type=SDP,
            headers={
                "Location": f"/{self._direction}/{room}/{made.id}",
                "ETag": entity_tag(made.id),
                "Accept-Patch": FRAGMENT,
            },
        )
        for link in links(self._ice.servers(made.subject, request.host)):
            response.headers.add("Link", link)
        return response

    async def _trickle(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if request.content_type != FRAGMENT:
            raise web.HTTPUnsupportedMediaType(
                text=f"Candidates are {FRAGMENT}.", headers={"Accept-Patch": FRAGMENT}
            )
        # RFC 9725 section 4.3.1: a stale tag is 412. Clients that send none are served, as other servers do;
        # "*" matches whatever there is (RFC 9110 section 13.1.1), and an ICE restart is refused by its content.
        condition = request.headers.get("If-Match")
        if condition is not None and condition.strip() != "*":
            tags = {tag.strip() for tag in condition.split(",")}
            if entity_tag(session) not in tags:
                raise web.HTTPPreconditionFailed(text="If-Match names another ICE session than this one.")
        fragment = await self._read(request, "SDP fragment")
        await self._registry.trickle(session, fragment, request[CALLER])
        return no_content()

    async def _hang_up(self, request: web.Request) -> web.Response:
        await self._registry.hang_up(self._session(request), request[CALLER])
        return web.Response(status=200)

    def _session(self, request: web.Request) -> str:
        """The session of the path, which must be one of the room of the path: the guard has judged that room."""
        session = request.match_info["session"]
        if self._registry.session_room(session) != request.match_info["room"]:
            raise NotFound("there is no such session in this room")
        return session

    @staticmethod
    async def _read(request: web.Request, what: str) -> str:
        try:
            text = await read_text(request, MAX_SDP_BYTES)
        except BadRequest as error:
            raise BadOffer(f"this is no {what}: {error}") from None
        if not text.strip():
            raise BadOffer(f"this is no {what}: it is empty")
        return text


def _wrong_query(name: str, message: str) -> InvalidBody:
    return InvalidBody(f"the query parameter {name} {message}", [{"loc": ["query", name], "msg": message}])
