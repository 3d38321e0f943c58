"""Datagrams by the dozen: one system call for many, in buffers where libsrtp works in place.

``Inbox`` and ``Outbox`` own a fixed row of slots each. A datagram is decrypted where the kernel put it, and
encrypted where the kernel will take it from: no bytes object on the way but the packet in clear. Linux reads and
sends many at a call (recvmmsg(2), sendmmsg(2)); where there is no such call, as on macOS, the same row is read and
sent one by one.

The C library is reached by cffi in ABI mode, which pylibsrtp brings along; ``tests/mixer/webrtc/test_batch.py`` holds
the layouts that this relies on.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

import cffi

Address = tuple[str, int]

SLOTS: Final = 64  # datagrams: a room of 60 in one call; beyond, a call costs nothing beside its datagrams
READ_BYTES: Final = 2048  # longer ones are cut by the kernel and still too long for us
SLOT_BYTES: Final = (
    2304  # what is read, and what libsrtp may write behind it (SRTP_MAX_TRAILER_LEN, 144 bytes)
)
_NAME_BYTES: Final = 28  # sockaddr_in6, the longer of the two

_C: Final = cffi.FFI()
# recvmmsg(2), sendmmsg(2) and the structures of the kernel's 64-bit interface (linux/socket.h); sendto(2), recvfrom(2)
_C.cdef("""
    struct iovec { void *iov_base; size_t iov_len; };
    struct msghdr {
        void *msg_name; unsigned int msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
        void *msg_control; size_t msg_controllen; int msg_flags;
    };
    struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
    int recvmmsg(int, struct mmsghdr *, unsigned int, int, void *);
    int sendmmsg(int, struct mmsghdr *, unsigned int, int);
    ssize_t recvfrom(int, void *, size_t, int, void *, unsigned int *);
    ssize_t sendto(int, const void *, size_t, int, const void *, unsigned int);
""")
_LIBC: Final[Any] = _C.dlopen(None)

_NAME_SIZE: Final = {socket.AF_INET: 16, socket.AF_INET6: 28}
# What tells senders apart, in the bytes of a sockaddr: port and address; of IPv6 the flow between them, always zero.
_KEY: Final = {socket.AF_INET: slice(2, 8), socket.AF_INET6: slice(2, 24)}


def sockaddr(address: Address) -> bytes:
    """``address`` as the kernel has it (ip(7), ipv6(7)). ``OSError`` or ``struct.error`` when it is none."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    packed = socket.inet_pton(family, host)
    name = struct.pack("!H4s8x" if family == socket.AF_INET else "!H4x16s4x", port, packed)
    if sys.platform == "darwin":
        return struct.pack("BB", len(name) + 2, family) + name
    return struct.pack("=H", family) + name


def sender_key(address: Address) -> bytes:
    """What `Inbox` calls a sender of that address."""
    return sockaddr(address)[_KEY[socket.AF_INET6 if ":" in address[0] else socket.AF_INET]]


def address_of(name: bytes) -> Address:
    """The address in a sockaddr."""
    if len(name) == _NAME_SIZE[socket.AF_INET]:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), int.from_bytes(name[2:4], "big")
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), int.from_bytes(name[2:4], "big")


class Slot:
    """Room for one datagram. ``start`` and ``length`` are what libsrtp takes: where it is, and how long (``int *``, set
    by whoever changes it). ``packet``: the same memory as a buffer of ``SLOT_BYTES``.
    """

    __slots__ = ("length", "name", "packet", "start")

    def __init__(self, start: Any, length: Any, name: Any) -> None:
        self.start = start
        self.length = length
        self.packet = _C.buffer(start, SLOT_BYTES)
        self.name = name

    def read(self) -> bytes:
        """The datagram's bytes."""
        data: bytes = self.packet[0 : self.length[0]]
        return data

    @staticmethod
    def holding(data: bytes, name: bytes = b"") -> Slot:
        """One that belongs to no batch. ``ValueError`` for more than ``READ_BYTES``."""
        if len(data) > READ_BYTES:
            raise ValueError(f"a datagram of {len(data)} bytes is too long for a slot")
        slot = Slot(_C.new("unsigned char[]", SLOT_BYTES), _C.new("int *", len(data)), name)
        slot.packet[0 : len(data)] = data
        return slot


class _Row:
    """Slots and the structures that describe them to the kernel, for one socket."""

    def __init__(self, sock: socket.socket, capacity: int) -> None:
        self._fd = sock.fileno()
        self._name_size = _NAME_SIZE[sock.family]
        self._packets = _C.new("unsigned char[]", SLOTS * SLOT_BYTES)
        self._names = _C.new("unsigned char[]", SLOTS * _NAME_BYTES)
        self._pieces = _C.new("struct iovec[]", SLOTS)
        self._messages = _C.new("struct mmsghdr[]", SLOTS)
        for index in range(SLOTS):
            piece, header = self._pieces[index], self._messages[index].msg_hdr
            piece.iov_base, piece.iov_len = self._packets + index * SLOT_BYTES, capacity
            header.msg_name, header.msg_namelen = self._names + index * _NAME_BYTES, self._name_size
            header.msg_iov, header.msg_iovlen = self._pieces + index, 1

    def _row(self, length: Callable[[int], Any]) -> list[Slot]:
        return [
            Slot(
                self._packets + index * SLOT_BYTES,
                length(index),
                _C.buffer(self._names + index * _NAME_BYTES, self._name_size),
            )
            for index in range(SLOTS)
        ]


class Inbox(_Row):
    """What a non-blocking socket has received. Slots are good until the next ``receive``."""

    def __init__(self, sock: socket.socket, *, by_one: bool = False) -> None:
        super().__init__(sock, READ_BYTES)
        self.key: Final = _KEY[sock.family]
        """Which part of a slot's name tells its sender: `sender_key`."""
        self.slots: Final = self._row(
            lambda at: _C.cast("int *", _C.addressof(self._messages[at], "msg_len"))
        )
        self._receive = self._by_one if by_one else getattr(_LIBC, "recvmmsg", self._by_one)

    def receive(self, most: int) -> int:
        """Fill the first slots with what waits, at most ``most``; how many. ``OSError``: an ICMP error of an earlier
        send, which the kernel tells once; the socket itself is well.
        """
        count: int = self._receive(self._fd, self._messages, most, 0, _C.NULL)
        if count >= 0:
            return count
        if _C.errno in {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR}:
            return 0
        raise OSError(_C.errno, "receiving failed")

    def _by_one(self, fd: int, messages: Any, most: int, flags: int, timeout: Any) -> int:
        """recvmmsg(2)"""
        name_size = _C.new("unsigned int *")
        for index in range(most):
            name_size[0] = self._name_size
            header = messages[index].msg_hdr
            size = _LIBC.recvfrom(fd, header.msg_iov.iov_base, READ_BYTES, flags, header.msg_name, name_size)
            if size < 0:
                return index or -1
            messages[index].msg_len = size
        return most


class Outbox(_Row):
    """What is to leave by one socket. ``unsent(errno)`` hears of each datagram that the kernel would not take;
    ``begun()`` when the first one waits: somebody has to call ``flush``.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        unsent: Callable[[int], None],
        begun: Callable[[], object],
        by_one: bool = False,
    ) -> None:
        super().__init__(sock, SLOT_BYTES)
        self._unsent = unsent
        self._begun = begun
        # iov_len is a size_t of which libsrtp sees the lower half as its int
        half = _C.sizeof("size_t") - _C.sizeof("int") if sys.byteorder == "big" else 0
        self._slots: Final = self._row(
            lambda at: _C.cast("int *", _C.cast("char *", _C.addressof(self._pieces[at], "iov_len")) + half)
        )
        self._lost: list[Callable[[int], None]] = []
        self._send = self._by_one if by_one else getattr(_LIBC, "sendmmsg", self._by_one)

    def __len__(self) -> int:
        return len(self._lost)

    def post(
        self, packet: bytes, write: Callable[[bytes, Slot], None], name: bytes, lost: Callable[[int], None]
    ) -> int:
        """``write(packet, slot)``, and keep that for the address ``name`` (`sockaddr`, of the socket's family) until
        ``flush``; a full row leaves before. Returns its size.

        ``lost(size)`` is called by ``flush`` if it does not leave. What ``write`` raises comes out, nothing is kept.
        """
        waiting = self._lost
        at = len(waiting)
        if at == SLOTS:
            self.flush()
            waiting, at = self._lost, 0
        slot = self._slots[at]
        write(packet, slot)
        slot.name[:] = name
        waiting.append(lost)
        if not at:
            self._begun()
        size: int = slot.length[0]
        return size

    def waiting(self) -> list[tuple[bytes, Address]]:
        """What would leave now, and where to."""
        return [(slot.read(), address_of(slot.name[:])) for slot in self._slots[: len(self)]]

    def flush(self) -> None:
        """Send all that was added. One that can't leave costs the others nothing."""
        lost, at = self._lost, 0
        self._lost = []
        while at < len(lost):
            sent: int = self._send(self._fd, self._messages + at, len(lost) - at, 0)
            if sent > 0:
                at += sent
                continue
            # of the first one that is left: sendmmsg(2) tells an error only when nothing was sent
            self._unsent(_C.errno)
            lost[at](self._slots[at].length[0])
            at += 1

    def _by_one(self, fd: int, messages: Any, count: int, flags: int) -> int:
        """sendmmsg(2)"""
        for index in range(count):
            header = messages[index].msg_hdr
            piece = header.msg_iov
            sent = _LIBC.sendto(fd, piece.iov_base, piece.iov_len, flags, header.msg_name, header.msg_namelen)
            if sent < 0:
                return index or -1
        return count
