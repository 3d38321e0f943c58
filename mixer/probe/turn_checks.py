"""What a relay has to do, and what it must not reach: each check asks one question and gives one finding.

Each opens connections of its own, so that one that fails leaves nothing behind for the next. A check answers with
``Finding``; what cannot be asked here (no shared secret to make an expired name with, no peer that is allowed) says
so and does not count.
"""

from __future__ import annotations

import contextlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

from mixer.probe import turn_client as tc
from mixer.probe.turn_client import Answer, Asker, Field, Login
from mixer.probe.turn_wire import Target, Wire
from turn import credentials
from turn.message import Attribute, Method
from turn.policy import Network

Verdict = Literal["ok", "failed", "open", "skipped", "note"]

MAX_AMPLIFICATION: Final = 6.0  # bytes answered a byte asked, to somebody who has proved nothing
DISCARD: Final = 9  # RFC 863: nobody listens there
QUIET_S: Final = 0.5  # what arrives on one machine or a network nearby does so within it
_TRANSPORT: Final[Field] = (Attribute.REQUESTED_TRANSPORT, bytes((tc.UDP_PROTOCOL, 0, 0, 0)))


@dataclass(frozen=True, slots=True)
class Finding:
    """``name``: the question. ``source``: where the answer is fixed. ``detail``: what the relay did."""

    name: str
    source: str
    verdict: Verdict
    detail: str


class Silent(ConnectionError):
    """The relay does not answer at all."""


class Subject:
    """The relay under test. ``secret``: makes credentials of the REST scheme; without it ``login`` is used.
    ``allowed``: networks that it is meant to reach."""

    def __init__(
        self,
        target: Target,
        *,
        login: Login | None = None,
        secret: str | None = None,
        allowed: Iterable[Network] = (),
        trust: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.target = target
        self.secret = secret
        self.allowed = tuple(allowed)
        self.clock = clock
        self._given = login
        self._trust = trust
        self.software: str | None = None
        self.nonce = b""  # the last that it handed out
        self.own: set[str] = set()  # addresses that the relay has told to be its own

    def login(self, *, ttl_s: int = 600) -> Login:
        """Fresh credentials; ``ttl_s`` below zero: expired ones, with a secret only."""
        if self.secret is None:
            assert self._given is not None  # noqa: S101 - the command line asks for one of the two
            return replace(self._given, realm="", nonce=b"")
        username = f"{int(self.clock()) + ttl_s}:probe-{secrets.token_hex(4)}"
        return Login(username, credentials.password_for(username, self.secret))

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Asker]:
        """A way of its own to the relay. Raises ``OSError`` when there is none."""
        wire = Wire(self.target)
        try:
            await wire.open(trust=self._trust)
            yield Asker(wire)
        finally:
            await wire.close()

    async def ask(self, asker: Asker, message: bytes) -> Answer:
        """The answer. Raises ``Silent``."""
        answer = await asker.ask(message)
        if answer is None:
            raise Silent("no answer")
        self.software = answer.text(tc.SOFTWARE) or self.software
        self.nonce = answer.first(Attribute.NONCE) or self.nonce
        return answer

    async def asked(
        self,
        asker: Asker,
        login: Login,
        method: Method,
        *attributes: Field,
        transaction: bytes | None = None,
    ) -> Answer:
        """The answer to a signed request, the realm and nonce fetched where they are needed."""
        answer = await self.ask(asker, tc.request(method, *attributes, login=login if login.nonce else None))
        for _ in range(2):
            if answer.error not in {401, 438} or (login.nonce and answer.error == 401):
                break
            login.learn(answer)
            message = tc.request(method, *attributes, login=login, transaction=transaction)
            answer = await self.ask(asker, message)
        return answer

    @asynccontextmanager
    async def allocated(self, *attributes: Field) -> AsyncIterator[tuple[Asker, Login, Answer]]:
        """An allocation, given back at the end. The answer may be a refusal."""
        login = self.login()
        async with self.connected() as asker:
            answer = await self.asked(asker, login, Method.ALLOCATE, _TRANSPORT, *attributes)
            if answer.error is None:
                self.own |= {ip for ip, _ in answer.addresses(Attribute.XOR_RELAYED_ADDRESS)}
            try:
                yield asker, login, answer
            finally:
                if answer.error is None:
                    with contextlib.suppress(OSError):
                        await self.asked(asker, login, Method.REFRESH, (Attribute.LIFETIME, bytes(4)))


Check = Callable[[Subject], Awaitable[tuple[Verdict, str]]]


# --- conformance --------------------------------------------------------------------------------------------


def _expect(answer: Answer, error: int) -> tuple[Verdict, str]:
    """What is refused by another code than the RFC's is refused all the same: worth a note."""
    if answer.error == error:
        return "ok", answer.says
    return ("failed", answer.says) if answer.error is None else ("note", f"{answer.says} in place of {error}")


async def binding(subject: Subject) -> tuple[Verdict, str]:
    async with subject.connected() as asker:
        answer = await subject.ask(asker, tc.request(Method.BINDING))
        mapped = answer.addresses(Attribute.XOR_MAPPED_ADDRESS)
        if answer.error is not None or not mapped:
            return "failed", f"{answer.says}, {len(mapped)} XOR-MAPPED-ADDRESS"
        return "ok", f"we are {mapped[0][0]} to it"


async def wrong_cookie(subject: Subject) -> tuple[Verdict, str]:
    message = tc.request(Method.BINDING)
    async with subject.connected() as asker:
        asker.wire.send(message[:4] + b"\0\0\0\0" + message[8:])
        try:
            data = await asker.next_other(QUIET_S)
        except ConnectionError:
            return "ok", "it hung up"
        return (
            ("ok", "silence") if data is None else ("note", "it still answers RFC 3489, which nobody needs")
        )


async def unauthenticated(subject: Subject) -> tuple[Verdict, str]:
    async with subject.connected() as asker:
        answer = await subject.ask(asker, tc.request(Method.ALLOCATE, _TRANSPORT))
        if answer.first(Attribute.REALM) is None or answer.first(Attribute.NONCE) is None:
            return "failed", f"{answer.says} without REALM or NONCE"
        return _expect(answer, 401)


async def amplification(subject: Subject) -> tuple[Verdict, str]:
    message = tc.request(Method.ALLOCATE, _TRANSPORT)
    async with subject.connected() as asker:
        factor = (await subject.ask(asker, message)).size / len(message)
        return ("ok" if factor <= MAX_AMPLIFICATION else "failed"), f"{factor:.1f} bytes for each byte asked"


async def bad_password(subject: Subject) -> tuple[Verdict, str]:
    login = replace(subject.login(), password="certainly not")  # noqa: S106 - wrong on purpose
    async with subject.connected() as asker:
        return _expect(await subject.asked(asker, login, Method.ALLOCATE, _TRANSPORT), 401)


async def expired(subject: Subject) -> tuple[Verdict, str]:
    if subject.secret is None:
        return "skipped", "takes --secret, to make an expired name"
    async with subject.connected() as asker:
        return _expect(await subject.asked(asker, subject.login(ttl_s=-60), Method.ALLOCATE, _TRANSPORT), 401)


async def stale_nonce(subject: Subject) -> tuple[Verdict, str]:
    login = subject.login()
    async with subject.connected() as asker:
        login.learn(await subject.ask(asker, tc.request(Method.ALLOCATE, _TRANSPORT)))
        login.nonce = b"0123456789abcdef" + bytes(reversed(login.nonce))[:16]
        answer = await subject.ask(asker, tc.request(Method.ALLOCATE, _TRANSPORT, login=login))
        return _expect(answer, 438)


async def unknown_attribute(subject: Subject) -> tuple[Verdict, str]:
    login = subject.login()
    async with subject.connected() as asker:
        answer = await subject.asked(asker, login, Method.ALLOCATE, _TRANSPORT, (0x7FFE, b"what?"))
        listed = answer.first(Attribute.UNKNOWN_ATTRIBUTES) or b""
        if answer.error == 420 and b"\x7f\xfe" not in listed:
            return "failed", "error 420 that does not name the attribute"
        return _expect(answer, 420)


async def no_transport(subject: Subject) -> tuple[Verdict, str]:
    async with subject.connected() as asker:
        return _expect(await subject.asked(asker, subject.login(), Method.ALLOCATE), 400)


async def other_transport(subject: Subject) -> tuple[Verdict, str]:
    sctp = (Attribute.REQUESTED_TRANSPORT, bytes((132, 0, 0, 0)))
    async with subject.connected() as asker:
        return _expect(await subject.asked(asker, subject.login(), Method.ALLOCATE, sctp), 442)


async def allocate(subject: Subject) -> tuple[Verdict, str]:
    async with subject.allocated() as (_, login, answer):
        if answer.error is not None:
            return "failed", f"{answer.says}; nothing below can be asked ({login.username})"
        if not answer.message.proves(login.key):
            return "failed", "its answer is not sealed with our password: it is somebody else"
        relayed, lifetime = answer.addresses(Attribute.XOR_RELAYED_ADDRESS), answer.number(Attribute.LIFETIME)
        if len(relayed) != 1 or not lifetime or not answer.addresses(Attribute.XOR_MAPPED_ADDRESS):
            return "failed", "an answer without relayed address, mapped address or lifetime"
        return "ok", f"relays from {relayed[0][0]}, for {lifetime} s"


async def retransmitted(subject: Subject) -> tuple[Verdict, str]:
    login, transaction = subject.login(), secrets.token_bytes(12)
    async with subject.connected() as asker:
        if asker.wire.is_reliable:
            return "skipped", "a stream repeats nothing"
        first = await subject.asked(asker, login, Method.ALLOCATE, _TRANSPORT, transaction=transaction)
        again = await subject.ask(
            asker, tc.request(Method.ALLOCATE, _TRANSPORT, login=login, transaction=transaction)
        )
        same = first.addresses(Attribute.XOR_RELAYED_ADDRESS) == again.addresses(
            Attribute.XOR_RELAYED_ADDRESS
        )
        await subject.asked(asker, login, Method.REFRESH, (Attribute.LIFETIME, bytes(4)))
        return ("ok" if first.error is None and again.error is None and same else "failed"), again.says


async def second_allocation(subject: Subject) -> tuple[Verdict, str]:
    async with subject.allocated() as (asker, login, _):
        return _expect(await subject.asked(asker, login, Method.ALLOCATE, _TRANSPORT), 437)


async def refresh(subject: Subject) -> tuple[Verdict, str]:
    async with subject.allocated() as (asker, login, _):
        answer = await subject.asked(
            asker, login, Method.REFRESH, (Attribute.LIFETIME, (600).to_bytes(4, "big"))
        )
        if answer.error is not None:
            return "failed", answer.says
        return "ok", f"{answer.number(Attribute.LIFETIME)} s more"


async def refresh_of_nothing(subject: Subject) -> tuple[Verdict, str]:
    async with subject.connected() as asker:
        return _expect(
            await subject.asked(asker, subject.login(), Method.REFRESH, (Attribute.LIFETIME, bytes(4))), 437
        )


async def permission_of_nothing(subject: Subject) -> tuple[Verdict, str]:
    peer = (Attribute.XOR_PEER_ADDRESS, ("192.0.2.1", DISCARD))
    async with subject.connected() as asker:
        return _expect(await subject.asked(asker, subject.login(), Method.CREATE_PERMISSION, peer), 437)


async def permission_without_peer(subject: Subject) -> tuple[Verdict, str]:
    async with subject.allocated() as (asker, login, _):
        return _expect(await subject.asked(asker, login, Method.CREATE_PERMISSION), 400)


async def channel_out_of_range(subject: Subject) -> tuple[Verdict, str]:
    peer, channel = (
        (Attribute.XOR_PEER_ADDRESS, ("192.0.2.1", DISCARD)),
        (Attribute.CHANNEL_NUMBER, b"\x3f\xff\0\0"),
    )
    async with subject.allocated() as (asker, login, _):
        return _expect(await subject.asked(asker, login, Method.CHANNEL_BIND, channel, peer), 400)


async def dual_allocation(subject: Subject) -> tuple[Verdict, str]:
    both = (Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\x02\0\0\0")
    async with subject.allocated(both) as (_, _, answer):
        if answer.error is not None:
            return "failed", answer.says
        relayed = [ip for ip, _ in answer.addresses(Attribute.XOR_RELAYED_ADDRESS)]
        if len(relayed) == 2:
            return "ok", f"relays from {' and '.join(relayed)}"
        if answer.first(Attribute.ADDRESS_ERROR_CODE) is not None:
            return "ok", "IPv4 only, and it says so"
        return "note", "IPv4 only, and it does not say so (coturn 4.6 knows the draft's attribute only)"


CONFORMANCE: Final[tuple[tuple[str, str, Check], ...]] = (
    ("Binding", "RFC 8489 §3", binding),
    ("Binding with a wrong cookie", "RFC 8489 §6.3", wrong_cookie),
    ("Allocate without credentials is 401", "RFC 8489 §9.2.4", unauthenticated),
    ("an unauthenticated answer is not much larger", "RFC 8489 §16.2.1", amplification),
    ("a bad password is 401", "RFC 8489 §9.2.4", bad_password),
    ("an expired name is 401", "draft-uberti-behave-turn-rest-00 §2.2", expired),
    ("a nonce it did not make is 438", "RFC 8489 §9.2.4", stale_nonce),
    ("an unknown required attribute is 420", "RFC 8489 §6.3.1", unknown_attribute),
    ("Allocate without a transport is 400", "RFC 8656 §7.2", no_transport),
    ("Allocate for another transport is 442", "RFC 8656 §7.2", other_transport),
    ("Allocate", "RFC 8656 §7.2", allocate),
    ("the same Allocate again is answered alike", "RFC 8656 §7.2", retransmitted),
    ("a second Allocate is 437", "RFC 8656 §7.2", second_allocation),
    ("Refresh", "RFC 8656 §8.2", refresh),
    ("Refresh without an allocation is 437", "RFC 8656 §8.2", refresh_of_nothing),
    ("CreatePermission without one is 437", "RFC 8656 §5", permission_of_nothing),
    ("CreatePermission without a peer is 400", "RFC 8656 §10.2", permission_without_peer),
    ("a channel below 0x4000 is 400", "RFC 8656 §12.2", channel_out_of_range),
    ("IPv4 and IPv6 in one Allocate", "RFC 8656 §7.2", dual_allocation),
)
