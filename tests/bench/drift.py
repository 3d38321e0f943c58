"""Clocks that run apart by 200 ppm for four hours, in fast time: the film, and the tracks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from tests.bench.figures import Figure
from tests.fakes.drift import DriftingSender
from tests.fakes.drifting_room import film_skews, track_skews

HOURS: Final = 4.0
PPM: Final = 200
SKEW_MS: Final = 40.0  # the issue: at the end
_END: Final = 20  # of the bursts: the last ones are the end


def drift(hours: float = HOURS) -> list[Figure]:
    """The sender's sound clock runs ahead, its camera's behind, and its NTP clock is off as well."""
    seconds = hours * 3600
    film = asyncio.run(_film(seconds))
    tracks = track_skews(_sender(48_000), seconds, every=10).skews
    return [
        Figure(f"film, picture to sound after {hours:g} h", _worst_ms(film[-_END:]), "ms", SKEW_MS, digits=1),
        Figure("film, at any moment", _worst_ms(film[1:]), "ms", SKEW_MS, digits=1),
        Figure(
            f"tracks, picture to sound after {hours:g} h", _worst_ms(tracks[-1000:]), "ms", SKEW_MS, digits=1
        ),
        Figure("tracks, at any moment", _worst_ms(tracks), "ms", SKEW_MS, digits=1),
        Figure("what the clocks ran apart", 2 * PPM * 1e-3 * seconds, "ms"),
    ]


def _sender(sound_hz: int) -> DriftingSender:
    return DriftingSender(seed=9, sound_ppm=PPM, picture_ppm=-PPM, ntp_ppm=PPM, sound_hz=sound_hz)


async def _film(seconds: float) -> list[float]:
    """The bridge with real sound in it; every ten seconds a burst beside a picture."""
    return film_skews(_sender(8_000), seconds, every_s=10)


def _worst_ms(skews: Sequence[float]) -> float | None:
    return 1000 * float(np.max(np.abs(skews))) if len(skews) else None


def _main() -> Iterator[str]:
    for figure in drift(float(sys.argv[1]) if len(sys.argv) > 1 else HOURS):
        yield "  ".join(figure.row())


if __name__ == "__main__":
    print("\n".join(_main()))
