"""The mix on its way out of a room: a fan-out for each rendition and codec that somebody takes, and the recorder.

A rendition is encoded from its first taker to its last. A viewer is moved to another one at a keyframe of that:
the old one goes on until it comes, unless the line's queue is full of it. Runs on the room's loop thread; the
canvas hands its pictures over to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from mixer.audio.bridge import AudioBridge
from mixer.audio.outlet import Format
from mixer.connection import Connection
from mixer.fanout import Fanout, PacketizedVideo
from mixer.handover import SoundHandover
from mixer.media import EncodedAudio, EncodedVideo, VideoCodec
from mixer.video.canvas import Canvas
from mixer.video.frame_clock import FrameClock
from mixer.video.rendition import APART, RENDITIONS, Rendition

RenditionKey = tuple[str, VideoCodec]

RECORDED: Final[RenditionKey] = ("high", "H264")
RECORDED_APART: Final[RenditionKey] = (APART.name, "H264")
LONG_MS: Final = 20  # packets of more are of renditions that count every bit
RECORDING_KEYFRAME_S: Final = 2.0  # seeking in the archive lands within two seconds


class _Seat:
    """One viewer in one fan-out."""

    def __init__(self, viewing: _Viewing, key: RenditionKey, seated: Callable[[_Seat], None]) -> None:
        self.key = key
        self.viewing = viewing
        self._seated = seated

    def send_video(self, unit: PacketizedVideo) -> None:
        """A picture; the first one is a keyframe, and ends what was shown before."""
        if self.viewing.coming is self:
            self._seated(self)
        self.viewing.connection.peer.send_video(unit)

    def send_audio(self, frame: EncodedAudio) -> None:
        """Never: sound comes from the bridge."""


@dataclass(slots=True)
class _Viewing:
    """What one connection takes. ``coming``: the seat that waits for its keyframe."""

    connection: Connection
    playing: _Seat | None = None
    coming: _Seat | None = None
    sound: SoundHandover | None = None
    form: Format | None = None


class Distribution:
    """See the module. ``frame_clock`` is woken whenever a rendition is wanted anew."""

    def __init__(self, bridge: AudioBridge, canvas: Canvas, frame_clock: FrameClock) -> None:
        self._bridge = bridge
        self._canvas = canvas
        self._frame_clock = frame_clock
        self._loop = asyncio.get_running_loop()
        self._fanouts: dict[RenditionKey, Fanout] = {}
        self._viewings: dict[str, _Viewing] = {}
        self._recorder: Callable[[EncodedVideo], None] | None = None
        self._recorded = RECORDED
        self._recorder_waits = False  # for the first keyframe of another rendition

    # --- viewers

    def subscribe(self, connection: Connection) -> None:
        """Send the mix to a connection whose media flows."""
        viewing = self._viewings[connection.session] = _Viewing(connection)
        if connection.peer.sends_audio is not None:
            viewing.sound = SoundHandover(
                connection.peer.send_audio,
                lambda output: self._bridge.remove_output(_output_key(connection, output)),
            )
        self._adapt(viewing)

    def unsubscribe(self, connection: Connection) -> None:
        """Nothing more for a connection; one that was never subscribed is ignored."""
        viewing = self._viewings.pop(connection.session, None)
        if viewing is None:
            return
        for output in viewing.sound.outputs if viewing.sound is not None else ():
            self._bridge.remove_output(_output_key(connection, output))
        for seat in (viewing.playing, viewing.coming):
            self._leave(seat)

    def adapt(self, connection: Connection) -> None:
        """Follow the connection's ``rendition`` and ``fec``; nothing happens while its media doesn't flow."""
        viewing = self._viewings.get(connection.session)
        if viewing is not None:
            self._adapt(viewing)

    def keyframe_wanted(self, connection: Connection) -> None:
        """A viewer's PLI or FIR, coalesced by the fan-out."""
        viewing = self._viewings.get(connection.session)
        seat = viewing.playing if viewing is not None else None
        if seat is not None and (fanout := self._fanouts.get(seat.key)) is not None:
            fanout.request(seat)

    # --- the recorder

    def record(self, sink: Callable[[EncodedVideo], None], *, apart: bool = False) -> None:
        """Give every picture of ``RECORDED`` to ``sink`` too, a keyframe at once and each 2 s.

        ``apart``: of the canvas without those who are not to be recorded (``Canvas.set_apart``).
        """
        self._recorder = sink
        self._take_recorded(RECORDED_APART if apart else RECORDED)

    def record_apart(self, apart: bool) -> None:
        """Somebody refuses to be recorded, or nobody does any more: the very next picture is another canvas'.

        No picture of the old one is recorded after this; some 50 ms pass until the first of the new one.
        """
        key = RECORDED_APART if apart else RECORDED
        if self._recorder is not None and key != self._recorded:
            before = self._recorded
            self._take_recorded(key)
            self._let_go(before)

    def force_recorded_keyframe(self) -> None:
        """The recorder needs one. From any thread."""
        self._canvas.force_keyframe(*self._recorded)

    def stop_recording(self) -> None:
        """No pictures for the recorder any more."""
        self._recorder = None
        self._let_go(self._recorded)

    def _take_recorded(self, key: RenditionKey) -> None:
        self._recorded, self._recorder_waits = key, True
        self._fanout(key)
        self._canvas.set_keyframe_interval(*key, RECORDING_KEYFRAME_S)
        self.force_recorded_keyframe()

    def _let_go(self, key: RenditionKey) -> None:
        self._canvas.set_keyframe_interval(*key, None)
        self._release(key)

    # --- numbers

    @property
    def renditions(self) -> list[Rendition]:
        """What is being encoded now, once for each codec."""
        return [APART if name == APART.name else RENDITIONS[name] for name, _ in self._fanouts]

    def stats(self, encoders: Mapping[str, Any]) -> dict[str, Any]:
        """The contract's ``renditions``; ``encoders``: of ``Canvas.stats``."""
        return {
            _label(name, codec): {
                **encoders.get(f"{name} {codec}", {}),
                "viewers": len(fanout),
                "keyframes_forced": fanout.keyframes_forced,
            }
            for (name, codec), fanout in self._fanouts.items()
        }

    # --- inside

    def _adapt(self, viewing: _Viewing) -> None:
        self._move_pictures(viewing)
        self._move_sound(viewing)

    def _move_pictures(self, viewing: _Viewing) -> None:
        if viewing.connection.peer.holds_pictures:
            self._leave(viewing.playing)
            self._leave(viewing.coming)
            viewing.playing = viewing.coming = None
            return
        key = self._key(viewing.connection)
        if viewing.coming is not None and viewing.coming.key != key:
            self._leave(viewing.coming)
            viewing.coming = None
        if viewing.coming is not None or (viewing.playing is not None and viewing.playing.key == key):
            return
        if key is not None:
            viewing.coming = _Seat(viewing, key, self._seated)
            self._fanout(key).add(viewing.coming)
        elif viewing.playing is not None:
            self._leave(viewing.playing)
            viewing.playing = None
            viewing.connection.peer.stop_pictures()

    def _seated(self, seat: _Seat) -> None:
        viewing = seat.viewing
        before, viewing.playing, viewing.coming = viewing.playing, seat, None
        self._leave(before)

    def _leave(self, seat: _Seat | None) -> None:
        if seat is not None and (fanout := self._fanouts.get(seat.key)) is not None:
            fanout.remove(seat)
            self._release(seat.key)

    def _move_sound(self, viewing: _Viewing) -> None:
        connection, sound = viewing.connection, viewing.sound
        codec = connection.peer.sends_audio
        if codec is None or sound is None:
            return
        rendition = connection.rendition
        repeats = rendition.repeats if connection.fec and connection.peer.repeats_audio else ()
        fec = connection.fec and not repeats and not self._resends(connection)
        bitrate_bps = rendition.repeated_bps if repeats else rendition.fec_bps if fec else rendition.audio_bps
        form = Format.of(codec, rendition.audio_ptime_ms, bitrate_bps, fec=fec, repeats=repeats)
        if form == viewing.form:
            return
        viewing.form = form
        output = sound.begin()
        self._bridge.add_output(
            _output_key(connection, output),
            partial(sound.take, output),
            codec=codec,
            minus=connection.minus,
            ptime_ms=rendition.audio_ptime_ms,
            bitrate_bps=bitrate_bps,
            fec=fec,
            repeats=repeats,
        )

    @staticmethod
    def _resends(connection: Connection) -> bool:
        """Whether its lost sound is sent again on request, and that is all. Where every bit counts, FEC would cost the
        wide band; packets of 20 ms are too quickly due for a line with a long way.
        """
        return connection.rendition.audio_ptime_ms > LONG_MS and connection.peer.resends_audio

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
        recorded = self._recorder is not None and key == self._recorded
        if key in self._fanouts and not len(self._fanouts[key]) and not recorded:
            del self._fanouts[key]
            self._canvas.unwant(*key)

    def _publish(self, key: RenditionKey, frame: EncodedVideo) -> None:
        fanout = self._fanouts.get(key)
        if fanout is not None:
            fanout.publish(frame)
        if self._recorder is not None and key == self._recorded:
            self._recorder_waits = self._recorder_waits and not frame.keyframe
            if not self._recorder_waits:
                self._recorder(frame)


def _output_key(connection: Connection, output: int) -> str:
    return f"{connection.session}#{output}"


def _label(name: str, codec: VideoCodec) -> str:
    """The contract's name for the H.264 rendition; the codec is added for the one that few need."""
    return name if codec == "H264" else f"{name}-{codec.lower()}"
