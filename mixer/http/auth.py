"""Who is asking, and whether they may: bearer tokens in, ``Caller`` out.

Two kinds of token (contract section 3): the admin token, compared in constant time, and JWTs (RFC 7519, HS256 only)
that say who (``sub``, ``name``), where (``room``) and what (``role``). A wrong token is ``NotAuthenticated`` (401), a
right one in the wrong place ``NotAllowed`` (403), and the first is always settled before the second.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import jwt
from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mixer.errors import NotAllowed, NotAuthenticated
from mixer.room import MAX_NAME, ROOM_NAME, Role
from mixer.sessions import Caller

ALGORITHM: Final = "HS256"
MAX_TTL_S: Final = 31 * 24 * 3600  # a month: longer invitations are a person's account, which we do not keep
DEFAULT_TTL_S: Final = 12 * 3600  # a working day

_SUBJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,127}")
# Goes into URLs (…/participants/{id}) and layout sources (participant:ID) without escaping.

ADMIN_CALLER: Final = Caller(sub="admin", name="admin", role="admin", room="*")

# --- roles -------------------------------------------------------------------------------------------------

_LADDER: Final[tuple[Role, ...]] = (
    "viewer",
    "participant",
    "moderator",
    "admin",
)  # each may what the one before may


@dataclass(frozen=True, slots=True)
class Access:
    """Which roles a route is for. ``query_token``: ``?access_token=`` counts too (RFC 6750 section 2.3), for the
    downloads that a ``<video>`` or a plain link makes, which cannot send a header."""

    roles: frozenset[Role]
    query_token: bool = False


def at_least(role: Role) -> Access:
    """``role`` and those above it; the archivist stands beside the ladder and is not among them."""
    return Access(frozenset(_LADDER[_LADDER.index(role) :]))


def one_of(*roles: Role, query_token: bool = False) -> Access:
    """These roles and the admin."""
    return Access(frozenset({*roles, "admin"}), query_token)


VIEWER: Final = at_least("viewer")
PARTICIPANT: Final = at_least("participant")
MODERATOR: Final = at_least("moderator")
ADMIN: Final = at_least("admin")
ARCHIVIST: Final = one_of("archivist")
ANYONE: Final = one_of("viewer", "participant", "moderator", "archivist")


def covers(caller: Caller, room: str) -> bool:
    """Whether the caller's token is for ``room``."""
    return caller.room in {"*", room}


def require(caller: Caller, access: Access, room: str | None) -> None:
    """Raise ``NotAllowed`` unless the role, and the room when there is one, are the token's."""
    if caller.role not in access.roles:
        raise NotAllowed(
            f"the role {caller.role} may not do this; it takes {', '.join(sorted(access.roles))}"
        )
    if room is not None:
        require_room(caller, room)


def require_room(caller: Caller, room: str) -> None:
    """Raise ``NotAllowed`` unless the token is for ``room``."""
    if not covers(caller, room):
        raise NotAllowed(f"this token is for the room {caller.room}")


# --- tokens ------------------------------------------------------------------------------------------------


def _check_subject(value: str) -> str:
    if not _SUBJECT.fullmatch(value):
        raise ValueError("takes 1 to 128 letters, digits and ._:@+=-, a letter or digit first")
    return value


def _check_room(value: str) -> str:
    if value != "*" and not ROOM_NAME.fullmatch(value):
        raise ValueError("takes the name of a room, or * for all")
    return value


Subject = Annotated[str, AfterValidator(_check_subject)]
TokenRoom = Annotated[str, AfterValidator(_check_room)]


class _Claims(BaseModel):
    """The claims we read; others are left alone, as RFC 7519 section 4 asks."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    sub: Subject
    room: TokenRoom
    role: Role
    name: Annotated[str, Field(max_length=1024)] = ""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A fresh JWT. ``expires_at_s``: Unix seconds. The token is kept out of ``repr``."""

    token: str
    sub: str
    expires_at_s: int

    def __repr__(self) -> str:
        return f"IssuedToken(sub={self.sub!r}, expires_at_s={self.expires_at_s})"


def issue(
    secret: str, *, sub: str, name: str, role: Role, room: str, ttl_s: int, now_s: float
) -> IssuedToken:
    """A token for ``sub``. Raises ``ValueError`` for a subject or room that no token may carry."""
    expires_at_s = int(now_s) + ttl_s
    claims: dict[str, Any] = {
        "sub": _check_subject(sub),
        "name": name,
        "role": role,
        "room": _check_room(room),
        "nbf": int(now_s),
        "exp": expires_at_s,
    }
    return IssuedToken(jwt.encode(claims, secret, algorithm=ALGORITHM), sub, expires_at_s)


class Authenticator:
    """Checks bearer tokens and issues JWTs. ``clock``: Unix seconds, for what it issues."""

    def __init__(self, admin_token: str, secret: str, *, clock: Callable[[], float] = time.time) -> None:
        self._admin_token = admin_token.encode()
        self._secret = secret
        self._clock = clock

    def caller(self, token: str) -> Caller:
        """Whose token this is. Raises ``NotAuthenticated``; the message never repeats the token."""
        if hmac.compare_digest(token.encode(errors="replace"), self._admin_token):
            return ADMIN_CALLER
        try:
            payload = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                # iat and aud are not part of the contract: an issuer may set them as it likes
                options={"require": ["exp", "sub"], "verify_iat": False, "verify_aud": False},
            )
            claims = _Claims.model_validate(payload)
        except jwt.ExpiredSignatureError:
            raise NotAuthenticated("the token has expired") from None
        except jwt.ImmatureSignatureError:
            raise NotAuthenticated("the token is not valid yet") from None
        except jwt.MissingRequiredClaimError as error:
            raise NotAuthenticated(f"the token's claims are wrong: {error.claim}") from None
        except ValidationError as error:
            wrong = ", ".join(sorted({str(item["loc"][0]) for item in error.errors() if item["loc"]}))
            raise NotAuthenticated(f"the token's claims are wrong: {wrong}") from None
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            raise NotAuthenticated("the token is malformed, or signed by someone else") from None
        return Caller(sub=claims.sub, name=_clean_name(claims.name), role=claims.role, room=claims.room)

    def issue(self, *, sub: str, name: str, role: Role, room: str, ttl_s: int) -> IssuedToken:
        """A JWT that ``caller`` will accept until ``ttl_s`` from now."""
        return issue(self._secret, sub=sub, name=name, role=role, room=room, ttl_s=ttl_s, now_s=self._clock())

    def authenticate(self, request: web.Request, access: Access) -> Caller:
        """The caller of ``request``. Raises ``NotAuthenticated``."""
        token = _header_token(request)
        if token is None and access.query_token:
            token = request.query.get("access_token")
        if token is None:
            raise NotAuthenticated("this needs a bearer token")
        return self.caller(token)


def _header_token(request: web.Request) -> str | None:
    headers = request.headers.getall("Authorization", [])
    if not headers:
        return None
    scheme, _, token = headers[0].strip().partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("the Authorization header takes one Bearer token")
    return token.strip()


def _clean_name(name: str) -> str:
    """A display name of another issuer, made drawable rather than refused."""
    return "".join(c for c in name if c.isprintable()).strip()[:MAX_NAME]
