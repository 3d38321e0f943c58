"""What the room makes of a sender whose clocks run apart: its tracks, and the film; how far apart they are.

The film is what the real bridge gives its recorder, and the time at which the real intake shows a picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixer.audio import g711
from mixer.audio.bridge import AudioBridge
from mixer.intake import Intake
from mixer.media import AUDIO_CLOCK_HZ, AudioCodec, EncodedVideo
from mixer.protocol import RosterEntry
from mixer.track_tap import TrackTap
from mixer.video.canvas import Canvas
from mixer.video.layout import LayoutBody
from recording.tracks import TrackFrame, TrackSource
from tests.fakes.drift import DriftingSender

WHO = "ann"
_BEFORE_S = 5.0  # a recording begins when the call has been going for a while


@dataclass
class TrackSkews:
    """Picture after sound in seconds, of frames of one moment; and by how much both come after it was taken."""

    skews: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    @property
    def end_s(self) -> float:
        """The mean of the last hundred."""
        return float(np.mean(self.skews[-100:]))


def track_skews(sender: DriftingSender, seconds: float, *, every: int) -> TrackSkews:
    """Of the tracks as the tap writes them, from ``_BEFORE_S`` on."""
    found = TrackSkews()
    now = 0.0
    truth: dict[str, float] = {}
    latest: dict[str, float] = {}  # by kind: placed after taken

    def write(source: TrackSource, frame: TrackFrame, pts: int) -> None:
        late = pts / 90_000 - truth[source.kind]
        latest[source.kind] = late
        if now > _BEFORE_S:
            found.late.append(late)
            if source.kind == "camera" and "voice" in latest:
                found.skews.append(late - latest["voice"])

    tap = TrackTap(write, origin_s=0.0)
    tap.join(RosterEntry(id=WHO, name=WHO))
    for arrival in sender.arrivals(seconds, every=every):
        now = arrival.arrived
        truth[arrival.kind] = arrival.taken
        taken_s = sender.taken_s(arrival.kind, arrival.rtp)
        if arrival.kind == "voice":
            packet: Any = SimpleNamespace(ssrc=1, timestamp=arrival.rtp & 0xFFFFFFFF, payload=b"\xf8ab")
            codec: AudioCodec = "opus" if sender.sound_hz == AUDIO_CLOCK_HZ else "PCMU"
            tap.heard(WHO, packet, codec, taken_s=taken_s, now=now, wait_ms=40.0)
        else:
            tap.saw(
                WHO, EncodedVideo("VP8", b"x", arrival.rtp, False), screen=False, taken_s=taken_s, now=now
            )
    return found


class _Peer:
    receives_audio = "PCMU"
    receives_video = "VP8"

    def __init__(self, sender: DriftingSender) -> None:
        self._sender = sender

    def sender_time(self, kind: str, timestamp: int, *, screen: bool = False) -> float | None:
        report = self._sender._reports.get("voice" if kind == "audio" else "camera")
        if report is None:
            return None
        rate = self._sender.sound_hz if kind == "audio" else 90_000
        ahead = ((timestamp - report[1] + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        return report[0] + ahead / rate


def film_skews(sender: DriftingSender, seconds: float, *, every_s: int) -> list[float]:
    """Picture after sound in the film, at a burst of sound each ``every_s``: seconds. Needs a running loop."""
    now = 0.0
    bridge = AudioBridge()
    intake = Intake(bridge, Canvas(LayoutBody()), clock=lambda: now)
    connection: Any = SimpleNamespace(
        participant=RosterEntry(id=WHO, name=WHO), peer=_Peer(sender), closed=False
    )
    intake.add(connection.participant, connection)
    tone = g711.encode_pcmu((0.05 * np.sin(2 * np.pi * np.arange(160) / 20)).astype(np.float32))  # 400 Hz
    burst = g711.encode_pcmu((0.9 * np.sin(2 * np.pi * np.arange(160) / 20)).astype(np.float32))
    bursts = _Bursts()
    bridge.set_recorder(bursts.listen)
    every = every_s * 50
    taken: list[float] = []
    shown: list[tuple[float, float]] = []  # taken, shown
    tick = 0
    for arrival in sender.arrivals(seconds):
        while tick * 0.02 <= arrival.arrived:
            now = tick * 0.02
            bridge.tick(tick, now)
            tick += 1
        now = arrival.arrived
        if arrival.kind == "camera":
            frame = EncodedVideo("VP8", b"", arrival.rtp, False)
            due = intake._due(WHO, connection, frame, screen=False)
            if taken and abs(arrival.taken - taken[-1]) < 0.5:
                shown.append((arrival.taken, due + 0.5 / 30))  # decoded, and at the canvas's next tick
            continue
        loud = arrival.number % every == every - 25
        if loud:
            taken.append(arrival.taken)
        packet: Any = SimpleNamespace(
            ssrc=1, sequence=arrival.number & 0xFFFF, timestamp=arrival.rtp & 0xFFFFFFFF,
            payload=burst if loud else tone, extensions={}, repaired=False
        )  # fmt: skip
        connection.peer.audio_level_id = None
        intake.heard(connection, packet, "PCMU", now)
    intake.close()
    found = []
    for heard in bursts.heard:
        said = min(taken, key=lambda at: abs(at - heard))
        near = [(abs(at - said), seen - at) for at, seen in shown if abs(at - said) < 0.1]
        if near:
            found.append(min(near)[1] - (heard - said))
    return found


class _Bursts:
    """Hears when a burst begins, in seconds of the film's sound."""

    def __init__(self) -> None:
        self.heard: list[float] = []

    def listen(self, pcm: NDArray[np.float32], pts: int) -> None:
        loud = np.flatnonzero(np.abs(pcm) > 0.3) if pcm.max() > 0.3 else ()
        if len(loud):
            at = (pts + int(loud[0])) / AUDIO_CLOCK_HZ
            if not self.heard or at - self.heard[-1] > 1.0:
                self.heard.append(at)
