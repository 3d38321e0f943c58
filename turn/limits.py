"""How often strangers are answered. Pure: time is an argument.

Over UDP a source address proves nothing: whoever answers all is a reflector. So each source has a small allowance, all
strangers together have one, and the table of sources has a bound: the longest unseen goes first. Who floods from many
addresses then meets the common allowance, and never an allocation that is in use.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

SOURCES: Final = 4096
PER_SOURCE: Final = (
    30.0,
    60.0,
)  # answers a second, and at once: an office behind one address joins within seconds
TOGETHER: Final = (2000.0, 4000.0)  # 200 kB a second of answers at most


class AnswerLimit:
    """Two floors of token buckets."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._together = (TOGETHER[1], 0.0)

    def allows(self, address: str, now_s: float) -> bool:
        """Whether a stranger at ``address`` may have one more answer."""
        source = _network(address)
        left = _refilled(self._sources.pop(source, (PER_SOURCE[1], now_s)), PER_SOURCE, now_s)
        together = _refilled(self._together, TOGETHER, now_s)
        good = left >= 1 and together >= 1
        self._sources[source] = (left - good, now_s)
        self._together = (together - good, now_s)
        if len(self._sources) > SOURCES:
            self._sources.popitem(last=False)
        return good


def _refilled(state: tuple[float, float], allowance: tuple[float, float], now_s: float) -> float:
    left, at_s = state
    rate, burst = allowance
    return min(burst, left + max(0.0, now_s - at_s) * rate)


def _network(address: str) -> str:
    """One household: an IPv4 address, or the /64 that an IPv6 host may choose its addresses from."""
    if ":" not in address:
        return address
    return ipaddress.ip_address(address).packed[:8].hex()
