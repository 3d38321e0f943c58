"""What `mosaique turn-config` writes: the policy of the embedded relay, in coturn's and eturnal's words."""

from __future__ import annotations

import functools
import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.cli import main
from mixer.settings import Settings
from mixer.turn_config import coturn, eturnal, peers
from turn.policy import PeerPolicy, parse_rule


def tree(directory: Path | None = None, **sections: dict[str, Any]) -> Settings:
    turn = {"secret": "new,old", "host": "127.0.0.1", **sections.pop("turn", {})}
    if directory is not None:
        for name in ("cert", "key"):
            (directory / name).touch()
        turn |= {"tls_cert": directory / "cert", "tls_key": directory / "key"}
    return Settings.model_validate({"turn": turn, "media": {"host": "10.0.0.1", **sections.pop("media", {})}})


def lines(wanted: Settings) -> dict[str, list[str]]:
    """coturn's options, each with its values."""
    found: dict[str, list[str]] = {}
    for line in coturn(wanted).splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


# Each option of eturnal's own validator (src/eturnal_yaml.erl, June 2026), and what it takes.
ETURNAL: dict[str, type | tuple[type, ...]] = {
    "secret": list, "realm": str, "software_name": str, "strict_expiry": bool, "listen": list,
    "tls_crt_file": str, "tls_key_file": str, "relay_ipv4_addr": str, "relay_ipv6_addr": str,
    "relay_min_port": int, "relay_max_port": int, "max_allocations": int, "max_permissions": int, "max_bps": int,
    "blacklist_peers": list, "whitelist_peers": list, "log_level": str, "log_dir": str,
}  # fmt: skip


def test_coturn_is_closed_but_for_our_media() -> None:
    wanted = lines(tree())
    assert wanted["allowed-peer-ip"] == ["10.0.0.1"]
    assert wanted["denied-peer-ip"][:2] == [
        "0.0.0.0-255.255.255.255",
        "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ]
    assert "10.0.0.0-10.255.255.255" in wanted["denied-peer-ip"], "also when the first two are taken out"
    assert {
        "no-cli",
        "no-multicast-peers",
        "no-tcp-relay",
        "no-software-attribute",
        "no-dtls",
    } <= wanted.keys()
    assert "allow-loopback-peers" not in wanted
    assert "allow-loopback-peers" in lines(tree(media={"host": "127.0.0.1"}))


def test_coturn_has_our_secrets_ports_and_quotas(tmp_path: Path) -> None:
    wanted = lines(
        tree(
            tmp_path,
            turn={"relay_ports": "50000-50999", "user_quota": 3, "max_allocations": 30, "max_kbps": 800},
            media={"public_ip": "198.51.100.7"},
        )
    )
    assert wanted["static-auth-secret"] == ["new", "old"]
    assert (wanted["min-port"], wanted["max-port"]) == (["50000"], ["50999"])
    assert (wanted["user-quota"], wanted["total-quota"], wanted["max-bps"]) == (["3"], ["30"], ["100000"])
    assert (wanted["listening-port"], wanted["tls-listening-port"]) == (["3478"], ["5349"])
    assert wanted["cert"] == [str((tmp_path / "cert").resolve())]
    assert wanted["external-ip"] == ["198.51.100.7/127.0.0.1"]
    assert wanted["allowed-peer-ip"] == ["198.51.100.7", "10.0.0.1"]
    assert lines(tree(tmp_path, turn={"tls_443": True}))["tls-listening-port"] == ["443"]
    assert "no-tls" in lines(tree())


def test_eturnal_is_the_same_in_its_own_words(tmp_path: Path) -> None:
    text = eturnal(
        tree(
            tmp_path, turn={"host": "127.0.0.1,::1", "secret": 'a"b\\c'}, media={"public_ip": "198.51.100.7"}
        )
    )
    document = yaml.safe_load(text)
    assert list(document) == ["eturnal"]
    wanted = document["eturnal"]
    assert wanted.keys() <= ETURNAL.keys()
    assert {key: type(value) for key, value in wanted.items() if not isinstance(value, ETURNAL[key])} == {}
    assert wanted["secret"] == ['a"b\\c']
    assert wanted["strict_expiry"] is True
    assert [(one["ip"], one["port"], one["transport"]) for one in wanted["listen"]] == [
        (ip, port, way)
        for ip in ("127.0.0.1", "::1")
        for port, way in ((3478, "udp"), (3478, "tcp"), (5349, "tls"))
    ]
    assert wanted["relay_ipv4_addr"] == "198.51.100.7"
    assert wanted["relay_ipv6_addr"] == "::1"
    assert wanted["blacklist_peers"][:2] == ["0.0.0.0/0", "::/0"]
    assert wanted["whitelist_peers"] == ["198.51.100.7/32", "10.0.0.1/32"]
    for networks in (wanted["blacklist_peers"], wanted["whitelist_peers"]):
        assert all(ipaddress.ip_network(network) for network in networks)


def test_eturnal_without_ipv6_and_without_tls() -> None:
    wanted = yaml.safe_load(eturnal(tree()))["eturnal"]
    assert wanted["relay_ipv6_addr"] == "none"
    assert {one["transport"] for one in wanted["listen"]} == {"udp", "tcp"}
    assert "tls_crt_file" not in wanted


addresses = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
    # each way of writing an IPv4 address in an IPv6 one
    st.sampled_from(["::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96", "2002::/16"]).flatmap(
        lambda prefix: st.ip_addresses(network=prefix)
    ),
)
networks = st.sampled_from(
    ["8.0.0.0/5", "0.0.0.0/0", "128.0.0.0/1", "::/0", "2000::/3", "192.0.0.0/9", "11.0.0.0/8"]
)


TRANSLATED = ipaddress.ip_network("::ffff:0:0:0/96")


@functools.cache
def granted_by(network: str) -> list[Any]:
    return [other for other in peers(tree(turn={"allowed_peers": [network]})) if str(other) != "10.0.0.1/32"]


@settings(deadline=None)  # the list of one network is made once, which takes its time
@given(networks, addresses)
def test_what_a_network_opens_elsewhere_is_what_it_opens_in_our_own_relay(network: str, address: Any) -> None:
    ours = PeerPolicy([parse_rule(network)], is_local=lambda _: False)
    opened = any(address in other for other in granted_by(network))
    # A list of networks cannot look behind a notation: it denies the one that our own relay looks behind.
    assert opened == (ours.allows_address(str(address)) and address not in TRANSLATED)


def test_an_address_that_is_named_is_opened_whatever_it_is() -> None:
    granted = peers(tree(turn={"allowed_peers": ["169.254.169.254", "10.1.2.3:80"]}))
    assert [str(network) for network in granted] == ["10.0.0.1/32", "169.254.169.254/32", "10.1.2.3/32"]


@pytest.mark.parametrize("relay", ["coturn", "eturnal"])
def test_the_command_prints_it_with_the_servers_own_secret(
    relay: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["turn-config", relay, "--set", f"data_dir={tmp_path}", "--set", "turn.host=127.0.0.1"]
    assert main(command) == 0
    assert (tmp_path / "turn-secret").read_text().strip() in capsys.readouterr().out


def test_the_command_writes_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "turnserver.conf"
    path.touch(mode=0o644)
    assert main(["turn-config", "coturn", "-o", str(path), "--set", f"data_dir={tmp_path}"]) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().endswith("\n")


def test_what_cannot_be_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--set", f"data_dir={tmp_path}"]
    assert main(["turn-config", "coturn", "-o", str(tmp_path / "no" / "such"), *there]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["turn-config", "coturn", *there, "--set", "turn.mode=off"]) == 2
    assert "switched off" in capsys.readouterr().err
