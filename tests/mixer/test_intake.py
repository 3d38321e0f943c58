"""Whose picture is decoded, and what its sender is asked for. A peer that notes what it is told stands for WebRTC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
import pytest
import pytest_asyncio

from mixer.audio.bridge import AudioBridge
from mixer.audio.opus import OpusEncoder
from mixer.audio.speaker import GATE_DBOV, level_dbov
from mixer.avsync import DECODED_S
from mixer.intake import REFUSAL_TOLD_S, SCREEN_SUFFIX, Intake
from mixer.media import EncodedVideo
from mixer.protocol import RosterEntry
from mixer.rtp.packet import RtpPacket
from mixer.rtp.reception import ReceptionStats
from mixer.rtp.rtcp import SenderReport
from mixer.track_tap import TrackTap
from mixer.video.canvas import Canvas
from mixer.video.demand import KEPT, LOWER_AFTER_S, UNSEEN, Demand
from mixer.video.layout import LayoutBody
from tests.mixer.audio.signals import noise, tone
from tests.mixer.webrtc.support import until

TILE: Final = Demand(426, 240, 30, 384_000)
HUGE: Final = (
    b"\x10\x02\x00\x9d\x01\x2a" + (4096).to_bytes(2, "little") + (2160).to_bytes(2, "little") + bytes(99)
)


class NotingPeer:
    receives_audio = "opus"
    receives_video = "VP8"
    audio_level_id: int | None = None

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def ask_video(self, demand: Demand, screen: bool = False) -> None:
        self.told.append(("screen" if screen else "camera", demand))

    def request_keyframe(self, screen: bool = False) -> None:
        self.told.append(("screen" if screen else "camera", "keyframe"))

    def sender_time(self, kind: str, timestamp: int, *, screen: bool = False) -> float | None:
        return None  # no sender report has come yet


class Sender:
    """What ``Intake`` reads of a connection."""

    closed = False

    def __init__(self, who: str) -> None:
        self.peer = NotingPeer()
        self.participant = RosterEntry(id=who, name=who)

    def stats(self) -> dict[str, Any]:
        return {}


@pytest_asyncio.fixture
async def intake() -> AsyncIterator[Intake]:
    made = Intake(AudioBridge(), Canvas(LayoutBody()))
    yield made
    made.close()


def join(intake: Intake, who: str) -> Sender:
    sender = Sender(who)
    intake.add(sender.participant, sender)  # type: ignore[arg-type]
    return sender


async def test_senders_are_told_once_what_their_tiles_need(intake: Intake) -> None:
    seen, hidden = join(intake, "seen"), join(intake, "hidden")
    for now in (0.0, 0.2, 0.4):
        intake.show({"seen": TILE}, now)
    assert seen.peer.told == [("camera", TILE)]
    assert hidden.peer.told == [("camera", UNSEEN)]


async def test_a_newly_shown_sender_may_send_more_before_it_is_asked_for_a_keyframe(intake: Intake) -> None:
    sender = join(intake, "a")
    intake.show({}, 0.0)
    intake.show({"a": TILE}, 1.0)
    await until(lambda: len(sender.peer.told) == 3, "the keyframe request")
    assert sender.peer.told == [("camera", UNSEEN), ("camera", TILE), ("camera", "keyframe")]


async def test_a_screen_is_asked_for_beside_its_camera(intake: Intake) -> None:
    sender = join(intake, "a")
    intake.saw(sender, EncodedVideo("VP8", b"\0", 0, False), screen=True)  # type: ignore[arg-type]
    screen = Demand(1280, 720, 30, 2_500_000)
    intake.show({"a": TILE, "a" + SCREEN_SUFFIX: screen}, 0.0)
    assert sender.peer.told == [("camera", TILE), ("screen", screen)]


async def test_who_sends_4k_is_told_and_the_figures_say_why_it_is_not_seen(intake: Intake) -> None:
    sender = join(intake, "a")
    intake.show({"a": TILE}, 0.0)
    for _ in range(3):
        intake.saw(sender, EncodedVideo("VP8", HUGE, 0, True), screen=False)  # type: ignore[arg-type]
    await until(lambda: intake.stats({}, {})["a"]["refused"], "the refusal")
    assert "4096×2160" in intake.stats({}, {})["a"]["refused"]
    intake.show({"a": TILE}, 1.0)
    intake.show({"a": TILE}, 1.2)
    assert sender.peer.told == [("camera", TILE), ("camera", UNSEEN)], "and no keyframe is asked for"


async def test_a_refusal_is_told_now_and_then_and_only_while_there_are_more(intake: Intake) -> None:
    camera = join(intake, "a")
    intake.show({"a": TILE}, 0.0)
    assert intake.refusals(0.0) == []

    async def send(count: int, *, screen: bool = False) -> None:
        lane_of = "a" + SCREEN_SUFFIX * screen
        for _ in range(count):
            before = intake._lanes[lane_of].refusals if lane_of in intake._lanes else 0
            intake.saw(camera, EncodedVideo("VP8", HUGE, 0, True), screen=screen)  # type: ignore[arg-type]
            await until(lambda: intake._lanes[lane_of].refusals > before, "the refusal")  # noqa: B023

    await send(1)
    ((source, reason),) = intake.refusals(1.0)
    assert source == "a"
    assert "4096×2160" in reason
    await send(3)
    assert intake.refusals(1.0 + REFUSAL_TOLD_S / 2) == []
    assert len(intake.refusals(1.0 + REFUSAL_TOLD_S)) == 1
    assert intake.refusals(1.0 + 3 * REFUSAL_TOLD_S) == [], "nothing came since"
    await send(1, screen=True)
    assert [source for source, _ in intake.refusals(1.1)] == ["a" + SCREEN_SUFFIX]


async def test_while_tracks_are_kept_who_is_not_seen_sends_a_picture_too(intake: Intake) -> None:
    seen, hidden = join(intake, "seen"), join(intake, "hidden")
    intake.show({"seen": TILE}, 0.0)
    kept: list[tuple[str, str]] = []
    tap = TrackTap(lambda source, frame, pts: kept.append((source.participant, source.kind)), origin_s=0.0)
    intake.record(tap)
    intake.show({"seen": TILE}, 1.0)
    assert seen.peer.told == [("camera", TILE)], "the tile's picture is enough"
    assert hidden.peer.told == [("camera", UNSEEN), ("camera", KEPT)]
    for sender in (seen, hidden):
        intake.saw(sender, EncodedVideo("VP8", b"\0", 0, False), screen=False)  # type: ignore[arg-type]
    assert kept == [("seen", "camera"), ("hidden", "camera")]
    for change in ({"recorded": False}, {"video_muted": True}):
        intake.change(hidden.participant.model_copy(update=change))
        intake.show({"seen": TILE}, 1.0)
        intake.show({"seen": TILE}, 1.0 + LOWER_AFTER_S)
        assert hidden.peer.told[-1] == ("camera", UNSEEN), "nothing of it would be kept"
        intake.change(hidden.participant)
        intake.show({"seen": TILE}, 5.0)
        assert hidden.peer.told[-1] == ("camera", KEPT)
    assert intake.stats({}, {})["hidden"]["decoded"] == 0
    intake.record(None)
    intake.show({"seen": TILE}, 6.0)
    intake.show({"seen": TILE}, 6.0 + LOWER_AFTER_S)
    assert hidden.peer.told[-1] == ("camera", UNSEEN)
    intake.saw(hidden, EncodedVideo("VP8", b"\0", 0, False), screen=False)  # type: ignore[arg-type]
    assert len(kept) == 2


async def test_another_connection_of_the_same_participant_is_told_anew(intake: Intake) -> None:
    join(intake, "a")
    intake.show({"a": TILE}, 0.0)
    again = join(intake, "a")
    intake.show({"a": TILE}, LOWER_AFTER_S)
    assert ("camera", TILE) in again.peer.told


async def test_what_a_sender_will_send_is_what_it_is_asked_for_if_it_heeds_that(intake: Intake) -> None:
    assert intake.will_send_px("ann", TILE) is None
    sender = Sender("ann")
    intake.add(sender.participant, sender)  # type: ignore[arg-type]
    assert intake.will_send_px("ann", TILE) == 426 * 240
    intake.show({"ann": TILE}, 0.0)
    lane = intake._lanes["ann"]
    lane.size = (1280, 720)
    intake.show({"ann": TILE}, LOWER_AFTER_S + 1.0)
    assert intake.will_send_px("ann", TILE) == 1280 * 720  # asked for a tile, and does not listen
    lane.size = (480, 270)
    assert intake.will_send_px("ann", Demand(1280, 720, 30, 2_000_000)) == 1280 * 720


# --- voices: what a packet says beside its sound, and pictures beside them


def voice(number: int, payload: bytes, **more: Any) -> RtpPacket:
    return RtpPacket(111, False, number, number * 960, 7, payload, **more)


@pytest.mark.parametrize("agreed", [5, None])
async def test_the_levels_in_a_senders_headers_spare_the_decoding_of_its_silence(
    intake: Intake, agreed: int | None
) -> None:
    """RFC 6464: one byte, the first bit says "voice"; the extension's number is what was agreed on."""
    sender = join(intake, "a")
    sender.peer.audio_level_id = agreed
    hush, encoder = noise(4.0, 3e-4), OpusEncoder(32_000)
    assert 127 > level_dbov(hush) > GATE_DBOV
    sound = np.concatenate((tone(440, 1.0), hush))
    for n in range(250):
        pcm = sound[n * 960 : n * 960 + 960]
        packet = voice(n, encoder.encode(pcm), extensions={5: bytes([0x80 | level_dbov(pcm)])})
        intake.heard(sender, packet, "opus", n * 0.02)  # type: ignore[arg-type]
        intake._bridge.tick(n, n * 0.02 + 0.005)
    figures = intake._bridge.stats()["inputs"]["a"]
    assert figures["level_lies"] == 0
    assert (figures["slept"] > 30) == (agreed is not None)


async def test_a_packet_that_was_repaired_is_no_jitter_of_the_line(intake: Intake) -> None:
    sender = join(intake, "a")
    sound, encoder = tone(440, 10.0), OpusEncoder(32_000)
    packets = [encoder.encode(sound[at : at + 960]) for at in range(0, len(sound), 960)]
    for n, payload in enumerate(packets):
        if n % 25:
            intake.heard(sender, voice(n, payload), "opus", n * 0.02)  # type: ignore[arg-type]
        if n > 25 and n % 25 == 6:  # 120 ms later
            late = voice(n - 6, packets[n - 6], repaired=True)
            intake.heard(sender, late, "opus", n * 0.02)  # type: ignore[arg-type]
        intake._bridge.tick(n, n * 0.02 + 0.005)
    assert intake._bridge.stats()["inputs"]["a"]["jitter_ms"] < 1


class ReportingPeer(NotingPeer):
    """What comes of it is counted and its sender reports are kept, as a real peer does."""

    def __init__(self) -> None:
        super().__init__()
        self.received = {"audio": ReceptionStats(48_000), "video": ReceptionStats(90_000)}

    def sender_time(self, kind: str, timestamp: int, *, screen: bool = False) -> float | None:
        return self.received[kind].sender_time(timestamp)


class Lane:
    """Stands for the decoder, which is as quick as it usually is: when each picture is to be shown."""

    late_s, size, refused = DECODED_S, (640, 360), None

    def __init__(self, *_: Any) -> None:
        self.due: dict[int, float] = {}

    def push(self, frame: EncodedVideo, *, due: float) -> None:
        self.due[frame.pts] = due

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("sound_s", "picture_s"), [(0.01, 0.01), (0.01, 0.11), (0.01, 0.15), (0.11, 0.01), (0.15, 0.01)]
)
async def test_lips_fit_words_whichever_of_the_two_is_a_tenth_of_a_second_later(
    monkeypatch: pytest.MonkeyPatch, sound_s: float, picture_s: float
) -> None:
    """A beep each second on the second, a picture 30 times a second; which is mixed when, by the sender's reports.

    The bridge, its codec and its jitter buffer are real, so that what is measured is what a listener hears.
    """
    monkeypatch.setattr("mixer.intake.DecodeLane", Lane)
    clock = [0.0]
    bridge = AudioBridge()
    heard: list[np.ndarray] = []
    bridge.set_recorder(lambda pcm, pts: heard.append(pcm))
    intake = Intake(bridge, Canvas(LayoutBody()), clock=lambda: clock[0])
    sender, peer, encoder = Sender("a"), ReportingPeer(), OpusEncoder(32_000)
    sender.peer = peer
    intake.add(sender.participant, sender)  # type: ignore[arg-type]
    beeps = np.where(np.arange(12 * 48_000) % 48_000 < 9_600, tone(700, 12.0, 0.3), 0).astype(np.float32)
    lane: Any = intake._lanes["a"]
    for ms in range(12_000):
        now = clock[0] = ms / 1000
        said_ms, taken_ms = ms - round(sound_s * 1000), ms - round(picture_s * 1000)
        if said_ms > 0 and said_ms % 20 == 0:  # a packet is whole when its last sample was said
            n = said_ms // 20 - 1
            packet = voice(n, encoder.encode(beeps[n * 960 : n * 960 + 960]))
            peer.received["audio"].receive(packet, now)
            intake.heard(sender, packet, "opus", now)  # type: ignore[arg-type]
        if taken_ms >= 0 and taken_ms * 30 // 1000 != (taken_ms - 1) * 30 // 1000:
            n = taken_ms * 30 // 1000
            peer.received["video"].receive(RtpPacket(96, True, n, n * 3_000, 8, b""), now)
            intake.saw(sender, EncodedVideo("VP8", b"", n * 3_000, n == 0), screen=False)  # type: ignore[arg-type]
        if ms % 1000 == 500:
            for kind, ssrc, hz in (("audio", 7, 48), ("video", 8, 90)):
                report = SenderReport(ssrc, round((3.9e9 + now) * 2**32), ms * hz, 0, 0)
                peer.received[kind].sender_report(report, now)
        if ms % 20 == 7:
            bridge.tick(ms // 20, now)
    intake.close()
    sound = np.concatenate(heard)
    for second in range(5, 11):
        search = np.abs(sound[second * 48_000 - 4_800 : second * 48_000 + 24_000])
        onset_s = second - 0.1 + int(np.argmax(search > 0.1)) / 48_000 + 0.007
        shown_s = np.ceil((lane.due[second * 90_000] - 1 / 60) * 30) / 30  # at the canvas's next tick
        assert abs(shown_s - onset_s) < 0.04
