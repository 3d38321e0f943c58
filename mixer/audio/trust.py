"""Whether the levels that a sender writes into its headers (RFC 6464) may be believed. Pure.

They spare us decoding whoever is silent, so they are checked wherever the sound is decoded anyway. A header that
is wrong by 15 dB on average is not looked at any more: its leg is decoded, as that of a sender without levels.
"""

from __future__ import annotations

from typing import Final

from mixer.audio.speaker import GATE_DBOV, SILENT_DBOV

PROBATION: Final = 50  # packets, a second: nobody is believed before
TOLERANCE_DB: Final = (
    15.0  # senders measure before their codec, some before their gain control: 6 dB is usual
)
_MOST_DB: Final = 40  # what one packet can say against a header: an onset may fall between two packets
_NOISE_DBOV: Final = 85  # a microphone that runs is louder; a header of 127 beside it was never measured
_MEMORY: Final = 50  # packets


class LevelTrust:
    """Compares the headers of one source with its sound. ``good`` once, and as long as, they agree."""

    def __init__(self) -> None:
        self._compared = 0
        self._difference_db = 0.0
        self.broken = False

    @property
    def good(self) -> bool:
        """Whether the headers can stand for the sound."""
        return self._compared >= PROBATION and not self.broken

    def compare(self, header: int, decoded: int) -> bool:
        """One packet: what its header says and what is in it. True when that broke the trust."""
        self._compared += 1
        audible = min(header, decoded) <= GATE_DBOV
        if audible or (header == SILENT_DBOV and decoded < _NOISE_DBOV):
            wrong_db = max(-_MOST_DB, min(_MOST_DB, header - decoded))
        else:
            wrong_db = 0
        self._difference_db += (wrong_db - self._difference_db) / _MEMORY
        # the average starts at zero: after 50 packets it has seen 63 % of a constant error
        broke = not self.broken and abs(self._difference_db) > TOLERANCE_DB
        self.broken = self.broken or broke
        return broke
