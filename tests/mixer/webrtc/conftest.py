"""Stock clients never outlive their test, also when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.mixer.webrtc.support import hang_up_all


@pytest_asyncio.fixture(autouse=True)
async def _clients() -> AsyncIterator[None]:
    yield
    await hang_up_all()
