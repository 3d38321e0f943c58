"""The registry on the host in memory: rooms, sessions, layouts, recordings, and a worker that dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mixer import live_recordings, protocol, registry, workers
from mixer.errors import AlreadyRecording, BadOffer, Conflict, NoCapacity, NotAllowed, NotFound
from mixer.registry import Registry
from mixer.relay_book import LEFT_S, RelayBook
from mixer.room import ParticipantPatch, RoomCreate, RoomPatch
from mixer.room_shelf import RoomShelf
from mixer.sessions import Caller
from mixer.video.layout import LayoutBody
from tests.contracts.room_host import SETTINGS
from tests.fakes.desk import MemoryDesk
from tests.fakes.host import MemoryHost
from turn.control import End, Peers, ToRelay
from turn.policy import Peer

ADMIN = Caller("admin", "", "admin", "*")
ANN = Caller("ann", "Ann", "participant", "demo")
BOB = Caller("bob", "Bob", "participant", "demo")
EVE = Caller("eve", "Eve", "viewer", "demo")
MOD = Caller("mod", "Mo", "moderator", "demo")
OFFER = "v=0\r\n"


class Desk:
    """A registry with its fakes."""

    def __init__(self) -> None:
        self.host = MemoryHost()
        self.desk = MemoryDesk()
        self.book = RelayBook()
        self.registry = Registry(self.host, self.desk, SETTINGS, relay_book=self.book)


@pytest.fixture
async def d() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.registry.start()
    await desk.registry.create_room(RoomCreate(name="demo"))
    yield desk
    await desk.registry.drain(grace_s=1)


async def until(d: Desk, event_type: str, do: Any = None) -> dict[str, Any]:
    """The data of the next event of that type; ``do`` is called once listening."""
    with d.registry.hub.subscribe(None) as events:
        if do is not None:
            result = do()
            if asyncio.iscoroutine(result):
                await result
        async with asyncio.timeout(60):
            while True:
                event = await events.get()
                if event.type == event_type:
                    return event.data


async def test_a_room_name_is_taken_once_and_free_after_its_end(d: Desk) -> None:
    with pytest.raises(Conflict):
        await d.registry.create_room(RoomCreate(name="demo"))
    await d.registry.end_room("demo")
    with pytest.raises(NotFound):
        d.registry.room("demo")
    await d.registry.create_room(RoomCreate(name="demo"))


async def test_patch_changes_only_what_it_names_and_pins_are_never_shown(d: Desk) -> None:
    await d.registry.change_room("demo", RoomPatch(pin="4711", language="fr"))
    room = await d.registry.change_room("demo", RoomPatch(max_participants=3))
    assert room.pin == "4711"
    assert room.language == "fr"
    assert "4711" not in str(room.public())
    assert (await d.registry.change_room("demo", RoomPatch(pin=None))).pin is None


async def test_publishing_admits_and_hanging_up_leaves(d: Desk) -> None:
    created = await d.registry.offer("demo", "whip", ANN, OFFER)
    assert [p.id for p in d.registry.participants("demo")] == ["ann"]
    with pytest.raises(NotAllowed):
        await d.registry.hang_up(created.id, BOB)
    await d.registry.hang_up(created.id, ANN)
    assert d.registry.participants("demo") == []
    with pytest.raises(NotFound):
        await d.registry.hang_up(created.id, ANN)


async def test_a_bad_offer_admits_nobody(d: Desk) -> None:
    with pytest.raises(BadOffer):
        await d.registry.offer("demo", "whip", ANN, "nonsense")
    assert d.registry.participants("demo") == []


async def test_the_mix_of_a_participant_lacks_its_own_voice_and_only_that(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ANN, OFFER)
    for caller, minus, expected in ((ANN, None, "ann"), (EVE, "ann", "ann"), (ADMIN, None, None)):
        created = await d.registry.offer("demo", "whep", caller, OFFER, minus=minus)
        assert d.host.open_rooms["demo"].sessions[created.id].minus == expected
    assert [p.id for p in d.registry.participants("demo")] == ["ann"], "viewers are not participants"


async def test_encoders_on_the_admin_token_are_different_people(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ADMIN, OFFER)
    await d.registry.offer("demo", "whip", ADMIN, OFFER)
    assert len(d.registry.participants("demo")) == 2


async def test_a_reload_replaces_the_older_publisher_and_keeps_the_mute(d: Desk) -> None:
    first = await d.registry.offer("demo", "whip", ANN, OFFER)
    await d.registry.change_participant("demo", "ann", ParticipantPatch(muted=True))
    second = await d.registry.offer("demo", "whip", ANN, OFFER)
    worker = d.host.open_rooms["demo"]
    assert first.id not in worker.sessions
    assert second.id in worker.sessions
    assert worker.sessions[second.id].participant.muted
    assert d.registry.participants("demo")[0].muted


async def test_a_full_room_refuses_and_disturbs_nobody(d: Desk) -> None:
    await d.registry.change_room("demo", RoomPatch(max_participants=1))
    await d.registry.offer("demo", "whip", ANN, OFFER)
    with pytest.raises(NoCapacity):
        await d.registry.offer("demo", "whip", BOB, OFFER)
    await d.registry.offer("demo", "whip", ANN, OFFER)
    assert [p.id for p in d.registry.participants("demo")] == ["ann"]


async def test_removing_a_participant_ends_all_of_its_sessions(d: Desk) -> None:
    published = await d.registry.offer("demo", "whip", ANN, OFFER)
    watched = await d.registry.offer("demo", "whep", ANN, OFFER)
    await d.registry.remove_participant("demo", "ann")
    for session in (published, watched):
        with pytest.raises(NotFound):
            await d.registry.trickle(session.id, "", ANN)
    assert "ann" not in d.host.open_rooms["demo"].roster


async def test_layout_versions_grow_and_roll_back_as_new_ones(d: Desk) -> None:
    assert d.registry.layout("demo") == (1, LayoutBody())
    await d.registry.offer("demo", "whip", ANN, OFFER)
    assert await d.registry.put_layout("demo", LayoutBody(preset="speaker"), by="mod") == 2
    assert d.host.open_rooms["demo"].layout.preset == "speaker"
    assert await d.registry.roll_back("demo", 1, by="mod") == 3
    assert d.host.open_rooms["demo"].layout.preset == "grid"
    assert [v["version"] for v in d.registry.layout_versions("demo")] == [3, 2, 1]
    with pytest.raises(NotFound):
        await d.registry.roll_back("demo", 9, by="mod")


async def test_one_recording_at_a_time_and_its_states(d: Desk) -> None:
    started = await d.registry.start_recording("demo", tracks=False, note="", by="mod")
    with pytest.raises(AlreadyRecording) as refused:
        await d.registry.start_recording("demo", tracks=False, note="", by="mod")
    assert refused.value.recording_id == started["id"]
    await d.registry.change_recording(started["id"], "paused", by="mod")
    assert d.registry.room("demo").public()["recording"] == {"id": started["id"], "state": "paused"}
    await d.registry.change_recording(started["id"], "recording", by="mod")
    await d.registry.change_recording(started["id"], "stopped", by="mod")
    assert d.desk.states[started["id"]] == ["recording", "paused", "recording", "sealing"]
    with pytest.raises(Conflict):
        await d.registry.change_recording(started["id"], "stopped", by="mod")


async def test_a_recording_that_cannot_start_is_failed_not_live(d: Desk) -> None:
    d.host.refusal = NoCapacity("no room for another worker")
    with pytest.raises(NoCapacity):
        await d.registry.start_recording("demo", tracks=False, note="", by="mod")
    assert d.desk.states == {"REC0": ["recording", "failed"]}
    assert d.registry.room("demo").recording is None


async def test_a_dead_worker_is_replaced_with_the_rooms_state(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ANN, OFFER)
    await d.registry.change_participant("demo", "ann", ParticipantPatch(name="Änne", muted=True))
    await d.registry.put_layout("demo", LayoutBody(preset="pip"), by="mod")
    recording = await d.registry.start_recording("demo", tracks=False, note="", by="mod")
    data = await until(d, "room.restarted", lambda: d.host.kill("demo"))
    assert data == {"epoch": 2}
    state = d.host.open_rooms["demo"].state
    assert state.layout.preset == "pip"
    assert state.layout_version == 2
    assert [(e.id, e.name, e.muted) for e in state.roster] == [("ann", "Änne", True)]
    assert state.recording is not None
    assert state.recording.id == recording["id"]


async def test_a_late_word_of_an_older_epoch_changes_nothing(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ANN, OFFER)
    await until(d, "room.restarted", lambda: d.host.kill("demo"))
    d.host.say("demo", protocol.WorkerDied(epoch=1, detail="again"))
    await until(
        d,
        "speaker.changed",
        lambda: d.host.say("demo", protocol.SpeakingChanged(speaking=("ann",), speaker="ann")),
    )
    assert d.registry.restarts == 1
    assert "demo" in d.host.open_rooms


async def test_who_does_not_come_back_after_a_crash_leaves(d: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ABSENT_S", 0.0)
    monkeypatch.setattr(registry, "SWEEP_S", 0.01)
    await d.registry.drain(grace_s=1)
    d.registry = Registry(d.host, d.desk, SETTINGS)
    await d.registry.start()
    await d.registry.create_room(RoomCreate(name="demo"))
    await d.registry.offer("demo", "whip", ANN, OFFER)
    data = await until(d, "participant.left", lambda: d.host.kill("demo"))
    assert data["id"] == "ann"


async def test_a_room_that_crashes_again_and_again_waits_for_the_next_join(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ANN, OFFER)
    for _ in range(workers.MAX_CRASHES - 1):
        await until(d, "room.restarted", lambda: d.host.kill("demo"))
    await until(d, "room.interrupted", lambda: d.host.kill("demo"))
    assert "demo" not in d.host.open_rooms
    await d.registry.offer("demo", "whip", ANN, OFFER)
    assert "demo" in d.host.open_rooms


async def test_a_session_lost_by_the_worker_makes_its_participant_leave(d: Desk) -> None:
    created = await d.registry.offer("demo", "whip", ANN, OFFER)
    data = await until(
        d,
        "participant.left",
        lambda: d.host.say("demo", protocol.SessionClosed(session=created.id, reason="no media for 30 s")),
    )
    assert data["reason"] == "no media for 30 s"
    assert d.registry.participants("demo") == []


async def test_a_drained_registry_takes_nobody_and_has_sealed_its_recordings(d: Desk) -> None:
    await d.registry.start_recording("demo", tracks=False, note="", by="mod")
    await d.registry.drain(grace_s=1)
    assert d.desk.states["REC0"][-1] == "sealing"
    assert not d.registry.ready
    with pytest.raises(NoCapacity):
        await d.registry.offer("demo", "whip", ANN, OFFER)


async def test_events_resume_after_the_last_id_seen(d: Desk) -> None:
    with d.registry.hub.subscribe(None) as events:
        await d.registry.offer("demo", "whip", ANN, OFFER)
        first = await events.get()
    await d.registry.change_participant("demo", "ann", ParticipantPatch(hand=True))
    with d.registry.hub.subscribe("demo", after=first.id) as events:
        assert (await events.get()).data["hand"] is True


async def test_a_recording_that_cannot_be_continued_is_followed_by_another(d: Desk) -> None:
    first = await d.registry.start_recording("demo", tracks=True, note="council", by="mod")
    data = await until(
        d,
        "recording.started",
        lambda: d.host.say("demo", protocol.RecordingLost(id=first["id"], reason="taken by the archiver")),
    )
    assert data["recording"] == "REC1"
    assert d.desk.states == {"REC0": ["recording", "incomplete"], "REC1": ["recording"]}
    recording = d.registry.room("demo").recording
    assert recording is not None
    assert (recording.note, recording.tracks) == ("council", True)


def load(*, step: int = 0, full: bool = False, cores: float = 0.1) -> protocol.LoadChanged:
    return protocol.LoadChanged(
        pressure=0.9 if full else 0.2, cause="decoding", step=step, name="x", full=full, cores=cores
    )


async def test_a_full_room_takes_nobody_new_but_those_inside_back(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ANN, OFFER)
    await d.registry.create_room(RoomCreate(name="other"))
    degraded = await until(d, "room.degraded", lambda: d.host.say("demo", load(step=1, full=True)))
    assert degraded["step"] == 1
    assert degraded["cause"] == "decoding"
    for direction in ("whip", "whep"):
        with pytest.raises(NoCapacity, match="try again soon"):
            await d.registry.offer("demo", direction, BOB, OFFER)  # type: ignore[arg-type]
    assert set(d.host.open_rooms["demo"].roster) == {"ann"}
    await d.registry.offer("demo", "whip", ANN, OFFER)  # her page was reloaded
    await d.registry.offer("other", "whep", ADMIN, OFFER)  # another room has its own threads
    restored = await until(d, "room.restored", lambda: d.host.say("demo", load()))
    assert restored["step"] == 0
    await d.registry.offer("demo", "whip", BOB, OFFER)


async def test_what_a_lost_worker_had_given_up_is_restored_with_the_next_one(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ANN, OFFER)
    await until(d, "room.degraded", lambda: d.host.say("demo", load(step=2, full=True)))
    restored = await until(d, "room.restored", lambda: d.host.kill("demo"))
    assert (restored["step"], restored["name"]) == (0, "full")
    await until(d, "room.degraded", lambda: d.host.say("demo", load(step=1)))


async def test_a_worker_that_had_given_up_nothing_restores_nothing(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ANN, OFFER)
    await until(d, "speaker.changed", lambda: [d.host.say("demo", load()), _said(d, "demo")])
    with d.registry.hub.subscribe("demo") as events:
        d.host.kill("demo")
        seen = set()
        async with asyncio.timeout(10):
            while "room.restarted" not in seen:
                seen.add((await events.get()).type)
    assert "room.restored" not in seen


async def test_another_name_of_the_same_step_is_announced(d: Desk) -> None:
    """A recording begins or ends: something else is given up for the load."""
    await d.registry.offer("demo", "whip", ANN, OFFER)
    await until(d, "room.degraded", lambda: d.host.say("demo", load(step=3, full=True)))
    other = load(step=3, full=True).model_copy(update={"name": "viewers-1/2"})
    told = await until(d, "room.degraded", lambda: d.host.say("demo", other))
    assert told["name"] == "viewers-1/2"


async def test_of_a_burst_on_a_loaded_machine_those_are_refused_for_whom_there_is_no_room() -> None:
    desk = Desk()
    desk.registry = Registry(desk.host, desk.desk, SETTINGS.model_copy(update={"cpu_cores": 2.0}))
    await desk.registry.start()
    await desk.registry.create_room(RoomCreate(name="demo"))
    await desk.registry.offer("demo", "whip", ANN, OFFER)
    busy = load(cores=1.4).model_copy(update={"pressure": 0.7})
    await until(desk, "speaker.changed", lambda: [desk.host.say("demo", busy), _said(desk, "demo")])
    camera = OFFER + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
    callers = [Caller(f"p{number}", "", "participant", "demo") for number in range(20)]
    offers = [desk.registry.offer("demo", "whip", caller, camera) for caller in callers]
    answers = await asyncio.gather(*offers, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, NoCapacity)]
    assert 0 < len(refused) < 20
    assert len(refused) > 10, "0.3 of a core was left"
    assert len(desk.host.open_rooms["demo"].roster) == 21 - len(refused)
    await desk.registry.offer("demo", "whip", ANN, camera)  # she is inside
    await desk.registry.drain(grace_s=1)


async def test_a_viewer_s_move_is_an_event(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ANN, OFFER)
    moved = protocol.RenditionChanged(session="s1", participant="ann", before="high", rendition="low")
    told = await until(d, "viewer.rendition", lambda: d.host.say("demo", moved))
    assert told == {"id": "ann", "session": "s1", "before": "high", "rendition": "low"}


async def test_a_picture_that_is_too_large_is_an_event(d: Desk) -> None:
    await d.registry.offer("demo", "whip", ANN, OFFER)
    refused = protocol.PictureRefused(participant="ann", screen=True, detail="picture of 4096×2160 pixels")
    told = await until(d, "picture.refused", lambda: d.host.say("demo", refused))
    assert told == {"id": "ann", "screen": True, "detail": "picture of 4096×2160 pixels"}


async def test_all_rooms_together_may_not_use_more_than_the_machine_has() -> None:
    desk = Desk()
    desk.registry = Registry(desk.host, desk.desk, SETTINGS.model_copy(update={"cpu_cores": 2.0}))
    await desk.registry.start()
    for name in ("one", "two"):
        await desk.registry.create_room(RoomCreate(name=name))
        await desk.registry.offer(name, "whip", Caller(name, "", "participant", name), OFFER)
    desk.host.say("one", load(cores=0.9))
    await until(desk, "speaker.changed", lambda: _said(desk, "one"))
    await desk.registry.offer("two", "whep", ADMIN, OFFER)
    desk.host.say("two", load(cores=0.85))
    await until(desk, "speaker.changed", lambda: _said(desk, "two"))
    with pytest.raises(NoCapacity, match=r"1\.8 of its 2 cores"):
        await desk.registry.offer("two", "whep", ADMIN, OFFER)
    await desk.registry.end_room("one")  # what it used is free again
    await desk.registry.offer("two", "whep", ADMIN, OFFER)
    await desk.registry.drain(grace_s=1)


async def test_where_load_is_only_told_nobody_is_refused() -> None:
    desk = Desk()
    settings = SETTINGS.model_copy(update={"cpu_cores": 2.0, "overload": "tell"})
    desk.registry = Registry(desk.host, desk.desk, settings)
    await desk.registry.start()
    await desk.registry.create_room(RoomCreate(name="one"))
    await desk.registry.offer("one", "whip", Caller("ann", "", "participant", "one"), OFFER)
    desk.host.say("one", load(cores=2.0))
    await until(desk, "speaker.changed", lambda: _said(desk, "one"))
    await desk.registry.offer("one", "whep", ADMIN, OFFER)
    await desk.registry.drain(grace_s=1)


def _said(desk: Desk, room: str) -> None:
    """Something that is answered by an event, after all that was said before it."""
    desk.host.say(room, protocol.SpeakingChanged(speaking=(), speaker=None))


async def test_a_recording_ends_at_the_room_s_longest_and_another_begins_where_it_is_set(
    d: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await d.registry.change_room("demo", RoomPatch(record=True, max_recording_minutes=30))
    await d.registry.offer("demo", "whip", ANN, OFFER)
    assert d.desk.states == {"REC0": ["recording"]}
    await d.registry.change_recording("REC0", "paused", by="mod")
    loop = asyncio.get_running_loop()
    clock = loop.time

    def ahead() -> None:
        monkeypatch.setattr(loop, "time", lambda: clock() + 29 * 60 + 50)

    ahead()
    await asyncio.sleep(1.2 * registry.SWEEP_S)  # one sweep, on a clock that has jumped: not long enough
    assert d.desk.states["REC0"][-1] == "paused"
    data = await until(
        d, "recording.started", lambda: monkeypatch.setattr(loop, "time", lambda: clock() + 30 * 60 + 5)
    )
    assert data["recording"] == "REC1"
    assert d.desk.states == {"REC0": ["recording", "paused", "sealing"], "REC1": ["recording"]}


async def test_an_empty_room_s_recording_ends_after_a_minute(
    d: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_recordings, "EMPTY_RECORDING_S", 0.5)
    await d.registry.start_recording("demo", tracks=False, note="", by="mod")
    data = await until(d, "recording.stopped")
    assert data["reason"] == "the room was empty"


class Heard:
    """What a relay is told."""

    def __init__(self, d: Desk) -> None:
        self.open: set[Peer] = set()
        self.ended: list[str] = []
        d.book.listen(self)

    def __call__(self, word: ToRelay) -> None:
        match word:
            case Peers(add, remove):
                self.open |= dict(add).keys()
                self.open -= set(remove)
            case End(subjects):
                self.ended += subjects


async def test_the_relay_knows_a_rooms_sockets_before_its_first_answer_and_not_after_its_end(d: Desk) -> None:
    heard = Heard(d)
    created = await d.registry.offer("demo", "whip", ANN, OFFER)
    assert heard.open == {("127.0.0.1", 40000)}
    assert created.subject == "ann"
    await d.registry.end_room("demo")
    assert heard.open == set()
    d.book.sweep(asyncio.get_running_loop().time() + LEFT_S)
    assert heard.ended == ["ann"]


async def test_the_relay_hears_of_the_sockets_of_a_worker_in_a_dead_ones_place(d: Desk) -> None:
    heard = Heard(d)
    await d.registry.offer("demo", "whip", ANN, OFFER)
    d.host.next_port = 41000
    await until(d, "room.restarted", lambda: d.host.kill("demo"))
    assert heard.open == {("127.0.0.1", 41000)}


async def test_an_allocation_ends_with_the_last_session_of_its_subject(d: Desk) -> None:
    heard = Heard(d)
    one = await d.registry.offer("demo", "whip", ANN, OFFER)
    two = await d.registry.offer("demo", "whep", ANN, OFFER)
    watching = await d.registry.offer("demo", "whep", EVE, OFFER)
    now = asyncio.get_running_loop().time()
    await d.registry.hang_up(one.id, ANN)
    d.book.sweep(now + 1000)
    assert heard.ended == []
    await d.registry.hang_up(two.id, ANN)
    d.host.say("demo", protocol.SessionClosed(session=watching.id, reason="gone"))
    loud = protocol.SpeakingChanged(speaking=(), speaker=None)
    await until(d, "speaker.changed", lambda: d.host.say("demo", loud))  # events are heard in order
    d.book.sweep(now + 1000)
    assert sorted(heard.ended) == ["ann", "eve"]


async def test_who_is_removed_has_no_relay_either(d: Desk) -> None:
    heard = Heard(d)
    await d.registry.offer("demo", "whip", ANN, OFFER)
    await d.registry.remove_participant("demo", "ann")
    assert heard.ended == ["ann"]


async def test_callers_with_the_admin_token_are_subjects_of_their_own(d: Desk) -> None:
    first = await d.registry.offer("demo", "whip", ADMIN, OFFER)
    second = await d.registry.offer("demo", "whep", ADMIN, OFFER)
    assert first.subject != second.subject
    assert "admin" not in {first.subject, second.subject}


# --- over a restart -------------------------------------------------------------------------------------------


async def test_rooms_outlive_the_server_and_ended_ones_do_not(d: Desk, tmp_path: Path) -> None:
    first = Registry(d.host, d.desk, SETTINGS, shelf=RoomShelf(tmp_path))
    await first.create_room(RoomCreate(name="council", pin="1234"))
    await first.create_room(RoomCreate(name="gone"))
    await first.change_room("council", RoomPatch(pin=None, language="de"))
    await first.put_layout("council", LayoutBody(preset="speaker"), by="mod")
    await first.end_room("gone")
    second = Registry(d.host, d.desk, SETTINGS, shelf=RoomShelf(tmp_path))
    await second.start()
    try:
        (room,) = second.rooms()
        assert (room.name, room.pin, room.language, room.layout.version) == ("council", None, "de", 2)
        assert room.layout.body.preset == "speaker"
        with pytest.raises(Conflict):
            await second.create_room(RoomCreate(name="council"))
    finally:
        await second.drain(grace_s=1)


async def test_a_disk_that_refuses_ends_no_meeting(d: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "rooms"
    registry = Registry(d.host, d.desk, SETTINGS, shelf=RoomShelf(folder))
    folder.rmdir()
    with capture_logs() as logs:
        await registry.create_room(RoomCreate(name="council"))
    assert registry.room("council").name == "council"
    assert [line["event"] for line in logs] == ["room.not_kept"]
