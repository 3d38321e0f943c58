"""Credentials that were taken back before their time: whose, and up to which expiry. Pure.

A user name says when it expires and is not listed anywhere, so what is void is said by expiry as well: all of a
subject's that expire at or before one. Forgotten when they would have expired anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MAX_REVOKED: Final = (
    20_000  # subjects; twice what our own control remembers. Past it the oldest are forgotten
)


class Revocations:
    """All times are Unix seconds."""

    def __init__(self) -> None:
        self._until: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, until: Mapping[str, int], unix_s: float) -> None:
        """From now on what these subjects hold is void, as far as it expires by ``until``."""
        kept = {subject: until_s for subject, until_s in self._until.items() if until_s > unix_s}
        for subject, until_s in until.items():
            kept[subject] = max(until_s, kept.pop(subject, 0))
        for subject in list(kept)[:-MAX_REVOKED]:
            del kept[subject]
        self._until = kept

    def holds(self, subject: str, expires_s: float) -> bool:
        """Whether the credential of ``subject`` that expires then is void."""
        return expires_s <= self._until.get(subject, 0)
