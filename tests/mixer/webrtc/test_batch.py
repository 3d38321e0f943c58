"""Rows of datagrams against the kernel, and what they rely on of cffi, pylibsrtp and the C library."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mixer.webrtc import batch
from mixer.webrtc.batch import (
    READ_BYTES,
    SLOT_BYTES,
    SLOTS,
    Inbox,
    Outbox,
    Slot,
    address_of,
    sender_key,
    sockaddr,
)

HOSTS = ["127.0.0.1", "::1"]


@contextlib.contextmanager
def bound(host: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        made.bind((host, 0))
        yield made


def write(box: Outbox, data: bytes, to: tuple[str, int], lost: list[int]) -> None:
    def fill(packet: bytes, slot: Slot) -> None:
        slot.packet[0 : len(packet)] = packet
        slot.length[0] = len(packet)

    assert box.post(data, fill, sockaddr(to), lost.append) == len(data)


def outbox(sock: socket.socket, errors: list[int], *, by_one: bool = False) -> Outbox:
    return Outbox(sock, unsent=errors.append, begun=lambda: None, by_one=by_one)


def read(box: Inbox, count: int) -> list[bytes]:
    return [slot.read() for slot in box.slots[:count]]


@pytest.mark.parametrize("by_one", [False, True])
@pytest.mark.parametrize("host", HOSTS)
def test_a_row_goes_out_and_comes_in(host: str, by_one: bool) -> None:
    with bound(host) as one, bound(host) as two:
        errors: list[int] = []
        lost: list[int] = []
        out, inbox = outbox(one, errors, by_one=by_one), Inbox(two, by_one=by_one)
        assert inbox.receive(8) == 0
        there, here = two.getsockname()[:2], one.getsockname()[:2]
        sent = [bytes([number]) * size for number, size in enumerate((1, 12, 200, 1500, READ_BYTES, 0))]
        for data in sent:
            write(out, data, there, lost)
        assert out.waiting() == [(data, there) for data in sent]
        out.flush()
        assert (len(out), errors, lost) == (0, [], [])
        assert inbox.receive(4) == 4
        assert read(inbox, 4) == sent[:4]
        assert inbox.receive(4) == 2
        assert read(inbox, 2) == sent[4:]
        assert {slot.name[inbox.key] for slot in inbox.slots[:4]} == {sender_key(here)}
        assert address_of(inbox.slots[0].name[:]) == here


@pytest.mark.parametrize("by_one", [False, True])
def test_one_that_cannot_leave_costs_the_others_nothing(by_one: bool) -> None:
    with bound(HOSTS[0]) as one, bound(HOSTS[0]) as two:
        errors: list[int] = []
        lost: list[int] = []
        out = outbox(one, errors, by_one=by_one)
        there = two.getsockname()
        for number in range(
            9
        ):  # port 0 is nobody's: the kernel refuses it (EINVAL), the first and the last too
            write(out, bytes([number]), there if number % 4 else (HOSTS[0], 0), lost)
        out.flush()
        assert [two.recv(10)[0] for _ in range(6)] == [1, 2, 3, 5, 6, 7]
        assert errors == [errno.EINVAL] * 3
        assert lost == [1, 1, 1]


def test_a_full_row_leaves_at_once_and_the_next_begins() -> None:
    with bound(HOSTS[0]) as one, bound(HOSTS[0]) as two:
        lost: list[int] = []
        out = outbox(one, lost)
        for number in range(SLOTS + 3):
            write(out, bytes([number]), two.getsockname(), lost)
        assert len(out) == 3
        out.flush()
        assert [two.recv(10)[0] for _ in range(SLOTS + 3)] == list(range(SLOTS + 3))


def test_who_can_not_write_leaves_nothing_behind() -> None:
    begun: list[int] = []
    with bound(HOSTS[0]) as one, bound(HOSTS[0]) as two:
        out = Outbox(one, unsent=begun.append, begun=lambda: begun.append(1))

        def refuse(packet: bytes, slot: Slot) -> None:
            raise ValueError("no key")

        with pytest.raises(ValueError, match="no key"):
            out.post(b"x", refuse, sockaddr(two.getsockname()), begun.append)
        assert (len(out), begun) == (0, [])
        for _ in range(2):
            write(out, b"x", two.getsockname(), begun)
        assert begun == [1]  # of the first alone


def test_a_closed_socket_loses_all_and_says_so() -> None:
    with bound(HOSTS[0]) as one, bound(HOSTS[0]) as two:
        errors: list[int] = []
        lost: list[int] = []
        out, inbox = outbox(one, errors), Inbox(one)
        one.close()
        for _ in range(3):
            write(out, b"four", two.getsockname(), lost)
        out.flush()
        assert (errors, lost) == ([errno.EBADF] * 3, [4] * 3)
        with pytest.raises(OSError, match="receiving"):
            inbox.receive(1)


def test_a_datagram_longer_than_a_slot_is_cut_and_stays_in_it() -> None:
    with bound(HOSTS[0]) as one, bound(HOSTS[0]) as two:
        inbox = Inbox(two)
        one.sendto(b"x" * 9000, two.getsockname())
        one.sendto(b"next", two.getsockname())
        assert inbox.receive(2) == 2
        assert read(inbox, 2) == [b"x" * READ_BYTES, b"next"]
    with pytest.raises(ValueError, match="too long"):
        Slot.holding(bytes(READ_BYTES + 1))


@pytest.mark.parametrize("address", ["localhost", "", "1.2.3", "127.0.0.1%lo", "::g"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - inet_pton has no errno
        sockaddr((address, 9))


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_an_address_survives_its_sockaddr(host: str) -> None:
    assert address_of(sockaddr((host, 54_321))) == (host, 54_321)
    with bound(HOSTS[":" in host]) as made, bound(HOSTS[":" in host]) as other:
        made.connect(other.getsockname())
        assert address_of(sockaddr(other.getsockname()[:2])) == other.getsockname()[:2]


def test_the_layouts_are_the_kernel_s() -> None:
    """linux/socket.h of 64-bit machines; a machine of another kind must be looked at before it is believed."""
    ffi: Any = batch._C
    offsets = [
        ffi.offsetof("struct msghdr", name)
        for name in (
            "msg_name",
            "msg_namelen",
            "msg_iov",
            "msg_iovlen",
            "msg_control",
            "msg_controllen",
            "msg_flags",
        )
    ]
    assert offsets == [0, 8, 16, 24, 32, 40, 48]
    assert (ffi.sizeof("struct mmsghdr"), ffi.offsetof("struct mmsghdr", "msg_len")) == (64, 56)
    assert (ffi.sizeof("struct iovec"), ffi.sizeof("size_t"), ffi.sizeof("int")) == (16, 8, 4)


def test_libsrtp_takes_pointers_of_ours_and_has_room_behind_a_packet() -> None:
    """pylibsrtp's functions are of another ``FFI``: pointers to plain types are the same in all of them."""
    from pylibsrtp import SRTP_MAX_SRTCP_TRAILER_LEN
    from pylibsrtp._binding import ffi

    slot = Slot.holding(b"abc")
    assert ffi.typeof("int *") is batch._C.typeof(slot.length)
    assert ffi.cast("unsigned char *", slot.start)[2] == ord("c")
    assert READ_BYTES + SRTP_MAX_SRTCP_TRAILER_LEN <= SLOT_BYTES
