"""What participants send into a room: whose voice and picture is whose, and the lanes that decode the pictures.

Runs on the room's loop thread; a small pool decodes beside it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from mixer import priority
from mixer.audio.bridge import AudioBridge
from mixer.audio.enhance import VoiceEnhancer, make_enhancer
from mixer.avsync import DECODED_S, LipSync
from mixer.connection import Connection
from mixer.media import AudioCodec, EncodedVideo
from mixer.protocol import RosterEntry
from mixer.rtp.packet import RtpPacket
from mixer.track_tap import TrackTap
from mixer.video.canvas import Canvas
from mixer.video.demand import Asking, Demand, kept
from mixer.video.lane import DecodeLane
from mixer.video.steady import Steady
from recording.timeline import USUAL_WAIT_MS

log = structlog.get_logger(__name__)

SCREEN_SUFFIX: Final = "#screen"  # '#' never occurs in a participant id, so a screen cannot collide with one
SCREEN_GONE_S: Final = 5.0
# A share that was stopped is not told of: packets just end. Browsers repeat a screen that rests once a second, and
# after 5 s without a picture the contract shows none anyway.

REFUSAL_TOLD_S: Final = 10.0  # a word of each source; its keyframes are refused several times a second
HEEDLESS: Final = 1.5  # times the pixels that it was asked for: encoders have a few sizes to choose from


class Intake:
    """The publishers of one room, by participant. A source is a participant's camera (its id) or its screen."""

    def __init__(
        self, bridge: AudioBridge, canvas: Canvas, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._bridge = bridge
        self._canvas = canvas
        self._loop = asyncio.get_running_loop()
        self._publishers: dict[str, Connection] = {}
        self._entries: dict[str, RosterEntry] = {}  # of those who publish
        self._tracks: TrackTap | None = None
        self._lanes: dict[str, DecodeLane] = {}
        self._screens: dict[str, float] = {}  # loop time of the last picture of each shared screen
        self._asking = Asking()
        self._told: dict[str, tuple[float, int]] = {}  # of refusals: when, and how many there were
        self._lips: dict[str, LipSync] = {}
        self._paces: dict[str, Steady] = {}
        self._polish: dict[str, tuple[bool, bool]] = {}  # AGC, noise suppression
        # One core is the loop's and the canvas's: with two decoding threads on two cores a room of 9 + 9 took
        # 1.15 and 1.20 cores, with one 1.09 and 1.13, and no tick was lost.
        self.decoders = max(1, (os.cpu_count() or 1) - 1)
        self._pool = ThreadPoolExecutor(
            self.decoders,
            "decode",
            initializer=priority.lower,
            initargs=(priority.DECODE_NICE,),
        )

    def close(self) -> None:
        """End the decoding threads; what they are at is finished and thrown away."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- who publishes

    def add(self, entry: RosterEntry, connection: Connection) -> None:
        """From now on ``connection`` is the participant's voice and picture; an older one no longer is."""
        older = self._publishers.get(entry.id)
        if older is not None:
            self.remove(older)
        self._publishers[entry.id] = connection
        self._entries[entry.id] = entry
        if self._tracks is not None:
            self._tracks.join(entry)
        if connection.peer.receives_audio is not None:
            self._bridge.add_input(
                entry.id, connection.peer.receives_audio, muted=entry.muted, volume=entry.volume
            )
            self._enhance(entry)
        if connection.peer.receives_video is not None:
            self._add_lane(entry.id, connection, screen=False)

    def remove(self, connection: Connection) -> None:
        """The participant sends nothing any more; ignored when another connection took over."""
        participant = connection.participant.id
        if not self._is_current(connection):
            return
        del self._publishers[participant]
        del self._entries[participant]
        if self._tracks is not None:
            self._tracks.leave(participant)
        self._bridge.remove_input(participant)
        self._polish.pop(participant, None)
        for source in (participant, participant + SCREEN_SUFFIX):
            lane = self._lanes.pop(source, None)
            if lane is not None:
                self._close_lane(source, lane)

    def publishes(self, participant: str) -> bool:
        """Whether a connection of theirs is in."""
        return participant in self._publishers

    def change(self, entry: RosterEntry) -> None:
        """Mute, volume, AGC and noise suppression of a participant as they are from now on."""
        connection = self._publishers.get(entry.id)
        if connection is not None:
            self._entries[entry.id] = entry
            if self._tracks is not None:
                self._tracks.change(entry)
        if connection is not None and connection.peer.receives_audio is not None:
            self._bridge.set_input(entry.id, muted=entry.muted, volume=entry.volume)
            self._enhance(entry)

    def record(self, tracks: TrackTap | None) -> None:
        """Give all that comes to ``tracks`` too; None: no longer."""
        self._tracks = tracks
        if tracks is not None:
            for entry in self._entries.values():
                tracks.join(entry)

    def request_keyframe(self, participant: str, *, screen: bool) -> None:
        """A track of theirs waits for one; ignored when they are gone."""
        connection = self._publishers.get(participant)
        if connection is not None:
            _request_keyframe(connection, screen)

    def _enhance(self, entry: RosterEntry) -> None:
        """Begin or end the polishing of a voice; the library is loaded beside the loop."""
        wanted = (entry.agc, entry.noise_suppression)
        if wanted == self._polish.get(entry.id, (False, False)):
            return
        self._polish[entry.id] = wanted
        if not any(wanted):
            self._bridge.enhance(entry.id, None)
            return
        make = functools.partial(make_enhancer, agc=entry.agc, noise_suppression=entry.noise_suppression)
        made = self._loop.run_in_executor(None, make)
        made.add_done_callback(functools.partial(self._enhancer_made, entry.id, wanted))

    def _enhancer_made(
        self, participant: str, wanted: tuple[bool, bool], made: asyncio.Future[VoiceEnhancer]
    ) -> None:
        if made.cancelled() or self._polish.get(participant) != wanted:
            return
        if (error := made.exception()) is not None:
            log.warning("audio.enhancer_unavailable", reason=str(error))
        else:
            self._bridge.enhance(participant, made.result())

    # --- media

    def heard(self, connection: Connection, packet: RtpPacket, codec: AudioCodec, now: float) -> None:
        """A packet of voice."""
        participant = connection.participant.id
        if self._publishers.get(participant) is connection:
            if self._tracks is not None:
                head = self._bridge.playhead(participant, now)
                self._tracks.heard(
                    participant,
                    packet,
                    codec,
                    taken_s=connection.peer.sender_time("audio", packet.timestamp),
                    now=now,
                    wait_ms=head[1] if head is not None else USUAL_WAIT_MS,
                )
            level = packet.extensions.get(connection.peer.audio_level_id or 0)
            # no keywords: this is run for each packet
            self._bridge.push(
                participant,
                packet.sequence,
                packet.timestamp,
                packet.payload,
                codec,
                now,
                packet.ssrc,
                level[0] & 0x7F if level else None,  # RFC 6464 section 3; the first bit is a guess
                packet.repaired,
            )

    def saw(self, connection: Connection, frame: EncodedVideo, *, screen: bool) -> bool:
        """A whole coded picture. True when it is the first of a new source, which changes the arrangement."""
        if not self._is_current(connection):
            return False
        source = connection.participant.id + (SCREEN_SUFFIX if screen else "")
        if screen:
            self._screens[source] = self._loop.time()
        if self._tracks is not None:
            taken_s = connection.peer.sender_time("video", frame.pts, screen=screen)
            participant, now = connection.participant.id, self._clock()
            self._tracks.saw(participant, frame, screen=screen, taken_s=taken_s, now=now)
        due = self._due(source, connection, frame, screen)
        lane = self._lanes.get(source)
        if lane is not None:
            lane.push(frame, due=due)
            return False
        self._add_lane(source, connection, screen=screen).push(frame, due=due)
        return True

    def _due(self, source: str, connection: Connection, frame: EncodedVideo, screen: bool) -> float:
        """When to show a picture, so that it and its sound are mixed together; the camera's moves the sound."""
        now = self._clock()
        participant = connection.participant.id
        heard = self._bridge.playhead(participant, now)
        lips = self._lips.setdefault(source, LipSync())
        lane = self._lanes.get(source)
        # what waits for a decoder on busy cores is late, too, and its sound must know
        decoding_s = lane.late_s - DECODED_S if lane is not None else 0.0
        hold_s = lips.hold(
            taken_s=connection.peer.sender_time("video", frame.pts, screen=screen),
            said_s=connection.peer.sender_time("audio", heard[0]) if heard is not None else None,
            waits_s=heard[1] / 1000 if heard is not None else None,
            now=now,
            held_s=max(decoding_s, self._paces.setdefault(source, Steady()).hold(frame.pts, now)),
        )
        if not screen:
            self._bridge.delay(participant, lips.floor_s * 1000)
        return now + hold_s

    # --- pictures

    def drop_ended_screens(self) -> bool:
        """Forget the screens that are shared no longer. True when there were any: the arrangement changes."""
        ended = [source for source, at in self._screens.items() if self._loop.time() - at > SCREEN_GONE_S]
        for source in ended:
            self._close_lane(source, self._lanes.pop(source))
        return bool(ended)

    def has_picture(self, source: str) -> bool:
        """Whether pictures of ``source`` are expected."""
        return source in self._lanes

    def will_send_px(self, source: str, wanted: Demand) -> int | None:
        """Pixels of its pictures once it is asked for ``wanted``; ``None``: it sends none. Who sends more than it has
        been asked for goes on with that.
        """
        lane = self._lanes.get(source)
        if lane is None:
            return None
        asked, later = self._asking.asked(source), wanted.width * wanted.height
        now = lane.size[0] * lane.size[1]
        return max(now, later) if now > HEEDLESS * asked.width * asked.height else later

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height of the newest picture of each source that has sent one."""
        return {source: lane.size for source, lane in self._lanes.items() if any(lane.size)}

    def show(self, demands: Mapping[str, Demand], now: float) -> None:
        """What is seen of each source. The others are not decoded; all are asked for what they are worth. While
        tracks are kept, who is not seen is worth a picture, too.

        To be called on every change, and now and then so that less is asked for in time.
        """
        for source, lane in self._lanes.items():
            if lane.refused is not None:
                self._asking.refuse(source, now)
        wanted = demands
        if self._tracks is not None:
            wanted = {
                **{source: kept(lane.size) for source, lane in self._lanes.items() if self._is_kept(source)},
                **demands,
            }
        for source, demand in self._asking.update(wanted, self._lanes, now).items():
            participant = source.removesuffix(SCREEN_SUFFIX)
            self._publishers[participant].peer.ask_video(demand, screen=source != participant)
        for source, lane in self._lanes.items():  # after it was allowed to send more: a keyframe is many bits
            lane.set_shown(source in demands)

    def refusals(self, now: float) -> list[tuple[str, str]]:
        """Whose pictures were refused since the last word of it, and why; each at most every ``REFUSAL_TOLD_S``."""
        found: list[tuple[str, str]] = []
        for source, lane in self._lanes.items():
            at, count = self._told.get(source, (float("-inf"), 0))
            if lane.refused is not None and lane.refusals > count and now - at >= REFUSAL_TOLD_S:
                self._told[source] = now, lane.refusals
                found.append((source, lane.refused))
        return found

    # --- numbers

    @property
    def decoding_s(self) -> float:
        """What the decoding of those who are here has taken so far, of all threads together."""
        return sum(lane.busy_s for lane in self._lanes.values())

    def stats(self, voices: Mapping[str, Any], pictures: Mapping[str, Any]) -> dict[str, Any]:
        """The contract's ``participants``; ``voices``, ``pictures``: the inputs of bridge and canvas."""
        found: dict[str, Any] = {}
        for participant, connection in self._publishers.items():
            lane = self._lanes.get(participant)
            found[participant] = {
                **connection.stats(),
                **voices.get(participant, {}),
                "frozen_ms": pictures.get(participant, {}).get("frozen_ms", 0),
                "decode_ms": round(lane.decode_ms, 2) if lane else 0.0,
                "decoded": lane.decoded if lane else 0,
                "decode_failed": lane.failed if lane else 0,
                "width": lane.size[0] if lane else 0,
                "height": lane.size[1] if lane else 0,
                "refused": lane.refused if lane else None,
            }
        return found

    def queues(self) -> dict[str, Any]:
        """The contract's ``queues``, of the decoding."""
        return {
            f"decode {source}": {"depth": lane.depth, "dropped": lane.dropped}
            for source, lane in self._lanes.items()
        }

    # --- inside

    def _is_kept(self, source: str) -> bool:
        """Whether a track of ``source`` is kept: not of who refuses, nor of a hidden camera."""
        entry = self._entries[source.removesuffix(SCREEN_SUFFIX)]
        return entry.recorded and not (entry.video_muted and source == entry.id)

    def _is_current(self, connection: Connection) -> bool:
        return self._publishers.get(connection.participant.id) is connection

    def _add_lane(self, source: str, connection: Connection, *, screen: bool) -> DecodeLane:
        def ask() -> None:
            self._loop.call_soon_threadsafe(_request_keyframe, connection, screen)

        lane = DecodeLane(self._pool, self._canvas.add_source(source), ask)
        self._lanes[source] = lane
        return lane

    def _close_lane(self, source: str, lane: DecodeLane) -> None:
        lane.close()
        self._screens.pop(source, None)
        self._lips.pop(source, None)
        self._paces.pop(source, None)
        self._asking.forget(source)
        self._told.pop(source, None)
        self._canvas.remove_source(source)


def _request_keyframe(connection: Connection, screen: bool) -> None:
    if not connection.closed:
        connection.peer.request_keyframe(screen)
