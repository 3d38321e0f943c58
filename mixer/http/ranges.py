"""Conditional and range requests (RFC 9110 sections 13 and 14) as pure functions of headers and a resource.

A single ``bytes`` range is served; several at once are answered with the whole resource, which section 14.2
allows and every player copes with. A range that cannot be read counts as none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["whole", "part", "not-modified", "precondition-failed", "unsatisfiable"]

_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,19})\s*-\s*([0-9]{0,19})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Selection:
    """What to send: bytes ``start`` to ``end`` (exclusive) and as which answer."""

    outcome: Outcome
    start: int = 0
    end: int = 0


def select(headers: Mapping[str, str], *, size: int, etag: str) -> Selection:
    """Judge a GET or HEAD in the order of RFC 9110 section 13.2.2. ``etag``: strong, with its quotes."""
    if_match = headers.get("If-Match")
    if if_match is not None and not _matches(if_match, etag, weak=False):
        return Selection("precondition-failed")
    if_none_match = headers.get("If-None-Match")
    if if_none_match is not None and _matches(if_none_match, etag, weak=True):
        return Selection("not-modified")
    wanted = headers.get("Range")
    if wanted is None or not _still_same(headers.get("If-Range"), etag):
        return Selection("whole", 0, size)
    return _part(wanted, size)


def _part(wanted: str, size: int) -> Selection:
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or not (match[1] or match[2]):
        return Selection("whole", 0, size)
    if not match[1]:  # the last N bytes
        length = min(int(match[2]), size)
        return Selection("part", size - length, size) if length else Selection("unsatisfiable")
    start, last = int(match[1]), int(match[2] or size)
    if last < start and match[2]:  # section 14.1.1: an invalid range, which is ignored
        return Selection("whole", 0, size)
    return Selection("part", start, min(last + 1, size)) if start < size else Selection("unsatisfiable")


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    tags = re.findall(r'(?:W/)?"[^"]*"', header)
    return any((tag.removeprefix("W/") if weak else tag) == etag for tag in tags)


def _still_same(if_range: str | None, etag: str) -> bool:
    """Section 13.1.5: strong comparison; a date never matches, for we send no Last-Modified."""
    return if_range is None or if_range.strip() == etag
