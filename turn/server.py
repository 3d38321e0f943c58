"""The edge."""

from __future__ import annotations

import socket

from turn.settings import Settings


def run(settings: Settings, control: socket.socket | None) -> int:
    """Serve until told to end."""
    raise NotImplementedError
