from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mixer.errors import MalformedPacket
from mixer.rtp.payload.h264 import START_CODE, H264Depacketizer, packetize, split_annex_b
from mixer.rtp.payload.picture import Picture, Start
from tests.mixer.rtp.streams import decoded, encoded

SPS = bytes.fromhex("6742e01fda0140")
PPS = bytes.fromhex("68ce3c80")
IDR = b"\x65\x88" + b"i" * 40
SLICE = b"\x41\x9a" + b"s" * 40

NAL = st.builds(
    lambda kind, body: bytes((0x60 | kind,)) + body.replace(b"\x00", b"\x01") + b"\x80",
    st.sampled_from([1, 2, 5]),
    st.binary(min_size=1, max_size=5000),
)


def annex_b(*nals: bytes) -> bytes:
    return b"".join(START_CODE + nal for nal in nals)


@given(st.lists(NAL, min_size=1, max_size=6), st.integers(20, 1400))
def test_slices_come_back_whole(nals: list[bytes], max_payload: int) -> None:
    payloads = packetize(annex_b(SPS, PPS, *nals), max_payload)
    assert all(len(payload) <= max_payload for payload in payloads)
    idr = any(nal[0] & 0x1F == 5 for nal in nals)
    assert H264Depacketizer().assemble(payloads) == Picture(annex_b(SPS, PPS, *nals), idr)


def test_real_pictures_come_back_decodable() -> None:
    frames = encoded("H264")
    reader = H264Depacketizer()
    for frame in frames:
        picture = reader.assemble(packetize(frame.data))
        assert picture is not None
        assert picture.keyframe == frame.keyframe
    pictures = [reader.assemble(packetize(frame.data)) for frame in frames]
    received = [
        type(frame)("H264", picture.data, frame.pts, picture.keyframe)
        for frame, picture in zip(frames, pictures, strict=True)
        if picture is not None
    ]
    assert decoded(received) == len(frames)


def test_parameter_sets_share_a_packet_and_fragments_are_equally_long() -> None:
    big = b"\x65\x88" + b"x" * 5000
    payloads = packetize(annex_b(b"\x09\xf0", SPS, PPS, b"\x06\x05abc", big, b"\x0c\xff\xff"))
    assert payloads[0] == b"\x78" + len(SPS).to_bytes(2, "big") + SPS + len(PPS).to_bytes(2, "big") + PPS
    sizes = [len(payload) for payload in payloads[1:]]
    assert len(set(sizes[:-1])) == 1
    assert sizes[0] - 5 <= sizes[-1] <= sizes[0] <= 1100
    assert [payload[1] & 0xC0 for payload in payloads[1:]] == [0x80, 0, 0, 0, 0x40]
    assert {payload[0] for payload in payloads[1:]} == {0x7C}


def test_short_start_codes_and_trailing_zeros() -> None:
    stream = b"\x00\x00\x01" + SPS + b"\x00\x00\x00\x01" + PPS + b"\x00\x00\x01" + IDR + b"\x00\x00"
    assert list(split_annex_b(stream)) == [SPS, PPS, IDR]
    assert list(split_annex_b(b"")) == []
    with pytest.raises(ValueError, match="start code"):
        packetize(b"no stream at all")


def test_parameter_sets_of_their_own_are_put_before_the_keyframe() -> None:
    reader = H264Depacketizer()
    assert reader.start(IDR) is Start.NO
    assert reader.assemble([IDR]) == Picture(annex_b(IDR), False)  # nobody could decode it
    assert reader.assemble([SPS]) is None
    assert reader.assemble([PPS]) is None
    assert reader.start(IDR) is Start.PERHAPS
    assert reader.assemble([IDR]) == Picture(annex_b(SPS, PPS, IDR), True)
    assert reader.assemble([SLICE]) == Picture(annex_b(SLICE), False)
    newer = SPS + b"\x01"
    assert reader.assemble([newer, IDR]) == Picture(annex_b(PPS, newer, IDR), True)


def test_parameter_sets_from_the_sdp() -> None:
    assert H264Depacketizer([SPS, PPS]).assemble([IDR]) == Picture(annex_b(SPS, PPS, IDR), True)


def test_where_a_decoder_may_begin() -> None:
    reader = H264Depacketizer([SPS, PPS])
    fragment = b"\x7c\x85\x88" + b"i" * 20
    assert reader.start(SPS) is Start.KEYFRAME
    assert reader.start(packetize(annex_b(SPS, PPS, IDR))[0]) is Start.KEYFRAME
    assert reader.start(fragment) is Start.PERHAPS
    assert reader.start(b"\x7c\x05\x88iii") is Start.NO  # the middle of a fragmented unit
    assert reader.start(b"\x65\x40iii") is Start.NO  # the second slice of a picture
    assert reader.start(SLICE) is Start.NO
    assert reader.start(b"") is Start.NO


@pytest.mark.parametrize(
    "payloads",
    [
        [b"\x7c\x05abc"],  # no begin
        [b"\x7c\x85abc"],  # no end
        [b"\x7c\x85abc", b"\x7c\x85abc"],  # two begins
        [b"\x7c\x85abc", SLICE],  # interrupted
        [b"\x7c\x85"],
        [b"\x7c"],
        [b"\x7c\x9cabc"],  # a fragment of a fragment
        [b"\x78\x00"],
        [b"\x78\x00\x05abc"],  # cut
        [b"\x78\x00\x00\x00"],
        [b"\x78\x00\x01\x78"],  # nested
        [b"\x79abc"],  # STAP-B
        [b"\x60abc"],  # type 0
        [b"\xe5abc"],  # forbidden bit
        [b""],
        [b"\x67\x42\xe0\x1f\x00\x00\x00\x00"],  # SPS with an absurd identifier
        [b"\x68" + b"x" * 2000],
    ],
)
def test_what_is_refused(payloads: list[bytes]) -> None:
    with pytest.raises(MalformedPacket):
        H264Depacketizer().assemble(payloads)


def test_a_flood_of_parameter_sets_is_refused() -> None:
    reader = H264Depacketizer()
    flood = []
    for identifier in range(17):
        zeros = (identifier + 1).bit_length() - 1  # ue(v), H.264 section 9.1
        flood.append(b"\x68" + ((identifier + 1) << (31 - 2 * zeros)).to_bytes(4, "big"))
    for nal in flood[:16]:
        reader.assemble([nal, nal])
    with pytest.raises(MalformedPacket, match="too many"):
        reader.assemble([flood[16]])


@given(st.lists(st.binary(max_size=60), max_size=8))
@example([b"\x7c\x85", b"\x7c"])
def test_any_bytes_are_a_picture_or_malformed(payloads: list[bytes]) -> None:
    reader = H264Depacketizer([SPS, PPS])
    for payload in payloads:
        reader.start(payload)
    with contextlib.suppress(MalformedPacket):
        reader.assemble(payloads)
