"""A running application for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.mixer.http.site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    running = await Site(tmp_path).start()
    yield running
    await running.stop()
