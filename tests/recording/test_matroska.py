"""Matroska as others read it, cut at every byte, and what a recovery finds in it."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.errors import BadPackage
from recording.matroska import Block, Extent, cluster, head, scan
from recording.trackcodecs import audio_form, nal_units, video_form, video_frame
from tests.recording.sources import SIZE, pictures, sounds


def film(codec: str, frames: list[tuple[bytes, bool]], *, step_ms: int = 40) -> bytes:
    form = video_form(codec, frames[0][0], *SIZE)
    blocks = [Block(n * step_ms, video_frame(codec, data), key) for n, (data, key) in enumerate(frames)]
    return head(form, title="Zoë", uid=7) + b"".join(
        cluster(blocks[n : n + 25]) for n in range(0, len(blocks), 25)
    )


@pytest.mark.parametrize(
    ("codec", "encoder", "name"),
    [("VP8", "libvpx", "vp8"), ("VP9", "libvpx-vp9", "vp9"), ("H264", "libx264", "h264")],
)
def test_pictures_of_every_codec_are_read_by_ffmpeg(codec: str, encoder: str, name: str) -> None:
    frames = pictures(encoder, 60)
    with av.open(io.BytesIO(film(codec, frames))) as container:
        stream = container.streams.video[0]
        assert (container.format.name, container.metadata["title"]) == ("matroska,webm", "Zoë")
        assert (stream.codec_context.name, stream.width, stream.height) == (name, *SIZE)
        times = [float(frame.time or 0) for frame in container.decode(stream)]
    assert times == pytest.approx([n * 0.04 for n in range(60)])
    with av.open(io.BytesIO(film(codec, frames))) as container:
        assert [p.is_keyframe for p in container.demux(video=0) if p.size] == [key for _, key in frames]


def test_h264_whose_size_changes_on_the_way_goes_on_in_one_file() -> None:
    small, large = pictures("libx264", 20), pictures("libx264", 20, size=(320, 180))
    with av.open(io.BytesIO(film("H264", small + large))) as container:
        sizes = [(frame.width, frame.height) for frame in container.decode(video=0)]
    assert sizes == [SIZE] * 20 + [(320, 180)] * 20


@pytest.mark.parametrize(
    ("codec", "name", "rate_hz"),
    [
        ("opus", "opus", 48_000),
        ("PCMU", "pcm_mulaw", 8_000),
        ("PCMA", "pcm_alaw", 8_000),
        ("G722", "g722", 16_000),
    ],
)
def test_sound_of_every_codec_is_read_by_ffmpeg(codec: str, name: str, rate_hz: int) -> None:
    packets = sounds(codec, 100, hz=440)
    data = head(audio_form(codec, packets[0]), title="Ann", uid=1)
    data += cluster([Block(20 * n, packet, True) for n, packet in enumerate(packets)])
    with av.open(io.BytesIO(data)) as container:
        context = container.streams.audio[0].codec_context
        assert (context.name, context.sample_rate, context.channels) == (name, rate_hz, 1)
        resampler = av.AudioResampler("flt", "mono", 48_000)
        pcm = np.concatenate(
            [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        )
    assert len(pcm) / 48_000 == pytest.approx(2.0, abs=0.03)
    middle = pcm[24_000:72_000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * 48_000 / len(middle) == pytest.approx(440, abs=2)


def test_the_pauses_of_opus_are_kept_and_read() -> None:
    packets = sounds("opus", 10, hz=440)
    blocks = [Block(20 * n, p, True) for n, p in enumerate(packets)] + [Block(400, b"\xf8", True)]
    data = head(audio_form("opus", packets[0]), title="", uid=1) + cluster(blocks)
    with av.open(io.BytesIO(data)) as container:
        sizes = [packet.size for packet in container.demux(audio=0) if packet.size]
    assert sizes == [*map(len, packets), 1]


def test_cut_at_every_byte_the_last_whole_cluster_is_found() -> None:
    frames = [(bytes([n]) * 3, n % 4 == 0) for n in range(12)]
    form = video_form("VP8", b"", 16, 16)
    start = head(form, title="t", uid=1)
    clusters = [cluster([Block(100 * n, *frames[n])]) for n in range(12)]
    data = start + b"".join(clusters)
    ends = [len(start) + sum(map(len, clusters[: n + 1])) for n in range(12)]
    for size in range(len(data) + 1):
        whole = sum(end <= size for end in ends)
        extent = scan(io.BytesIO(data[:size]))
        assert extent.clusters == extent.blocks == whole
        assert extent.whole_bytes == (
            ends[whole - 1] if whole else 0 if size < len(start) else extent.whole_bytes
        )
        assert not whole or extent.last_ms == 100 * (whole - 1)


def test_what_follows_the_last_whole_cluster_does_not_count() -> None:
    data = head(video_form("VP8", b"", 16, 16), title="t", uid=1) + cluster([Block(0, b"x", True)])
    assert scan(io.BytesIO(data + b"rubbish of another file")) == Extent(len(data), 1, 1, 0)


@given(st.binary(max_size=300))
def test_rubbish_never_raises(data: bytes) -> None:
    assert scan(io.BytesIO(data)).clusters == 0
    start = head(video_form("VP8", b"", 16, 16), title="t", uid=1)
    assert scan(io.BytesIO(start + data)).whole_bytes <= len(start) + len(data)


def test_what_no_file_can_hold_is_refused() -> None:
    with pytest.raises(BadPackage, match="parameter sets"):
        video_form("H264", b"\0\0\1\x65abc", 16, 16)
    with pytest.raises(BadPackage, match="AV1"):
        video_form("AV1", b"", 16, 16)
    with pytest.raises(BadPackage, match="GSM"):
        audio_form("GSM", b"x")
    with pytest.raises(ValueError, match="within 30 s"):
        cluster([Block(0, b"x", True), Block(31_000, b"x", True)])
    with pytest.raises(ValueError, match="at least one"):
        cluster([])


def test_nal_units_are_found_behind_either_start_code() -> None:
    assert nal_units(b"\0\0\0\1\x67a\0\0\0\1\x68b\0\0\1\x65c\0\0\1") == [b"\x67a", b"\x68b", b"\x65c"]
    assert nal_units(b"no start code") == []


def test_times_are_the_files_own() -> None:
    data = head(audio_form("PCMU", b"x"), title="t", uid=1)
    data += cluster([Block(4_000_000, bytes(160), True)]) + cluster([Block(15_000_000, bytes(160), True)])
    with av.open(io.BytesIO(data)) as container:
        times = [p.pts * Fraction(p.time_base) for p in container.demux(audio=0) if p.size]
    assert times == [4000, 15000]
