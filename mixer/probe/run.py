"""One probe, from joining to report. ``mosaique probe`` prints it; the bench drives the same object."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Final

import aiohttp

from mixer.media import AUDIO_CLOCK_HZ, EncodedVideo, VideoCodec
from mixer.probe import signal
from mixer.probe.callers import Caller, Conductor
from mixer.probe.loops import AudioLoop, CameraLoops, prepare
from mixer.probe.observer import Observer, Track
from mixer.probe.report import Figures, spread
from mixer.probe.server import ServerApi
from mixer.probe.signal import Identity
from mixer.video.decoder import DecodeFailed, VideoDecoder
from mixer.video.rendition import RENDITIONS
from mixer.webrtc.client import WebRtcClient

SETTLE_S: Final = 2.0  # jitter buffers find their depth, the last newcomer's tile moves in
LOOK_EVERY_S: Final = 2.0  # others may join or leave and move every tile
FIRST_PICTURE_S: Final = 10.0
_JOINS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. ``viewers``: WHEP sessions, the observer's among them. ``codecs``: what they offer."""

    url: str
    room: str
    token: str | None
    callers: int
    viewers: int
    rendition: str = "high"
    video: bool = True
    follow: bool = True  # callers send what the server asks for, as browsers do
    voiced: bool = False  # callers speak, in Opus with FEC, as browsers do on a line that loses
    bind: str = "127.0.0.1"
    codecs: tuple[VideoCodec, ...] = ("H264", "VP8")

    @property
    def sees(self) -> bool:
        """Whether the observer gets a picture."""
        return self.video and RENDITIONS[self.rendition].has_video if self.rendition != "auto" else self.video


class Viewer:
    """A watcher that decodes one picture, to time it, and from then on only counts."""

    def __init__(self, client: WebRtcClient, clock: Callable[[], float]) -> None:
        self.client = client
        self._clock = clock
        self._started = 0.0
        self.connected_s: float | None = None
        self.first_picture_s: float | None = None
        self._frames: asyncio.Queue[EncodedVideo] = asyncio.Queue(8)

    async def join(self, *, sees: bool) -> None:
        """Offer, connect, decode the first picture. ``TimeoutError`` when none comes."""
        self.client.on_video = self._video
        self._started = self._clock()
        await self.client.start()
        self.connected_s = self._clock() - self._started
        if sees:
            async with asyncio.timeout(FIRST_PICTURE_S):
                await self._first_picture()

    async def _first_picture(self) -> None:
        decoder: VideoDecoder | None = None
        while self.first_picture_s is None:
            frame = await self._frames.get()
            decoder = decoder or VideoDecoder(frame.codec)
            with contextlib.suppress(DecodeFailed):
                if await asyncio.to_thread(decoder.decode, frame):
                    self.first_picture_s = self._clock() - self._started

    def _video(self, frame: EncodedVideo, now: float) -> None:
        if self.first_picture_s is None:
            with contextlib.suppress(asyncio.QueueFull):
                self._frames.put_nowait(frame)


class Probe:
    """Callers and viewers in one room. ``join`` once, then ``measure`` as often as wanted, then ``close``."""

    def __init__(self, http: aiohttp.ClientSession, plan: Plan) -> None:
        self.plan = plan
        self.api = ServerApi(http, plan.url, plan.room, plan.token)
        self._http = http
        self._clock = asyncio.get_running_loop().time
        self._conductor = Conductor(self._clock)
        self._callers: list[Caller] = []
        self._viewers: list[Viewer] = []
        self._observer: Observer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._connects_s: list[float] = []
        self._lost: list[str] = []

    @property
    def callers(self) -> Sequence[Caller]:
        """Who is in."""
        return tuple(self._callers)

    async def join(self, loops: Sequence[tuple[CameraLoops | None, AudioLoop]]) -> None:
        """Everybody in. Raises ``Refused``, ``TimeoutError``, ``ConnectionError``, ``aiohttp.ClientError``."""
        await self.api.ensure_room()
        for index, (camera, audio) in enumerate(loops):
            await self._join_caller(Identity(index), camera, audio)
        self._conductor.add(self._callers)
        self._tasks.append(asyncio.create_task(self._conductor.play(), name="probe-play"))
        if self._callers:
            await self._join_viewers()
        if self._observer is not None:
            self._tasks.append(asyncio.create_task(self._observer.run(), name="probe-observer"))
            self._tasks.append(asyncio.create_task(self._look_around(self._observer), name="probe-wall"))

    async def _join_caller(self, who: Identity, camera: CameraLoops | None, audio: AudioLoop) -> None:
        entry = await self.api.enter(who.name)
        client = WebRtcClient(
            self._http,
            self.api.whip_url(),
            token=entry.token,
            direction="sendonly",
            video=("VP8",) if camera is not None else (),
            bind=self.plan.bind,
        )
        caller = Caller(who, entry, client, camera, audio)
        started = self._clock()
        await client.start()
        self._connects_s.append(self._clock() - started)
        client.on_lost = self._losing(who.name)
        self._callers.append(caller)

    def _losing(self, name: str) -> Callable[[str], None]:
        def lost(reason: str) -> None:
            self._lost.append(f"{name}: {reason}")

        return lost

    def _viewer(self, index: int) -> Viewer:
        ears = self._callers[index % len(self._callers)]
        client = WebRtcClient(
            self._http,
            self.api.whep_url(self.plan.rendition),
            token=ears.entry.token,
            direction="recvonly",
            video=self.plan.codecs if self.plan.sees else (),
            assemble=True,
            bind=self.plan.bind,
        )
        return Viewer(client, self._clock)

    async def time_a_join(self) -> float | None:
        """One more viewer comes and goes: seconds from POST to its first decoded picture, None if none came."""
        viewer = self._viewer(0)
        try:
            await viewer.join(sees=self.plan.sees)
        except (ConnectionError, TimeoutError, aiohttp.ClientError):
            return None
        finally:
            await viewer.client.close()
        return viewer.first_picture_s

    async def _join_viewers(self) -> None:
        """The observer first, with the first caller's ears; the others each with a caller's, in turn."""
        gate = asyncio.Semaphore(_JOINS_AT_ONCE)
        self._viewers = [self._viewer(index) for index in range(self.plan.viewers)]

        async def join(viewer: Viewer) -> None:
            async with gate:
                await viewer.join(sees=self.plan.sees)

        async with asyncio.TaskGroup() as group:
            for viewer in self._viewers:
                group.create_task(join(viewer))
        if not self._viewers:
            return
        first, *others = self._viewers
        for viewer in others:
            viewer.client.stop_assembling()
        for number, viewer in enumerate(self._viewers, 1):
            viewer.client.on_lost = self._losing(f"viewer {number}")
        self._observer = Observer(first.client, self._callers, self._callers[0])
        first.client.request_keyframe()

    async def _look_around(self, observer: Observer) -> None:
        while True:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await self._look(observer)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, observer: Observer) -> None:
        observer.look_at(await self.api.wall(), self._clock())

    async def measure(self, seconds: float, *, stop: asyncio.Event | None = None) -> Figures:
        """Watch for ``seconds`` (or until ``stop``), after a moment to settle."""
        stop = stop or asyncio.Event()
        await _until(stop, SETTLE_S)
        invented_s = await self._invented_s()
        started = self._clock()
        observer = self._observer
        if observer is not None:
            observer.begin(started)
        received = [viewer.client.bytes_received for viewer in self._viewers]
        self._conductor.late_s.clear()
        await _until(stop, seconds)
        ended = self._clock()
        invented_by_end_s = await self._invented_s()
        if observer is not None:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await self._look(observer)
        gained = [
            viewer.client.bytes_received - before
            for viewer, before in zip(self._viewers, received, strict=True)
        ]
        found = self._figures(started, ended, gained)
        if invented_s is None or invented_by_end_s is None:
            return found
        share = (invented_by_end_s - invented_s) / found.seconds / len(self._callers)
        return replace(found, concealed_in_percent=share * 100)

    async def _invented_s(self) -> float | None:
        """Seconds of sound that the server has invented for our callers so far; None: it does not tell."""
        participants = (await self.api.stats()).get("participants", {})
        told = [participants.get(caller.entry.sub, {}).get("concealed_samples") for caller in self._callers]
        return None if None in told else sum(told) / AUDIO_CLOCK_HZ

    def _figures(self, started: float, ended: float, gained: Sequence[int]) -> Figures:
        elapsed = max(ended - started, 1e-9)
        observer = self._observer
        tracks = observer.tracks if observer is not None else []
        video = [delay for track in tracks for delay in track.video_delays]
        # the observer has the first caller's ears: that one's own voice must not be there to be timed
        heard = {track.caller.identity.index: _pip_delays(track) for track in tracks[1:]}
        audio = [delay for delays in heard.values() for delay in delays]
        middle_video, high_video = spread(video)
        middle_audio, high_audio = spread(audio)
        joins = [viewer.first_picture_s for viewer in self._viewers if viewer.first_picture_s is not None]
        frozen = [track.frozen_share(track.changes, started, ended) for track in tracks]
        stalled = [track.frozen_share(track.arrivals, started, ended) for track in tracks]
        skews = [skew for track in tracks[1:] if (skew := _skew_s(track)) is not None]
        return Figures(
            callers=len(self._callers),
            viewers=len(self._viewers),
            seconds=round(elapsed, 2),
            seen=sum(1 for track in tracks if track.video_delays),
            heard=sum(1 for delays in heard.values() if delays),
            video_p50_ms=middle_video,
            video_p95_ms=high_video,
            audio_p50_ms=middle_audio,
            audio_p95_ms=high_audio,
            skew_ms=max(skews, key=abs) * 1000 if skews else None,
            loss_percent=self._worst_loss() * 100,
            frozen_percent=self._percent(frozen),
            stalled_percent=self._percent(stalled),
            echo_db=max(observer.echo_db) if observer is not None and observer.echo_db else None,
            concealed_out_percent=observer.concealed_share * 100 if observer is not None else None,
            video_growth_ms=_growth_ms([list(track.video_delays) for track in tracks]),
            audio_growth_ms=_growth_ms(list(heard.values())),
            join_p50_ms=spread(joins)[0],
            join_p95_ms=spread(joins)[1],
            connect_p95_ms=spread(self._connects_s)[1],
            fps=observer.pictures / elapsed if observer is not None and self.plan.sees else None,
            kbps_per_viewer=sum(gained) * 8 / 1000 / elapsed / len(gained) if gained else None,
            late_p95_ms=spread(self._conductor.late_s)[1],
            pictures=len(video),
            pips=len(audio),
            lost_sessions=tuple(self._lost),
        )

    def _percent(self, shares: Sequence[float | None]) -> float | None:
        """The mean of those whose tiles were shown."""
        known = [share for share in shares if share is not None]
        return fmean(known) * 100 if known and self.plan.sees else None

    def _worst_loss(self) -> float:
        ways_in = [caller.client.sent_loss(kind) for caller in self._callers for kind in caller.client.sends]
        ways_out = [
            viewer.client.received_loss(kind) for viewer in self._viewers for kind in ("audio", "video")
        ]
        return max((loss.share for loss in (*ways_in, *ways_out)), default=0.0)

    async def close(self) -> None:
        """Everybody out; safe at any point."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        clients = [viewer.client for viewer in self._viewers] + [caller.client for caller in self._callers]
        await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)


@contextlib.asynccontextmanager
async def opened(plan: Plan) -> AsyncIterator[Probe]:
    """A probe whose callers have joined; everybody leaves at the end, whatever happened."""
    identities = [Identity(index) for index in range(plan.callers)]
    loops = await asyncio.to_thread(
        prepare, identities, video=plan.video, follow=plan.follow, voiced=plan.voiced
    )
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        probe = Probe(http, plan)
        try:
            await probe.join(loops)
            yield probe
        finally:
            await probe.close()


async def _until(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


def _growth_ms(delays_s: Sequence[Sequence[float]]) -> float | None:
    """Mean over callers of how much more the median delay is in the second half; None: nobody has two halves."""
    halves = [(delays[: len(delays) // 2], delays[len(delays) // 2 :]) for delays in delays_s]
    grown = [median(after) - median(before) for before, after in halves if before]
    return fmean(grown) * 1000 if grown else None


def _pip_delays(track: Track) -> list[float]:
    return signal.match_delays(list(track.caller.pips_sent), sorted(track.heard_at))


def _skew_s(track: Track) -> float | None:
    """Picture after sound, both by the server's own clock: what a player that synchronises will show."""
    video = signal.percentile(track.video_sender_delays, 50)
    sent, said = list(track.caller.pips_sent), sorted(track.heard_sender_at)
    if video is None or not sent or not said:
        return None
    # The server's clock is the wall's, ours is not: bring the sound near ours by what the picture showed, so
    # that the matcher, which knows no negative delays, can work; 1 s keeps it positive.
    shift = video - 1.0
    audio = signal.percentile(signal.match_delays(sent, [time - shift for time in said]), 50)
    return None if audio is None else 1.0 - audio
