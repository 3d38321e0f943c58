"""Every error body is RFC 9457 ``application/problem+json``: ours, aiohttp's own, and the unexpected.

Handlers raise ``MosaiqueError``s (``mixer.errors``) and aiohttp's ``HTTPException``s; the middleware here is the
only place that knows which status each of them is. What nobody foresaw is a 500 that says nothing of the inside:
the log has it, under the id that the body carries as ``instance``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mixer.errors import (
    AlreadyRecording,
    BadOffer,
    BadRequest,
    Conflict,
    InvalidBody,
    MosaiqueError,
    NoCapacity,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    UnsupportedOffer,
    WorkerLost,
)

log = structlog.get_logger(__name__)

PROBLEM_JSON: Final = "application/problem+json"
TYPE_BASE: Final = (
    "/docs#problem-"  # resolves to a sentence about the problem, as RFC 9457 section 3.1.1 likes
)

STATUS: Final[dict[type[MosaiqueError], tuple[int, str]]] = {
    NotFound: (404, "Not found"),
    AlreadyRecording: (409, "Already recording"),
    Conflict: (409, "Conflict"),
    BadOffer: (400, "Unreadable SDP"),
    UnsupportedOffer: (406, "Nothing in the offer can be answered"),
    BadRequest: (400, "Unreadable request"),
    InvalidBody: (422, "Wrong fields"),
    NotAuthenticated: (401, "Not authenticated"),
    NotAllowed: (403, "Not allowed"),
    WorkerLost: (503, "The room is being restarted"),
    NoCapacity: (503, "No capacity"),
}
"""Status and title of each error that a request can end in; a class that is not here counts as its nearest parent."""


def problem(
    status: int,
    *,
    title: str,
    detail: str,
    type_: str = "about:blank",
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> web.Response:
    """A problem document. ``members``: extension members (RFC 9457 section 3.2); None leaves one out."""
    body = {"type": type_, "title": title, "status": status, "detail": detail}
    body |= {key: value for key, value in members.items() if value is not None}
    return web.Response(
        status=status, body=json.dumps(body).encode("ascii"), content_type=PROBLEM_JSON, headers=headers
    )


def problem_of(error: MosaiqueError, *, presented: bool = True) -> web.Response:
    """The answer to an error that has a nearest class in ``STATUS``. ``presented``: the request had a token."""
    known = next(cls for cls in type(error).__mro__ if cls in STATUS)
    status, title = STATUS[known]
    headers: dict[str, str] = {}
    members: dict[str, Any] = {}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = challenge(str(error) if presented else None)
    if isinstance(error, NoCapacity):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, InvalidBody):
        members["errors"] = [{"loc": list(item["loc"]), "msg": str(item["msg"])} for item in error.errors]
    if isinstance(error, AlreadyRecording):
        members["id"] = error.recording_id
    return problem(
        status, title=title, detail=str(error), type_=TYPE_BASE + known.code, headers=headers, **members
    )


def challenge(description: str | None) -> str:
    """``WWW-Authenticate`` (RFC 6750 section 3). ``description``: what was wrong with the token, None when there was
    none, to whom section 3.1 tells nothing of errors. It is made safe for a quoted string."""
    if description is None:
        return 'Bearer realm="mosaique"'
    safe = "".join(c if 0x20 <= ord(c) < 0x7F and c not in '"\\' else "'" for c in description)
    return f'Bearer realm="mosaique", error="invalid_token", error_description="{safe}"'


def _problem_of_http(error: web.HTTPException) -> web.Response:
    """aiohttp's own answer (no such route, wrong method, …) in our words; its telling headers are kept."""
    phrase = HTTPStatus(error.status).phrase
    default_text = f"{error.status}: {error.reason}"
    kept = {
        name: value
        for name, value in error.headers.items()
        if name.lower() not in {"content-type", "content-length"}
    }
    detail = error.text if error.text and error.text != default_text else phrase
    return problem(error.status, title=phrase, detail=detail, headers=kept)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into a problem document."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _problem_of_http(error)
    except MosaiqueError as error:
        if any(cls in STATUS for cls in type(error).__mro__):
            return problem_of(
                error, presented="Authorization" in request.headers or "access_token" in request.query
            )
        return _unexpected(request)
    except ConnectionError:
        raise  # the client went away: there is nobody to answer
    except Exception:
        return _unexpected(request)


def _unexpected(request: web.Request) -> web.Response:
    error_id = uuid.uuid4().urn
    log.exception("http.failed", method=request.method, path=request.path, error_id=error_id)
    return problem(
        500,
        title="Internal error",
        detail="The server made a mistake. Its log tells more under this problem's instance.",
        instance=error_id,
    )
