"""Stock clients never outlive their test, also when it fails; no fault of ours is swallowed by what isolates peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from tests.mixer.webrtc.support import hang_up_all

ISOLATED = {"a connection failed by a fault of ours", "a datagram could not be handled"}


@pytest_asyncio.fixture(autouse=True)
async def _clients() -> AsyncIterator[None]:
    yield
    await hang_up_all()


@pytest_asyncio.fixture(autouse=True)
async def _faults() -> AsyncIterator[None]:
    """A test that makes one on purpose has a handler of its own."""
    found: list[Any] = []

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context["message"] in ISOLATED:
            found.append(context["exception"])
        loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(handle)
    yield
    assert not found, "what isolates the peers of a room has caught these"
