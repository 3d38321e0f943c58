"""Ephemeral TURN credentials, the "REST API" scheme that coturn, eturnal and pion share. Pure: time is an argument.

    username = "<unix time of expiry>:<subject>"
    password = base64(HMAC-SHA1(secret, username))

draft-uberti-behave-turn-rest-00, section 2.2. Whoever knows the secret can check a password without a list of
users, and an expired name is refused by reading it. SHA-1 is the scheme's; as an HMAC it is not weakened by
collisions. Several secrets may be valid at once, so that one can be rotated out while old credentials live.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_USERNAME_BYTES: Final = 508  # RFC 8489 section 14.3: USERNAME is shorter than 509 bytes

_USERNAME = re.compile(r"([0-9]{1,12}):(.+)", re.DOTALL)  # 12 digits of seconds reach the year 33658


class InvalidCredential(ValueError):
    """The user name is not of this scheme, or has expired. The message never holds a password."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a client hands to a relay. ``expires_at_s``: Unix seconds. The password is kept out of ``repr``."""

    username: str
    password: str
    expires_at_s: int

    def __repr__(self) -> str:
        return f"Credential(username={self.username!r}, password=***, expires_at_s={self.expires_at_s})"


def password_for(username: str, secret: str) -> str:
    """The password of ``username`` under ``secret``. Both are taken as UTF-8."""
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode("ascii")


def issue(subject: str, secret: str, *, now_s: float, ttl_s: int) -> Credential:
    """A credential for ``subject`` that a relay accepts until ``now_s + ttl_s`` (Unix seconds).

    Raises ``ValueError`` when the subject is empty or makes a user name that TURN cannot carry.
    """
    if not subject:
        raise ValueError("a credential needs a subject")
    if ttl_s <= 0:
        raise ValueError("a credential must live for at least a second")
    expires_at_s = int(now_s) + ttl_s
    username = f"{expires_at_s}:{subject}"
    if len(username.encode()) > MAX_USERNAME_BYTES:
        raise ValueError(f"a TURN user name takes at most {MAX_USERNAME_BYTES} bytes")
    return Credential(username, password_for(username, secret), expires_at_s)


def parse_username(username: str) -> tuple[int, str]:
    """Expiry in Unix seconds, and the subject. Raises ``InvalidCredential``."""
    match = _USERNAME.fullmatch(username)
    if match is None or not match[1].isascii() or len(username.encode(errors="replace")) > MAX_USERNAME_BYTES:
        raise InvalidCredential("a user name of this relay is expiry:subject")
    return int(match[1]), match[2]


def passwords(username: str, secrets: Sequence[str], *, now_s: float) -> tuple[str, ...]:
    """The passwords that are right for ``username``: one a secret, in the order of ``secrets``.

    A relay derives its MESSAGE-INTEGRITY key from each in turn. Raises ``InvalidCredential`` when the name is
    malformed or its time is over.
    """
    expires_at_s, _ = parse_username(username)
    if now_s >= expires_at_s:
        raise InvalidCredential("this credential has expired")
    return tuple(password_for(username, secret) for secret in secrets)


def verify(username: str, password: str, secrets: Sequence[str], *, now_s: float) -> bool:
    """Whether ``password`` is right under any of ``secrets``; the time taken does not tell which, nor how nearly.

    Raises ``InvalidCredential`` as ``passwords`` does.
    """
    offered = password.encode(errors="replace")
    found = False
    for right in passwords(username, secrets, now_s=now_s):
        found |= hmac.compare_digest(offered, right.encode("ascii"))
    return found
