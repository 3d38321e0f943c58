"""A stranger who floods a UDP port: ``python -m tests.peers.flood HOST PORT SECONDS RATE FILE``.

In a process of its own. FILE holds datagrams of somebody's real session as lines of hex: they are sent again as they
are, cut, and with bits turned, from many ports, among empty ones, noise of every length and what looks like STUN,
DTLS and RTP. Prints how many were sent; one that the kernel would not take counts, for the flood does not wait.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import time
from pathlib import Path
from typing import Final

PORTS: Final = 16
BATCH_S: Final = 0.005
LENGTHS: Final = (0, 1, 2, 11, 12, 13, 19, 20, 100, 500, 1199, 1200, 1500, 1501, 1601, 2048, 9000, 65_507)
_HEADS: Final = (
    b"\x80\x60",
    b"\x80\xc9",
    b"\x00\x01\x00\x08\x21\x12\xa4\x42",
    b"\x16\xfe\xfd",
    b"\x17\xfe\xfd\x00\x01",
    b"\x40\x00",
    b"",
)


def datagram(chance: random.Random, real: list[bytes]) -> bytes:
    """The next thing to send."""
    kind = chance.randrange(5)
    if kind == 0 and real:
        return chance.choice(real)
    if kind == 1 and real:
        changed = bytearray(chance.choice(real))
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed[: chance.randrange(len(changed) + 1)])
    if kind == 2:
        return chance.choice(_HEADS) + chance.randbytes(chance.randrange(200))
    if kind == 3:
        return chance.randbytes(chance.randrange(1, 1500))
    return chance.choice(_HEADS)[:4] + bytes(max(0, chance.choice(LENGTHS) - 4))


def main() -> None:
    """Send, and say how many."""
    host, file = sys.argv[1], sys.argv[5]
    port, seconds, rate = int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    real = [bytes.fromhex(row) for row in Path(file).read_text().split()]
    chance = random.Random(1)
    # made beforehand: the flood is to cost the server its time, not this machine's other core
    ready = [datagram(chance, real) for _ in range(2000)]
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(PORTS)]
    for sock in sockets:
        sock.bind((host, 0))
        sock.setblocking(False)
    started, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < seconds:
        while sent < elapsed * rate:
            with contextlib.suppress(OSError):
                sockets[sent % PORTS].sendto(ready[sent % len(ready)], (host, port))
            sent += 1
        time.sleep(BATCH_S)
    print(sent)


if __name__ == "__main__":
    main()
