"""The shaper between a client and a server that answer with no more than sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes.netem import HEADERS_BYTES
from tests.shaper import CONTROL, Shaper, Way, bursts, running, shaping

OFFER = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"


class Echo(asyncio.DatagramProtocol):
    """The server's media port: sends everything back, and remembers from where it came."""

    def __init__(self) -> None:
        self.sources: set[tuple[str, int]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport  # 3.11's is no DatagramTransport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.sources.add(addr)
        self.transport.sendto(data, addr)


class Site:
    """A server of WHEP that has one media port and knows one page."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.offers: list[str] = []
        self.fragments: list[str] = []
        self.url = ""
        self.port = 0

    async def whep(self, request: web.Request) -> web.Response:
        self.offers.append(await request.text())
        assert request.headers["Authorization"] == "Bearer secret"
        answer = (
            f"v=0\r\nm=audio {self.port} UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 127.0.0.1\r\na=ice-pwd:{'p' * 24}\r\n"
            f"a=candidate:1 1 udp 2130706431 127.0.0.1 {self.port} typ host\r\n"
            f"a=candidate:2 1 udp 2130706430 192.0.2.1 {self.port} typ host\r\na=end-of-candidates\r\n"
            "m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\n"
        )
        location = f"/whep/demo/session{len(self.offers)}"
        return web.Response(
            status=201, text=answer, content_type="application/sdp", headers={"Location": location}
        )

    async def patch(self, request: web.Request) -> web.Response:
        self.fragments.append(await request.text())
        return web.Response(status=204)

    async def hang_up(self, _: web.Request) -> web.Response:
        return web.Response()

    async def page(self, request: web.Request) -> web.Response:
        return web.json_response({"path": request.path_qs, "host": request.host})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: site.echo, local_addr=("127.0.0.1", 0))
    site.port = transport.get_extra_info("sockname")[1]
    app = web.Application()
    app.router.add_post("/whep/demo", site.whep)
    app.router.add_patch("/whep/demo/{session}", site.patch)
    app.router.add_delete("/whep/demo/{session}", site.hang_up)
    app.router.add_get("/r/{rest}", site.page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield site
    await runner.cleanup()
    transport.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def join(http: aiohttp.ClientSession, shaper: Shaper, candidates: str = "") -> tuple[str, int]:
    """A session; the port that the answer names."""
    offer = f"{OFFER}{candidates}a=end-of-candidates\r\n"
    headers = {"Content-Type": "application/sdp", "Authorization": "Bearer secret"}
    async with http.post(f"{shaper.url}/whep/demo", data=offer, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        text = await answer.text()
        rows = [row for row in text.split("\r\n") if row.startswith("a=candidate")]
        assert len(rows) == 1, text
        port = int(rows[0].split()[5])
        assert f"m=audio {port} UDP" in text
        assert "m=video 0 UDP" in text  # what was refused stays refused
        assert f"a=ice-pwd:{'p' * 24}" in text
        return answer.headers["Location"], port


def _candidates(sdp: str) -> list[tuple[str, int]]:
    rows = [row.split() for row in sdp.splitlines() if row.startswith("a=candidate")]
    return [(row[4], int(row[5])) for row in rows]


class Client:
    """One socket of a client that sends to ``port``; None: to be connected later."""

    def __init__(self, port: int | None) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind(("127.0.0.1", 0))
        if port is not None:
            self.sock.connect(("127.0.0.1", port))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, count: int, size: int = 100) -> None:
        for number in range(count):
            self.sock.send(number.to_bytes(2, "big") + bytes(size - 2))

    async def receive(self, count: int, timeout_s: float = 10.0) -> list[int]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            return [int.from_bytes((await loop.sock_recv(self.sock, 2048))[:2], "big") for _ in range(count)]


async def test_media_goes_through_and_each_client_has_its_own_source(
    site: Site, http: aiohttp.ClientSession
) -> None:
    async with running(site.url, seed=1) as shaper:
        (_, first), (_, second) = await join(http, shaper), await join(http, shaper)
        assert first != second
        assert site.port not in {first, second}
        for port in (first, first, second):
            with Client(port) as client:
                client.send(20)
                assert await client.receive(20) == list(range(20))
        assert len(site.echo.sources) == 3  # two addresses of one session, one of the other


async def test_the_server_calls_the_client_by_the_shaper(site: Site, http: aiohttp.ClientSession) -> None:
    """What the server sends to a candidate of the client comes from where the client sends to, and back."""
    async with running(site.url, seed=1) as shaper:
        with Client(None) as client:
            host, port = client.sock.getsockname()
            location, front = await join(http, shaper, f"a=candidate:1 1 udp 9 {host} {port} typ host\r\n")
            told = _candidates(site.offers[0])
            assert len(told) == 1
            assert told[0] != (host, port)
            site.echo.transport.sendto(b"\x00\x07hello", told[0])
            assert await client.receive(1) == [7]
            client.sock.connect(("127.0.0.1", front))
            client.send(3)
            assert await client.receive(3) == [0, 1, 2]
            assert site.echo.sources == {told[0]}
            late = (
                f"a=ice-ufrag:abcd\r\na=candidate:1 1 udp 1 {host} {port} typ srflx raddr 0.0.0.0 rport 0\r\n"
            )
            headers = {"Content-Type": "application/trickle-ice-sdpfrag"}
            async with http.patch(f"{shaper.url}{location}", data=late, headers=headers) as answer:
                assert answer.status == 204
            assert _candidates(site.fragments[0]) == told  # the same address has the same socket


async def test_candidates_that_nobody_stands_in_for_are_left_out(
    site: Site, http: aiohttp.ClientSession
) -> None:
    others = (
        "a=candidate:1 1 udp 9 f2a1.local 5000 typ host\r\na=candidate:2 1 udp 9 2001:db8::1 5000 typ host\r\n"
        "a=candidate:3 1 TCP 9 192.0.2.1 9 typ host tcptype active\r\n"
        "a=candidate:4 2 UDP 9 192.0.2.1 7 typ host\r\n"
    )
    async with running(site.url, seed=1) as shaper:
        await join(http, shaper, others)
    assert "a=candidate" not in site.offers[0]
    assert "a=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=end-of-candidates\r\n" in site.offers[0]


async def test_a_line_is_changed_while_it_runs_each_way_by_itself(
    site: Site, http: aiohttp.ClientSession
) -> None:
    async with running(site.url, seed=5, up=Way(loss=1.0)) as shaper:
        location, port = await join(http, shaper)
        session = location.rsplit("/", 1)[-1]
        with Client(port) as client:
            client.send(50)
            await _until(shaper, http, session, "up", "lost", 50)
            shaper.shape(session=session, up=Way(loss=0.5))
            client.send(200)  # as many as the kernel keeps for a socket that nobody reads
            found = await _until(shaper, http, session, "up", "packets", 250)
            lost = found["up"]["lost"] - 50
            assert 60 <= lost <= 140
            assert len(await client.receive(200 - lost)) == 200 - lost
            shaper.shape(up=Way(), down=Way(delay_s=0.2, rate_bps=800_000, queue_bytes=10_000))
            started = asyncio.get_running_loop().time()
            client.send(40, 500 - HEADERS_BYTES)  # 20 kB: half finds no room
            found = await _until(shaper, http, session, "down", "packets", 240 - lost)
            overflowed = found["down"]["overflowed"]
            assert 15 <= overflowed <= 20
            await client.receive(40 - overflowed)
            # 10 kB at 100 kB/s, and the delay; the upper end is for a busy machine
            assert 0.28 <= asyncio.get_running_loop().time() - started <= 5
        with pytest.raises(KeyError):
            shaper.shape(session="nobody", up=Way())


async def _until(
    shaper: Shaper, http: aiohttp.ClientSession, session: str, way: str, counter: str, least: int
) -> dict[str, dict[str, int]]:
    async with asyncio.timeout(60):
        while True:
            async with http.get(shaper.url + CONTROL) as answer:
                found: dict[str, dict[str, int]] = (await answer.json())[session]
            if found[way][counter] >= least:
                return found


async def test_pages_pass_as_of_one_origin(site: Site, http: aiohttp.ClientSession) -> None:
    async with running(site.url, seed=1) as shaper, http.get(f"{shaper.url}/r/a?b=%20c") as answer:
        assert await answer.json() == {
            "path": "/r/a?b=%20c",
            "host": shaper.url.removeprefix("http://"),
        }


async def test_an_ended_session_leaves_no_line(site: Site, http: aiohttp.ClientSession) -> None:
    async with running(site.url, seed=1) as shaper:
        location, _ = await join(http, shaper)
        async with http.delete(f"{shaper.url}{location}") as answer:
            assert answer.status == 200
        async with http.get(shaper.url + CONTROL) as answer:
            assert await answer.json() == {}


async def test_a_process_of_its_own(site: Site, http: aiohttp.ClientSession) -> None:
    def start_and_ask() -> tuple[str, dict[str, object]]:
        with shaping(site.url, seed=2, up=Way(burst=bursts(0.5))) as remote:
            with pytest.raises(OSError, match="404"):
                remote.shape(session="nobody", down=Way())
            return remote.url, remote.lines()

    url, lines = await asyncio.to_thread(start_and_ask)
    assert url.startswith("http://127.0.0.1:")
    assert lines == {}
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.get(url)


def test_bursts_have_the_share_that_was_asked_for() -> None:
    assert json.loads(json.dumps(bursts(0.05).end)) == pytest.approx(0.2)
    burst = bursts(0.05)
    assert burst.begin / (burst.begin + burst.end) == pytest.approx(0.05, rel=0.06)
