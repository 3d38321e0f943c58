"""Peers against stock aiortc clients on loopback: the whole way from offer to pictures and sound."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import functools
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable

import av
import numpy as np
import pytest
import pytest_asyncio
from aiortc import RTCPeerConnection, RTCSessionDescription

from mixer.errors import BadOffer, Conflict, InvalidBody, UnsupportedOffer
from mixer.fanout import PacketizedVideo
from mixer.media import EncodedAudio, VideoCodec
from mixer.rtp.packet import parse_rtp, write_header
from mixer.rtp.payload import h264, vp8
from mixer.rtp.rtcp import (
    Bye,
    Nack,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    RtcpPacket,
    parse_rtcp,
    write_rtcp,
)
from mixer.rtp.twcc import TransportFeedback
from mixer.video.demand import Demand
from mixer.webrtc.answer import TRANSPORT_CC
from mixer.webrtc.batch import Slot
from mixer.webrtc.echoed_line import EchoedLine
from mixer.webrtc.feedback import SOUND_BPS
from mixer.webrtc.outgoing import ntp_time
from mixer.webrtc.peer import URGENT_S
from mixer.webrtc.peers import PeerFactory
from tests.mixer.webrtc.support import (
    HOST,
    PORTS,
    AudioStreamTrack,
    Colour,
    Recorder,
    connection,
    hang_up,
    join,
    offer_of,
    prefer,
    until,
)
from tests.mixer.webrtc.test_answer import video_offer

NUMBERED_OFFER = video_offer(
    f"video 96|a=sendonly|a=rtpmap:96 VP8/90000|a=rtcp-fb:96 transport-cc|a=extmap:5 {TRANSPORT_CC}"
)


@pytest_asyncio.fixture
async def factory() -> AsyncIterator[PeerFactory]:
    made = PeerFactory(host=HOST, ports=PORTS)
    await made.start()
    yield made
    await made.close()


def publisher(*codecs: str) -> RTCPeerConnection:
    pc = connection()
    pc.addTrack(AudioStreamTrack())
    pc.addTrack(Colour(200))
    prefer(pc, *codecs)
    return pc


def viewer(*codecs: str) -> RTCPeerConnection:
    pc = connection()
    pc.addTransceiver("audio", direction="recvonly")
    pc.addTransceiver("video", direction="recvonly")
    prefer(pc, *codecs)
    return pc


class Mix:
    """Pictures of a counter in their luma, coded as the canvas would, each a tick of 1/30 s."""

    def __init__(self, codec: VideoCodec) -> None:
        self.codec = codec
        self._encoder = av.CodecContext.create("libx264" if codec == "H264" else "libvpx", "w")
        self._encoder.width, self._encoder.height, self._encoder.pix_fmt = 320, 240, "yuv420p"
        self._encoder.time_base = fractions.Fraction(1, 90_000)
        self._encoder.bit_rate, self._encoder.gop_size, self._encoder.framerate = 500_000, 10_000, 30
        x264 = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
        self._encoder.options = x264 if codec == "H264" else {"deadline": "realtime", "cpu-used": "8"}
        self.index = 0
        self.force = True

    def unit(self, luma: int = 120) -> PacketizedVideo:
        picture = np.full((360, 320), 128, np.uint8)
        picture[:240] = luma
        picture[:240, :32] = np.random.default_rng(self.index).integers(0, 255, (240, 32))
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = self.index * 3000, fractions.Fraction(1, 90_000)
        kind = av.video.frame.PictureType
        frame.pict_type = kind.I if self.force else kind.NONE
        self.force = False
        (packet,) = self._encoder.encode(frame)
        data = bytes(packet)
        parts = (
            h264.packetize(data, 400)
            if self.codec == "H264"
            else vp8.packetize(data, 400, picture_id=self.index)
        )
        unit = PacketizedVideo(self.codec, tuple(parts), self.index * 3000, packet.is_keyframe)
        self.index += 1
        return unit


@contextlib.asynccontextmanager
async def every_tick(act: Callable[[], None], period_s: float = 1 / 30) -> AsyncIterator[None]:
    async def run() -> None:
        while True:
            act()
            await asyncio.sleep(period_s)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


# --- in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_a_publisher_s_pictures_and_sound_arrive_whole(factory: PeerFactory, codec: str) -> None:
    sink, pc = Recorder(), publisher(codec, "opus")
    peer = factory.peer(sink, send=False, receive=True)
    await join(peer, pc)
    assert (peer.receives_video, peer.receives_audio, peer.sends_video) == (codec, "opus", None)

    await until(
        lambda: len(sink.video) >= 20 and len(sink.audio) >= 20, "20 pictures and 20 packets of sound"
    )
    frames = [frame for frame, screen in sink.video if not screen]
    assert frames[0].keyframe
    decoder = av.CodecContext.create(codec.lower(), "r")
    decoded = [picture for frame in frames for picture in decoder.decode(av.Packet(frame.data))]
    assert len(decoded) >= len(frames) - 2
    assert abs(decoded[-1].to_ndarray()[: decoded[-1].height].mean() - 200) < 6
    assert {codec for _, codec, _ in sink.audio} == {"opus"}
    stats = peer.stats()
    assert stats["packets"] > 40
    assert stats["lost"] == 0

    await hang_up(pc)
    await until(lambda: sink.closed, "on_closed after the client's close_notify")
    assert sink.closed == ["the peer closed the connection"]


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
async def test_telephone_codecs_arrive(factory: PeerFactory, codec: str) -> None:
    sink, pc = Recorder(), connection()
    pc.addTrack(AudioStreamTrack())
    prefer(pc, codec)
    peer = factory.peer(sink, send=False, receive=True)
    await join(peer, pc)
    await until(lambda: len(sink.audio) > 5, "sound")
    assert {(name, len(packet.payload)) for packet, name, _ in sink.audio} == {(codec, 160)}


async def test_lost_packets_are_asked_for_and_pictures_go_on(factory: PeerFactory) -> None:
    sink, pc = Recorder(), publisher("VP8", "opus")
    peer = factory.peer(sink, send=False, receive=True)
    await join(peer, pc)
    await until(lambda: len(sink.video) > 3, "pictures")
    route = peer._router.route
    seen = 0

    def lossy(packet, now):  # type: ignore[no-untyped-def]
        nonlocal seen
        if packet.payload_type in peer._router.tracks[-1].codecs:
            seen += 1
            if seen % 7 == 0:
                return None
        return route(packet, now)

    peer._router.route = lossy  # type: ignore[method-assign]
    pts = [frame.pts for frame, _ in sink.video]
    await until(lambda: len(sink.video) >= len(pts) + 30, "30 more pictures")
    pts = [frame.pts for frame, _ in sink.video]
    steps = [later - earlier for earlier, later in itertools.pairwise(pts)]
    assert all(abs(step - 3000) <= 2 for step in steps)  # aiortc rounds its timestamps
    assert peer.stats()["nacks"] > 0
    assert peer.stats()["recovered"] > 0


async def test_gaps_in_every_packet_are_asked_for_a_few_at_a_time(factory: PeerFactory) -> None:
    """A sender with a gap a packet would cost an answer a packet; nothing is forgotten by answering more seldom."""
    sink = Recorder()
    peer = factory.peer(sink, send=False, receive=True)
    await join(peer, publisher("VP8", "opus"))
    await until(lambda: len(sink.video) > 3, "pictures")
    (video,) = (incoming for incoming in peer._router.tracks if incoming.track.kind == "video")
    sent: list[bytes] = []
    peer._transport.send_rtcp = lambda data: sent.append(data) or True  # type: ignore
    now = factory.clock()
    factory.clock = lambda: now
    highest = video.assembler._highest  # type: ignore[union-attr]
    numbers = range(highest + 2, highest + 202, 2)
    for place, number in enumerate(numbers):
        now += 0.0005  # 2,000 a second
        header = write_header(next(iter(video.codecs)), False, number & 0xFFFF, place, video.ssrc or 0)
        peer._on_rtp(header + vp8.packetize(b"\1" * 20, 100)[0])
    now += 0.02
    peer.poll(now)
    nacks = [packet for data in sent for packet in parse_rtcp(data) if isinstance(packet, Nack)]
    assert len(nacks) <= 2 + 100 * 0.0005 / URGENT_S
    asked = {sequence for nack in nacks for sequence in nack.lost}
    assert asked >= {number - 1 & 0xFFFF for number in numbers}


async def test_the_arrival_of_each_packet_is_reported(factory: PeerFactory) -> None:
    sink, pc = Recorder(), publisher("VP8", "opus")
    peer = factory.peer(sink, send=False, receive=True)
    answer = await peer.accept(NUMBERED_OFFER)
    assert TRANSPORT_CC in answer
    await pc.close()
    sent: list[bytes] = []
    peer._connected = True
    peer._transport.send_rtcp = lambda data: sent.append(data) or True  # type: ignore
    (video,) = peer._router.tracks
    head = write_header(96, True, 7, 90, 1234)
    element = bytes((5 << 4 | 1, 0, 99, 0))
    extended = bytes((head[0] | 0x10,)) + head[1:] + b"\xbe\xde\0\1" + element
    peer._on_rtp(extended + vp8.packetize(b"\1" * 20, 100)[0])
    peer.poll(factory.clock())
    reports = [
        packet for data in sent for packet in parse_rtcp(data) if isinstance(packet, TransportFeedback)
    ]
    assert [(report.base_sequence, len(report.deltas)) for report in reports] == [(99, 1)]
    assert video.ssrc == 1234


async def test_a_keyframe_request_is_answered_with_one(factory: PeerFactory) -> None:
    sink, pc = Recorder(), publisher("H264", "opus")
    peer = factory.peer(sink, send=False, receive=True)
    await join(peer, pc)
    await until(lambda: len(sink.video) > 5, "pictures")
    before = sum(frame.keyframe for frame, _ in sink.video)
    peer.request_keyframe()
    await until(lambda: sum(frame.keyframe for frame, _ in sink.video) > before, "a keyframe")
    assert peer.stats()["plis"] == 1


async def test_a_limit_reaches_the_publisher(factory: PeerFactory) -> None:
    sink, pc = Recorder(), publisher("VP8", "opus")
    peer = factory.peer(sink, send=False, receive=True)
    await join(peer, pc)
    await until(lambda: len(sink.video) > 3, "pictures")
    sender = next(s for s in pc.getSenders() if s.kind == "video")
    encoder = sender._RTCRtpSender__encoder  # type: ignore[attr-defined]
    peer.ask_video(Demand(426, 240, 30, 300_000))
    await until(lambda: abs(encoder.target_bitrate - 300_000 - SOUND_BPS) < 4, "the REMB")


async def test_a_second_video_is_the_shared_screen(factory: PeerFactory) -> None:
    sink, pc = Recorder(), connection()
    pc.addTrack(Colour(60))
    pc.addTrack(Colour(220))
    prefer(pc, "VP8")
    peer = factory.peer(sink, send=False, receive=True)

    def without_ssrcs(sdp: str) -> str:
        return "".join(line for line in sdp.splitlines(True) if not line.startswith("a=ssrc"))

    await join(peer, pc, without_ssrcs)
    await until(lambda: {screen for _, screen in sink.video} == {False, True}, "both videos")
    decoder = av.CodecContext.create("vp8", "r")
    (picture,) = decoder.decode(av.Packet(next(frame.data for frame, screen in sink.video if screen)))
    assert abs(picture.to_ndarray()[: picture.height].mean() - 220) < 6


async def test_bye_ends_nothing(factory: PeerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the connection nor a picture: nothing begins anew behind it, so nobody is asked for a keyframe."""
    sink, pc = Recorder(), publisher("VP8", "opus")
    peer = factory.peer(sink, send=False, receive=True)
    await join(peer, pc)
    await until(lambda: len(sink.video) > 3, "pictures")
    heard: list[RtcpPacket] = []
    handle = peer._handle_rtcp

    def note(packet: RtcpPacket, now: float) -> None:
        handle(packet, now)
        heard.append(packet)

    monkeypatch.setattr(peer, "_handle_rtcp", note)
    tracks = [incoming for incoming in peer._router.tracks if incoming.ssrc is not None]
    assemblers = [incoming.assembler for incoming in tracks]
    plis = peer.stats()["plis"]
    bye = Bye(tuple(incoming.ssrc for incoming in tracks if incoming.ssrc is not None))
    await pc.getTransceivers()[0].receiver.transport._send_rtp(write_rtcp([bye]))
    await until(lambda: bye in heard, "the BYE")
    before = len(sink.video)
    await until(lambda: len(sink.video) > before + 20, "pictures after BYE")
    after = [frame for frame, _ in sink.video[before - 1 :]]
    assert not any(frame.keyframe for frame in after[1:])
    assert all(0 < second.pts - first.pts < 90_000 for first, second in itertools.pairwise(after))
    assert peer.stats()["plis"] == plis
    assert [incoming.assembler for incoming in tracks] == assemblers
    assert not sink.closed


# --- out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_a_viewer_decodes_what_is_sent(factory: PeerFactory, codec: VideoCodec) -> None:
    sink, pc = Recorder(), viewer(codec, "opus")
    peer = factory.peer(sink, send=True, receive=False)
    tracks = {}
    pc.on("track", lambda track: tracks.setdefault(track.kind, track))
    await join(peer, pc)
    assert (peer.sends_video, peer.sends_audio, peer.receives_video) == (codec, "opus", None)
    await until(sink.connected.is_set, "the connection")
    mix = Mix(codec)
    silence = av.CodecContext.create("libopus", "w")
    silence.sample_rate, silence.layout, silence.format = 48_000, "mono", "s16"
    voice = av.AudioFrame.from_ndarray(np.full((1, 960), 1000, np.int16), format="s16", layout="mono")
    voice.sample_rate = 48_000
    sounds = [bytes(packet) for _ in range(9) for packet in silence.encode(voice)]

    def send() -> None:
        index = mix.index
        peer.send_video(mix.unit())
        for half in range(2):
            pts = (2 * index + half) * 960
            peer.send_audio(EncodedAudio("opus", sounds[index % len(sounds)], pts, 960))

    async with every_tick(send), asyncio.timeout(60):
        pictures = [await tracks["video"].recv() for _ in range(10)]
        heard = [await tracks["audio"].recv() for _ in range(10)]
    assert (pictures[-1].width, pictures[-1].height) == (320, 240)
    assert abs(pictures[-1].to_ndarray()[:240, 64:].mean() - 120) < 6
    assert len(heard) == 10
    distances = {b.pts - a.pts for a, b in itertools.pairwise(pictures)}
    assert distances == {3000}  # room time, whatever the clock on the wall does


async def test_what_is_sent_before_the_connection_is_dropped_and_counted(factory: PeerFactory) -> None:
    sink, pc = Recorder(), viewer("VP8", "opus")
    peer = factory.peer(sink, send=True, receive=False)
    answered = await peer.accept(await offer_of(pc))
    peer.send_video(Mix("VP8").unit())
    peer.send_audio(EncodedAudio("opus", b"x", 0, 960))
    assert peer.stats()["sent"]["dropped"] == 2
    await pc.setRemoteDescription(RTCSessionDescription(answered, "answer"))
    await until(sink.connected.is_set, "the connection")
    peer.send_video(Mix("H264").unit())  # not what was negotiated
    assert peer.stats()["sent"]["dropped"] == 3


async def test_nacks_are_answered_and_plis_reported(factory: PeerFactory) -> None:
    sink, pc = Recorder(), viewer("VP8", "opus")
    peer = factory.peer(sink, send=True, receive=False)
    tracks = {}
    pc.on("track", lambda track: tracks.setdefault(track.kind, track))
    await join(peer, pc)
    await until(sink.connected.is_set, "the connection")
    mix = Mix("VP8")
    transport = peer._transport
    assert transport is not None
    send_rtp, count, repeats = transport.send_rtp, 0, []

    def lossy(packet: bytes) -> bool:
        nonlocal count
        count += 1
        parsed = parse_rtp(packet)
        if parsed.ssrc != peer._mix.video.ssrc:  # type: ignore[union-attr]
            repeats.append(parsed)
        elif count % 9 == 5:
            return True  # lost on the way
        return send_rtp(packet)

    peer._mix.send = lossy
    async with every_tick(lambda: peer.send_video(mix.unit())), asyncio.timeout(60):
        pictures = [await tracks["video"].recv() for _ in range(20)]
        assert {b.pts - a.pts for a, b in itertools.pairwise(pictures)} == {3000}
        receiver = next(t.receiver for t in pc.getTransceivers() if t.kind == "video")
        await receiver._send_rtcp_pli(peer._mix.video.ssrc)  # type: ignore[union-attr]
        await until(lambda: sink.keyframe_requests >= 1, "the PLI")
    assert peer.stats()["sent"]["repeated"] == len(repeats) > 0
    assert len({packet.ssrc for packet in repeats}) == 1  # as RTX, which aiortc offers


async def test_who_tells_of_losses_only_is_called(factory: PeerFactory) -> None:
    sink, pc = Recorder(), viewer("VP8", "opus")
    peer = factory.peer(sink, send=True, receive=False)
    await join(peer, pc)
    await until(sink.connected.is_set, "the connection")
    mix, line = Mix("VP8"), peer._mix.downlink
    assert isinstance(line, EchoedLine)
    async with every_tick(lambda: peer.send_video(mix.unit())):
        await until(lambda: line._meter.answered > 5, "answers of a stock aiortc peer")
    assert line._meter.newest is not None
    assert line._meter.newest.rtt_s < 1.0
    assert sink.lines[-1].rtt_s is not None


async def test_the_estimate_of_who_answers_no_call_is_believed(factory: PeerFactory) -> None:
    sink, pc = Recorder(), viewer("VP8", "opus")
    peer = factory.peer(sink, send=True, receive=False)
    await join(peer, pc)
    transport = peer._transport
    assert transport is not None
    transport.call = lambda answered: None  # type: ignore[method-assign]
    await until(sink.connected.is_set, "the connection")
    mix = Mix("VP8")
    remb = write_rtcp([ReceiverReport(1), ReceiverEstimatedMaxBitrate(30_000, (peer._mix.video.ssrc,))])  # type: ignore[union-attr]
    wire = pc.getTransceivers()[0].receiver.transport

    def limited() -> object:
        asyncio.ensure_future(wire._send_rtp(remb))  # noqa: RUF006 - awaited by nobody: it only sends
        return sink.lines and 0 < (sink.lines[-1].estimate_bps or 0) < 40_000

    async with every_tick(lambda: peer.send_video(mix.unit())):
        await until(limited, "the REMB")  # below what is sent, and not rising


async def test_a_keyframe_is_spread_and_supersedes_what_waits(factory: PeerFactory) -> None:
    sink, pc = Recorder(), viewer("VP8", "opus")
    peer = factory.peer(sink, send=True, receive=False)
    await join(peer, pc)
    await until(sink.connected.is_set, "the connection")
    sent: list[bytes] = []
    transport = peer._transport
    assert transport is not None
    peer._mix.send = lambda packet: sent.append(packet) or True  # type: ignore[func-returns-value]
    parts = tuple(bytes([n]) * 1000 for n in range(60))
    peer.send_video(PacketizedVideo("VP8", parts, 0, keyframe=True))
    at_once = len(sent)
    assert 0 < at_once <= 20
    peer.send_video(PacketizedVideo("VP8", (b"new",), 3000, keyframe=True))
    assert parse_rtp(sent[-1]).payload == b"new"
    assert len(sent) == at_once + 1
    sequences = [parse_rtp(packet).sequence for packet in sent]
    assert all((b - a) & 0xFFFF == 1 for a, b in itertools.pairwise(sequences))
    peer.send_video(PacketizedVideo("VP8", parts, 6000, keyframe=False))
    await until(lambda: len(sent) == at_once + 61, "the rest, paced")
    assert parse_rtp(sent[-1]).marker


async def test_an_overflowing_queue_waits_for_the_next_keyframe(factory: PeerFactory) -> None:
    sink, pc = Recorder(), viewer("VP8", "opus")
    peer = factory.peer(sink, send=True, receive=False)
    await join(peer, pc)
    await until(sink.connected.is_set, "the connection")
    peer.send_video(PacketizedVideo("VP8", (b"k",), 0, keyframe=True))
    peer.send_video(PacketizedVideo("VP8", (b"x" * 50,) * 5000, 3000, keyframe=False))
    assert sink.keyframe_requests == 1
    before = peer.stats()["sent"]["packets"]
    peer.send_video(PacketizedVideo("VP8", (b"y",), 6000, keyframe=False))
    assert peer.stats()["sent"]["packets"] == before
    peer.send_video(PacketizedVideo("VP8", (b"k",), 9000, keyframe=True))
    assert peer.stats()["sent"]["packets"] == before + 1


@pytest.mark.parametrize("told", [True, False])
async def test_sender_reports_put_sound_and_picture_on_one_scale(factory: PeerFactory, told: bool) -> None:
    origin = factory.clock() - 100.0
    factory.origin = origin if told else None
    sink, pc = Recorder(), viewer("VP8", "opus")
    peer = factory.peer(sink, send=True, receive=False)
    await join(peer, pc)
    await until(sink.connected.is_set, "the connection")
    sent_at = factory.clock() - origin  # room seconds; sound leaves 0.1 s after its pts, pictures 0.3 s
    peer.send_audio(EncodedAudio("opus", b"sound", round((sent_at - 0.1) * 48_000), 960))
    peer.send_video(PacketizedVideo("VP8", (b"picture",), round((sent_at - 0.3) * 90_000), keyframe=True))
    reports = peer._mix.reports(now=factory.clock(), unix_s=time.time())
    streams = {stream.ssrc: stream for stream in (peer._mix.video, peer._mix.audio) if stream is not None}
    zeros = [  # NTP time, seconds, of room pts 0 as each report has it
        report.ntp_time / 2**32
        - ((report.rtp_time - streams[report.ssrc]._offset) & 0xFFFFFFFF) / streams[report.ssrc].clock_hz
        for report in reports
    ]
    assert len(zeros) == 2
    assert zeros[0] == pytest.approx(zeros[1], abs=0.002)
    expected = ntp_time(time.time() - (factory.clock() - origin)) / 2**32
    assert zeros[0] - expected == pytest.approx(0.0 if told else 0.1, abs=0.05)


async def test_a_publisher_hears_the_mix_on_the_same_connection(factory: PeerFactory) -> None:
    sink, pc = Recorder(), publisher("H264", "VP8", "opus")
    peer = factory.peer(sink, send=True, receive=True)
    tracks = {}
    pc.on("track", lambda track: tracks.setdefault(track.kind, track))
    await join(peer, pc)
    assert (peer.receives_video, peer.sends_video) == ("H264", "H264")
    await until(lambda: len(sink.video) > 3, "its own pictures")
    mix = Mix("H264")
    async with every_tick(lambda: peer.send_video(mix.unit(50))), asyncio.timeout(60):
        pictures = [await tracks["video"].recv() for _ in range(5)]
    assert abs(pictures[-1].to_ndarray()[:240, 64:].mean() - 50) < 6


# --- signalling --------------------------------------------------------------------------------------------


async def test_nonsense_is_refused_and_leaves_nothing(factory: PeerFactory) -> None:
    for text, error in (("nonsense", BadOffer), ("", BadOffer), ("v=0\r\nm=audio 9 X 0\r\n", BadOffer)):
        peer = factory.peer(Recorder(), send=True, receive=True)
        with pytest.raises(error):
            await peer.accept(text)
        await peer.close()
    pc = publisher("VP8", "opus")
    sink = Recorder()
    peer = factory.peer(sink, send=True, receive=False)  # WHEP, but the offer only sends
    offer = (await offer_of(pc)).replace("a=sendrecv", "a=sendonly")
    with pytest.raises(UnsupportedOffer):
        await peer.accept(offer)
    await peer.close()
    assert sink.closed == []
    assert factory.stats()["peers"] == 0
    assert not factory.port._by_ufrag


async def test_unknown_video_gets_port_0_and_sound_works(factory: PeerFactory) -> None:
    sink, pc = Recorder(), connection()
    pc.addTrack(AudioStreamTrack())
    peer = factory.peer(sink, send=False, receive=True)
    av1 = (
        "m=video 9 UDP/TLS/RTP/SAVPF 45\r\na=mid:av1\r\na=rtcp-mux\r\na=sendonly\r\na=rtpmap:45 AV1/90000\r\n"
    )
    offer = (await offer_of(pc)).replace("a=group:BUNDLE 0", "a=group:BUNDLE 0 av1") + av1
    answer = await peer.accept(offer)
    sound, _, video = answer.partition("m=video")
    assert video.startswith(" 0 UDP/TLS/RTP/SAVPF 45\r\n")
    assert (peer.receives_audio, peer.receives_video) == ("opus", None)
    await pc.setRemoteDescription(RTCSessionDescription(sound, "answer"))  # it never knew of the AV1
    await until(lambda: len(sink.audio) > 5, "sound")


async def test_trickled_candidates_connect(factory: PeerFactory) -> None:
    sink, pc = Recorder(), publisher("VP8", "opus")
    peer = factory.peer(sink, send=False, receive=True)
    offer = await offer_of(pc)
    hidden = ("a=candidate", "a=end-of-candidates")
    bare = "".join(line for line in offer.splitlines(True) if not line.startswith(hidden))
    answer = await peer.accept(bare)
    rows = [line for line in offer.splitlines() if line.startswith(("a=ice-ufrag", "a=ice-pwd", *hidden))]
    peer.add_candidates("\r\n".join(dict.fromkeys(rows)) + "\r\n")
    with pytest.raises(BadOffer):
        peer.add_candidates("nonsense")
    with pytest.raises(InvalidBody, match="restart"):
        peer.add_candidates("a=ice-ufrag:another1\r\na=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa\r\n")
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await until(lambda: sink.video, "pictures")
    await peer.close()
    with pytest.raises(Conflict):
        peer.add_candidates("a=end-of-candidates\r\n")


async def test_an_offer_is_answered_once(factory: PeerFactory) -> None:
    pc = viewer("VP8", "opus")
    peer = factory.peer(Recorder(), send=True, receive=False)
    offer = await offer_of(pc)
    await peer.accept(offer)
    with pytest.raises(Conflict):
        await peer.accept(offer)


# --- bad weather -------------------------------------------------------------------------------------------


async def test_strangers_change_nothing(factory: PeerFactory) -> None:
    """An empty datagram, or one of 1,601 bytes, would end a stock connection."""
    sink, pc = Recorder(), publisher("VP8", "opus")
    peer = factory.peer(sink, send=False, receive=True)
    await join(peer, pc)
    await until(lambda: len(sink.video) > 3, "pictures")
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
        target = (HOST, factory.port.sockets[0].port)
        for data in (b"", b"\x80" * 1601, b"\x80" * 1400, b"\x16\xfe\xfd" + bytes(20), b"\0\1"):
            stranger.sendto(data, target)
    # and from the peer's own address: what its network may do to it
    for data in (b"", b"\x80" * 1601, b"\x80" * 1400, b"\x16\xfe\xfd" + bytes(20)):
        name = bytes(2) + next(iter(factory.port._by_source)) + bytes(8)
        factory.port._route(Slot.holding(data, name), factory.port.sockets[0])
    before = len(sink.video)
    await until(lambda: len(sink.video) > before + 10, "pictures as if nothing had been")
    assert not sink.closed
    assert sum(factory.stats()["dropped"].values()) >= 5


async def test_a_peer_that_never_connects_is_given_up() -> None:
    factory = PeerFactory(host=HOST, ports=PORTS, connect_timeout_s=0.2)
    await factory.start()
    sink, pc = Recorder(), publisher("VP8", "opus")
    await factory.peer(sink, send=False, receive=True).accept(await offer_of(pc))
    await until(lambda: sink.closed, "on_closed")
    assert "could not be reached" in sink.closed[0]
    assert not factory.port._by_ufrag
    await factory.close()


async def test_a_peer_that_vanishes_is_given_up_by_the_clock() -> None:
    shift = 0.0
    loop = asyncio.get_running_loop()
    factory = PeerFactory(host=HOST, ports=PORTS, clock=lambda: loop.time() + shift)
    await factory.start()
    sink, pc = Recorder(), publisher("VP8", "opus")
    peer = factory.peer(sink, send=True, receive=True)
    await join(peer, pc)
    await until(lambda: sink.video, "pictures")
    factory.port._route = lambda slot, opened: None  # type: ignore[method-assign]  # its network is gone
    shift = 20.0
    peer.poll(factory.clock())
    assert not peer._closed
    shift = 31.0
    await until(lambda: sink.closed, "on_closed")
    assert sink.closed == ["nothing was heard of the peer for 30 s"]
    await factory.close()


async def test_a_publisher_without_media_is_given_up_but_a_listener_is_not() -> None:
    shift = 0.0
    loop = asyncio.get_running_loop()
    factory = PeerFactory(host=HOST, ports=PORTS, clock=lambda: loop.time() + shift)
    await factory.start()
    mute, listening = Recorder(), Recorder()
    pcs = [publisher("VP8", "opus"), viewer("VP8", "opus")]
    peers = [factory.peer(mute, send=False, receive=True), factory.peer(listening, send=True, receive=False)]
    for peer, pc in zip(peers, pcs, strict=True):
        await join(peer, pc)
    await until(lambda: mute.connected.is_set() and listening.connected.is_set(), "both connections")
    transport = peers[0]._transport
    assert transport is not None
    transport._on_rtp = lambda data: None  # its media stops coming
    shift = 31.0
    for peer in peers:
        peer._heard()  # both still answer checks
    await until(lambda: mute.closed, "on_closed")
    assert mute.closed == ["the publisher sent no media for 30 s"]
    assert not listening.closed
    await factory.close()


async def test_closing_the_factory_closes_its_peers_once() -> None:
    factory = PeerFactory(host=HOST, ports=PORTS)
    await factory.start()
    sinks, pcs = [Recorder(), Recorder()], [viewer("VP8", "opus"), viewer("VP8", "opus")]
    for sink, pc in zip(sinks, pcs, strict=True):
        await join(factory.peer(sink, send=True, receive=False), pc)
    await until(lambda: all(sink.connected.is_set() for sink in sinks), "both connections")
    assert len(factory.port.sockets) == 1  # one socket for all
    await factory.close()
    await factory.close()
    assert [sink.closed for sink in sinks] == [["the room was closed"]] * 2


@pytest.mark.parametrize("part", ["poll", "drain"])
async def test_a_fault_of_ours_in_one_connection_costs_that_one_alone(part: str) -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    factory = PeerFactory(host=HOST, ports=PORTS)
    await factory.start()
    sinks, pcs = [Recorder(), Recorder(), Recorder()], [viewer("VP8", "opus") for _ in range(3)]
    peers = [factory.peer(sink, send=True, receive=False) for sink in sinks]
    for peer, pc in zip(peers, pcs, strict=True):
        await join(peer, pc)
    await until(lambda: all(sink.connected.is_set() for sink in sinks), "all connections")
    served = {0: 0, 2: 0}

    def fails(now: float) -> bool:
        raise RuntimeError("a fault")

    def serves(index: int, now: float) -> bool:
        served[index] += 1
        return True

    for index, peer in enumerate(peers):
        act = fails if index == 1 else functools.partial(serves, index)
        setattr(peer, part, act)
        if part == "drain":
            factory.pace(peer)
        peer.is_patient = False
    await until(lambda: bool(sinks[1].closed), "the end of the one")
    assert sinks[1].closed == ["an internal error; join again"]
    before = dict(served)
    await until(lambda: all(served[index] > before[index] + 3 for index in served), "the others' turns")
    assert [str(context["exception"]) for context in told] == ["a fault"]
    assert factory.stats()["failed"] == 1
    assert not sinks[0].closed
    assert not sinks[2].closed
    await factory.close()
