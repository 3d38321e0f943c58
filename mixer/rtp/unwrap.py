"""RTP counters wrap after 16 or 32 bits; these don't."""

from __future__ import annotations


class Unwrapper:
    """Makes a wrapping counter of ``bits`` bits endless.

    Each value is taken to be the one nearest to the **highest** seen so far, so values may arrive out of
    order by up to half the range, before or after a wrap. The first value is returned as it is; one that
    came before it may be negative.
    """

    __slots__ = ("_half", "_highest", "_mask")

    def __init__(self, bits: int) -> None:
        self._mask = (1 << bits) - 1
        self._half = 1 << (bits - 1)
        self._highest: int | None = None

    def unwrap(self, value: int) -> int:
        """The endless counterpart of ``value`` (only its low ``bits`` bits are looked at)."""
        highest = self._highest
        if highest is None:
            self._highest = value & self._mask
            return self._highest
        endless = highest + ((value - highest + self._half) & self._mask) - self._half
        if endless > highest:
            self._highest = endless
        return endless

    def reset(self) -> None:
        """Forget everything: the next value is the first."""
        self._highest = None
