"""The words between a relay and the process that started it: one JSON object a line, both ways. Pure.

To the relay: ``Peers``, ``End``, ``Revoke``, ``Secrets``, ``Drain``. From it: ``Listening`` (once, when every socket
is bound), ``Metrics`` (once a second), ``Ended`` (a subject's last allocation is gone). A parent that dies closes the
socket, and the relay ends with it.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from turn.policy import Peer

MAX_LINE_BYTES: Final = (
    1 << 20
)  # 500 allocations' worth of peers take 40 kB; a longer line is not from our parent


class BadWord(ValueError):
    """A line that is no word of this protocol; the message says what was expected. Never holds a secret."""


@dataclass(frozen=True, slots=True)
class Peers:
    """Live media sockets that came and went. ``add``: each with where traffic for it goes (mostly itself).

    On the wire an entry of ``add`` is ``["ip", port]`` or ``["public ip", port, "local ip", port]``, one of
    ``remove`` ``["ip", port]`` (the first two of a longer one count).
    """

    add: tuple[tuple[Peer, Peer], ...] = ()
    remove: tuple[Peer, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """These participants have left: their allocations end now."""

    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revoke:
    """These participants were put out: credentials of theirs that expire at ``until`` (Unix seconds, by subject) or
    earlier make no allocation any more. Later ones, which they are given if they may come back, do.
    """

    until: Mapping[str, int]


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """The secrets that credentials may be made with from now on. Out of ``repr`` on purpose."""

    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """No new allocation; end when the last one has, or when asked again."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where clients may come: transport (``udp``, ``tcp``, ``tls``), address, port."""

    sockets: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counters since the start, but ``allocations``, which is how many there are now.

    ``packets`` and ``bytes``: relayed, by direction (``to_peer``, ``to_client``). ``drops``, ``refusals``: by reason.
    """

    allocations: int
    packets: Mapping[str, int] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """The last allocation of a subject is gone."""

    subject: str


ToRelay = Peers | End | Revoke | Secrets | Drain
FromRelay = Listening | Metrics | Ended


def write_word(word: ToRelay | FromRelay) -> bytes:
    """The line of a word, with its end."""
    body: dict[str, Any]
    if isinstance(word, Peers):
        body = {
            "add": [[*peer] if peer == target else [*peer, *target] for peer, target in word.add],
            "remove": [[*peer] for peer in word.remove],
        }
    else:
        body = asdict(word)
    return json.dumps({"word": type(word).__name__.lower(), **body}, separators=(",", ":")).encode() + b"\n"


def parse_word(line: bytes | str) -> ToRelay | FromRelay:
    """One line, either way. Raises ``BadWord``."""
    try:
        body = json.loads(line)
    except ValueError:
        raise BadWord("a control word is one JSON object a line") from None
    if not isinstance(body, dict):
        raise BadWord("a control word is one JSON object a line")
    word = str(body.get("word"))
    parse = _PARSERS.get(word)
    if parse is None:
        raise BadWord(f"no such control word; there are {', '.join(_PARSERS)}")
    try:
        return parse(body)
    except (KeyError, TypeError, ValueError):
        raise BadWord(f"the control word {word!r} lacks a field or has a bad one") from None


def _peer(entry: Any) -> Peer:
    address, port = entry[:2]
    if not isinstance(address, str) or type(port) is not int or not 0 < port < 65_536:
        raise ValueError("a peer is [address, port]")
    return str(ipaddress.ip_address(address)), port  # as every address is written here: text is compared


def _added(entry: Any) -> tuple[Peer, Peer]:
    if len(entry) not in {2, 4}:
        raise ValueError("a peer is [address, port], or that and where it really is")
    peer = _peer(entry)
    return peer, peer if len(entry) == 2 else _peer(entry[2:])


def _strings(entries: Any) -> tuple[str, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise TypeError("a list of strings")
    return tuple(entries)


def _times(entries: Any) -> dict[str, int]:
    if not isinstance(entries, dict) or not all(type(time) is int for time in entries.values()):
        raise TypeError("Unix seconds by subject")
    return entries


def _counts(entries: Any) -> dict[str, int]:
    return {str(name): int(count) for name, count in entries.items()}


_PARSERS: Final[Mapping[str, Callable[[dict[str, Any]], ToRelay | FromRelay]]] = {
    "peers": lambda body: Peers(
        tuple(_added(entry) for entry in body.get("add", ())),
        tuple(_peer(entry) for entry in body.get("remove", ())),
    ),
    "end": lambda body: End(_strings(body["subjects"])),
    "revoke": lambda body: Revoke(_times(body["until"])),
    "secrets": lambda body: Secrets(_strings(body["secrets"])),
    "drain": lambda body: Drain(),
    "listening": lambda body: Listening(
        tuple((str(kind), str(address), int(port)) for kind, address, port in body["sockets"])
    ),
    "metrics": lambda body: Metrics(
        int(body["allocations"]), *(_counts(body[name]) for name in ("packets", "bytes", "drops", "refusals"))
    ),
    "ended": lambda body: Ended(str(body["subject"])),
}
