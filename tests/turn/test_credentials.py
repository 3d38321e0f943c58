"""The REST scheme of ephemeral TURN credentials."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turn.credentials import InvalidCredential, issue, parse_username, password_for, passwords, verify

NOW_S = 1_700_000_000.0


def test_the_known_answer_of_coturns_scheme() -> None:
    # printf '1700000600:alice' | openssl dgst -sha1 -hmac north -binary | base64
    assert password_for("1700000600:alice", "north") == "gthUwOpcRoLI0MMCziCEBOWYnpo="


def test_a_fresh_credential_is_accepted_until_it_expires() -> None:
    made = issue("alice", "north", now_s=NOW_S, ttl_s=600)
    assert made.username == "1700000600:alice"
    assert made.expires_at_s == 1_700_000_600
    assert verify(made.username, made.password, ["north"], now_s=NOW_S + 599)
    with pytest.raises(InvalidCredential, match="expired"):
        verify(made.username, made.password, ["north"], now_s=NOW_S + 600)


def test_an_old_secret_is_good_while_it_is_listed() -> None:
    made = issue("alice", "old", now_s=NOW_S, ttl_s=600)
    assert verify(made.username, made.password, ["new", "old"], now_s=NOW_S)
    assert not verify(made.username, made.password, ["new"], now_s=NOW_S)
    assert not verify(made.username, made.password, [], now_s=NOW_S)
    assert passwords(made.username, ["new", "old"], now_s=NOW_S)[1] == made.password


def test_the_name_is_part_of_what_is_signed() -> None:
    made = issue("alice", "north", now_s=NOW_S, ttl_s=600)
    assert not verify("1700000600:mallory", made.password, ["north"], now_s=NOW_S)
    assert not verify("1800000000:alice", made.password, ["north"], now_s=NOW_S)


def test_a_subject_may_hold_colons() -> None:
    made = issue("a:b:c", "north", now_s=NOW_S, ttl_s=60)
    assert parse_username(made.username) == (1_700_000_060, "a:b:c")


@pytest.mark.parametrize(
    "username", ["", "alice", ":alice", "12:", "x:alice", "-1:a", "1" * 13 + ":a", "٣:a", "9:" + "a" * 510]
)
def test_other_names_are_refused(username: str) -> None:
    with pytest.raises(InvalidCredential):
        passwords(username, ["north"], now_s=0)


@pytest.mark.parametrize(("subject", "ttl_s"), [("", 60), ("a" * 600, 60), ("alice", 0)])
def test_what_no_relay_could_accept_is_not_issued(subject: str, ttl_s: int) -> None:
    with pytest.raises(ValueError, match=r"credential|TURN"):
        issue(subject, "north", now_s=NOW_S, ttl_s=ttl_s)


def test_the_password_does_not_show_in_a_repr() -> None:
    made = issue("alice", "north", now_s=NOW_S, ttl_s=600)
    assert made.password not in repr(made)


@given(st.text(max_size=600), st.text(max_size=60))
def test_strangers_get_no_other_exception(username: str, password: str) -> None:
    with contextlib.suppress(InvalidCredential):
        assert not verify(username, password, ["north"], now_s=NOW_S)
