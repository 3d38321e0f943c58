"""A viewer with `auto` on lines as people have them: minutes of simulated time, the real way out of a room."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mixer.media import FRAME_SAMPLES
from mixer.probe.display import Display
from mixer.probe.signal import frozen_s
from mixer.rtp.rtcp import Nack
from mixer.video.rendition import RENDITIONS
from tests.fakes.mixroom import AUDIO_SSRC, Kind, MixRoom, Viewer, wire_size
from tests.fakes.netem import Burst, Netem

CAP_S, LIFT_S, END_S = 15.0, 45.0, 75.0


def line(seed: int = 3, **ways: Any) -> Netem[bytes]:
    return Netem(seed=seed, size=wire_size, **{"delay_s": 0.03, **ways})


def assert_calm(viewer: Viewer, start: float, end: float) -> None:
    """At most four moves in any minute."""
    for at in range(int(start), max(int(start) + 1, int(end) - 59)):
        assert viewer.moves(at, at + 60.0) <= 4


@pytest.mark.parametrize("queue_bytes", [6_000, 16_000, 64_000])
@pytest.mark.parametrize("delay_s", [0.01, 0.05])
async def test_a_cap_of_150_kbit_is_low_without_a_freeze_and_over_when_it_is(
    queue_bytes: int, delay_s: float
) -> None:
    room = MixRoom(seed=1)
    net = line(delay_s=delay_s)
    viewer = await room.join("v", net, back_delay_s=delay_s)
    await room.run(CAP_S)
    assert viewer.rendition == "high"
    net.rate_bps, net.queue_bytes = 150_000, queue_bytes
    await room.run(LIFT_S)
    assert viewer.rendition == "low"
    assert room.encoders.running == {"low"}  # only what somebody takes
    assert max(at for at, _ in viewer.renditions if at < LIFT_S) < CAP_S + 2.0  # settled
    assert viewer.longest_freeze(CAP_S, LIFT_S) < 2.0
    net.rate_bps = None
    await room.run(END_S)
    assert viewer.rendition == "high"
    assert min(at for at, name in viewer.renditions if at > LIFT_S and name == "high") < LIFT_S + 15.0
    assert viewer.longest_freeze(LIFT_S, END_S) < 2.0
    assert_calm(viewer, 0.0, END_S)


async def test_the_first_small_picture_finds_an_empty_queue() -> None:
    """30 kB hold 1.6 s of the line and lose what does not fit: a keyframe sent into that would be lost in part."""
    pauses = []
    for seed in range(3):
        room = MixRoom(seed=seed)
        net = line(seed=seed, delay_s=0.15)
        viewer = await room.join("v", net, back_delay_s=0.15)
        await room.run(CAP_S)
        net.rate_bps, net.queue_bytes = 150_000, 30_000
        await room.run(CAP_S + 10.0)
        assert viewer.rendition == "low"
        pauses.append(viewer.longest_freeze(CAP_S, CAP_S + 10.0))
    assert max(pauses) < 1.45


@pytest.mark.parametrize(
    ("rate_bps", "name"),
    [(30e3, "audio"), (150e3, "low"), (500e3, "medium"), (1.3e6, "medium"), (3e6, "high"), (None, "high")],
)
@pytest.mark.parametrize("busy", [0.95, 0.2])
async def test_each_line_has_its_rendition_from_the_start(
    rate_bps: float | None, name: str, busy: float
) -> None:
    room = MixRoom(seed=2, busy=busy)
    viewer = await room.join("v", line(rate_bps=rate_bps, queue_bytes=24_000))
    await room.run(4.0)
    if name != "audio":  # which has no picture, and the first one takes too long for that line
        assert viewer.shown[0].at < (0.3 if rate_bps is None or rate_bps > 1e6 else 2.0)
    await room.run(90.0)
    if busy > 0.9:
        assert viewer.rendition == name
    else:  # what hardly moves may be had in better quality than its limit says, or not
        order = list(RENDITIONS)
        assert order.index(viewer.rendition) <= order.index(name)
    assert_calm(viewer, 0.0, 90.0)
    late = [delay for at, delay in viewer.sound_delays if at > 30.0]
    assert max(late) - min(late) < 0.6  # a try now and then, no queue that stands


@pytest.mark.parametrize("loss", [0.02, 0.05, 0.10])
@pytest.mark.parametrize("burst", [None, Burst(begin=0.005, end=0.2)])
async def test_loss_is_no_congestion(loss: float, burst: Burst | None) -> None:
    room = MixRoom(seed=3)
    viewer = await room.join(
        "v", line(loss=0.0 if burst else loss, burst=burst, delay_s=0.05), back_delay_s=0.05
    )
    viewer.line.loss = loss if burst is None else loss / 2
    await room.run(120.0)
    assert viewer.rendition == "high"
    assert viewer.moves(1.0, 120.0) == 0
    assert viewer.connection.fec  # the sound is helped instead
    first, last = ([d for at, d in viewer.sound_delays if a <= at < a + 10] for a in (10.0, 110.0))
    assert max(last) - max(first) < 0.04  # delay does not grow
    assert viewer.longest_freeze(1.0, 120.0) < 1.5


async def test_jitter_is_no_congestion() -> None:
    room = MixRoom(seed=4)
    viewer = await room.join("v", line(jitter_s=0.05))
    await room.run(60.0)
    assert (viewer.rendition, viewer.moves(1.0, 60.0)) == ("high", 0)
    assert not viewer.connection.fec


async def test_a_line_that_changes_all_the_time_moves_nobody_to_and_fro() -> None:
    room, source = MixRoom(seed=5), random.Random(5)
    net = line(rate_bps=600_000, queue_bytes=24_000)
    viewer = await room.join("v", net)

    def change(now: float) -> None:
        if round(now / 0.005) % 400 == 0:  # each 2 s
            net.rate_bps = source.uniform(300e3, 1.6e6)

    await room.run(180.0, change)
    assert_calm(viewer, 0.0, 180.0)
    assert viewer.longest_freeze(2.0, 180.0) < 2.0


async def test_an_outage_is_survived_and_forgotten() -> None:
    room = MixRoom(seed=6)
    net = line()
    viewer = await room.join("v", net)
    await room.run(10.0)
    net.loss = 1.0
    await room.run(13.0)
    net.loss = 0.0
    await room.run(40.0)
    assert viewer.rendition == "high"
    assert viewer.longest_freeze(10.0, 40.0) < 3.0 + 1.5


async def test_fixed_renditions_never_move_and_are_never_padded() -> None:
    room = MixRoom(seed=7)
    viewers = {name: await room.join(name, line(rate_bps=150_000), asked=name) for name in RENDITIONS}
    await room.run(20.0)
    assert {name: viewer.rendition for name, viewer in viewers.items()} == {name: name for name in RENDITIONS}
    assert all(viewer.stats["padded"] == 0 for viewer in viewers.values())
    assert viewers["audio"].shown == []


@pytest.mark.parametrize("name", list(RENDITIONS))
async def test_bytes_on_the_wire_are_within_the_contract(name: str) -> None:
    """With numbers in every packet, headers of IP, UDP, RTP and SRTP's tag, and our reports."""
    room = MixRoom(seed=8, busy=1.0)
    viewer = await room.join("v", line(), asked=name)
    await room.run(5.0)
    before = viewer.received_bytes
    await room.run(65.0)
    bps = (viewer.received_bytes - before) * 8 / 60
    assert 0.6 * RENDITIONS[name].wire_bps < bps <= RENDITIONS[name].wire_bps


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("name", list(RENDITIONS))
async def test_sound_that_is_sent_twice_or_again_stays_within_the_contract(name: str, asks: bool) -> None:
    """RED and repeats of a tenth of the sound, as on a line that loses that; the pictures' repeats come on top."""
    room = MixRoom(seed=8, busy=1.0)
    viewer = await room.join("v", line(), asked=name)
    viewer.connection._fec.update = lambda loss, now: True  # type: ignore[method-assign]
    if not asks:
        viewer.connection.peer._mix.audio._history = None  # type: ignore[union-attr]
    asked: set[int] = set()

    def lose(now: float) -> None:
        lost = {sequence for sequence, _ in viewer.heard[-5:] if sequence % 10 == 0} - asked
        if lost and asks:
            asked.update(lost)
            viewer._say(Nack(1, AUDIO_SSRC, tuple(lost)))

    await room.run(5.0)
    before = viewer.received_bytes
    await room.run(35.0, lose)
    bps = (viewer.received_bytes - before) * 8 / 30
    assert bps <= RENDITIONS[name].wire_bps
    assert viewer.stats["repeated"] >= (30 * 50 / 3 / 10 * 0.9 if asks else 0)


@pytest.mark.parametrize("name", list(RENDITIONS))
async def test_sound_with_fec_stays_within_the_contract(name: str) -> None:
    """For who takes neither RED nor repeats of sound, like Firefox."""
    room = MixRoom(seed=8, busy=1.0)
    viewer = await room.join("v", line(), asked=name)
    viewer.connection._fec.update = lambda loss, now: True  # type: ignore[method-assign]
    mix = viewer.connection.peer._mix
    mix.audio._history = mix.red = None  # type: ignore[union-attr]
    await room.run(5.0)
    before = viewer.received_bytes
    await room.run(65.0)
    assert room.bridge.rates == {RENDITIONS[name].fec_bps}
    assert (
        0.6 * RENDITIONS[name].wire_bps
        < (viewer.received_bytes - before) * 8 / 60
        <= RENDITIONS[name].wire_bps
    )


@pytest.mark.parametrize(("rate_bps", "name"), [(150e3, "low"), (60e3, "audio")])
async def test_trying_for_more_stays_within_the_contract_too(rate_bps: float, name: str) -> None:
    room = MixRoom(seed=8, busy=1.0)
    viewer = await room.join("v", line(rate_bps=rate_bps, queue_bytes=16_000))
    await room.run(15.0)
    before, tries = viewer.received_bytes, viewer.stats["probes"]
    await room.run(75.0)
    assert viewer.rendition == name
    assert viewer.stats["probes"] - tries >= 8
    assert (viewer.received_bytes - before) * 8 / 60 <= RENDITIONS[name].wire_bps


async def test_what_the_receiver_gets_is_one_stream_whatever_it_is_made_of() -> None:
    room = MixRoom(seed=9)
    net = line()
    viewer = await room.join("v", net)
    for until, rate in ((10.0, None), (30.0, 150_000), (50.0, 30_000), (90.0, None)):
        net.rate_bps, net.queue_bytes = rate, 24_000
        await room.run(until)
    names = [name for _, name in viewer.renditions]
    assert {"high", "low", "audio"} <= set(names)
    assert viewer.rendition == "high"
    stamps = [shown.timestamp for shown in viewer.shown]
    assert stamps == sorted(set(stamps))
    at_start = viewer.shown[0].at - viewer.shown[0].timestamp / 90_000
    at_end = viewer.shown[-1].at - viewer.shown[-1].timestamp / 90_000
    assert at_end - at_start == pytest.approx(0.0, abs=0.3)  # the room's clock, all the way
    assert viewer._assembler.dropped == 0 or viewer._assembler.lost > 0
    for (sequence, stamp), (after, later) in zip(viewer.heard, viewer.heard[1:], strict=False):
        packets = after - sequence & 0xFFFF
        assert (later - stamp & 0xFFFFFFFF) % FRAME_SAMPLES == 0
        assert packets * FRAME_SAMPLES <= (later - stamp & 0xFFFFFFFF) <= 3 * packets * FRAME_SAMPLES


async def test_fifty_viewers_each_at_their_own() -> None:
    room, source = MixRoom(seed=10), random.Random(10)
    kinds: dict[str, tuple[Any, str]] = {
        "narrow": ({"rate_bps": 150e3, "queue_bytes": 16_000}, "low"),
        "middling": ({"rate_bps": 550e3, "queue_bytes": 24_000}, "medium"),
        "good": ({"rate_bps": 4e6}, "high"),
        "lossy": ({"loss": 0.05}, "high"),
        "tiny": ({"rate_bps": 40e3, "queue_bytes": 12_000}, "audio"),
    }
    viewers = []
    for number in range(50):
        kind = list(kinds)[number % 5]
        ways = {"delay_s": source.uniform(0.005, 0.1), **kinds[kind][0]}
        viewers.append((kind, await room.join(f"{kind} {number}", line(seed=number, **ways))))
    await room.run(40.0)
    found = {(kind, viewer.rendition) for kind, viewer in viewers}
    assert found == {(kind, name) for kind, (_, name) in kinds.items()}
    for kind, viewer in viewers:
        assert viewer.moves(15.0, 40.0) <= 2, (kind, viewer.renditions)
    assert room.encoders.running == {"high", "medium", "low"}
    for _, viewer in viewers:
        room.leave(viewer)
    assert room.encoders.running == set()
    assert room.bridge.outputs == 0


# --- viewers whose requests get lost in bursts


async def frozen(seed: int, share: float, *, asked: str, deaf: bool = False) -> tuple[float, Viewer]:
    """Share of a minute in which a viewer's player, with its jitter buffer, stands; 50 ms, bursts of five both ways."""
    room = MixRoom(seed=seed)
    net = line(seed=seed, delay_s=0.05)
    viewer = await room.join("v", net, back_delay_s=0.05, asked=asked, deaf=deaf)
    await room.run(8.0)
    net.burst = viewer.back.burst = Burst(begin=share / (1 - share) / 5, end=1 / 5)
    await room.run(70.0)
    display = Display()
    shown = [display.show(shown.at, shown.timestamp / 90_000) for shown in viewer.shown]
    return frozen_s([at for at in shown if 10.0 <= at < 70.0], 10.0, 70.0) / 60.0, viewer


@pytest.mark.parametrize("asked", ["high", "auto"])
@pytest.mark.parametrize(("share", "most"), [(0.02, 0.02), (0.05, 0.05), (0.10, 0.12)])
async def test_pictures_hardly_stop_where_bursts_take_the_requests_too(
    asked: str, share: float, most: float
) -> None:
    for seed in range(4):
        found, viewer = await frozen(seed, share, asked=asked)
        assert found <= most
        assert viewer.rendition == "high" or share == 0.10
        assert viewer.stats["unasked"] > 0


async def test_what_its_silence_tells_is_worth_most_of_the_stops() -> None:
    """Against a viewer that answers no calls, so that nothing can be told of it."""
    found = [(await frozen(seed, 0.05, asked="high"))[0] for seed in range(6)]
    deaf = [(await frozen(seed, 0.05, asked="high", deaf=True))[0] for seed in range(6)]
    assert sum(found) < 0.4 * sum(deaf)


async def test_who_loses_nothing_is_not_called_and_gets_nothing_unasked() -> None:
    room = MixRoom(seed=8)
    viewer = await room.join("v", line(), asked="high")
    await room.run(20.0)
    assert viewer.calls == {}
    assert viewer.connection.peer._transport._calls == 0  # type: ignore[union-attr]
    assert viewer.stats["unasked"] == 0


@pytest.mark.parametrize("queue_bytes", [6_000, 64_000])
async def test_a_full_queue_is_not_taken_for_silence(queue_bytes: int) -> None:
    """A fixed rendition that does not fit its line: what is lost there is no reason to send more."""
    room = MixRoom(seed=8)
    viewer = await room.join(
        "v", line(rate_bps=1_100_000, queue_bytes=queue_bytes, delay_s=0.05), asked="high"
    )
    await room.run(60.0)
    stats = viewer.stats
    assert stats["lost"] > 100
    assert stats["unasked"] < 0.05 * stats["packets"]


# --- viewers that do not tell when packets came: what the calls to them wait is the line's queue

PLAIN: list[Kind] = ["remb", "reports"]


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize(("rate_bps", "name"), [(150e3, "low"), (500e3, "medium")])
@pytest.mark.parametrize("seed", range(4))
async def test_a_cap_is_followed_both_ways_by_round_trips(
    kind: Kind, rate_bps: float, name: str, seed: int
) -> None:
    room = MixRoom(seed=seed)
    net = line(seed=seed)
    viewer = await room.join("v", net, kind=kind)
    capped_s = CAP_S + seed * 0.03  # calls are a tenth of a second apart
    await room.run(capped_s)
    assert viewer.rendition == "high"
    net.rate_bps, net.queue_bytes = rate_bps, 16_000
    await room.run(LIFT_S)
    assert viewer.rendition == name
    assert max(at for at, _ in viewer.renditions if at < LIFT_S) < capped_s + 2.0
    assert viewer.longest_freeze(capped_s, LIFT_S) < 2.0
    net.rate_bps = None
    await room.run(END_S)
    assert viewer.rendition == "high"
    assert min(at for at, found in viewer.renditions if at > LIFT_S and found == "high") < LIFT_S + 15.0
    assert viewer.longest_freeze(LIFT_S, END_S) < 2.0
    assert_calm(viewer, 0.0, END_S)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("queue_bytes", [24_000, 64_000])
async def test_a_deep_queue_is_waited_for_once(kind: Kind, queue_bytes: int) -> None:
    room = MixRoom(seed=2)
    net = line(delay_s=0.05)
    viewer = await room.join("v", net, kind=kind, back_delay_s=0.05)
    await room.run(CAP_S)
    net.rate_bps, net.queue_bytes = 150_000, queue_bytes
    await room.run(LIFT_S)
    assert [name for _, name in viewer.renditions] == ["high", "low"]
    assert viewer.longest_freeze(CAP_S, LIFT_S) < 2.0


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("loss", [0.02, 0.05, 0.10])
@pytest.mark.parametrize("seed", range(3))
async def test_loss_of_calls_and_answers_is_no_congestion(kind: Kind, loss: float, seed: int) -> None:
    room = MixRoom(seed=seed)
    viewer = await room.join("v", line(seed=seed, loss=loss, delay_s=0.05), kind=kind, back_delay_s=0.05)
    viewer.back.loss = loss
    await room.run(120.0)
    assert viewer.rendition == "high"
    assert viewer.moves(1.0, 120.0) == 0
    assert viewer.connection.fec
    assert viewer.longest_freeze(1.0, 120.0) < 1.5


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize(
    ("ways", "name"),
    [
        ({"burst": Burst(begin=0.022, end=0.2), "delay_s": 0.05}, "high"),
        ({"jitter_s": 0.05}, "high"),
        ({"rate_bps": 3e6}, "high"),
        ({"rate_bps": 1.3e6, "queue_bytes": 48_000}, "medium"),
        ({"rate_bps": 500e3, "queue_bytes": 24_000, "jitter_s": 0.05}, "medium"),
        ({"rate_bps": 500e3, "queue_bytes": 24_000, "loss": 0.05}, "medium"),
        ({"rate_bps": 150e3, "queue_bytes": 16_000}, "low"),
        ({"rate_bps": 30e3, "queue_bytes": 24_000}, "audio"),
    ],
)
async def test_each_plain_viewer_has_what_its_line_takes(kind: Kind, ways: dict[str, Any], name: str) -> None:
    room = MixRoom(seed=3)
    viewer = await room.join("v", line(**ways), kind=kind)
    await room.run(90.0)
    assert viewer.rendition == name
    assert_calm(viewer, 1.0, 90.0)
    assert viewer.longest_freeze(2.0, 90.0) < 2.0 or name == "audio"
    late = [delay for at, delay in viewer.sound_delays if at > 30.0]
    assert max(late) - min(late) < 0.85  # a try now and then; the queue is long empty after it


@pytest.mark.parametrize("rtx", [True, False])
async def test_without_rtx_the_line_is_tried_with_repeats(rtx: bool) -> None:
    room = MixRoom(seed=12)
    net = line(rate_bps=150_000, queue_bytes=16_000)
    viewer = await room.join("v", net, kind="reports", rtx=rtx)
    await room.run(20.0)
    assert (viewer.rendition, viewer.moves(2.0, 20.0)) == ("low", 0)
    assert viewer.stats["probes"] > 1
    net.rate_bps = None
    await room.run(35.0)
    assert viewer.rendition == "high"


@pytest.mark.parametrize("name", list(RENDITIONS))
async def test_calls_are_within_the_contract(name: str) -> None:
    room = MixRoom(seed=8, busy=1.0)
    rate_bps = {"high": None, "medium": 900e3, "low": 200e3, "audio": 60e3}[name]
    viewer = await room.join("v", line(rate_bps=rate_bps, queue_bytes=16_000), kind="reports")
    await room.run(20.0)
    before = viewer.received_bytes
    await room.run(80.0)
    assert viewer.rendition == name
    assert (
        0.5 * RENDITIONS[name].wire_bps
        < (viewer.received_bytes - before) * 8 / 60
        <= RENDITIONS[name].wire_bps
    )


async def test_a_peer_that_answers_no_call_still_falls_and_comes_back() -> None:
    room = MixRoom(seed=11)
    net = line()
    viewer = await room.join("v", net, kind="reports", deaf=True)
    await room.run(20.0)
    assert viewer.rendition == "high"
    net.rate_bps, net.queue_bytes = 150_000, 16_000
    await room.run(60.0)
    assert viewer.rendition in {"low", "audio", "medium"}  # it is tried blindly from time to time
    net.rate_bps = None
    await room.run(150.0)
    assert viewer.rendition in {"medium", "high"}


@pytest.mark.parametrize("kind", ["transport-cc", "remb", "reports"])
async def test_a_good_line_is_at_the_top_at_once(kind: Kind) -> None:
    room = MixRoom(seed=12)
    viewer = await room.join("v", line(), kind=kind)
    await room.run(60.0)
    assert viewer.rendition == "high"
    assert viewer.shown[0].at < 0.2  # joined to picture
    assert viewer.moves(1.0, 60.0) == 0


async def test_who_agreed_to_tell_of_arrivals_and_does_not_is_called() -> None:
    room = MixRoom(seed=13)
    net = line()
    viewer = await room.join("v", net)
    viewer.kind = "reports"
    await room.run(15.0)
    assert viewer.rendition == "high"
    net.rate_bps, net.queue_bytes = 150_000, 16_000
    await room.run(30.0)
    assert viewer.rendition == "low"
    assert viewer.longest_freeze(15.0, 30.0) < 2.0
