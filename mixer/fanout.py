"""One encoded rendition to all who watch it: packetised once, whatever the number of viewers.

Single-threaded: everything here runs on the room's loop thread. Its clock is the media time of the pictures
that pass through, so nothing here waits and nothing needs to be polled.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mixer.media import VIDEO_CLOCK_HZ, EncodedAudio, EncodedVideo, VideoCodec
from mixer.rtp.payload import h264, vp8
from mixer.rtp.payload.picture import MAX_PAYLOAD
from mixer.video.keyframes import KeyframePolicy


@dataclass(frozen=True, slots=True)
class PacketizedVideo:
    """One picture as RTP payloads, shared by all viewers: each puts its own header before every payload, the
    marker on the last. ``pts``: 90 kHz, room clock. The pieces of a VP8 frame or an H.264 slice are equally
    long but for the last, so that runs of them fit one UDP GSO call. ``picture_id``: of VP8, 15 bits, counting in
    its fan-out. ``fanout``: which one that is; a viewer that is moved sees it change, at a keyframe.
    """

    codec: VideoCodec
    payloads: tuple[bytes, ...]
    pts: int
    keyframe: bool
    picture_id: int | None = None
    fanout: int = 0


class Viewer(Protocol):
    """Who takes the mix. Both methods are called on the loop thread and must not block; what a slow line
    cannot take is the viewer's to drop and count. A viewer that raises is taken out of the fan-out.
    """

    def send_video(self, unit: PacketizedVideo) -> None:
        """Send one picture, or what of it the line takes."""

    def send_audio(self, frame: EncodedAudio) -> None:
        """Send one sound frame."""


_numbers = itertools.count(1)  # of fan-outs; only told apart, never ordered


@dataclass(slots=True)
class _Seat:
    viewer: Viewer
    waiting: bool = True  # for a keyframe


class Fanout:
    """The viewers of one video rendition in one codec.

    A newcomer gets nothing before a keyframe, which is asked for by ``request_keyframe``; so are those that
    viewers ask for, at most one a second (`KeyframePolicy`). ``on_failure`` hears of each viewer that was
    taken out because it raised.

    Counters: ``frames`` published, ``packets`` and ``payload_bytes`` handed to viewers, ``failed`` viewers.
    """

    def __init__(
        self,
        *,
        request_keyframe: Callable[[], None],
        on_failure: Callable[[Viewer, Exception], None] | None = None,
        max_payload: int = MAX_PAYLOAD,
        policy: KeyframePolicy | None = None,
    ) -> None:
        self._request_keyframe = request_keyframe
        self._on_failure = on_failure
        self._max_payload = max_payload
        self._policy = policy or KeyframePolicy()
        self._seats: dict[int, _Seat] = {}  # by id(): viewers need not be hashable
        self._now = 0.0  # media time of the newest picture, seconds
        self._picture_id = 0
        self._number = next(_numbers)
        self.frames = self.packets = self.payload_bytes = self.failed = 0

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def keyframes_forced(self) -> int:
        """How often ``request_keyframe`` was called."""
        return self._policy.forced

    def add(self, viewer: Viewer) -> None:
        """Seat a newcomer and ask for its keyframe at once. Adding twice changes nothing."""
        if id(viewer) not in self._seats:
            self._seats[id(viewer)] = _Seat(viewer)
            self._policy.joined()
            self._force_if_due()

    def remove(self, viewer: Viewer) -> None:
        """The viewer leaves; unknown viewers are ignored."""
        self._seats.pop(id(viewer), None)

    def request(self, viewer: Viewer, *, restart: bool = False) -> None:
        """The viewer lost its picture (PLI, FIR). ``restart``: send it nothing more before the keyframe, as
        when its own queue overflowed and what follows could not be decoded.
        """
        seat = self._seats.get(id(viewer))
        if seat is not None:
            seat.waiting = seat.waiting or restart
            self._policy.lost()
            self._force_if_due()

    def publish(self, frame: EncodedVideo) -> None:
        """Send one picture to all. Raises ValueError for a picture that cannot be packetised."""
        self._now = frame.pts / VIDEO_CLOCK_HZ
        self.frames += 1
        if frame.keyframe:
            self._policy.made(self._now)
        if self._seats and (unit := self._packetize(frame)).payloads:
            size = sum(map(len, unit.payloads))
            for key, seat in list(self._seats.items()):
                if key in self._seats:  # a viewer's failure may have taken others out, too
                    self._serve(seat, unit, size)
        self._force_if_due()

    def _serve(self, seat: _Seat, unit: PacketizedVideo, size: int) -> None:
        if seat.waiting and not unit.keyframe:
            return
        seat.waiting = False
        try:
            seat.viewer.send_video(unit)
        except Exception as error:  # one bad leg costs only itself (DESIGN.md, rule 4)
            self.failed += 1
            self.remove(seat.viewer)
            if self._on_failure is not None:
                self._on_failure(seat.viewer, error)
        else:
            self.packets += len(unit.payloads)
            self.payload_bytes += size

    def _packetize(self, frame: EncodedVideo) -> PacketizedVideo:
        picture_id = None
        if frame.codec == "H264":
            payloads = h264.packetize(frame.data, self._max_payload)
        elif frame.codec == "VP8":
            picture_id = self._picture_id
            payloads = vp8.packetize(frame.data, self._max_payload, picture_id=picture_id)
            self._picture_id = (picture_id + 1) & 0x7FFF
        else:
            raise ValueError(f"{frame.codec} is only received, never sent")
        return PacketizedVideo(
            frame.codec, tuple(payloads), frame.pts, frame.keyframe, picture_id, self._number
        )

    def _force_if_due(self) -> None:
        if self._policy.due(self._now):
            self._request_keyframe()
