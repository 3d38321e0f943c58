"""Fuzz targets of a whole leg: what keeps a state from packet to packet, put together as a peer puts it together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Final

from mixer.errors import MalformedPacket
from mixer.fanout import PacketizedVideo
from mixer.media import EncodedAudio
from mixer.rtp.assemble import MAX_PACKETS
from mixer.rtp.packet import RtpPacket, parse_rtp, write_rtp
from mixer.rtp.payload import h264, vp8
from mixer.rtp.rtcp import (
    Nack,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    SenderReport,
    parse_rtcp,
    write_rtcp,
)
from mixer.rtp.twcc import TransportFeedback
from mixer.video.demand import Demand
from mixer.webrtc.answer import Plan, negotiate
from mixer.webrtc.feedback import Feedback
from mixer.webrtc.incoming import MAX_SSRCS, IncomingTrack, Router
from mixer.webrtc.mix import MixOut
from mixer.webrtc.offer import parse_offer
from tests.fuzz.chunks import chunks, joined

_HEAD: Final = (
    "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\na=setup:actpass\r\na=ice-ufrag:EsAw\r\n"
    f"a=ice-pwd:{'p' * 24}\r\na=fingerprint:sha-256 {':'.join(['AB'] * 32)}\r\n"
)
_SOUND: Final = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=mid:0\r\na=rtcp-mux\r\na={way}\r\na=rtpmap:111 opus/48000/2\r\n"
    "a=rtcp-fb:111 nack\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"
)
_PICTURE: Final = (
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=rtcp-mux\r\na={way}\r\na=rtpmap:96 {codec}/90000\r\n"
    "a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n"
    "a=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 transport-cc\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
    "a=extmap:7 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n"
)
_DECLARED: Final = (
    "a=fmtp:96 packetization-mode=1\r\na=ssrc-group:FID 1 2\r\na=ssrc:1 cname:x\r\na=ssrc:2 cname:x\r\n"
)
_LAYERS: Final = (
    "a=extmap:5 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"
    "a=extmap:6 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n"
    "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n"
)
_SCREEN: Final = (
    "m=video 9 UDP/TLS/RTP/SAVPF 98 99\r\na=mid:2\r\na=rtcp-mux\r\na={way}\r\na=rtpmap:98 {codec}/90000\r\n"
    "a=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
)
_TYPES: Final = (96, 97, 96, 98, 111, 63, 99, 50)
_A_STEP: Final = 4  # packets of one picture and one sound at most


def _offer(codec: str, more: str, way: str) -> str:
    return _HEAD + "".join((_SOUND, _PICTURE, more, _SCREEN)).format(codec=codec, way=way)


def offer(sprop: str) -> str:
    """An offer of H.264 with these ``sprop-parameter-sets``."""
    return _offer("H264", f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sprop}\r\n", "sendonly")


@cache
def _plan(kind: int, *, back: bool) -> Plan:
    """Of ``kind`` 0: H.264 with declared repairs; 1: three layers of VP8; 2: VP8 of which nothing is declared.

    ``back``: we send, else the peer does.
    """
    codec, more = (("H264", _DECLARED), ("VP8", "" if back else _LAYERS), ("VP8", ""))[kind]
    text = _offer(codec, more, "recvonly" if back else "sendonly")
    return negotiate(parse_offer(text), send=back, receive=not back)


def publish(router: Router, packet: RtpPacket, feedback: Feedback, now: float) -> IncomingTrack | None:
    """As `Peer._on_rtp` does with a packet; whose it was."""
    feedback.arrived(packet, now)
    routed = router.route(packet, now)
    if routed is None:
        return None
    incoming, original = routed
    if not original.repaired:
        incoming.stats.receive(packet, now)
    if incoming.track.kind == "video":
        for frame in feedback.layers(incoming).pass_on(incoming, incoming.frames(original, now), now):
            assert frame.data
    elif original.payload:
        incoming.sounds(original, now)
    return incoming


def incoming(data: bytes) -> None:
    """RTP of a proven publisher, whatever it is, through router, assemblers, layers; and what is answered."""
    if not data:
        return
    router = Router(_plan(data[0] % 3, back=False))
    feedback = Feedback(router, ssrc=9, cname="us")
    timestamp = 0
    for step, (sequence, chunk) in enumerate(chunks(data[1:])):
        now = step * 0.007
        with contextlib.suppress(MalformedPacket):
            packet = _datagram(sequence, timestamp, chunk)
            timestamp += 3000 * packet.marker
            publish(router, packet, feedback, now)
        if step % 5 == 0:
            feedback.ask(
                Demand(step * 16 % 1280, step * 9 % 720, 30, 500_000), screen=bool(step % 2), now=now
            )
            told = feedback.report([], now) if feedback.report_due(now) else []
            for packets in (told, feedback.urgent(now, 0.05), *feedback.transport(now, busy=False)):
                if packets:
                    parse_rtcp(write_rtcp(packets))
        assert len(router._by_ssrc) <= MAX_SSRCS
        for track in router.tracks:
            assert track.assembler is None or track.assembler.waiting <= MAX_PACKETS + 1


def _datagram(sequence: int, timestamp: int, chunk: bytes) -> RtpPacket:
    """Raw where it could be RTP; else two bytes choose type, source, marker, names, and the rest is its payload."""
    if len(chunk) < 2 or chunk[0] & 0xC0 == 0x80:
        return parse_rtp(chunk)
    names = {
        4: (b"0", b"1", b"2", b"9")[chunk[1] & 3],
        5 + (chunk[1] >> 2 & 1): b"qhfx"[chunk[1] >> 3 & 3 :][:1],
    }
    extensions = {**(names if chunk[1] & 0x80 else {}), 7: sequence.to_bytes(2, "big")}
    kind = _TYPES[chunk[0] & 7]
    return RtpPacket(
        kind, not chunk[1] & 0x40, sequence, timestamp, chunk[0] >> 3 & 7, chunk[2:], (), extensions
    )


def told(data: bytes) -> None:
    """RTCP of a proven viewer into what it is sent: repeats, the measurement of its line, the pacer. It asks, and does
    not get more than its line has room for.
    """
    sent: list[bytes] = []
    newest, asked, whole = 0, 0, False

    def send(packet: bytes) -> bool:
        nonlocal newest
        sent.append(packet)
        parsed = parse_rtp(packet)
        if out.is_video(parsed.ssrc):
            newest = parsed.sequence
        return True

    out = MixOut(send, origin=0.0)
    for track in _plan(data[0] % 3 if data else 0, back=True).tracks:
        out.add(track, {"audio": 11, "video": 22}, 33)
    for step, (_, chunk) in enumerate(chunks(data[1:])):
        now = step * 0.02
        whole = out.picture(_unit(out, step, keyframe=not whole), now)
        out.sound(EncodedAudio("opus", bytes(40), step * 960, 960), now)
        with contextlib.suppress(MalformedPacket):
            for packet in parse_rtcp(chunk):
                asked += len(packet.lost) if isinstance(packet, Nack) else 0
                _tell(out, packet, now, newest)
        out.downlink.poll(now)
        out.drain(now + 0.01)
        for report in out.reports(now=now, unix_s=1e9 + now):
            write_rtcp([report])
        assert out.downlink.state.loss >= 0
        more = 2 * asked + out.counters.padded + out.counters.unasked
        assert len(sent) <= _A_STEP * (step + 1) + more, "a repeat or two of what was asked for, and no flood"


def _unit(out: MixOut, number: int, *, keyframe: bool) -> PacketizedVideo:
    if out.video_codec == "H264":
        payloads, picture = h264.packetize(h264.START_CODE + b"\x65" + bytes(range(1, 200)) * 8), None
    else:
        payloads, picture = vp8.packetize(b"\x01" * 1600, picture_id=number), number
    return PacketizedVideo(out.video_codec or "VP8", tuple(payloads), number * 3000, keyframe, picture, 1)


def _tell(out: MixOut, packet: RtcpPacket, now: float, newest: int) -> None:
    """As `Peer._handle_rtcp` does with what is about our streams. Lost numbers count back from ``newest``: the first
    one is drawn anew each time.
    """
    match packet:
        case SenderReport() | ReceiverReport():
            out.reported(packet.reports, now=now, unix_s=1e9 + now)
        case TransportFeedback():
            out.downlink.feedback(packet, out.counters.rtt_s, now)
        case Nack():
            out.repeat(packet.media_ssrc, tuple(newest - number & 0xFFFF for number in packet.lost), now)
        case ReceiverEstimatedMaxBitrate():
            out.downlink.remb(packet.bitrate_bps, now)
        case _:
            pass


def keyframes(plan: Plan) -> None:
    """The first picture of a publisher with that offer: whatever its parameters say, the stream itself is whole."""
    router = Router(plan)
    feedback = Feedback(router, ssrc=9, cname="us")
    payloads = h264.packetize(IDR, 200)
    for track in router.tracks:
        payload_type = next((number for number, codec in track.codecs.items() if codec == "H264"), None)
        if payload_type is None:
            continue
        found = {
            publish(
                router, RtpPacket(payload_type, payload is payloads[-1], number, 0, 7, payload), feedback, 0.0
            )
            for number, payload in enumerate(payloads)
        }
        for whose in found:  # nobody's where layers have names
            assert whose is None or (whose.assembler is not None and whose.assembler.frames == 1)
        return


IDR: Final = (
    bytes.fromhex("000000016742c015da0507ec05a830303528000003000800000300f478b175")
    + b"\0\0\0\1\x68\xce\x3c\x80\0\0\0\1\x65"
    + bytes(range(200))
)
_DELTA: Final = b"\x11" + bytes(20)
_KEY: Final = b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00" + bytes(150)


_NAMED: Final = 0x80
_ON: Final = 0x40  # the picture goes on in the next packet

SEEDS: Final[dict[str, list[bytes]]] = {
    "incoming": [
        b"\0" + joined(
            *(b"\x08" + bytes([_ON * (number < 2)]) + part for number, part in enumerate(h264.packetize(IDR, 150))),
            b"\x11\x00\x03\xe9" + IDR[4:40], b"\x16\x00\x03\xe9" + IDR[4:40],
        ),
        b"\1" + joined(*[bytes((8 + 8 * rid, _NAMED + 1 + 8 * rid)) + vp8.packetize(_KEY)[0] for rid in range(3)] * 9),
        b"\2" + joined(
            *[bytes((8 * (n % 8), 0)) + vp8.packetize(_KEY if n % 7 == 0 else _DELTA)[0] for n in range(40)],
            b"\x0c\x00" + bytes(30), b"\x0d\x00\xef\x0f\x00\x03\x6fabcdef",
            write_rtp(RtpPacket(96, True, 7, 9, 1, b"media", (3, 4), {4: b"1", 7: b"hi"})),
        ),
    ],
    "told": [
        b"\1" + joined(*[
            write_rtcp([ReceiverReport(5, (ReportBlock(22, 0, 0, n, 5, n << 16, n),)), Nack(5, 22, (n % 4, n % 9 + 4))])
            for n in range(30)
        ]),
        b"\0" + joined(*[write_rtcp([ReceiverEstimatedMaxBitrate(50_000 << n % 6, (22,))]) for n in range(20)]),
    ],
}  # fmt: skip

TARGETS: Final[tuple[Callable[[bytes], None], ...]] = (incoming, told)
