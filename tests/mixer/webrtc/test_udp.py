"""The shared port against strangers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aioice.stun import Class, Message, Method
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import ConfigError, MalformedPacket
from mixer.webrtc.batch import Address, Slot, sockaddr
from mixer.webrtc.stun import peek_stun
from mixer.webrtc.udp import ADDRESSES_PER_ENDPOINT, SILENT_S, UdpPort, UdpSocket
from tests.mixer.webrtc.support import HOST, PORTS, until


def binding(username: str | None = "ours:theirs", kind: Class = Class.REQUEST) -> Message:
    attributes = {} if username is None else {"USERNAME": username}
    return Message(Method.BINDING, kind, attributes=attributes)


class Endpoint:
    """Takes for authentic what ends with its ``tag``."""

    def __init__(self, tag: bytes = b"") -> None:
        self._tag = tag
        self.stun: list[bytes] = []
        self.media: list[bytes] = []

    def stun_received(self, data: bytes, source: Address, via: UdpSocket) -> None:
        self.stun.append(data)

    def dtls_received(self, data: bytes) -> None:
        self.media.append(data)

    def media_received(self, slot: Slot, rtcp: bool) -> bool:
        data = slot.read()
        slot.packet[0 : len(data)] = bytes(len(data))  # spent
        if not data.endswith(self._tag):
            return False
        self.media.append(data)
        return True


@pytest_asyncio.fixture
async def port() -> AsyncIterator[UdpPort]:
    made = UdpPort(host=HOST, ports=PORTS)
    made.open()
    yield made
    made.close()


@pytest.fixture
def stranger() -> contextlib.AbstractContextManager[socket.socket]:
    return contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


RTP = bytes([0x80, 96]) + bytes(20)


async def test_many_datagrams_are_read_in_few_turns(port: UdpPort, stranger) -> None:  # type: ignore[no-untyped-def]
    opened, reads = port.sockets[0], 0
    receive = opened.inbox.receive

    def counted(most: int) -> int:
        nonlocal reads
        reads += 1
        return receive(most)

    opened.inbox.receive = counted  # type: ignore[method-assign]
    with stranger as sock:
        for _ in range(200):
            sock.sendto(RTP, (HOST, opened.port))
            await asyncio.sleep(0)  # a turn of the loop, which sees the datagram
        await until(lambda: port.received == 200, "all of them")
        assert reads < 100
        await until(lambda: opened.gathering is None, "nothing more to come")
        sock.sendto(RTP, (HOST, opened.port))
        await until(lambda: port.received == 201, "one that wakes the loop again")


async def test_a_socket_that_is_left_is_read_no_more(port: UdpPort, stranger) -> None:  # type: ignore[no-untyped-def]
    opened = port.sockets[0]
    with stranger as sock:
        while opened.gathering is None:
            sock.sendto(RTP, (HOST, opened.port))
            await asyncio.sleep(0)
        port.leave(opened)
        assert opened.gathering is None
        assert not asyncio.get_running_loop().remove_reader(opened.fileno())


async def test_only_a_proven_source_reaches_the_endpoint(port: UdpPort, stranger) -> None:  # type: ignore[no-untyped-def]
    endpoint = Endpoint()
    port.register("ours", endpoint)
    with stranger as sock:
        sock.bind((HOST, 0))
        target = (HOST, port.sockets[0].port)
        rubbish = [
            b"",
            b"\x80" * 1601,
            b"\x80" * 11,
            b"\x16\xfe\xfd",
            b"\xff" * 40,
            RTP,
            bytes(binding("other:x")),
        ]
        for data in rubbish:
            sock.sendto(data, target)
        await until(lambda: port.received == len(rubbish), "the rubbish to arrive")
        assert (endpoint.stun, endpoint.media) == ([], [])
        assert port.dropped == {"too_long": 1, "unclassified": 4, "unknown_source": 1, "unknown_stun": 1}

        request = bytes(binding())
        sock.sendto(request, target)
        await until(lambda: endpoint.stun == [request], "the check to arrive")
        port.authenticated(sock.getsockname(), endpoint)
        sock.sendto(RTP, target)
        await until(lambda: endpoint.media == [RTP], "media of the proven source")

        port.unregister("ours", endpoint)
        sock.sendto(RTP, target)
        sock.sendto(request, target)
        await until(lambda: port.received == len(rubbish) + 4, "what comes after the end")
        assert (len(endpoint.stun), len(endpoint.media)) == (1, 1)


async def test_responses_go_to_who_asked(port: UdpPort, stranger) -> None:  # type: ignore[no-untyped-def]
    answers: list[bytes] = []
    response = binding(None, Class.RESPONSE)
    port.transactions[response.transaction_id] = lambda data, source: answers.append(data)
    with stranger as sock:
        target = (HOST, port.sockets[0].port)
        sock.sendto(bytes(binding(None, Class.RESPONSE)), target)  # nobody asked
        sock.sendto(bytes(response), target)
        await until(lambda: answers, "the response")
    assert answers == [bytes(response)]
    assert port.dropped["unknown_stun"] == 1


SOURCE = ("192.0.2.1", 5000)
DTLS = b"\x16" + bytes(20)


def contested(port: UdpPort, now: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[Endpoint, Endpoint]:
    """Two connections that have both proved ``SOURCE``; time is ``now``."""
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    owner, newcomer = Endpoint(b"owner"), Endpoint(b"newcomer")
    port.register("a", owner)
    port.register("b", newcomer)
    port.authenticated(SOURCE, owner)
    port.authenticated(SOURCE, newcomer)
    return owner, newcomer


def comes(port: UdpPort, data: bytes) -> bytes:
    """Let it come from ``SOURCE``."""
    port._route(Slot.holding(data, sockaddr(SOURCE)), port.sockets[0])
    return data


async def test_who_forges_an_address_takes_nothing_from_who_lives_there(
    port: UdpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    owner, forger = contested(port, now, monkeypatch)
    sent: list[bytes] = []
    for _ in range(20):
        now[0] += SILENT_S / 2
        sent.append(comes(port, RTP + b"owner"))
        comes(port, RTP + b"newcomer")  # authentic, from the forged address
        port.authenticated(SOURCE, forger)
    assert owner.media == sent
    port.unregister("b", forger)
    assert owner.media[-1:] == [comes(port, RTP + b"owner")]
    assert port.dropped["unknown_source"] == 0


async def test_an_address_that_a_nat_gave_away_is_the_newcomer_s_at_once_and_soon_alone(
    port: UdpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    gone, newcomer = contested(port, now, monkeypatch)
    comes(port, DTLS)
    assert newcomer.media == [DTLS]  # it can shake hands
    first = comes(port, RTP + b"newcomer")
    now[0] += SILENT_S
    second = comes(port, RTP + b"newcomer")
    assert newcomer.media == [DTLS, first, second]
    comes(port, RTP + b"owner")  # no more
    assert gone.media == [DTLS]
    port.unregister("a", gone)
    assert newcomer.media[-1:] == [comes(port, RTP + b"newcomer")]


async def test_a_client_that_comes_back_by_the_same_port_has_it_when_its_first_connection_ends(
    port: UdpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = contested(port, [100.0], monkeypatch)
    port.unregister("a", first)
    assert second.media == [comes(port, RTP + b"newcomer")]
    port.unregister("b", second)
    comes(port, RTP + b"newcomer")
    assert (len(second.media), port.dropped["unknown_source"]) == (1, 1)


async def test_a_third_claim_takes_the_second_s_place(port: UdpPort, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, second = contested(port, [100.0], monkeypatch)
    third = Endpoint(b"third")
    port.register("c", third)
    port.authenticated(SOURCE, third)
    comes(port, RTP + b"newcomer")
    assert (second.media, third.media) == ([], [])
    assert [comes(port, RTP + b"third"), comes(port, RTP + b"owner")] == third.media + owner.media
    for name, endpoint in (("a", owner), ("b", second), ("c", third)):
        port.unregister(name, endpoint)
    assert (port._by_source, port._contests, port._sources) == ({}, {}, {})


async def test_addresses_are_bounded(port: UdpPort) -> None:
    endpoint = Endpoint()
    port.register("a", endpoint)
    port.authenticated(SOURCE, endpoint)
    for number in range(ADDRESSES_PER_ENDPOINT):
        port.authenticated(("192.0.2.2", number + 1), endpoint)
    comes(port, RTP)  # the oldest was forgotten
    assert (len(endpoint.media), port.dropped["unknown_source"]) == (0, 1)
    with pytest.raises(ValueError, match="taken"):
        port.register("a", Endpoint())


async def test_a_taken_range_names_the_key() -> None:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind((HOST, 0))
        number = taken.getsockname()[1]
        port = UdpPort(host=HOST, ports=range(number, number + 1))
        with pytest.raises(ConfigError, match=r"media\.udp_ports"):
            port.open()
    with pytest.raises(ConfigError, match=r"media\.host"):
        UdpPort(host="localhost", ports=PORTS).open()


@pytest.mark.parametrize(
    ("host", "public_ip", "expected"),
    [
        (HOST, None, (HOST,)),
        (HOST, "203.0.113.7", ("203.0.113.7", HOST)),
        (HOST, "2001:db8::7", (HOST,)),
    ],
)
async def test_addresses_for_candidates(host: str, public_ip: str | None, expected: tuple[str, ...]) -> None:
    port = UdpPort(host=host, ports=PORTS, public_ip=public_ip)
    port.open()
    assert port.sockets[0].addresses == expected
    port.close()


async def test_a_wildcard_advertises_addresses_one_can_reach() -> None:
    port = UdpPort(host="0.0.0.0", ports=PORTS)
    port.open()
    addresses = port.sockets[0].addresses
    assert addresses
    assert "0.0.0.0" not in addresses
    assert len(set(addresses)) == len(addresses)
    port.close()


async def test_a_full_or_closed_socket_drops_and_counts(port: UdpPort) -> None:
    opened = port.sockets[0]
    assert opened.sendto(RTP, (HOST, 9))
    assert not opened.sendto(RTP, ("2001:db8::1", 9))  # wrong family
    assert not opened.sendto(RTP, (HOST, 99_999))
    assert port.dropped["send_failed"] == 2


@given(st.binary(max_size=80))
def test_peek_raises_only_malformed_packet(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        peek_stun(data)


@given(st.binary(max_size=60), st.integers(0, 0x3FFF))
def test_peek_survives_rubbish_behind_a_good_header(body: bytes, kind: int) -> None:
    header = kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + bytes(12)
    with contextlib.suppress(MalformedPacket):
        assert peek_stun(header + body).transaction == bytes(12)


def test_peek_reads_the_receiver_s_fragment() -> None:
    message = binding("ours:theirs")
    peek = peek_stun(bytes(message))
    assert (peek.kind, peek.local_ufrag, peek.transaction) == ("request", "ours", message.transaction_id)
    assert peek_stun(bytes(binding(None))).local_ufrag is None
    assert peek_stun(bytes(binding("no colon"))).local_ufrag is None
    with pytest.raises(MalformedPacket):
        peek_stun(bytes(message)[:-4])
