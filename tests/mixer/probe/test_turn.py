"""The relay's probe without a relay: its URLs, its matrix, its report, and what it says to wrong arguments."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from mixer.cli import main
from mixer.errors import ConfigError
from mixer.probe.turn_checks import Finding
from mixer.probe.turn_command import as_json, as_table
from mixer.probe.turn_peers import forbidden
from mixer.probe.turn_run import Report, _software
from mixer.probe.turn_wire import Target, parse_url
from turn.policy import DENIED, is_denied


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("turn:relay.example", Target("udp", "relay.example", 3478)),
        ("turn:relay.example:99", Target("udp", "relay.example", 99)),
        ("turn:127.0.0.1:99?transport=tcp", Target("tcp", "127.0.0.1", 99)),
        ("turns:relay.example", Target("tls", "relay.example", 5349)),
        ("turns:relay.example:443?transport=tcp", Target("tls", "relay.example", 443)),
        (" turn:[2001:db8::1]:99?transport=udp ", Target("udp", "2001:db8::1", 99)),
    ],
)
def test_urls(url: str, target: Target) -> None:
    assert parse_url(url) == target
    assert parse_url(str(target)) == target


@pytest.mark.parametrize(
    "url",
    ["", "turn:", "stun:a", "http://a", "turn:a:0", "turn:a:65536", "turn:a:b", "turn:a?transport=sctp",
     "turn:a b", "turn://a", "turn:[::1", "turns:a?transport=udp"],
)  # fmt: skip
def test_what_is_no_turn_url(url: str) -> None:
    with pytest.raises(ConfigError, match="--turn"):
        parse_url(url)


def test_the_matrix_has_every_denied_network_and_every_notation() -> None:
    peers = forbidden(["198.51.100.7"])
    assert len(peers) >= 40
    assert len({peer.ip for peer in peers}) == len(peers)
    assert all(is_denied(ipaddress.ip_address(peer.ip)) for peer in peers), "nothing that a relay may reach"
    for text in DENIED:
        network = ipaddress.ip_network(text)
        assert any(
            ipaddress.ip_address(peer.ip) in network for peer in peers if peer.version == network.version
        )
    loopback = {peer.ip for peer in peers if peer.meant == "127.0.0.1"}
    assert loopback == {
        "127.0.0.1",
        "::ffff:7f00:1",
        "::7f00:1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "::ffff:0:7f00:1",
    }
    assert [peer.label for peer in peers if peer.ip == "198.51.100.7"] == ["the relay's own address"]


def report(*findings: Finding) -> Report:
    return Report("turn:a:3478?transport=udp", None, findings, 2)


FINE = Finding("Binding", "RFC 8489", "ok", "we are 192.0.2.1 to it")
REFUSED = Finding("peer 10.0.0.1 is refused", "10.0.0.0/8", "ok", "CreatePermission: error 403")
OPEN = Finding("peer 127.0.0.1 is refused", "the relay's own machine", "open", "granted by CreatePermission")
SKIPPED = Finding("an expired name is 401", "draft", "skipped", "takes a secret")


def test_a_report_says_what_is_open_and_is_short_about_the_rest() -> None:
    text = as_table(report(FINE, SKIPPED, REFUSED, OPEN))
    assert "OPEN    peer 127.0.0.1 is refused" in text
    assert "1 of 2" in text
    assert "10.0.0.1" not in text
    assert text.endswith("NOT sound: 1 open, 0 failed")
    assert as_table(report(FINE, SKIPPED, REFUSED)).endswith("\nsound")


def test_the_report_for_programs() -> None:
    body = json.loads(json.dumps(as_json(report(FINE, SKIPPED, REFUSED, OPEN))))
    assert body["sound"] is False
    assert body["open"] == ["peer 127.0.0.1 is refused"]
    assert body["findings"][0] == {
        "name": "Binding", "source": "RFC 8489", "verdict": "ok", "detail": "we are 192.0.2.1 to it"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("software", "nonce", "warned"),
    [
        ("Coturn-4.6.1 'Gorst'", b"", True),
        ("Coturn-4.16.0 'Gorst'", b"", True),
        ("Coturn-4.17.0 'Gorst'", b"0123456789abcdef", False),
        ("Coturn-5.0.0", b"", False),
        (None, b"0123456789abcdef", True),
        (None, b"obMatJos2AAAB0123456789abcdef", False),
        ("eturnal", b"123456789", False),
        (None, b"", False),
    ],
)
def test_a_coturn_with_known_holes_is_recognised(software: str | None, nonce: bytes, warned: bool) -> None:
    assert bool(_software(software, nonce)) is warned


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--turn", "http://x"], "--turn takes"),
        (["--turn", "turn:x"], "--secret-file"),
        (["--turn", "turn:x", "--user", "ann"], "--password"),
        (["--turn", "turn:x", "--secret", "s", "--allow-peer", "10.0.0.1/8"], "--allow-peer takes"),
        (["--turn", "turn:x", "--secret-file", "/nonexistent"], "--secret-file takes"),
        (["--turn", "turn:x", "--secret", "s", "--ca", "/nonexistent"], "--ca takes"),
        (["--turn"], "--token"),
        (["--turn", "--token", "t", "--url", "http://127.0.0.1:1"], "hands out no servers"),
    ],
)
def test_wrong_arguments_say_what_to_do(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOSAIQUE_TOKEN", "MOSAIQUE_TURN__SECRET", "MOSAIQUE_TURN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    assert main(["probe", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_the_secret_of_the_environment_and_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mixer.probe.turn_command import _secret

    (tmp_path / "secret").write_text("newest\nolder\n")
    assert _secret(tmp_path / "secret") == "newest"
    monkeypatch.setenv("MOSAIQUE_TURN__SECRET", "newest, older")
    assert _secret(None) == "newest"
    monkeypatch.setenv("MOSAIQUE_TURN__SECRET", "")
    assert _secret(None) is None
