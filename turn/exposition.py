"""Counters for Prometheus, on the loopback, when a relay runs alone. Edge."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Final

from turn.control import Metrics
from turn.reactor import Reactor
from turn.sockets import listener

_OPEN_AT_ONCE: Final = 8


class Exposition:
    """Answers whatever is asked over HTTP with the counters. Raises ``OSError`` when the port can't be had."""

    def __init__(self, port: int, metrics: Callable[[], Metrics], reactor: Reactor) -> None:
        self._metrics = metrics
        self._reactor = reactor
        self._open: list[socket.socket] = []
        self._door = listener("127.0.0.1", port)
        reactor.add(self._door.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._door.accept()
        except OSError:
            return
        if len(self._open) >= _OPEN_AT_ONCE:
            self._close(self._open[0])
        sock.setblocking(False)
        self._open.append(sock)
        self._reactor.add(sock.fileno(), lambda: self._answer(sock))

    def _answer(self, sock: socket.socket) -> None:
        body = exposition(self._metrics()).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
        )
        with contextlib.suppress(OSError):
            if sock.recv(65_536):
                sock.send(head.encode() + b"Connection: close\r\n\r\n" + body)
        self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._open.remove(sock)
        self._reactor.remove(sock.fileno())
        sock.close()


def exposition(metrics: Metrics) -> str:
    """The text format, version 0.0.4."""
    rows = ["# TYPE turn_allocations gauge", f"turn_allocations {metrics.allocations}"]
    for name, label, counts in (
        ("turn_packets_total", "direction", metrics.packets),
        ("turn_bytes_total", "direction", metrics.bytes),
        ("turn_drops_total", "reason", metrics.drops),
        ("turn_refusals_total", "reason", metrics.refusals),
    ):
        rows.append(f"# TYPE {name} counter")
        rows += [f'{name}{{{label}="{key}"}} {count}' for key, count in sorted(counts.items())]
    return "\n".join(rows) + "\n"
