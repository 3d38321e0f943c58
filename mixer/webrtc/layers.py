"""Which of a sender's simulcast layers (RFC 8853) is looked at. Pure.

A layer's size is in no SDP: it is read out of its keyframes. The smallest layer that fills the tile is the one to
decode; until its next keyframe has come, the one before is shown. The others are put together too, so that their
sizes are known and a keyframe is not missed, but nothing lost of them is asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mixer.errors import MalformedPacket
from mixer.media import EncodedVideo
from mixer.video.demand import FULL, Demand
from mixer.video.headers import picture_size
from mixer.webrtc.incoming import IncomingTrack

SILENT_S: Final = (
    2.0  # a layer that the sender has turned off; one of a trickle still sends a picture a second
)
ENOUGH: Final = 0.8  # of both edges of what is asked for: a picture scaled up by a quarter is not seen to be
ASK_AGAIN_S: Final = 1.0


class Layers:
    """The layers of one m-line; with one, all of this is idle. ``layers`` as the answer lists them."""

    def __init__(self, layers: Sequence[IncomingTrack]) -> None:
        self.all = tuple(layers)
        self.active: IncomingTrack | None = None
        self.switches = 0
        self._pending: IncomingTrack | None = None
        self._asked_at = float("-inf")
        self._sizes: dict[IncomingTrack, tuple[int, int]] = {}
        self._demand = FULL

    def want(self, demand: Demand, now: float) -> None:
        """How large the picture is shown from now on."""
        self._demand = demand
        self.choose(now)

    def watched(self, incoming: IncomingTrack) -> bool:
        """Whether what is lost of this layer is worth asking for."""
        return self.active is None or incoming is self.active or incoming is self._pending

    def size(self, incoming: IncomingTrack) -> tuple[int, int] | None:
        """Width and height of a layer's last keyframe."""
        return self._sizes.get(incoming)

    def pass_on(self, incoming: IncomingTrack, frames: list[EncodedVideo], now: float) -> list[EncodedVideo]:
        """Of the pictures that ``incoming`` has just completed, those to decode."""
        if len(self.all) == 1:
            return frames
        passed: list[EncodedVideo] = []
        for frame in frames:
            if frame.keyframe:
                self._note_size(incoming, frame)
                self.choose(now)
                if incoming is self._pending:
                    self.active, self._pending = incoming, None
                    self.switches += 1
            if incoming is self.active:
                passed.append(frame)
        return passed

    def choose(self, now: float) -> None:
        """Compare the layers with what is shown; asks the one to change to for a keyframe. Cheap; often."""
        if len(self.all) == 1:
            return
        best = self._best(now)
        if best is None or best is self.active:
            self._pending = None
            return
        if best is not self._pending or now - self._asked_at >= ASK_AGAIN_S:
            self._pending, self._asked_at = best, now
            best.want_keyframe()

    def _best(self, now: float) -> IncomingTrack | None:
        live = [layer for layer in self.all if layer.heard_at is not None and now - layer.heard_at < SILENT_S]
        known = sorted(
            (layer for layer in live if layer in self._sizes), key=lambda layer: self._sizes[layer]
        )
        fits = [layer for layer in known if self._fills(*self._sizes[layer])]
        if fits:
            return fits[0]
        unknown = [
            layer for layer in live if layer not in self._sizes
        ]  # its keyframe was lost: perhaps larger
        return next(iter(unknown), None) or next(reversed(known), None)

    def _fills(self, width: int, height: int) -> bool:
        """An upright picture is high enough for most tiles, and not wide enough for one that it has to cover."""
        return width >= ENOUGH * self._demand.width and height >= ENOUGH * self._demand.height

    def _note_size(self, incoming: IncomingTrack, frame: EncodedVideo) -> None:
        try:
            size = picture_size(frame.codec, frame.data)
        except MalformedPacket:
            return
        if size is not None:
            self._sizes[incoming] = size
