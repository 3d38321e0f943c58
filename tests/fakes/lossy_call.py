"""One talks, one listens, a mixer between them, both lines lose: minutes of it in seconds, always the same way.

    call = LossyCall(seed=5, burst=bursts(0.05), drift_ppm=200)
    call.run(600.0)
    call.concealed_share, call.sound_delay_s(540.0, 600.0), call.picture_delay_s(540.0, 600.0), call.frozen_share

Real: repairs both ways (`SoundGaps`, RED, `FrameAssembler`), jitter buffers, codecs, the bridge, the even pace of the
pictures, lips and voice. Each of the three has a clock of its own: the talker's is ``drift_ppm`` fast, the listener's
as much slow. The talker is what a browser is: it repeats nothing twice within a round trip.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Final

from mixer.audio.bridge import AudioBridge
from mixer.audio.codec import make_encoder
from mixer.audio.leg import InboundLeg
from mixer.avsync import LipSync
from mixer.media import FRAME_SAMPLES, TICK_S, VIDEO_CLOCK_HZ, EncodedAudio
from mixer.probe.signal import frozen_s
from mixer.rtp.assemble import FrameAssembler
from mixer.rtp.gaps import SoundGaps
from mixer.rtp.packet import RtpPacket
from mixer.rtp.payload import vp8
from mixer.rtp.red import RedUnpacker, write_red
from mixer.video.rendition import RENDITIONS
from mixer.video.steady import Steady
from tests.fakes.netem import Burst, Netem
from tests.mixer.audio.signals import syllables

OPUS: Final = 111
RED: Final = 63
DELAY_S: Final = 0.05
LOOP_S: Final = 10.0
KEYFRAME: Final = "keyframe"
CHATTER: Final = "chatter"
CHATTER_S: Final = 0.1  # reports on arrivals: what else is on the way back
POLL_S: Final = 0.02
PICTURE_S: Final = 1 / 30
PICTURE_BYTES: Final = 6_000  # five packets: a camera of 1.4 Mbit/s ...
KEYFRAME_BYTES: Final = 30_000  # ... and 25 packets
HIGH: Final = RENDITIONS["high"]


@dataclass(frozen=True)
class _Asked:
    """What goes back over a line: numbers to send again. ``kind``: of what."""

    kind: str
    sequences: tuple[int, ...]


class _Way:
    """One direction: packets out, requests back, and what was sent lately for those."""

    def __init__(self, seed: int, loss: float, burst: Burst | None) -> None:
        self.line: Netem[RtpPacket] = Netem(seed=seed, delay_s=DELAY_S, loss=loss, burst=burst)
        self.back: Netem[_Asked] = Netem(seed=seed + 1, delay_s=DELAY_S, loss=loss, burst=burst)
        self._sent: dict[tuple[str, int], RtpPacket] = {}
        self._repeated: dict[tuple[str, int], float] = {}
        self.repeats = 0

    def send(self, kind: str, packet: RtpPacket, now: float) -> None:
        self._sent[kind, packet.sequence] = packet
        if len(self._sent) > 512:
            del self._sent[next(iter(self._sent))]
        self.line.send(packet, now)

    def ask(self, kind: str, sequences: Iterable[int], now: float) -> None:
        if asked := tuple(sequences):
            self.back.send(_Asked(kind, asked), now)

    def answer(self, now: float) -> bool:
        """Send again what was asked for; whether a keyframe was."""
        keyframe = False
        for asked in self.back.receive(now):
            keyframe = keyframe or asked.kind == KEYFRAME
            for sequence in asked.sequences:
                key = asked.kind, sequence
                if (packet := self._sent.get(key)) is None:
                    continue
                if now - self._repeated.get(key, float("-inf")) >= 2 * DELAY_S:
                    self._repeated[key] = now
                    if len(self._repeated) > 512:
                        del self._repeated[next(iter(self._repeated))]
                    self.repeats += 1
                    self.line.send(packet, now)
        return keyframe


class LossyCall:
    """See the module. ``repairs``: off, there are neither RED nor repeats of sound."""

    def __init__(
        self,
        *,
        seed: int,
        loss: float = 0.0,
        burst: Burst | None = None,
        drift_ppm: float = 0.0,
        repairs: bool = True,
        pictures: bool = True,
    ) -> None:
        self._repairs = repairs
        self._up, self._down = _Way(seed, loss, burst), _Way(seed + 10, loss, burst)
        self._said = 1 / (1 + drift_ppm * 1e-6)  # real seconds of a second by the talker's clock
        self._heard = 1 / (1 - drift_ppm * 1e-6)
        encoder = make_encoder("opus", frames=1, bitrate_bps=32_000, fec=True)
        sound = syllables(LOOP_S)
        self._words = [
            encoder.encode(sound[at : at + FRAME_SAMPLES]) for at in range(0, len(sound), FRAME_SAMPLES)
        ]
        self._pictures = {first: vp8.packetize(_picture(keyframe=first)) for first in (True, False)}
        self._bridge = AudioBridge()
        self._bridge.add_input("ann", "opus")
        self._bridge.add_output(
            "bob",
            self._mixed,
            codec="opus",
            minus=None,
            fec=not repairs,
            repeats=HIGH.repeats if repairs else (),
            bitrate_bps=HIGH.repeated_bps if repairs else HIGH.audio_bps,
        )
        self._gaps_in, self._gaps_out = SoundGaps(48_000), SoundGaps(48_000, foresees=False)
        self._red = RedUnpacker(red_type=RED, inner_type=OPUS)
        self._bob = InboundLeg("bob", "opus", muted=False, volume=1.0)
        self._assembler = FrameAssembler("VP8", insists=True)
        self._steady, self._lips = Steady(), LipSync()
        self._held: deque[tuple[float, int]] = deque()  # pictures before the canvas: when due, which
        self._now = 0.0
        self._video_sequence = 0
        self._keyframe = True
        self.sound_delays: list[tuple[float, float]] = []  # when, from mouth to ear
        self.mixed_delays: list[tuple[float, float]] = []  # from mouth to mix
        self.picture_delays: list[tuple[float, float]] = []
        self.changes: list[float] = []  # when another picture was on the canvas
        self.skews: list[tuple[float, float]] = []  # picture later than sound (+)
        self._numbers = itertools.count()
        tickers: list[tuple[float, Callable[[int], None]]] = [
            (TICK_S * self._said, self._speak),
            (TICK_S, self._tick),
            (TICK_S * self._heard, self._listen),
            (POLL_S, self._poll),
        ]
        if pictures:
            tickers += [(PICTURE_S * self._said, self._film), (PICTURE_S, self._draw)]
        self._due = [(0.0, next(self._numbers), 0, period, act) for period, act in tickers]
        heapq.heapify(self._due)

    # -- the test's

    def line(self, *, loss: float = 0.0, burst: Burst | None = None) -> None:
        """Another line from now on."""
        for netem in (self._up.line, self._up.back, self._down.line, self._down.back):
            netem.loss, netem.burst = loss, burst

    def run(self, until: float) -> None:
        while self._due[0][0] < until:
            self._now, number, count, period, act = heapq.heappop(self._due)
            self._pass()
            act(count)
            heapq.heappush(self._due, ((count + 1) * period, number, count + 1, period, act))

    def sound_delay_s(self, start: float, end: float) -> float:
        """The usual one of that time."""
        return median(delay for at, delay in self.sound_delays if start <= at < end)

    def mixed_delay_s(self, start: float, end: float) -> float:
        """Of it what passes before the mixer has mixed it."""
        return median(delay for at, delay in self.mixed_delays if start <= at < end)

    def picture_delay_s(self, start: float, end: float) -> float:
        """Until a picture is on the canvas."""
        return median(delay for at, delay in self.picture_delays if start <= at < end)

    def frozen_share(self, start: float, end: float) -> float:
        """Of that time, as a viewer of the canvas counts it."""
        return frozen_s([at for at in self.changes if start <= at < end], start, end) / (end - start)

    @property
    def concealed_share(self) -> float:
        """Of the time so far, both ways together."""
        return (self.concealed_in + self.concealed_out) / (self._now * 48_000)

    @property
    def concealed_in(self) -> int:
        """Samples."""
        found: int = self._bridge.stats()["inputs"]["ann"]["concealed_samples"]
        return found

    @property
    def concealed_out(self) -> int:
        found: int = self._bob.stats()["concealed_samples"]
        return found

    # -- the talker

    def _speak(self, count: int) -> None:
        word = self._words[count % len(self._words)]
        self._up.send("sound", RtpPacket(OPUS, False, count & 0xFFFF, count * 960, 1, word), self._now)

    def _film(self, count: int) -> None:
        stamp = count * VIDEO_CLOCK_HZ // 30
        payloads = self._pictures[self._keyframe]
        self._keyframe = False
        for index, payload in enumerate(payloads):
            last = index == len(payloads) - 1
            packet = RtpPacket(96, last, self._video_sequence & 0xFFFF, stamp, 2, payload)
            self._video_sequence += 1
            self._up.send("picture", packet, self._now)

    # -- the mixer

    def _pass(self) -> None:
        now = self._now
        self._keyframe = self._up.answer(now) or self._keyframe
        self._down.answer(now)
        for packet in self._up.line.receive(now):
            if packet.ssrc == 2:
                self._see(packet)
            else:
                self._hear(packet)
        for packet in self._down.line.receive(now):
            self._play(packet)

    def _see(self, packet: RtpPacket) -> None:
        gaps = self._assembler.gaps
        for frame in self._assembler.push(packet, self._now):
            self._held.append((self._due_at(frame.pts), frame.pts))
        if self._assembler.gaps != gaps:
            self._urge()

    def _due_at(self, pts: int) -> float:
        """As `mixer.intake`, with reports that are right."""
        now = self._now
        heard = self._bridge.playhead("ann", now)
        hold_s = self._lips.hold(
            taken_s=pts / VIDEO_CLOCK_HZ,
            said_s=heard[0] / 48_000 if heard is not None else None,
            waits_s=heard[1] / 1000 if heard is not None else None,
            now=now,
            held_s=self._steady.hold(pts, now),
        )
        self._bridge.delay("ann", self._lips.floor_s * 1000)
        return now + hold_s

    def _draw(self, count: int) -> None:
        """The canvas takes the newest picture that is due."""
        shown = None
        while self._held and self._held[0][0] <= self._now:
            shown = self._held.popleft()[1]
        if shown is None:
            return
        self.changes.append(self._now)
        taken = shown / VIDEO_CLOCK_HZ
        self.picture_delays.append((self._now, self._now - taken * self._said))
        if (heard := self._bridge.playhead("ann", self._now)) is not None:
            self.skews.append((self._now, heard[0] / 48_000 - taken))

    def _urge(self) -> None:
        wanted = self._assembler.poll(self._now)
        self._up.ask("picture", wanted.nack, self._now)
        if wanted.keyframe:
            self._up.ask(KEYFRAME, (0,), self._now)

    def _hear(self, packet: RtpPacket) -> None:
        repaired = self._gaps_in.take(packet, self._now)
        self._bridge.push(
            "ann",
            sequence=packet.sequence,
            timestamp=packet.timestamp,
            payload=packet.payload,
            codec="opus",
            now=self._now,
            ssrc=packet.ssrc,
            repaired=repaired,
        )

    def _tick(self, count: int) -> None:
        self._bridge.tick(count, self._now)

    def _mixed(self, frame: EncodedAudio) -> None:
        kind, payload = OPUS, frame.data
        if frame.earlier:
            kind, payload = RED, write_red(OPUS, frame.earlier, frame.data)
        number = frame.pts // FRAME_SAMPLES
        self._down.send("sound", RtpPacket(kind, False, number & 0xFFFF, frame.pts, 3, payload), self._now)

    def _poll(self, count: int) -> None:
        if count % round(CHATTER_S / POLL_S) == 0:
            for way in (self._up, self._down):
                way.back.send(_Asked(CHATTER, ()), self._now)
        if not self._repairs:
            return
        for gaps, way in ((self._gaps_in, self._up), (self._gaps_out, self._down)):
            gaps.set_rtt(2 * DELAY_S)
            way.ask("sound", gaps.due(self._now), self._now)
        self._assembler.set_rtt(2 * DELAY_S)
        self._urge()

    # -- the listener

    def _play(self, packet: RtpPacket) -> None:
        repaired = self._gaps_out.take(packet, self._now)
        for sound in self._red.unpack(packet):
            if sound.repaired:
                self._gaps_out.found(sound, self._now)
            self._bob.push(
                sequence=sound.sequence,
                timestamp=sound.timestamp,
                payload=sound.payload,
                codec="opus",
                now=self._now,
                ssrc=sound.ssrc,
                repaired=repaired or sound.repaired,
            )

    def _listen(self, count: int) -> None:
        self._bob.take(self._now)
        mixed = self._bob.playhead(self._now)
        said = self._bridge.playhead("ann", self._now)
        if mixed is not None and said is not None and count % 10 == 0:
            on_the_way = self._now - mixed / 48_000
            waits = self._now - said[0] / 48_000 * self._said
            self.sound_delays.append((self._now, on_the_way + waits))
            self.mixed_delays.append((self._now, waits))


def _picture(*, keyframe: bool) -> bytes:
    """What the assembler takes for one of VP8 (RFC 6386 section 9.1)."""
    head = b"\x10\x00\x00\x9d\x01\x2a\x80\x02\x68\x01" if keyframe else b"\x11\x00\x00"
    return head.ljust(KEYFRAME_BYTES if keyframe else PICTURE_BYTES, b"\0")
