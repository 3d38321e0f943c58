"""The whole probe against a server that does nothing but pass media on: it finds what is there, and what is wrong."""

from __future__ import annotations

import argparse
import json

import aiohttp
import pytest

from mixer.probe import command
from mixer.probe.loops import AudioLoop, CameraLoops, encode_audio, prepare
from mixer.probe.report import Figures, faults
from mixer.probe.run import Plan, Probe
from mixer.probe.signal import Identity
from mixer.webrtc.client import Refused, WebRtcClient
from tests.mixer.probe.reflector import Reflector, reflecting

Loops = list[tuple[CameraLoops | None, AudioLoop]]


@pytest.fixture(scope="module")
def loops() -> Loops:
    """One caller with a picture; encoding takes a second, so once."""
    return prepare([Identity(0)])


def plan(server: Reflector, callers: int = 1, viewers: int = 1) -> Plan:
    return Plan(url=server.url, room="r", token=None, callers=callers, viewers=viewers, codecs=("VP8",))


async def test_a_caller_is_seen_and_its_frames_are_timed(loops: Loops) -> None:
    async with reflecting() as server, aiohttp.ClientSession() as http:
        probe = Probe(http, plan(server, viewers=2))
        try:
            await probe.join(loops)
            found = await probe.measure(2.0)
            assert (found.callers, found.viewers, found.seen) == (1, 2, 1)
            assert found.video_p50_ms is not None
            assert 0 < found.video_p50_ms < 1000
            assert found.pictures > 20
            assert found.loss_percent == 0.0
            assert found.join_p95_ms is not None
            assert found.lost_sessions == ()
            assert await probe.time_a_join() is not None
        finally:
            await probe.close()
        assert server.publishers == []
        assert server.sessions == {}, "every session was DELETEd"


async def test_who_has_no_tile_is_not_frozen(loops: Loops) -> None:
    async with reflecting() as server, aiohttp.ClientSession() as http:
        probe = Probe(http, plan(server))
        try:
            await probe.join(loops)
            with_tile = await probe.measure(2.0)
            assert with_tile.frozen_percent is not None
            assert with_tile.frozen_percent < 50
            server.shows = False  # another layout
            without = await probe.measure(2.0)
        finally:
            await probe.close()
    assert (without.frozen_percent, without.stalled_percent) == (None, None)


async def _heard(server: Reflector, loops: Loops, seconds: float) -> Figures:
    """Two callers, the second without a picture, and one viewer with the first one's ears."""
    async with aiohttp.ClientSession() as http:
        probe = Probe(http, plan(server, callers=2))
        try:
            await probe.join(loops)
            return await probe.measure(seconds)
        finally:
            await probe.close()


async def test_sound_held_back_is_measured(loops: Loops) -> None:
    """The fake server's 150 ms and next to nothing else; and nobody hears oneself."""
    async with reflecting(delay_s=0.15, speaks="p2") as server:
        found = await _heard(server, [*loops, (None, encode_audio(Identity(1)))], 3.0)
    assert found.heard == 1
    assert found.pips >= 3
    assert found.audio_p50_ms == pytest.approx(155, abs=45)
    assert found.echo_db is not None
    assert found.echo_db < -30


async def test_a_server_that_gives_people_their_own_voice_is_caught(loops: Loops) -> None:
    async with reflecting(speaks="p1") as server:
        found = await _heard(server, [*loops, (None, encode_audio(Identity(1)))], 2.5)
    assert found.echo_db == pytest.approx(3, abs=4), "what comes back is what was sent, pips and all"
    assert any("echo_db" in problem for problem in faults(found, expect_video=True))
    assert found.heard == 0, "the other one is not there"


async def test_a_refusal_says_why() -> None:
    async with reflecting() as server, aiohttp.ClientSession() as http:
        client = WebRtcClient(http, f"{server.url}/nowhere", token="t", direction="sendonly")
        with pytest.raises(Refused, match="404"):
            await client.start()
        await client.close()


def _arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(argv)


def test_no_server_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    args = _arguments("--url", "http://127.0.0.1:9", "--callers", "1", "--seconds", "1", "--no-video")
    assert command.run(args) == 1
    assert "probe:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ("--callers", "0"),
        ("--callers", "many"),
        ("--viewers", "-1"),
        ("--seconds", "-3"),
        ("--rendition", "huge"),
    ],
)
def test_wrong_usage_is_exit_2(argv: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as exit_:
        _arguments(*argv)
    assert exit_.value.code == 2


async def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    async with reflecting() as server:
        args = _arguments("--url", server.url, "--room", "r", "--callers", "1", "--seconds", "2", "--json")
        figures = await command._probe(_plan(args), args.seconds)
    status = command._print(_plan(args), figures, as_text=False)
    report = json.loads(capsys.readouterr().out)
    assert report["seen"] == 1
    assert status == (0 if report["healthy"] else 1)


def _plan(args: argparse.Namespace) -> Plan:
    return Plan(args.url, args.room, None, args.callers, args.viewers, codecs=("VP8",))
