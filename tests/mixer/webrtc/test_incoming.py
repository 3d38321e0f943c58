"""Which m-line a packet belongs to."""

from __future__ import annotations

import base64

import pytest

from mixer.rtp.packet import RtpPacket
from mixer.rtp.payload import h264, vp8
from mixer.video.decoder import VideoDecoder
from mixer.webrtc.answer import negotiate
from mixer.webrtc.incoming import KEYFRAME_INTERVAL_S, MAX_SSRCS, REPAIRS_LATE_S, Router
from mixer.webrtc.offer import parse_offer
from tests.mixer.video import clips
from tests.mixer.webrtc.test_answer import video_offer
from tests.mixer.webrtc.test_offer import MID, SIMULCAST, VP8

KEYFRAME = b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00" + bytes(20)  # RFC 6386 section 9.1


def router(*sections: str) -> Router:
    return Router(negotiate(parse_offer(video_offer(*sections)), send=False, receive=True))


DELTA = b"\x11" + bytes(20)


def keyframe(height: int, width: int | None = None) -> bytes:
    """The beginning of a VP8 keyframe, as far as a header reader looks; of 16:9 unless told otherwise."""
    size = (width or height * 16 // 9).to_bytes(2, "little") + height.to_bytes(2, "little")
    return KEYFRAME[:6] + size + bytes(20)


def packet(
    ssrc: int,
    payload_type: int = 96,
    sequence: int = 1,
    mid: str | None = None,
    coded: bytes = KEYFRAME,
    rid: str | None = None,
) -> RtpPacket:
    payload = vp8.packetize(coded, picture_id=sequence & 0x7FFF)[0]
    extensions = {4: mid.encode()} if mid is not None else {}
    if rid is not None:
        extensions[5] = rid.encode()
    return RtpPacket(payload_type, True, sequence, 3000 * sequence, ssrc, payload, (), extensions)


def index_of(routed: object) -> int | None:
    return routed[0].track.index if isinstance(routed, tuple) else None


AUDIO = "audio 111|a=sendonly|a=rtpmap:111 opus/48000/2"
TWO_VIDEOS = (f"video 96 97|a=sendonly|{VP8}|{MID}",) * 2


def test_by_payload_type_when_nothing_else_is_known() -> None:
    routes = router(AUDIO, f"video 96|a=sendonly|{VP8}")
    assert index_of(routes.route(packet(1, 111), 0.0)) == 0
    assert index_of(routes.route(packet(2, 96), 0.0)) == 1
    assert routes.route(packet(3, 50), 0.0) is None
    assert routes.dropped["unknown_ssrc"] == 1


def test_by_mid_and_then_by_the_ssrc_it_taught() -> None:
    routes = router(*TWO_VIDEOS)
    assert index_of(routes.route(packet(7, mid="1"), 0.0)) == 1
    assert index_of(routes.route(packet(8, mid="0"), 0.0)) == 0
    assert index_of(routes.route(packet(7), 0.1)) == 1  # browsers stop sending MID after a while


def test_by_declared_ssrc() -> None:
    routes = router(
        f"video 96|a=sendonly|{VP8}|a=ssrc:10 cname:x", f"video 96|a=sendonly|{VP8}|a=ssrc:20 cname:x"
    )
    assert index_of(routes.route(packet(20), 0.0)) == 1
    assert index_of(routes.route(packet(10), 0.0)) == 0


def test_two_videos_without_any_hint_are_taken_in_order() -> None:
    routes = router(*TWO_VIDEOS)
    assert [index_of(routes.route(packet(ssrc), 0.0)) for ssrc in (5, 6, 5, 6)] == [0, 1, 0, 1]


def test_a_new_ssrc_replaces_the_old_one_and_pictures_go_on() -> None:
    routes = router(f"video 96|a=sendonly|{VP8}")
    shown = []
    for step, ssrc in enumerate((1, 1, 2, 2)):
        routed = routes.route(packet(ssrc, sequence=9000 * (ssrc - 1) + step), step / 30)
        assert routed is not None
        shown += routed[0].frames(routed[1], step / 30)
        assert len(shown) == step + 1  # at once, without waiting for a second packet of the new one
    assert routes.route(packet(1), 0.2) is None  # a straggler of the old one changes nothing
    assert routes.dropped["old_ssrc"] == 1
    assert routes.route(packet(1), 5.0) is not None  # but it may come back once the new one is silent


def test_rtx_fills_a_gap_and_is_found_by_fid_group() -> None:
    routes = router(f"video 96 97|a=sendonly|{VP8}|a=ssrc-group:FID 1 2|a=ssrc:1 cname:x|a=ssrc:2 cname:x")
    incoming = routes.tracks[0]
    frames = []
    for sequence, coded in ((1, KEYFRAME), (3, DELTA)):
        routed = routes.route(packet(1, sequence=sequence, coded=coded), 0.0)
        assert routed is not None
        frames += incoming.frames(routed[1], 0.0)
    lost = packet(1, sequence=2, coded=DELTA)
    repair = RtpPacket(97, True, 900, lost.timestamp, 2, (2).to_bytes(2, "big") + lost.payload)
    routed = routes.route(repair, 0.1)
    assert routed is not None
    assert routed[1].payload == lost.payload
    frames += incoming.frames(routed[1], 0.1)
    assert [frame.pts - frames[0].pts for frame in frames] == [0, 3000, 6000]


def test_rtx_without_declared_ssrcs_is_found_by_payload_type() -> None:
    routes = router(f"video 96 97|a=sendonly|{VP8}")
    probe = RtpPacket(97, False, 1, 0, 99, b"\0\1xx")
    assert routes.route(probe, 0.0) is None  # nothing to repair yet
    routes.route(packet(1), 0.0)
    assert index_of(routes.route(probe, 0.0)) == 0
    assert routes.tracks[0].ssrc == 1


def test_known_ssrcs_are_bounded_and_the_oldest_are_forgotten() -> None:
    """A session that changes its camera all day is heard in the evening, and its microphone all the time."""
    routes = router(AUDIO, f"video 96|a=sendonly|{VP8}")
    routes.route(packet(1, 111), 0.0)
    for ssrc in range(2, 3 * MAX_SSRCS):
        assert index_of(routes.route(packet(ssrc), float(ssrc))) == 1, ssrc
        assert len(routes._by_ssrc) <= MAX_SSRCS
    assert routes._by_ssrc[1] is routes.tracks[0], "the oldest, but in use"
    assert routes.dropped["forgotten_ssrc"] == 2 * MAX_SSRCS - 1
    assert 2 not in routes._by_ssrc
    assert index_of(routes.route(packet(2), 1e4)) == 1, "it may come back"


def test_learned_rtx_ssrcs_are_bounded_and_the_oldest_are_forgotten() -> None:
    routes = router(f"video 96 97|a=sendonly|{VP8}")
    routes.route(packet(1), 0.0)
    for ssrc in range(100, 100 + 2 * MAX_SSRCS):
        assert routes.route(RtpPacket(97, False, 1, 0, ssrc, b"\0\1xx"), 0.0) is not None
    assert len(routes._rtx) <= MAX_SSRCS


DECLARED = f"video 96 97|a=sendonly|{VP8}|a=ssrc-group:FID 1 2|a=ssrc:1 cname:x|a=ssrc:2 cname:x"


def repair(sequence: int, ssrc: int, own: int) -> RtpPacket:
    lost = packet(1, sequence=sequence, coded=DELTA)
    return RtpPacket(97, True, own, lost.timestamp, ssrc, sequence.to_bytes(2, "big") + lost.payload)


@pytest.mark.parametrize("section", [DECLARED, f"video 96 97|a=sendonly|{VP8}"])
def test_repairs_of_the_ssrc_before_do_not_disturb_the_new_one(section: str) -> None:
    routes = router(section)
    incoming = routes.tracks[0]
    shown = []
    for sequence in (1, 2, 3):
        routed = routes.route(packet(1, sequence=sequence), 0.0)
        assert routed is not None
        shown += incoming.frames(routed[1], 0.0)
    assert routes.route(repair(2, 2, own=1), 0.0) is not None, "of the current one"
    late = [repair(sequence, 2, own=sequence) for sequence in (4, 5)]
    for step, sequence in enumerate(range(9000, 9006)):
        now = 0.1 + step / 30
        routed = routes.route(packet(3, sequence=sequence, coded=DELTA if step else KEYFRAME), now)
        assert routed is not None
        shown += incoming.frames(routed[1], now)
        if 1 <= step <= 2:
            routed = routes.route(late[step - 1], now)
            if routed is not None:
                incoming.frames(routed[1], now)
    assert len(shown) == 9
    assert incoming.assembler is not None
    assert incoming.assembler.resets == 0
    assert routes.dropped["old_rtx"] == 2


def test_repairs_of_the_new_ssrc_are_taken_and_so_are_those_of_a_sender_that_keeps_the_rtx_ssrc() -> None:
    routes = router(f"video 96 97|a=sendonly|{VP8}")
    routes.route(packet(1), 0.0)
    assert routes.route(repair(2, 9, own=1), 0.0) is not None
    routes.route(packet(3, sequence=9000), 1.0)
    assert routes.route(repair(9001, 10, own=1), 1.0) is not None
    assert routes.route(repair(9001, 9, own=2), 1.0) is None
    routed = routes.route(repair(9001, 9, own=3), 1.0 + REPAIRS_LATE_S)
    assert routed is not None
    assert (routed[1].ssrc, routed[1].sequence) == (3, 9001)


def test_an_rtx_payload_type_of_another_section_is_dropped() -> None:
    routes = router(
        DECLARED, "video 98 99|a=sendonly|a=rtpmap:98 VP8/90000|a=rtpmap:99 rtx/90000|a=fmtp:99 apt=98"
    )
    routes.route(packet(1), 0.0)
    assert routes.route(RtpPacket(99, False, 1, 0, 2, b"\0\1xx"), 0.0) is None
    assert routes.dropped["payload_type"] == 1


def test_keyframe_requests_are_merged_and_none_is_lost() -> None:
    incoming = router(f"video 96|a=sendonly|{VP8}").tracks[0]
    incoming.want_keyframe()
    assert incoming.keyframe_due(10.0)
    incoming.want_keyframe()
    incoming.want_keyframe()
    assert not incoming.keyframe_due(10.0 + KEYFRAME_INTERVAL_S / 2)
    assert incoming.keyframe_due(10.1 + KEYFRAME_INTERVAL_S)
    assert not incoming.keyframe_due(20.0)
    assert incoming.plis == 2


def test_parameter_sets_of_the_offer_make_a_bare_idr_decodable() -> None:
    routes = router(
        "video 96|a=sendonly|a=rtpmap:96 H264/90000"
        "|a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LAFdoFB+wFqDAwNSgAAAMACAAAAwD0eLF1,aM48gA==,!!"
    )
    idr = RtpPacket(96, True, 1, 0, 1, b"\x65\x88\x84" + bytes(30))
    routed = routes.route(idr, 0.0)
    assert routed is not None
    (frame,) = routed[0].frames(routed[1], 0.0)
    assert frame.keyframe
    assert frame.data.startswith(b"\0\0\0\1\x67")


SETS = "Z0LAFdoFB+wFqDAwNSgAAAMACAAAAwD0eLF1,aM48gA=="


@pytest.mark.parametrize(
    ("sprop", "unfit"),
    [
        ("Zw==", 1),  # a header and nothing else
        ("Z0LA", 1),
        ("Z0LAFYA=", 1),  # the identifier can be read, the size cannot
        ("ZYiE", 1),  # a slice
        ("50LAFdoFB+wFqDAwNSg=", 1),  # the forbidden bit
        ("!!", 1),
        (",", 2),
        ("Zw==,aA==," + SETS, 2),
        ("Z0" + "A" * 2046, 1),
        (SETS + ",Zw==" * 20, 20),
        ("", 0),
    ],
)
def test_bad_parameter_sets_of_the_offer_are_counted_and_the_stream_is_shown(sprop: str, unfit: int) -> None:
    routes = router(
        "video 96|a=sendonly|a=rtpmap:96 H264/90000"
        f"|a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sprop}"
    )
    assert routes.dropped["parameter_set"] == unfit
    decoder, shown, sequence = VideoDecoder("H264"), 0, 0
    for frame in clips.coded("H264", 64, 48, 3):
        for payload in (payloads := h264.packetize(frame.data)):
            sequence += 1
            last = payload is payloads[-1]
            routed = routes.route(RtpPacket(96, last, sequence, frame.pts, 1, payload), 0.0)
            assert routed is not None
            for whole in routed[0].frames(routed[1], 0.0):
                shown += len(decoder.decode(whole))
    assert shown == 3


@pytest.mark.parametrize("bad", ["", "Z0LAFYA=,", "Z0LAFdA=,aA==,"])
def test_bad_parameter_sets_do_not_spoil_good_ones_beside_them(bad: str) -> None:
    """The stream itself brings none: every keyframe has those of the offer before it."""
    first = clips.coded("H264", 64, 48, 1)[0]
    nals = list(h264.split_annex_b(first.data))
    sets = ",".join(base64.b64encode(nal).decode() for nal in nals if nal[0] & 0x1F in (h264.SPS, h264.PPS))
    routes = router(
        "video 96|a=sendonly|a=rtpmap:96 H264/90000"
        f"|a=fmtp:96 packetization-mode=1;sprop-parameter-sets={bad}{sets}"
    )
    (idr,) = (nal for nal in nals if nal[0] & 0x1F == h264.IDR)
    payloads = h264.packetize(h264.START_CODE + idr)
    frames = []
    for sequence, payload in enumerate(payloads, 1):
        routed = routes.route(RtpPacket(96, payload is payloads[-1], sequence, 0, 1, payload), 0.0)
        assert routed is not None
        frames += routed[0].frames(routed[1], 0.0)
    (frame,) = frames
    assert len(VideoDecoder("H264").decode(frame)) == 1


def test_each_layer_has_its_own_track_and_is_found_by_its_name_then_by_its_ssrc() -> None:
    routes = router(SIMULCAST)
    assert [incoming.rid for incoming in routes.tracks] == ["q", "h", "f"]
    for ssrc, rid in ((1, "f"), (2, "q"), (3, "h")):
        routed = routes.route(packet(ssrc, mid="0", rid=rid), 0.0)
        assert routed is not None
        assert routed[0].rid == rid
        again = routes.route(packet(ssrc, sequence=2), 0.1)  # browsers stop naming it once it is heard of
        assert again is not None
        assert again[0] is routed[0]
    assert routes.route(packet(9), 0.0) is None  # of no name: it could be any
    assert routes.route(packet(10, mid="0", rid="x"), 0.0) is None
    assert routes.dropped["unknown_ssrc"] == 2


def test_a_layers_repairs_are_found_by_the_repaired_name() -> None:
    routes = router(SIMULCAST)
    for ssrc, rid in ((1, "q"), (2, "h")):
        routes.route(packet(ssrc, mid="0", rid=rid), 0.0)
    repair = RtpPacket(97, False, 1, 0, 99, b"\0\7xx", (), {4: b"0", 6: b"h"})
    routed = routes.route(repair, 0.0)
    assert routed is not None
    assert (routed[0].rid, routed[1].ssrc, routed[1].sequence) == ("h", 2, 7)
    routed = routes.route(RtpPacket(97, False, 2, 0, 99, b"\0\x08xx"), 0.0)
    assert routed is not None
    assert routed[0].rid == "h"


def test_red_gives_back_a_lost_packet_and_nothing_twice() -> None:
    routes = router(
        "audio 111 63|a=sendonly|a=rtpmap:111 opus/48000/2|a=rtpmap:63 red/48000/2|a=fmtp:63 111/111"
    )
    heard = []
    for sequence, before, own in ((1, b"", b"one"), (3, b"two", b"three"), (4, b"three", b"four")):
        header = bytes([0x80 | 111]) + (960 << 10 | len(before)).to_bytes(3, "big") if before else b""
        payload = header + bytes([111]) + before + own
        routed = routes.route(RtpPacket(63, False, sequence, 960 * sequence, 7, payload), 0.0)
        assert routed is not None
        heard += routed[0].sounds(routed[1], 0.0)
    assert [(p.payload_type, p.sequence, p.timestamp, p.payload) for p in heard] == [
        (111, number, 960 * number, word)
        for number, word in enumerate((b"one", b"two", b"three", b"four"), 1)
    ]
