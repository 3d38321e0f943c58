"""Load for a relay, in a process of its own: ``python -m tests.bench.turn_load`` answers on its standard input.

One loop that never sleeps sends each packet when it is due, evenly, and reads whatever has come in between. Each packet
carries when it was sent. So what it measures is the relay's and the kernel's, with a few microseconds of its own.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from typing import Any

from tests.turn.client import TurnClient

CHANNEL = 0x4000
_STAMP = struct.Struct("!Q")
_DRAIN_S = 0.5


class Load:
    """``count`` allocations of ``count`` clients, each with a peer of its own and a channel to it."""

    def __init__(self, port: int, kind: str, count: int, size: int) -> None:
        self.kind, self.size = kind, size
        self.clients: list[TurnClient] = []
        self.peers: list[socket.socket] = []
        for number in range(count):
            client = TurnClient(("127.0.0.1", port), kind=kind, subject=f"load{number}")
            peer = socket.socket(type=socket.SOCK_DGRAM)
            peer.bind(("127.0.0.1", 0))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            relayed = client.allocate()
            client.bind(CHANNEL, peer.getsockname())
            peer.connect(relayed)
            for sock in (client.sock, peer):
                sock.setblocking(False)
            self.clients.append(client)
            self.peers.append(peer)

    def run(self, way: str, pps: int, seconds: float) -> dict[str, Any]:
        """``way``: to_peer, to_client, or direct (peer to peer beside the relay, for the latency without it)."""
        total = int(pps * seconds)
        senders, sinks, head = self._ends(way)
        poll = select.epoll()
        read = {}
        for sink in sinks:
            poll.register(sink.fileno(), select.EPOLLIN)
            read[sink.fileno()] = sink
        payload = bytearray(head + bytes(self.size))
        at = len(head)
        clock = time.perf_counter_ns
        sends = [sender.send for sender in senders]
        latencies: list[int] = []
        received = 0
        chunk = bytearray(65_536)
        frame = self.size + (4 if way == "to_client" else 0)
        start, gap = clock() + 1_000_000, 1e9 / pps
        sent = blocked = 0
        end = start + int((seconds + _DRAIN_S) * 1e9)
        while (now := clock()) < end:
            if sent < total and now >= start + sent * gap:
                _STAMP.pack_into(payload, at, clock())
                try:
                    sends[sent % len(sends)](payload)
                except (BlockingIOError, ConnectionRefusedError):
                    blocked += 1
                sent += 1
                if sent % 8 and pps > 20_000:
                    continue  # at such rates not every packet is followed by a look
            for descriptor, _ in poll.poll(0):
                try:
                    size = read[descriptor].recv_into(chunk)
                except OSError:
                    continue
                count = max(1, size // frame)
                received += count
                latencies.append(clock() - _STAMP.unpack_from(chunk, 4 if way == "to_client" else 0)[0])
            if sent >= total and received >= total:
                break
        latencies.sort()
        return {
            "sent": sent - blocked,
            "received": received,
            "p50_ms": latencies[len(latencies) // 2] / 1e6 if latencies else None,
            "p99_ms": latencies[len(latencies) * 99 // 100] / 1e6 if latencies else None,
        }

    def _ends(self, way: str) -> tuple[list[Any], list[Any], bytes]:
        if way == "to_peer":
            return (
                [client.sock for client in self.clients],
                list(self.peers),
                struct.pack("!HH", CHANNEL, self.size),
            )
        if way == "to_client":
            return list(self.peers), [client.sock for client in self.clients], b""
        ends = []
        for _ in self.peers:
            one, other = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
            for sock in (one, other):
                sock.bind(("127.0.0.1", 0))
            one.connect(other.getsockname())
            other.setblocking(False)
            ends.append((one, other))
        return [one for one, _ in ends], [other for _, other in ends], b""


def main() -> None:
    """One JSON object a line, both ways."""
    load: Load | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if "port" in command:
            load = Load(**command)
            answer: dict[str, Any] = {"ready": True}
        else:
            assert load is not None
            answer = load.run(**command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
