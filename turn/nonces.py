"""Nonces that need no memory: a time, and a MAC over it and the 5-tuple. Pure: time is an argument.

    "obMatJos2" features time mac

The first thirteen characters say to clients of RFC 8489 (section 9.2) that PASSWORD-ALGORITHMS is spoken, so that an
attacker in the middle cannot hide it. A nonce is good for ten minutes, for the 5-tuple that it was given to; nobody can
guess one (CVE-2025-69217), and no state is held for whoever has none.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

LIFETIME_S: Final = 600  # RFC 8656 section 5: at most an hour; an allocation is refreshed once in that time
_PREFIX: Final = b"obMatJos2" + base64.b64encode((1).to_bytes(3, "big"))  # RFC 8489 section 9.2.1: bit 0
_MAC_BYTES: Final = 12  # 96 bits to guess within ten minutes
_SIZE: Final = len(_PREFIX) + 8 + _MAC_BYTES * 4 // 3


class Nonces:
    """``key``: made anew by default, so that a restart makes all nonces stale: clients then just ask again (438)."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key

    def issue(self, five_tuple: object, now_s: float) -> bytes:
        """A nonce for whoever sits at ``five_tuple``; ``now_s``: any clock of seconds that only goes forward."""
        return self._make(b"%08x" % (int(now_s) & 0xFFFF_FFFF), five_tuple)

    def fresh(self, nonce: bytes, five_tuple: object, now_s: float) -> bool:
        """Whether we gave this one to that 5-tuple, at most ``LIFETIME_S`` ago."""
        if len(nonce) != _SIZE:
            return False
        stamp = nonce[len(_PREFIX) :][:8]
        if not hmac.compare_digest(nonce, self._make(stamp, five_tuple)):
            return False
        return int(now_s) - int(stamp, 16) < LIFETIME_S

    def _make(self, stamp: bytes, five_tuple: object) -> bytes:
        mac = hmac.digest(self._key, repr(five_tuple).encode() + stamp, hashlib.sha256)
        return _PREFIX + stamp + base64.b64encode(mac[:_MAC_BYTES])
