"""How busy a room's process is, read once a second from its ticks, its decoders and its own CPU clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

from mixer.intake import Intake
from mixer.overload import Overload, Sample, Step
from mixer.ticks import TickSchedule
from mixer.video.frame_clock import FrameClock

WATCH_S: Final = 1.0
_TOLD: Final = 0.05  # a change of the pressure, or of the cores in use, that control is told of


class LoadWatch:
    """Feeds one ``Overload``. ``cores``: what the server may use in all; ``None``: the machine's.

    ``acts``: otherwise the pressure is told, no step is taken and nobody refused. ``loop_cpu``, ``process_cpu``: CPU
    seconds of the calling thread, which is the loop's, and of the process.
    """

    def __init__(
        self,
        sound: TickSchedule,
        frames: FrameClock,
        intake: Intake,
        cores: float | None,
        *,
        acts: bool,
        loop_cpu: Callable[[], float] = time.thread_time,
        process_cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._sound = sound
        self._frames = frames
        self._intake = intake
        self._allowed = cores or float(os.cpu_count() or 1)
        self._overload = Overload(acts=acts)
        self._before: tuple[float, ...] | None = None
        self._loop_cpu = loop_cpu
        self._process_cpu = process_cpu
        self._told = ("full", False, 0.0, 0.0)
        self._cores = 0.0

    @property
    def step(self) -> Step:
        """What the canvas is held to now."""
        return self._overload.step

    @property
    def holes(self) -> bool:
        """Whether so many pictures are left out that a film of them has holes."""
        return self._overload.holes

    def set_recorded(self, recorded: bool) -> None:
        """Whether the room is recorded, which has steps of its own."""
        self._overload.set_recorded(recorded)

    def look(self, now: float) -> bool:
        """Take a reading if one is due. True when the step has changed."""
        if self._before is not None and now - self._before[0] < WATCH_S:
            return False
        frames = self._frames.stats()
        reading = (
            now,
            self._frames.busy_s,
            frames["run"],
            frames["dropped"],
            self._intake.decoding_s,
            self._loop_cpu(),
            self._sound.dropped,
            self._process_cpu(),
        )
        before, self._before = self._before, reading
        if before is None:
            return False
        elapsed_s, canvas_s, run, dropped, decoding_s, loop_s, silent, cpu_s = (
            max(0.0, new - old) for new, old in zip(reading, before, strict=True)
        )
        self._cores = cpu_s / elapsed_s
        index = self._overload.index
        self._overload.update(
            Sample(
                elapsed_s=elapsed_s,
                canvas_s=canvas_s,
                frames=round(run),
                frames_dropped=round(dropped),
                decoding_s=decoding_s,
                decoders=self._intake.decoders,
                loop_s=loop_s,
                sound_dropped=round(silent),
                cpu_s=cpu_s,
                cores=self._allowed,
            ),
            now,
        )
        return self._overload.index != index

    def news(self) -> dict[str, Any] | None:
        """What control should know now; None when it knows already."""
        overload = self._overload
        name, full, cores, pressure = self._told
        if (
            (overload.step.name, overload.full) == (name, full)
            and abs(self._cores - cores) < _TOLD
            and abs(overload.pressure - pressure) < _TOLD
        ):
            return None
        self._told = overload.step.name, overload.full, self._cores, overload.pressure
        return self.stats()

    def stats(self) -> dict[str, Any]:
        """``pressure``: share of the time there is, of what ``cause`` names. ``cores``: CPU in use."""
        overload = self._overload
        return {
            "pressure": round(overload.pressure, 3),
            "cause": overload.cause,
            "step": overload.index,
            "name": overload.step.name,
            "full": overload.full,
            "cores": round(self._cores, 3),
        }
