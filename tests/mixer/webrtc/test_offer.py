"""Reading offers: recorded ones of real programs, and rubbish."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.errors import BadOffer, UnsupportedOffer
from mixer.webrtc.answer import negotiate
from mixer.webrtc.offer import parse_offer
from mixer.webrtc.sdp import MAX_SDP_BYTES, parse_candidate

OFFERS = Path(__file__).parent / "offers"
NAMES = sorted(path.stem for path in OFFERS.glob("*.sdp"))


VP8 = "a=rtpmap:96 VP8/90000|a=rtpmap:97 rtx/90000|a=fmtp:97 apt=96"
MID = "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid"
SIMULCAST = (
    f"video 96 97|a=sendonly|{VP8}|{MID}|a=rtcp-fb:96 nack|a=rtcp-fb:96 nack pli|a=rtcp-fb:96 goog-remb"
    "|a=extmap:5 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
    "|a=extmap:6 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
    "|a=rid:q send|a=rid:h send|a=rid:f send|a=simulcast:send q;h;f"
)


def read(name: str) -> str:
    return (OFFERS / f"{name}.sdp").read_text().replace("\n", "\r\n")


@pytest.mark.parametrize("name", NAMES)
def test_recorded_offers_are_read(name: str) -> None:
    offer = parse_offer(read(name))
    assert {section.kind for section in offer.sections} >= {"audio", "video"}
    assert all(section.rtcp_mux for section in offer.sections if section.kind != "application")
    assert offer.transport.fingerprints[0][0] == "sha-256"


def test_the_details_of_chromium_s_offer() -> None:
    audio, video = parse_offer(read("chromium-sendrecv")).sections
    opus = audio.codecs[0]
    assert (opus.name, opus.clock_hz, opus.channels) == ("OPUS", 48_000, 2)
    assert opus.parameters["useinbandfec"] == "1"
    vp8 = next(codec for codec in video.codecs if codec.name == "VP8")
    assert {"nack", "nack pli", "ccm fir", "goog-remb", "transport-cc"} <= vp8.feedback
    assert len(video.ssrcs) == 1  # its RTX twin is not a source of its own
    assert video.rtx_ssrcs == {next(iter(video.rtx_ssrcs)): video.ssrcs[0]}
    assert video.extensions["urn:ietf:params:rtp-hdrext:sdes:mid"] == 4


def test_a_bundle_only_section_with_port_0_is_alive_and_its_transport_is_the_group_s() -> None:
    offer = parse_offer(read("gstreamer-h264"))
    assert [section.rejected for section in offer.sections] == [False, False]
    # its TCP, IPv6 link-local and unusable candidates: only UDP ones remain
    assert {candidate.host for candidate in offer.transport.candidates} >= {"192.0.2.2"}
    refused = parse_offer(read("gstreamer-h264").replace("a=bundle-only\r\n", ""))
    assert [section.rejected for section in refused.sections] == [False, True]


def test_static_payload_types_need_no_rtpmap() -> None:
    text = read("av1-only").replace("SAVPF 111", "SAVPF 8 0").replace("a=rtpmap:111 opus/48000/2\r\n", "")
    assert [codec.name for codec in parse_offer(text).sections[0].codecs] == ["PCMA", "PCMU"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: "", "no m-line"),
        (lambda text: "nonsense", "<type>=<value>"),
        (lambda text: '{"sdp": 1}', "<type>=<value>"),
        (lambda text: text[text.index("o=") :], "v=0"),
        (lambda text: text[: text.index("m=audio")], "no m-line"),
        (lambda text: text.replace("m=audio 9", "m=audio nine"), "m-line"),
        (lambda text: text.replace("m=audio 9", "m=audio 99999"), "m-line"),
        (lambda text: text.replace("SAVPF 111", "SAVPF 111 999"), "payload type"),
        (lambda text: text.replace("SAVPF 111", "SAVPF opus"), "payload types"),
        (lambda text: text.replace("a=rtpmap:111 opus/48000/2", "a=rtpmap:111"), "rtpmap"),
        (lambda text: text.replace("a=ice-ufrag:abcd\r\n", ""), "ice-ufrag"),
        (lambda text: text.replace("a=ice-pwd:0123456789abcdef012345", "a=ice-pwd:short"), "5.4"),
        (lambda text: text.replace("sha-256 E0:8C", "sha-256 E0:XX"), "fingerprint"),
        (lambda text: text.replace("a=setup:actpass", "a=setup:whatever"), "setup"),
        (lambda text: text.replace("a=mid:v", "a=mid:a"), "mid"),
        (lambda text: text + "a=candidate:1 1 udp\r\n", "candidate"),
        (lambda text: text + "\0", "NUL"),
        (lambda text: text + "a=x:" + "y" * MAX_SDP_BYTES, "longer"),
        (lambda text: text + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 40, "more than 32"),
    ],
)
def test_what_is_no_offer_is_refused_with_a_reason(change, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadOffer, match=says):
        parse_offer(change(read("av1-only")))


def test_only_old_fingerprints_are_unsupported() -> None:
    text = read("av1-only").replace("sha-256", "sha-1")
    with pytest.raises(UnsupportedOffer, match="sha-256"):
        parse_offer(text)


@pytest.mark.parametrize(
    ("line", "usable"),
    [
        ("1 1 udp 2130706431 192.0.2.1 5000 typ host", True),
        ("1 1 UDP 2130706431 2001:db8::1 5000 typ srflx raddr :: rport 0", True),
        ("1 1 tcp 2130706431 192.0.2.1 5000 typ host tcptype passive", False),
        ("1 2 udp 2130706431 192.0.2.1 5000 typ host", False),
        ("1 1 udp 2130706431 d1c3.local 5000 typ host", False),
        ("1 1 udp 2130706431 224.0.0.1 5000 typ host", False),
        ("1 1 udp 2130706431 0.0.0.0 5000 typ host", False),
        ("1 1 udp 2130706431 192.0.2.1 5000 typ unheard-of", False),
    ],
)
def test_only_candidates_that_can_be_paired_are_kept(line: str, usable: bool) -> None:
    assert (parse_candidate(line) is not None) is usable


def layers(*rows: str) -> tuple[str, ...]:
    return (
        parse_offer(read("chromium-sendrecv") + "".join(f"a={row}\r\n" for row in rows)).sections[-1].layers
    )


def test_the_layers_of_simulcast() -> None:
    rids = ("rid:1 send", "rid:a-b send pt=96;max-width=640", "rid:r recv")
    assert layers(*rids, "simulcast:send 1;a-b recv r") == ("1", "a-b")
    assert layers(*rids, "simulcast:recv r send 1,a-b") == ("1",), "of alternatives the first"
    assert layers(*rids, "simulcast:send 1;~a-b") == ("1", "a-b"), "paused ones may start any time"
    assert layers(*rids, "simulcast:recv r") == ()
    assert layers(*rids) == ()


@pytest.mark.parametrize(
    "rows",
    [
        ("rid:1",),
        ("rid:1 both",),
        ("rid:" + "x" * 17 + " send",),
        ("rid:1 send", "simulcast:send 2"),
        ("rid:1 recv", "simulcast:send 1"),
        ("rid:1 send", "simulcast:send 1;;1"),
        ("rid:1 send", "simulcast:send 1 send 1"),
        ("rid:1 send", "simulcast:1"),
        ("simulcast:",),
    ],
)
def test_simulcast_that_cannot_be_read_is_refused(rows: tuple[str, ...]) -> None:
    with pytest.raises(BadOffer, match="RFC 885"):
        layers(*rows)


_BASE = [read(name) for name in ("chromium-sendrecv", "gstreamer-h264", "av1-only")]


@st.composite
def _mangled(draw: st.DrawFn) -> str:
    rows = draw(st.sampled_from(_BASE)).split("\r\n")
    for _ in range(draw(st.integers(1, 6))):
        index = draw(st.integers(0, len(rows) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                del rows[index]
            case 1:
                rows[index] = rows[draw(st.integers(0, len(rows) - 1))]
            case 2:
                cut = draw(st.integers(0, len(rows[index])))
                rows[index] = rows[index][:cut] + draw(st.text(max_size=8))
            case _:
                rows.insert(index, draw(st.sampled_from("avmocx")) + "=" + draw(st.text(max_size=20)))
        if not rows:
            break
    return "\r\n".join(rows)


@settings(max_examples=400, deadline=None)
@given(st.one_of(_mangled(), st.text(max_size=300)))
def test_nothing_but_the_two_errors_leaves_the_parser(text: str) -> None:
    with contextlib.suppress(BadOffer, UnsupportedOffer):
        negotiate(parse_offer(text), send=True, receive=True)
