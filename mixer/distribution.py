"""The mix on its way out of a room: a fan-out for each rendition and codec that somebody takes, and the recorder.

A rendition is encoded from its first taker to its last. Runs on the room's loop thread; the canvas hands its
pictures over to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from mixer.audio.bridge import AudioBridge
from mixer.connection import Connection
from mixer.fanout import Fanout
from mixer.media import EncodedVideo, VideoCodec
from mixer.video.canvas import Canvas
from mixer.video.frame_clock import FrameClock
from mixer.video.rendition import RENDITIONS, Rendition

RenditionKey = tuple[str, VideoCodec]

RECORDED: Final[RenditionKey] = ("high", "H264")
RECORDING_KEYFRAME_S: Final = 2.0  # seeking in the archive lands within two seconds


class Distribution:
    """See the module. ``frame_clock`` is woken whenever a rendition is wanted anew."""

    def __init__(self, bridge: AudioBridge, canvas: Canvas, frame_clock: FrameClock) -> None:
        self._bridge = bridge
        self._canvas = canvas
        self._frame_clock = frame_clock
        self._loop = asyncio.get_running_loop()
        self._fanouts: dict[RenditionKey, Fanout] = {}
        self._recorder: Callable[[EncodedVideo], None] | None = None

    # --- viewers

    def subscribe(self, connection: Connection) -> None:
        """Send the mix to a connection whose media flows."""
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
        key = self._key(connection)
        if key is not None:
            self._fanout(key).add(connection.peer)

    def unsubscribe(self, connection: Connection) -> None:
        """Nothing more for a connection; one that was never subscribed is ignored."""
        self._bridge.remove_output(connection.session)
        key = self._key(connection)
        fanout = self._fanouts.get(key) if key is not None else None
        if key is not None and fanout is not None:
            fanout.remove(connection.peer)
            self._release(key)

    def keyframe_wanted(self, connection: Connection) -> None:
        """A viewer's PLI or FIR, coalesced by the fan-out."""
        key = self._key(connection)
        fanout = self._fanouts.get(key) if key is not None else None
        if fanout is not None:
            fanout.request(connection.peer)

    # --- the recorder

    def record(self, sink: Callable[[EncodedVideo], None]) -> None:
        """Give every picture of ``RECORDED`` to ``sink`` too, a keyframe at once and each 2 s."""
        self._recorder = sink
        self._fanout(RECORDED)
        self._canvas.set_keyframe_interval(*RECORDED, RECORDING_KEYFRAME_S)
        self.force_recorded_keyframe()

    def force_recorded_keyframe(self) -> None:
        """The recorder needs one. From any thread."""
        self._canvas.force_keyframe(*RECORDED)

    def stop_recording(self) -> None:
        """No pictures for the recorder any more."""
        self._recorder = None
        self._canvas.set_keyframe_interval(*RECORDED, None)
        self._release(RECORDED)

    # --- numbers

    @property
    def renditions(self) -> list[Rendition]:
        """What is being encoded now, once for each codec."""
        return [RENDITIONS[name] for name, _ in self._fanouts]

    def stats(self, encoders: Mapping[str, Any]) -> dict[str, Any]:
        """The contract's ``renditions``; ``encoders``: of ``Canvas.stats``."""
        return {
            _label(name, codec): {**encoders.get(f"{name} {codec}", {}), "viewers": len(fanout)}
            for (name, codec), fanout in self._fanouts.items()
        }

    # --- inside

    @staticmethod
    def _key(connection: Connection) -> RenditionKey | None:
        codec = connection.peer.sends_video
        if codec is None or not connection.rendition.has_video:
            return None
        return connection.rendition.name, codec

    def _fanout(self, key: RenditionKey) -> Fanout:
        if key not in self._fanouts:
            self._fanouts[key] = Fanout(request_keyframe=lambda: self._canvas.force_keyframe(*key))

            def publish(frame: EncodedVideo) -> None:
                self._loop.call_soon_threadsafe(self._publish, key, frame)

            self._canvas.want(*key, publish)
            self._frame_clock.wake()
        return self._fanouts[key]

    def _release(self, key: RenditionKey) -> None:
        """Stop encoding what nobody takes."""
        recorded = self._recorder is not None and key == RECORDED
        if key in self._fanouts and not len(self._fanouts[key]) and not recorded:
            del self._fanouts[key]
            self._canvas.unwant(*key)

    def _publish(self, key: RenditionKey, frame: EncodedVideo) -> None:
        fanout = self._fanouts.get(key)
        if fanout is not None:
            fanout.publish(frame)
        if self._recorder is not None and key == RECORDED:
            self._recorder(frame)


def _label(name: str, codec: VideoCodec) -> str:
    """The contract's name for the H.264 rendition; the codec is added for the one that few need."""
    return name if codec == "H264" else f"{name}-{codec.lower()}"
