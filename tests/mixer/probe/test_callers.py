"""Callers send what they are asked for, and in every size a viewer can read what they sent."""

from __future__ import annotations

from collections.abc import Callable

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from mixer.media import EncodedVideo
from mixer.probe import signal
from mixer.probe.callers import Caller
from mixer.probe.loops import SIZES, AudioLoop, CameraLoops, VideoLoop, encode_video
from mixer.probe.server import Pass
from mixer.probe.signal import Identity, Rect
from mixer.rtp.payload.vp8 import Vp8Depacketizer
from mixer.video.decoder import VideoDecoder


@pytest.fixture(scope="module")
def camera() -> CameraLoops:
    """Encoding takes two seconds, so once."""
    return encode_video(Identity(3))


def decoded(loop: VideoLoop, count: int) -> list[av.VideoFrame]:
    decoder, reader, shown = VideoDecoder("VP8"), Vp8Depacketizer(), []
    for index in range(count):
        picture = reader.assemble(list(loop.pictures[index]))
        assert picture is not None
        shown += decoder.decode(EncodedVideo("VP8", picture.data, index * 3000, picture.keyframe))
    return shown


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_each_size_keeps_its_rate_and_is_read_in_a_tile_of_a_grid(camera: CameraLoops, number: int) -> None:
    size, loop = SIZES[number], camera.loops[number]
    assert loop.keyframes[0] == 0
    assert loop.kbps * 1000 == pytest.approx(size.bitrate_bps, rel=0.12)
    read = []
    for picture in decoded(loop, 20):
        assert (picture.width, picture.height) == (1280 // size.shrink, 720 // size.shrink)
        tile = picture.reformat(426, 240, "yuv420p", interpolation=Interpolation.BILINEAR)
        luma = tile.to_ndarray()[:240]
        read.append(signal.read_counter(np.ascontiguousarray(luma), Rect(0, 0, 426, 240)))
    assert read == list(range(20))


class Line:
    """Stands for the client: keeps what a caller sends."""

    def __init__(self) -> None:
        self.on_keyframe_request: Callable[[], None] = lambda: None
        self.on_estimate: Callable[[int], None] = lambda bitrate_bps: None
        self.sent: list[tuple[bytes, ...]] = []

    def send_video(self, payloads: tuple[bytes, ...], *, timestamp: int) -> None:
        self.sent.append(payloads)


def test_a_caller_changes_at_a_keyframe_to_the_best_that_fits(camera: CameraLoops) -> None:
    line = Line()
    silence = AudioLoop((b"\xf8\xff\xfe",) * signal.LOOP_PACKETS, ())
    caller = Caller(Identity(3), Pass("t", "sub"), line, camera, silence)  # type: ignore[arg-type]
    used = []
    for estimate, expected in (
        (2_600_000, 0),
        (450_000, 1),
        (449_000, 1),
        (250_000, 2),
        (30_000, 2),
        (2_000_000, 0),
    ):
        line.on_estimate(estimate)
        caller.send_picture(0.0)
        caller.send_picture(0.0)
        first, second = line.sent[-2:]
        place = camera.loops[expected].pictures.index(first)
        assert camera.loops[expected].pictures[(place + 1) % signal.LOOP_FRAMES] == second
        if expected not in used[-1:]:
            assert place in camera.loops[expected].keyframes
        used.append(expected)
    assert caller.switches == 3


def test_with_one_size_a_caller_follows_nobody() -> None:
    loop = VideoLoop(((b"x" * 5000,),) * signal.LOOP_FRAMES, (0,))
    assert CameraLoops((loop,)).fitting(1) is loop
