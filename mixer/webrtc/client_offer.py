"""The offer of `mixer.webrtc.client`, and the numbers in it. Pure: what is wanted in, SDP out."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mixer.media import Kind, VideoCodec
from mixer.webrtc.answer import ABS_SEND_TIME, TRANSPORT_CC

OPUS_PT: Final = 111
RED_PT: Final = 63
TRANSPORT_ID: Final = 5  # of the transport-wide sequence number, in what we receive
STAMP_ID: Final = 3  # of abs-send-time, likewise
VIDEO_PTS: Final[dict[VideoCodec, int]] = {"VP8": 96, "H264": 102, "VP9": 98}
RTX_PTS: Final[dict[int, int]] = {97: 96, 103: 102, 99: 98}  # RTX payload type → the one it repairs
_VIDEO_FMTP: Final[dict[VideoCodec, str]] = {
    "H264": "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"  # RFC 6184 section 8.1
}
_REPAIRS: Final = ("nack", "nack pli", "ccm fir")

Direction = Literal["sendonly", "recvonly", "sendrecv"]
Tells = Literal["transport-cc", "remb", "losses"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is offered: ``video`` codecs, best first; ``audio``: Opus; ``tells``: what of the line when we receive."""

    direction: Direction
    video: tuple[VideoCodec, ...]
    audio: bool
    tells: Tells

    @property
    def receives(self) -> bool:
        return self.direction != "sendonly"

    def told_by(self, kind: Tells) -> bool:
        """Whether the line of what we receive is told of in that way."""
        return self.receives and self.tells == kind

    @property
    def _feedback(self) -> tuple[str, ...]:
        # of what we send we want to hear all; of what comes we tell no more than is asked for
        remb = self.direction != "recvonly" or self.told_by("remb")
        numbered = self.told_by("transport-cc")
        return (*_REPAIRS, *(("goog-remb",) if remb else ()), *(("transport-cc",) if numbered else ()))

    def offer(
        self,
        *,
        ice: tuple[str, str],
        fingerprint: tuple[str, str],
        candidates: Sequence[str],
        sources: Mapping[Kind, int],
        cname: str,
    ) -> str:
        """The SDP. ``ice``: ufrag and password; ``candidates``: in SDP; ``sources``: SSRCs of what we send."""
        ufrag, password = ice
        transport = ["c=IN IP4 0.0.0.0", "a=rtcp-mux", f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}"]
        transport += [f"a=fingerprint:{' '.join(fingerprint)}", "a=setup:actpass", f"a={self.direction}"]
        if self.told_by("transport-cc"):
            transport.append(f"a=extmap:{TRANSPORT_ID} {TRANSPORT_CC}")
        gathered = [*(f"a=candidate:{candidate}" for candidate in candidates), "a=end-of-candidates"]
        mids = [kind for kind, wanted in (("audio", self.audio), ("video", bool(self.video))) if wanted]
        rows = ["v=0", f"o=- {random.getrandbits(62)} 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
        rows.append(f"a=group:BUNDLE {' '.join(mids)}")
        if self.audio:
            rows += self._sound([*transport, *gathered])
            rows += _source(sources, "audio", cname)
            gathered = []  # the rest of the BUNDLE group shares them (RFC 9143 section 7.4)
        if self.video:
            rows += self._pictures([*transport, *gathered])
            rows += _source(sources, "video", cname)
        return "\r\n".join(rows) + "\r\n"

    def _sound(self, transport: Sequence[str]) -> list[str]:
        # in this order: what is sent is bare, what is received may be either
        rows = [f"m=audio 9 UDP/TLS/RTP/SAVPF {OPUS_PT} {RED_PT}", *transport, "a=mid:audio"]
        rows += [f"a=rtpmap:{OPUS_PT} opus/48000/2", f"a=fmtp:{OPUS_PT} minptime=10;useinbandfec=1"]
        rows += [f"a=rtpmap:{RED_PT} red/48000/2", f"a=fmtp:{RED_PT} {OPUS_PT}/{OPUS_PT}"]
        rows.append(f"a=rtcp-fb:{OPUS_PT} nack")  # as our page has its browser say
        if self.told_by("transport-cc"):
            rows.append(f"a=rtcp-fb:{OPUS_PT} transport-cc")
        return rows

    def _pictures(self, transport: Sequence[str]) -> list[str]:
        media = [VIDEO_PTS[codec] for codec in self.video]
        # as every browser does: a line is tried with padding, which is RTX
        repairs = {rtx: apt for rtx, apt in RTX_PTS.items() if apt in media and self.receives}
        numbers = " ".join(map(str, [*media, *repairs]))
        rows = [f"m=video 9 UDP/TLS/RTP/SAVPF {numbers}", *transport, "a=mid:video"]
        if self.told_by("remb"):
            rows.append(f"a=extmap:{STAMP_ID} {ABS_SEND_TIME}")
        for codec in self.video:
            number = VIDEO_PTS[codec]
            rows.append(f"a=rtpmap:{number} {codec}/90000")
            rows += [f"a=rtcp-fb:{number} {value}" for value in self._feedback]
            if fmtp := _VIDEO_FMTP.get(codec):
                rows.append(f"a=fmtp:{number} {fmtp}")
        for rtx, apt in repairs.items():
            rows += [f"a=rtpmap:{rtx} rtx/90000", f"a=fmtp:{rtx} apt={apt}"]
        return rows


def _source(sources: Mapping[Kind, int], kind: Kind, cname: str) -> list[str]:
    return [f"a=ssrc:{sources[kind]} cname:{cname}", f"a=msid:probe {kind}"] if kind in sources else []
