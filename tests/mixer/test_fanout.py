from __future__ import annotations

import random

import pytest

from mixer.fanout import Fanout, PacketizedVideo, Viewer
from mixer.media import EncodedAudio, EncodedVideo, VideoCodec
from mixer.rtp.assemble import FrameAssembler
from mixer.rtp.packet import RtpPacket
from tests.mixer.rtp.streams import TICKS, body


class Screen:
    """A viewer that keeps what it gets and puts it together again."""

    def __init__(self, codec: VideoCodec = "VP8") -> None:
        self.units: list[PacketizedVideo] = []
        self.pictures: list[EncodedVideo] = []
        self._assembler = FrameAssembler(codec)
        self._sequence = 0

    def send_video(self, unit: PacketizedVideo) -> None:
        self.units.append(unit)
        for number, payload in enumerate(unit.payloads, 1):
            packet = RtpPacket(
                96, number == len(unit.payloads), self._sequence & 0xFFFF, unit.pts & 0xFFFFFFFF, 1, payload
            )
            self._sequence += 1
            self.pictures += self._assembler.push(packet, 0.0)

    def send_audio(self, frame: EncodedAudio) -> None:
        raise AssertionError("the video fan-out carries no sound")


class Broken(Screen):
    def send_video(self, unit: PacketizedVideo) -> None:
        raise ConnectionResetError("gone")


class Encoder:
    """Makes one picture a tick; the next one is a keyframe when that was asked for."""

    def __init__(self, codec: VideoCodec = "VP8") -> None:
        self.codec = codec
        self.forced: list[int] = []
        self.index = 0
        self._pending = True
        self._random = random.Random(1)

    def force(self) -> None:
        self.forced.append(self.index)
        self._pending = True

    def frame(self) -> EncodedVideo:
        keyframe, self._pending = self._pending, False
        data = body(self.codec, keyframe, 20_000 if keyframe else 3000, self._random)
        self.index += 1
        return EncodedVideo(self.codec, data, (self.index - 1) * TICKS, keyframe)


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_a_newcomer_sees_nothing_before_a_keyframe(codec: VideoCodec) -> None:
    encoder, early, late = Encoder(codec), Screen(codec), Screen(codec)
    fanout = Fanout(request_keyframe=encoder.force)
    frames = []
    fanout.add(early)
    for index in range(40):
        if index == 20:
            fanout.add(late)
            assert encoder.forced[-1] == 20  # at once
            frames.append(
                EncodedVideo(codec, body(codec, False, 900, random.Random(2)), 19 * TICKS + 1, False)
            )
            fanout.publish(frames[-1])  # one that was encoded already
            assert late.units == []
        frames.append(encoder.frame())
        fanout.publish(frames[-1])
    assert [frame.data for frame in early.pictures] == [frame.data for frame in frames]
    assert [frame.data for frame in late.pictures] == [frame.data for frame in frames[21:]]
    assert late.pictures[0].keyframe
    assert len(fanout) == 2


def test_the_payloads_are_made_once_for_all() -> None:
    encoder, screens = Encoder(), [Screen() for _ in range(5)]
    fanout = Fanout(request_keyframe=encoder.force)
    for screen in screens:
        fanout.add(screen)
    fanout.publish(encoder.frame())
    assert all(screen.units[0] is screens[0].units[0] for screen in screens)
    assert fanout.packets == 5 * len(screens[0].units[0].payloads)
    assert encoder.forced == [0]


def test_ten_requests_within_a_second_cause_one_keyframe() -> None:
    encoder, screen, other = Encoder(), Screen(), Screen()
    fanout = Fanout(request_keyframe=encoder.force)
    fanout.add(screen)
    fanout.add(other)
    for _ in range(45):
        fanout.publish(encoder.frame())
    encoder.forced.clear()
    for index in range(120):
        if index < 30 and index % 3 == 0:
            fanout.request(screen if index % 2 else other)
        fanout.publish(encoder.frame())
    assert encoder.forced == [45, 75 + 1]  # the first at once; the rest together, a second later
    assert sum(unit.keyframe for unit in screen.units) == 3


def test_a_broken_viewer_costs_only_itself() -> None:
    encoder, before, after = Encoder(), Screen(), Screen()
    gone: list[tuple[Viewer, Exception]] = []
    fanout = Fanout(
        request_keyframe=encoder.force, on_failure=lambda viewer, error: gone.append((viewer, error))
    )
    broken = Broken()
    for viewer in (before, broken, after):
        fanout.add(viewer)
    for _ in range(3):
        fanout.publish(encoder.frame())
    assert len(before.pictures) == len(after.pictures) == 3
    assert [(viewer, type(error)) for viewer, error in gone] == [(broken, ConnectionResetError)]
    assert (len(fanout), fanout.failed) == (2, 1)


def test_a_viewer_taken_out_while_others_are_served_gets_nothing_more() -> None:
    encoder, friend = Encoder(), Screen()
    fanout = Fanout(request_keyframe=encoder.force, on_failure=lambda *_: fanout.remove(friend))
    fanout.add(Broken())
    fanout.add(friend)
    fanout.publish(encoder.frame())
    assert friend.units == []
    assert len(fanout) == 0


def test_a_viewer_that_overflowed_starts_again_at_a_keyframe() -> None:
    encoder, screen, other = Encoder(), Screen(), Screen()
    fanout = Fanout(request_keyframe=encoder.force)
    fanout.add(screen)
    fanout.add(other)
    for _ in range(5):
        fanout.publish(encoder.frame())
    fanout.request(screen, restart=True)
    for _ in range(60):
        fanout.publish(encoder.frame())
    assert len(other.units) == 65
    assert [unit.keyframe for unit in screen.units[:6]] == [True, False, False, False, False, True]


def test_strangers_and_repetitions_change_nothing() -> None:
    encoder, screen = Encoder(), Screen()
    fanout = Fanout(request_keyframe=encoder.force)
    fanout.remove(screen)
    fanout.request(screen)
    assert encoder.forced == []
    fanout.publish(encoder.frame())  # nobody watches
    fanout.add(screen)
    fanout.publish(encoder.frame())
    fanout.add(screen)
    fanout.remove(screen)
    assert len(fanout) == 0


def test_vp8_picture_ids_are_continuous_and_vp9_is_not_sent() -> None:
    encoder, screen = Encoder(), Screen()
    fanout = Fanout(request_keyframe=encoder.force)
    fanout.add(screen)
    for _ in range(4):
        fanout.publish(encoder.frame())
    ids = [int.from_bytes(unit.payloads[0][2:4], "big") & 0x7FFF for unit in screen.units]
    assert ids == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="VP9"):
        fanout.publish(EncodedVideo("VP9", b"x", 0, True))
