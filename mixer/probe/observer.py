"""The one viewer that looks and listens: decodes the mix, finds every caller's counter and pips in it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import av
import numpy as np
import numpy.typing as npt

from mixer.errors import MalformedPacket
from mixer.media import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, EncodedVideo
from mixer.probe import signal
from mixer.probe.callers import Caller
from mixer.probe.display import Display
from mixer.probe.ear import Ear
from mixer.probe.server import Wall
from mixer.probe.signal import PipFinder, Rect
from mixer.probe.stay import Stay
from mixer.rtp.packet import RtpPacket
from mixer.video.decoder import DecodeFailed, VideoDecoder
from mixer.webrtc.client import WebRtcClient

_QUEUE: Final = 60  # pictures waiting to be decoded; two seconds behind means this machine is too slow
_ASK_AGAIN_S: Final = 0.5
_ECHO_WINDOW_S: Final = 2
_LONGEST_S: Final = 3.0  # counters repeat after LOOP_S
_KEPT: Final = 20_000


@dataclass(slots=True)
class Track:
    """What was seen and heard of one caller. Delays in seconds; ``changes``: when a player would have shown that
    its counter moved, ``arrivals``: when that came."""

    caller: Caller
    finder: PipFinder
    video_delays: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    video_sender_delays: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    changes: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    heard_at: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    heard_sender_at: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    stay: Stay = field(default_factory=Stay)
    counter: int | None = None

    def frozen_share(self, times: Sequence[float], start: float, end: float) -> float | None:
        """0.0 … 1.0 of the time from ``start`` to ``end`` in which the tile is known to have been shown; None: it
        was not. ``times``: `changes` or `arrivals`."""
        spans = self.stay.within(start, end)
        shown = sum(until - since for since, until in spans)
        if not shown:
            return None
        stood = (
            signal.frozen_s([at for at in times if since <= at <= until], since, until)
            for since, until in spans
        )
        return sum(stood) / shown


class Observer:
    """Attach to a client before it starts; ``run`` decodes until cancelled.

    ``ears_of``: the caller whose mix this is, and whose own tone must not be in it.
    """

    def __init__(self, client: WebRtcClient, callers: Sequence[Caller], ears_of: Caller | None) -> None:
        self._client = client
        self.tracks = [Track(caller, PipFinder(caller.identity.tone_hz)) for caller in callers]
        self._ears_of = ears_of
        self._wall: Wall | None = None
        self._pictures: asyncio.Queue[EncodedVideo] = asyncio.Queue(_QUEUE)
        self._decoder: VideoDecoder | None = None
        self._display = Display()
        self._ask_at = 0.0
        self.ear = Ear()
        self._ear_then = (0, 0)
        self._echo_block: list[npt.NDArray[np.float32]] = []
        self._echo_samples = 0
        self.echo_db: list[float] = []
        self.pictures = 0
        self.dropped = 0
        self.measuring_since: float | None = None
        client.on_video = self._video
        client.on_audio = self._audio

    def look_at(self, wall: Wall, now: float) -> None:
        """Where the tiles are from now on."""
        self._wall = wall
        for track in self.tracks:
            track.stay.look(wall.tiles.get(track.caller.entry.sub), now)

    def begin(self, now: float) -> None:
        """Forget what was gathered while everybody was joining; measure from here."""
        self.measuring_since = now
        self._ear_then = self.ear.samples, self.ear.concealed
        self.pictures = 0
        self.echo_db.clear()
        self._echo_block.clear()
        self._echo_samples = 0
        for track in self.tracks:
            for gathered in (track.video_delays, track.video_sender_delays, track.changes, track.arrivals):
                gathered.clear()
            track.heard_at.clear()
            track.heard_sender_at.clear()

    @property
    def concealed_share(self) -> float:
        """0.0 … 1.0 of the sound since `begin` that was lost on the way here for good."""
        samples, concealed = (
            now - then
            for now, then in zip((self.ear.samples, self.ear.concealed), self._ear_then, strict=True)
        )
        return concealed / samples if samples else 0.0

    # -- picture

    def _video(self, frame: EncodedVideo, now: float) -> None:
        try:
            self._pictures.put_nowait(frame)
        except asyncio.QueueFull:
            self.dropped += 1
            self._decoder = None  # what follows refers to what was dropped
            self._client.request_keyframe()

    async def run(self) -> None:
        """Decode in a thread, one picture after another."""
        while True:
            frame = await self._pictures.get()
            if self._decoder is None:
                if not frame.keyframe:
                    self._ask_again()
                    continue
                self._decoder = VideoDecoder(frame.codec)
            try:
                shown = await asyncio.to_thread(_decode, self._decoder, frame)
            except DecodeFailed:
                self._decoder = None
                self._client.request_keyframe()
                continue
            for at, picture in shown:
                self.pictures += 1
                self._look(picture, at, frame.pts)

    def _ask_again(self) -> None:
        """A request gets lost like anything else, and so does its keyframe."""
        now = time.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + _ASK_AGAIN_S
            self._client.request_keyframe()

    def _look(self, picture: av.VideoFrame, at: float, pts: int) -> None:
        shown_at = self._display.show(at, pts / VIDEO_CLOCK_HZ)
        wall = self._wall
        if wall is None:
            return
        fit: Literal["cover", "contain"] = "contain" if wall.contain else "cover"
        plane = picture.planes[0]
        luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:, : picture.width]
        across, down = picture.width / wall.width, picture.height / wall.height
        for track in self.tracks:
            place = wall.tiles.get(track.caller.entry.sub)
            if place is None:
                continue
            counter = signal.read_counter(luma, _scaled(place, across, down), fit)
            if counter is None or counter == track.counter:
                continue
            track.counter = counter
            sent = track.caller.sent_at[counter]
            if sent is None or not 0 <= at - sent <= _LONGEST_S:
                continue
            track.changes.append(shown_at)
            track.arrivals.append(at)
            track.video_delays.append(at - sent)
            shown = self._client.sender_time("video", pts)
            if shown is not None:
                track.video_sender_delays.append(shown - sent)

    # -- sound

    def _audio(self, packet: RtpPacket, now: float) -> None:
        try:
            samples = self.ear.feed(packet, now)
        except MalformedPacket:
            self.dropped += 1
            return
        for track in self.tracks:
            for edge in track.finder.feed(samples):
                self._heard(track, edge)
        if self._ears_of is not None and self.measuring_since is not None:
            self._echo_block.append(samples)
            self._echo_samples += samples.size
            if self._echo_samples >= _ECHO_WINDOW_S * AUDIO_CLOCK_HZ:
                self._judge_echo(self._ears_of)

    def _heard(self, track: Track, edge: float) -> None:
        """Turn a place among the decoded samples into when it came, here and on the sender's clock."""
        found = self.ear.arrival(edge)
        if found is None:
            return
        arrival, timestamp = found
        track.heard_at.append(arrival)
        said = self._client.sender_time("audio", timestamp)
        if said is not None:
            track.heard_sender_at.append(said)

    def _judge_echo(self, caller: Caller) -> None:
        block = np.concatenate(self._echo_block)
        self._echo_block.clear()
        self._echo_samples = 0
        sent_db = 20 * float(np.log10(signal.TONE_LEVEL))
        self.echo_db.append(signal.tone_level_db(block, caller.identity.tone_hz) - sent_db)


def _decode(decoder: VideoDecoder, frame: EncodedVideo) -> list[tuple[float, av.VideoFrame]]:
    pictures = decoder.decode(frame)
    now = time.monotonic()  # the loop's clock, read in the thread the moment the picture is there
    return [(now, picture) for picture in pictures]


def _scaled(place: Rect, across: float, down: float) -> Rect:
    if across == 1 and down == 1:
        return place
    return Rect(
        round(place.x * across),
        round(place.y * down),
        round(place.width * across),
        round(place.height * down),
    )
