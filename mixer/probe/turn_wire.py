"""The probe's way to a relay: STUN messages and ChannelData over UDP, TCP or TLS. An edge, nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from dataclasses import dataclass
from typing import Final, Literal

from mixer.errors import ConfigError
from turn.message import MalformedMessage, frame_bytes

Transport = Literal["udp", "tcp", "tls"]
Address = tuple[str, int]

CONNECT_S: Final = 5.0
MAX_WAITING: Final = 256  # messages not yet read; a relay that floods its prober loses the rest
_URL: Final = re.compile(
    r"(turns?):(\[[0-9A-Fa-f:.]+\]|[^\s?,<>\"/:\[\]]+)(?::([0-9]{1,5}))?(?:\?transport=(udp|tcp))?"
)


@dataclass(frozen=True, slots=True)
class Target:
    """One TURN URL (RFC 7065). ``str`` gives it back in full."""

    transport: Transport
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme, transport = ("turns", "tcp") if self.transport == "tls" else ("turn", self.transport)
        return f"{scheme}:{host}:{self.port}?transport={transport}"


def parse_url(text: str) -> Target:
    """Raises ``ConfigError`` for what is no TURN URL, and for TURN over DTLS, which we don't speak."""
    match = _URL.fullmatch(text.strip())
    if match is None or not 0 < int(match[3] or 1) <= 65535:
        raise ConfigError(
            f"--turn takes turn:HOST[:PORT][?transport=udp|tcp] or turns:HOST[:PORT]; {text!r} is neither"
        )
    scheme, host, port, transport = match.groups()
    if scheme == "turns" and transport == "udp":
        raise ConfigError("--turn: TURN over DTLS is not spoken here; browsers don't either")
    kind: Transport = "tls" if scheme == "turns" else ("tcp" if transport == "tcp" else "udp")
    return Target(kind, host.strip("[]"), int(port or (5349 if kind == "tls" else 3478)))


class Wire:
    """An open way to the relay. ``local``: our address as the system sees it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.local: Address = ("", 0)
        self.dropped = 0
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)
        self._udp: asyncio.DatagramTransport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None

    async def open(self, *, trust: ssl.SSLContext | None = None) -> None:
        """Raises ``OSError`` (``TimeoutError`` and TLS's own errors among them) when there is no way."""
        host, port = self.target.host, self.target.port
        if self.target.transport == "udp":
            loop = asyncio.get_running_loop()
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), remote_addr=(host, port)
            )
            self.local = self._udp.get_extra_info("sockname")[:2]
            return
        context = (trust or ssl.create_default_context()) if self.target.transport == "tls" else None
        if context is not None:
            context.set_alpn_protocols(["stun.turn"])  # RFC 7443
        async with asyncio.timeout(CONNECT_S):
            reader, self._writer = await asyncio.open_connection(host, port, ssl=context)
        self.local = self._writer.get_extra_info("sockname")[:2]
        self._reader = asyncio.create_task(self._read(reader), name=f"probe {self.target}")

    async def close(self) -> None:
        """Idempotent."""
        if self._udp is not None:
            self._udp.close()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    @property
    def is_reliable(self) -> bool:
        """Whether what is sent arrives without being sent again."""
        return self.target.transport != "udp"

    def send(self, message: bytes) -> None:
        """One STUN message, or one ChannelData message, which a stream pads to four bytes (RFC 8656 section 12.5)."""
        if self._udp is not None:
            self._udp.sendto(message)
        elif self._writer is not None:
            self._writer.write(message + bytes(-len(message) % 4))

    async def receive(self) -> bytes:
        """The next message. Raises ``ConnectionError`` when the relay has closed the connection."""
        message = await self._waiting.get()
        if message is None:
            raise ConnectionResetError(f"{self.target} closed the connection")
        return message

    def _take(self, message: bytes | None) -> None:
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.dropped += 1

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, MalformedMessage):
            while True:
                head = await reader.readexactly(4)
                frame = head + await reader.readexactly(frame_bytes(head) - 4)
                # The padding of ChannelData is the stream's, not the message's (RFC 8656 section 12.5).
                self._take(frame if head[0] < 0x40 else frame[: 4 + int.from_bytes(head[2:4], "big")])
        self._take(None)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._wire._take(data)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error: nobody listens there. The request's timeout says so."""
