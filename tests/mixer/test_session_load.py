"""What a room gives up for its load: pictures, their size, tiles, on the canvas itself; of a film only pictures."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest_asyncio

from mixer import protocol
from mixer.overload import RECORDED_STEPS, STEPS, Step
from mixer.session import Session
from mixer.video.frame import frame_of
from mixer.video.layout import LayoutBody
from mixer.video.mailbox import Mailbox
from mixer.video.picture import Picture
from tests.contracts.room_host import SETTINGS
from tests.mixer.test_load_watch import Room as Clocks

PEOPLE = [f"p{number}" for number in range(9)]
STRIPE_PX = 4  # of a picture of the tile's size: gone where that is drawn at half and scaled up again


@functools.cache
def striped(number: int) -> av.VideoFrame:
    """A picture of the tile's size: stripes, of a grey of their own."""
    rgb = np.full((240, 426, 3), 60 + 10 * number, np.uint8)
    rgb[:, (np.arange(426) // STRIPE_PX) % 2 == 1] += 80
    return frame_of(Picture.from_rgb(rgb))


class Loaded:
    """A session of nine with a picture, whose clocks, counters and ticks are the test's."""

    def __init__(self) -> None:
        self.said: list[protocol.Event] = []
        state = protocol.RoomState(
            room="r", epoch=1, settings=SETTINGS, layout_version=1, layout=LayoutBody(names=False)
        )
        self.session = Session(state, self.said.append)
        self.clocks = Clocks()
        self.session._load = self.clocks.watch
        self.canvas = self.session._canvas
        self.boxes: dict[str, Mailbox] = {}
        self.index = 0
        for name in PEOPLE:
            self.session._roster[name] = protocol.RosterEntry(id=name, name=name, publishes=True)
            self.boxes[name] = self.canvas.add_source(name)
        lanes: Any = dict.fromkeys(PEOPLE)
        self.session._intake.has_picture = lanes.__contains__  # type: ignore[method-assign]
        self.session._rearrange()

    def spend(self, seconds: int, **done: float) -> None:
        for _ in range(seconds):
            self.clocks.elapse(**done)
            self.session._watch_load(self.clocks.now)

    def tick(self) -> None:
        """One frame of everybody's picture."""
        now = self.clocks.now + self.index / 30
        for number, name in enumerate(PEOPLE):
            self.boxes[name].put(striped(number), now)
        self.canvas.tick(self.index, now)
        self.index += 1

    def seen(self) -> tuple[int, int, int, int]:
        """Width, height, pictures a second and tiles of the canvas; the last tile may be the counter of the rest."""
        self.tick()
        canvas = self.canvas.snapshot()
        return canvas.width, canvas.height, self.canvas.fps, len(self.canvas._scene.tiles)


@pytest_asyncio.fixture
async def loaded() -> AsyncIterator[Loaded]:
    made = Loaded()
    yield made
    await made.session.stop("the test is over")


def expected(step: Step) -> tuple[int, int, int, int]:
    tiles = min(len(PEOPLE), step.max_tiles)
    return 1280 * step.quarters // 4, 720 * step.quarters // 4, min(30, step.fps), tiles


async def test_the_canvas_follows_every_step_down_and_back(loaded: Loaded) -> None:
    assert loaded.seen() == (1280, 720, 30, 9)
    told = []
    for step in STEPS[1:]:
        loaded.spend(4, canvas_s=1.5)
        assert loaded.clocks.watch.step is step
        assert loaded.seen() == expected(step), step.name
        told.append(step.name)
    for step in reversed(STEPS[:-1]):
        while loaded.clocks.watch.step is not step:
            loaded.spend(1)
        assert loaded.seen() == expected(step), step.name
        told.append(step.name)
    assert loaded.seen() == (1280, 720, 30, 9)
    names = [event.name for event in loaded.said if isinstance(event, protocol.LoadChanged)]
    assert [name for name, before in zip(names, [None, *names], strict=False) if name != before][1:] == told


async def test_senders_are_asked_for_what_is_still_seen(loaded: Loaded) -> None:
    wanted: list[dict[str, Any]] = []
    loaded.session._intake.show = lambda demands, now: wanted.append(dict(demands))  # type: ignore[method-assign]
    loaded.session._distribution.record(lambda frame: None)  # somebody takes the largest rendition
    loaded.session._rearrange()
    before = wanted[-1]
    loaded.spend(4 * (len(STEPS) - 1), canvas_s=1.5)
    assert len(before) == 9
    assert len(wanted[-1]) == 3, "and a counter"
    assert wanted[-1]["p0"].fps == 15 < before["p0"].fps
    loaded.session._distribution.stop_recording()


async def record(loaded: Loaded, directory: Path) -> None:
    await asyncio.to_thread(directory.mkdir)
    order = protocol.RecordingOrder(id="REC", directory=str(directory))
    await loaded.session.handle(protocol.StartRecording(recording=order))


async def film(loaded: Loaded, directory: Path, pictures: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Record so many pictures; the luma of the last one of the film."""
    await record(loaded, directory)
    for _ in range(pictures):
        loaded.tick()
        await asyncio.sleep(0)  # what the canvas' thread hands over is taken by the loop
    await loaded.session.handle(protocol.ChangeRecording(id="REC", state="stopped"))
    with av.open(str(directory / "data" / "recording.mp4")) as container:
        shown = list(container.decode(video=0))
    assert len(shown) >= pictures / 3
    return shown[-1].to_ndarray(format="gray").astype(np.float64)


def sharpness(luma: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """How much of its stripes each of nine tiles has; 0 where nobody is."""
    tiles = [luma[y + 40 : y + 200, x + 40 : x + 386] for y in (0, 240, 480) for x in (0, 426, 852)]
    return [float(tile.std(axis=1).mean()) for tile in tiles]


async def test_a_film_under_load_has_everybody_as_sharp_as_without(loaded: Loaded, tmp_path: Path) -> None:
    calm = sharpness(await film(loaded, tmp_path / "calm", 12))
    assert min(calm) > 20, "the stripes are seen at all"
    loaded.spend(4 * (len(STEPS) - 1), canvas_s=1.5)
    assert loaded.seen() == expected(STEPS[-1])
    pressed = sharpness(await film(loaded, tmp_path / "pressed", 12))
    assert min(pressed) > 0.8 * min(calm)
    assert loaded.seen()[:2] != (1280, 720), "the room gives up again what it gave up before"


async def test_a_recorded_room_gives_up_what_only_viewers_see_and_its_timeline_says_so(
    loaded: Loaded, tmp_path: Path
) -> None:
    held: list[str] = []
    loaded.session._distribution.hold_viewers = held.append  # type: ignore[method-assign]
    await record(loaded, tmp_path / "film")
    for step in RECORDED_STEPS[1:]:
        loaded.spend(4, canvas_s=1.5)
        assert loaded.seen() == (1280, 720, step.fps, 9), step.name
        assert held[-1] == step.viewers
    loaded.spend(1, canvas_s=1.5, dropped=10)
    loaded.spend(6, canvas_s=1.5)
    await loaded.session.handle(protocol.ChangeRecording(id="REC", state="stopped"))
    timeline = (tmp_path / "film" / "data" / "timeline.jsonl").read_text()
    names = [f"load: {step.name}" for step in RECORDED_STEPS[1:]]
    places = [
        timeline.find(f'"{name}"')
        for name in [*names, "load: pictures left out", "load: pictures whole again"]
    ]
    assert -1 not in places
    assert places == sorted(places)


async def test_a_recording_that_begins_under_load_says_at_once_what_is_given_up(
    loaded: Loaded, tmp_path: Path
) -> None:
    loaded.spend(4 * (len(STEPS) - 1), canvas_s=1.5)
    await record(loaded, tmp_path / "film")
    assert loaded.seen() == (1280, 720, 15, 9)
    await loaded.session.handle(protocol.ChangeRecording(id="REC", state="stopped"))
    assert '"load: viewers-1/4"' in (tmp_path / "film" / "data" / "timeline.jsonl").read_text()
