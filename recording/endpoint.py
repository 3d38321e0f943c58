"""From an endpoint's name to addresses that may be connected to."""

from __future__ import annotations

import socket

from recording.providers import Jurisdiction, check_address


def resolve(host: str, port: int, jurisdiction: Jurisdiction) -> list[str]:
    """Every address of ``host``, each allowed. Raises `EndpointRefused`, OSError (``socket.gaierror``)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        check_address(host, address, jurisdiction)
    return addresses
