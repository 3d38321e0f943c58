"""The peers of one worker: the port, the certificate and the timers that they share."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from mixer.errors import ConfigError
from mixer.protocol import MediaSocket
from mixer.rtp.pacing import SLOT_S
from mixer.webrtc.adapter import Certificate
from mixer.webrtc.peer import POLL_S, Peer, PeerSink
from mixer.webrtc.udp import UdpPort

PATIENT_ROUNDS: Final = 5  # who sends no picture loses nothing that is asked for again: 100 ms, as `LINE_S`
CONNECT_TIMEOUT_S: Final = 15.0  # aioice never gives up by itself without end-of-candidates
SILENCE_TIMEOUT_S: Final = 30.0  # RFC 7675 section 5.1: consent ends after 30 s
CERTIFICATE_RENEWAL: Final = datetime.timedelta(days=10)  # before the 30 days of an aiortc certificate end


class PeerFactory:
    """What the peers of one worker share: the UDP port, the certificate, the timers.

    ``host``: address to bind, or a comma-separated list. ``ports``: where the port may be. ``clock``:
    seconds, monotonic. ``origin``: its time at room pts 0, for sender reports; without, it is guessed from
    the media.
    """

    def __init__(
        self,
        *,
        host: str,
        ports: range,
        public_ip: str | None = None,
        origin: float | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = UdpPort(host=host, ports=ports, public_ip=public_ip)
        self.clock = clock
        self.origin = origin
        self.connect_timeout_s = connect_timeout_s
        self.silence_timeout_s = silence_timeout_s
        self._certificate: Certificate | None = None
        self._peers: set[Peer] = set()
        self._poll_timer: asyncio.TimerHandle | None = None
        self._poll_round = 0
        self._pace_timer: asyncio.TimerHandle | None = None
        self._pacing: set[Peer] = set()
        self._closed = False
        self.failed = 0

    async def start(self) -> None:
        """Bind the port. Raises ``ConfigError`` naming the key."""
        if not len(self.port.ports):
            raise ConfigError("media.udp_ports: is empty")
        self.port.open()
        self._poll()

    async def close(self) -> None:
        """Close every peer, then the port."""
        self._closed = True
        for timer in (self._poll_timer, self._pace_timer):
            if timer is not None:
                timer.cancel()
        await asyncio.gather(*(peer.close("the room was closed") for peer in tuple(self._peers)))
        self.port.close()

    def peer(self, sink: PeerSink, *, send: bool, receive: bool, measure: bool = True) -> Peer:
        """A peer that may send the mix, receive a publisher, or both, as far as its offer wants. ``measure``: its
        line is to be measured for what we send.
        """
        return Peer(self, sink, send=send, receive=receive, measure=measure)

    def media_sockets(self) -> tuple[MediaSocket, ...]:
        """The bound sockets of the shared port, as control is told them."""
        return tuple(
            MediaSocket(
                port=opened.port,
                addresses=opened.addresses,
                public_ip=self.port.public_ip if self.port.public_ip in opened.addresses else None,
            )
            for opened in self.port.sockets
        )

    def stats(self) -> dict[str, Any]:
        """Counters of the shared port: datagrams received, and dropped by reason; peers, and those that ``failed``."""
        return {
            "received": self.port.received,
            "dropped": dict(self.port.dropped),
            "peers": len(self._peers),
            "failed": self.failed,
        }

    @property
    def certificate(self) -> Certificate:
        """The current DTLS certificate; a worker that runs for weeks gets a new one for new peers."""
        now = datetime.datetime.now(datetime.UTC)
        if self._certificate is None or self._certificate.expires - now < CERTIFICATE_RENEWAL:
            self._certificate = Certificate.generateCertificate()
        return self._certificate

    # --- for Peer ---

    def added(self, peer: Peer) -> None:
        self._peers.add(peer)

    def removed(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._pacing.discard(peer)

    def pace(self, peer: Peer) -> None:
        """Call ``peer.drain`` each slot until its queue is empty."""
        self._pacing.add(peer)
        if self._pace_timer is None and not self._closed:
            self._pace_timer = asyncio.get_running_loop().call_later(SLOT_S, self._pace)

    def _pace(self) -> None:
        self._pace_timer = None
        now = self.clock()
        for peer in tuple(self._pacing):
            with self._only(peer):
                if peer.drain(now):
                    continue
            self._pacing.discard(peer)
        if self._pacing and not self._closed:
            self._pace_timer = asyncio.get_running_loop().call_later(SLOT_S, self._pace)

    def _poll(self) -> None:
        if not self._closed:
            self._poll_timer = asyncio.get_running_loop().call_later(POLL_S, self._poll)
            now = self.clock()
            self._poll_round += 1
            for peer in tuple(self._peers):
                if not peer.is_patient or (self._poll_round + peer.number) % PATIENT_ROUNDS == 0:
                    with self._only(peer):
                        peer.poll(now)

    @contextlib.contextmanager
    def _only(self, peer: Peer) -> Iterator[None]:
        """A fault of ours in one connection costs that one, and is told; the others do not even wait."""
        try:
            yield
        except Exception as error:
            self.failed += 1
            context = {"message": "a connection failed by a fault of ours", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            peer.close_soon("an internal error; join again")
