from __future__ import annotations

import dataclasses
import itertools
import random
from dataclasses import dataclass, field

import pytest

from mixer.errors import MalformedPacket
from mixer.media import EncodedVideo, VideoCodec
from mixer.rtp.assemble import MAX_BYTES, MAX_PACKETS, Feedback, FrameAssembler
from mixer.rtp.packet import RtpPacket, classify, parse_rtp, write_rtp
from tests.fakes.netem import Burst, Netem
from tests.mixer.rtp.streams import TICKS, body, decoded, encoded, packets, synthetic

CODECS: tuple[VideoCodec, ...] = ("H264", "VP8")
POLL_S = 0.02


def copy(packet: RtpPacket, **changes: object) -> RtpPacket:
    fields = {name: getattr(packet, name) for name in RtpPacket.__slots__}
    return RtpPacket(**(fields | changes))


def feed(assembler: FrameAssembler, stream: list[RtpPacket], now: float = 0.0) -> list[EncodedVideo]:
    return [frame for packet in stream for frame in assembler.push(packet, now)]


def pictures(frames: list[EncodedVideo]) -> list[list[RtpPacket]]:
    """The packets of each picture."""
    return [
        list(group) for _, group in itertools.groupby(packets(frames), key=lambda packet: packet.timestamp)
    ]


def bodies(frames: list[EncodedVideo]) -> list[bytes]:
    return [frame.data for frame in frames]


@dataclass
class Sender:
    """Sends pictures in real time over ``forward``, answers NACKs and keyframe requests from ``back``."""

    codec: VideoCodec
    forward: Netem[RtpPacket]
    back: Netem[Feedback]
    gop: int = 10_000
    answer: bool = True
    sent: list[EncodedVideo] = field(default_factory=list)
    history: dict[int, RtpPacket] = field(default_factory=dict)
    asked: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(5))
    _sequence: int = 65_400
    _forced: bool = True

    def frame(self, index: int, now: float) -> None:
        keyframe = self._forced or index % self.gop == 0
        self._forced = False
        size = self._random.randint(20_000, 30_000) if keyframe else self._random.randint(200, 9_000)
        frame = EncodedVideo(
            self.codec, body(self.codec, keyframe, size, self._random), index * TICKS, keyframe
        )
        self.sent.append(frame)
        for packet in packets([frame], sequence=self._sequence, timestamp=2**32 - 100_000):
            self.history[packet.sequence] = packet
            self.forward.send(packet, now)
            self._sequence += 1

    def listen(self, now: float) -> None:
        for feedback in self.back.receive(now):
            if feedback.keyframe:
                self.asked += 1
                self._forced = True
            for sequence in feedback.nack if self.answer else ():
                self.forward.send(self.history[sequence], now)


def run(sender: Sender, assembler: FrameAssembler, frames: int, tail_s: float = 2.0) -> list[EncodedVideo]:
    """A call of ``frames`` pictures at 30 fps in steps of 1 ms; then ``tail_s`` for what is under way."""
    received: list[EncodedVideo] = []
    for step in range(int((frames / 30 + tail_s) * 1000)):
        now = step / 1000
        index = len(sender.sent)
        if index < frames and now >= index / 30:
            sender.frame(index, now)
        for packet in sender.forward.receive(now):
            received += assembler.push(packet, now)
        if step % int(POLL_S * 1000) == 0:
            feedback = assembler.poll(now)
            if feedback.nack or feedback.keyframe:
                sender.back.send(feedback, now)
        sender.listen(now)
        assert assembler.waiting <= MAX_PACKETS
    return received


@pytest.mark.parametrize("codec", CODECS)
def test_a_clean_line_hands_out_each_picture_with_its_last_packet(codec: VideoCodec) -> None:
    frames = synthetic(90, codec=codec)
    assembler = FrameAssembler(codec)
    received = []
    for packet in packets(frames):
        out = assembler.push(packet, 0.0)
        assert len(out) == packet.marker
        received += out
    assert bodies(received) == bodies(frames)
    assert [frame.keyframe for frame in received] == [frame.keyframe for frame in frames]
    assert [frame.pts - received[0].pts for frame in received] == [
        frame.pts for frame in frames
    ]  # over the wrap
    assert assembler.poll(60.0) == Feedback()
    assert (assembler.frames, assembler.lost, assembler.dropped, assembler.waiting) == (90, 0, 0, 0)


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_real_pictures_decode_after_a_bad_line(codec: VideoCodec) -> None:
    frames = encoded(codec)
    shuffled: list[RtpPacket] = list(packets(frames, max_payload=300))
    source = random.Random(2)
    for index in range(0, len(shuffled) - 4, 4):
        part = shuffled[index : index + 4]
        source.shuffle(part)
        shuffled[index : index + 4] = part
    doubled = [packet for packet in shuffled for _ in range(2)]
    received = feed(FrameAssembler(codec), doubled)
    assert len(received) == len(frames)
    assert decoded(received) == len(frames)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seed", range(4))
def test_two_percent_loss_and_repeats_after_50_ms_lose_no_picture(codec: VideoCodec, seed: int) -> None:
    sender = Sender(
        codec,
        forward=Netem(seed=seed, delay_s=0.025, jitter_s=0.005, loss=0.02, reorder=0.01, duplicate=0.01),
        back=Netem(seed=seed + 100, delay_s=0.025, loss=0.02),
    )
    assembler = FrameAssembler(codec)
    assembler.set_rtt(0.05)
    received = run(sender, assembler, 300)
    assert sender.forward.lost > 10
    assert bodies(received) == bodies(sender.sent)
    assert assembler.recovered > 10
    assert assembler.lost == 0
    assert sender.asked == 0


def test_a_line_lost_for_good_is_bridged_by_keyframes_alone() -> None:
    """Nobody repeats: each loss costs a freeze, but never rubbish, and a keyframe ends it."""
    sender = Sender(
        "VP8", forward=Netem(seed=1, delay_s=0.02, loss=0.01), back=Netem(seed=2, delay_s=0.02), answer=False
    )
    assembler = FrameAssembler("VP8")
    received = run(sender, assembler, 450)
    order = {frame.data: index for index, frame in enumerate(sender.sent)}
    indices = [order[frame.data] for frame in received]
    assert indices == sorted(indices)
    for before, after in itertools.pairwise(indices):
        assert after == before + 1 or sender.sent[after].keyframe
    assert sender.asked >= 3
    assert 225 < len(received) < 450
    assert received[-1].data == sender.sent[-1].data or assembler.poll(99.0).keyframe
    assert assembler.lost > 0
    assert assembler.frames + assembler.dropped <= 450


def test_bursts_and_long_delays_are_survived() -> None:
    sender = Sender(
        "H264",
        forward=Netem(seed=3, delay_s=0.15, jitter_s=0.03, burst=Burst(begin=0.008, end=0.1), reorder=0.05),
        back=Netem(seed=4, delay_s=0.15, loss=0.1),
    )
    assembler = FrameAssembler("H264")
    assembler.set_rtt(0.3)
    received = run(sender, assembler, 300)
    assert sender.forward.lost > 30
    assert len(received) > 240
    assert received[-1].data == sender.sent[-1].data


@pytest.mark.parametrize("codec", CODECS)
def test_a_lost_keyframe_is_asked_for_again(codec: VideoCodec) -> None:
    frames = synthetic(30, codec=codec)
    stream = list(packets(frames))
    assembler = FrameAssembler(codec)
    assert feed(assembler, stream[1:], 10.0) == []  # the first packet never came, so nothing decodes
    assert not assembler.poll(10.2).keyframe
    assert assembler.poll(10.26).keyframe
    assert not assembler.poll(10.3).keyframe
    assert not assembler.poll(10.9).keyframe  # nothing comes: no use in asking so soon
    assert assembler.poll(12.3).keyframe
    feed(assembler, list(packets(frames[1:2], sequence=3000)), 12.4)
    again = synthetic(5, codec=codec, seed=9)
    followers = list(packets(again, sequence=stream[-1].sequence + 1))
    assert bodies(feed(assembler, followers, 12.9)) == bodies(again)
    assert assembler.poll(20.0) == Feedback()


def test_requests_repeat_while_packets_come() -> None:
    stream = list(packets(synthetic(40, gop=100)))
    assembler = FrameAssembler("VP8")
    asked = []
    for index, packet in enumerate(stream[1:]):
        now = index * 0.02
        assert assembler.push(packet, now) == []
        if assembler.poll(now).keyframe:
            asked.append(now)
    assert asked[0] == pytest.approx(0.26, abs=0.021)
    gaps = [after - before for before, after in itertools.pairwise(asked)]
    assert gaps == pytest.approx([0.5] * len(gaps), abs=0.021)


def test_a_slow_keyframe_is_not_asked_for_twice() -> None:
    stream = list(packets(synthetic(1)))
    assembler = FrameAssembler("VP8")
    for index, packet in enumerate(stream):
        now = index * 0.05
        assembler.push(packet, now)
        assert assembler.poll(now + 0.01) == Feedback()
    assert assembler.frames == 1


def test_the_gap_is_asked_for_again_and_again_then_given_up() -> None:
    frames = synthetic(20)
    stream = list(packets(frames))
    lost = stream.pop(40)
    assembler = FrameAssembler("VP8")
    assembler.set_rtt(0.1)
    feed(assembler, stream[:45], 0.0)
    asked = [now / 100 for now in range(150) if lost.sequence in assembler.poll(now / 100).nack]
    assert asked == pytest.approx([0.01, *(0.12 + 0.06 * n for n in range(15))], abs=0.011)
    assert assembler.lost == 1
    before = assembler.frames
    assert feed(assembler, stream[45:], 1.5) == []  # nothing decodes without it
    assert assembler.frames == before
    assert feed(assembler, [lost], 1.6) == []
    assert assembler.frames == before


def test_a_keyframe_behind_the_gap_ends_the_wait() -> None:
    frames = synthetic(90, gop=30)
    stream = list(packets(frames))
    cut = next(index for index, packet in enumerate(stream) if packet.timestamp != stream[0].timestamp)
    received = feed(FrameAssembler("VP8"), stream[:cut] + stream[cut + 1 :])
    assert bodies(received) == bodies(frames[:1] + frames[30:])


@pytest.mark.parametrize("marked", [True, False])
def test_h264_keyframes_whose_parameter_sets_came_once(marked: bool) -> None:
    """Some hardware encoders send SPS and PPS once, in packets of their own."""
    source = random.Random(1)
    idr = body("H264", True, 3000, source)
    sets, picture = idr.split(b"\x00\x00\x00\x01\x65")
    bare = EncodedVideo("H264", b"\x00\x00\x00\x01\x65" + picture, 3 * TICKS, True)
    delta = EncodedVideo("H264", body("H264", False, 500, source), 4 * TICKS, False)
    stream = list(
        packets([EncodedVideo("H264", sets, 0, False), bare, delta, dataclasses.replace(bare, pts=5 * TICKS)])
    )
    stream[0] = copy(stream[0], marker=marked)
    received = feed(FrameAssembler("H264"), stream)
    assert bodies(received) == [idr, delta.data, idr]
    assert [frame.keyframe for frame in received] == [True, False, True]


def test_h264_never_begins_in_the_middle_of_a_keyframe() -> None:
    """SPS and PPS are known from before, but this picture's first packet (new ones, maybe) is missing."""
    frames = synthetic(3, gop=1, codec="H264")
    by_frame = pictures(frames)
    tail, head = by_frame[1].pop(), by_frame[2].pop(0)
    assembler = FrameAssembler("H264")
    assert bodies(feed(assembler, list(itertools.chain(*by_frame)))) == bodies(frames[:1])
    assert set(assembler.poll(0.1).nack) == {tail.sequence, head.sequence}
    assert bodies(feed(assembler, [head, tail], 0.2)) == bodies(frames[2:])


def test_h264_begins_at_a_bare_keyframe_when_the_sdp_had_its_parameter_sets() -> None:
    idr = body("H264", True, 3000, random.Random(1))
    sets, picture = idr.split(b"\x00\x00\x00\x01\x65")
    bare = EncodedVideo("H264", b"\x00\x00\x00\x01\x65" + picture, 0, True)
    assembler = FrameAssembler("H264", parameter_sets=sets.split(b"\x00\x00\x00\x01")[1:])
    assert bodies(feed(assembler, list(packets([bare])))) == [idr]


def test_h264_parameter_sets_alone_make_no_keyframe() -> None:
    source = random.Random(1)
    sets = body("H264", True, 10, source).split(b"\x00\x00\x00\x01\x65")[0]
    refresh = EncodedVideo("H264", sets + body("H264", False, 3000, source), 0, False)
    keyframe = EncodedVideo("H264", body("H264", True, 3000, source), TICKS, True)
    assembler = FrameAssembler("H264")
    assert bodies(feed(assembler, list(packets([refresh, keyframe])))) == [keyframe.data]


def test_h264_keyframe_with_its_parameter_sets_twice_comes_whole() -> None:
    """Behind a gap, in order or not: from the first of the two on."""
    frames = synthetic(3, gop=1, codec="H264")
    filler = b"\x00\x00\x00\x01\x67\x42\xe0\x1f\xda" + body("H264", False, 10, random.Random(1))
    twice = EncodedVideo("H264", filler + frames[2].data, 2 * TICKS, True)
    first, _, last = pictures([frames[0], frames[1], twice])
    for order in (last, [*last[1:4], last[0], *last[4:]]):
        assert bodies(feed(FrameAssembler("H264"), first + order)) == [frames[0].data, twice.data]


def test_rubbish_in_a_keyframe_that_came_behind_a_gap() -> None:
    """The gap is filled while the keyframe is half there, then its other half is rubbish."""
    frames = [*synthetic(3, gop=1), *synthetic(60, gop=100, seed=4)[1:], synthetic(1, seed=5)[0]]
    frames = [dataclasses.replace(frame, pts=index * TICKS) for index, frame in enumerate(frames)]
    first, second, third, *others = pictures(frames)
    third[-1] = copy(third[-1], payload=b"\x00")
    assembler = FrameAssembler("VP8")
    received = feed(assembler, [*first, *second[1:], *third[:-1], second[0], third[-1]])
    for packet in itertools.chain(*others):
        received += assembler.push(packet, 0.0)
        assert assembler.waiting <= 129
    assert bodies(received) == bodies([frames[0], frames[1], frames[-1]])
    assert assembler.malformed == 1


def test_a_keyframe_given_up_is_not_kept() -> None:
    frames = synthetic(60, gop=100)
    assembler = FrameAssembler("VP8")
    first, *others = pictures(frames)
    feed(assembler, first[:5] + first[6:], 0.0)
    assert assembler.poll(0.1).nack == [first[5].sequence]
    assert assembler.poll(1.1) == Feedback([], True)
    for packet in itertools.chain(*others):
        assert assembler.push(packet, 1.2) == []
        assert assembler.waiting <= 129
    assert assembler.overflows == 0


def test_what_comes_after_its_time_is_not_kept() -> None:
    frames = synthetic(3, gop=2, seed=5)
    first, second, third = pictures(frames)
    assert len(second) > 1
    assembler = FrameAssembler("VP8")
    assert bodies(feed(assembler, first + second[1:] + third)) == bodies([frames[0], frames[2]])
    assert feed(assembler, second[:1] + first) == []
    assert (assembler.waiting, assembler.late) == (0, 1 + len(first))
    assert assembler.dropped == 1


def test_a_keyframe_that_was_overtaken_is_found_when_the_gap_is_given_up() -> None:
    """A bare IDR whose predecessor came after it: only then is it known where the picture begins."""
    source = random.Random(1)
    idr = body("H264", True, 3000, source)
    bare = b"\x00\x00\x00\x01\x65" + idr.split(b"\x00\x00\x00\x01\x65")[1]
    data = [
        idr,
        *(body("H264", False, 300, source) for _ in range(2)),
        bare,
        body("H264", False, 300, source),
    ]
    frames = [EncodedVideo("H264", each, index * TICKS, index in (0, 3)) for index, each in enumerate(data)]
    first, _, second, third, fourth = pictures(frames)
    assembler = FrameAssembler("H264")
    assert bodies(feed(assembler, first + third + second)) == [idr]
    assembler.poll(1.1)
    assert bodies(feed(assembler, fourth, 1.1)) == [idr, data[4]]


def test_a_gap_beyond_repair_asks_for_a_keyframe_at_once() -> None:
    frames = synthetic(2, gop=100)
    first, second = pictures(frames)
    assembler = FrameAssembler("VP8")
    feed(assembler, first, 0.0)
    far = [copy(packet, sequence=(packet.sequence + 450) & 0xFFFF) for packet in second]
    assert feed(assembler, far, 0.1) == []
    assert assembler.poll(0.1) == Feedback([], True)


def test_gaps_that_overlap_but_are_filled_cost_no_keyframe() -> None:
    source = random.Random(1)
    data = [body("VP8", index == 0, 300, source) for index in range(101)]
    frames = [EncodedVideo("VP8", each, index * TICKS, index == 0) for index, each in enumerate(data)]
    stream = list(packets(frames))
    assert len(stream) == len(frames)
    assembler = FrameAssembler("VP8")
    received = feed(assembler, [stream[0], stream[2]], 0.0)
    for index in range(4, 100, 2):
        now = index * 0.02
        received += feed(assembler, [stream[index], stream[index - 3]], now)  # index - 1 is missing still
        assert not assembler.poll(now).keyframe
    assert bodies(received) == data[:97]


def test_a_picture_without_marker_ends_with_its_timestamp() -> None:
    frames = synthetic(10)
    stream = [copy(packet, marker=False) for packet in packets(frames)]
    assert bodies(feed(FrameAssembler("VP8"), stream)) == bodies(frames[:-1])


def test_padding_between_and_inside_pictures_changes_nothing() -> None:
    frames = synthetic(40)
    stream: list[RtpPacket] = []
    sequence, long = 65_000, False
    for packet in packets(frames):
        stream.append(copy(packet, sequence=sequence & 0xFFFF))
        padding = 700 if packet.marker and len(stream) > 100 and not long else 1 + packet.marker
        long = long or padding == 700
        stream += [
            copy(packet, sequence=(sequence + 1 + extra) & 0xFFFF, marker=False, payload=b"")
            for extra in range(padding)
        ]
        sequence += 1 + padding
    assembler = FrameAssembler("VP8")
    assert bodies(feed(assembler, stream)) == bodies(frames)
    assert assembler.waiting <= 2


def test_a_new_source_starts_anew() -> None:
    old, new = synthetic(10), synthetic(10, seed=8)
    assembler = FrameAssembler("VP8")
    received = feed(assembler, list(packets(old)))
    received += feed(assembler, list(packets(new, ssrc=77, sequence=9, timestamp=5)))
    assert bodies(received) == bodies(old + new)
    assert received[10].pts == 5
    assert assembler.resets == 1
    assert assembler.poll(9.0) == Feedback()


@pytest.mark.parametrize("step", [-30_000, -2_000, 2_000, 30_000])
def test_a_jump_of_the_numbering_starts_anew(step: int) -> None:
    old, new = synthetic(10), synthetic(10, seed=8)
    stream = list(packets(old))
    assembler = FrameAssembler("VP8")
    received = feed(assembler, stream)
    received += feed(assembler, list(packets(new, sequence=stream[-1].sequence + 65_536 + step)))
    assert bodies(received) == bodies(old + new)


@pytest.mark.parametrize("step", [-(2**31), -90_000, 90_000 * 3600, 2**31 - 1])
def test_a_jump_of_the_timestamp_costs_nothing(step: int) -> None:
    frames = synthetic(20)
    half = 10 * TICKS
    jumped = [
        frame if frame.pts < half else EncodedVideo("VP8", frame.data, frame.pts + step, frame.keyframe)
        for frame in frames
    ]
    received = feed(FrameAssembler("VP8"), list(packets(jumped)))
    assert bodies(received) == bodies(frames)


def test_rubbish_in_a_packet_costs_its_picture_and_a_keyframe() -> None:
    frames = synthetic(60, gop=30)
    stream = list(packets(frames))
    bad = next(
        index for index, packet in enumerate(stream) if packet.timestamp == stream[-1].timestamp - 40 * TICKS
    )
    stream[bad] = copy(stream[bad], payload=b"\x00")
    assembler = FrameAssembler("VP8")
    received = []
    asked_after = None
    for index, packet in enumerate(stream):
        received += assembler.push(packet, 0.0)
        if asked_after is None and assembler.poll(0.0).keyframe:
            asked_after = index
    assert bodies(received) == bodies(frames[:19] + frames[30:])
    assert assembler.malformed == 1
    assert asked_after is not None
    assert stream[asked_after].timestamp == stream[bad].timestamp  # at once, not after a while


def test_ten_thousand_packets_of_garbage_change_nothing() -> None:
    """Random datagrams, random packets of other sources, stray numbers: the picture goes on."""
    source = random.Random(4)
    frames = synthetic(100)
    assembler = FrameAssembler("VP8")
    received = []
    stream = list(packets(frames))
    for packet in stream:
        received += assembler.push(packet, 0.0)
        for _ in range(10_000 // len(stream) + 1):
            data = bytearray(source.randbytes(source.randrange(60)))
            if data and source.random() < 0.7:
                data[0] = data[0] & 0x3F | 0x80
            if source.random() < 0.5:
                stray = copy(packet, payload=bytes(data), sequence=(packet.sequence + 20_000) & 0xFFFF)
                data = bytearray(write_rtp(stray))
            if classify(bytes(data), len(data)) != "rtp":
                continue
            try:
                garbage = parse_rtp(bytes(data))
            except MalformedPacket:
                continue
            assert assembler.push(garbage, 0.0) == []
    assert bodies(received) == bodies(frames)
    assert (assembler.resets, assembler.malformed, assembler.lost) == (0, 0, 0)


@pytest.mark.parametrize("codec", ["H264", "VP8", "VP9"])
def test_rubbish_alone_is_bounded_and_never_a_picture(codec: VideoCodec) -> None:
    source = random.Random(6)
    assembler = FrameAssembler(codec)
    sequence = 0
    for number in range(20_000):
        sequence += source.choice([1, 1, 1, 1, 2, -1, 30, -30, 600, 40_000])
        packet = RtpPacket(
            96,
            source.random() < 0.2,
            sequence & 0xFFFF,
            source.choice([number // 5 * 3000, source.getrandbits(32)]) & 0xFFFFFFFF,
            source.choice([1, 1, 1, 1, 1, 1, 2]),
            source.randbytes(source.choice([0, 1, 3, 50])),
        )
        for frame in assembler.push(packet, number / 1000):
            assert frame.data
        if number % 20 == 0:
            assert len(assembler.poll(number / 1000).nack) <= 400
        assert assembler.waiting <= MAX_PACKETS


def test_memory_is_bounded() -> None:
    keyframe, endless = synthetic(1)[0], EncodedVideo("VP8", b"\x11" + bytes(2 * MAX_BYTES), TICKS, False)
    assembler = FrameAssembler("VP8")
    for packet in packets([keyframe, endless], max_payload=60_000):
        assembler.push(packet, 0.0)
        assert assembler._bytes <= MAX_BYTES
        assert assembler._bytes == sum(len(packet.payload) for packet in assembler._packets.values())
    assert assembler.overflows >= 1
    assert assembler.poll(0.0).keyframe
    assert bodies(feed(assembler, list(packets([keyframe], sequence=65_500 + 140 + 50)))) == [keyframe.data]


def test_reset_forgets_the_source_and_keeps_the_counters() -> None:
    frames = synthetic(3)
    assembler = FrameAssembler("VP8")
    feed(assembler, list(packets(frames)))
    assembler.reset()
    assert assembler.frames == 3
    assert bodies(feed(assembler, list(packets(frames, ssrc=5, sequence=7)))) == bodies(frames)
    assert assembler.resets == 0


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("codec", CODECS)
def test_whatever_happens_each_picture_follows_its_reference(codec: VideoCodec, seed: int) -> None:
    """Loss, repeats, rubbish and padding at random: what is handed out is whole and its chain is unbroken."""
    source = random.Random(seed)
    frames = synthetic(120, gop=source.choice([1, 7, 40]), codec=codec, seed=seed)
    line: Netem[RtpPacket] = Netem(
        seed=seed, delay_s=0.02, jitter_s=0.01, loss=0.01, reorder=0.05, reorder_s=0.05, duplicate=0.05
    )
    assembler = FrameAssembler(codec)
    known = {frame.data: index for index, frame in enumerate(frames)}
    stream = list(packets(frames))
    by_sequence = {packet.sequence: packet for packet in stream}
    received: list[EncodedVideo] = []
    for index, packet in enumerate(stream):
        now = index / 200
        rubbish = source.random() < 0.003
        line.send(copy(packet, payload=b"\xff") if rubbish else packet, now)  # malformed in each codec
        for arrived in line.receive(now):
            received += assembler.push(arrived, now)
        if index % 4 == 0:
            for sequence in assembler.poll(now).nack:
                if sequence in by_sequence and source.random() < 0.7:
                    line.send(by_sequence[sequence], now)
        waiting = assembler._packets.values()
        assert assembler._bytes == sum(len(packet.payload) for packet in waiting)
    indices = [known[frame.data] for frame in received]  # nothing else than what was sent
    for (before, after), frame in zip(itertools.pairwise(indices), received[1:], strict=True):
        assert after == before + 1 or (frame.keyframe and after > before)
    assert received
