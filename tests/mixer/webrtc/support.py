"""Stock aiortc clients and small stand-ins for the tests of ``mixer.webrtc``."""

from __future__ import annotations

import asyncio
import fractions
from collections.abc import Callable

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from aiortc.rtcconfiguration import RTCBundlePolicy

from mixer.media import AudioCodec, EncodedVideo
from mixer.rtp.line import LineState
from mixer.rtp.packet import RtpPacket
from mixer.webrtc.peer import Peer

HOST = "127.0.0.1"
PORTS = range(41000, 41999)


class Recorder:
    """A ``PeerSink`` that keeps what it is told."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.closed: list[str] = []
        self.is_closed = asyncio.Event()
        self.audio: list[tuple[RtpPacket, AudioCodec, float]] = []
        self.video: list[tuple[EncodedVideo, bool]] = []
        self.keyframe_requests = 0
        self.lines: list[LineState] = []

    def on_connected(self) -> None:
        self.connected.set()

    def on_audio(self, packet: RtpPacket, codec: AudioCodec, now: float) -> None:
        self.audio.append((packet, codec, now))

    def on_video(self, frame: EncodedVideo, screen: bool) -> None:
        self.video.append((frame, screen))

    def on_keyframe_request(self) -> None:
        self.keyframe_requests += 1

    def on_line(self, line: LineState, now: float) -> None:
        self.lines.append(line)

    def on_closed(self, reason: str) -> None:
        self.closed.append(reason)
        self.is_closed.set()


class Colour(MediaStreamTrack):
    """A picture of one colour at 30 fps."""

    kind = "video"

    def __init__(self, luma: int, width: int = 320, height: int = 240) -> None:
        super().__init__()
        self._planes = np.full((height * 3 // 2, width), 128, np.uint8)
        self._planes[:height] = luma
        self._index = 0
        self._start: float | None = None

    async def recv(self) -> av.VideoFrame:
        loop = asyncio.get_running_loop()
        if self._start is None:
            self._start = loop.time()
        await asyncio.sleep(max(0.0, self._start + self._index / 30 - loop.time()))
        frame = av.VideoFrame.from_ndarray(self._planes, format="yuv420p")
        frame.pts, frame.time_base = self._index * 3000, fractions.Fraction(1, 90_000)
        self._index += 1
        return frame


_open: list[RTCPeerConnection] = []


def connection() -> RTCPeerConnection:
    """A stock client; closed at the end of the test, whatever comes."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    _open.append(pc)
    return pc


async def hang_up_all() -> None:
    await hang_up(*_open)
    _open.clear()


def prefer(pc: RTCPeerConnection, *names: str) -> None:
    """Offer only these codecs (``H264``, ``VP8``, ``opus``, ``PCMU``, …) and RTX, in this order."""
    for transceiver in pc.getTransceivers():
        known = RTCRtpSender.getCapabilities(transceiver.kind).codecs
        wanted = [c for name in (*names, "rtx") for c in known if c.name.lower() == name.lower()]
        if wanted:
            transceiver.setCodecPreferences(wanted)


async def offer_of(pc: RTCPeerConnection) -> str:
    await pc.setLocalDescription(await pc.createOffer())
    return pc.localDescription.sdp


async def join(peer: Peer, pc: RTCPeerConnection, edit: Callable[[str], str] = lambda sdp: sdp) -> str:
    answer = await peer.accept(edit(await offer_of(pc)))
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    return answer


async def until(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait until ``condition()`` holds; fails naming ``what``."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - a condition of any kind, seen from outside
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


async def hang_up(*pcs: RTCPeerConnection) -> None:
    await asyncio.gather(*(pc.close() for pc in pcs))


__all__ = [
    "HOST",
    "PORTS",
    "AudioStreamTrack",
    "Colour",
    "Recorder",
    "connection",
    "hang_up",
    "hang_up_all",
    "join",
    "offer_of",
    "prefer",
    "until",
]
