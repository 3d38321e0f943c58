"""Why a request is refused: each error code with the paragraph that asks for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


class Refused(Exception):
    """The request gets an error response. ``attributes`` go with it; ``cause`` is what metrics count it as."""

    def __init__(self, code: int, cause: str, attributes: Sequence[tuple[int, bytes]] = ()) -> None:
        super().__init__(f"{code} {cause}")
        self.code = code
        self.cause = cause
        self.attributes = tuple(attributes)

    @property
    def reason(self) -> str:
        """The reason phrase."""
        return REASONS[self.code]


REASONS: Final = {
    400: "Bad Request",  # RFC 8489 section 14.8: malformed
    401: "Unauthorized",  # RFC 8489 section 9.2.4: no integrity, or a wrong one
    # RFC 8656 sections 10.2 and 12.2: a peer that the policy does not open; section 7.2 step 1 by way of RFC 8489
    # section 9.2.4 knows wrong credentials only, so right ones that were taken back are forbidden, too
    403: "Forbidden",
    420: "Unknown Attribute",  # RFC 8489 section 6.3.1
    437: "Allocation Mismatch",  # RFC 8656 section 7.2 step 3: there is one already; section 6: there is none
    438: "Stale Nonce",  # RFC 8489 section 9.2.4
    440: "Address Family not Supported",  # RFC 8656 section 7.2 step 9
    441: "Wrong Credentials",  # RFC 8656 section 5: of somebody else than who allocated
    442: "Unsupported Transport Protocol",  # RFC 8656 section 7.2 step 4
    443: "Peer Address Family Mismatch",  # RFC 8656 sections 8.2, 10.2, 12.2
    486: "Allocation Quota Reached",  # RFC 8656 section 7.2 step 11
    508: "Insufficient Capacity",  # RFC 8656 section 7.2 steps 6, 7, 10 and 12
}
