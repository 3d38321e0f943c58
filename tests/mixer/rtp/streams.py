"""Coded pictures for tests: real ones by PyAV, and small synthetic ones of a chosen size."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache

import av
import numpy as np

from mixer.media import EncodedVideo, VideoCodec
from mixer.rtp.packet import RtpPacket
from mixer.rtp.payload import h264, vp8

TICKS = 3000  # 90 kHz at 30 fps


@cache
def encoded(codec: VideoCodec, frames: int = 12, gop: int = 6) -> tuple[EncodedVideo, ...]:
    """A moving gradient with noise, 320×240, really encoded; a keyframe each ``gop`` pictures."""
    name = {"H264": "libx264", "VP8": "libvpx", "VP9": "libvpx-vp9"}[codec]
    context = av.CodecContext.create(name, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = 320, 240, "yuv420p"
    context.time_base = Fraction(1, 90_000)
    context.framerate = Fraction(30)
    context.bit_rate = 1_000_000
    context.gop_size = gop
    context.thread_count = 1
    if codec == "H264":
        context.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
    else:
        context.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    noise = np.random.default_rng(1).integers(0, 60, (360, 320), dtype=np.uint8)
    out: list[EncodedVideo] = []
    for index in range(frames):
        planes = np.roll(noise, 3 * index, axis=1) + np.uint8(80)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = index * TICKS
        frame.time_base = Fraction(1, 90_000)
        out += [_take(codec, packet) for packet in context.encode(frame)]
    out += [_take(codec, packet) for packet in context.encode(None)]
    assert len(out) == frames
    return tuple(out)


def decoded(frames: Sequence[EncodedVideo]) -> int:
    """How many pictures a real decoder makes of these."""
    context = av.CodecContext.create({"H264": "h264", "VP8": "vp8", "VP9": "vp9"}[frames[0].codec], "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1
    return sum(len(context.decode(av.Packet(frame.data))) for frame in frames) + len(context.decode(None))


def synthetic(count: int, *, gop: int = 30, seed: int = 3, codec: VideoCodec = "VP8") -> list[EncodedVideo]:
    """Pictures with right headers and random bodies: keyframes of about 25 packets, others of about 5."""
    source = random.Random(seed)
    frames: list[EncodedVideo] = []
    for index in range(count):
        keyframe = index % gop == 0
        size = source.randint(20_000, 30_000) if keyframe else source.randint(200, 9_000)
        frames.append(EncodedVideo(codec, body(codec, keyframe, size, source), index * TICKS, keyframe))
    return frames


def body(codec: VideoCodec, keyframe: bool, size: int, source: random.Random) -> bytes:
    """One picture of about ``size`` bytes."""
    noise = source.randbytes(size).replace(b"\x00", b"\x01") + b"\x80"  # no start codes inside
    if codec == "VP8":
        return (b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00" if keyframe else b"\x11\x02\x00") + noise
    sets = b"\x00\x00\x00\x01\x67\x42\xe0\x1f\xda\x00\x00\x00\x01\x68\xce\x3c\x80"
    return (sets + b"\x00\x00\x00\x01\x65\x88" if keyframe else b"\x00\x00\x00\x01\x41\x9a") + noise


def packets(
    frames: Sequence[EncodedVideo],
    *,
    ssrc: int = 0x1234,
    sequence: int = 65_500,
    timestamp: int = 2**32 - 10_000,
    max_payload: int = 1100,
) -> Iterator[RtpPacket]:
    """What a sender makes of them; by default sequence and timestamp wrap soon."""
    for index, frame in enumerate(frames):
        if frame.codec == "H264":
            payloads = h264.packetize(frame.data, max_payload)
        else:
            payloads = vp8.packetize(frame.data, max_payload, picture_id=index)
        for number, payload in enumerate(payloads):
            yield RtpPacket(
                payload_type=96,
                marker=number == len(payloads) - 1,
                sequence=sequence & 0xFFFF,
                timestamp=(timestamp + frame.pts) & 0xFFFFFFFF,
                ssrc=ssrc,
                payload=payload,
            )
            sequence += 1


def _take(codec: VideoCodec, packet: av.Packet[av.VideoStream]) -> EncodedVideo:
    assert packet.pts is not None
    return EncodedVideo(codec, bytes(packet), packet.pts, packet.is_keyframe)
