"""A relay that relays nothing: it takes its configuration, says where it listens, and writes down what it is told.

    python tests/fakes/relay.py NOTES [--fail] --config - --control-fd N

One JSON object a line in NOTES: the configuration, each word, and ``{"word": "alone"}`` once the parent has closed the
connection.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

notes = Path(sys.argv[1]).open("a", buffering=1)  # noqa: SIM115 - open as long as the process lives


def note(line: str) -> None:
    notes.write(line.strip() + "\n")


note(sys.stdin.read())
if "--fail" in sys.argv:
    print("the reason stands here", file=sys.stderr)
    raise SystemExit(3)
control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
counts = {
    "packets": {"to_peer": 7},
    "bytes": {"to_peer": 700},
    "drops": {"no_permission": 3},
    "refusals": {"403": 2},
}
for told in (
    {"word": "listening", "sockets": [["udp", "127.0.0.1", 1], ["tls", "127.0.0.1", 2]]},
    {"word": "metrics", "allocations": 5, **counts},
):
    control.sendall(json.dumps(told).encode() + b"\n")
for word in control.makefile("r"):
    note(word)
note('{"word": "alone"}')
