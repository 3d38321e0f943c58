"""The clocks beside the tracks: lines of ``tracks.jsonl`` from which an archivist can compute every time again. Pure.

``clock``: at ``t`` of the recording a stream stood at ``rtp`` (``rate`` a second) and its sender's NTP clock at
``ntp``; in between two lines both run straight. ``wait``: from ``t`` on the mix let a participant's sound, and their
picture with it, wait ``ms`` milliseconds instead of the usual 40: by so much more they are later in the film.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from recording.mediatime import INSTANT_HZ, seconds
from recording.timeline import USUAL_WAIT_MS

CLOCK_EVERY_S: Final = 60.0  # 200 ppm are 12 ms a minute, and between two lines the clock runs straight
CLOCK_STEP_S: Final = 0.02  # a frame that is off the line by a picture begins a new one ...
CLOCK_LEAST_S: Final = 1.0  # ... but not sooner: a sender that sets its clock all the time fills no disk
WAIT_STEP_MS: Final = 10  # a third of a picture
WAIT_EVERY_S: Final = 0.5  # of each participant: a wait moves by pitch periods, a few a second


class TrackJournal:
    """Decides what is worth a line. ``write`` takes it whole, newline included. Times are instants of the file."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._clocks: dict[str, tuple[int, int]] = {}  # by file: rtp and instant of its last line
        self._waits: dict[str, tuple[int, int]] = {}  # by participant: as noted last, and when

    def clock(self, file: str, rate_hz: int, rtp: int, taken_s: float | None, media: int) -> None:
        """A frame of ``file``, and where its sender's clocks stood."""
        last = self._clocks.get(file)
        if last is not None:
            passed_s = seconds(media - last[1])
            off_s = abs(passed_s - (rtp - last[0]) / rate_hz)
            due_s = CLOCK_EVERY_S if off_s < CLOCK_STEP_S else CLOCK_LEAST_S
            if abs(passed_s) < due_s:
                return
        self._clocks[file] = rtp, media
        told = {} if taken_s is None else {"ntp": round(taken_s, 6)}
        self._line("clock", media, {"file": file, "rtp": rtp, "rate": rate_hz, **told})

    def forget(self, file: str) -> None:
        """Nothing more comes of it."""
        self._clocks.pop(file, None)

    def wait(self, participant: str, wait_ms: int, media: int) -> None:
        """How long the mix lets somebody wait now."""
        noted_ms, at = self._waits.get(participant, (USUAL_WAIT_MS, -INSTANT_HZ))
        if abs(wait_ms - noted_ms) >= WAIT_STEP_MS and abs(media - at) >= WAIT_EVERY_S * INSTANT_HZ:
            self._waits[participant] = wait_ms, media
            self._line("wait", media, {"participant": participant, "ms": wait_ms})

    def _line(self, event: str, media: int, fields: dict[str, Any]) -> None:
        body = {"t": round(seconds(media), 6), "event": event, **fields}
        self._write(json.dumps(body, separators=(",", ":")).encode() + b"\n")
