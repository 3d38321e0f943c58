"""The core: every refusal of RFC 8656 that we make, what lives how long, what strangers get. No socket, no clock."""

from __future__ import annotations

import secrets

import pytest

from tests.turn.forbidden import FORBIDDEN
from tests.turn.relay import (
    PEER,
    PEER_V6,
    UDP,
    UNIX_OFFSET_S,
    Relay,
    bind,
    code,
    five_tuple,
    permit,
    send_indication,
)
from turn import revocations
from turn.core import MAX_AMPLIFICATION, Answer, ToPeer
from turn.credentials import issue
from turn.message import (
    Attribute,
    Class,
    Method,
    long_term_key,
    parse_message,
    read_address,
    write_address,
    write_message,
)
from turn.table import Change

AT = five_tuple()
AAF = (Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\2\0\0\0")


def family(number: int) -> tuple[int, bytes]:
    return (Attribute.REQUESTED_ADDRESS_FAMILY, bytes((number, 0, 0, 0)))


def lifetime(seconds: int) -> tuple[int, bytes]:
    return (Attribute.LIFETIME, seconds.to_bytes(4, "big"))


def even(value: int) -> tuple[int, bytes]:
    return (Attribute.EVEN_PORT, bytes((value,)))


def granted(message: object) -> int:
    return int.from_bytes(message.get(Attribute.LIFETIME) or b"", "big")  # type: ignore[attr-defined]


def relayed(message: object) -> list[tuple[str, int]]:
    return [
        read_address(value, message.transaction)  # type: ignore[attr-defined]
        for value in message.all(Attribute.XOR_RELAYED_ADDRESS)  # type: ignore[attr-defined]
    ]


# Binding, and strangers


def test_binding_tells_the_address() -> None:
    relay = Relay()
    answer = relay.answer(relay.raw(write_message(Method.BINDING, Class.REQUEST, bytes(12)), AT))
    value = answer.get(Attribute.XOR_MAPPED_ADDRESS)
    assert value is not None
    assert read_address(value, answer.transaction) == AT.client


def test_an_unknown_attribute_is_named() -> None:
    relay = Relay()
    request = write_message(
        Method.BINDING, Class.REQUEST, bytes(12), [(0x7001, b""), (0x8777, b""), (0x24, b"1234")]
    )
    answer = relay.answer(relay.raw(request, AT))
    assert code(answer) == 420
    assert answer.get(Attribute.UNKNOWN_ATTRIBUTES) == bytes.fromhex("70010024")
    allocate = relay.ask(AT, Method.ALLOCATE, UDP, (0x7001, b""))
    assert code(allocate) == 420
    assert not relay.ports.taken


def test_a_stranger_is_asked_for_credentials_with_a_nonce_that_says_what_we_speak() -> None:
    relay = Relay()
    answer = relay.answer(relay.raw(write_message(Method.ALLOCATE, Class.REQUEST, bytes(12), [UDP]), AT))
    assert code(answer) == 401
    assert answer.get(Attribute.REALM) == b"mosaique"
    assert (answer.get(Attribute.NONCE) or b"").startswith(b"obMatJos2AAAB")
    assert answer.get(Attribute.PASSWORD_ALGORITHMS) == bytes.fromhex("0002000000010000")
    assert not relay.table.by_tuple


@pytest.mark.parametrize("method", [*Method, 0x00A, 0xFFF])
@pytest.mark.parametrize("attributes", [(), (UDP,), ((0x7FFF, b""),) * 40])
def test_no_answer_to_a_stranger_is_six_times_what_was_asked(
    method: int, attributes: tuple[tuple[int, bytes], ...]
) -> None:
    relay = Relay()
    relay.authenticator._realm = "r" * 127
    data = write_message(method, Class.REQUEST, bytes(12), attributes)
    for output in relay.raw(data, AT):
        assert isinstance(output, Answer)
        assert len(output.data) <= MAX_AMPLIFICATION * len(data)
    relay = Relay()
    outputs = relay.raw(data, AT)
    assert len(outputs) == 1  # with a realm as short as ours everybody has an answer


def test_strangers_from_one_address_are_answered_only_so_often_and_others_still() -> None:
    relay = Relay()
    request = write_message(Method.ALLOCATE, Class.REQUEST, bytes(12), [UDP])
    answered = sum(len(relay.raw(request, five_tuple(port))) for port in range(1000, 2000))
    assert answered == 60
    assert relay.core.drops["answers to strangers"] == 940
    other = AT._replace(client=("203.0.113.8", 1))
    assert relay.raw(request, other)
    relay.now_s += 1
    assert relay.raw(request, AT)
    assert sum(len(relay.raw(request, AT._replace(transport="tcp"))) for _ in range(500)) == 500


def test_a_flood_from_everywhere_costs_bounded_memory_and_answers() -> None:
    relay = Relay()
    request = write_message(Method.BINDING, Class.REQUEST, bytes(12))
    answered = 0
    for number in range(20_000):
        at = AT._replace(client=(f"198.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 9))
        answered += len(relay.raw(request, at))
    assert answered == 4000
    assert len(relay.core._limit._sources) == 4096
    relay.now_s += 60
    assert code(relay.ask(AT, Method.ALLOCATE, UDP)) == 0


@pytest.mark.parametrize(
    "data", [b"", b"\0", bytes(20), b"\x40\0\0\0", b"GET / HTTP/1.1\r\n\r\n", bytes(1000)]
)
def test_noise_gets_silence(data: bytes) -> None:
    relay = Relay()
    assert relay.raw(data, AT) == []
    assert relay.core.drops["malformed"] == 1


@pytest.mark.parametrize("kind", [Class.SUCCESS, Class.ERROR, Class.INDICATION])
def test_what_is_no_request_gets_silence(kind: Class) -> None:
    relay = Relay()
    assert relay.raw(write_message(Method.ALLOCATE, kind, bytes(12), [UDP]), AT) == []


# authentication


def seal(
    relay: Relay, *, nonce: bytes | None = None, realm: str = "mosaique", leave_out: int = 0, at: object = AT
) -> bytes:
    credential = issue("alice", "north", now_s=relay.now_s + UNIX_OFFSET_S, ttl_s=600)
    attributes = [
        UDP,
        (Attribute.USERNAME, credential.username.encode()),
        (Attribute.REALM, realm.encode()),
        (Attribute.NONCE, nonce or relay.authenticator._nonces.issue(at, relay.now_s)),
    ]
    attributes = [each for each in attributes if each[0] != leave_out]
    key = long_term_key(credential.username, realm, credential.password)
    return write_message(Method.ALLOCATE, Class.REQUEST, bytes(12), attributes, key=key)


@pytest.mark.parametrize("missing", [Attribute.USERNAME, Attribute.REALM, Attribute.NONCE])
def test_credentials_that_lack_a_part(missing: int) -> None:
    relay = Relay()
    assert code(relay.answer(relay.raw(seal(relay, leave_out=missing), AT))) == 400


def test_a_nonce_of_another_client_of_another_time_or_made_up_is_stale() -> None:
    relay = Relay()
    old = relay.authenticator._nonces.issue(AT, relay.now_s)
    for nonce in (
        relay.authenticator._nonces.issue(five_tuple(1), relay.now_s),
        b"x" * 37,
        b"x",
        old[:-1] + b"!",
    ):
        answer = relay.answer(relay.raw(seal(relay, nonce=nonce), AT))
        assert code(answer) == 438
        assert answer.get(Attribute.NONCE)
    relay.now_s += 599
    assert code(relay.answer(relay.raw(seal(relay, nonce=old), AT))) == 0
    relay.now_s += 1
    assert code(relay.answer(relay.raw(seal(relay, nonce=old), five_tuple(5)))) == 438


def test_wrong_secret_realm_name_or_time() -> None:
    relay = Relay()
    assert code(relay.ask(AT, Method.ALLOCATE, UDP, secret="south")) == 401
    assert code(relay.answer(relay.raw(seal(relay, realm="elsewhere"), AT))) == 401
    relay.core.unix_offset_s += 7200
    assert code(relay.ask(AT, Method.ALLOCATE, UDP)) == 401
    assert not relay.table.by_tuple


def test_secrets_rotate() -> None:
    relay = Relay(secrets_=("new", "north"))
    assert code(relay.ask(AT, Method.ALLOCATE, UDP)) == 0
    relay.authenticator.secrets = ("new",)
    assert code(relay.ask(AT, Method.REFRESH)) == 401
    assert code(relay.ask(AT, Method.REFRESH, secret="new")) == 0


def test_sha256_all_the_way() -> None:
    """RFC 8489 section 9.2.4: the offered algorithms come back as they were, one is chosen, the key is hashed by it."""
    relay = Relay()
    offered, md5, sha256 = bytes.fromhex("0002000000010000"), b"\0\1\0\0", b"\0\2\0\0"
    credential = issue("alice", "north", now_s=relay.now_s + UNIX_OFFSET_S, ttl_s=600)
    for algorithms, chosen, hashed, expected in (
        (offered, sha256, True, 0), (offered, md5, True, 401), (md5, md5, False, 400),
        (offered, b"\0\3\0\0", False, 400), (offered, None, False, 400), (None, sha256, True, 400),
    ):  # fmt: skip
        attributes = [
            (Attribute.USERNAME, credential.username.encode()), (Attribute.REALM, b"mosaique"), UDP,
            (Attribute.NONCE, relay.authenticator._nonces.issue(AT, relay.now_s)),
        ]  # fmt: skip
        if algorithms is not None:
            attributes.append((Attribute.PASSWORD_ALGORITHMS, algorithms))
        if chosen is not None:
            attributes.append((Attribute.PASSWORD_ALGORITHM, chosen))
        key = long_term_key(credential.username, "mosaique", credential.password, sha256=hashed)
        data = write_message(Method.ALLOCATE, Class.REQUEST, bytes(12), attributes, key=key, sha256=True)
        answer = relay.answer(relay.raw(data, AT))
        assert code(answer) == expected
        if not expected:
            assert answer.sha256_at is not None
            assert answer.proves(key)
            relay.core.end(["alice"])


def test_a_hashed_name_is_nobody_we_know() -> None:
    relay = Relay()
    nonce = relay.authenticator._nonces.issue(AT, relay.now_s)
    attributes = [(Attribute.USERHASH, bytes(32)), (Attribute.REALM, b"mosaique"), (Attribute.NONCE, nonce)]
    data = write_message(Method.ALLOCATE, Class.REQUEST, bytes(12), attributes, key=b"k")
    assert code(relay.answer(relay.raw(data, AT))) == 401


# Allocate


def test_an_allocation_and_its_retransmission() -> None:
    relay = Relay()
    transaction = secrets.token_bytes(12)
    first = relay.ask(AT, Method.ALLOCATE, UDP, transaction=transaction)
    again = relay.ask(AT, Method.ALLOCATE, UDP, transaction=transaction)
    assert code(first) == 0
    assert relayed(again) == relayed(first)
    assert len(relay.ports.taken) == 1
    assert granted(first) == 600
    assert code(relay.ask(AT, Method.ALLOCATE, UDP)) == 437
    assert len(relay.table.by_tuple) == 1


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ((), 400),
        (((Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0"),), 442),
        (((Attribute.REQUESTED_TRANSPORT, b"\x11"),), 400),
        ((UDP, family(3)), 440),
        ((UDP, family(1), AAF), 400),
        ((UDP, (Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\1\0\0\0")), 400),
        ((UDP, (Attribute.REQUESTED_ADDRESS_FAMILY, b"\1")), 400),
        ((UDP, even(0x80), AAF), 400),
        ((UDP, even(0), (Attribute.RESERVATION_TOKEN, bytes(8))), 400),
        ((UDP, family(2), (Attribute.RESERVATION_TOKEN, bytes(8))), 400),
        ((UDP, (Attribute.RESERVATION_TOKEN, bytes(7))), 400),
        ((UDP, (Attribute.EVEN_PORT, b"")), 400),
        ((UDP, (Attribute.RESERVATION_TOKEN, bytes(8))), 508),
        ((UDP, (Attribute.LIFETIME, b"1")), 400),
    ],
)
def test_allocations_that_are_refused(attributes: tuple[tuple[int, bytes], ...], expected: int) -> None:
    relay = Relay()
    assert code(relay.ask(AT, Method.ALLOCATE, *attributes)) == expected
    assert not relay.ports.taken
    assert not relay.table.by_tuple


def test_families() -> None:
    relay = Relay()
    assert [host for host, _ in relayed(relay.ask(five_tuple(1), Method.ALLOCATE, UDP))] == ["10.0.0.1"]
    assert [host for host, _ in relayed(relay.ask(five_tuple(2), Method.ALLOCATE, UDP, family(2)))] == [
        "fd00::1"
    ]
    assert [host for host, _ in relayed(relay.ask(five_tuple(3), Method.ALLOCATE, UDP, AAF))] == [
        "10.0.0.1",
        "fd00::1",
    ]
    draft = (Attribute.ADDITIONAL_ADDRESS_FAMILY_DRAFT, b"\2\0\0\0")
    assert len(relayed(relay.ask(five_tuple(4), Method.ALLOCATE, UDP, draft))) == 2
    only_v4 = Relay(addresses=("10.0.0.1",))
    assert code(only_v4.ask(AT, Method.ALLOCATE, UDP, family(2))) == 440
    half = only_v4.ask(AT, Method.ALLOCATE, UDP, AAF)
    assert len(relayed(half)) == 1
    assert (half.get(Attribute.ADDRESS_ERROR_CODE) or b"")[:4] == bytes((2, 0, 4, 40))


def test_an_even_port_and_the_odd_one_above_it() -> None:
    relay = Relay()
    for number in range(20):
        answer = relay.ask(five_tuple(number), Method.ALLOCATE, UDP, even(0), subject=f"s{number}")
        assert relayed(answer)[0][1] % 2 == 0
        assert answer.get(Attribute.RESERVATION_TOKEN) is None
    first = relay.ask(five_tuple(100), Method.ALLOCATE, UDP, even(0x80))
    token = (Attribute.RESERVATION_TOKEN, first.get(Attribute.RESERVATION_TOKEN) or b"")
    assert code(relay.ask(five_tuple(101), Method.ALLOCATE, UDP, token, subject="mallory")) == 508
    second = relay.ask(five_tuple(101), Method.ALLOCATE, UDP, token)
    assert relayed(second)[0][1] == relayed(first)[0][1] + 1
    assert code(relay.ask(five_tuple(102), Method.ALLOCATE, UDP, token)) == 508


def test_a_reserved_port_comes_back_after_half_a_minute() -> None:
    relay = Relay()
    answer = relay.ask(AT, Method.ALLOCATE, UDP, even(0x80))
    assert len(relay.ports.taken) == 2
    relay.core.expire(relay.now_s + 30)
    assert relay.ports.taken == {relayed(answer)[0]}


def test_quotas_and_capacity() -> None:
    relay = Relay(a_user=2, allocations=3)
    assert [code(relay.ask(five_tuple(n), Method.ALLOCATE, UDP)) for n in (1, 2, 3)] == [0, 0, 486]
    assert [code(relay.ask(five_tuple(n), Method.ALLOCATE, UDP, subject="bob")) for n in (4, 5)] == [0, 508]
    relay.ask(five_tuple(1), Method.REFRESH, lifetime(0))
    assert code(relay.ask(five_tuple(3), Method.ALLOCATE, UDP)) == 0


def test_ports_of_other_programs_and_none_left() -> None:
    relay = Relay(ports=(50_000, 50_003))
    relay.ports.foreign = {("10.0.0.1", 50_001), ("10.0.0.1", 50_003)}
    assert code(relay.ask(five_tuple(1), Method.ALLOCATE, UDP, even(0x80))) == 508
    assert not relay.ports.taken
    assert {relayed(relay.ask(five_tuple(n), Method.ALLOCATE, UDP))[0][1] for n in (1, 2)} == {50_000, 50_002}
    assert code(relay.ask(five_tuple(3), Method.ALLOCATE, UDP)) == 508


def test_the_lifetime_ends_with_the_credential() -> None:
    relay = Relay()
    assert granted(relay.ask(AT, Method.ALLOCATE, UDP, lifetime(3600), ttl_s=100)) == 100
    relay.core.expire(relay.now_s + 99)
    assert relay.table.by_tuple
    assert granted(relay.ask(AT, Method.REFRESH, ttl_s=200)) == 200
    (gone,) = relay.core.expire(relay.now_s + 200)
    assert gone.what == "closed"
    assert not relay.ports.taken


# Refresh


def test_refresh() -> None:
    relay = Relay()
    assert code(relay.ask(AT, Method.REFRESH)) == 437
    relay.ask(AT, Method.ALLOCATE, UDP)
    relay.now_s += 500
    assert granted(relay.ask(AT, Method.REFRESH, lifetime(9999))) == 600
    relay.core.expire(relay.now_s + 599)
    assert relay.table.by_tuple
    assert granted(relay.ask(AT, Method.REFRESH, lifetime(60))) == 60
    assert code(relay.ask(AT, Method.REFRESH, subject="mallory")) == 441
    assert code(relay.ask(AT, Method.REFRESH, family(2))) == 443
    assert granted(relay.ask(AT, Method.REFRESH, lifetime(0))) == 0
    assert not relay.ports.taken
    assert code(relay.ask(AT, Method.REFRESH, lifetime(0))) == 437


def test_one_family_of_two_is_let_go() -> None:
    relay = Relay()
    relay.ask(AT, Method.ALLOCATE, UDP, AAF)
    bind(relay, AT, 0x4000, PEER)
    bind(relay, AT, 0x4001, PEER_V6)
    assert code(relay.ask(AT, Method.REFRESH, lifetime(0), family(2))) == 0
    (allocation,) = relay.table.by_tuple.values()
    assert list(allocation.channels) == [0x4000]
    assert list(allocation.permissions) == [PEER[0]]
    assert len(relay.ports.taken) == 1
    assert code(bind(relay, AT, 0x4001, PEER_V6)) == 443
    assert code(relay.ask(AT, Method.REFRESH, lifetime(0), family(1))) == 0
    assert not relay.table.by_tuple


# permissions, channels, data


@pytest.mark.parametrize("address", FORBIDDEN)
def test_forbidden_peers_by_every_request(address: str) -> None:
    relay = Relay(allowed=("0.0.0.0/0", "::/0"))
    relay.ask(AT, Method.ALLOCATE, UDP, AAF)
    peer = (address, 443)
    assert code(permit(relay, AT, peer)) == 403
    assert code(permit(relay, AT, ("8.8.8.8", 1), peer)) == 403
    assert code(bind(relay, AT, 0x4000, peer)) == 403
    assert relay.raw(send_indication(peer, b"x"), AT) == []
    (allocation,) = relay.table.by_tuple.values()
    assert not allocation.permissions  # one denied peer, and none is permitted
    assert not allocation.channels


def test_a_port_that_is_not_live_gets_nothing_though_its_address_is_permitted() -> None:
    relay = Relay(allowed=())
    relay.core.set_peers([(PEER, PEER)], [])
    relay.ask(AT, Method.ALLOCATE, UDP)
    assert code(permit(relay, AT, (PEER[0], 22))) == 0
    assert relay.raw(send_indication((PEER[0], 22), b"x"), AT) == []
    assert code(bind(relay, AT, 0x4000, (PEER[0], 22))) == 403
    (sent,) = relay.raw(send_indication(PEER, b"x"), AT)
    assert isinstance(sent, ToPeer)
    (allocation,) = relay.table.by_tuple.values()
    assert relay.core.from_peer(b"y", allocation, PEER, relay.now_s) is not None
    assert relay.core.from_peer(b"y", allocation, (PEER[0], 22), relay.now_s) is None


def test_when_a_live_socket_goes_its_channel_goes_at_once() -> None:
    relay = Relay(allowed=())
    relay.core.set_peers([(PEER, PEER)], [])
    relay.ask(AT, Method.ALLOCATE, UDP)
    assert code(bind(relay, AT, 0x4000, PEER)) == 0
    (change,) = relay.core.set_peers([], [PEER])
    assert change.channel is not None
    assert change.what == "closed"
    assert relay.raw(send_indication(PEER, b"x"), AT) == []
    assert code(bind(relay, AT, 0x4000, PEER)) == 403


def test_behind_nat_clients_know_the_public_name_only() -> None:
    relay = Relay(allowed=())
    relay.core.set_peers([(PEER, ("10.0.0.5", 7))], [])
    relay.ask(AT, Method.ALLOCATE, UDP)
    permit(relay, AT, PEER)
    (sent,) = relay.raw(send_indication(PEER, b"x"), AT)
    assert isinstance(sent, ToPeer)
    assert sent.target == ("10.0.0.5", 7)
    (allocation,) = relay.table.by_tuple.values()
    data = relay.core.from_peer(b"y", allocation, ("10.0.0.5", 7), relay.now_s)
    assert data is not None
    message = parse_message(data)
    assert read_address(message.get(Attribute.XOR_PEER_ADDRESS) or b"", message.transaction) == PEER
    assert message.get(Attribute.DATA) == b"y"
    assert code(permit(relay, AT, ("10.0.0.5", 7))) == 403


def test_a_permission_lives_five_minutes_and_a_channel_ten() -> None:
    relay = Relay()
    relay.ask(AT, Method.ALLOCATE, UDP)
    bind(relay, AT, 0x4000, PEER)
    (allocation,) = relay.table.by_tuple.values()
    channel = allocation.channels[0x4000]
    relay.core.expire(relay.now_s + 299)
    assert channel.permitted
    relay.core.expire(relay.now_s + 300)
    assert not channel.permitted
    assert relay.core.from_peer(b"y", allocation, PEER, relay.now_s) is None
    relay.now_s += 310
    relay.ask(AT, Method.REFRESH)
    permit(relay, AT, PEER)
    assert channel.permitted
    (gone,) = relay.core.expire(relay.now_s + 290)
    assert gone.channel is channel
    assert relay.table.by_tuple


@pytest.mark.parametrize(
    ("number", "expected"), [(0x3FFF, 400), (0x4000, 0), (0x4FFF, 0), (0x5000, 0), (0x7FFF, 0), (0x8000, 400)]
)
def test_channel_numbers(number: int, expected: int) -> None:
    relay = Relay()
    relay.ask(AT, Method.ALLOCATE, UDP)
    assert code(bind(relay, AT, number, PEER)) == expected


def test_a_channel_has_one_peer_and_a_peer_one_channel() -> None:
    relay = Relay()
    relay.ask(AT, Method.ALLOCATE, UDP)
    other = (PEER[0], 5001)
    assert code(bind(relay, AT, 0x4000, PEER)) == 0
    assert code(bind(relay, AT, 0x4000, PEER)) == 0
    assert code(bind(relay, AT, 0x4001, PEER)) == 400
    assert code(bind(relay, AT, 0x4000, other)) == 400
    assert code(bind(relay, AT, 0x4001, other)) == 0


def test_bounds_of_an_allocation() -> None:
    relay = Relay(allowed=("8.0.0.0/8",))
    relay.ask(AT, Method.ALLOCATE, UDP)
    assert code(permit(relay, AT, *((f"8.8.8.{n}", 1) for n in range(16)))) == 0
    assert code(permit(relay, AT, ("8.8.8.1", 2), ("8.8.8.16", 1))) == 508
    assert [code(bind(relay, AT, 0x4000 + n, ("8.8.8.1", 1 + n))) for n in range(17)] == [0] * 16 + [508]


def test_requests_that_lack_something() -> None:
    relay = Relay()
    assert code(permit(relay, AT, PEER)) == 437
    relay.ask(AT, Method.ALLOCATE, UDP)
    assert code(relay.ask(AT, Method.CREATE_PERMISSION)) == 400
    assert code(relay.ask(AT, Method.CREATE_PERMISSION, (Attribute.XOR_PEER_ADDRESS, b"\0\1"))) == 400
    assert code(relay.ask(AT, Method.CHANNEL_BIND, (Attribute.CHANNEL_NUMBER, b"\x40\0\0\0"))) == 400
    assert code(relay.ask(AT, 0x00A)) == 400  # RFC 6062's Connect
    assert code(permit(relay, AT, PEER_V6)) == 443
    assert code(bind(relay, AT, 0x4000, PEER_V6)) == 443


def test_send_indications() -> None:
    relay = Relay()
    assert relay.raw(send_indication(PEER, b"x"), AT) == []
    relay.ask(AT, Method.ALLOCATE, UDP)
    assert relay.raw(send_indication(PEER, b"x"), AT) == []
    permit(relay, AT, PEER)
    (sent,) = relay.raw(send_indication(PEER, b"x", (Attribute.DONT_FRAGMENT, b"")), AT)
    assert isinstance(sent, ToPeer)
    assert (sent.data, sent.target, sent.dont_fragment) == (b"x", PEER, True)
    assert relay.raw(send_indication(PEER, b"x", (0x7001, b"")), AT) == []
    transaction = bytes(12)
    no_data = write_message(
        Method.SEND,
        Class.INDICATION,
        transaction,
        [(Attribute.XOR_PEER_ADDRESS, write_address(PEER, transaction))],
    )
    assert relay.raw(no_data, AT) == []
    assert relay.raw(send_indication(PEER, b"x"), five_tuple(9)) == []


def test_more_than_the_bandwidth_is_dropped_each_way_and_comes_back_with_time() -> None:
    relay = Relay(bandwidth_bps=800_000)  # 100 kB a second, 64 KiB at once
    relay.ask(AT, Method.ALLOCATE, UDP)
    permit(relay, AT, PEER)
    (allocation,) = relay.table.by_tuple.values()
    sent = sum(len(relay.raw(send_indication(PEER, bytes(1000)), AT)) for _ in range(100))
    came = sum(
        relay.core.from_peer(bytes(1000), allocation, PEER, relay.now_s) is not None for _ in range(100)
    )
    assert sent == came == 65
    assert relay.core.drops["bandwidth to peer"] == relay.core.drops["bandwidth to client"] == 35
    relay.now_s += 0.1
    assert sum(len(relay.raw(send_indication(PEER, bytes(1000)), AT)) for _ in range(100)) == 10
    assert allocation.to_peer.spent == 75_000


# control


def test_a_participant_who_leaves_takes_all_allocations_along() -> None:
    relay = Relay()
    relay.ask(five_tuple(1), Method.ALLOCATE, UDP)
    relay.ask(five_tuple(2), Method.ALLOCATE, UDP, AAF)
    relay.ask(five_tuple(3), Method.ALLOCATE, UDP, subject="bob")
    bind(relay, five_tuple(1), 0x4000, PEER)
    changes = relay.core.end(["alice", "alice", "nobody"])
    assert [change.what for change in changes] == ["closed"] * 3
    assert [allocation.subject for allocation in relay.table.by_tuple.values()] == ["bob"]
    assert len(relay.ports.taken) == 1


def test_a_revoked_credential_allocates_no_more_and_a_later_one_does() -> None:
    relay = Relay()
    relay.ask(AT, Method.ALLOCATE, UDP)
    expires_s = int(relay.now_s + UNIX_OFFSET_S) + 3600
    relay.core.revoke({"alice": expires_s, "carol": expires_s}, relay.now_s)
    assert code(relay.ask(AT, Method.REFRESH)) == 0, "what stands is for `end`"
    relay.core.end(["alice"])
    assert code(relay.ask(AT, Method.ALLOCATE, UDP)) == 403
    assert code(relay.ask(five_tuple(2), Method.ALLOCATE, UDP, ttl_s=3599)) == 403
    assert relay.core.refusals["credential revoked"] == 2
    assert code(relay.ask(five_tuple(2), Method.ALLOCATE, UDP, ttl_s=3601)) == 0, "given after that"
    assert code(relay.ask(five_tuple(3), Method.ALLOCATE, UDP, subject="bob")) == 0
    assert code(relay.ask(five_tuple(4), Method.ALLOCATE, UDP, subject="carol", secret="south")) == 401


def test_what_is_revoked_is_bounded_and_forgotten_when_it_would_have_expired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "MAX_REVOKED", 2)
    relay = Relay()
    unix_s = int(relay.now_s + UNIX_OFFSET_S)
    relay.core.revoke({f"s{number}": unix_s + 600 for number in range(3)}, relay.now_s)
    answers = [
        code(relay.ask(five_tuple(n), Method.ALLOCATE, UDP, subject=f"s{n}", ttl_s=600)) for n in range(3)
    ]
    assert answers == [0, 403, 403]
    relay.core.revoke({"s1": unix_s + 300}, relay.now_s)
    assert code(relay.ask(five_tuple(1), Method.ALLOCATE, UDP, subject="s1", ttl_s=600)) == 403, "never less"
    relay.now_s += 601
    relay.core.revoke({}, relay.now_s)
    assert len(relay.core.revocations) == 0


def test_a_connection_that_closes_ends_its_allocation() -> None:
    relay = Relay()
    at = five_tuple(1, "tcp")
    relay.ask(at, Method.ALLOCATE, UDP)
    assert [change.what for change in relay.core.disconnected(at)] == ["closed"]
    assert relay.core.disconnected(at) == []
    assert not relay.ports.taken


def test_a_drain_lets_who_is_in_stay_for_ten_minutes() -> None:
    relay = Relay()
    relay.ask(AT, Method.ALLOCATE, UDP)
    relay.core.drain(relay.now_s)
    assert code(relay.ask(five_tuple(2), Method.ALLOCATE, UDP)) == 508
    relay.now_s += 400
    assert granted(relay.ask(AT, Method.REFRESH)) == 200
    relay.core.expire(relay.now_s + 200)
    assert not relay.table.by_tuple


def test_changes_come_before_the_answer() -> None:
    """A client that has the answer finds its allocation standing."""
    relay = Relay()
    data = seal(relay)
    outputs = relay.raw(data, AT)
    assert [type(output) for output in outputs] == [Change, Answer]


def test_what_was_let_go_is_not_due_any_more() -> None:
    relay = Relay()
    relay.ask(AT, Method.ALLOCATE, UDP, AAF)
    permit(relay, AT, (PEER[0], 1))
    permit(relay, AT, (PEER_V6[0], 1))
    bind(relay, AT, 0x4000, PEER)
    bind(relay, AT, 0x4001, PEER_V6)
    relay.ask(AT, Method.REFRESH, lifetime(0), family(2))
    relay.core.end(["alice"])
    assert relay.table.next_deadline() is None
    assert relay.core.expire(relay.now_s + 1000) == []
