"""Who is in a mixed packet: CSRCs (RFC 3550 section 5.1) and their levels (RFC 6465), and how often to say so. Pure.

A receiver keeps what it was told for seconds (browsers: ten), so not every packet has to name everyone: long
packets are those of thin lines, where each byte is a part of the picture's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

Contributors = tuple[tuple[int, int], ...]
"""(CSRC, RFC 6465 level) of each, the loudest first."""

MAX_CONTRIBUTORS: Final = 15  # the four bits of CC, RFC 3550 section 5.1
MAX_ON_THIN_LINES: Final = 4
# 60 ms packets of the `audio` rendition: 12 kbit/s + 50 bytes of headers a packet are 18.7 of its 24 kbit/s. Four
# CSRCs with levels are 28 bytes: 22.4 kbit/s if each and every packet had them.
_PERIOD: Final = 5  # packets of 20 ms: level meters want some 10 a second
_LONG_PERIOD: Final = 8  # longer packets: twice a second


def csrc_of(participant: str) -> int:
    """The 32-bit id of a participant in every mix: the same for all listeners, and after a restart."""
    return int.from_bytes(hashlib.blake2s(participant.encode(), digest_size=4).digest(), "big")


def loudest(ticks: Iterable[Contributors], *, without: int | None = None) -> Contributors:
    """Everyone of these ticks but ``without``, each with its loudest level, the loudest first."""
    levels: dict[int, int] = {}
    for tick in ticks:
        for csrc, level in tick:
            if csrc != without:
                levels[csrc] = min(level, levels.get(csrc, level))
    return tuple(sorted(levels.items(), key=lambda item: (item[1], item[0]))[:MAX_CONTRIBUTORS])


class Naming:
    """When the packets of one stream name their contributors: on a change, and from time to time."""

    def __init__(self, frames: int) -> None:
        self._most = MAX_CONTRIBUTORS if frames == 1 else MAX_ON_THIN_LINES
        self._period = _PERIOD if frames == 1 else _LONG_PERIOD
        self._named: frozenset[int] = frozenset()
        self._ago = 0

    def of(self, contributors: Contributors) -> Contributors:
        """What the next packet says; empty when nothing need be said."""
        said = contributors[: self._most]
        names = frozenset(csrc for csrc, _ in said)
        self._ago += 1
        if names == self._named and self._ago < self._period:
            return ()
        self._named, self._ago = names, 0
        return said
