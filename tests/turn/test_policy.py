"""Whom a relay may speak with: closed by default, and no notation gets round it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.turn.forbidden import FORBIDDEN
from turn.policy import DENIED, BadRule, PeerPolicy, Rule, canonical, is_denied, parse_rule


def nobody(_: str) -> bool:
    return False


def policy(*rules: str, local: tuple[str, ...] = ()) -> PeerPolicy:
    return PeerPolicy([parse_rule(rule) for rule in rules], lambda address: address in local)


def test_closed_by_default() -> None:
    shut = policy()
    for address in ("8.8.8.8", "2a00:1450:4001:80b::200e", "127.0.0.1"):
        assert not shut.allows_address(address)
        assert shut.target((address, 443)) is None
        assert not shut.names_of((address, 443))


def test_a_live_socket_is_a_peer_by_address_and_port_while_it_lives() -> None:
    live = policy()
    live.add(("10.0.0.5", 40_000))
    live.add(("10.0.0.5", 40_001))
    assert live.allows_address("10.0.0.5")
    assert live.target(("10.0.0.5", 40_000)) == ("10.0.0.5", 40_000)
    assert live.target(("10.0.0.5", 22)) is None
    live.remove(("10.0.0.5", 40_000))
    assert live.target(("10.0.0.5", 40_000)) is None
    assert live.allows_address("10.0.0.5")
    live.remove(("10.0.0.5", 40_001))
    live.remove(("10.0.0.5", 40_001))
    assert not live.allows_address("10.0.0.5")


def test_behind_nat_the_public_name_leads_to_the_local_socket_and_back() -> None:
    live = policy()
    live.add(("198.51.7.1", 40_000), ("10.0.0.5", 40_000))
    assert live.target(("198.51.7.1", 40_000)) == ("10.0.0.5", 40_000)
    assert live.names_of(("10.0.0.5", 40_000)) == [("198.51.7.1", 40_000)]
    assert live.target(("10.0.0.5", 40_000)) is None
    assert not live.allows_address("10.0.0.5")
    live.add(("198.51.7.1", 40_000), ("10.0.0.6", 40_000))  # it moved
    assert not live.names_of(("10.0.0.5", 40_000))
    live.remove(("198.51.7.1", 40_000))
    assert not live.names_of(("10.0.0.6", 40_000))


@pytest.mark.parametrize("address", FORBIDDEN)
def test_the_whole_internet_does_not_open_what_is_forbidden(address: str) -> None:
    everything = policy("0.0.0.0/0", "::/0")
    assert everything.allows_address("8.8.8.8")
    assert everything.target(("2a00:1450:4001:80b::200e", 1)) is not None
    assert not everything.allows_address(address)
    assert everything.target((address, 443)) is None


def test_an_address_of_this_machine_is_not_opened_by_a_network() -> None:
    opened = policy("0.0.0.0/0", "::/0", local=("8.8.4.4", "2a00::1"))
    assert not opened.allows_address("8.8.4.4")
    assert not opened.allows_address("2a00::1")
    assert opened.allows_address("8.8.4.5")
    assert policy("8.8.4.4", local=("8.8.4.4",)).allows_address("8.8.4.4")


def test_what_is_named_exactly_is_open() -> None:
    named = policy("127.0.0.1", "10.1.2.3:5004", "[fe80::1]:7", "::1")
    assert named.target(("127.0.0.1", 1)) is not None
    assert named.target(("10.1.2.3", 5004)) is not None
    assert named.target(("10.1.2.3", 5005)) is None
    assert named.allows_address("10.1.2.3")
    assert named.target(("fe80::1", 7)) is not None
    assert named.target(("::1", 9)) is not None
    assert named.target(("::ffff:7f00:1", 1)) is None  # another notation is another name


def test_port_zero_is_nobody() -> None:
    assert policy("127.0.0.1").target(("127.0.0.1", 0)) is None


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "10.0.0.0/8", "127.0.0.0/8", "192.168.1.0/24", "fc00::/8", "1.2.3.4/33", "8.8.8.8/24",
     "1.2.3.4:0",
     "1.2.3.4:99999", "1.2.3.0/24:5", "[::1", "[::1]x", "1.2.3.4:", "::ffff:10.0.0.0/104", "1.2.3.4:٣"],
)  # fmt: skip
def test_rules_that_say_nothing_or_would_open_nothing(text: str) -> None:
    with pytest.raises(BadRule):
        parse_rule(text)


def test_rules() -> None:
    assert parse_rule(" 203.0.114.0/24 ") == Rule(ipaddress.ip_network("203.0.114.0/24"))
    assert parse_rule("[2a00::1]") == Rule(ipaddress.ip_network("2a00::1/128"))
    assert parse_rule("1.2.3.4:80") == Rule(ipaddress.ip_network("1.2.3.4/32"), 80)


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_every_disguise_of_an_address_leads_to_it(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for base in ("::ffff:0:0", "::", "64:ff9b::", "::ffff:0:0:0"):
        disguised = ipaddress.IPv6Address(int(ipaddress.IPv6Address(base)) | number)
        assert canonical(disguised) == address
        assert not policy("0.0.0.0/0", "::/0").allows_address(str(disguised)) or not is_denied(address)
    assert canonical(ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1)) == address


@settings(deadline=None)
@given(st.sampled_from(DENIED), st.data())
def test_nothing_in_a_denied_network_is_opened_by_everything(text: str, data: st.DataObject) -> None:
    network = ipaddress.ip_network(text)
    number = data.draw(st.integers(int(network.network_address), int(network.broadcast_address)))
    address = str(type(network.network_address)(number))
    assert not policy("0.0.0.0/0", "::/0").allows_address(address)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_names_that_are_no_address_are_nobody(text: str) -> None:
    everything = policy("0.0.0.0/0", "::/0")
    try:
        ipaddress.ip_address(text)
    except ValueError:
        assert not everything.allows_address(text)
        assert everything.target((text, 1)) is None
