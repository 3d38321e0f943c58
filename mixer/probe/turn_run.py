"""Runs every check against one relay, and asks it for each forbidden address."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from mixer.probe import turn_client as tc
from mixer.probe.turn_checks import CONFORMANCE, DISCARD, QUIET_S, Finding, Silent, Subject, Verdict
from mixer.probe.turn_client import Asker, Field, Login
from mixer.probe.turn_peers import ForbiddenPeer, forbidden
from mixer.probe.turn_wire import Address
from turn.message import Attribute, MalformedMessage, Method

PER_ALLOCATION: Final = 8  # permissions; relays grant ten and more
FIRST_CHANNEL: Final = 0x4000  # RFC 8656 section 12
SAFE_COTURN: Final = (4, 17)  # before it: CVE-2025-69217, CVE-2026-27624, CVE-2026-43994
_IPV6: Final[Field] = (Attribute.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")
_OLD_NONCE: Final = re.compile(rb"[0-9a-f]{16}")  # coturn 4.17 makes longer ones, which need no memory
_COTURN: Final = re.compile(r"[Cc]oturn-(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found at one URL. ``peers``: how many forbidden addresses were asked for."""

    url: str
    software: str | None
    findings: tuple[Finding, ...]
    peers: int

    @property
    def is_sound(self) -> bool:
        """Nothing failed, and nothing is open."""
        return not any(finding.verdict in {"failed", "open"} for finding in self.findings)


async def examine(subject: Subject) -> Report:
    """Ask everything. Raises ``OSError`` when the relay cannot be reached at all."""
    findings: list[Finding] = []
    for name, source, check in CONFORMANCE:
        try:
            verdict, detail = await check(subject)
        except ConnectionError as error:  # ``Silent`` is one
            if not findings:
                raise  # not even a Binding: there is nobody
            verdict, detail = "failed", str(error)
        except MalformedMessage as error:
            verdict, detail = "failed", f"an answer that is none: {error}"
        findings.append(Finding(name, source, verdict, detail))
        if name == "Allocate" and verdict == "failed":
            break
    peers = 0
    if findings[-1].name != "Allocate":
        findings += await _carries(subject)
        matrix = await _matrix(subject)
        peers = len(matrix)
        findings += matrix
    findings += _software(subject.software, subject.nonce)
    return Report(str(subject.target), subject.software, tuple(findings), peers)


def _software(software: str | None, nonce: bytes) -> list[Finding]:
    """A coturn with known holes, by what it says of itself, or by the shape of its nonces when it says nothing."""
    match = _COTURN.search(software or "")
    if match is not None and (int(match[1]), int(match[2])) < SAFE_COTURN:
        detail = (
            f"{software}: coturn before 4.17 has known holes; upgrade it, or keep to `mosaique turn-config`"
        )
    elif match is None and _OLD_NONCE.fullmatch(nonce):
        detail = "its nonces are those of coturn before 4.17, which has known holes; upgrade it if it is one"
    else:
        return []
    return [Finding("version of coturn", "CVE-2025-69217, CVE-2026-27624, CVE-2026-43994", "note", detail)]


# --- forbidden peers ----------------------------------------------------------------------------------------


async def _matrix(subject: Subject) -> list[Finding]:
    """One finding a forbidden address: refused, open, or meant to be open."""
    peers = forbidden(
        [subject.target.host, *subject.own] if _is_address(subject.target.host) else [*subject.own]
    )
    found: list[Finding] = []
    with_ipv6 = await _has_ipv6(subject)
    for version in (4, 6):
        of_version = [peer for peer in peers if peer.version == version]
        attributes = (_IPV6,) if version == 6 and with_ipv6 else ()
        for start in range(0, len(of_version), PER_ALLOCATION):
            batch = of_version[start : start + PER_ALLOCATION]
            async with subject.allocated(*attributes) as (asker, login, answer):
                if answer.error is not None:
                    found += [
                        _finding(subject, peer, "failed", f"not asked: Allocate gave {answer.says}")
                        for peer in batch
                    ]
                    continue
                for number, peer in enumerate(batch):
                    found.append(await _peer(subject, asker, login, peer, FIRST_CHANNEL + number))
    return found


async def _has_ipv6(subject: Subject) -> bool:
    async with subject.allocated(_IPV6) as (_, _, answer):
        return answer.error is None


async def _peer(subject: Subject, asker: Asker, login: Login, peer: ForbiddenPeer, channel: int) -> Finding:
    target = (Attribute.XOR_PEER_ADDRESS, (peer.ip, DISCARD))
    ways = (
        ("CreatePermission", Method.CREATE_PERMISSION, (target,)),
        (
            "ChannelBind",
            Method.CHANNEL_BIND,
            ((Attribute.CHANNEL_NUMBER, channel.to_bytes(2, "big") + bytes(2)), target),
        ),
    )
    said: list[str] = []
    granted: list[str] = []
    for name, method, attributes in ways:
        try:
            answer = await subject.asked(asker, login, method, *attributes)
        except (Silent, MalformedMessage) as error:
            said.append(f"{name}: {error}")
            continue
        said.append(f"{name}: {answer.says}")
        if answer.error is None:
            granted.append(name)
    if granted == ["CreatePermission"] and peer.ip in subject.own:
        return await _own_address(subject, asker, peer)
    if granted:
        return _finding(subject, peer, "open", f"granted by {' and '.join(granted)}")
    return _finding(subject, peer, "ok", ", ".join(said))


async def _own_address(subject: Subject, asker: Asker, peer: ForbiddenPeer) -> Finding:
    """Media may live beside the relay. A permission knows no port (RFC 8656 section 9), so it is granted; what counts
    is that no other port is reached, which can be seen from the same machine only."""
    delivered = await _delivered(asker, peer.ip)
    if delivered:
        return _finding(subject, peer, "open", "granted by CreatePermission, and a port of ours was reached")
    seen = "cannot be seen from here" if delivered is None else "a port of ours was not reached"
    return _finding(subject, peer, "note", f"granted by CreatePermission, refused by ChannelBind; {seen}")


async def _delivered(asker: Asker, ip: str) -> bool | None:
    """Whether Send reaches a socket of ours at ``ip``; None when that is not an address of this machine."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.setblocking(False)
        try:
            there.bind((ip, 0))
        except OSError:
            return None
        to = (Attribute.XOR_PEER_ADDRESS, (ip, there.getsockname()[1]))
        asker.wire.send(tc.indication(Method.SEND, to, (Attribute.DATA, b"reached")))
        return await _heard(there) is not None


def _finding(subject: Subject, peer: ForbiddenPeer, verdict: Verdict, detail: str) -> Finding:
    if verdict == "open" and peer.is_in(subject.allowed):
        verdict, detail = "note", f"{detail}; it is among those that --allow-peer names"
    return Finding(f"peer {peer.ip} is refused", peer.label, verdict, detail)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# --- what is allowed ----------------------------------------------------------------------------------------


async def _carries(subject: Subject) -> list[Finding]:
    """Send, Data and ChannelData with a peer of our own, where the relay lets us have one.

    The peer is a socket beside the prober's: over the loopback it is reached, over the Internet a relay that is
    closed refuses it, and that is right.
    """
    async with subject.allocated() as (asker, login, answer):
        relayed = answer.addresses(Attribute.XOR_RELAYED_ADDRESS)
        if answer.error is not None or not relayed or ":" in relayed[0][0]:
            return [Finding("Send and Data", "RFC 8656 §11", "skipped", "no IPv4 allocation")]
        with _peer_socket(asker, relayed[0]) as one, _peer_socket(asker, relayed[0]) as other:
            return await _exchange(subject, asker, login, one, other, relayed[0])


async def _exchange(
    subject: Subject, asker: Asker, login: Login, one: _Peer, other: _Peer, relayed: Address
) -> list[Finding]:
    """``one``: reached by Send. ``other``: by a channel."""
    payload = secrets.token_bytes(32)
    send = tc.indication(Method.SEND, (Attribute.XOR_PEER_ADDRESS, one.address), (Attribute.DATA, payload))
    asker.wire.send(send)
    findings = [_silence("Send without a permission reaches nobody", await _heard(one.socket))]
    answer = await subject.asked(
        asker, login, Method.CREATE_PERMISSION, (Attribute.XOR_PEER_ADDRESS, one.address)
    )
    if answer.error is not None:
        detail = f"the relay lets us have no peer of our own ({answer.says}), as a closed one should"
        return [*findings, Finding("Send and Data", "RFC 8656 §11", "skipped", detail)]
    channel = (Attribute.CHANNEL_NUMBER, b"\x4f\xfe\0\0")
    to = (Attribute.XOR_PEER_ADDRESS, other.address)
    bound = await subject.asked(asker, login, Method.CHANNEL_BIND, channel, to)
    asker.wire.send(send)
    there = await _heard(one.socket)
    if bound.error is not None:  # our address is one of its media addresses, our ports are none of its rooms'
        detail = f"our address is granted, our ports are not ({bound.says}), as of a relay that knows them"
        findings.append(_silence("Send to a port that is closed reaches nobody", there))
        return [*findings, Finding("Send and Data", "RFC 8656 §11", "skipped", detail)]
    one.socket.sendto(payload, relayed)
    back = await _data(asker, payload)
    framed = b"\x4f\xfe" + len(payload).to_bytes(2, "big") + payload
    asker.wire.send(framed)
    by_channel = await _heard(other.socket) == payload
    other.socket.sendto(payload, relayed)
    channel_back = await asker.next_other(QUIET_S) == framed
    return [
        *findings,
        _carried("Send reaches a permitted peer", "RFC 8656 §11.2", there == payload),
        _carried("Data comes back from it", "RFC 8656 §11.3", back),
        _carried("ChannelData reaches the peer", "RFC 8656 §12.4", by_channel),
        _carried("ChannelData comes back from it", "RFC 8656 §12.6", channel_back),
    ]


def _silence(name: str, heard: bytes | None) -> Finding:
    verdict: Verdict = "ok" if heard is None else "open"
    return Finding(name, "RFC 8656 §11.2", verdict, "silence" if heard is None else "it was delivered")


def _carried(name: str, source: str, did: bool) -> Finding:
    return Finding(name, source, "ok" if did else "failed", "delivered" if did else "nothing came")


@dataclass(frozen=True, slots=True)
class _Peer:
    """A socket for the relay to reach, and the address by which it does."""

    socket: socket.socket
    address: Address


@contextmanager
def _peer_socket(asker: Asker, relayed: Address) -> Iterator[_Peer]:
    """On the address that leads to the relay."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        local = asker.wire.local[0]
        peer.bind((local if ":" not in local else "", 0))
        with contextlib.suppress(OSError):
            peer.sendto(b"", relayed)  # opens the way back through a NAT; dropped by the relay
        yield _Peer(peer, (local, peer.getsockname()[1]))


async def _heard(peer: socket.socket) -> bytes | None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(QUIET_S):
            return await loop.sock_recv(peer, 2048)
    except TimeoutError:
        return None


async def _data(asker: Asker, payload: bytes) -> bool:
    message = await asker.next_other(QUIET_S)
    if message is None:
        return False
    with contextlib.suppress(MalformedMessage):
        return tc.read(message).first(Attribute.DATA) == payload
    return False
