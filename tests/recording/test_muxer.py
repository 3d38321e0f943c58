"""The muxer alone: whole pieces out, holes at their own time, continuation without a second head."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from recording.errors import BadPackage
from recording.fragments import Piece
from recording.muxer import AudioFormat, FragmentedMp4, silent_frame
from tests.recording.media import FPS, clip


class Pieces:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.data = b""

    def write_piece(self, piece: Piece) -> None:
        self.kinds.append(piece.kind)
        self.data += piece.data


def picture_times(data: bytes, tmp_path: Path) -> list[float]:
    (tmp_path / "film.mp4").write_bytes(data)
    with av.open(str(tmp_path / "film.mp4")) as container:
        return [float(frame.time or 0) for frame in container.decode(video=0)]


@pytest.mark.parametrize("after", [50, 60, 64, 78, 94, 108, 126, 140])
def test_a_hole_keeps_its_length(after: int, tmp_path: Path) -> None:
    """Wherever the hole ends, and though sound ends fragments in it, the picture after it is shown at its own time."""
    media, sink = clip(6), Pieces()
    muxer = FragmentedMp4(sink, keyframe=media.video[0][0], fps=FPS, audio=AudioFormat.parse(media.extradata))
    missing = range(30 * 3000, after * 3000)
    for kind, data, pts, keyframe in media.merged():
        if kind == "video" and pts not in missing:
            muxer.write_video(data, pts, keyframe=keyframe)
        elif kind == "audio":
            muxer.write_audio(data, max(pts, 0))
    muxer.close()
    (tmp_path / "film.mp4").write_bytes(sink.data)
    with av.open(str(tmp_path / "film.mp4")) as container:
        times = [
            float(packet.pts * packet.time_base)
            for packet in container.demux(video=0)
            if packet.pts is not None
        ]
    assert times == pytest.approx([pts / 90_000 for _, pts, _ in media.video if pts not in missing])
    assert sink.kinds.count("init") == 1


def test_continuation(tmp_path: Path) -> None:
    video, sink = clip(6).video, Pieces()
    for start, sequence in ((0, 0), (90, 99)):
        muxer = FragmentedMp4(sink, keyframe=video[start][0], fps=FPS, sequence=sequence)
        for data, pts, keyframe in video[start : start + 60]:
            muxer.write_video(data, pts, keyframe=keyframe)
        muxer.close()
    times = picture_times(sink.data, tmp_path)
    assert times == pytest.approx([pts / 90_000 for _, pts, _ in video[:60] + video[90:150]])
    assert sink.kinds.count("init") == 1


def test_times_must_rise() -> None:
    video, sink = clip(6).video, Pieces()
    muxer = FragmentedMp4(sink, keyframe=video[0][0], fps=FPS)
    assert muxer.write_video(video[0][0], 3000, keyframe=True)
    assert not muxer.write_video(video[1][0], 3000, keyframe=False)
    assert not muxer.write_audio(b"", 0)
    assert muxer.refused == 1
    muxer.close()


def test_what_is_not_a_keyframe() -> None:
    for data in (b"", b"x", clip(6).video[1][0]):
        with pytest.raises(BadPackage):
            FragmentedMp4(Pieces(), keyframe=data, fps=FPS)


def test_audio_configuration() -> None:
    assert (AudioFormat.parse(clip(6).extradata).rate_hz, AudioFormat.parse(b"\x11\x90").channels) == (
        48_000,
        2,
    )
    for config in (b"", b"\x11", b"\xff\xff", b"\x0a\x10", b"\x11\xb8"):
        with pytest.raises(BadPackage):
            AudioFormat.parse(config)
    assert 0 < len(silent_frame(48_000, 1)) < 100
