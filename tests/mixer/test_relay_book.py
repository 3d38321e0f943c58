"""The book of the relay: its words follow the rooms, and a subject is over when it has had no session for a while."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mixer import relay_book
from mixer.protocol import MediaSocket
from mixer.relay_book import CREDENTIAL_S, LEFT_S, UNUSED_S, Entry, RelayBook, entries_of
from turn.control import MAX_LINE_BYTES, End, Peers, Revoke, ToRelay, write_word

ONE = MediaSocket(port=40001, addresses=("192.0.2.1", "10.0.0.1"))
TWO = MediaSocket(port=40002, addresses=("192.0.2.1", "10.0.0.1"))


class Listener:
    """Keeps the words, and what a relay that hears them may reach."""

    def __init__(self) -> None:
        self.open: set[Entry] = set()
        self.ended: list[str] = []
        self.void: dict[str, int] = {}

    def __call__(self, word: ToRelay) -> None:
        match word:
            case Peers(add, remove):
                assert not dict(add).keys() & dict(self.open).keys(), "told twice"
                self.open |= set(add)
                assert set(remove) <= dict(self.open).keys(), "taken away what was not there"
                self.open = {entry for entry in self.open if entry[0] not in remove}
            case End(subjects):
                self.ended += subjects
            case Revoke(until):
                assert len(write_word(word)) <= MAX_LINE_BYTES
                self.void |= until
            case other:
                raise AssertionError(other)


def listened() -> tuple[RelayBook, Listener]:
    book, listener = RelayBook(), Listener()
    book.listen(listener)
    return book, listener


def test_peers_follow_the_rooms() -> None:
    book, heard = listened()
    book.room_opened("a", [ONE])
    book.room_opened("b", [TWO])
    assert heard.open == {*entries_of([ONE]), *entries_of([TWO])}
    book.room_closed("a")
    assert heard.open == set(entries_of([TWO]))
    book.room_opened("b", [ONE])  # its worker was replaced
    assert heard.open == set(entries_of([ONE]))
    book.room_closed("b")
    book.room_closed("b")
    assert heard.open == set()


def test_a_relay_that_starts_again_hears_all_that_is_in_force() -> None:
    book, _ = listened()
    book.room_opened("a", [ONE])
    book.listen(None)
    book.room_opened("b", [TWO])
    late = Listener()
    book.listen(late)
    assert late.open == {*entries_of([ONE]), *entries_of([TWO])}


def test_an_address_of_a_nat_is_mapped_to_one_of_its_own_family() -> None:
    socket = MediaSocket(port=40001, addresses=("198.51.100.7", "10.0.0.1"), public_ip="198.51.100.7")
    assert entries_of([socket]) == (
        (("198.51.100.7", 40001), ("10.0.0.1", 40001)),
        (("10.0.0.1", 40001), ("10.0.0.1", 40001)),
    )
    alone = MediaSocket(port=40001, addresses=("198.51.100.7",), public_ip="198.51.100.7")
    assert entries_of([alone]) == ((("198.51.100.7", 40001),) * 2,), "an interface's own, then"


def test_who_comes_back_in_time_keeps_the_allocation() -> None:
    book, heard = listened()
    book.session_began("ann")
    book.session_ended("ann", 100.0)
    book.sweep(100.0 + LEFT_S - 0.1)
    assert heard.ended == []
    book.session_began("ann")
    book.sweep(1000.0)
    assert heard.ended == []
    book.session_began("ann")
    book.session_ended("ann", 1000.0)
    book.sweep(2000.0)
    assert heard.ended == [], "one of two sessions is left"
    book.session_ended("ann", 2000.0)
    book.sweep(2000.0 + LEFT_S)
    book.sweep(3000.0)
    assert heard.ended == ["ann"]


def test_credentials_that_nobody_uses_end() -> None:
    book, heard = listened()
    book.session_began("ann")
    book.issued("ann", 0.0)
    book.issued("bob", 0.0)
    book.sweep(UNUSED_S - 1)
    assert heard.ended == []
    book.sweep(UNUSED_S)
    assert heard.ended == ["bob"]


def test_who_asks_again_while_leaving_is_about_to_come_back() -> None:
    book, heard = listened()
    book.session_began("ann")
    book.session_ended("ann", 0.0)
    book.issued("ann", LEFT_S - 1)
    book.sweep(LEFT_S)
    assert heard.ended == []


def test_who_is_put_out_ends_at_once_unless_elsewhere_too() -> None:
    book, heard = listened()
    book.session_began("ann")
    book.session_ended("ann", 0.0)
    book.removed("ann", 5000.0)
    book.sweep(1000.0)
    assert heard.ended == ["ann"], "once"
    book.session_began("bob")
    book.removed("bob", 5000.0)
    assert heard.ended == ["ann"]
    assert heard.void == {"ann": 5000 + CREDENTIAL_S}, "who is elsewhere keeps theirs"


def test_credentials_of_who_is_put_out_are_void_and_the_next_ones_are_not() -> None:
    book, heard = listened()
    before = book.expiry("ann", 5000.9)
    book.removed("ann", 5000.9)
    assert before <= heard.void["ann"]
    after = book.expiry("ann", 5000.9)
    assert after > heard.void["ann"], "in the very same second"
    book.removed("ann", 5000.9)
    assert after <= heard.void["ann"], "and those go, too, when they are put out again"
    assert book.expiry("bob", 5000.9) == before
    assert book.expiry("ann", 6000.0) == 6000 + CREDENTIAL_S


def test_a_relay_that_starts_again_hears_of_all_that_is_void(monkeypatch: Any) -> None:
    monkeypatch.setattr(relay_book, "MAX_REVOKED", 3000)
    book = RelayBook()
    long = "x" * 490
    for number in range(3100):
        book.removed(f"{long}{number}", 5000.0)
    late = Listener()
    book.listen(late)
    assert list(late.void) == [f"{long}{number}" for number in range(100, 3100)], "the oldest are forgotten"
    book.removed("ann", 5000.0 + CREDENTIAL_S)
    late = Listener()
    book.listen(late)
    assert list(late.void) == ["ann"], "the others are over by themselves"


def test_those_who_wait_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(relay_book, "MAX_WAITING", 3)
    book, heard = listened()
    for number in range(5):
        book.issued(f"s{number}", 0.0)
    assert heard.ended == ["s0", "s1"], "the oldest first"


@given(st.lists(st.tuples(st.sampled_from("oclr"), st.sampled_from("ab"), st.integers(0, 3)), max_size=40))
def test_what_is_open_is_what_the_rooms_have(steps: list[tuple[str, str, int]]) -> None:
    book, heard = listened()
    rooms: dict[str, set[Entry]] = {}
    for step, room, number in steps:
        sockets = [MediaSocket(port=ord(room) * 10 + n, addresses=("10.0.0.1",)) for n in range(number)]
        match step:
            case "o":
                book.room_opened(room, sockets)
                rooms[room] = set(entries_of(sockets))
            case "c":
                book.room_closed(room)
                rooms.pop(room, None)
            case "l":
                book.listen(None)
            case "r":
                heard = Listener()
                book.listen(heard)
    heard = Listener()
    book.listen(heard)
    assert heard.open == set().union(*rooms.values())
