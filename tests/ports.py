"""Ports for programs that are told one and bind it a second later."""

from __future__ import annotations

import random
import socket
from typing import Final

# Below what Linux gives to whoever asks for no port in particular (net.ipv4.ip_local_port_range, 32768 and up): in
# that second nobody is given it by chance, be it the source port of another test's request.
_RANGE: Final = range(12_000, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """One of 127.0.0.1 that neither UDP nor TCP has taken; each is given once a process."""
    while True:
        port = random.choice(_RANGE)
        if port in _given:
            continue
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
