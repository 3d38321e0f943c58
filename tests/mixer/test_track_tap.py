"""What reaches the tracks of a recording, and what must not."""

from __future__ import annotations

from typing import Any

from mixer.media import EncodedVideo
from mixer.protocol import RosterEntry
from mixer.rtp.packet import RtpPacket
from mixer.track_tap import TrackTap
from mixer.trackclock import MIX_S
from recording.tracks import TrackFrame, TrackSource
from tests.recording.sources import SIZE, pictures

ANN = RosterEntry(id="ann", name="Ann")
KEY, DELTA = pictures("libvpx", 2)


class Kept:
    def __init__(self) -> None:
        self.frames: list[tuple[TrackSource, TrackFrame, int]] = []
        self.tap = TrackTap(lambda *item: self.frames.append(item), origin_s=100.0)
        self.tap.join(ANN)

    def hear(
        self, timestamp: int, now: float, *, ssrc: int = 1, codec: Any = "opus", taken_s: float | None = None
    ) -> None:
        packet = RtpPacket(111, False, timestamp & 0xFFFF, timestamp, ssrc, b"\xf8abc")
        self.tap.heard("ann", packet, codec, taken_s=taken_s, now=now, wait_ms=55.4)

    def see(self, pts: int, now: float, *, key: bool = False, screen: bool = False) -> None:
        frame = EncodedVideo("VP8", (KEY if key else DELTA)[0], pts, key)
        self.tap.saw("ann", frame, screen=screen, taken_s=None, now=now)


def test_frames_are_placed_on_the_rooms_clock() -> None:
    kept = Kept()
    kept.hear(960, 101.0)
    kept.see(3000, 101.5, key=True)
    (voice, sound, at), (camera, picture, seen_at) = kept.frames
    assert (voice, camera) == (TrackSource("ann", "voice"), TrackSource("ann", "camera"))
    assert (sound.data, sound.name, sound.codec) == (b"\xf8abc", "Ann", "opus")
    assert (picture.size, picture.keyframe, picture.fresh) == (SIZE, True, True)
    assert (at, seen_at) == (round((1 + MIX_S) * 90_000), round((1.5 + MIX_S) * 90_000))


def test_who_is_muted_is_not_recorded() -> None:
    kept = Kept()
    kept.hear(0, 101.0)
    kept.tap.change(ANN.model_copy(update={"muted": True}))
    kept.hear(960, 101.02)
    kept.see(0, 101.02)
    kept.tap.change(ANN)
    kept.hear(1920, 101.04)
    assert [(s.kind, f.rtp) for s, f, _ in kept.frames] == [("voice", 0), ("camera", 0), ("voice", 1920)]


def test_of_a_hidden_camera_nothing_but_of_the_screen_and_then_a_keyframe_is_needed() -> None:
    kept = Kept()
    kept.see(0, 101.0, key=True)
    kept.see(3000, 101.03)
    kept.tap.change(ANN.model_copy(update={"video_muted": True}))
    kept.see(6000, 101.06, key=True)
    kept.see(6000, 101.06, key=True, screen=True)
    kept.tap.change(ANN)
    kept.see(9000, 101.1)
    kept.see(12000, 101.13)
    assert [(s.kind, f.rtp, f.fresh) for s, f, _ in kept.frames] == [
        ("camera", 0, True), ("camera", 3000, False), ("screen", 6000, True), ("camera", 9000, True),
        ("camera", 12000, False),
    ]  # fmt: skip


def test_timestamps_go_up_when_they_wrap_and_when_another_stream_follows() -> None:
    kept = Kept()
    kept.hear((1 << 32) - 960, 101.0)
    kept.hear(0, 101.02)
    kept.hear(480_000, 111.0, ssrc=2)
    kept.hear(160, 111.02, ssrc=2, codec="PCMU")
    kept.see(1 << 31, 111.0, key=True)
    kept.see(90, 112.0, key=True)  # another layer: its own clock
    voice = [f.rtp for s, f, _ in kept.frames if s.kind == "voice"]
    camera = [f.rtp for s, f, _ in kept.frames if s.kind == "camera"]
    assert voice == [(1 << 32) - 960, 1 << 32, (2 << 32) + 480_000, (3 << 32) + 160]
    assert camera == [1 << 31, (1 << 32) + 90]
    times = [at / 90_000 for s, _, at in kept.frames if s.kind == "camera"]
    assert times[1] - times[0] == 1.0


def test_a_voice_whose_clock_begins_anew_goes_on() -> None:
    kept = Kept()
    kept.hear(4_800_000, 101.0)
    kept.hear(4_800_960, 101.02)
    kept.hear(960, 101.04)
    kept.hear(1920, 101.06)
    assert [f.rtp for _, f, _ in kept.frames] == [4_800_000, 4_800_960, (1 << 32) + 960, (1 << 32) + 1920]


def test_a_picture_that_does_not_say_its_size_is_passed_on_without() -> None:
    kept = Kept()
    kept.tap.saw("ann", EncodedVideo("VP8", b"\0", 0, True), screen=False, taken_s=None, now=101.0)
    assert kept.frames[0][1].size is None


def test_strangers_are_ignored() -> None:
    kept = Kept()
    kept.tap.leave("ann")
    kept.hear(0, 101.0)
    kept.see(0, 101.0, key=True)
    assert kept.frames == []


def test_of_who_refuses_nothing_at_all_from_that_instant_on() -> None:
    kept = Kept()
    kept.hear(0, 101.0)
    kept.see(0, 101.0, key=True)
    kept.see(0, 101.0, key=True, screen=True)
    kept.tap.change(ANN.model_copy(update={"recorded": False}))
    kept.hear(960, 101.02)
    kept.see(3000, 101.03)
    kept.see(3000, 101.03, screen=True)
    assert len(kept.frames) == 3
    kept.tap.change(ANN)
    kept.see(6000, 101.06)
    assert kept.frames[-1][1].fresh, "and then a keyframe is needed"
