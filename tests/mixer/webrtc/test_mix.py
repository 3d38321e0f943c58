"""One peer's streams: pictures of several fan-outs under one numbering, repeats and padding as the line allows."""

from __future__ import annotations

import itertools

from mixer.fanout import PacketizedVideo
from mixer.media import EncodedAudio
from mixer.rtp.packet import RtpPacket, parse_rtp
from mixer.rtp.payload import vp8
from mixer.rtp.red import parse_red
from mixer.rtp.rtcp import ReportBlock
from mixer.rtp.twcc import TransportFeedback
from mixer.webrtc.answer import TRANSPORT_CC, negotiate
from mixer.webrtc.mix import AGAIN_S, MixOut
from mixer.webrtc.offer import parse_offer
from tests.mixer.webrtc.test_answer import video_offer

NUMBERED = f"a=extmap:5 {TRANSPORT_CC}"
SOUND = f"audio 111|a=recvonly|a=rtpmap:111 opus/48000/2|{NUMBERED}|a=rtcp-fb:111 transport-cc"
PICTURE = (
    "video 96 97|a=recvonly|a=rtpmap:96 VP8/90000|a=rtpmap:97 rtx/90000|a=fmtp:97 apt=96|a=rtcp-fb:96 nack"
)
WITH_REPORTS = f"{PICTURE}|{NUMBERED}|a=rtcp-fb:96 transport-cc"


def mix(*sections: str) -> tuple[MixOut, list[RtpPacket]]:
    sent: list[RtpPacket] = []

    def send(packet: bytes) -> bool:
        sent.append(parse_rtp(packet))
        return True

    out = MixOut(send, origin=0.0)
    for track in negotiate(parse_offer(video_offer(*sections)), send=True, receive=False).tracks:
        out.add(track, {"audio": 11, "video": 22}, 33)
    return out, sent


def unit(
    picture: int, *, pts: int, fanout: int = 1, keyframe: bool = False, size: int = 300
) -> PacketizedVideo:
    payloads = vp8.packetize(b"\x01" * size, 100, picture_id=picture)
    return PacketizedVideo("VP8", tuple(payloads), pts, keyframe, picture, fanout)


def picture_id(packet: RtpPacket) -> int:
    return int.from_bytes(packet.payload[2:4], "big") & 0x7FFF


def test_two_fan_outs_are_one_stream_to_the_receiver() -> None:
    out, sent = mix(WITH_REPORTS)
    out.picture(unit(7000, pts=0, keyframe=True), 0.0)
    out.picture(unit(7001, pts=3000), 0.03)
    out.picture(unit(12, pts=3000, fanout=2, keyframe=True), 0.03)  # the other one's, of the same tick
    out.picture(unit(13, pts=9000, fanout=2), 0.1)
    out.picture(unit(30_000, pts=12_000, fanout=1, keyframe=True), 0.13)
    sequences = [packet.sequence for packet in sent]
    assert all(b - a & 0xFFFF == 1 for a, b in itertools.pairwise(sequences))
    pictures = [list(group) for _, group in itertools.groupby(sent, key=lambda packet: packet.timestamp)]
    assert len(pictures) == 5
    assert all(packets[-1].marker and len({picture_id(p) for p in packets}) == 1 for packets in pictures)
    ids = [picture_id(packets[0]) for packets in pictures]
    assert all(b - a & 0x7FFF == 1 for a, b in itertools.pairwise(ids))
    stamps = [packets[0].timestamp - pictures[0][0].timestamp & 0xFFFFFFFF for packets in pictures]
    assert stamps == [0, 3000, 3090, 9000, 12_000]


def test_every_packet_has_the_next_transport_wide_number_sound_and_repeats_too() -> None:
    out, sent = mix(SOUND, WITH_REPORTS)
    out.picture(unit(0, pts=0, keyframe=True), 0.0)
    out.sound(EncodedAudio("opus", b"sound", 0, 960), 0.0)
    out.repeat(22, (sent[0].sequence,), 0.1)
    assert [p.ssrc for p in sent] == [22, 22, 22, 22, 11, 33]
    assert [int.from_bytes(p.extensions[5], "big") for p in sent] == list(range(6))


def test_without_reports_there_are_no_numbers_and_no_padding() -> None:
    out, sent = mix(SOUND, f"{PICTURE}|{NUMBERED}")  # the extension without its feedback
    out.picture(unit(0, pts=0, keyframe=True), 0.0)
    out.sound(EncodedAudio("opus", b"sound", 0, 960), 0.0)
    assert [packet.extensions.keys() for packet in sent][:1] == [set()]
    out.downlink.seek(1_000_000)
    out.downlink.poll(1.0)
    assert not out.downlink.probing


def report(out: MixOut, packets: int, *, base: int, first_at: float, gap_s: float, now: float) -> None:
    """The peer tells that ``packets`` numbers came, ``gap_s`` apart."""
    reference = int(first_at / 0.064)
    first = round((first_at - reference * 0.064) / 0.00025)
    deltas = (first, *[round(gap_s / 0.00025)] * (packets - 1))
    out.downlink.feedback(TransportFeedback(1, 22, base, reference, 0, deltas), 0.05, now)


def test_padding_goes_beside_the_pictures_and_nobody_takes_it_for_one() -> None:
    out, sent = mix(WITH_REPORTS)
    out.picture(unit(0, pts=0, keyframe=True, size=1800), 0.0)
    for step in range(10):
        out.drain(step * 0.005)
    report(out, len(sent), base=0, first_at=5.0, gap_s=0.02, now=0.2)  # 60 kbit/s
    assert out.downlink.state.estimate_bps is not None
    assert out.downlink.state.estimate_bps < 100_000
    out.downlink.seek(448_000)
    before = len(sent)
    out.downlink.poll(10.0)
    assert out.downlink.probing
    for step in range(12):
        out.drain(10.0 + step * 0.005)
    assert not out.downlink.probing
    padding = sent[before:]
    assert len(padding) == out.counters.padded >= 5
    assert {(p.ssrc, p.payload_type, p.payload) for p in padding} == {(33, 97, b"")}
    assert all(b.sequence - a.sequence & 0xFFFF == 1 for a, b in itertools.pairwise(padding))


def test_repeats_are_a_share_of_what_the_line_carries() -> None:
    out, sent = mix(WITH_REPORTS)
    out.picture(unit(0, pts=0, keyframe=True, size=1800), 0.0)
    for step in range(10):
        out.drain(step * 0.005)
    first = len(sent)
    report(out, first, base=0, first_at=5.0, gap_s=0.02, now=0.2)
    for step in range(100):
        out.repeat(22, tuple(packet.sequence for packet in sent[:first]), 0.3 + step * 0.01)
    repeated = sum(len(packet.payload) + 58 for packet in sent[first:]) * 8
    assert out.downlink.state.estimate_bps is not None
    assert 0 < repeated < 0.8 * out.downlink.state.estimate_bps
    assert out.counters.choked > 1000


def test_what_belongs_to_the_old_rendition_is_not_repeated() -> None:
    out, sent = mix(WITH_REPORTS)
    out.picture(unit(0, pts=0, keyframe=True), 0.0)
    old = sent[0].sequence
    out.picture(unit(0, pts=3000, fanout=2, keyframe=True), 0.03)
    new = sent[-1].sequence
    count = len(sent)
    out.repeat(22, (old, new), 0.1)
    assert [packet.ssrc for packet in sent[count:]] == [33]


def test_pictures_are_held_until_the_line_has_delivered_what_it_has() -> None:
    out, sent = mix(SOUND, WITH_REPORTS)
    out.picture(unit(0, pts=0, keyframe=True), 0.0)
    out.hold_pictures(0.1)
    count = len(sent)
    assert out.picture(unit(1, pts=3000, keyframe=True), 0.2)
    assert len(sent) == count
    report(out, count, base=0, first_at=5.0, gap_s=0.02, now=0.3)  # those of before
    assert out.downlink.draining(0.3)
    out.sound(EncodedAudio("opus", b"sound", 0, 960), 0.3)
    report(out, 1, base=count, first_at=6.0, gap_s=0.0, now=0.5)
    assert not out.downlink.draining(0.5)
    assert out.picture(unit(2, pts=6000), 0.6)  # no keyframe: nothing could be made of it
    assert len(sent) == count + 1
    out.picture(unit(3, pts=9000, keyframe=True), 0.7)
    assert len(sent) > count + 1


RED_SOUND = (
    "audio 111 63|a=recvonly|a=rtpmap:111 opus/48000/2|a=rtcp-fb:111 nack"
    "|a=rtpmap:63 red/48000/2|a=fmtp:63 111/111"
)
TWICE = EncodedAudio("opus", b"now", 4_800, 960, earlier=((4_800, b"five ago"), (960, b"one ago")))


def test_sound_goes_out_in_red_where_it_is_taken_and_repeats_something() -> None:
    out, sent = mix(RED_SOUND)
    out.sound(EncodedAudio("opus", b"first", 0, 960), 0.0)
    out.sound(TWICE, 0.1)
    assert [packet.payload_type for packet in sent] == [111, 63]
    blocks = parse_red(sent[1].payload)
    assert [(block.offset, block.data) for block in blocks] == [
        (4_800, b"five ago"), (960, b"one ago"), (0, b"now"),
    ]  # fmt: skip
    assert {block.payload_type for block in blocks} == {111}
    plain, bare = mix(SOUND)
    plain.sound(TWICE, 0.1)
    assert [(packet.payload_type, packet.payload) for packet in bare] == [(111, b"now")]


def test_lost_sound_is_repeated_where_that_was_agreed() -> None:
    out, sent = mix(RED_SOUND)
    for number in range(3):
        out.sound(EncodedAudio("opus", b"%d" % number, number * 960, 960), number * 0.02)
    out.repeat(11, (sent[1].sequence,), 0.2)
    assert sent[3:] == [sent[1]], "the same bytes: there is no RTX for sound"
    out.repeat(11, (sent[1].sequence,), 0.22)
    assert len(sent) == 4, "the same request, sent twice"
    out.repeat(11, (sent[1].sequence,), 0.3)
    assert sent[4:] == [sent[1]]
    out.repeat(12345, (sent[0].sequence,), 0.4)
    assert len(sent) == 5, "none of our streams"
    silent, none = mix(SOUND)
    silent.sound(EncodedAudio("opus", b"x", 0, 960), 0.0)
    silent.repeat(11, (none[0].sequence,), 0.1)
    assert len(none) == 1


def test_on_a_line_that_loses_much_a_repeat_goes_out_twice() -> None:
    out, sent = mix(WITH_REPORTS)
    out.picture(unit(1, pts=0, keyframe=True), 0.0)
    first = sent[0].sequence
    out.repeat(22, (first,), 0.1)
    assert not out.repeats_again
    for second in range(1, 15):
        lost = ReportBlock(22, round(0.1 * 256), 10 * second, first + 100 * second, 0, 0, 0)
        out.picture(unit(2, pts=second * 90_000), second)
        out.reported((lost,), now=float(second), unix_s=0.0)
    out.drain(14.9)  # what the slow line made wait
    before = len(sent)
    out.repeat(22, (first,), 15.0)
    assert (len(sent) - before, out.repeats_again) == (1, True)
    out.drain(15.0 + AGAIN_S - 0.001)
    assert len(sent) - before == 1, "not in the same burst"
    out.drain(15.0 + AGAIN_S)
    assert [packet.ssrc for packet in sent[before:]] == [33, 33]
    assert not out.repeats_again


def test_what_left_while_the_peer_was_silent_is_repeated_unless_that_just_happened() -> None:
    out, sent = mix(PICTURE)
    assert not out.listening, "of a line that loses nothing"

    def step(index: int) -> float:
        now = index * 0.04
        out.picture(unit(index, pts=index * 3600, keyframe=index == 0, size=4000), now)
        out.drain(now)
        out.downlink.poll(now)
        return now

    step(0)
    first = sent[0].sequence
    for index in range(1, 96):
        now = step(index)
        if index in {20, 40, 60}:
            newest = first + sum(packet.ssrc == 22 for packet in sent) - 1
            lost = ReportBlock(22, 4, index // 4, newest, 0, 0, 0)
            out.reported((lost,), now=now, unix_s=0.0)
        if index > 75:  # calls that are answered after 100 ms
            out.answered(out.called(now), now + 0.1)
    assert out.listening
    silent = []
    for index in range(96, 99):
        now = step(index)
        assert out.call_due(now)
        out.called(now)
        silent.append(sent[-1].sequence)
    out.repeat(22, (silent[0],), now + 0.1)
    before = len(sent)
    out.break_silence(now + 0.16)
    again = [int.from_bytes(packet.payload[:2], "big") for packet in sent[before:]]
    assert {packet.ssrc for packet in sent[before:]} == {33}
    assert silent[0] not in again, "that has been repeated"
    assert set(silent[1:]) <= set(again)
    assert out.counters.unasked == len(again)
    out.break_silence(now + 0.18)
    assert len(sent) - before == len(again), "only once"
