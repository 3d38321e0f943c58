"""What the probe makes of relays that are closed, open, know ports, or leak: each of them in memory."""

from __future__ import annotations

import ipaddress

import pytest

from mixer.probe import turn_checks, turn_run
from mixer.probe.turn_checks import Finding, Subject
from mixer.probe.turn_wire import Target
from tests.fakes.turn_wire import FakeRelay, FakeWire
from turn.policy import Network


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_run, "QUIET_S", 0.2)


def subject(monkeypatch: pytest.MonkeyPatch, relay: FakeRelay, allowed: tuple[Network, ...] = ()) -> Subject:
    monkeypatch.setattr(turn_checks, "Wire", lambda target: FakeWire(relay, target))
    return Subject(Target("tcp", "127.0.0.1", 3478), secret="s", allowed=allowed)


async def matrix(monkeypatch: pytest.MonkeyPatch, relay: FakeRelay, *allowed: Network) -> dict[str, Finding]:
    found = await turn_run._matrix(subject(monkeypatch, relay, allowed))
    assert len(found) >= 40
    return {finding.name.split()[1]: finding for finding in found}


@pytest.mark.parametrize("ipv6", [True, False])
async def test_a_closed_relay_is_closed(monkeypatch: pytest.MonkeyPatch, ipv6: bool) -> None:
    found = await matrix(monkeypatch, FakeRelay(ipv6=ipv6))
    assert {finding.verdict for finding in found.values()} == {"ok"}


async def test_an_open_one_is_open_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await matrix(monkeypatch, FakeRelay(addresses=None))
    assert {finding.verdict for finding in found.values()} == {"open"}


async def test_one_notation_that_gets_through_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = str(ipaddress.ip_address("::ffff:127.0.0.1"))
    found = await matrix(monkeypatch, FakeRelay(addresses=frozenset({mapped})))
    assert [ip for ip, finding in found.items() if finding.verdict == "open"] == [mapped]
    # what is meant to be reached is, in whatever notation
    found = await matrix(
        monkeypatch, FakeRelay(addresses=frozenset({mapped})), ipaddress.ip_network("127.0.0.1")
    )
    assert found[mapped].verdict == "note"


@pytest.mark.parametrize(("leaks", "verdict"), [(False, "note"), (True, "open")])
async def test_media_beside_the_relay_are_no_hole_unless_other_ports_are_reached(
    monkeypatch: pytest.MonkeyPatch, leaks: bool, verdict: str
) -> None:
    relay = FakeRelay(addresses=frozenset({"127.0.0.1"}), ports=True, leaks=leaks)
    found = await matrix(monkeypatch, relay)
    assert found["127.0.0.1"].verdict == verdict
    assert {finding.verdict for ip, finding in found.items() if ip != "127.0.0.1"} == {"ok"}


async def test_a_permission_elsewhere_is_a_hole_with_or_without_its_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await matrix(monkeypatch, FakeRelay(addresses=frozenset({"10.0.0.1"}), ports=True))
    assert found["10.0.0.1"].verdict == "open"


async def carried(monkeypatch: pytest.MonkeyPatch, relay: FakeRelay) -> dict[str, str]:
    found = await turn_run._carries(subject(monkeypatch, relay))
    return {finding.name: finding.verdict for finding in found}


HERE = frozenset({"127.0.0.1"})


async def test_no_peer_of_ours_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await carried(monkeypatch, FakeRelay())
    assert found == {"Send without a permission reaches nobody": "ok", "Send and Data": "skipped"}


async def test_ports_that_are_closed_are_told_from_a_relay_that_does_not_carry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = await carried(monkeypatch, FakeRelay(addresses=HERE, ports=True))
    assert closed["Send to a port that is closed reaches nobody"] == "ok"
    assert "failed" not in closed.values()
    leaking = await carried(monkeypatch, FakeRelay(addresses=HERE, ports=True, leaks=True))
    assert leaking["Send to a port that is closed reaches nobody"] == "open"


async def test_send_without_a_permission_that_is_delivered_is_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await carried(monkeypatch, FakeRelay(permitted={"127.0.0.1"}))
    assert found["Send without a permission reaches nobody"] == "open"
