from __future__ import annotations

import struct

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.media import EncodedVideo, VideoCodec
from mixer.rtp.payload import h264
from mixer.video.decoder import DecodeFailed, PictureTooLarge, VideoDecoder
from mixer.video.encoder import H264Encoder, Vp8Encoder, make_encoder
from mixer.video.frame import picture_of
from mixer.video.headers import picture_size
from mixer.video.rendition import RENDITIONS, Rendition
from mixer.video.scaler import Scaler
from tests.mixer.video.clips import coded, moving, psnr_db, slide

ENCODED: tuple[VideoCodec, ...] = ("H264", "VP8")
DECODED: tuple[VideoCodec, ...] = ("H264", "VP8", "VP9")


def nal_types(data: bytes) -> list[int]:
    starts = [i + 3 for i in range(len(data) - 3) if data[i : i + 3] == b"\0\0\1"]
    return [data[start] & 0x1F for start in starts]


# --- encoders


@pytest.mark.parametrize("codec", ENCODED)
def test_pictures_come_at_once_and_look_right(codec: VideoCodec) -> None:
    frames = coded(codec, 320, 180, 20)
    assert len(frames) == 20
    assert [frame.keyframe for frame in frames] == [True] + [False] * 19
    assert [frame.pts for frame in frames] == [i * 3000 for i in range(20)]
    decoder = VideoDecoder(codec)
    shown = [picture for frame in frames for picture in decoder.decode(frame)]
    assert len(shown) == 20  # no picture waits in a decoder either
    assert psnr_db(picture_of(shown[-1]), moving(320, 180, 19)) > 30


@pytest.mark.parametrize("codec", ENCODED)
def test_a_keyframe_when_asked_and_only_then(codec: VideoCodec) -> None:
    encoder = make_encoder(codec, 160, 90, 30, 200_000)
    frames = [encoder.encode(moving(160, 90, i), i * 3000, keyframe=i == 7) for i in range(12)]
    assert [i for i, frame in enumerate(frames) if frame is not None and frame.keyframe] == [0, 7]
    joined = VideoDecoder(codec)
    shown = [picture for frame in frames[7:] if frame is not None for picture in joined.decode(frame)]
    assert len(shown) == 5


def test_h264_is_constrained_baseline_level_3_1_in_one_slice() -> None:
    encoder = H264Encoder(1280, 720, 30, 1_200_000)
    first, second = (encoder.encode(moving(1280, 720, i), i * 3000) for i in range(2))
    assert first is not None
    assert second is not None
    sps = first.data[first.data.index(b"\0\0\1\x67") + 4 :]
    assert sps[0] == 66  # profile_idc
    assert sps[1] & 0b0100_0000  # constraint_set1_flag: constrained
    assert sps[2] == 31
    assert [n for n in nal_types(first.data) if n != 6] == [7, 8, 5]
    assert nal_types(second.data) == [1]


@pytest.mark.parametrize("codec", ENCODED)
@pytest.mark.parametrize("rate", [64_000, 300_000])
def test_the_rate_is_kept_and_a_keyframe_is_bounded(codec: VideoCodec, rate: int) -> None:
    width, height, fps = (320, 180, 8) if rate < 100_000 else (320, 180, 15)
    rng = np.random.default_rng(7)
    encoder = make_encoder(codec, width, height, fps, rate)
    frames = []
    for index in range(fps * 6):
        picture = moving(width, height, index * 3)
        picture.y[: height // 2] ^= rng.integers(0, 64, (height // 2, width), np.uint8)  # hard to code
        frame = encoder.encode(picture, index * 90_000 // fps, keyframe=index == fps * 3)
        if frame is not None:
            frames.append(frame)
    settled = [frame for frame in frames if frame.pts >= 2 * 90_000]
    assert sum(len(frame.data) for frame in settled) * 8 / 4 < rate * 1.25
    keyframes = [len(frame.data) * 8 for frame in settled if frame.keyframe]
    assert keyframes
    assert max(keyframes) < rate * 1.0  # never a second of the line


def test_h264_takes_a_lower_rate_without_a_keyframe() -> None:
    encoder = H264Encoder(320, 180, 15, 400_000)
    rng = np.random.default_rng(3)
    sizes: list[int] = []
    for index in range(60):
        if index == 30:
            encoder.set_bitrate(100_000)
        picture = moving(320, 180, index * 5)
        picture.y[:] ^= rng.integers(0, 32, picture.y.shape, np.uint8)
        frame = encoder.encode(picture, index * 6000)
        assert frame is not None
        assert frame.keyframe == (index == 0)
        sizes.append(len(frame.data))
    assert sum(sizes[40:]) < 0.5 * sum(sizes[10:30])


def test_vp8_takes_another_rate_with_a_keyframe() -> None:
    encoder = Vp8Encoder(160, 90, 15, 300_000)
    encoder.encode(moving(160, 90, 0), 0)
    encoder.set_bitrate(100_000)
    frame = encoder.encode(moving(160, 90, 1), 6000)
    assert frame is not None
    assert frame.keyframe


def test_vp9_is_decoded_only() -> None:
    with pytest.raises(ValueError, match="VP9"):
        make_encoder("VP9", 160, 90, 15, 100_000)


# --- decoder


@pytest.mark.parametrize("codec", DECODED)
def test_every_codec_is_decoded(codec: VideoCodec) -> None:
    decoder = VideoDecoder(codec)
    shown = [picture for frame in coded(codec, 320, 180, 5) for picture in decoder.decode(frame)]
    assert [(picture.width, picture.height) for picture in shown] == [(320, 180)] * 5
    assert psnr_db(picture_of(shown[-1]), moving(320, 180, 4)) > 28


def test_the_loop_filter_can_be_left_out() -> None:
    def last(skip: bool) -> np.ndarray:
        decoder = VideoDecoder("H264", skip_loop_filter=skip)
        shown = [p for frame in coded("H264", 320, 180, 20) for p in decoder.decode(frame)]
        return picture_of(shown[-1]).y.copy()

    assert not np.array_equal(last(True), last(False))


@pytest.mark.parametrize("codec", DECODED)
def test_nothing_is_shown_before_a_keyframe(codec: VideoCodec) -> None:
    decoder = VideoDecoder(codec)
    assert decoder.decode(coded(codec, 320, 180, 5)[2]) == []


def test_a_picture_too_large_is_refused_before_it_is_decoded() -> None:
    first = bytearray(coded("VP8", 64, 48, 2)[0].data)
    first[6:10] = struct.pack("<HH", 16383, 16383)
    decoder = VideoDecoder("VP8")
    with pytest.raises(PictureTooLarge, match="16383×16383"):
        decoder.decode(EncodedVideo("VP8", bytes(first), 0, True))
    large = coded("H264", 1922, 1080, 1)[0]
    with pytest.raises(PictureTooLarge, match="1922×1080 pixels; at most 1920×1088"):
        VideoDecoder("H264").decode(large)


def sps_of(frame: EncodedVideo) -> bytes:
    """Its sequence parameter set as Annex B."""
    return next(h264.START_CODE + nal for nal in h264.split_annex_b(frame.data) if nal[0] & 0x1F == h264.SPS)


@pytest.mark.parametrize("behind", [False, True])
def test_every_parameter_set_of_a_picture_counts(behind: bool) -> None:
    """A small one before or behind the large one that is used."""
    small, large = (coded("H264", *size, 1)[0] for size in ((64, 48), (2048, 1152)))
    nals = [h264.START_CODE + nal for nal in h264.split_annex_b(large.data)]
    place = next(n for n, nal in enumerate(nals) if nal[4] & 0x1F == h264.SPS)
    nals.insert(place + behind, sps_of(small))
    with pytest.raises(PictureTooLarge, match="2048×1152"):
        VideoDecoder("H264").decode(EncodedVideo("H264", b"".join(nals), 0, True))
    fits = EncodedVideo(
        "H264", sps_of(coded("H264", 64, 48, 1)[0]) + coded("H264", 320, 180, 1)[0].data, 0, True
    )
    assert [picture.width for picture in VideoDecoder("H264").decode(fits)] == [320]


def test_a_large_picture_cropped_to_a_stamp_is_refused() -> None:
    """It is shown in 64×48 and decoded in 2048×1152; libav's own limit looks at what is shown."""
    crop = BitStreamFilterContext(f"h264_metadata=crop_right={2048 - 64}:crop_bottom={1152 - 48}", "h264")
    (stamp,) = (bytes(packet) for packet in crop.filter(av.Packet(coded("H264", 2048, 1152, 1)[0].data)))
    assert picture_size("H264", stamp) == (64, 48)
    with pytest.raises(PictureTooLarge, match="2048×1152"):
        VideoDecoder("H264").decode(EncodedVideo("H264", stamp, 0, True))


def interframe_of(width: int, height: int) -> bytes:
    """A VP9 interframe that brings a size of its own and refers to a keyframe of 320×180 (its section 6.2).

    Made of a real one: "as large as the first reference" becomes a size, a bit is put in because there may be columns
    of tiles now, and zeros behind are what the decoder reads for the additional blocks.
    """
    real = coded("VP9", 320, 180, 2)[1].data
    bits = "".join(f"{byte:08b}" for byte in real)
    assert bits.startswith("10000110"), "shown, not error resilient"
    size_at = at = 8 + 2 + 8 + 3 * (3 + 1)  # reset_frame_context, refresh_frame_flags, references
    assert bits[size_at : size_at + 2] == "10", "found_ref, and no size to render in"

    def skip(count: int) -> str:
        nonlocal at
        at += count
        return bits[at - count : at]

    skip(3)  # allow_high_precision_mv
    if skip(1) == "0":
        skip(2)  # raw_interpolation_filter
    skip(2 + 2 + 9)  # contexts; level and sharpness of the loop filter
    if skip(1) == "1" and skip(1) == "1":
        for _ in range(6):
            if skip(1) == "1":
                skip(7)
    skip(8)  # base_q_idx
    for _ in range(3):
        if skip(1) == "1":
            skip(5)
    assert skip(1) == "0", "no segmentation"
    header_ends = at + 1 + 16  # tile_rows_log2, header_size
    own = f"000{width - 1:016b}{height - 1:016b}"
    changed = bits[:size_at] + own + bits[size_at + 1 : at] + "0" + bits[at:header_ends]
    changed += "0" * (-len(changed) % 8)
    head = int(changed, 2).to_bytes(len(changed) // 8, "big")
    return head + real[-(-header_ends // 8) :] + bytes(60_000)


def test_a_picture_that_grows_between_keyframes_is_refused_too() -> None:
    """No header that is read before the decoder says so: libav's limit is the second lock."""
    decoder = VideoDecoder("VP9")
    keyframe = coded("VP9", 320, 180, 2)[0]
    decoder.decode(keyframe)
    (grown,) = decoder.decode(EncodedVideo("VP9", interframe_of(640, 360), 3000, False))
    assert (grown.width, grown.height) == (640, 360), "within the limit, it may"
    decoder.decode(keyframe)
    with pytest.raises(DecodeFailed):
        decoder.decode(EncodedVideo("VP9", interframe_of(2048, 1152), 3000, False))
    assert decoder.decode(EncodedVideo("VP9", interframe_of(640, 360), 3000, False)) == [], (
        "it waits for a keyframe"
    )
    assert len(decoder.decode(keyframe)) == 1


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920)])
def test_full_hd_is_accepted_upright_too(size: tuple[int, int]) -> None:
    assert len(VideoDecoder("H264").decode(coded("H264", *size, 1)[0])) == 1


@pytest.mark.parametrize("codec", DECODED)
def test_after_rubbish_the_next_keyframe_is_shown(codec: VideoCodec) -> None:
    decoder = VideoDecoder(codec)
    frames = coded(codec, 320, 180, 4)
    decoder.decode(frames[0])
    with pytest.raises(DecodeFailed):
        decoder.decode(EncodedVideo(codec, b"\x00" * 9, 3000, True))
    assert decoder.decode(frames[1]) == []
    assert len(decoder.decode(frames[0])) == 1
    assert len(decoder.decode(frames[1])) == 1


@given(st.data(), st.sampled_from(DECODED))
@settings(max_examples=60, deadline=None)
def test_damaged_pictures_raise_decode_failed_only(data: st.DataObject, codec: VideoCodec) -> None:
    decoder = VideoDecoder(codec)
    for frame in coded(codec, 64, 48, 4):
        damaged = bytearray(frame.data)
        for _ in range(data.draw(st.integers(0, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        try:
            decoder.decode(EncodedVideo(codec, bytes(damaged), frame.pts, frame.keyframe))
        except DecodeFailed:
            continue


def slides_as_seen(
    codec: VideoCodec, rendition: Rendition, *, sharp: bool
) -> tuple[list[float], list[tuple[float, int]]]:
    """Three slides of 3 s: how each looks (dB) in the first picture that shows it; (second, bytes) of every picture."""
    rate = rendition.sharp_fps if sharp else rendition.fps
    encoder = make_encoder(codec, rendition.width, rendition.height, rate, rendition.video_bps, sharp=sharp)
    decoder, scaler = VideoDecoder(codec), Scaler()
    first: list[float] = []
    sent: list[tuple[float, int]] = []
    for number in range(3):
        shown = scaler.scale(slide(1280, 720, number), rendition.width, rendition.height)
        for index in range(3 * rate):
            at = 3 * number + index / rate
            frame = encoder.encode(shown, round(at * 90_000), keyframe=at == 0)
            assert frame is not None
            sent.append((at, len(frame.data)))
            seen = picture_of(decoder.decode(frame)[0])
            if index == 0:
                first.append(psnr_db(seen, shown))
    return first, sent


@pytest.mark.parametrize("name", ["medium", "low"])
def test_a_new_slide_is_sharper_in_a_sharp_encoder(name: str) -> None:
    sharp, _ = slides_as_seen("H264", RENDITIONS[name], sharp=True)
    usual, _ = slides_as_seen("H264", RENDITIONS[name], sharp=False)
    assert np.mean(sharp) > np.mean(usual) + 1
    assert min(sharp[1:]) > 25


@pytest.mark.parametrize("codec", ["H264", "VP8"])
@pytest.mark.parametrize("name", ["medium", "low"])
def test_a_new_slide_stays_within_the_rate_of_the_line(codec: VideoCodec, name: str) -> None:
    rendition = RENDITIONS[name]
    _, sent = slides_as_seen(codec, rendition, sharp=True)
    for start, _ in sent:
        second = sum(size for at, size in sent if start <= at < start + 1) * 8
        assert second <= rendition.video_bps * 1.55, (start, second)  # the rate buffer is half a second


def test_vp8_begins_another_slide_with_a_keyframe_but_not_every_picture_of_a_film() -> None:
    encoder = Vp8Encoder(320, 180, 4, 64_000, sharp=True)
    one, other = slide(320, 180, 1), slide(320, 180, 2)
    pictures = [one] * 12 + [other] * 12 + [one, other] * 8
    frames = [encoder.encode(picture, index * 22_500) for index, picture in enumerate(pictures)]
    keyframes = [index for index, frame in enumerate(frames) if frame is not None and frame.keyframe]
    assert keyframes == [0, 12, 24, 32]
