"""One real server for all tests with real peers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.relays import Certificates, Relayed, certificates, relayed_server
from tests.serving import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``mosaique serve`` on the loopback; its log is in the message when it does not end cleanly."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and a server's certificate for 127.0.0.1 and localhost."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["embedded", pytest.param("coturn", marks=pytest.mark.peer("coturn"))])
def relayed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, made: Certificates
) -> Iterator[Relayed]:
    """A server with each of the relays."""
    with relayed_server(request.param, tmp_path_factory.mktemp(request.param), made) as running:
        yield running
