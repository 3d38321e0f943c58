"""Synthetic callers: each plays its loop on time, and remembers when it sent what."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from mixer.media import FRAME_SAMPLES, TICK_S, VIDEO_CLOCK_HZ
from mixer.probe import signal
from mixer.probe.loops import AUDIO_BPS, AudioLoop, CameraLoops
from mixer.probe.server import Pass
from mixer.probe.signal import Identity
from mixer.webrtc.client import WebRtcClient

_KEPT_PIPS: Final = 4096  # an hour of one caller
_KEPT_LATE: Final = 50_000
_SOUND_BPS: Final = AUDIO_BPS + 26_000  # with its headers: 64 bytes a packet of 20 ms
_GIVE_UP_S: Final = 0.5  # behind by more than this, a schedule starts anew instead of bursting


class Caller:
    """One publisher. ``sent_at``: when each picture of the loop was sent last (loop time, None: never yet).

    It sends the best of its camera's loops that the server's REMB has room for, as a browser does; ``switches``
    counts how often that was another one.
    """

    def __init__(
        self,
        identity: Identity,
        entry: Pass,
        client: WebRtcClient,
        camera: CameraLoops | None,
        audio: AudioLoop,
    ) -> None:
        self.identity = identity
        self.entry = entry
        self.client = client
        self.sent_at: list[float | None] = [None] * signal.LOOP_FRAMES
        self.pips_sent: deque[float] = deque(maxlen=_KEPT_PIPS)
        self.switches = 0
        self._camera = camera
        self._video = camera.loops[0] if camera is not None else None
        self._audio = audio
        self._picture = 0
        self._pictures_sent = 0
        self._packet = identity.index * 37 % signal.LOOP_PACKETS  # not everyone pips at once
        self._packets_sent = 0
        self._keyframe_wanted = False
        self._edges: dict[int, float] = {
            int(edge) // FRAME_SAMPLES: edge % FRAME_SAMPLES / 48_000 for edge in audio.edges
        }
        client.on_keyframe_request = self._want_keyframe
        client.on_estimate = self._allowed

    def _allowed(self, bitrate_bps: int) -> None:
        """Another loop begins at one of its keyframes, which is what a browser's encoder makes then."""
        if self._camera is None:
            return
        loop = self._camera.fitting(bitrate_bps - _SOUND_BPS)
        if loop is not self._video:
            self._video = loop
            self._keyframe_wanted = True
            self.switches += 1

    def _want_keyframe(self) -> None:
        self._keyframe_wanted = True

    def send_picture(self, now: float) -> None:
        if self._video is None:
            return
        if self._keyframe_wanted:
            self._keyframe_wanted = False
            self._picture = self._video.next_keyframe(self._picture)
        timestamp = self._pictures_sent * VIDEO_CLOCK_HZ // signal.FPS
        self.client.send_video(self._video.pictures[self._picture], timestamp=timestamp)
        self.sent_at[self._picture] = now
        self._picture = (self._picture + 1) % signal.LOOP_FRAMES
        self._pictures_sent += 1

    def send_sound(self, now: float) -> None:
        self.client.send_audio(
            self._audio.packets[self._packet],
            timestamp=self._packets_sent * FRAME_SAMPLES,
            marker=self._packets_sent == 0,  # RFC 7587 section 4.2: the first packet of a talkspurt
        )
        edge_s = self._edges.get(self._packet)
        if edge_s is not None:
            self.pips_sent.append(now + edge_s)
        self._packet = (self._packet + 1) % signal.LOOP_PACKETS
        self._packets_sent += 1


class Conductor:
    """Plays all callers from one task: a heap of due times, so that nine callers are not eighteen timers.

    ``late_s``: how far behind its time each sending was; the honest half of any latency figure.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, float, Callable[[float], None]]] = []
        self.late_s: deque[float] = deque(maxlen=_KEPT_LATE)
        self.skipped = 0

    def add(self, callers: Iterable[Caller]) -> None:
        """Spread the callers over one picture's time, as people's cameras are."""
        start = self._clock() + 0.05
        everyone = list(callers)
        for place, caller in enumerate(everyone):
            offset = place / len(everyone) / signal.FPS
            heapq.heappush(
                self._due, (start + offset, next(self._numbers), 1 / signal.FPS, caller.send_picture)
            )
            heapq.heappush(self._due, (start + offset, next(self._numbers), TICK_S, caller.send_sound))

    async def play(self) -> None:
        """Until cancelled."""
        while self._due:
            await asyncio.sleep(max(0.0, self._due[0][0] - self._clock()))
            now = self._clock()
            while self._due[0][0] <= now:
                due, number, period, send = self._due[0]
                self.late_s.append(now - due)
                after = due + period
                if now - due > _GIVE_UP_S:
                    self.skipped += 1
                    after = now + period
                heapq.heapreplace(self._due, (after, number, period, send))
                send(self._clock())
