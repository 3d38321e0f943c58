"""Bodies of strangers: limits, JSON that is none, and no 500 whatever is sent."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixer.errors import BadRequest, InvalidBody
from mixer.http.app import ROUTES
from mixer.http.bodies import MAX_JSON_BYTES, MAX_SDP_BYTES, parse_json
from tests.mixer.http.site import ADMIN_TOKEN, SDP, Site

NOT_JSON = [
    b"{", b"", b"nope", b"{'a': 1}", b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"name": NaN}', b'{"name": Infinity}',
    b'{"a": 1e999}', b'{"name": "a", "name": "b"}', b"[" * 100_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b"[" * 40 + b"]" * 40, b'{"a": ' + b"9" * 5000 + b"}", b"{} {}", b"\x00",
]  # fmt: skip
NO_TEXT = [
    b'{"name": "a\\u0000"}',
    b'{"name": "\\ud800"}',
    b'{"\\u0000": 1}',
    b'{"layout": {"regions": ["\\udfff"]}}',
]


@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
async def test_what_is_not_json_is_400(site: Site, body: bytes) -> None:
    for content_type in ("application/json", "text/plain"):
        await site.refused(400, "POST", "/v1/rooms", data=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize("body", NO_TEXT)
async def test_what_no_text_can_hold_is_422(site: Site, body: bytes) -> None:
    problem = await site.refused(422, "POST", "/v1/rooms", data=body)
    assert problem["errors"]


async def test_limits_are_exact(site: Site) -> None:
    fits = json.dumps({"name": "big"}).encode().ljust(MAX_JSON_BYTES)
    await site.ok("POST", "/v1/rooms", data=fits, status=201)
    await site.refused(413, "POST", "/v1/rooms", data=fits + b" ")
    sdp = b"v=0\r\n".ljust(MAX_SDP_BYTES)
    assert (await site.ask("POST", "/whip/demo", data=sdp, headers=SDP)).status == 201
    await site.refused(413, "POST", "/whip/demo", data=sdp + b" ", headers=SDP)


async def test_a_body_that_does_not_say_its_length_is_limited_too(site: Site) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 65536

    await site.refused(413, "POST", "/v1/rooms", data=endless())


async def test_a_compressed_bomb_is_413_and_a_broken_one_400(site: Site) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    await site.refused(413, "POST", "/v1/rooms", data=gzip.compress(b" " * 50_000_000), headers=headers)
    await site.refused(400, "POST", "/v1/rooms", data=b"no gzip", headers=headers)


def head(length: int) -> bytes:
    """The head of a POST that promises ``length`` bytes."""
    lines = (
        "POST /v1/rooms HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {ADMIN_TOKEN}",
        f"Content-Length: {length}",
    )
    return "\r\n".join((*lines, "", "")).encode()


async def test_a_413_is_settled_before_the_body_is_sent(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.client.port)
    writer.write(head(999999999))
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_a_client_that_leaves_in_the_middle_harms_nobody(site: Site) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.client.port)
    writer.write(head(99) + b"{")
    await writer.drain()
    writer.close()
    await site.ok("GET", "/v1/rooms")


# --- fuzz --------------------------------------------------------------------------------------------------

texts = st.text(max_size=20) | st.sampled_from(
    ["name", "role", "preset", "regions", "demo", "custom", "\x00", "\ud800"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=12,
)
FIELDS = [
    "name",
    "layout",
    "pin",
    "record",
    "language",
    "role",
    "sub",
    "ttl",
    "preset",
    "canvas",
    "regions",
    "pins",
    "version",
    "muted",
    "volume",
    "hand",
    "state",
    "tracks",
    "note",
    "max_tiles",
    "moderator_pin",
    "max_participants",
]
bodies = st.binary(max_size=80) | st.one_of(
    values, st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
).map(lambda value: json.dumps(value).encode())


@given(bodies)
def test_the_parser_raises_nothing_else(raw: bytes) -> None:
    with contextlib.suppress(BadRequest, InvalidBody):
        json.dumps(parse_json(raw), allow_nan=False).encode()


async def test_no_body_makes_a_500(tmp_path: Path) -> None:
    site = await Site(tmp_path).start()
    loop = asyncio.get_running_loop()
    routes = [r for r in site.app[ROUTES] if r.method in {"POST", "PUT", "PATCH"}]

    async def send(raw: bytes, index: int) -> None:
        route = routes[index % len(routes)]
        path = route.template.format(room="demo", id=site.archived, session="x")
        kind = next(iter(route.body), "application/json")
        response = await site.ask(route.method, path, data=raw, headers={"Content-Type": kind})
        assert response.status < 500, (route.method, path, raw)

    def run() -> None:
        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(bodies, st.integers(0, len(routes) - 1))
        def check(raw: bytes, index: int) -> None:
            asyncio.run_coroutine_threadsafe(send(raw, index), loop).result(10)

        check()

    await asyncio.to_thread(run)
    await site.stop()


@pytest.mark.parametrize(
    "path",
    ["/v1/rooms/%F0%28%8C%28", "/v1/rooms/%00", "/v1/rooms/a%2Fb", "/%2e%2e/%2e%2e/etc", "/v1/" + "x" * 7000],
)
async def test_no_path_makes_a_500(site: Site, path: str) -> None:
    await site.refused(404, "GET", path)


@pytest.mark.parametrize(
    "name",
    ["Range", "If-Match", "If-None-Match", "If-Range", "Accept", "Last-Event-ID", "Content-Type", "Cookie"],
)
async def test_no_header_makes_a_500(site: Site, name: str) -> None:
    strange: list[Any] = [
        "",
        "é" * 50,
        "9" * 5000,
        '"',
        "*",
        "bytes=" + "9" * 3000 + "-",
        ";;;=,,,",
        "\u0663",
    ]
    for value in strange:
        for method, path in (
            ("GET", f"/v1/recordings/{site.archived}/media"),
            ("POST", "/v1/rooms/demo/layout/preview"),
            ("HEAD", "/"),
            ("POST", "/whip/demo"),
            ("GET", "/v1/rooms/nowhere"),
        ):
            assert (await site.ask(method, path, headers={name: value})).status < 500, (path, value)
