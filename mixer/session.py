"""One live room: its people, its connections, the audio bridge, the canvas, the recorder, and the two ticks.

Everything but the canvas tick, decoding and disk writes happens on the loop thread. Media time is counted
from ``origin`` (monotonic seconds): audio tick k is sample 960·k, picture n is n/fps, both zero at the origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from mixer import priority, protocol
from mixer.audio.bridge import AudioBridge
from mixer.connection import Connection, rendition_named
from mixer.errors import AlreadyRecording, Conflict, InvalidBody, MosaiqueError, NotFound
from mixer.fanout import Fanout
from mixer.media import TICK_S, VIDEO_CLOCK_HZ, AudioCodec, EncodedVideo, VideoCodec
from mixer.protocol import RosterEntry
from mixer.recorder_tap import RecorderTap
from mixer.rtp.packet import RtpPacket
from mixer.ticks import TickSchedule
from mixer.video.canvas import Canvas
from mixer.video.frame_clock import FrameClock
from mixer.video.lane import DecodeLane
from mixer.video.layout import LayoutBody, Source, arrange, predict_cost
from mixer.video.rendition import RENDITIONS
from mixer.webrtc.peer import PeerFactory
from recording.errors import RecordingError

log = structlog.get_logger(__name__)

SCREEN_SUFFIX: Final = "#screen"  # '#' never occurs in a participant id, so a screen cannot collide with one
RECORDED: Final = ("high", "H264")
RECORDING_KEYFRAME_S: Final = 2.0  # seeking in the archive lands within two seconds
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
        self._loop = asyncio.get_running_loop()
        self._origin = time.monotonic()
        self._layout_version = state.layout_version
        self._layout = state.layout
        self._roster: dict[str, RosterEntry] = {}
        self._connections: dict[str, Connection] = {}
        self._lanes: dict[str, DecodeLane] = {}
        self._publishers: dict[str, Connection] = {}
        self._fanouts: dict[tuple[str, VideoCodec], Fanout] = {}
        self._speaker: str | None = None
        self._speaking: tuple[str, ...] = ()
        self._recording: RecorderTap | None = None
        # One core is the loop's and the canvas's: with two decoding threads on two cores a room of 9 + 9 took
        # 1.15 and 1.20 cores, with one 1.09 and 1.13, and no tick was lost.
        self._pool = ThreadPoolExecutor(
            max(1, (os.cpu_count() or 1) - 1),
            "decode",
            initializer=priority.lower,
            initargs=(priority.DECODE_NICE,),
        )
        self._bridge = AudioBridge()
        self._canvas = Canvas(state.layout)
        self._audio_ticks = TickSchedule(self._origin, round(1 / TICK_S), slack=AUDIO_SLACK_TICKS)
        self._frame_clock = FrameClock(self._canvas, self._origin)
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
        self._rearrange()
        self._audio_ticks.resume(time.monotonic())
        self._audio_task = asyncio.create_task(self._run_audio(), name="audio tick")
        self._frame_clock.start()
        if self._state.recording is not None:
            await self._continue_recording(self._state.recording)

    async def stop(self, reason: str) -> None:
        """Seal the recording, hang everybody up, end the threads. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        await self._stop_recording()
        for connection in list(self._connections.values()):
            await connection.peer.close(reason)
        if self._audio_task is not None:
            self._audio_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._audio_task
        await asyncio.to_thread(self._frame_clock.stop)
        await self._factory.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

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
                await self._start_recording(command.recording)
            case protocol.ChangeRecording():
                await self._change_recording(command.id, command.state)
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
            rendition=rendition_named(request.rendition),
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
        entry = self._roster.get(entry.id, entry).model_copy(update={"publishes": True})
        is_new = entry.id not in self._roster
        older = self._publishers.get(entry.id)
        if older is not None:
            self._unpublish(older)
        self._roster[entry.id] = entry
        self._publishers[entry.id] = connection
        if connection.peer.receives_audio is not None:
            self._bridge.add_input(
                entry.id, connection.peer.receives_audio, muted=entry.muted, volume=entry.volume
            )
        if connection.peer.receives_video is not None:
            self._add_lane(entry.id, connection, screen=False)
        if is_new:
            self._note("join", participant=entry.id, name=entry.name)
        self._rearrange()

    def _unpublish(self, connection: Connection) -> None:
        """The participant sends nothing any more: its tile becomes a placeholder."""
        participant = connection.participant.id
        if self._publishers.get(participant) is not connection:
            return
        del self._publishers[participant]
        self._bridge.remove_input(participant)
        for source in (participant, participant + SCREEN_SUFFIX):
            lane = self._lanes.pop(source, None)
            if lane is not None:
                lane.close()
                self._canvas.remove_source(source)

    def _add_lane(self, source: str, connection: Connection, *, screen: bool) -> DecodeLane:
        def ask() -> None:
            self._loop.call_soon_threadsafe(self._request_keyframe, connection, screen)

        lane = DecodeLane(self._pool, self._canvas.add_source(source), ask)
        self._lanes[source] = lane
        return lane

    def _request_keyframe(self, connection: Connection, screen: bool) -> None:
        if not connection.closed:
            connection.peer.request_keyframe(screen)

    def _set_participant(self, entry: RosterEntry) -> None:
        before = self._roster.get(entry.id)
        if before is None:
            return
        self._roster[entry.id] = entry
        connection = self._publishers.get(entry.id)
        if connection is not None and connection.peer.receives_audio is not None:
            self._bridge.set_input(entry.id, muted=entry.muted, volume=entry.volume)
        if before.muted != entry.muted:
            self._note("mute" if entry.muted else "unmute", participant=entry.id)
        self._rearrange()

    async def _remove_participant(self, participant: str) -> None:
        entry = self._roster.pop(participant, None)
        for connection in [c for c in self._connections.values() if c.participant.id == participant]:
            await self._hang_up(connection, "the participant has left")
        if entry is not None and entry.publishes:
            self._note("leave", participant=participant, name=entry.name)
        self._rearrange()

    async def _hang_up(self, connection: Connection, reason: str) -> None:
        connection.closed = True  # control asked for it: no event back
        self._drop(connection)
        await connection.peer.close(reason)

    def _drop(self, connection: Connection) -> None:
        self._connections.pop(connection.session, None)
        self._unsubscribe(connection)
        self._unpublish(connection)
        self._rearrange()

    # --- layout ---------------------------------------------------------------------------------------------

    def _sources(self) -> list[Source]:
        sources = []
        for entry in self._roster.values():
            if not entry.publishes:
                continue
            has_video = entry.id in self._lanes and not entry.video_muted
            sources.append(Source(entry.id, entry.name, entry.kind, has_video=has_video, muted=entry.muted))
            screen = entry.id + SCREEN_SUFFIX
            if screen in self._lanes:
                sources.append(Source(screen, entry.name, entry.kind, has_video=True, screen=True))
        return sources

    def _rearrange(self) -> None:
        """Compute the tiles again; the canvas takes them at its next tick."""
        sources = self._sources()
        tiles = arrange(self._layout, sources, self._speaker)
        self._canvas.set_arrangement(self._layout_version, self._layout, tiles, sources)
        shown = {tile.participant for tile in tiles}
        for source, lane in self._lanes.items():
            lane.set_shown(source in shown)

    def _set_layout(self, version: int, body: LayoutBody) -> None:
        self._layout_version = version
        self._layout = body
        self._note("layout", version=version)
        self._rearrange()

    async def _preview(self, body: LayoutBody, picture: bool) -> protocol.Preview:
        sources = self._sources()
        tiles = arrange(body, sources, self._speaker)
        cost = predict_cost(
            body, tiles, [RENDITIONS[name] for name, _ in self._fanouts] or [RENDITIONS["high"]]
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
        self._subscribe(connection)

    def closed(self, connection: Connection, reason: str) -> None:
        """The connection is over and nobody asked for it."""
        if connection.session in self._connections:
            self._drop(connection)
            self._say(protocol.SessionClosed(session=connection.session, reason=reason))

    def heard(self, connection: Connection, packet: RtpPacket, codec: AudioCodec, now: float) -> None:
        """A packet of voice."""
        participant = connection.participant.id
        if self._publishers.get(participant) is connection:
            self._bridge.push(
                participant,
                sequence=packet.sequence,
                timestamp=packet.timestamp,
                payload=packet.payload,
                codec=codec,
                now=now,
                ssrc=packet.ssrc,
            )

    def saw(self, connection: Connection, frame: EncodedVideo, screen: bool) -> None:
        """A whole coded picture."""
        participant = connection.participant.id
        if self._publishers.get(participant) is not connection:
            return
        source = participant + SCREEN_SUFFIX if screen else participant
        lane = self._lanes.get(source)
        if lane is None:
            lane = self._add_lane(source, connection, screen=screen)
            self._rearrange()
        lane.push(frame)

    def keyframe_wanted(self, connection: Connection) -> None:
        """A viewer's PLI or FIR, coalesced by the fan-out."""
        codec = connection.peer.sends_video
        if codec is not None:
            fanout = self._fanouts.get((connection.rendition.name, codec))
            if fanout is not None:
                fanout.request(connection.peer)

    # --- the mix going out ----------------------------------------------------------------------------------

    def _subscribe(self, connection: Connection) -> None:
        rendition = connection.rendition
        if connection.peer.sends_audio is not None:
            self._bridge.add_output(
                connection.session,
                connection.peer.send_audio,
                codec=connection.peer.sends_audio,
                minus=connection.minus,
                ptime_ms=rendition.audio_ptime_ms,
                bitrate_bps=rendition.audio_bps,
            )
        codec = connection.peer.sends_video
        if codec is not None and rendition.has_video:
            self._fanout(rendition.name, codec).add(connection.peer)

    def _unsubscribe(self, connection: Connection) -> None:
        self._bridge.remove_output(connection.session)
        codec = connection.peer.sends_video
        if codec is None:
            return
        key = (connection.rendition.name, codec)
        fanout = self._fanouts.get(key)
        if fanout is not None:
            fanout.remove(connection.peer)
            self._release(key)

    def _fanout(self, rendition: str, codec: VideoCodec) -> Fanout:
        key = (rendition, codec)
        if key not in self._fanouts:
            fanout = Fanout(request_keyframe=lambda: self._canvas.force_keyframe(rendition, codec))
            self._fanouts[key] = fanout

            def publish(frame: EncodedVideo) -> None:
                self._loop.call_soon_threadsafe(self._publish_video, key, frame)

            self._canvas.want(rendition, codec, publish)
            self._frame_clock.wake()
        return self._fanouts[key]

    def _release(self, key: tuple[str, VideoCodec]) -> None:
        """Stop encoding what nobody takes."""
        recorded = self._recording is not None and key == RECORDED
        if key in self._fanouts and not len(self._fanouts[key]) and not recorded:
            del self._fanouts[key]
            self._canvas.unwant(*key)

    def _publish_video(self, key: tuple[str, VideoCodec], frame: EncodedVideo) -> None:
        fanout = self._fanouts.get(key)
        if fanout is not None:
            fanout.publish(frame)
        if self._recording is not None and key == RECORDED:
            self._recording.video(frame)

    # --- recording ------------------------------------------------------------------------------------------

    async def _start_recording(self, order: protocol.RecordingOrder) -> None:
        if self._recording is not None:
            raise AlreadyRecording("this room is being recorded already", self._recording.id)

        def alert(kind: str, reason: str) -> None:
            event = protocol.RecordingAlert(id=order.id, kind=kind, reason=reason)
            self._loop.call_soon_threadsafe(self._say, event)

        recording = await asyncio.to_thread(
            RecorderTap,
            order,
            RENDITIONS[RECORDED[0]],
            on_alert=alert,
            on_keyframe_needed=lambda: self._canvas.force_keyframe(*RECORDED),
        )
        self._recording = recording
        if order.paused:
            recording.pause(self._pts())
        for entry in self._roster.values():
            if entry.publishes:
                self._note("join", participant=entry.id, name=entry.name)
        self._note("layout", version=self._layout_version)
        self._note("notice", name="recording")
        if self._speaker is not None:
            self._note("speaker", participant=self._speaker)
        self._bridge.set_recorder(recording.audio)
        self._fanout(*RECORDED)
        self._canvas.set_keyframe_interval(*RECORDED, RECORDING_KEYFRAME_S)
        self._canvas.force_keyframe(*RECORDED)

    async def _continue_recording(self, order: protocol.RecordingOrder) -> None:
        """Go on where a lost worker stopped; a spool that cannot be continued must not keep the room away."""
        try:
            await self._start_recording(order)
        except (RecordingError, OSError) as error:
            log.exception("recording.not_continued", room=self._state.room, recording=order.id)
            self._say(protocol.RecordingLost(id=order.id, reason=str(error)))

    async def _stop_recording(self) -> None:
        recording = self._recording
        if recording is None:
            return
        self._recording = None
        self._bridge.set_recorder(None)
        self._canvas.set_keyframe_interval(*RECORDED, None)
        self._release(RECORDED)
        await asyncio.to_thread(recording.close, self._pts())

    async def _change_recording(self, recording_id: str, state: str) -> None:
        recording = self._recording
        if recording is None or recording.id != recording_id:
            raise Conflict(f"recording {recording_id} is not live in this room")
        if state == "stopped":
            await self._stop_recording()
        elif state == "paused" and not recording.paused:
            recording.pause(self._pts())
        elif state == "recording" and recording.paused:
            recording.resume(self._pts())
            self._canvas.force_keyframe(*RECORDED)

    def _note(self, event: str, /, **fields: Any) -> None:
        if self._recording is not None:
            self._recording.event(event, self._pts(), **fields)

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
            if index % SPEAKING_POLL_TICKS == 0:
                self._poll_speaking()

    def _poll_speaking(self) -> None:
        speaking = tuple(sorted(self._bridge.speaking()))
        speaker = self._bridge.speaker()
        if (speaking, speaker) == (self._speaking, self._speaker):
            return
        if speaker != self._speaker:
            self._speaker = speaker
            self._canvas.set_speaker(speaker)
            if speaker is not None:
                self._note("speaker", participant=speaker)
            self._rearrange()
        self._speaking = speaking
        self._say(protocol.SpeakingChanged(speaking=speaking, speaker=speaker))

    # --- numbers --------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """The contract's stats body."""
        canvas = self._canvas.stats()
        bridge = self._bridge.stats()
        participants: dict[str, Any] = {}
        queues: dict[str, Any] = {}
        for participant, connection in self._publishers.items():
            lane = self._lanes.get(participant)
            participants[participant] = {
                **connection.stats(),
                **bridge["inputs"].get(participant, {}),
                "frozen_ms": canvas["sources"].get(participant, {}).get("frozen_ms", 0),
                "decode_ms": round(lane.decode_ms, 2) if lane else 0.0,
                "decoded": lane.decoded if lane else 0,
                "decode_failed": lane.failed if lane else 0,
            }
            if lane is not None:
                queues[f"decode {participant}"] = {"depth": lane.depth, "dropped": lane.dropped}
        renditions = {
            _rendition_key(name, codec): {
                **canvas["renditions"].get(f"{name} {codec}", {}),
                "viewers": len(fanout),
            }
            for (name, codec), fanout in self._fanouts.items()
        }
        if self._recording is not None:
            queues["recorder"] = self._recording.stats()
        return {
            "participants": participants,
            "renditions": renditions,
            "ticks": {
                "audio": self._audio_ticks.stats(),
                "video": {
                    **self._frame_clock.stats(),
                    "scale_ms": canvas["scale_ms"],
                    "compose_ms": canvas["compose_ms"],
                },
            },
            "queues": queues,
        }


def _rendition_key(name: str, codec: VideoCodec) -> str:
    """The contract's name for the H.264 rendition; the codec is added for the one that few need."""
    return name if codec == "H264" else f"{name}-{codec.lower()}"
