"""One WebRTC connection of a room: a WHIP publisher, a WHEP listener, or both on one peer connection.

It translates between the peer (RTP in and out) and the room's parts; it decides nothing about the room.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mixer.ladder import FecPolicy, Ladder, rungs
from mixer.media import AudioCodec, EncodedVideo
from mixer.protocol import RosterEntry
from mixer.rtp.line import LineState
from mixer.rtp.packet import RtpPacket
from mixer.video.rendition import RENDITIONS, Rendition
from mixer.webrtc.peer import Peer
from mixer.webrtc.peers import PeerFactory

# `auto` begins where a line that turns out narrow is not stuffed for seconds: a keyframe of `medium` is 19 kB, of
# `high` 75. It also measures the line, so a good one is at `high` half a second later. Sound alone needs no such care.
FIRST: Final = "medium"
FALLBACK: Final = "high"

FULL_QUEUE_S: Final = 0.1  # a fall with more than that on the way: the new pictures would wait behind the old


class ConnectionRoom(Protocol):
    """What a connection needs of its room. Called on the loop thread."""

    def connected(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection, reason: str) -> None: ...

    def heard(self, connection: Connection, packet: RtpPacket, codec: AudioCodec, now: float) -> None: ...

    def saw(self, connection: Connection, frame: EncodedVideo, screen: bool) -> None: ...

    def keyframe_wanted(self, connection: Connection) -> None: ...

    def adapted(self, connection: Connection, before: Rendition) -> None:
        """Its ``rendition`` (it was ``before``) or its ``fec`` has changed: what it is sent should follow."""


@dataclass(eq=False)
class Connection:
    """See the module. ``publishes``: media comes in; ``listens``: the mix goes out.

    ``asked``: the rendition that was asked for, or ``auto``; ``rendition``: the one it is to have now.
    ``fec``: whether its sound is protected: by RED where it takes that, else by in-band FEC.
    """

    room: ConnectionRoom
    session: str
    participant: RosterEntry
    publishes: bool
    asked: str
    minus: str | None
    rendition: Rendition = field(init=False)
    fec: bool = field(init=False, default=False)
    closed: bool = False
    peer: Peer = None  # type: ignore[assignment]  # set by `answer`, before anything can call back

    def __post_init__(self) -> None:
        self.rendition = RENDITIONS[FALLBACK if self.asked == "auto" else self.asked]
        self._fec = FecPolicy()
        self._ladder: Ladder | None = None
        self._line = LineState(None, 0.0, None, 0.0)
        self._held = False

    async def answer(self, factory: PeerFactory, offer: str) -> str:
        """Make the peer connection and return the SDP answer. Raises ``BadOffer``, ``UnsupportedOffer``."""
        self.peer = factory.peer(self, send=True, receive=self.publishes, measure=self.asked == "auto")
        sdp = await self.peer.accept(offer)
        if self.asked == "auto" and self.listens:
            if self.peer.sends_video is not None:
                self.rendition = RENDITIONS[FIRST]
            steps = rungs(video=self.peer.sends_video is not None)
            self._ladder = Ladder(steps, self.rendition, factory.clock())
        return sdp

    @property
    def listens(self) -> bool:
        """Whether the offer took any of the mix."""
        return self.peer.sends_audio is not None or self.peer.sends_video is not None

    def on_connected(self) -> None:
        """DTLS is up: media flows."""
        self.room.connected(self)

    def on_audio(self, packet: RtpPacket, codec: AudioCodec, now: float) -> None:
        """One RTP packet of the publisher's voice."""
        self.room.heard(self, packet, codec, now)

    def on_video(self, frame: EncodedVideo, screen: bool) -> None:
        """One whole coded picture of the publisher's camera, or of the shared screen."""
        self.room.saw(self, frame, screen)

    def on_keyframe_request(self) -> None:
        """The viewer lost its picture."""
        self.room.keyframe_wanted(self)

    def on_line(self, line: LineState, now: float) -> None:
        """How the viewer's line is, ten times a second."""
        self._line = line
        rendition, fec = self.rendition, self._fec.update(line.loss, now)
        if self._ladder is not None:
            rendition = self._ladder.update(line, now)
            self.peer.seek_line(self._ladder.wanted_bps)
        held = self._held
        if rendition.wire_bps < self.rendition.wire_bps and line.queue_s > FULL_QUEUE_S:
            self.peer.hold_pictures()
        self._held = self.peer.holds_pictures
        if rendition is not self.rendition or fec != self.fec or (held and not self._held):
            before, self.rendition, self.fec = self.rendition, rendition, fec
            self.room.adapted(self, before)

    def on_closed(self, reason: str) -> None:
        """Once, whoever closed it."""
        if not self.closed:
            self.closed = True
            self.room.closed(self, reason)

    def stats(self) -> dict[str, Any]:
        """The peer's counters."""
        return self.peer.stats()

    def viewer_stats(self) -> dict[str, Any]:
        """What the viewer gets, and what is known of its line; ``estimate_kbps`` is null while nothing is."""
        line = self._line
        return {
            "participant": self.participant.id,
            "asked": self.asked,
            "rendition": self.rendition.name,
            "moves": self._ladder.moves if self._ladder is not None else 0,
            "estimate_kbps": None if line.estimate_bps is None else round(line.estimate_bps / 1000),
            "line_loss": round(line.loss, 4),
            "rtt_ms": None if line.rtt_s is None else round(line.rtt_s * 1000, 1),
            "queue_ms": round(line.queue_s * 1000),
            "fec": self.fec,
            **self.peer.stats()["sent"],
        }
