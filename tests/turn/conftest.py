"""One relay for the tests of this directory that need a real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.turn.echo import Echo
from tests.turn.running import Running, ours


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Ours, with the loopback named exactly and room for many clients of one name."""
    directory: Path = tmp_path_factory.mktemp("relay")
    options = ("--allow-peer", "127.0.0.1", "--allow-peer", "::1", "--user-quota", "400")
    with ours(directory, *options) as running:
        yield running
        assert "Traceback" not in (directory / "ours.log").read_text()


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A peer on 127.0.0.1 that sends everything back."""
    made = Echo("127.0.0.1")
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    yield made
    made.stop()
    thread.join(5)
