"""What the relay has to know of the rooms: which sockets it may reach, and whose allocations are over. Pure.

Control writes into the book what happens; the book says it on as the relay's control words (``turn.control``), to
whoever listens, and says all that is in force to a relay that starts. Without a listener it only keeps count.

Allocations exist before the connection that they are for: a browser gathers first and posts its offer then. So a
subject (the participant's id) is not over when it has no session, but when it has had none for a while: ``LEFT_S``
after its last one, ``UNUSED_S`` after credentials were handed out that nobody used. Who is put out of a room is over at
once, and the credentials that they were given so far are void; if the API gives them others, they may come back.
Times are monotonic seconds, but those that credentials expire by.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from mixer.protocol import MediaSocket
from turn.control import End, Peers, Revoke, ToRelay
from turn.policy import Peer

Entry = tuple[Peer, Peer]  # what a client may name, and where its datagrams go

LEFT_S: Final = 10.0  # a page that reloads has gathered again and posted within a few seconds
UNUSED_S: Final = (
    120.0  # from being asked for credentials to a session: the visitor may still look for a camera
)
MAX_WAITING: Final = 10_000  # subjects without a session; past it the oldest is over at once
# A working day, as long as a token lives; when it is over the relay ends the allocation.
CREDENTIAL_S: Final = 12 * 3600
# Subjects put out within that time; past it the credentials of the first are good again.
MAX_REVOKED: Final = 10_000
_REVOKED_A_WORD: Final = 300  # of 508 bytes at most, each six in JSON at worst; a line takes a mebibyte


class RelayBook:
    """See the module. Not thread-safe."""

    def __init__(self) -> None:
        self._rooms: dict[str, tuple[Entry, ...]] = {}
        self._sessions: Counter[str] = Counter()
        self._waiting: OrderedDict[str, float] = OrderedDict()  # subject → when it is over
        self._revoked: OrderedDict[str, int] = OrderedDict()  # subject → the last expiry that is void
        self._say: Callable[[ToRelay], None] | None = None

    # --- the relay's side -----------------------------------------------------------------------------------

    def listen(self, say: Callable[[ToRelay], None] | None) -> None:
        """From now on ``say`` hears the words, beginning with all that is in force; None: nobody does."""
        self._say = say
        entries = [entry for room in self._rooms.values() for entry in room]
        if entries:
            self._tell(add=entries)
        revoked = iter(self._revoked.items())
        while self._say is not None and (some := dict(itertools.islice(revoked, _REVOKED_A_WORD))):
            self._say(Revoke(some))

    def sweep(self, now: float) -> None:
        """Say which subjects are over by ``now``."""
        over = [subject for subject, due in self._waiting.items() if due <= now]
        for subject in over:
            del self._waiting[subject]
        self._end(over)

    # --- control's side -------------------------------------------------------------------------------------

    def room_opened(self, room: str, sockets: Iterable[MediaSocket]) -> None:
        """The worker of ``room`` has these sockets, in place of those it had."""
        before, after = self._rooms.get(room, ()), entries_of(sockets)
        self._rooms[room] = after
        self._tell(add=[e for e in after if e not in before], remove=[e for e in before if e not in after])

    def room_closed(self, room: str) -> None:
        """The worker of ``room`` is gone, and its sockets with it."""
        self._tell(remove=self._rooms.pop(room, ()))

    def session_began(self, subject: str) -> None:
        """``subject`` has one more session."""
        self._sessions[subject] += 1
        self._waiting.pop(subject, None)

    def session_ended(self, subject: str, now: float) -> None:
        """``subject`` has one session less; with the last one it begins to be over."""
        self._sessions[subject] -= 1
        if self._sessions[subject] <= 0:
            del self._sessions[subject]
            self._wait(subject, now + LEFT_S)

    def issued(self, subject: str, now: float) -> None:
        """``subject`` has been given credentials, which it may use before its first session."""
        if subject not in self._sessions:
            self._wait(subject, max(now + UNUSED_S, self._waiting.get(subject, 0.0)))

    def expiry(self, subject: str, unix_s: float) -> int:
        """When a credential expires that ``subject`` is given at ``unix_s``; in the second in which those before it
        became void it is good all the same.
        """
        return max(int(unix_s) + CREDENTIAL_S, self._revoked.get(subject, 0) + 1)

    def removed(self, subject: str, unix_s: float) -> None:
        """``subject`` was put out of its room: unless it is in another one, its allocations end now, and the
        credentials that it has make no more.
        """
        if subject in self._sessions:
            return
        until = self.expiry(subject, unix_s)
        self._revoked.pop(subject, None)
        self._revoked[subject] = until
        while len(self._revoked) > MAX_REVOKED or next(iter(self._revoked.values())) <= unix_s:
            self._revoked.popitem(last=False)
        if self._say is not None:
            self._say(Revoke({subject: until}))
        self._waiting.pop(subject, None)
        self._end([subject])

    # --- inside ---------------------------------------------------------------------------------------------

    def _wait(self, subject: str, due: float) -> None:
        self._waiting[subject] = due
        if len(self._waiting) > MAX_WAITING:
            oldest, _ = self._waiting.popitem(last=False)
            self._end([oldest])

    def _tell(self, *, add: Iterable[Entry] = (), remove: Iterable[Entry] = ()) -> None:
        word = Peers(tuple(add), tuple(peer for peer, _ in remove))
        if self._say is not None and (word.add or word.remove):
            self._say(word)

    def _end(self, subjects: list[str]) -> None:
        if self._say is not None and subjects:
            self._say(End(tuple(subjects)))


def entries_of(sockets: Iterable[MediaSocket]) -> tuple[Entry, ...]:
    """Each address of each socket. One that is not this machine's own but a NAT's in front of it leads to one that is,
    without the way through the NAT and back, which many do not know.
    """
    return tuple(
        ((address, socket.port), (_local(address, socket), socket.port))
        for socket in sockets
        for address in socket.addresses
    )


def _local(address: str, socket: MediaSocket) -> str:
    """Where a datagram for ``address`` has to go."""
    if address != socket.public_ip:
        return address
    version = ipaddress.ip_address(address).version
    others = (other for other in socket.addresses if other != address)
    return next((other for other in others if ipaddress.ip_address(other).version == version), address)
