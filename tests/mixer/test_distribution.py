"""Who is sent what: real fan-outs and a real audio bridge, pictures made by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mixer.audio.bridge import AudioBridge
from mixer.audio.opus import OpusEncoder
from mixer.audio.payload import opus_has_fec
from mixer.distribution import RECORDED, RECORDED_APART, Distribution
from mixer.fanout import PacketizedVideo
from mixer.media import EncodedAudio, EncodedVideo, VideoCodec
from mixer.video.rendition import RENDITIONS
from tests.mixer.audio.signals import syllables


class Canvas:
    """Pictures on order: ``show`` makes one of a rendition."""

    def __init__(self) -> None:
        self.sinks: dict[tuple[str, VideoCodec], Callable[[EncodedVideo], None]] = {}
        self.forced: list[tuple[str, VideoCodec]] = []
        self.intervals_s: dict[tuple[str, VideoCodec], float | None] = {}
        self.index = 0

    def want(self, name: str, codec: VideoCodec, sink: Callable[[EncodedVideo], None]) -> None:
        self.sinks[name, codec] = sink

    def unwant(self, name: str, codec: VideoCodec) -> None:
        del self.sinks[name, codec]

    def force_keyframe(self, name: str, codec: VideoCodec) -> None:
        self.forced.append((name, codec))

    def set_keyframe_interval(self, name: str, codec: VideoCodec, seconds: float | None) -> None:
        self.intervals_s[name, codec] = seconds

    async def show(self, name: str, *, keyframe: bool = False) -> None:
        self.index += 1
        data = name.encode() + b"\x01" * 20
        self.sinks[name, "VP8"](EncodedVideo("VP8", data, self.index * 3000, keyframe))
        await asyncio.sleep(0)


class Peer:
    sends_video = "VP8"
    sends_audio = "opus"
    repeats_audio = False
    resends_audio = False

    def __init__(self) -> None:
        self.units: list[PacketizedVideo] = []
        self.sound: list[EncodedAudio] = []
        self.stopped = 0
        self.holds_pictures = False

    def send_video(self, unit: PacketizedVideo) -> None:
        self.units.append(unit)

    def send_audio(self, frame: EncodedAudio) -> None:
        self.sound.append(frame)

    def stop_pictures(self) -> None:
        self.stopped += 1

    @property
    def shown(self) -> list[str]:
        names = [unit.payloads[0][4:].rstrip(b"\x01").decode() for unit in self.units]
        return [name + "!" * unit.keyframe for name, unit in zip(names, self.units, strict=True)]


def connection(name: str, session: str = "s") -> Any:
    return SimpleNamespace(
        session=session, peer=Peer(), rendition=RENDITIONS[name], minus=None, fec=False, listens=True
    )


def distribution() -> tuple[Distribution, Canvas, AudioBridge]:
    canvas, bridge = Canvas(), AudioBridge()
    clock: Any = SimpleNamespace(wake=lambda: None)
    shown: Any = canvas
    return Distribution(bridge, shown, clock), canvas, bridge


async def watched(name: str) -> tuple[Distribution, Canvas, AudioBridge, Any]:
    """A distribution with one viewer, who has seen the first picture of rendition ``name``."""
    out, canvas, bridge = distribution()
    viewer = connection(name)
    out.subscribe(viewer)
    await canvas.show(name, keyframe=True)
    return out, canvas, bridge, viewer


async def test_the_old_rendition_goes_on_until_the_new_one_s_keyframe() -> None:
    out, canvas, _, viewer = await watched("high")
    await canvas.show("high")
    viewer.rendition = RENDITIONS["low"]
    out.adapt(viewer)
    out.adapt(viewer)
    assert canvas.forced[-1] == ("low", "VP8")
    assert canvas.sinks.keys() == {("high", "VP8"), ("low", "VP8")}
    await canvas.show("high")
    await canvas.show("low")  # not yet
    await canvas.show("high")
    await canvas.show("low", keyframe=True)
    assert canvas.sinks.keys() == {("low", "VP8")}  # nobody takes the other one
    await canvas.show("low")
    assert viewer.peer.shown == ["high!", "high", "high", "high", "low!", "low"]


async def test_who_changes_their_mind_before_the_keyframe_stays() -> None:
    out, canvas, _, viewer = await watched("high")
    for name in ("low", "medium", "high"):
        viewer.rendition = RENDITIONS[name]
        out.adapt(viewer)
    assert canvas.sinks.keys() == {("high", "VP8")}
    await canvas.show("high")
    assert viewer.peer.shown == ["high!", "high"]


async def test_sound_alone_ends_the_pictures_and_a_keyframe_begins_them_again() -> None:
    out, canvas, _, viewer = await watched("low")
    viewer.rendition = RENDITIONS["audio"]
    out.adapt(viewer)
    assert viewer.peer.stopped == 1
    assert canvas.sinks == {}
    out.keyframe_wanted(viewer)  # of the last picture it has: nothing to ask for
    viewer.rendition = RENDITIONS["low"]
    out.adapt(viewer)
    await canvas.show("low")
    await canvas.show("low", keyframe=True)
    assert viewer.peer.shown == ["low!", "low!"]


async def test_while_a_line_drains_nothing_is_sent_and_the_sound_moves_at_once() -> None:
    out, canvas, bridge, viewer = await watched("high")
    viewer.rendition, viewer.peer.holds_pictures = RENDITIONS["low"], True
    out.adapt(viewer)
    assert canvas.sinks == {}
    assert bridge.stats()["outputs"].keys() == {"s#2"}
    viewer.peer.holds_pictures = False
    out.adapt(viewer)
    await canvas.show("low", keyframe=True)
    assert viewer.peer.shown == ["high!", "low!"]


async def test_a_keyframe_is_asked_of_what_is_shown() -> None:
    out, canvas, _ = distribution()
    viewer = connection("medium")
    out.subscribe(viewer)
    await canvas.show("medium", keyframe=True)
    for _ in range(40):
        await canvas.show("medium")
    canvas.forced.clear()
    out.keyframe_wanted(viewer)
    assert canvas.forced == [("medium", "VP8")]


async def test_sound_changes_its_packets_without_a_hole() -> None:
    out, _, bridge = distribution()
    viewer = connection("high")
    out.subscribe(viewer)
    tick = itertools.count()

    def run(ticks: int) -> None:
        for index in itertools.islice(tick, ticks):
            bridge.tick(index, index * 0.02)

    run(7)
    viewer.rendition = RENDITIONS["low"]
    out.adapt(viewer)
    run(20)
    viewer.fec = True
    out.adapt(viewer)
    run(20)
    viewer.rendition = RENDITIONS["high"]
    out.adapt(viewer)
    run(20)
    sound = viewer.peer.sound
    assert [frame.samples for frame in sound[:7]] == [960] * 7
    assert {frame.samples for frame in sound} == {960, 2880}
    for before, after in itertools.pairwise(sound):
        assert after.pts == before.pts + before.samples
    assert len(bridge.stats()["outputs"]) == 1
    out.unsubscribe(viewer)
    assert bridge.stats()["outputs"] == {}
    assert bridge.stats()["shared_encoders"] == 0


async def test_viewers_of_one_rendition_share_everything_and_the_recorder_keeps_its_own() -> None:
    out, canvas, bridge = distribution()
    viewers = [connection("medium", f"s{number}") for number in range(5)]
    for viewer in viewers:
        out.subscribe(viewer)
    recorded: list[EncodedVideo] = []
    out.record(recorded.append)
    assert canvas.sinks.keys() == {("medium", "VP8"), RECORDED}
    assert bridge.stats()["shared_encoders"] == 1
    await canvas.show("medium", keyframe=True)
    assert all(viewer.peer.units[0] is viewers[0].peer.units[0] for viewer in viewers)
    for viewer in viewers:
        viewer.rendition = RENDITIONS["audio"]
        out.adapt(viewer)
    assert canvas.sinks.keys() == {RECORDED}
    for viewer in viewers:
        out.unsubscribe(viewer)
        out.unsubscribe(viewer)
        out.adapt(viewer)
    assert canvas.sinks.keys() == {RECORDED}
    out.stop_recording()
    assert canvas.sinks == {}


async def test_from_the_word_on_the_recorder_gets_nothing_of_the_other_canvas() -> None:
    out, canvas, _ = distribution()
    recorded: list[bytes] = []
    out.record(lambda frame: recorded.append(frame.data[:4]))

    async def show(key: tuple[str, VideoCodec], mark: bytes, *, keyframe: bool = False) -> None:
        canvas.sinks[key](EncodedVideo("H264", mark + b"\x01" * 20, 0, keyframe))
        await asyncio.sleep(0)

    await show(RECORDED, b"all0")  # before the first keyframe
    await show(RECORDED, b"all1", keyframe=True)
    in_flight = canvas.sinks[RECORDED]
    out.record_apart(True)
    assert canvas.forced[-1] == RECORDED_APART
    assert canvas.sinks.keys() == {RECORDED_APART}, "nobody watches the other one"
    in_flight(EncodedVideo("H264", b"all2" + b"\x01" * 20, 0, True))  # was being encoded when the word came
    await asyncio.sleep(0)
    await show(RECORDED_APART, b"few0")
    await show(RECORDED_APART, b"few1", keyframe=True)
    out.record_apart(False)
    out.record_apart(False)
    await show(RECORDED, b"all3")
    await show(RECORDED, b"all4", keyframe=True)
    assert recorded == [b"all1", b"few1", b"all4"]
    out.stop_recording()
    assert canvas.sinks == {}
    out.record_apart(True)
    assert canvas.sinks == {}, "nothing is encoded while nothing is recorded"


async def test_what_is_recorded_has_a_keyframe_each_two_seconds_and_what_is_watched_is_spared_them() -> None:
    out, canvas, _ = distribution()
    out.subscribe(connection("high", "v"))
    assert canvas.intervals_s == {}
    out.record(lambda frame: None)
    assert canvas.intervals_s == {RECORDED: 2.0}
    out.record_apart(True)
    assert canvas.intervals_s == {RECORDED: None, RECORDED_APART: 2.0}
    out.stop_recording()
    assert canvas.intervals_s == {RECORDED: None, RECORDED_APART: None}


async def test_a_listener_that_loses_gets_red_if_it_takes_that_else_fec_within_the_same_limits() -> None:
    out, _, bridge = distribution()
    red, plain = connection("high", "red"), connection("high", "plain")
    red.peer.repeats_audio = True
    for viewer in (red, plain):
        viewer.fec = True
        out.subscribe(viewer)
    for index in range(12):
        bridge.tick(index, index * 0.02)
    assert [offset for offset, _ in red.peer.sound[-1].earlier] == [4_800, 960]
    assert plain.peer.sound[-1].earlier == ()
    assert {(form.fec, form.bitrate_bps) for form in bridge._shared} == {(False, 24_000), (True, 32_000)}
    red.fec = False
    out.adapt(red)
    for index in range(12, 24):
        bridge.tick(index, index * 0.02)
    assert red.peer.sound[-1].earlier == ()
    assert [frame.pts for frame in red.peer.sound] == list(range(0, 24 * 960, 960))


async def test_where_every_bit_counts_lost_sound_is_sent_again_on_request_if_that_can_be_asked_for() -> None:
    out, _, bridge = distribution()
    asks, cannot = connection("audio", "asks"), connection("audio", "cannot")
    asks.peer.resends_audio = True
    for viewer in (asks, cannot):
        viewer.peer.repeats_audio = viewer.fec = True
        out.subscribe(viewer)
    for index in range(12):
        bridge.tick(index, index * 0.02)
    assert [viewer.peer.sound[-1].earlier for viewer in (asks, cannot)] == [(), ()], "two copies are too many"
    forms = {key.split("#")[0]: outlet.shared.form for key, outlet in bridge._outlets.items()}
    assert (forms["asks"].fec, forms["asks"].bitrate_bps) == (False, 12_000), (
        "FEC would cost it its wide band"
    )
    assert (forms["cannot"].fec, forms["cannot"].bitrate_bps) == (True, 14_600)


@pytest.mark.parametrize("name", list(RENDITIONS))
async def test_who_takes_nothing_but_opus_gets_fec_in_the_packets_of_every_rendition(name: str) -> None:
    """A viewer whose line loses, one whose does not, and somebody who speaks."""
    out, _, bridge = distribution()
    lossy, calm = connection(name, "lossy"), connection(name, "calm")
    lossy.fec = True
    for viewer in (lossy, calm):
        out.subscribe(viewer)
    bridge.add_input("ann", "opus")
    voice, encoder = syllables(4.0), OpusEncoder(32_000)
    for index in range(200):
        data = encoder.encode(voice[index * 960 : index * 960 + 960])
        bridge.push("ann", index, index * 960, data, "opus", index * 0.02, 7, None)
        bridge.tick(index, index * 0.02 + 0.01)
    carrying = [sum(opus_has_fec(frame.data) for frame in viewer.peer.sound) for viewer in (lossy, calm)]
    assert carrying[0] > 0.6 * len(lossy.peer.sound)
    assert carrying[1] == 0, "whose line is good loses nothing to FEC"
    assert {frame.samples for frame in lossy.peer.sound} == {RENDITIONS[name].audio_ptime_ms * 48}
