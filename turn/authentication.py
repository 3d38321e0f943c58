"""The long-term credential mechanism of RFC 8489 section 9.2, with ephemeral credentials behind it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from turn.credentials import InvalidCredential, parse_username, passwords
from turn.message import Attribute, Message, long_term_key
from turn.nonces import Nonces
from turn.refusals import Refused

_MD5: Final = (
    b"\x00\x01\x00\x00"  # RFC 8489 section 18.5: an algorithm and its parameters, of which these have none
)
_SHA256: Final = b"\x00\x02\x00\x00"
_OFFERED: Final = _SHA256 + _MD5  # the better one first


@dataclass(frozen=True, slots=True, repr=False)
class Proof:
    """Who asked, and how the answer is sealed. ``until_unix_s``: when the credential expires. No ``repr``: a key."""

    subject: str
    until_unix_s: float
    key: bytes
    sha256: bool


class Authenticator:
    """``secrets``: any of them may have made the credential. Holds nothing a client."""

    def __init__(self, realm: str, secrets: Sequence[str], nonces: Nonces) -> None:
        self.secrets = tuple(secrets)
        self._realm = realm
        self._nonces = nonces

    def check(self, message: Message, five_tuple: object, now_s: float, unix_s: float) -> Proof:
        """The steps of RFC 8489 section 9.2.4, in their order. Raises ``Refused``."""
        if message.sha1_at is None and message.sha256_at is None:
            raise Refused(401, "no credentials", self._challenge(five_tuple, now_s))
        username, nonce = message.get(Attribute.USERNAME), message.get(Attribute.NONCE)
        realm = message.get(Attribute.REALM)
        if realm is None or nonce is None or (username is None and message.get(Attribute.USERHASH) is None):
            raise Refused(400, "credentials lack a part")
        sha256_password = _password_algorithm(message)
        if not self._nonces.fresh(nonce, five_tuple, now_s):
            raise Refused(438, "stale nonce", self._challenge(five_tuple, now_s))
        unauthorized = Refused(401, "wrong credentials", self._challenge(five_tuple, now_s))
        if (
            username is None or realm != self._realm.encode()
        ):  # a hash of names needs a list of names: there is none
            raise unauthorized
        try:
            name = username.decode()
            until_unix_s, subject = parse_username(name)
            candidates = passwords(name, self.secrets, now_s=unix_s)
        except (UnicodeDecodeError, InvalidCredential):
            raise unauthorized from None
        keys = [long_term_key(name, self._realm, password, sha256=sha256_password) for password in candidates]
        good = [key for key in keys if message.proves(key)]
        if not good:
            raise unauthorized
        return Proof(subject, until_unix_s, good[0], message.sha256_at is not None)

    def _challenge(self, five_tuple: object, now_s: float) -> tuple[tuple[int, bytes], ...]:
        return (
            (Attribute.REALM, self._realm.encode()),
            (Attribute.NONCE, self._nonces.issue(five_tuple, now_s)),
            (Attribute.PASSWORD_ALGORITHMS, _OFFERED),
        )


def _password_algorithm(message: Message) -> bool:
    """Whether the password is hashed with SHA-256. RFC 8489 section 9.2.4: a changed offer is an attack (bid down)."""
    offered = message.get(Attribute.PASSWORD_ALGORITHMS)
    chosen = message.get(Attribute.PASSWORD_ALGORITHM)
    if offered is None and chosen is None:
        return False
    if offered != _OFFERED or chosen not in {_MD5, _SHA256}:
        raise Refused(400, "password algorithms changed")
    return chosen == _SHA256
