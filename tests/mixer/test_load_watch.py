"""A second of a room's process, read from its clocks and counters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mixer.load_watch import LoadWatch


class Room:
    """What a ``LoadWatch`` reads; ``spend`` makes a second go by, in which so much was done."""

    def __init__(self, *, cores: float | None = 2.0, acts: bool = True) -> None:
        self.sound = SimpleNamespace(dropped=0)
        self.frames = SimpleNamespace(busy_s=0.0, run=0, dropped=0)
        self.frames.stats = lambda: {"run": self.frames.run, "dropped": self.frames.dropped}
        self.intake = SimpleNamespace(decoding_s=0.0, decoders=2)
        self.loop_s = 100.0  # clocks begin anywhere
        self.cpu_s = 200.0
        self.now = 300.0
        read: Any = self
        self.watch = LoadWatch(
            read.sound,
            read.frames,
            read.intake,
            cores,
            acts=acts,
            loop_cpu=lambda: self.loop_s,
            process_cpu=lambda: self.cpu_s,
        )
        assert not self.watch.look(self.now)

    def elapse(self, **done: float) -> None:
        """A second goes by, unseen."""
        self.now += 1.0
        self.frames.run += round(done.get("run", 30))
        self.frames.dropped += round(done.get("dropped", 0))
        self.frames.busy_s += done.get("canvas_s", 0.1)
        self.intake.decoding_s += done.get("decoding_s", 0.1)
        self.sound.dropped += round(done.get("silent", 0))
        self.loop_s += done.get("loop_s", 0.1)
        self.cpu_s += done.get("cpu_s", 0.4)

    def spend(self, seconds: int = 1, **done: float) -> bool:
        """Whether the last one changed the step."""
        changed = False
        for _ in range(seconds):
            self.elapse(**done)
            changed = self.watch.look(self.now)
        return changed


@pytest.mark.parametrize(
    ("done", "cause", "pressure"),
    [
        ({"canvas_s": 0.7}, "canvas", 0.7),
        ({"run": 38, "dropped": 2}, "frames", 0.5),
        ({"decoding_s": 1.2}, "decoding", 0.6),  # of two threads
        ({"loop_s": 0.55}, "loop", 0.55),
        ({"silent": 1}, "sound", 1.0),
        ({"cpu_s": 1.6}, "cores", 0.8),  # of two
    ],
)
def test_each_clock_and_counter_is_read_as_what_it_is(
    done: dict[str, float], cause: str, pressure: float
) -> None:
    room = Room()
    room.spend(3)  # what was done before is not in it
    room.spend(**done)
    stats = room.watch.stats()
    assert (stats["cause"], stats["pressure"]) == (cause, pytest.approx(pressure, abs=0.001))
    assert stats["cores"] == pytest.approx(done.get("cpu_s", 0.4), abs=0.001)


def test_it_is_read_once_a_second_and_held_against_the_time_that_went_by() -> None:
    room = Room()
    room.spend()
    before = room.watch.stats()
    room.frames.busy_s += 5.0
    room.now += 0.9
    assert not room.watch.look(room.now)
    assert room.watch.stats() == before
    room.now += 4.1
    room.watch.look(room.now)
    assert room.watch.stats()["pressure"] == pytest.approx(1.0, abs=0.001)


def test_a_step_is_seen_once_and_told_with_the_door_before_it() -> None:
    room = Room()
    room.spend()
    assert room.watch.news() is not None
    told = []
    for _ in range(5):
        if room.spend(canvas_s=0.98):
            told.append("step")
        news = room.watch.news()
        if news is not None:
            told.append((news["full"], news["step"], news["name"]))
    assert told == [(False, 0, "full"), (True, 0, "full"), "step", (True, 1, "fps-20")]
    assert room.watch.step.fps == 20


def test_a_pressure_that_moves_is_told_though_the_cores_in_use_do_not() -> None:
    room = Room()
    room.spend()
    room.watch.news()
    room.spend()
    assert room.watch.news() is None
    room.spend(decoding_s=1.2)
    news = room.watch.news()
    assert news is not None
    assert news["pressure"] == pytest.approx(0.6, abs=0.001)


def test_a_recording_changes_the_steps_and_that_is_news() -> None:
    room = Room()
    room.spend(12, canvas_s=1.5)
    assert room.watch.stats()["name"] == "size-3/4"
    room.watch.news()
    room.watch.set_recorded(True)
    news = room.watch.news()
    assert news is not None
    assert (news["step"], news["name"]) == (3, "viewers-1/2")


def test_where_it_only_tells_no_step_is_taken() -> None:
    room = Room(acts=False)
    assert not room.spend(20, canvas_s=1.5)
    assert room.watch.stats()["pressure"] == pytest.approx(1.5, abs=0.001)
    assert room.watch.step.name == "full"
    room.spend(dropped=6)
    assert room.watch.holes
