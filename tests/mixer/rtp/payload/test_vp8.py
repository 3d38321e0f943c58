from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import MalformedPacket
from mixer.media import EncodedVideo
from mixer.rtp.payload.picture import Picture, Start
from mixer.rtp.payload.vp8 import Vp8Depacketizer, packetize
from tests.mixer.rtp.streams import decoded, encoded

KEYFRAME = b"\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00"


@given(st.binary(max_size=9000), st.integers(10, 1400), st.none() | st.integers(0, 2**15 - 1))
def test_frames_come_back_whole(body: bytes, max_payload: int, picture_id: int | None) -> None:
    frame = b"\x11" + body
    payloads = packetize(frame, max_payload, picture_id=picture_id)
    assert all(len(payload) <= max_payload for payload in payloads)
    assert len({len(payload) for payload in payloads[:-1]}) <= 1
    assert Vp8Depacketizer().assemble(payloads) == Picture(frame, False)


def test_real_pictures_come_back_decodable() -> None:
    frames = encoded("VP8")
    reader = Vp8Depacketizer()
    received = []
    for index, frame in enumerate(frames):
        picture = reader.assemble(packetize(frame.data, picture_id=index))
        assert picture == Picture(frame.data, frame.keyframe)
        received.append(EncodedVideo("VP8", picture.data, frame.pts, picture.keyframe))
    assert decoded(received) == len(frames)


def test_the_descriptor_is_that_of_the_rfc() -> None:
    first, second = packetize(b"\x11" + bytes(1200), 1100, picture_id=0x1234)
    assert first[:4] == bytes.fromhex("90809234")
    assert second[:4] == bytes.fromhex("80809234")
    assert packetize(b"\x11abc") == [b"\x10\x11abc"]


@pytest.mark.parametrize(
    "descriptor",
    ["10", "9000", "908007", "90809234", "90c0923405", "90e092340580", "90200a", "901041", "90f082068005"],
)
def test_all_forms_of_the_descriptor_are_read(descriptor: str) -> None:
    payload = bytes.fromhex(descriptor) + KEYFRAME
    assert Vp8Depacketizer().start(payload) is Start.KEYFRAME
    assert Vp8Depacketizer().assemble([payload]) == Picture(KEYFRAME, True)


def test_where_a_decoder_may_begin() -> None:
    reader = Vp8Depacketizer()
    assert reader.start(b"\x10\x11abc") is Start.NO  # not a keyframe
    assert reader.start(b"\x00" + KEYFRAME) is Start.NO  # not the first packet
    assert reader.start(b"\x11" + KEYFRAME) is Start.NO  # not the first partition
    assert reader.start(b"") is Start.NO


@pytest.mark.parametrize(
    "payloads",
    [
        [b"\x00" + KEYFRAME],
        [b"\x10" + KEYFRAME, b"\x10" + KEYFRAME],
        [b"\x10"],
        [b"\x90\x80"],
        [b"\x90\x80\x92"],
        [b"\x90\xff\x92\x34\x00"],
        [b"\x10\x10\x00\x00\x00\x00\x00"],  # keyframe without start code
        [b"\x10\x10"],
    ],
)
def test_what_is_refused(payloads: list[bytes]) -> None:
    with pytest.raises(MalformedPacket):
        Vp8Depacketizer().assemble(payloads)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_a_picture_or_malformed(payloads: list[bytes]) -> None:
    reader = Vp8Depacketizer()
    for payload in payloads:
        reader.start(payload)
    with contextlib.suppress(MalformedPacket):
        reader.assemble(payloads)
