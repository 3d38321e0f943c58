"""What a room's process makes of control's words, without a socket or a tick."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mixer import protocol
from mixer.intake import SCREEN_SUFFIX
from mixer.session import Session
from mixer.video.layout import LayoutBody
from tests.contracts.room_host import SETTINGS

ANNA = protocol.RosterEntry(id="anna", name="Anna", publishes=False)


async def test_control_hears_whose_pictures_are_too_large() -> None:
    said: list[protocol.Event] = []
    state = protocol.RoomState(room="r", epoch=1, settings=SETTINGS, layout_version=1, layout=LayoutBody())
    session = Session(state, said.append)
    try:
        for source in ("anna", "anna" + SCREEN_SUFFIX):
            lane: Any = SimpleNamespace(refused=f"{source} is too large", refusals=1, size=(0, 0))
            session._intake._lanes[source] = lane
            lane.set_shown = lambda _: None
        peer: Any = SimpleNamespace(peer=SimpleNamespace(ask_video=lambda *_, **__: None), participant=ANNA)
        session._intake._publishers["anna"] = peer
        session._intake._entries["anna"] = ANNA
        for _ in range(3):
            session._ask_senders()
        assert said == [
            protocol.PictureRefused(participant="anna", screen=False, detail="anna is too large"),
            protocol.PictureRefused(participant="anna", screen=True, detail="anna#screen is too large"),
        ]
    finally:
        session._intake._lanes.clear()
        session._intake._publishers.clear()
        await session.stop("the test is over")


async def test_a_word_from_before_a_connection_does_not_take_its_publisher_off_the_canvas() -> None:
    """Control says who may be seen; its word and an offer may overtake each other."""
    said: list[protocol.Event] = []
    state = protocol.RoomState(room="r", epoch=1, settings=SETTINGS, layout_version=1, layout=LayoutBody())
    session = Session(state, said.append)
    try:
        session._roster["anna"] = ANNA  # as the offer left her, and then her media came
        connection: Any = SimpleNamespace(
            participant=ANNA, peer=SimpleNamespace(receives_audio=None, receives_video="VP8")
        )
        session._intake._publishers["anna"] = connection
        late = ANNA.model_copy(update={"name": "Anna B."})  # control had not heard of that yet
        await session.handle(protocol.SetParticipant(participant=late))
        assert session._roster["anna"].publishes
        assert session._roster["anna"].name == "Anna B."
        assert [source.id for source in session._sources()] == ["anna"]
        del session._intake._publishers["anna"]  # she is gone, and control says so
        await session.handle(protocol.SetParticipant(participant=late))
        assert session._sources() == []
    finally:
        session._intake._publishers.clear()
        await session.stop("the test is over")
