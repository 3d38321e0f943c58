"""What all tests share: the ``peer`` marker (a missing peer is a named skip here and a failure in CI); hypothesis
without its deadline, which a busy machine misses.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.peers.presence import PRESENT

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def _peers_present(request: pytest.FixtureRequest) -> None:
    """Skip by name what needs a program that this machine lacks; with CI=true that is a failure."""
    for marker in request.node.iter_markers("peer"):
        for name in marker.args:
            if name not in PRESENT:
                pytest.fail(f"unknown peer {name!r}; known: {', '.join(sorted(PRESENT))}")
            if PRESENT[name]():
                continue
            reason = f"peer missing: {name} (python -m tests.peers.install, as root, installs it)"
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(reason)
            pytest.skip(reason)
