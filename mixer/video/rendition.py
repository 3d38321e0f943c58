"""The renditions of the mix: the contract's table, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Rendition:
    """One quality of the mix. Encoded once however many watch, and only while someone does.

    ``width``, ``height``, ``fps``, ``video_bps`` are 0 when there is no picture.
    ``wire_bps``: what a viewer's line carries at most, all headers included. ``sharp_fps``: pictures a second while
    a shared screen fills the canvas; at half the rate a slide of text gains 2.5 dB at ``medium``.
    ``repeats``: for a listener whose line loses, which packets of sound each packet carries again (RFC 2198), so many
    packets back; ``repeated_bps``: the rate of one copy then, for which ``wire_bps`` has room. ``fec_bps``: the rate
    with in-band FEC, for a listener whose line loses and who is sent no packet again.
    """

    name: str
    width: int
    height: int
    fps: int
    video_bps: int
    audio_bps: int
    audio_ptime_ms: int
    wire_bps: int
    sharp_fps: int
    repeats: tuple[int, ...]
    repeated_bps: int
    fec_bps: int

    @property
    def has_video(self) -> bool:
        """False for the rendition that is sound only."""
        return self.video_bps > 0


RENDITIONS: Final[dict[str, Rendition]] = {
    rendition.name: rendition
    for rendition in (
        # The packet before mends single losses soon; the one of 100 ms ago mends bursts, in the time that a
        # playout of 120 ms gives it. Packets of 60 ms are not carried twice: PESQ-NB of speech at 5 % of loss is 2.7
        # with two copies at 6 kbit/s and 3.5 with in-band FEC, at ``low`` 3.3 (10 kbit/s) and 3.6. 12 kbit/s are too
        # few for FEC, 14.6 the least. Repeats on request, of a tenth of the sound, fit in beside.
        Rendition("high", 1280, 720, 30, 1_200_000, 32_000, 20, 1_400_000, 15, (5, 1), 24_000, 32_000),
        Rendition("medium", 640, 360, 15, 300_000, 24_000, 20, 390_000, 8, (5, 1), 16_000, 24_000),
        Rendition("low", 320, 180, 8, 64_000, 16_000, 60, 100_000, 4, (), 0, 16_000),
        Rendition("audio", 0, 0, 0, 0, 12_000, 60, 24_000, 0, (), 0, 14_600),
    )
}
"""Best first: the order in which ``auto`` steps down."""

APART: Final = replace(RENDITIONS["high"], name="apart")
"""What is recorded while somebody in the room does not want to be: like ``high``, but of a canvas without them."""
