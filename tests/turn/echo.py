"""A peer that sends everything back."""

from __future__ import annotations

import socket


class Echo:
    """``run`` until ``stop``; ``address`` is where it is."""

    def __init__(self, host: str) -> None:
        self._sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((host, 0))
        self.address: tuple[str, int] = self._sock.getsockname()[:2]

    def run(self) -> None:
        with self._sock:
            while True:
                data, source = self._sock.recvfrom(65_535)
                if data == b"stop" and source[1] == self.address[1]:
                    return
                self._sock.sendto(data, source)

    def stop(self) -> None:
        self._sock.sendto(b"stop", self.address)
