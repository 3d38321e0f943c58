from __future__ import annotations

import io
import threading
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mixer.media import EncodedVideo
from mixer.video.canvas import Canvas
from mixer.video.compositor import SPEAKER_RGB
from mixer.video.decoder import VideoDecoder
from mixer.video.encoder import EncodeFailed, make_encoder
from mixer.video.layout import LayoutBody, Source, Tile, arrange, parse_layout
from mixer.video.mailbox import Mailbox
from mixer.video.picture import Picture, Rgb, yuv_of
from tests.mixer.video.clips import plain

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (40, 60, 220), (250, 250, 250)
FPS = 30


class Room:
    """A canvas with people on it and a clock that only ``tick`` moves."""

    def __init__(self, *people: str, preset: str = "grid", **fields: Any) -> None:
        self.fields = {"preset": preset, "names": False} | fields
        self.now = 100.0
        self.index = 0
        self.version = 0
        self.sources = [Source(name, name, "webrtc", True) for name in people]
        self.canvas = Canvas(self.body, clock=lambda: self.now)
        self.boxes: dict[str, Mailbox] = {name: self.canvas.add_source(name) for name in people}
        self.frames: list[EncodedVideo] = []
        self.tiles: tuple[Tile, ...] = ()
        self.lay_out()

    @property
    def body(self) -> LayoutBody:
        return parse_layout(self.fields)

    def lay_out(self, speaker: str | None = None, **fields: Any) -> None:
        self.fields |= fields
        self.version += 1
        self.tiles = arrange(self.body, self.sources, speaker)
        self.canvas.set_arrangement(self.version, self.body, self.tiles, self.sources)
        self.canvas.set_speaker(speaker)

    def show(self, **colours: Rgb) -> None:
        for name, rgb in colours.items():
            self.boxes[name].put(plain(320, 180, rgb), self.now)

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.canvas.tick(self.index, self.now)
            self.index += 1
            self.now += 1 / FPS

    def watch(self, rendition: str = "high", codec: Any = "H264") -> None:
        self.canvas.want(rendition, codec, self.frames.append)

    def seen(self, name: str) -> tuple[int, int, int]:
        """The colour in the middle of a participant's tile."""
        tile = next(tile for tile in self.tiles if tile.participant == name)
        return self.at(tile.x + tile.width // 2, tile.y + tile.height // 4)

    def at(self, x: int, y: int) -> tuple[int, int, int]:
        red, green, blue = self.canvas.snapshot().to_rgb()[y, x]
        return int(red), int(green), int(blue)


def close(one: tuple[int, ...], other: tuple[int, ...], tolerance: int = 6) -> bool:
    return all(abs(int(a) - int(b)) <= tolerance for a, b in zip(one, other, strict=True))


# --- what is seen


def test_each_participant_is_in_its_tile() -> None:
    room = Room("a", "b", "c")
    room.watch()
    room.show(a=RED, b=GREEN, c=BLUE)
    room.tick()
    assert close(room.seen("a"), RED)
    assert close(room.seen("b"), GREEN)
    assert close(room.seen("c"), BLUE)


def test_a_canvas_apart_shows_others_and_is_drawn_only_while_it_is_wanted() -> None:
    room = Room("a", "b")
    room.watch()
    apart: list[EncodedVideo] = []
    willing = room.sources[1:]
    room.canvas.set_apart(room.body, arrange(room.body, willing, None), willing)
    room.canvas.want("apart", "H264", apart.append)
    room.show(a=RED, b=GREEN)
    room.tick(3)

    def colours(frames: list[EncodedVideo]) -> set[tuple[int, int, int]]:
        decoder = VideoDecoder("H264")
        rgb = [shown for frame in frames for shown in decoder.decode(frame)][-1].to_ndarray(format="rgb24")
        return {
            tuple(int(c) // 16 for c in rgb[y, x]) for y in range(40, 700, 60) for x in range(40, 1240, 60)
        }

    red, green = tuple(c // 16 for c in RED), tuple(c // 16 for c in GREEN)
    near = lambda one, all_: any(max(abs(a - b) for a, b in zip(one, c, strict=True)) <= 1 for c in all_)  # noqa: E731
    assert near(red, colours(room.frames))
    assert not near(red, colours(apart))
    assert near(green, colours(apart))
    count = len(apart)
    room.canvas.set_apart(room.body, None)
    room.tick(3)
    assert len(apart) == count, "no picture rather than the wrong one"


def test_a_tile_without_a_new_picture_keeps_the_old_one() -> None:
    room = Room("a", "b")
    room.watch()
    room.show(a=RED, b=GREEN)
    room.tick()
    room.show(b=BLUE)
    room.tick(60)
    assert close(room.seen("a"), RED)
    assert close(room.seen("b"), BLUE)


def test_nothing_decoded_for_five_seconds_is_a_placeholder_and_comes_back() -> None:
    room = Room("a", "b")
    room.watch("low")
    room.show(a=RED, b=GREEN)
    room.tick()
    for _ in range(5 * FPS - 2):
        room.show(b=GREEN)
        room.tick()
    assert close(room.seen("a"), RED)
    room.tick(4)
    assert not close(room.seen("a"), RED)
    assert close(room.seen("b"), GREEN)
    room.show(a=RED)
    room.tick()
    assert close(room.seen("a"), RED)


def test_camera_off_is_a_placeholder_at_once() -> None:
    room = Room("a", "b")
    room.watch()
    room.show(a=RED, b=GREEN)
    room.tick()
    room.sources[0] = Source("a", "a", "webrtc", False)
    room.lay_out()
    room.tick()
    assert not close(room.seen("a"), RED)
    assert close(room.seen("b"), GREEN)


def test_a_layout_change_is_never_black_and_needs_no_new_picture() -> None:
    room = Room("a", "b", "c", "d")
    room.watch()
    room.show(a=RED, b=GREEN, c=BLUE, d=WHITE)
    room.tick()
    room.lay_out(preset="spotlight", speaker="c")
    assert close(room.at(100, 100), RED)  # nothing happens between two ticks
    room.tick()
    for name, colour in (("a", RED), ("b", GREEN), ("c", BLUE), ("d", WHITE)):
        assert close(room.seen(name), colour)
    room.lay_out(preset="speaker", speaker="d")
    room.tick()
    assert close(room.at(1000, 600), WHITE)


def test_a_smaller_canvas_is_encoded_in_the_same_size() -> None:
    room = Room("a")
    room.watch()
    room.show(a=RED)
    room.tick()
    room.lay_out(canvas={"width": 640, "height": 480, "background": "#0000ff"})
    room.tick()
    assert room.canvas.snapshot().y.shape == (480, 640)
    decoder = VideoDecoder("H264")
    shown = [frame for coded in room.frames for frame in decoder.decode(coded)][-1]
    assert (shown.width, shown.height) == (1280, 720)
    rgb = shown.to_ndarray(format="rgb24")
    assert close(tuple(rgb[360, 640]), RED, 25)
    assert close(tuple(rgb[360, 40]), (0, 0, 255), 40)  # bars beside a 4:3 canvas


def test_the_speaker_has_a_border_until_someone_else_speaks() -> None:
    room = Room("a", "b")
    room.watch()
    room.show(a=RED, b=GREEN)
    room.canvas.set_speaker("a")
    room.tick()
    assert close(room.at(1, 300), SPEAKER_RGB)
    room.canvas.set_speaker("b")
    room.tick()
    assert close(room.at(1, 300), RED)
    assert close(room.at(1278, 300), SPEAKER_RGB)
    room.lay_out(speaker_border=False, speaker="b")
    room.tick()
    assert close(room.at(1278, 300), GREEN)


def test_names_are_drawn_when_wanted() -> None:
    room = Room("a", "b", names=True)
    room.watch()
    room.show(a=RED, b=GREEN)
    room.tick()
    with_names = room.canvas.snapshot().y
    room.lay_out(names=False)
    room.tick()
    without = room.canvas.snapshot().y
    changed = np.argwhere(with_names != without)
    assert len(changed) > 500
    assert changed[:, 0].min() > 720 * 0.9  # at the foot of the tiles


def test_one_bad_picture_costs_only_its_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room("a", "b")
    room.watch()
    room.show(a=RED, b=GREEN)
    room.tick()
    room.boxes["a"].put(av.VideoFrame(2, 2, "yuv420p").reformat(format="gray16be"), room.now)
    from mixer.video.scaler import Scaler

    healthy = Scaler.place

    def sick(scaler: Scaler, frame: av.VideoFrame, *args: Any) -> Picture:
        if frame.format.name == "gray16be":
            raise ValueError("cannot be scaled")
        return healthy(scaler, frame, *args)

    monkeypatch.setattr(Scaler, "place", sick)
    room.show(b=BLUE)
    room.tick()
    assert close(room.seen("a"), RED)  # its last good picture
    assert close(room.seen("b"), BLUE)
    assert room.canvas.stats()["failed_tiles"] == 1


def test_one_who_comes_back_under_the_same_name_is_seen_anew() -> None:
    room = Room("a")
    room.watch()
    room.show(a=RED)
    room.tick()
    room.canvas.remove_source("a")
    room.tick()
    assert not close(room.seen("a"), RED)
    room.boxes["a"] = room.canvas.add_source("a")
    room.show(a=GREEN)
    room.tick()
    assert close(room.seen("a"), GREEN)
    room.boxes["a"] = room.canvas.add_source("a")  # a new session takes over within one tick
    room.show(a=BLUE)
    room.tick()
    assert close(room.seen("a"), BLUE)


def test_images_are_shown_where_a_region_names_them() -> None:
    body = parse_layout(
        {
            "preset": "custom",
            "regions": [{"id": "i", "width": "1/2", "height": "1", "source": "image:logo", "fit": "contain"}],
        }
    )
    canvas = Canvas(body, images={"logo": Picture.blank(200, 100, RED)}, clock=lambda: 0.0)
    canvas.set_arrangement(1, body, arrange(body, [], None))
    rgb = canvas.snapshot().to_rgb()
    assert close(tuple(rgb[360, 320]), RED)
    assert close(tuple(rgb[100, 320]), (16, 24, 32))


# --- what is encoded


def test_pts_count_ticks_and_the_first_picture_is_a_keyframe() -> None:
    room = Room("a")
    room.watch()
    room.index = 7
    room.show(a=RED)
    room.tick(3)
    assert [frame.pts for frame in room.frames] == [21000, 24000, 27000]
    assert [frame.keyframe for frame in room.frames] == [True, False, False]


@pytest.mark.parametrize(("rendition", "fps", "size"), [("medium", 15, (640, 360)), ("low", 8, (320, 180))])
def test_slower_renditions_take_evenly_spread_ticks(rendition: str, fps: int, size: tuple[int, int]) -> None:
    room = Room("a")
    room.watch(rendition)
    room.tick(2 * FPS)
    pts = [frame.pts for frame in room.frames]
    assert 2 * fps <= len(pts) <= 2 * fps + 1
    assert set(np.diff(pts) // 3000) <= {FPS // fps, -(-FPS // fps)}
    shown = VideoDecoder("H264").decode(room.frames[0])[0]
    assert (shown.width, shown.height) == size


def test_each_rendition_is_encoded_once_and_only_while_wanted() -> None:
    room = Room("a")
    assert not room.canvas.wanted
    vp8: list[EncodedVideo] = []
    room.watch("medium")
    room.canvas.want("medium", "VP8", vp8.append)
    assert room.canvas.wanted
    room.tick(4)
    assert (len(room.frames), len(vp8)) == (2, 2)
    assert {frame.codec for frame in vp8} == {"VP8"}
    room.canvas.unwant("medium", "VP8")
    room.tick(4)
    assert (len(room.frames), len(vp8)) == (4, 2)
    assert set(room.canvas.stats()["renditions"]) == {"medium H264"}
    room.canvas.unwant("medium", "H264")
    assert not room.canvas.wanted


def test_keyframes_come_on_demand_without_waiting_for_a_slow_rendition() -> None:
    room = Room("a")
    room.watch("low")
    room.tick(2)
    assert len(room.frames) == 1
    room.canvas.force_keyframe("low", "H264")
    room.tick()
    assert [frame.keyframe for frame in room.frames] == [True, True]
    room.tick(30)
    assert sum(frame.keyframe for frame in room.frames) == 2


def test_a_recording_gets_keyframes_at_its_interval() -> None:
    room = Room("a")
    room.watch("medium")
    room.canvas.set_keyframe_interval("medium", "H264", 1.0)
    room.tick(4 * FPS)
    keyframes = [frame.pts for frame in room.frames if frame.keyframe]
    assert set(np.diff(keyframes)) == {90_000}
    room.canvas.set_keyframe_interval("medium", "H264", None)
    before = len(keyframes)
    room.tick(2 * FPS)
    assert sum(frame.keyframe for frame in room.frames) == before


def test_a_failed_encoder_is_replaced_and_the_others_go_on() -> None:
    made: list[str] = []

    def factory(codec: Any, width: int, height: int, fps: int, bps: int, *, sharp: bool) -> Any:
        encoder = make_encoder(codec, width, height, fps, bps, sharp=sharp)
        made.append(codec)
        if made == ["H264"]:

            def fail(*_: Any, **__: Any) -> None:
                raise EncodeFailed("out of order")

            encoder.encode = fail  # type: ignore[method-assign,assignment]
        return encoder

    body = LayoutBody()
    canvas = Canvas(body, encoders=factory, clock=lambda: 0.0)
    h264: list[EncodedVideo] = []
    vp8: list[EncodedVideo] = []
    canvas.want("low", "H264", h264.append)
    canvas.want("low", "VP8", vp8.append)
    for index in range(8):
        canvas.tick(index, index / FPS)
    assert len(vp8) >= 2
    assert h264[0].keyframe
    assert made == ["H264", "VP8", "H264"]
    assert canvas.stats()["renditions"]["low H264"]["failed"] == 1


def test_sound_only_has_no_picture() -> None:
    with pytest.raises(ValueError, match="audio"):
        Canvas(LayoutBody()).want("audio", "H264", lambda _: None)


def test_the_rate_of_ticks_changes_between_ticks() -> None:
    room = Room("a")
    room.watch()
    room.tick(3)
    room.lay_out(canvas={"fps": 15})
    assert room.canvas.fps == 30
    room.tick()
    assert room.frames[-1].pts == 9000  # this tick was still counted at 30
    assert room.canvas.fps == 15
    room.index = 2  # the same instant, counted at 15
    room.tick()
    assert room.frames[-1].pts == 12000


# --- pictures for people


def test_a_snapshot_while_nobody_watches_is_up_to_date() -> None:
    room = Room("a")
    room.show(a=RED)
    image = Image.open(io.BytesIO(room.canvas.snapshot_png()))
    assert image.size == (1280, 720)
    assert close(image.getpixel((640, 300)), RED)  # type: ignore[arg-type]
    room.show(a=GREEN)
    assert close(room.seen("a"), GREEN)


def test_a_preview_shows_the_current_pictures_and_leaves_the_canvas_alone() -> None:
    room = Room("a", "b")
    room.watch()
    room.show(a=RED, b=GREEN)
    room.tick()
    before = room.canvas.snapshot()
    body = parse_layout({"preset": "speaker", "names": False, "canvas": {"width": 640, "height": 360}})
    image = Image.open(
        io.BytesIO(room.canvas.preview_png(body, arrange(body, room.sources, "b"), room.sources))
    )
    assert image.size == (640, 360)
    assert close(image.getpixel((320, 100)), GREEN)  # type: ignore[arg-type]
    room.tick()
    after = room.canvas.snapshot()
    assert all(np.array_equal(a, b) for a, b in zip(before.planes, after.planes, strict=True))


# --- threads and numbers


def test_the_mailbox_keeps_the_newest_and_counts_the_others() -> None:
    box = Mailbox()
    first, second = plain(16, 16, RED), plain(16, 16, GREEN)
    box.put(first, 1.0)
    box.put(second, 2.0)
    assert box.take() is second
    assert box.take() is None
    assert (box.received, box.overwritten, box.at) == (2, 1, 2.0)


def test_changes_wait_for_a_tick_but_never_pile_up() -> None:
    room = Room("a")
    for turn in range(1000):
        room.lay_out(speaker="a" if turn % 2 else None)
    assert len(room.canvas._inbox) <= 64
    room.watch()
    room.tick()
    assert room.canvas.stats()["version"] == room.version


def test_other_threads_may_ask_for_anything_while_it_ticks() -> None:
    room = Room("a", "b", "c")
    room.watch("low")
    stop = threading.Event()
    failures: list[Exception] = []

    def bother() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                body = parse_layout({"preset": "spotlight" if turn % 2 else "grid"})
                room.canvas.set_arrangement(turn, body, arrange(body, room.sources, "b"), room.sources)
                room.canvas.stats()
                room.canvas.snapshot()
                room.canvas.force_keyframe("low", "H264")
                room.boxes["a"].put(plain(64, 48, RED), room.now)
            except Exception as error:  # the test reports whatever it is
                failures.append(error)
                return

    thread = threading.Thread(target=bother)
    thread.start()
    try:
        room.tick(60)
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert room.canvas.stats()["ticks"]["run"] == 60


def test_stats_count_ticks_freezes_and_rates() -> None:
    room = Room("a")
    room.watch()
    room.show(a=RED)
    room.tick(31)
    room.index += 4
    room.tick(30)
    stats = room.canvas.stats()
    assert (stats["ticks"]["run"], stats["ticks"]["dropped"]) == (61, 4)
    assert 1500 <= stats["sources"]["a"]["frozen_ms"] <= 2000
    assert stats["renditions"]["high H264"]["fps"] == pytest.approx(30, abs=1)
    assert stats["renditions"]["high H264"]["encoded"] == 61
    assert yuv_of(RED)[0] == room.canvas.snapshot().y[300, 640]


def test_who_decodes_hears_how_large_the_picture_is_shown() -> None:
    room = Room("a", "b", "c", "d", "e")
    room.watch()
    room.tick()
    assert room.boxes["a"].tile_width == 426
    room.lay_out(preset="speaker", speaker="a")
    room.tick()
    assert (room.boxes["a"].tile_width, room.boxes["b"].tile_width) == (1280, None)
    assert room.canvas.add_source("a") is not room.boxes["a"]


def test_a_shared_screen_that_fills_the_canvas_gives_up_frames_while_it_is_there() -> None:
    room = Room("a", preset="presentation")
    room.watch("medium")
    room.tick(FPS)
    assert 15 <= len(room.frames) <= 16
    room.sources.append(Source("a#screen", "a", "webrtc", True, screen=True))
    room.boxes["a#screen"] = room.canvas.add_source("a#screen")
    room.lay_out()
    room.frames.clear()
    room.tick(FPS)
    assert 8 <= len(room.frames) <= 9
    assert room.frames[0].keyframe  # another encoder, made for that rate and that kind of picture
    room.lay_out(preset="grid")
    room.frames.clear()
    room.tick(2)
    assert room.canvas.stats()["renditions"]["medium H264"]["failed"] == 0
    assert 1 <= len(room.frames) <= 2  # half the canvas each: as it was still counts
    room.sources.pop()
    room.lay_out()
    room.frames.clear()
    room.tick(FPS)
    assert 15 <= len(room.frames) <= 16
