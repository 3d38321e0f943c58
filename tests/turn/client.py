"""A small TURN client for tests and the bench: blocking, one question at a time, and does wrong when told to."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import time
from typing import Any, Self

from turn.credentials import issue
from turn.message import (
    Attribute,
    Class,
    Message,
    Method,
    frame_bytes,
    long_term_key,
    parse_message,
    read_address,
    write_address,
    write_message,
)

Peer = tuple[str, int]
UDP = (Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0")


class TurnError(Exception):
    """An error response; ``code`` is its number."""

    def __init__(self, message: Message) -> None:
        value = message.get(Attribute.ERROR_CODE) or bytes(4)
        self.code = value[2] * 100 + value[3]
        self.message = message
        super().__init__(f"{self.code} {value[4:].decode(errors='replace')}")


class TurnClient:
    """``kind``: udp, tcp or tls. ``sock`` is there to be read and written by the test itself."""

    def __init__(
        self,
        server: Peer,
        *,
        kind: str = "udp",
        secret: str = "north",
        subject: str = "alice",
        ttl_s: int = 3600,
        cafile: str | None = None,
        timeout_s: float = 20.0,
    ) -> None:
        credential = issue(subject, secret, now_s=time.time(), ttl_s=ttl_s)
        self.username, self.password = credential.username, credential.password
        self.realm, self.nonce = "", b""
        self.kind = kind
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self.sock: Any = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        self.sock.settimeout(timeout_s)
        self.sock.connect(server)
        if kind == "tls":
            context = ssl.create_default_context(cafile=cafile)
            context.check_hostname = False
            if cafile is None:
                context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["stun.turn"])
            self.sock = context.wrap_socket(self.sock)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    # frames

    def receive(self) -> bytes:
        """One frame, STUN or ChannelData; padding of a stream is taken off ChannelData."""
        if self.kind == "udp":
            return bytes(self.sock.recv(65_535))
        while True:
            if len(self._rest) >= 4 and len(self._rest) >= (size := frame_bytes(self._rest[:4])):
                frame, self._rest = self._rest[:size], self._rest[size:]
                return frame if frame[0] < 0x40 else frame[: 4 + int.from_bytes(frame[2:4], "big")]
            more = self.sock.recv(65_536)
            if not more:
                raise EOFError("the relay has closed the connection")
            self._rest += more

    def send_channel(self, number: int, data: bytes) -> None:
        frame = number.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
        self.sock.sendall(frame if self.kind == "udp" else frame + bytes(-len(data) & 3))

    def send_indication(self, peer: Peer, data: bytes, *more: tuple[int, bytes]) -> None:
        transaction = secrets.token_bytes(12)
        attributes = [
            (Attribute.XOR_PEER_ADDRESS, write_address(peer, transaction)),
            (Attribute.DATA, data),
            *more,
        ]
        self.sock.sendall(write_message(Method.SEND, Class.INDICATION, transaction, attributes))

    def receive_data(self) -> tuple[Peer | int, bytes]:
        """What a peer sent: the peer (Data indication) or the channel's number, and the payload."""
        frame = self.receive()
        if frame[0] >= 0x40:
            return int.from_bytes(frame[:2], "big"), frame[4:]
        message = parse_message(frame)
        assert message.kind == Class.INDICATION, message
        peer, data = message.get(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
        assert peer is not None
        assert data is not None
        return read_address(peer, message.transaction), data

    # requests

    def request(
        self,
        method: int,
        *attributes: tuple[int, bytes],
        transaction: bytes | None = None,
        sealed: bool = True,
        sha256: bool = False,
    ) -> Message:
        """The success response. Learns realm and nonce and asks again by itself. Raises ``TurnError``."""
        transaction = transaction or secrets.token_bytes(12)
        for last in (False, True):
            try:
                return self._ask(method, attributes, transaction, sealed=sealed, sha256=sha256)
            except TurnError as error:
                if last or error.code not in {401, 438} or not sealed:
                    raise
                self.realm = (error.message.get(Attribute.REALM) or b"").decode()
                if self.nonce and error.code == 401:
                    raise
                self.nonce = error.message.get(Attribute.NONCE) or b""
                transaction = secrets.token_bytes(12)
        raise AssertionError("the second time returns or raises")

    def _ask(
        self, method: int, attributes: Any, transaction: bytes, *, sealed: bool, sha256: bool = False
    ) -> Message:
        key = None
        if sealed and self.nonce:
            key = long_term_key(self.username, self.realm, self.password)
            attributes = [
                *attributes,
                (Attribute.USERNAME, self.username.encode()),
                (Attribute.REALM, self.realm.encode()),
                (Attribute.NONCE, self.nonce),
            ]
        request = write_message(method, Class.REQUEST, transaction, attributes, key=key, sha256=sha256)
        frame = self._exchange(request)
        message = parse_message(frame)
        if message.kind == Class.ERROR:
            raise TurnError(message)
        assert key is None or message.proves(key), "the answer is not sealed with our key"
        return message

    def _exchange(self, request: bytes) -> bytes:
        """The answer. Over UDP the question is put again each half second (RFC 8489 section 6.2.1)."""
        patience_s = self.sock.gettimeout()
        tries = 1
        if self.kind == "udp":
            self.sock.settimeout(0.5)
            tries = 30
        try:
            for _ in range(tries):
                self.sock.sendall(request)
                with contextlib.suppress(TimeoutError):
                    while True:
                        frame = self.receive()
                        if frame[0] < 0x40 and frame[8:20] == request[8:20]:
                            return frame
        finally:
            self.sock.settimeout(patience_s)
        raise TimeoutError("the relay does not answer")

    def allocate(self, *attributes: tuple[int, bytes]) -> Peer:
        """The (first) relayed address."""
        answer = self.request(Method.ALLOCATE, UDP, *attributes)
        value = answer.get(Attribute.XOR_RELAYED_ADDRESS)
        assert value is not None
        return read_address(value, answer.transaction)

    def permit(self, *peers: Peer) -> None:
        transaction = secrets.token_bytes(12)
        values = [(Attribute.XOR_PEER_ADDRESS, write_address(peer, transaction)) for peer in peers]
        self.request(Method.CREATE_PERMISSION, *values, transaction=transaction)

    def bind(self, number: int, peer: Peer) -> None:
        transaction = secrets.token_bytes(12)
        self.request(
            Method.CHANNEL_BIND,
            (Attribute.CHANNEL_NUMBER, number.to_bytes(2, "big") + bytes(2)),
            (Attribute.XOR_PEER_ADDRESS, write_address(peer, transaction)),
            transaction=transaction,
        )

    def refresh(self, lifetime_s: int, *attributes: tuple[int, bytes]) -> int:
        answer = self.request(
            Method.REFRESH, (Attribute.LIFETIME, lifetime_s.to_bytes(4, "big")), *attributes
        )
        return int.from_bytes(answer.get(Attribute.LIFETIME) or b"", "big")
