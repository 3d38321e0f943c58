"""One real server for all tests with real peers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``mosaique serve`` on the loopback; its log is in the message when it does not end cleanly."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running
