"""Nonces, deadlines, control words, settings."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turn.control import (
    BadWord,
    Drain,
    End,
    Ended,
    Listening,
    Metrics,
    Peers,
    Revoke,
    Secrets,
    parse_word,
    write_word,
)
from turn.deadlines import Deadlines
from turn.exposition import exposition
from turn.nonces import Nonces
from turn.settings import BadSettings, parse_settings

AT = ("udp", ("203.0.113.7", 1), ("10.0.0.1", 3478))


# nonces


def test_a_nonce_is_good_for_its_five_tuple_for_ten_minutes() -> None:
    nonces = Nonces(b"k")
    nonce = nonces.issue(AT, 1000.9)
    assert nonces.fresh(nonce, AT, 1599)
    assert not nonces.fresh(nonce, AT, 1600)
    assert not nonces.fresh(nonce, ("udp", ("203.0.113.7", 2), ("10.0.0.1", 3478)), 1000)
    assert not Nonces(b"other").fresh(nonce, AT, 1000)
    assert len(nonce) == 37
    assert len({Nonces().issue(AT, 1000) for _ in range(8)}) == 8


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_made_up_nonces(nonce: bytes) -> None:
    assert not Nonces(b"k").fresh(nonce, AT, 0)


# deadlines


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 100)))))
def test_deadlines_are_those_last_said(steps: list[tuple[int, int | None]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, int] = {}
    for item, when in steps:
        if when is None:
            deadlines.cancel(item)
            model.pop(item, None)
        else:
            deadlines.set(item, when)
            model[item] = when
    assert deadlines.next() == min(model.values(), default=None)
    assert sorted(deadlines.due(50)) == sorted(item for item, when in model.items() if when <= 50)
    assert len(deadlines) == sum(when > 50 for when in model.values())


def test_who_comes_and_goes_in_a_loop_leaves_nothing_behind() -> None:
    deadlines: Deadlines[object] = Deadlines()
    for _ in range(10_000):
        item = object()
        deadlines.set(item, 600)
        deadlines.cancel(item)
    assert len(deadlines._heap) <= 70


# control words

WORDS = [
    Peers(((("192.0.2.1", 5), ("192.0.2.1", 5)), (("192.0.2.1", 6), ("10.0.0.1", 6))), (("::1", 7),)),
    End(("alice", "bob")),
    Revoke({"alice": 1_800_000_000, "a:b": 5}),
    Secrets(("north",)),
    Drain(),
    Listening((("udp", "127.0.0.1", 3478), ("tls", "::1", 5349))),
    Metrics(3, {"to_peer": 1}, {"to_peer": 2}, {"malformed": 3}, {}),
    Ended("alice"),
]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_comes_back(word: object) -> None:
    line = write_word(word)  # type: ignore[arg-type]
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert parse_word(line) == word


def test_the_words_as_the_parent_writes_them() -> None:
    assert parse_word('{"word":"peers","add":[["127.0.0.1",5000],["198.51.7.1",1,"10.0.0.5",2]]}') == Peers(
        ((("127.0.0.1", 5000), ("127.0.0.1", 5000)), (("198.51.7.1", 1), ("10.0.0.5", 2)))
    )
    written = parse_word('{"word":"peers","add":[["0:0::0:1",5]],"remove":[["::ffff:1.2.3.4",7,"x",8]]}')
    assert written == Peers(((("::1", 5), ("::1", 5)),), (("::ffff:102:304", 7),))
    assert "north" not in repr(Secrets(("north",)))


@pytest.mark.parametrize(
    "line",
    ["", "[]", "nonsense", '{"word":"sing"}', '{"word":["peers"]}', '{"word":"end"}', '{"word":"end","subjects":"al"}',
     '{"word":"peers","add":[["1.2.3.4"]]}', '{"word":"peers","add":[["host",5]]}', '{"word":"secrets","secrets":[5]}',
     '{"word":"peers","add":[["1.2.3.4",true]]}', '{"word":"peers","add":[["1.2.3.4",70000]]}',
     '{"word":"revoke","until":["al"]}', '{"word":"revoke","until":{"al":"5"}}',
     '{"word":"revoke","until":{"al":true}}', '{"word":"revoke"}',
     '{"word":"metrics"}', '{"word":"listening","sockets":[[1]]}', '{"word":"peers","remove":[[]]}'],
)  # fmt: skip
def test_what_is_no_word(line: str) -> None:
    with pytest.raises(BadWord):
        parse_word(line)


def test_exposition() -> None:
    text = exposition(Metrics(3, {"to_peer": 1}, {"to_peer": 2}, {"malformed": 3}, {}))
    assert "turn_allocations 3\n" in text
    assert 'turn_drops_total{reason="malformed"} 3\n' in text


# settings


def test_settings_of_a_json_object() -> None:
    settings = parse_settings(
        {
            "listen": ["127.0.0.1:3478", "[::1]:3478"],
            "relay_address": "127.0.0.1,::1",
            "relay_ports": "50000-50999",
            "secrets": ["north"],
            "allow_peer": ["127.0.0.1", "8.8.0.0/16"],
            "bandwidth": 100,
            "realm": None,
        }
    )
    assert settings.listen == (("127.0.0.1", 3478), ("::1", 3478))
    assert settings.relay_addresses == ("127.0.0.1", "::1")
    assert settings.bandwidth_bps == 100_000
    assert settings.realm == "mosaique"
    assert "north" not in repr(settings)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "secret_file"),
        ({"secrets": []}, "secret_file"),
        ({"secrets": ["s"], "lissen": "x"}, "lissen"),
        ({"secrets": ["s"], "listen": "localhost:3478"}, "listen"),
        ({"secrets": ["s"], "listen": "127.0.0.1"}, "listen"),
        ({"secrets": ["s"], "listen": []}, "listen"),
        ({"secrets": ["s"], "tls_listen": "127.0.0.1:1"}, "tls_cert"),
        ({"secrets": ["s"], "relay_address": ["10.0.0.1", "10.0.0.2"]}, "relay_address"),
        ({"secrets": ["s"], "relay_address": ["0.0.0.0"]}, "relay_address"),
        ({"secrets": ["s"], "relay_ports": "5-9"}, "relay_ports"),
        ({"secrets": ["s"], "relay_ports": "60000-50000"}, "relay_ports"),
        ({"secrets": ["s"], "allow_peer": "10.0.0.0/8"}, "allow_peer"),
        ({"secrets": ["s"], "user_quota": 0}, "user_quota"),
        ({"secrets": ["s"], "max_allocations": "many"}, "max_allocations"),
        ({"secrets": ["s"], "realm": ""}, "realm"),
        ({"secrets": ["s"], "realm": "r" * 200}, "realm"),
        ({"secrets": ["s"], "public_ip": "here"}, "public_ip"),
        ({"secrets": [5], "public_ip": "1.2.3.4"}, "secrets"),
    ],
)
def test_bad_settings_are_named(body: dict[str, object], says: str) -> None:
    with pytest.raises(BadSettings, match=says) as caught:
        parse_settings(json.loads(json.dumps(body)))
    assert "['s']" not in str(caught.value)
