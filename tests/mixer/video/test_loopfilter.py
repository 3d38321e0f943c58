from __future__ import annotations

import numpy as np

from mixer.video.decoder import VideoDecoder
from mixer.video.frame import picture_of
from mixer.video.loopfilter import ASK_AGAIN_S, KEYFRAME_S, SETTLE_S, SMALL, LoopFilterPolicy
from mixer.video.scaler import Scaler
from tests.mixer.video.clips import coded, psnr_db


def test_only_vp8_and_only_where_it_is_small() -> None:
    policy = LoopFilterPolicy()
    assert policy.keyframe("VP8", 1280, 426, 0.0)
    assert policy.keyframe("VP8", 1280, 428, 0.0)  # a third, on even edges
    assert not policy.keyframe("VP8", 1280, 640, 0.0)
    assert not policy.keyframe("VP8", 1280, None, 0.0)
    assert not policy.keyframe("H264", 1280, 426, 0.0)
    assert not policy.keyframe("VP9", 1280, 426, 0.0)


def test_a_tile_that_stays_small_is_worth_one_keyframe() -> None:
    policy = LoopFilterPolicy()
    policy.keyframe("VP8", 1280, 1280, 0.0)
    assert not policy.wants_keyframe("VP8", 1280, 426, 10.0)
    assert not policy.wants_keyframe("VP8", 1280, 640, 10.5)  # the layout changed again
    assert not policy.wants_keyframe("VP8", 1280, 426, 11.0)
    assert not policy.wants_keyframe("VP8", 1280, 426, 11.0 + SETTLE_S - 0.1)
    assert policy.wants_keyframe("VP8", 1280, 426, 11.0 + SETTLE_S)
    assert not policy.wants_keyframe("VP8", 1280, 426, 11.1 + SETTLE_S)
    assert policy.wants_keyframe("VP8", 1280, 426, 11.0 + SETTLE_S + ASK_AGAIN_S)  # it did not come


def test_the_error_ends_with_a_keyframe_each_few_seconds_and_at_once_when_the_tile_grows() -> None:
    policy = LoopFilterPolicy()
    policy.keyframe("VP8", 1280, 426, 0.0)
    assert not policy.wants_keyframe("VP8", 1280, 426, KEYFRAME_S - 0.1)
    assert policy.wants_keyframe("VP8", 1280, 426, KEYFRAME_S)
    policy.keyframe("VP8", 1280, 426, 6.0)
    assert policy.wants_keyframe("VP8", 1280, 1280, 6.5)
    assert not policy.keyframe("VP8", 1280, 1280, 6.6)
    assert not policy.wants_keyframe("VP8", 1280, 1280, 60.0)


def test_what_is_left_out_is_not_seen_in_a_small_tile() -> None:
    """5 s of moving picture without a keyframe: the tile differs by less than the encoder of the mix changes it."""
    frames = coded("VP8", 640, 360, round(KEYFRAME_S * 30))
    whole, without = VideoDecoder("VP8"), VideoDecoder("VP8", skip_loop_filter=True)
    assert sum(frame.keyframe for frame in frames) == 1
    scalers = Scaler(), Scaler()
    width = int(640 * SMALL) // 2 * 2
    worst, differs = 99.0, False
    for frame in frames:
        pictures = [picture_of(decoder.decode(frame)[0]) for decoder in (whole, without)]
        differs = differs or not np.array_equal(pictures[0].y, pictures[1].y)
        small = [scaler.scale(picture, width, 120) for scaler, picture in zip(scalers, pictures, strict=True)]
        worst = min(worst, psnr_db(*small))
    assert differs  # else nothing was left out and nothing is shown
    assert worst > 34
