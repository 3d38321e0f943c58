"""What recorded offers are answered."""

from __future__ import annotations

import pytest

from mixer.errors import UnsupportedOffer
from mixer.webrtc.answer import LocalSide, Plan, Track, negotiate, write_answer
from mixer.webrtc.offer import parse_offer
from mixer.webrtc.sdp import IceCandidate
from tests.mixer.webrtc.test_offer import NAMES, SIMULCAST, read

LOCAL = LocalSide(
    session_id=1,
    ufrag="ufra",
    password="p" * 22,
    fingerprint=("sha-256", ":".join(["AB"] * 32)),
    candidates=[IceCandidate("1", 1, "192.0.2.7", 40_000, "host")],
    cname="us",
    ssrcs={"audio": 11, "video": 22},
    rtx_ssrc=33,
)


def plan_of(text: str, *, send: bool = True, receive: bool = True) -> Plan:
    return negotiate(parse_offer(text), send=send, receive=receive)


def answer_to(text: str, *, send: bool = True, receive: bool = True) -> list[str]:
    offer = parse_offer(text)
    answer = write_answer(offer, negotiate(offer, send=send, receive=receive), LOCAL)
    assert answer.endswith("\r\n")
    return answer.split("\r\n")[:-1]


def agreed(track: Track) -> tuple[str | None, str | None]:
    return (track.receives.name if track.receives else None, track.sends.name if track.sends else None)


def m_lines(rows: list[str]) -> list[str]:
    return [row for row in rows if row.startswith("m=")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # (receives, sends) of each accepted section
        ("chromium-sendrecv", [("opus", "opus"), ("VP8", "H264")]),
        ("chromium-whep", [(None, "opus"), (None, "H264")]),
        ("firefox-sendrecv", [("opus", "opus"), ("VP8", "VP8")]),
        ("ffmpeg8", [("opus", None), ("H264", None)]),
        ("gstreamer-h264", [("H264", "H264"), ("opus", "opus")]),
        ("obs", [("opus", None), ("H264", None)]),
        ("av1-only", [("opus", None)]),
    ],
)
def test_codecs_and_directions(name: str, expected: list[tuple[str | None, str | None]]) -> None:
    assert [agreed(track) for track in plan_of(read(name)).tracks] == expected


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gstreamer-no-bundle"])
def test_an_answer_is_well_formed_and_mirrors_the_offer(name: str) -> None:
    offer = parse_offer(read(name))
    rows = answer_to(read(name))
    answer = parse_offer("\r\n".join(rows))  # our own strict reader
    assert [section.kind for section in answer.sections] == [section.kind for section in offer.sections]
    assert [section.mid for section in answer.sections] == [section.mid for section in offer.sections]
    for ours, theirs in zip(answer.sections, offer.sections, strict=True):
        if ours.rejected:
            assert ours.direction == "inactive"
            continue
        offered = {codec.payload_type: codec for codec in theirs.codecs}
        for codec in ours.codecs:  # same numbers, same codecs, no feedback that was not offered
            assert offered[codec.payload_type].name == codec.name
            assert codec.feedback <= offered[codec.payload_type].feedback
        for uri, number in ours.extensions.items():
            assert theirs.extensions[uri] == number
        assert ours.mid in answer.bundle
    assert set(answer.bundle) == {section.mid for section in answer.sections if not section.rejected}
    assert rows.count("a=end-of-candidates") == 1
    assert answer.transport.candidates == (IceCandidate("1", 1, "192.0.2.7", 40_000, "host"),)


def test_unknown_codecs_and_data_channels_get_port_0_and_the_rest_works() -> None:
    rows = answer_to(read("av1-only"))
    assert m_lines(rows) == [
        "m=audio 40000 UDP/TLS/RTP/SAVPF 111",
        "m=video 0 UDP/TLS/RTP/SAVPF 45 46",
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
    ]
    assert "a=group:BUNDLE a" in rows
    assert "a=recvonly" in rows


def test_nothing_answerable_is_refused_with_the_reason() -> None:
    only_video = read("av1-only").replace("m=audio 9", "m=audio 0")
    with pytest.raises(UnsupportedOffer, match="offered are AV1, RTX"):
        plan_of(only_video)
    with pytest.raises(UnsupportedOffer, match="direction"):
        plan_of(read("obs"), receive=False)  # sendonly to WHEP
    with pytest.raises(UnsupportedOffer, match="rtcp-mux"):
        plan_of(read("obs").replace("a=rtcp-mux\r\n", ""))
    with pytest.raises(UnsupportedOffer, match="max-bundle"):
        plan_of(read("gstreamer-no-bundle"))
    with pytest.raises(UnsupportedOffer, match="DTLS-SRTP"):
        plan_of(read("obs").replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"))


def test_a_refused_section_stays_refused_and_the_other_works() -> None:
    rows = answer_to(read("obs").replace("m=video 9", "m=video 0"))
    assert [row.split()[1] for row in m_lines(rows)] == ["40000", "0"]


def test_a_publisher_s_order_between_h264_and_vp8_decides() -> None:
    text = read("chromium-sendrecv")
    video = next(track for track in plan_of(text, send=False).tracks if track.kind == "video")
    assert agreed(video) == ("VP8", None)
    numbers = next(row for row in text.split("\r\n") if row.startswith("m=video")).split()
    h264_first = text.replace(" ".join(numbers), " ".join(numbers[:3] + numbers[3:][::-1]))
    video = next(track for track in plan_of(h264_first, send=False).tracks if track.kind == "video")
    assert agreed(video) == ("H264", None)
    assert video.receives is not None
    assert video.receives.codec.parameters["packetization-mode"] == "1"
    assert video.receives.codec.parameters["profile-level-id"].startswith("42e0")


def test_the_peer_s_first_format_is_what_it_shall_send_and_ours_follows() -> None:
    rows = answer_to(read("chromium-sendrecv"))
    video = m_lines(rows)[1].split()[3:]
    names = {row.split()[0].split(":")[1]: row.split()[1] for row in rows if row.startswith("a=rtpmap")}
    assert [names[number] for number in video] == ["VP8/90000", "H264/90000", "rtx/90000", "rtx/90000"]
    assert "a=ssrc-group:FID 22 33" in rows
    assert [row for row in rows if row.startswith("a=msid:")] == [
        "a=msid:mosaique audio",
        "a=msid:mosaique video",
    ]


VIDEO = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2 3
a=ice-ufrag:abcd
a=ice-pwd:0123456789abcdef012345
a=fingerprint:sha-256 {fingerprint}
a=setup:{setup}
""".format(fingerprint=":".join(["CD"] * 32), setup="actpass")


def video_offer(*sections: str, head: str = VIDEO) -> str:
    """``sections``: rows beside m=, mid and rtcp-mux; the first row names the payload types."""
    text = head
    for mid, section in enumerate(sections):
        first, *rest = section.split("|")
        kind, *numbers = first.split()
        rows = [f"m={kind} 9 UDP/TLS/RTP/SAVPF {' '.join(numbers)}", f"a=mid:{mid}", "a=rtcp-mux", *rest]
        text += "\n".join(rows) + "\n"
    return text


H264 = "a=rtpmap:{0} H264/90000|a=fmtp:{0} packetization-mode={1};profile-level-id={2}"


def test_vp9_is_taken_only_when_nothing_else_is_offered() -> None:
    both = video_offer("video 98 96|a=sendonly|a=rtpmap:98 VP9/90000|a=rtpmap:96 VP8/90000")
    assert agreed(plan_of(both).tracks[0]) == ("VP8", None)
    only = video_offer("video 98|a=sendrecv|a=rtpmap:98 VP9/90000")
    assert agreed(plan_of(only).tracks[0]) == ("VP9", None)
    deep = video_offer("video 98|a=sendonly|a=rtpmap:98 VP9/90000|a=fmtp:98 profile-id=2")  # 10 bit
    with pytest.raises(UnsupportedOffer):
        plan_of(deep)


def test_a_viewer_is_sent_constrained_baseline_in_mode_1_or_vp8() -> None:
    offered = "|".join(
        [
            "video 100 101 102 96|a=recvonly",
            H264.format(100, 0, "42e01f"),
            H264.format(101, 1, "64001f"),
            H264.format(102, 1, "42e034"),
            "a=rtpmap:96 VP8/90000",
        ]
    )
    rows = answer_to(video_offer(offered))
    assert m_lines(rows) == ["m=video 40000 UDP/TLS/RTP/SAVPF 102"]
    assert "a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f" in rows
    assert "a=sendonly" in rows
    no_mode_1 = "|".join(["video 100 96|a=recvonly", H264.format(100, 0, "42e01f"), "a=rtpmap:96 VP8/90000"])
    assert agreed(plan_of(video_offer(no_mode_1)).tracks[0]) == (None, "VP8")


@pytest.mark.parametrize(
    ("profile", "taken"),
    [("42001f", True), ("4d001f", True), ("640c1f", True), ("6e001f", False), ("zz", False)],
)
def test_profiles_that_we_can_decode(profile: str, taken: bool) -> None:
    text = video_offer("video 100 96|a=sendonly|" + H264.format(100, 1, profile) + "|a=rtpmap:96 VP8/90000")
    assert agreed(plan_of(text).tracks[0]) == (("H264" if taken else "VP8"), None)


def test_the_second_video_is_a_screen_and_a_third_is_refused() -> None:
    one = "video 96|a=sendrecv|a=rtpmap:96 VP8/90000"
    tracks = plan_of(video_offer(one, one, one)).tracks
    assert [(track.index, track.screen, agreed(track)) for track in tracks] == [
        (0, False, ("VP8", "VP8")),
        (1, True, ("VP8", None)),  # one mix a connection
    ]
    assert [row.split()[1] for row in m_lines(answer_to(video_offer(one, one, one)))] == [
        "40000",
        "40000",
        "0",
    ]


def test_simulcast_is_answered_layer_by_layer() -> None:
    text = video_offer(SIMULCAST)
    rows = answer_to(text)
    assert [row for row in rows if "rid:" in row or "simulcast" in row] == [
        "a=rid:q recv", "a=rid:h recv", "a=rid:f recv", "a=simulcast:recv q;h;f",
    ]  # fmt: skip
    assert "a=extmap:5 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id" in rows
    assert "a=extmap:6 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id" in rows
    (track,) = plan_of(text).tracks
    assert track.layers == ("q", "h", "f")
    assert not [row for row in answer_to(text.replace("sendonly", "recvonly")) if "rid:" in row]


def test_simulcast_whose_packets_would_not_say_their_layer_is_answered_as_one_stream() -> None:
    text = video_offer(
        "video 96|a=sendonly|a=rtpmap:96 VP8/90000|a=rid:h send|a=rid:l send|a=simulcast:send h;l"
        "|a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
    )
    rows = answer_to(text)
    assert not [row for row in rows if "simulcast" in row or "a=rid" in row or "rtp-stream-id" in row]


@pytest.mark.parametrize(
    ("maps", "chosen"),
    [
        ("audio 0 8 9 111|a=sendonly|a=rtpmap:111 opus/48000/2", "opus"),
        ("audio 0 8 9|a=sendonly", "G722"),
        ("audio 8 0|a=sendonly", "PCMU"),
        ("audio 8 13 101|a=sendonly|a=rtpmap:101 telephone-event/8000", "PCMA"),
    ],
)
def test_sound_by_our_preference(maps: str, chosen: str) -> None:
    track = plan_of(video_offer(maps)).tracks[0]
    assert agreed(track) == (chosen, None)


@pytest.mark.parametrize("order", ["111 63", "63 111"])
def test_red_is_taken_around_opus_where_the_sender_has_it(order: str) -> None:
    text = video_offer(f"audio {order} 0|a=sendonly|a=rtpmap:111 opus/48000/2|a=rtpmap:63 red/48000/2|{{}}")
    rows = answer_to(text.replace("{}", "a=fmtp:63 111/111"))
    assert m_lines(rows)[0].endswith(f"SAVPF {order}")
    assert {"a=rtpmap:63 red/48000/2", "a=fmtp:63 111/111"} <= set(rows)
    for strange in ("a=fmtp:63 111/0", "a=fmtp:63 0/0", "a=x"):
        assert plan_of(text.replace("{}", strange)).tracks[0].red is None


def test_opus_asks_for_fec_and_pauses() -> None:
    assert "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1" in answer_to(read("obs"))


@pytest.mark.parametrize(
    ("offered", "answered"), [("actpass", "passive"), ("active", "passive"), ("passive", "active")]
)
def test_setup(offered: str, answered: str) -> None:
    rows = answer_to(read("obs").replace("a=setup:actpass", f"a=setup:{offered}"))
    assert {row for row in rows if row.startswith("a=setup")} == {f"a=setup:{answered}"}


def test_reduced_size_rtcp_is_answered_when_offered() -> None:
    assert "a=rtcp-rsize" in answer_to(read("ffmpeg8"))
    assert "a=rtcp-rsize" not in answer_to(read("obs"))


def test_an_ipv6_default_candidate_is_written_as_such() -> None:
    offer = parse_offer(read("obs"))
    local = LocalSide(
        1, "u", "p", LOCAL.fingerprint, [IceCandidate("1", 1, "2001:db8::1", 40_001, "host")], "us", {}, 1
    )
    rows = write_answer(offer, negotiate(offer, send=False, receive=True), local).split("\r\n")
    assert "c=IN IP6 2001:db8::1" in rows


def test_transport_wide_reports_are_agreed_for_sound_and_pictures() -> None:
    rows = answer_to(read("chromium-sendrecv"))
    assert sum("transport-wide-cc" in row for row in rows) == 2
    plan = plan_of(read("chromium-sendrecv"))
    assert all(track.transport_cc is not None for track in plan.tracks)
    reported = {row for row in rows if row.endswith(" transport-cc")}
    agreed_types = {n.codec.payload_type for track in plan.tracks for n in track.codecs}
    assert reported == {f"a=rtcp-fb:{number} transport-cc" for number in agreed_types}


def test_numbers_that_nobody_reports_on_are_not_sent() -> None:
    extension = "a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
    track = plan_of(video_offer(f"video 96|a=recvonly|a=rtpmap:96 VP8/90000|{extension}")).tracks[0]
    assert track.transport_cc is None


def test_firefox_is_asked_for_a_picture_that_it_can_be_asked_less_of() -> None:
    limit = "max-fr=30;max-fs=3500"
    assert [row for row in answer_to(read("firefox-sendrecv")) if row.endswith(limit)] == [
        f"a=fmtp:120 {limit}"
    ]
    assert not [row for row in answer_to(read("firefox-whep")) if limit in row], "what we send is our affair"
    two = video_offer(*("video 96|a=sendonly|a=rtpmap:96 VP8/90000",) * 2)
    assert len([row for row in answer_to(two) if limit in row]) == 1, "a screen is as large as it is"
