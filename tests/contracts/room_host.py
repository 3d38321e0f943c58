"""What every ``RoomHost`` must do. Run against the process host and the one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mixer import protocol
from mixer.errors import BadOffer, Conflict, NotFound, WorkerLost
from mixer.host.port import RoomHost
from mixer.video.layout import LayoutBody

SETTINGS = protocol.WorkerSettings(host="127.0.0.1", public_ip=None, udp_ports=(40000, 40999))


def state(room: str, epoch: int = 1, **more: object) -> protocol.RoomState:
    """A room's state as control would hand it out."""
    return protocol.RoomState(
        room=room, epoch=epoch, settings=SETTINGS, layout_version=1, layout=LayoutBody(), **more
    )


async def check_room_host(host: RoomHost, kill: Callable[[str], None]) -> None:
    """The whole contract. ``kill`` ends a room's worker the hard way."""
    await _answers(host)
    await _errors_cross_the_border(host)
    await _roster_is_taken_over(host)
    await _death_is_told_and_fenced(host, kill)
    await host.shutdown(grace_s=5)
    with pytest.raises(NotFound):
        await host.ask("one", protocol.GetStats())


async def _answers(host: RoomHost) -> None:
    await host.open(state("one"))
    with pytest.raises(Conflict):
        await host.open(state("one"))
    body = LayoutBody(preset="speaker")
    assert await host.ask("one", protocol.SetLayout(version=2, layout=body)) == protocol.Done()
    stats = await host.ask("one", protocol.GetStats())
    assert isinstance(stats, protocol.Stats)
    assert set(stats.body) >= {"participants", "renditions", "ticks", "queues"}
    snapshot = await host.ask("one", protocol.GetSnapshot())
    assert isinstance(snapshot, protocol.Snapshot)
    assert snapshot.png.startswith(b"\x89PNG\r\n\x1a\n")
    media = await host.ask("one", protocol.GetMedia())
    assert isinstance(media, protocol.Media)
    assert [socket.addresses for socket in media.sockets] == [("127.0.0.1",)]
    assert all(socket.port in range(40000, 41000) for socket in media.sockets)
    many = await asyncio.gather(*(host.ask("one", protocol.GetStats()) for _ in range(20)))
    assert all(isinstance(answer, protocol.Stats) for answer in many)


async def _errors_cross_the_border(host: RoomHost) -> None:
    who = protocol.RosterEntry(id="ann", name="Ann")
    with pytest.raises(BadOffer):
        await host.ask("one", protocol.Offer(session="s", publish=True, participant=who, sdp="nonsense"))
    with pytest.raises(NotFound):
        await host.ask("one", protocol.Trickle(session="nobody", fragment=""))
    with pytest.raises(Conflict):
        await host.ask("one", protocol.ChangeRecording(id="none", state="stopped"))
    with pytest.raises(NotFound):
        await host.ask("elsewhere", protocol.GetStats())
    assert isinstance(await host.ask("one", protocol.GetStats()), protocol.Stats), "still alive"


async def _roster_is_taken_over(host: RoomHost) -> None:
    roster = (protocol.RosterEntry(id="ann", name="Ann"), protocol.RosterEntry(id="bob", name="Bob"))
    await host.open(state("two", roster=roster))
    preview = await host.ask("two", protocol.GetPreview(layout=LayoutBody(), picture=False))
    assert isinstance(preview, protocol.Preview)
    assert [tile["participant"] for tile in preview.tiles] == ["ann", "bob"]
    assert preview.png is None


async def _death_is_told_and_fenced(host: RoomHost, kill: Callable[[str], None]) -> None:
    kill("two")
    async with asyncio.timeout(30):  # the house says 1 s; the slack is for a loaded machine
        while True:
            room, event = await host.next_event()
            if isinstance(event, protocol.WorkerDied):
                break
    assert (room, event.epoch) == ("two", 1)
    with pytest.raises((NotFound, WorkerLost)):
        await host.ask("two", protocol.GetStats())
    assert isinstance(await host.ask("one", protocol.GetStats()), protocol.Stats), "others do not notice"
    await host.open(state("two", epoch=2))
    assert isinstance(await host.ask("two", protocol.GetStats()), protocol.Stats)
    await host.close("two", grace_s=5)
    await host.close("two", grace_s=5)
    with pytest.raises(NotFound):
        await host.ask("two", protocol.GetStats())
