"""aioice as a client: another implementation of TURN than ours and coturn's."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

import aioice.turn
import pytest

from tests.turn.echo import Echo
from tests.turn.running import SECRET, Running
from turn.credentials import issue


class _Sink(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.came: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self.gone = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.came.put_nowait((data, addr))


@pytest.mark.parametrize(("transport", "tls"), [("udp", False), ("tcp", False), ("tcp", True)])
async def test_data_goes_and_comes(relay: Running, echo: Echo, transport: str, tls: bool) -> None:
    credential = issue("aioice", SECRET, now_s=time.time(), ttl_s=600)
    context: Any = False
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    made, protocol = await aioice.turn.create_turn_endpoint(
        _Sink,
        server_addr=("127.0.0.1", relay.tls_port if tls else relay.port),
        username=credential.username,
        password=credential.password,
        lifetime=600,
        ssl=context,
        transport=transport,
    )
    assert isinstance(protocol, _Sink)
    for size in (1, 3, 1200):
        made.sendto(b"x" * size, echo.address)
        data, source = await asyncio.wait_for(protocol.came.get(), 60)
        assert data == b"x" * size
        assert tuple(source) == echo.address
    made.close()
    await asyncio.wait_for(protocol.gone.wait(), 60)
