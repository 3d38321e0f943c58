"""One live room: its people, its connections, the audio bridge, the canvas, the recorder, and the two ticks.

Everything but the canvas tick, decoding and disk writes happens on the loop thread. Media time is counted
from ``origin`` (monotonic seconds): audio tick k is sample 960·k, picture n is n/fps, both zero at the origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from mixer import protocol
from mixer.audio.bridge import AudioBridge
from mixer.connection import Connection
from mixer.distribution import Distribution
from mixer.errors import Conflict, InvalidBody, MosaiqueError, NotFound
from mixer.intake import SCREEN_SUFFIX, Intake
from mixer.journal import RoomJournal
from mixer.load_watch import LoadWatch
from mixer.media import TICK_S, VIDEO_CLOCK_HZ, EncodedVideo
from mixer.overload import reduced
from mixer.protocol import RosterEntry
from mixer.room_recording import RoomRecording
from mixer.ticks import TickSchedule
from mixer.video.canvas import Canvas
from mixer.video.demand import demands
from mixer.video.frame_clock import FrameClock
from mixer.video.layout import LayoutBody, Source, Tile, arrange, predict_cost
from mixer.video.rendition import RENDITIONS, Rendition
from mixer.webrtc.peers import PeerFactory

log = structlog.get_logger(__name__)

AUDIO_SLACK_TICKS: Final = 2
# 40 ms, the least that any receiver's playout waits: a frame that late is still heard, one left out is a click.

SPEAKING_POLL_TICKS: Final = (
    10  # 200 ms: faster than a border can be noticed, slow enough for an event stream
)


class Session:
    """See the module. ``say`` sends an event to control."""

    def __init__(self, state: protocol.RoomState, say: Callable[[protocol.Event], None]) -> None:
        self._state = state
        self._say = say
        self._origin = time.monotonic()
        self._layout_version = state.layout_version
        self._layout = state.layout
        self._held = state.layout  # the same within the bounds of the load's step
        self._roster: dict[str, RosterEntry] = {}
        self._connections: dict[str, Connection] = {}
        self._speaker: str | None = None
        self._recorded_speaker: str | None = None  # the last one who may be recorded
        self._speaking: tuple[str, ...] = ()
        self._seen: list[Tile] = []  # tiles with a picture that moves
        self._bridge = AudioBridge()
        self._canvas = Canvas(state.layout)
        self._audio_ticks = TickSchedule(self._origin, round(1 / TICK_S), slack=AUDIO_SLACK_TICKS)
        self._frame_clock = FrameClock(self._canvas, self._origin)
        self._intake = Intake(self._bridge, self._canvas)
        self.heard = self._intake.heard  # what connections say (ConnectionRoom): a packet of voice
        self._distribution = Distribution(self._bridge, self._canvas, self._frame_clock)
        self._recording = RoomRecording(
            self._bridge, self._distribution, self._intake, say, self._pts, origin_s=self._origin
        )
        self._journal = RoomJournal(self._recording.note)
        self._journal.layout(state.layout_version, state.layout)
        self._load = LoadWatch(
            self._audio_ticks,
            self._frame_clock,
            self._intake,
            state.settings.cpu_cores,
            acts=state.settings.overload == "act",
        )
        self._factory = PeerFactory(
            host=state.settings.host,
            ports=range(state.settings.udp_ports[0], state.settings.udp_ports[1] + 1),
            public_ip=state.settings.public_ip,
            origin=self._origin,
        )
        self._audio_task: asyncio.Task[None] | None = None
        self._stopped = False

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the sockets, start both ticks, take over the roster and the live recording of a lost worker."""
        await self._factory.start()
        for entry in self._state.roster:
            self._roster[entry.id] = entry
            if entry.publishes:
                self._journal.joined(entry)
        self._rearrange()
        self._audio_ticks.resume(time.monotonic())
        self._audio_task = asyncio.create_task(self._run_audio(), name="audio tick")
        self._frame_clock.start()
        if self._state.recording is not None:
            await self._recording.carry_on(self._state.recording, self._introduce)

    async def stop(self, reason: str) -> None:
        """Seal the recording, hang everybody up, end the threads. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        await self._recording.stop()
        for connection in list(self._connections.values()):
            await connection.peer.close(reason)
        if self._audio_task is not None:
            self._audio_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._audio_task
        await asyncio.to_thread(self._frame_clock.stop)
        await self._factory.close()
        self._intake.close()

    # --- requests -------------------------------------------------------------------------------------------

    async def handle(self, request: protocol.Request) -> protocol.Answer:
        """Answer one request of control. Raises ``MosaiqueError``."""
        match request:
            case protocol.Offer():
                return protocol.OfferAnswer(sdp=await self._offer(request))
            case protocol.GetPreview():
                return await self._preview(request.layout, request.picture)
            case protocol.GetSnapshot():
                return protocol.Snapshot(png=await asyncio.to_thread(self._canvas.snapshot_png))
            case protocol.GetMedia():
                return protocol.Media(sockets=self._factory.media_sockets())
            case protocol.GetStats():
                return protocol.Stats(body=self.stats())
            case _:
                await self._obey(request)
                return protocol.Done()

    async def _obey(self, command: protocol.Request) -> None:
        match command:
            case protocol.Trickle():
                self._connection(command.session).peer.add_candidates(command.fragment)
            case protocol.HangUp():
                await self._hang_up(self._connection(command.session), command.reason)
            case protocol.SetLayout():
                self._set_layout(command.version, command.layout)
            case protocol.SetParticipant():
                self._set_participant(command.participant)
            case protocol.RemoveParticipant():
                await self._remove_participant(command.participant)
            case protocol.StartRecording():
                await self._recording.start(command.recording, self._introduce)
            case protocol.ChangeRecording():
                await self._recording.change(command.id, command.state)
                self._rearrange()
            case protocol.Drain():
                await self.stop(command.reason)

    def _connection(self, session: str) -> Connection:
        try:
            return self._connections[session]
        except KeyError:
            raise NotFound("there is no such session: it ended, or its room was restarted") from None

    async def _offer(self, request: protocol.Offer) -> str:
        if request.rendition != "auto" and request.rendition not in RENDITIONS:
            names = ", ".join(["auto", *RENDITIONS])
            raise InvalidBody(
                f"there is no rendition {request.rendition!r}: take one of {names}",
                [{"loc": ["query", "rendition"], "msg": f"one of {names}"}],
            )
        connection = Connection(
            room=self,
            session=request.session,
            participant=request.participant,
            publishes=request.publish,
            asked=request.rendition,
            minus=request.minus,
        )
        try:
            answer = await connection.answer(self._factory, request.sdp)
        except MosaiqueError:
            connection.closed = True
            await connection.peer.close("the offer could not be answered")
            raise
        if connection.closed:
            raise Conflict("the connection was closed while its offer was being answered")
        self._connections[request.session] = connection
        if request.publish:
            self._publish(connection)
        return answer

    # --- people ---------------------------------------------------------------------------------------------

    def _publish(self, connection: Connection) -> None:
        """From now on this connection is the participant's voice and picture."""
        entry = connection.participant
        before = self._roster.get(entry.id)
        known = before or entry
        entry = known.model_copy(update={"publishes": True, "recorded": known.recorded and entry.recorded})
        self._roster[entry.id] = entry
        self._intake.add(entry, connection)
        if before is None or not before.publishes:
            self._journal.joined(entry)
        else:
            self._journal.changed(entry)
        self._rearrange()

    def _set_participant(self, entry: RosterEntry) -> None:
        before = self._roster.get(entry.id)
        if before is None:
            return
        if self._intake.publishes(entry.id):
            # control may not have heard yet of the connection that publishes: its word is from before that
            entry = entry.model_copy(update={"publishes": True})
        self._roster[entry.id] = entry
        self._intake.change(entry)
        if not entry.recorded and self._recorded_speaker == entry.id:
            self._recorded_speaker = None
            self._journal.speaker(None)
        self._journal.changed(entry)
        self._rearrange()

    async def _remove_participant(self, participant: str) -> None:
        entry = self._roster.pop(participant, None)
        for connection in [c for c in self._connections.values() if c.participant.id == participant]:
            await self._hang_up(connection, "the participant has left")
        if entry is not None and entry.publishes:
            self._journal.left(participant)
            self._recording.left(participant)
        self._rearrange()

    async def _hang_up(self, connection: Connection, reason: str) -> None:
        connection.closed = True  # control asked for it: no event back
        self._drop(connection)
        await connection.peer.close(reason)

    def _drop(self, connection: Connection) -> None:
        self._connections.pop(connection.session, None)
        self._distribution.unsubscribe(connection)
        self._intake.remove(connection)
        self._rearrange()

    # --- layout ---------------------------------------------------------------------------------------------

    def _sources(self) -> list[Source]:
        sources = []
        for entry in self._roster.values():
            if not entry.publishes:
                continue
            has_video = self._intake.has_picture(entry.id) and not entry.video_muted
            sources.append(Source(entry.id, entry.name, entry.kind, has_video=has_video, muted=entry.muted))
            screen = entry.id + SCREEN_SUFFIX
            if self._intake.has_picture(screen):
                sources.append(Source(screen, entry.name, entry.kind, has_video=True, screen=True))
        return sources

    def _rearrange(self) -> None:
        """Compute the tiles again; the canvas takes them at its next tick."""
        sources = self._sources()
        self._held = reduced(self._layout, self._load.step)
        tiles = arrange(self._held, sources, self._speaker)
        self._canvas.set_arrangement(self._layout_version, self._held, tiles, sources)
        moving = {source.id for source in sources if source.has_video}
        recorded = self._arrange_recorded(sources)
        self._seen = [tile for tile in (*tiles, *recorded) if tile.participant in moving]
        self._ask_senders()

    def _arrange_recorded(self, sources: list[Source]) -> tuple[Tile, ...]:
        """What is recorded, where that is another picture than the room's: without those who refuse."""
        refused = frozenset(entry.id for entry in self._roster.values() if not entry.recorded)
        willing = [source for source in sources if source.id.removesuffix(SCREEN_SUFFIX) not in refused]
        self._journal.sources(willing)
        apart = bool(refused) and self._recording.live
        tiles = arrange(self._held, willing, self._recorded_speaker) if apart else None
        self._canvas.set_apart(self._held, tiles, willing)
        self._recording.leave_out(refused)
        return tiles or ()

    def _ask_senders(self) -> None:
        """Tell who sends a picture how much of it is seen; viewers that come and go change that too."""
        canvas = self._held.canvas
        size = canvas.width, canvas.height, canvas.fps
        wanted = demands(self._seen, size, self._distribution.renditions, SCREEN_SUFFIX, self._intake.sizes)
        now = time.monotonic()
        self._intake.show(wanted, now)
        for source, reason in self._intake.refusals(now):
            participant = source.removesuffix(SCREEN_SUFFIX)
            self._say(
                protocol.PictureRefused(participant=participant, screen=source != participant, detail=reason)
            )

    def _set_layout(self, version: int, body: LayoutBody) -> None:
        self._layout_version = version
        self._layout = body
        self._journal.layout(version, body)
        self._rearrange()

    async def _preview(self, body: LayoutBody, picture: bool) -> protocol.Preview:
        sources = self._sources()
        tiles = arrange(body, sources, self._speaker)
        renditions = self._distribution.renditions or [RENDITIONS["high"]]
        size = body.canvas.width, body.canvas.height, body.canvas.fps
        wanted = demands(tiles, size, renditions, SCREEN_SUFFIX, self._intake.sizes)
        sent = {source: self._intake.will_send_px(source, demand) for source, demand in wanted.items()}
        cost = predict_cost(
            body, tiles, renditions, {source: px for source, px in sent.items() if px is not None}
        )
        png = await asyncio.to_thread(self._canvas.preview_png, body, tiles, sources) if picture else None
        return protocol.Preview(
            tiles=[
                {
                    "id": tile.id,
                    "participant": tile.participant,
                    "x": tile.x,
                    "y": tile.y,
                    "width": tile.width,
                    "height": tile.height,
                    "z": tile.z,
                }
                for tile in tiles
            ],
            cost={"cpu_cores": cost.cpu_cores, "kbps": cost.kbps},
            png=png,
        )

    # --- what connections say (ConnectionRoom) --------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        """Media flows: send the mix."""
        self._distribution.subscribe(connection)

    def closed(self, connection: Connection, reason: str) -> None:
        """The connection is over and nobody asked for it."""
        if connection.session in self._connections:
            self._drop(connection)
            self._say(protocol.SessionClosed(session=connection.session, reason=reason))

    def saw(self, connection: Connection, frame: EncodedVideo, screen: bool) -> None:
        """A whole coded picture."""
        if self._intake.saw(connection, frame, screen=screen):
            self._rearrange()

    def keyframe_wanted(self, connection: Connection) -> None:
        """A viewer lost its picture."""
        self._distribution.keyframe_wanted(connection)

    def adapted(self, connection: Connection, before: Rendition) -> None:
        """A viewer is to have another rendition, or FEC."""
        self._distribution.adapt(connection)
        if connection.rendition is not before:
            self._say(
                protocol.RenditionChanged(
                    session=connection.session,
                    participant=connection.participant.id,
                    before=before.name,
                    rendition=connection.rendition.name,
                )
            )

    # --- recording ------------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        """How things stand when a recording begins, for its timeline."""
        self._journal.introduce(time.monotonic())
        self._rearrange()

    def _pts(self) -> int:
        """Now, in 90 kHz units of the room clock."""
        return round((time.monotonic() - self._origin) * VIDEO_CLOCK_HZ)

    # --- the audio tick -------------------------------------------------------------------------------------

    async def _run_audio(self) -> None:
        ticks = self._audio_ticks
        while True:
            index = ticks.next(time.monotonic())
            delay = ticks.due_s(index) - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            else:
                await asyncio.sleep(0)  # late: let the packets that wait be read first
            now = time.monotonic()
            index = max(index, ticks.next(now))  # later than the slack: dropped
            ticks.begin(index, now)
            try:
                self._bridge.tick(index, now)
            except Exception:
                # The bridge isolates its legs; what reaches here is a bug of ours and must not end the sound.
                log.exception("audio.tick_failed", room=self._state.room)
            self._journal.speaking(self._bridge.speaking(), now)
            if index % SPEAKING_POLL_TICKS == 0:
                self._poll_speaking()
                if self._intake.drop_ended_screens():
                    self._rearrange()
                self._ask_senders()
                self._watch_load(now)

    def _watch_load(self, now: float) -> None:
        """Give up what the machine cannot carry, take it back when it can, and say so."""
        if self._load.look(now):
            self._recording.note("notice", name=f"load: {self._load.step.name}")
            self._rearrange()
        news = self._load.news()
        if news is not None:
            self._say(protocol.LoadChanged(**news))

    def _poll_speaking(self) -> None:
        speaking = tuple(sorted(self._bridge.speaking()))
        speaker = self._bridge.speaker()
        if (speaking, speaker) == (self._speaking, self._speaker):
            return
        if speaker != self._speaker:
            self._speaker = speaker
            self._canvas.set_speaker(speaker)
            entry = self._roster.get(speaker or "")
            if entry is None or entry.recorded:
                self._recorded_speaker = speaker
                self._journal.speaker(speaker)
            self._rearrange()
        self._speaking = speaking
        self._say(protocol.SpeakingChanged(speaking=speaking, speaker=speaker))

    # --- numbers --------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """The contract's stats body."""
        canvas = self._canvas.stats()
        bridge = self._bridge.stats()
        queues = self._intake.queues()
        queues |= self._recording.stats()
        return {
            "participants": self._intake.stats(bridge["inputs"], canvas["sources"]),
            "renditions": self._distribution.stats(canvas["renditions"]),
            "viewers": {c.session: c.viewer_stats() for c in self._connections.values() if c.listens},
            "ticks": {
                "audio": self._audio_ticks.stats(),
                "video": {
                    **self._frame_clock.stats(),
                    "scale_ms": canvas["scale_ms"],
                    "compose_ms": canvas["compose_ms"],
                },
            },
            "queues": queues,
            "load": self._load.stats(),
        }
