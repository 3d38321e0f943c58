"""The whole way by a relay with clients that are no browsers: what they are told, what gets through, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiortc import RTCIceServer

from mixer.cli import main
from mixer.probe.run import Plan, opened
from tests.peers.relays import Certificates, Relayed, relayed_server, turn_settings
from tests.peers.watcher import watching
from tests.serving import serving
from tests.turn.client import TurnClient, TurnError

PATIENCE_S = 30.0


def servers(relayed: Relayed, token: str | None = None) -> dict[str, Any]:
    """The only entry that somebody with ``token`` is told."""
    request = urllib.request.Request(
        relayed.server.url + "/v1/ice-servers",
        headers={"Authorization": f"Bearer {token or relayed.server.token}"},
    )
    with urllib.request.urlopen(request, timeout=15) as response:
        (only,) = json.load(response)
    return dict(only)


def metrics(relayed: Relayed) -> dict[str, float]:
    """Figures of the relay by name and labels."""
    text: bytes = relayed.server.call("GET", "/metrics", accept="text/plain")
    lines = [
        line.rpartition(" ") for line in text.decode().splitlines() if line.startswith("mosaique_relay_")
    ]
    return {name: float(value) for name, _, value in lines}


def until(condition: Callable[[], Any], what: str) -> None:
    """Another process's doing, told by HTTP: asked for again and again."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_clients_are_told_three_ways(relayed: Relayed) -> None:
    found = servers(relayed)
    assert [(url.partition(":")[0], url.partition("?")[2]) for url in found["urls"]] == [
        ("turn", "transport=udp"),
        ("turn", "transport=tcp"),
        ("turns", "transport=tcp"),
    ]


@pytest.mark.parametrize("way", [0, 1, 2], ids=["udp", "tcp", "tls"])
async def test_aiortc_watches_by_the_relay_only(
    relayed: Relayed, way: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(relayed.authority))  # aiortc takes the system's authorities only
    room = relayed.server.room(f"aiortc-{way}")
    plan = Plan(
        url=relayed.server.url, room=room, token=relayed.server.token, callers=1, viewers=1, rendition="medium",
        video=True, bind="127.0.0.1",
    )  # fmt: skip
    guest = relayed.server.enter(room, "viewer")
    found = servers(relayed, guest["token"])
    relay = RTCIceServer(urls=found["urls"][way], username=found["username"], credential=found["credential"])
    async with (
        opened(plan),
        watching(f"{relayed.server.url}/whep/{room}", guest["token"], relay=relay) as watcher,
    ):
        assert (await watcher.picture(after=10)).std() > 10
        assert abs(await watcher.sound(1.0)).max() > 0.01


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, made: Certificates) -> Iterator[Relayed]:
    with relayed_server("embedded", tmp_path_factory.mktemp("alone"), made) as running:
        yield running


async def _watch(relayed: Relayed, room: str, guest: dict[str, str]) -> Any:
    found = servers(relayed, guest["token"])
    relay = RTCIceServer(urls=found["urls"][0], username=found["username"], credential=found["credential"])
    return watching(f"{relayed.server.url}/whep/{room}", guest["token"], relay=relay)


async def test_an_allocation_ends_when_its_participant_is_removed(embedded: Relayed) -> None:
    room = embedded.server.room("removed")
    guest = embedded.server.enter(room, "participant", "Ann")
    async with await _watch(embedded, room, guest) as watcher:
        await watcher.picture(after=3)
        until(lambda: metrics(embedded)["mosaique_relay_allocations"] >= 1, "the watcher came another way")
        embedded.server.call("DELETE", f"/v1/rooms/{room}/participants/{guest['sub']}")
        watcher.over = True
        until(lambda: metrics(embedded)["mosaique_relay_allocations"] == 0, "the allocation lives on")


async def test_who_was_removed_allocates_no_more_until_they_are_given_other_credentials(
    embedded: Relayed,
) -> None:
    room = embedded.server.room("put-out")
    ann, bob = (embedded.server.enter(room, "participant", name) for name in ("Ann", "Bob"))
    given = {guest["sub"]: servers(embedded, guest["token"]) for guest in (ann, bob)}
    async with await _watch(embedded, room, ann) as watcher:
        await watcher.picture(after=3)
        embedded.server.call("DELETE", f"/v1/rooms/{room}/participants/{ann['sub']}")
        watcher.over = True
        with pytest.raises(TurnError, match="403"):
            _allocate(given[ann["sub"]])
        _allocate(given[bob["sub"]])
        os.kill(relay_pid(embedded), signal.SIGKILL)
        until(lambda: metrics(embedded)["mosaique_relay_up"] == 0, "the relay was not missed")
        until(lambda: metrics(embedded)["mosaique_relay_up"] == 1, "the relay is not back")
        with pytest.raises(TurnError, match="403"):  # another relay knows of it, too
            _allocate(given[ann["sub"]])
        _allocate(servers(embedded, ann["token"]))


def _allocate(found: dict[str, Any]) -> None:
    """By the relay's UDP way, with the credential of one entry of ``/v1/ice-servers``."""
    port = int(found["urls"][0].split(":")[2].partition("?")[0])
    with TurnClient(("127.0.0.1", port)) as client:
        client.username, client.password = found["username"], found["credential"]
        client.allocate()


async def test_the_figures_of_the_relay_are_on_metrics(embedded: Relayed) -> None:
    room = embedded.server.room("figures")
    guest = embedded.server.enter(room, "viewer")
    async with await _watch(embedded, room, guest) as watcher:
        await watcher.picture(after=10)

        def carried() -> float:
            return metrics(embedded).get('mosaique_relay_packets_total{direction="to_client"}', 0)

        until(lambda: carried() > 50, "nothing is counted")
        assert metrics(embedded)["mosaique_relay_up"] == 1
        assert metrics(embedded)['mosaique_relay_bytes_total{direction="to_client"}'] > 5000


def relay_pid(relayed: Relayed) -> int:
    """The child of the server that runs the relay."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, status = (path / "cmdline").read_bytes(), (path / "stat").read_text()
        except OSError:
            continue
        if int(status.rpartition(")")[2].split()[1]) == relayed.server.process.pid and b"turn\0" in command:
            return int(path.name)
    raise AssertionError("the server has no relay")


async def test_a_relay_that_dies_is_back_with_the_rooms_in_its_head(embedded: Relayed) -> None:
    room = embedded.server.room("phoenix")
    guest = embedded.server.enter(room, "viewer")
    embedded.server.call("GET", f"/v1/rooms/{room}/snapshot.png", accept="image/png")  # the room has a worker
    before = metrics(embedded)["mosaique_relay_restarts_total"]
    os.kill(relay_pid(embedded), signal.SIGKILL)
    assert embedded.server.call("GET", "/readyz")["status"] == "ready"
    # not `relay_up`: it may be down for less time than asking takes
    until(lambda: metrics(embedded)["mosaique_relay_restarts_total"] > before, "nobody noticed")
    until(lambda: metrics(embedded)["mosaique_relay_up"] == 1, "it did not come back")
    async with await _watch(embedded, room, guest) as watcher:
        await watcher.picture(after=3)


async def test_behind_a_nat_the_public_address_leads_to_the_room(tmp_path: Path, made: Certificates) -> None:
    public = "198.51.100.7"  # RFC 5737: nobody's, so that nothing but the mapping can lead anywhere
    with relayed_server("embedded", tmp_path, made, {"media.public_ip": public}) as behind:
        room = behind.server.room("nat")
        guest = behind.server.enter(room, "viewer")
        found = servers(behind, guest["token"])
        relay = RTCIceServer(
            urls=found["urls"][0], username=found["username"], credential=found["credential"]
        )
        url = f"{behind.server.url}/whep/{room}"
        for towards in (public, "127.0.0.1"):
            async with watching(url, guest["token"], relay=relay, towards=towards) as watcher:
                await watcher.picture(after=3)


# --- the probe ----------------------------------------------------------------------------------------------


def probe(
    relayed: Relayed, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, list[dict[str, Any]]]:
    """`mosaique probe --turn` of what the server hands out; exit status and a report a URL."""
    there = ("--url", relayed.server.url, "--token", relayed.server.token, "--ca", str(relayed.authority))
    status = main(["probe", "--json", *there, *more, "--turn"])
    return status, json.loads(capsys.readouterr().out)


def test_the_embedded_relay_is_sound_by_every_way(
    tmp_path: Path, made: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    with relayed_server("embedded", tmp_path, made) as alone:
        status, reports = probe(alone, capsys)
        assert [report["url"].partition(":")[0] for report in reports] == ["turn", "turn", "turns"]
        for report in reports:
            assert (report["open"], report["failed"]) == ([], []), report["url"]
            assert report["forbidden_peers_asked"] >= 40
            notes = [finding for finding in report["findings"] if finding["verdict"] == "note"]
            assert notes == [], "our own relay does what the RFC says, to the letter"
        assert status == 0

        # A live room's address is granted, since permissions know no ports, and no other port of it is reached.
        room = alone.server.room("live")
        alone.server.call("POST", f"/v1/rooms/{room}/recordings", {})  # keeps the room's worker
        status, reports = probe(alone, capsys)
        assert status == 0
        (loopback,) = (f for f in reports[0]["findings"] if f["name"] == "peer 127.0.0.1 is refused")
        assert loopback["verdict"] == "note"
        assert loopback["detail"].endswith("refused by ChannelBind; a port of ours was not reached")
        verdicts = {finding["name"]: finding["verdict"] for finding in reports[0]["findings"]}
        assert verdicts["Send to a port that is closed reaches nobody"] == "ok"


def test_with_the_servers_secret_expired_names_are_tried_too_and_our_own_peer(
    tmp_path: Path, made: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    with relayed_server("embedded", tmp_path, made, allowed_peers="127.0.0.1") as alone:
        url = servers(alone)["urls"][0].replace("localhost", "127.0.0.1")
        secret = str(alone.server.data_dir / "turn-secret")
        command = ["probe", "--json", "--turn", url, "--secret-file", secret, "--allow-peer", "127.0.0.1"]
        assert main(command) == 0
        (report,) = json.loads(capsys.readouterr().out)
        verdicts = {finding["name"]: finding["verdict"] for finding in report["findings"]}
        for name in ("an expired name is 401", "Data comes back from it", "ChannelData comes back from it"):
            assert verdicts[name] == "ok", name


# --- start and end ------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_ends_the_start_with_its_key(tmp_path: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        with (
            pytest.raises(
                RuntimeError, match=rf"(?s)status 2.*turn\.port: the relay cannot have UDP port {port}"
            ),
            serving(tmp_path, {**turn_settings(), "turn.port": str(port)}),
        ):
            pass


def test_the_relay_ends_with_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, turn_settings()) as server:
        pid = relay_pid(Relayed("embedded", server, tmp_path))
    assert not Path(f"/proc/{pid}").exists()
