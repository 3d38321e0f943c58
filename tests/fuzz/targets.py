"""One function a group of parsers: any bytes go in, only the agreed exception is caught, bounds are asserted.

``test_targets`` feeds them with hypothesis in ``make test``; ``make fuzz`` runs them under atheris.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mixer.audio.payload import MAX_OPUS_SAMPLES, MAX_PCM_BYTES, duration_samples
from mixer.audio.playout import MAX_PACKETS as MAX_WAITING
from mixer.audio.playout import Playout
from mixer.errors import BadOffer, MalformedPacket, UnsupportedOffer
from mixer.media import AudioCodec, VideoCodec
from mixer.replay import BadTimeline, Replay, parse_events
from mixer.rtp.arrivals import ArrivalLog
from mixer.rtp.assemble import MAX_BYTES, MAX_PACKETS, FrameAssembler
from mixer.rtp.history import unwrap_rtx
from mixer.rtp.packet import HEAD_SIZE, RtpPacket, classify, parse_rtp, write_rtp
from mixer.rtp.payload import h264, vp8
from mixer.rtp.red import MAX_BLOCKS, RedUnpacker
from mixer.rtp.rtcp import (
    Nack,
    PictureLossIndication,
    ReceiverEstimatedMaxBitrate,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    TemporaryMaxBitrateRequest,
    parse_rtcp,
    write_rtcp,
)
from mixer.rtp.twcc import TransportFeedback
from mixer.video.headers import picture_size
from mixer.video.layout import arrange
from mixer.webrtc.adapter import _parse as parse_stun
from mixer.webrtc.answer import LocalSide, negotiate, write_answer
from mixer.webrtc.offer import parse_offer
from mixer.webrtc.sdp import IceCandidate
from mixer.webrtc.sdpfrag import parse_fragment
from mixer.webrtc.stun import peek_stun
from recording.audit import read_line
from recording.crypt import SEALED_BYTES, header, unwrap
from recording.encrypted import EncryptedStore
from recording.errors import BadEntry, FixityError
from recording.fragments import picture_fragments
from recording.keys import safe_key
from recording.ledger import read_entry
from recording.matroska import Block, cluster, head, scan
from recording.package import read_manifest
from recording.seekindex import Inset
from recording.signing import KeyRing
from recording.store import read_object
from recording.trackcodecs import audio_form
from recording.tracks import is_track
from tests.fakes.memory_store import MemoryStore
from tests.fuzz import legs
from tests.fuzz.chunks import chunks, joined
from tests.turn.relay import UDP, Relay, bind, five_tuple, send_indication
from turn.core import MAX_AMPLIFICATION, Answer
from turn.message import Class, MalformedMessage, Method, frame_bytes, parse_message, write_message

_OFFERS: Final = Path(__file__).parent.parent / "mixer" / "webrtc" / "offers"
_VIDEO: Final[tuple[VideoCodec, ...]] = ("VP8", "VP9", "H264")
_AUDIO: Final[tuple[AudioCodec, ...]] = ("opus", "G722", "PCMU", "PCMA")
_LOCAL: Final = LocalSide(
    session_id=1,
    ufrag="ufra",
    password="p" * 22,
    fingerprint=("sha-256", ":".join(["AB"] * 32)),
    candidates=[IceCandidate("1", 1, "192.0.2.7", 40_000, "host")],
    cname="us",
    ssrcs={"audio": 11, "video": 22},
    rtx_ssrc=33,
)


def rtp(data: bytes) -> None:
    """RTP with its extensions, RTX in it, and what tells datagrams apart."""
    classify(data[:HEAD_SIZE], len(data))
    with contextlib.suppress(MalformedPacket):
        packet = parse_rtp(data)
        assert len(packet.payload) + 12 <= len(data)
        if all(1 <= len(value) <= 16 and 0 < key < 15 for key, value in packet.extensions.items()):
            assert parse_rtp(write_rtp(packet)).extensions == packet.extensions
        unwrap_rtx(packet, payload_type=96, ssrc=1)


def rtcp(data: bytes) -> None:
    """Compounds; what is read can be written and reads the same again."""
    with contextlib.suppress(MalformedPacket):
        packets = parse_rtcp(data)
        for packet in packets:
            if isinstance(
                packet, Nack | ReceiverEstimatedMaxBitrate | TemporaryMaxBitrateRequest | ReceiverReport
            ):
                (again,) = parse_rtcp(write_rtcp([packet]))
                assert type(again) is type(packet)


def sdp(data: bytes) -> None:
    """An offer, what is made of it, the answer, and the first pictures that come."""
    with contextlib.suppress(BadOffer, UnsupportedOffer):
        offer = parse_offer(data.decode(errors="replace"))
        plan = negotiate(offer, send=True, receive=True)
        answer = write_answer(offer, plan, _LOCAL)
        assert answer.count("\r\nm=") == len(offer.sections)
        assert "\n" not in answer.replace("\r\n", "")
        legs.keyframes(plan)


def sdpfrag(data: bytes) -> None:
    """Trickled candidates."""
    with contextlib.suppress(BadOffer):
        parse_fragment(data.decode(errors="replace"))


def stun(data: bytes) -> None:
    """Our peek, and aioice's parser as we wrap it."""
    with contextlib.suppress(MalformedPacket):
        peek_stun(data)
        parse_stun(data)


def turn(data: bytes) -> None:
    """The relay's codec, and its core with an allocation standing. No stranger is amplified."""
    with contextlib.suppress(MalformedMessage):
        message = parse_message(data)
        assert len(message.attributes) <= len(data) // 4
        message.proves(b"k")
    with contextlib.suppress(MalformedMessage):
        frame_bytes(data[:4].ljust(4, b"\0"))
    relay, at = Relay(), five_tuple()
    relay.ask(at, Method.ALLOCATE, UDP)
    bind(relay, at, 0x4000, ("198.51.100.9", 5000))
    for sequence, chunk in chunks(data):
        cookie = chunk[:2] + max(0, len(chunk) - 20).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + chunk[8:]
        for one in (chunk, cookie):
            for output in relay.raw(one, at if sequence % 2 else five_tuple(sequence % 7)):
                assert not isinstance(output, Answer) or len(output.data) <= MAX_AMPLIFICATION * len(one)
    assert len(relay.table.by_tuple) == 1


def red(data: bytes) -> None:
    """A stream of RED packets out of one run of bytes."""
    take = RedUnpacker(red_type=63, inner_type=111)
    for sequence, payload in chunks(data):
        with contextlib.suppress(MalformedPacket):
            found = take.unpack(RtpPacket(63 if len(payload) % 7 else 111, False, sequence, 0, 1, payload))
            assert len(found) <= MAX_BLOCKS


def video(data: bytes) -> None:
    """Payloads of a codec that the first byte names, through the assembler, out of order and with gaps."""
    if not data:
        return
    assembler = FrameAssembler(_VIDEO[data[0] % 3])
    for step, (sequence, payload) in enumerate(chunks(data[1:])):
        marker = len(payload) % 3 == 0
        packet = RtpPacket(96, marker, sequence, step // 3 * 3000, 1 + (len(payload) == 77), payload)
        for frame in assembler.push(packet, step / 100):
            assert frame.data
        assembler.poll(step / 100)
        assert assembler.waiting <= MAX_PACKETS + 1
        assert assembler._bytes <= MAX_BYTES


def headers(data: bytes) -> None:
    """The size of a coded picture."""
    if data:
        with contextlib.suppress(MalformedPacket):
            size = picture_size(_VIDEO[data[0] % 3], data[1:])
            assert size is None or min(size) >= 0


def audio(data: bytes) -> None:
    """Lengths of payloads, through the jitter buffer."""
    if not data:
        return
    codec = _AUDIO[data[0] % 4]
    playout = Playout(clock_hz=48_000 if codec == "opus" else 8_000, fec=codec == "opus")
    for step, (sequence, payload) in enumerate(chunks(data[1:])):
        with contextlib.suppress(MalformedPacket):
            samples = duration_samples(codec, payload)
            assert 0 < samples <= max(MAX_OPUS_SAMPLES, MAX_PCM_BYTES * 6)
            playout.push(sequence, sequence * 960, payload, samples=samples, now=step / 50)
        plan = playout.pop(step / 50, buffered=0)
        assert sum(one.samples for one in plan.steps) >= 0
        assert playout.depth <= MAX_WAITING


def arrivals(data: bytes) -> None:
    """Transport-wide numbers, as strangers choose them."""
    log = ArrivalLog()
    for step, (sequence, _) in enumerate(chunks(data)):
        log.record(sequence, step / 1000)
        if step % 50 == 49:
            for report in log.report(sender_ssrc=1, media_ssrc=2, now=step / 1000):
                parse_rtcp(write_rtcp([report]))


def timeline(data: bytes) -> None:
    """A journal that is to be composed again."""
    with contextlib.suppress(BadTimeline):
        played = Replay(parse_events(data))
        assert all(is_track(track.file) for track in played.tracks)
        for at in (0.0, played.ends_s / 2, played.ends_s):
            played.advance(at)
            arrange(played.body, played.sources(), played.speaker)


def matroska(data: bytes) -> None:
    """A track that a dead writer left."""
    extent = scan(io.BytesIO(data))
    assert extent.whole_bytes <= len(data)
    assert scan(io.BytesIO(data[: extent.whole_bytes])) == extent


def encrypted(data: bytes) -> None:
    """What a store gives back as an encrypted object, whole: its content, or FixityError."""
    store = MemoryStore()
    EncryptedStore(store, bytes(32)).put("a", b"")
    store.objects["a"] = data
    with contextlib.suppress(FixityError):
        content = read_object(EncryptedStore(store, bytes(32)), "a")
        assert len(content) < len(data)
    with contextlib.suppress(FixityError):
        unwrap(bytes(32), data, "a")


def records(data: bytes) -> None:
    """What the archive keeps beside packages, and what whoever can write to the store may have made of it."""
    with contextlib.suppress(BadEntry):
        read_entry(data, KeyRing())
    with contextlib.suppress(BadEntry):
        line = read_line("01ARZ3NDEKTSV4RRFFQ69G5FAV", data)
        assert line.number >= 1
    for path in read_manifest(data):
        assert safe_key(path) == path


def film(data: bytes) -> None:
    """The boxes of a recording that may be cut or spoilt anywhere."""
    init_bytes, _, found = picture_fragments(io.BytesIO(data))
    assert all(f.start >= init_bytes and f.start + f.size <= len(data) and f.ends > f.begins for f in found)
    inset = Inset.make(data, b"index", len(data))
    if inset is not None:
        whole = b"".join(inset.read(lambda a, b: iter([data[a:b]]), 0, None))
        assert whole == data[: inset.at] + b"index" + data[inset.at :]


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        *(rtp, rtcp, sdp, sdpfrag, stun, turn, red, video, headers, audio, arrivals),
        *(timeline, matroska, records, film, encrypted),
        *legs.TARGETS,
    )
}


def seeds(name: str) -> list[bytes]:
    """Real inputs to begin from."""
    return {**_SEEDS, **legs.SEEDS}[name]


def _feedback_seed() -> bytes:
    log = ArrivalLog()
    for number in range(60):
        if number % 7:
            log.record(number, number / 100)
    reports: list[TransportFeedback] = log.report(sender_ssrc=1, media_ssrc=2, now=0.6)
    return write_rtcp(reports)


_KEY: Final = b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00" + bytes(400)
_BLOCK: Final = ReportBlock(1, 2, 3, 4, 5, 6, 7)
_COMPOUND: Final = (
    SenderReport(1, 2, 3, 4, 5, (_BLOCK,)),
    SourceDescription.of(1, "cname"),
    Nack(1, 2, (1, 2, 40)),
    PictureLossIndication(1, 2),
    ReceiverEstimatedMaxBitrate(1_000_000, (1, 2)),
    TemporaryMaxBitrateRequest(1, ((2, 400_000, 40),)),
)


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


_TRAK: Final = _box(
    b"trak", _box(b"tkhd", _words(0, 0, 0, 1)), _box(b"mdia", _box(b"mdhd", _words(0, 0, 0, 90_000)))
)
_TRAF: Final = _box(
    b"traf",
    _box(b"tfhd", _words(0x28, 1, 3000, 0)),
    _box(b"tfdt", _words(0, 0)),
    _box(b"trun", _words(0, 30)),
)
_FILM: Final = b"".join((
    _box(b"ftyp", b"isom"), _box(b"moov", _TRAK), _box(b"moof", _box(b"mfhd", _words(0, 1)), _TRAF),
    _box(b"mdat", bytes(30)),
))  # fmt: skip

_SEEDS: Final[dict[str, list[bytes]]] = {
    "rtp": [
        write_rtp(RtpPacket(96, True, 7, 9, 1, b"media", (3, 4), {4: b"0", 5: b"hi"})),
        b"\x80\x60" + bytes(20),
        b"\xb0\x60" + bytes(10) + b"\x10\x00\0\1\1\2ab",
    ],
    "rtcp": [
        write_rtcp(_COMPOUND),
        write_rtcp([ReceiverReport(1, (_BLOCK, _BLOCK))]),
        _feedback_seed(),
    ],
    "sdp": [
        *(path.read_bytes().replace(b"\n", b"\r\n") for path in sorted(_OFFERS.glob("*.sdp"))),
        legs.offer("Z0LAFdoFB+wFqDAwNSgAAAMACAAAAwD0eLF1,aM48gA==").encode(),
        legs.offer("Zw==").encode(),
    ],
    "sdpfrag": [
        b"a=ice-ufrag:EsAw\r\na=candidate:1 1 udp 2122 192.0.2.1 61764 typ host\r\na=end-of-candidates\r\n"
    ],
    "stun": [bytes.fromhex("000100102112a442") + bytes(12) + b"\0\6\0\x09ours:them\0\0\0"],
    "turn": [
        joined(send_indication(("198.51.100.9", 5000), b"data")),
        joined(write_message(Method.ALLOCATE, Class.REQUEST, bytes(12), [UDP]), b"\x40\0\0\4data"),
        write_message(
            Method.REFRESH, Class.REQUEST, bytes(12), [UDP], key=b"k", sha256=True, fingerprint=True
        ),
    ],
    "red": [joined(b"\x6fabc", b"\xef\x0f\x00\x03\x6fabcdef")],
    "video": [
        b"\0" + joined(*vp8.packetize(_KEY, 200, picture_id=4)),
        b"\1" + joined(b"\x8c\x80" + bytes(40)),
        b"\2" + joined(*h264.packetize(legs.IDR, 200)),
    ],
    "headers": [b"\0" + _KEY[:40], b"\1\x82\x49\x83\x42\0\x04\xff\x02\xcf\0", b"\2" + legs.IDR],
    "audio": [b"\0" + joined(b"\x78" + bytes(60), b"\x7b\x02" + bytes(60)), b"\2" + joined(bytes(160))],
    "timeline": [
        b'{"t":0,"event":"join","participant":"a","name":"A"}\n{"t":1,"event":"layout","layout":{"preset":"pip"}}\n'
        b'{"t":1,"event":"track","participant":"a","file":"data/tracks/001.mkv","kind":"camera"}\n'
        b'{"t":2,"event":"share","participant":"a"}\n{"t":3,"event":"gap","duration":1}\n{"t":9,"event":"end"}\n'
    ],
    "matroska": [
        head(audio_form("opus", b"\x78"), title="A", uid=1)
        + cluster([Block(n, b"abc", True) for n in range(3)]) * 2
    ],
    "encrypted": [header(bytes(32)) + bytes(16), header(bytes(32)) + bytes(SEALED_BYTES + 16)],
    "arrivals": [joined(*[b""] * 120)],
    "records": [
        b'{"act":{"act":"hold","recording":"X","number":1,"time":"2026-01-01T00:00:00Z","by":"a","reason":"r"},'
        b'"key":"ab","signature":"00"}',
        b'{"n":1,"time":"2026-01-01T00:00:00Z","by":"a","role":"admin","act":"read","recording":null,"detail":{},'
        b'"previous":""}',
        b"0" * 64 + b"  data/recording.mp4\n",
    ],
    "film": [_FILM, _FILM.replace(b"\x18mdhd" + bytes(8), b"\x08mdhd\0\0\0\x10free")],
}
