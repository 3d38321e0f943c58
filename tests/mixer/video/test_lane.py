"""A decode lane: in order, bounded, only what is shown, and never past a gap without a keyframe."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest

from mixer.media import EncodedVideo
from mixer.video.encoder import Vp8Encoder
from mixer.video.lane import BATCH, MAX_QUEUED, MAX_WAIT_S, MOST_AT_ONCE, MOST_FPS, DecodeLane
from mixer.video.mailbox import Mailbox
from mixer.video.picture import Picture


class LaterExecutor(Executor):
    """Runs what was submitted when told to, so that a queue can fill up."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.jobs.append(lambda: fn(*args, **kwargs))
        return Future()

    def run(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


class Bench:
    def __init__(self) -> None:
        self.pool = LaterExecutor()
        self.mailbox = Mailbox()
        self.asked = 0
        self.now = 0.0
        self.lane = DecodeLane(self.pool, self.mailbox, self.ask, clock=lambda: self.now)

    def ask(self) -> None:
        self.asked += 1

    def shade(self) -> int:
        """Luma of the newest decoded picture."""
        frame = self.mailbox.take()
        assert frame is not None
        return int(np.frombuffer(frame.planes[0], np.uint8)[0])


@pytest.fixture(scope="module")
def clip() -> list[EncodedVideo]:
    """40 grey VP8 pictures, each a little lighter; keyframes at 0 and 30."""
    encoder = Vp8Encoder(64, 64, 30, 200_000)
    frames = []
    for n in range(40):
        picture = Picture.blank(64, 64, (40 + 4 * n,) * 3)
        frame = encoder.encode(picture, n * 3000, keyframe=n in {0, 30})
        assert frame is not None
        frames.append(frame)
    return frames


def test_pictures_are_decoded_in_order_and_the_newest_is_shown(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    for frame in clip[:6]:
        bench.lane.push(frame)
    bench.pool.run()
    assert bench.lane.decoded == 6
    assert bench.mailbox.overwritten == 5
    newest = bench.shade()
    bench.lane.push(clip[6])
    bench.pool.run()
    assert bench.shade() > newest


def test_nothing_is_decoded_before_a_keyframe(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    for frame in clip[1:5]:
        bench.lane.push(frame)
    bench.pool.run()
    assert (bench.lane.decoded, bench.lane.dropped) == (0, 4)


def test_an_overflow_drops_to_the_next_keyframe_and_asks_for_one(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    for frame in clip[: MAX_QUEUED + 1]:
        bench.lane.push(frame)
    assert bench.asked == 1
    assert bench.lane.depth == 0
    for frame in clip[MAX_QUEUED + 1 : 32]:
        bench.lane.push(frame)
    bench.pool.run()
    assert bench.lane.decoded == 2, "the keyframe at 30 and the picture after it"
    assert bench.lane.failed == 0


def test_many_at_once_are_no_overflow_but_a_decoder_that_is_late_is(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    for frame in clip[:15]:  # half a second of them: a packet was repaired
        bench.lane.push(frame)
    bench.pool.run()
    assert (bench.lane.decoded, bench.lane.dropped) == (15, 0)
    for number in range(15, 29):  # nobody decodes
        bench.now = number / 30
        bench.lane.push(clip[number])
    assert bench.now - 15 / 30 > MAX_WAIT_S
    assert bench.asked == 1
    assert bench.lane.depth == 0


@pytest.mark.parametrize("all_keyframes", [False, True])
def test_who_sends_400_pictures_a_second_costs_what_72_do(
    clip: list[EncodedVideo], all_keyframes: bool
) -> None:
    """The sender answers each request for a keyframe."""
    bench, seconds, answered = Bench(), 10, 0
    for number in range(400 * seconds):
        bench.now = number / 400
        keyframe = all_keyframes or not number or bench.asked > answered
        answered = bench.asked
        bench.lane.push(clip[0] if keyframe else clip[1 + number % 29])
        bench.pool.run()
    lane = bench.lane
    assert lane.decoded <= MOST_AT_ONCE + MOST_FPS * seconds
    assert lane.decoded > 0.9 * MOST_FPS * seconds, "it is shown, if not smoothly"
    assert lane.excess > 0.7 * 400 * seconds
    assert lane.dropped + lane.decoded == 400 * seconds
    assert lane.failed == 0, "nothing is decoded whose reference was left out"
    if not all_keyframes:
        assert 0 < bench.asked <= 2 * seconds + 1, "not a keyframe for each that was left out"


@pytest.mark.parametrize("fps", [30, 60])
def test_a_camera_s_rate_is_never_too_much_even_after_a_second_of_nothing(
    clip: list[EncodedVideo], fps: int
) -> None:
    bench = Bench()
    for number in range(fps * 20):
        second = number // fps
        # every other second's pictures come together, at its end
        bench.now = float(second + 1) if second % 2 else number * 1.001 / fps
        bench.lane.push(clip[number % 30])
        bench.pool.run()
    assert (bench.lane.excess, bench.lane.dropped, bench.asked) == (0, 0, 0)
    assert bench.lane.decoded == fps * 20


def test_what_is_not_shown_is_not_decoded_and_comes_back_with_a_keyframe(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    bench.lane.push(clip[0])
    bench.pool.run()
    bench.lane.set_shown(False)
    for frame in clip[1:20]:
        bench.lane.push(frame)
    bench.pool.run()
    assert bench.lane.decoded == 1
    bench.lane.set_shown(True)
    assert bench.asked == 1
    for frame in clip[20:31]:
        bench.lane.push(frame)
    bench.pool.run()
    assert bench.lane.decoded == 2


def test_garbage_costs_the_picture_not_the_lane(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    bench.lane.push(clip[0])
    bench.lane.push(EncodedVideo("VP8", b"\x00" * 40, 3000, keyframe=True))
    bench.lane.push(clip[2])
    bench.pool.run()
    assert bench.lane.failed == 1
    assert bench.asked == 1
    bench.lane.push(clip[30])
    bench.pool.run()
    assert bench.lane.decoded == 2


def test_a_long_queue_goes_to_the_back_of_the_pool_between_batches(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    for frame in clip[: BATCH + 2]:
        bench.lane.push(frame)
    bench.pool.jobs.pop(0)()
    assert bench.lane.decoded == BATCH
    assert len(bench.pool.jobs) == 1, "queued again behind others, once"
    bench.pool.run()
    assert bench.lane.decoded == BATCH + 2


def test_what_waits_for_a_decoder_is_late(clip: list[EncodedVideo]) -> None:
    now = 0.0
    bench = Bench()
    bench.lane = DecodeLane(bench.pool, bench.mailbox, bench.ask, clock=lambda: now)
    for frame in clip[: MAX_QUEUED // 2]:
        bench.lane.push(frame)
    now = 0.15
    bench.pool.run()
    assert 0.1 < bench.lane.late_s < 0.15
    for frame in clip[MAX_QUEUED // 2 :]:
        bench.lane.push(frame)
        bench.pool.run()
    assert bench.lane.late_s < 0.01, "and in time again"


def test_a_closed_lane_decodes_nothing_more(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    bench.lane.push(clip[0])
    bench.lane.close()
    bench.pool.run()
    bench.lane.push(clip[30])
    assert bench.lane.decoded == 0
    assert bench.mailbox.take() is None


def test_a_picture_that_is_too_large_is_refused_without_asking_for_another(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    header = b"\x10\x02\x00\x9d\x01\x2a" + (4096).to_bytes(2, "little") + (2160).to_bytes(2, "little")
    for n in range(5):
        bench.lane.push(EncodedVideo("VP8", header + bytes(2000), n * 3000, keyframe=True))
    bench.pool.run()
    assert (bench.lane.decoded, bench.asked) == (0, 0)
    assert bench.lane.refused is not None
    assert "4096×2160" in bench.lane.refused
    bench.lane.push(clip[0])
    bench.pool.run()
    assert (bench.lane.decoded, bench.lane.refused) == (1, None)


def test_a_small_tile_is_decoded_without_the_loop_filter_from_a_keyframe_on(clip: list[EncodedVideo]) -> None:
    bench = Bench()
    bench.lane.push(clip[0])
    bench.pool.run()
    assert bench.lane._decoder is not None
    assert not bench.lane._decoder.skips_loop_filter  # nobody has said yet how large it is shown
    bench.mailbox.tile_width = 20
    for frame in clip[1:31]:
        bench.lane.push(frame)
        bench.pool.run()
        assert bench.lane._decoder.skips_loop_filter == frame.keyframe
    bench.mailbox.tile_width = 64
    bench.lane.push(clip[31])
    bench.pool.run()
    assert bench.asked == 1  # it grew: what was left out would be seen
    assert bench.lane.decoded == 32
    bench.lane.push(clip[0])
    bench.pool.run()
    assert not bench.lane._decoder.skips_loop_filter
