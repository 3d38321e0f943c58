"""Audio legs by the hundred, light enough to share a machine with what is measured: a program of its own.

    python -m tests.bench.load '{"kind": "mosaique" | "janus", "url": …, "codec": "opus" | "PCMU", …}'

reads commands, a line each, from standard input and answers each with a line of JSON:

    grow N      → {"legs": N}          so many legs are in; the first ``talkers`` of them talk, the others are silent
    measure S   → a `Measured`         what was received in the next S seconds
    heard       → {"delays_ms": […]}   mouth to ear since the start, at the first silent leg

A leg is a socket. What it sends is encoded, framed and encrypted before it is due; what it receives is counted.
One thread does both, in steps of a millisecond over which the legs are spread as people are. Connections are made
by the product's own client transport, whose socket the thread then takes over; STUN goes back to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

import aiohttp

from mixer.audio.codec import make_decoder
from mixer.media import AUDIO_CLOCK_HZ, TICK_S, AudioCodec
from mixer.probe import signal
from mixer.probe.server import ServerApi
from mixer.probe.signal import Identity, PipFinder
from mixer.rtp.packet import parse_rtp
from mixer.webrtc.adapter import Certificate, SecureTransport, remote_candidate
from mixer.webrtc.batch import Slot
from mixer.webrtc.offer import parse_offer
from mixer.webrtc.udp import UdpPort, UdpSocket
from tests.bench import janus
from tests.bench.voices import LEVEL_ID, PAYLOAD_TYPE, Voice, silence, talk

STEPS: Final = 20  # a tick is as many milliseconds
STEP_S: Final = TICK_S / STEPS
MADE_TICKS: Final = 50  # packets made ahead in one go; a second of them
JOINS_AT_ONCE: Final = 4
BUFFER_BYTES: Final = 1 << 20
_CERTIFICATE: Final = Certificate.generateCertificate()


@dataclass(frozen=True, slots=True)
class Measured:
    """``received`` of ``expected`` packets of the mix; how late the generator sent, and what it took itself."""

    received: int
    expected: int
    late_p95_ms: float
    own_cores: float


class Way(Protocol):
    """How a leg's packets travel."""

    def protect(self, packet: bytes) -> bytes: ...

    def unprotect(self, packet: bytes) -> bytes: ...


class Plain:
    """RTP as it is."""

    def protect(self, packet: bytes) -> bytes:
        return packet

    def unprotect(self, packet: bytes) -> bytes:
        return packet


class Secure:
    """SRTP with the keys of a connected transport."""

    def __init__(self, transport: SecureTransport) -> None:
        assert transport._tx is not None
        assert transport._rx is not None
        self._tx, self._rx = transport._tx, transport._rx

    def protect(self, packet: bytes) -> bytes:
        slot = Slot.holding(b"")
        self._tx.seal(packet, slot)
        return slot.read()

    def unprotect(self, packet: bytes) -> bytes:
        return self._rx.open(Slot.holding(packet))


class Leg:
    """One participant. Only the media thread touches it once it plays."""

    def __init__(
        self,
        sock: socket.socket,
        target: tuple[str, int],
        voice: Voice,
        way: Way,
        stun: Callable[[bytes], None],
    ) -> None:
        self.sock = sock
        self.target = target
        self.voice = voice
        self.way = way
        self.stun = stun
        self.received = 0
        self.pips_sent: list[float] = []
        self.kept: list[tuple[float, bytes]] | None = None
        self._ssrc = secrets.randbits(32)
        self._tick = 0
        self._sequence = 0
        self._made: list[bytes | None] = []
        self._edges = {int(edge) // 960: edge % 960 / AUDIO_CLOCK_HZ for edge in voice.edges}

    def prepare(self, ticks: int) -> None:
        """Make the packets of the next ``ticks`` ticks."""
        first = self._tick + len(self._made)
        for tick in range(first, first + ticks):
            packet = self.voice.packet(tick, sequence=self._sequence, ssrc=self._ssrc)
            if packet is not None:
                self._sequence += 1
                packet = self.way.protect(packet)
            self._made.append(packet)

    def send(self) -> None:
        """This tick's packet, if there is one."""
        if not self._made:
            self.prepare(MADE_TICKS)
        packet = self._made.pop(0)
        place = self._tick % len(self.voice.payloads)
        self._tick += 1
        if packet is None:
            return
        with contextlib.suppress(OSError):
            self.sock.sendto(packet, self.target)
        if place in self._edges:
            self.pips_sent.append(time.monotonic() + self._edges[place])


@dataclass(slots=True)
class Media:
    """The thread that plays all legs. ``start`` once; ``add`` at any time."""

    loop: asyncio.AbstractEventLoop
    legs: list[Leg] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    stopped: bool = False
    _steps: list[list[Leg]] = field(default_factory=lambda: [[] for _ in range(STEPS)])
    _by_fd: dict[int, Leg] = field(default_factory=dict)
    _epoll: select.epoll = field(default_factory=select.epoll)

    def add(self, leg: Leg) -> None:
        leg.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        leg.sock.setblocking(False)
        self._by_fd[leg.sock.fileno()] = leg
        self._steps[len(self.legs) * 7 % STEPS].append(leg)  # 7: neighbours are not neighbours in time
        self.legs.append(leg)
        self._epoll.register(leg.sock.fileno(), select.EPOLLIN)

    def run(self) -> None:
        origin, step = time.monotonic(), 0
        while not self.stopped:
            due = origin + step * STEP_S
            now = time.monotonic()
            if now < due:
                self._receive(due - now)
                continue
            self.late_s.append(now - due)
            for leg in self._steps[step % STEPS]:
                leg.send()
            step += 1

    def _receive(self, timeout_s: float) -> None:
        for fd, _ in self._epoll.poll(timeout_s):
            leg = self._by_fd[fd]
            try:
                data = leg.sock.recv(2048)
            except OSError:  # an ICMP error of an earlier send
                continue
            if data[0] < 128:
                self.loop.call_soon_threadsafe(leg.stun, data)
            elif not 192 <= data[1] <= 223:  # RFC 5761 section 4: not RTCP
                leg.received += 1
                if leg.kept is not None:
                    leg.kept.append((time.monotonic(), data))


class Load:
    """All legs against one server. ``plan``: see the module."""

    def __init__(self, plan: dict[str, Any], http: aiohttp.ClientSession) -> None:
        self._plan = plan
        self._codec: AudioCodec = plan["codec"]
        self._talkers: int = plan["talkers"]
        self._http = http
        self._media = Media(asyncio.get_running_loop())
        self._thread = threading.Thread(target=self._media.run, name="media", daemon=True)
        self._silence = silence(self._codec, dtx=plan.get("dtx", False))
        self._identities = [Identity(index) for index in range(self._talkers)]
        self._voices = [talk(self._codec, identity) for identity in self._identities]
        self._janus: janus.Client | None = None
        self._ports: list[UdpPort] = []
        self._transports: list[SecureTransport] = []

    async def grow(self, legs: int) -> None:
        """Until so many are in and play."""
        ours = self._plan["kind"] == "mosaique"
        gate = asyncio.Semaphore(JOINS_AT_ONCE if ours else 1)  # Janus' events come to whoever asks first
        join = self._join_mosaique if ours else self._join_janus

        async def enter(voice: Voice) -> Leg:
            async with gate:
                return await join(voice)

        first = len(self._media.legs)
        voices = [self._voices[n] if n < self._talkers else self._silence for n in range(first, legs)]
        joined = await asyncio.gather(*(enter(voice) for voice in voices))
        for leg in joined:
            await asyncio.to_thread(leg.prepare, round(self._plan["ahead_s"] / TICK_S))
        for leg in joined:
            if len(self._media.legs) == self._talkers:
                leg.kept = []
            self._media.add(leg)
        if not self._thread.is_alive():
            self._thread.start()

    async def measure(self, seconds: float) -> Measured:
        legs = self._media.legs
        before = sum(leg.received for leg in legs)
        self._media.late_s.clear()
        cpu, at = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        elapsed = time.monotonic() - at
        return Measured(
            received=sum(leg.received for leg in legs) - before,
            expected=round(len(legs) * elapsed / TICK_S),
            late_p95_ms=(signal.percentile(self._media.late_s, 95) or 0.0) * 1000,
            own_cores=(time.process_time() - cpu) / elapsed,
        )

    def heard(self) -> list[float]:
        """Milliseconds from the packet with a pip's edge sent to the packet with it in the mix received."""
        ear = self._media.legs[self._talkers]
        decoder = make_decoder(self._codec)
        finders = [PipFinder(identity.tone_hz) for identity in self._identities]
        edges: list[list[float]] = [[] for _ in finders]
        arrivals: list[float] = []
        newest: int | None = None
        for at, data in list(ear.kept or ()):
            packet = parse_rtp(ear.way.unprotect(data))
            if newest is not None and (packet.sequence - newest - 1) & 0x8000:
                continue
            newest = packet.sequence
            arrivals.append(at)
            samples = decoder.decode(packet.payload)
            for finder, found in zip(finders, edges, strict=True):
                found.extend(finder.feed(samples))
        delays: list[float] = []
        for leg, found in zip(self._media.legs, edges, strict=False):
            heard = [arrivals[int(edge) // 960] + edge % 960 / AUDIO_CLOCK_HZ for edge in found]
            delays += signal.match_delays(leg.pips_sent, heard)
        return [round(delay * 1000, 1) for delay in delays]

    async def close(self) -> None:
        self._media.stopped = True
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        # the server ends with the bench: nobody says goodbye a hundred times
        for port in self._ports:
            port.close()

    async def _join_janus(self, voice: Voice) -> Leg:
        if self._janus is None:
            self._janus = await asyncio.to_thread(janus.Client, self._plan["url"], self._codec)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        target = await asyncio.to_thread(self._janus.join, sock.getsockname()[1])
        return Leg(sock, target, voice, Plain(), stun=lambda data: None)

    async def _join_mosaique(self, voice: Voice) -> Leg:
        api = ServerApi(self._http, self._plan["url"], self._plan["room"], self._plan["token"])
        entry = await api.enter("leg")
        port = UdpPort(host="127.0.0.1", ports=range(1))
        port.open()
        self._ports.append(port)
        ufrag, password = secrets.token_hex(4), secrets.token_hex(16)
        transport = SecureTransport(
            port, _CERTIFICATE, ufrag=ufrag, password=password, controlling=True, dtls_server=False,
            on_rtp=lambda data: None, on_rtcp=lambda data: None, heard=lambda: None,
        )  # fmt: skip
        self._transports.append(transport)
        candidate = (await transport.gather())[0]
        headers = {"Authorization": f"Bearer {entry.token}", "Content-Type": "application/sdp"}
        offer = _offer(self._codec, ufrag, password, candidate.to_sdp())
        async with self._http.post(api.whip_url(), data=offer, headers=headers) as response:
            text = await response.text()
            if response.status != 201:
                raise RuntimeError(f"{response.status}: {text}")
        answer = parse_offer(text).transport
        await transport.add_candidate(remote_candidate(answer.candidates[0]))
        await transport.connect(
            ufrag=answer.ufrag, password=answer.password, lite=answer.lite, fingerprints=answer.fingerprints
        )
        opened = port.sockets[0]
        port.leave(opened)
        target = (answer.candidates[0].host, answer.candidates[0].port)
        return Leg(opened._sock, target, voice, Secure(transport), stun=_stun(port, target, opened))


def _stun(port: UdpPort, source: tuple[str, int], opened: UdpSocket) -> Callable[[bytes], None]:
    return lambda data: port.stun_received(data, source, opened)


def _offer(codec: AudioCodec, ufrag: str, password: str, candidate: str) -> str:
    """Both ways, one codec, with the sender's level in each packet (RFC 6464), as browsers do."""
    number = PAYLOAD_TYPE[codec]
    algorithm, fingerprint = _CERTIFICATE.sha256
    rows = [
        "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0",
        f"m=audio 9 UDP/TLS/RTP/SAVPF {number}", "c=IN IP4 0.0.0.0", "a=mid:0", "a=rtcp-mux", "a=sendrecv",
        f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}", f"a=fingerprint:{algorithm} {fingerprint}",
        "a=setup:actpass", f"a=candidate:{candidate}", "a=end-of-candidates",
        f"a=extmap:{LEVEL_ID} urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        f"a=rtpmap:{number} {'opus/48000/2' if codec == 'opus' else 'PCMU/8000'}",
    ]  # fmt: skip
    return "\r\n".join(rows) + "\r\n"


async def main() -> None:
    """Commands from standard input until it ends."""
    plan = json.loads(sys.argv[1])
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        load = Load(plan, http)
        try:
            while line := (await asyncio.to_thread(sys.stdin.readline)).split():
                match line:
                    case ["grow", count]:
                        await load.grow(int(count))
                        answer: dict[str, Any] = {"legs": int(count)}
                    case ["measure", seconds]:
                        answer = asdict(await load.measure(float(seconds)))
                    case _:
                        answer = {"delays_ms": await asyncio.to_thread(load.heard)}
                print(json.dumps(answer), flush=True)
        finally:
            await load.close()


if __name__ == "__main__":
    asyncio.run(main())
