"""Whose picture is decoded, and what its sender is asked for. A peer that notes what it is told stands for WebRTC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest_asyncio

from mixer.audio.bridge import AudioBridge
from mixer.intake import REFUSAL_TOLD_S, SCREEN_SUFFIX, Intake
from mixer.media import EncodedVideo
from mixer.protocol import RosterEntry
from mixer.track_tap import TrackTap
from mixer.video.canvas import Canvas
from mixer.video.demand import KEPT, LOWER_AFTER_S, UNSEEN, Demand
from mixer.video.layout import LayoutBody
from tests.mixer.webrtc.support import until

TILE: Final = Demand(426, 240, 30, 384_000)
HUGE: Final = (
    b"\x10\x02\x00\x9d\x01\x2a" + (4096).to_bytes(2, "little") + (2160).to_bytes(2, "little") + bytes(99)
)


class NotingPeer:
    receives_audio = "opus"
    receives_video = "VP8"

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
