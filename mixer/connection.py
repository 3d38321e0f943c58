"""One WebRTC connection of a room: a WHIP publisher, a WHEP listener, or both on one peer connection.

It translates between the peer (RTP in and out) and the room's parts; it decides nothing about the room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from mixer.media import AudioCodec, EncodedVideo
from mixer.protocol import RosterEntry
from mixer.rtp.packet import RtpPacket
from mixer.video.rendition import RENDITIONS, Rendition
from mixer.webrtc.peer import Peer, PeerFactory


class ConnectionRoom(Protocol):
    """What a connection needs of its room. Called on the loop thread."""

    def connected(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection, reason: str) -> None: ...

    def heard(self, connection: Connection, packet: RtpPacket, codec: AudioCodec, now: float) -> None: ...

    def saw(self, connection: Connection, frame: EncodedVideo, screen: bool) -> None: ...

    def keyframe_wanted(self, connection: Connection) -> None: ...


def rendition_named(name: str) -> Rendition:
    """The rendition a viewer asked for; ``auto`` starts with the best.

    ``auto`` does not move between renditions yet (the media-plane issue measures bandwidth)."""
    return RENDITIONS["high" if name == "auto" else name]


@dataclass(eq=False)
class Connection:
    """See the module. ``publishes``: media comes in; ``listens``: the mix goes out."""

    room: ConnectionRoom
    session: str
    participant: RosterEntry
    publishes: bool
    rendition: Rendition
    minus: str | None
    closed: bool = False
    peer: Peer = None  # type: ignore[assignment]  # set by `answer`, before anything can call back

    async def answer(self, factory: PeerFactory, offer: str) -> str:
        """Make the peer connection and return the SDP answer. Raises ``BadOffer``, ``UnsupportedOffer``."""
        self.peer = factory.peer(self, send=True, receive=self.publishes)
        return await self.peer.accept(offer)

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

    def on_estimate(self, bitrate_bps: int) -> None:
        """The viewer's bandwidth estimate; nothing acts on it while ``auto`` stays where it starts."""

    def on_closed(self, reason: str) -> None:
        """Once, whoever closed it."""
        if not self.closed:
            self.closed = True
            self.room.closed(self, reason)

    def stats(self) -> dict[str, Any]:
        """The peer's counters."""
        return self.peer.stats()
