from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import MalformedPacket
from mixer.media import EncodedVideo
from mixer.rtp.payload.picture import Picture, Start, cut
from mixer.rtp.payload.vp9 import Vp9Depacketizer
from tests.mixer.rtp.streams import decoded, encoded


def chrome_like(frame: bytes, *, keyframe: bool, number: int) -> list[bytes]:
    """Non-flexible mode with picture id, layer indices and, on keyframes, a scalability structure."""
    pieces = cut(frame, 1000)
    payloads = []
    for index, piece in enumerate(pieces):
        first, last = index == 0, index == len(pieces) - 1
        structure = keyframe and first
        head = 0xA0 | (0 if keyframe else 0x40) | (8 if first else 0) | (4 if last else 0) | 2 * structure
        body = bytes((head,)) + (0x8000 | number).to_bytes(2, "big") + b"\x00" + bytes((number & 0xFF,))
        if structure:
            body += b"\x18" + bytes.fromhex("014000f0") + b"\x01\x04\x01"
        payloads.append(body + piece)
    return payloads


def test_real_pictures_come_back_decodable() -> None:
    frames = encoded("VP9")
    reader = Vp9Depacketizer()
    received = []
    for index, frame in enumerate(frames):
        payloads = chrome_like(frame.data, keyframe=frame.keyframe, number=index)
        assert (reader.start(payloads[0]) is Start.KEYFRAME) == frame.keyframe
        picture = reader.assemble(payloads)
        assert picture == Picture(frame.data, frame.keyframe)
        received.append(EncodedVideo("VP9", picture.data, frame.pts, picture.keyframe))
    assert decoded(received) == len(frames)


@pytest.mark.parametrize(
    "descriptor",
    [
        "0c",  # nothing but B and E
        "8c07",  # 7-bit picture id
        "8c8007",
        "ac80070101"[:10],  # layer indices, TL0PICIDX
        "bc800700",  # flexible: no TL0PICIDX
    ],
)
def test_forms_of_the_descriptor(descriptor: str) -> None:
    payload = bytes.fromhex(descriptor) + b"frame"
    assert Vp9Depacketizer().assemble([payload]) == Picture(b"frame", True)


def test_flexible_references_are_skipped() -> None:
    payload = bytes.fromhex("dc8007 03 02") + b"frame"
    assert Vp9Depacketizer().assemble([payload]) == Picture(b"frame", False)


def test_only_the_lowest_spatial_layer_is_taken() -> None:
    low, high = b"\xac\x07\x00\x00low", b"\xac\x07\x03\x00high"
    assert Vp9Depacketizer().assemble([low, high]) == Picture(b"low", True)
    assert Vp9Depacketizer().assemble([high]) is None
    assert Vp9Depacketizer().start(high) is Start.NO


@pytest.mark.parametrize(
    "payloads",
    [
        [b""],
        [b"\x0c"],
        [b"\x8c\x80"],
        [b"\x04frame"],  # no begin
        [b"\x08frame"],  # no end
        [b"\x0cframe", b"\x0cframe"],
        [b"\x5c\x03\x03\x03\x03frame"],  # four references
        [b"\x0e\x18\x01\x40"],
        [b"\x0e\x08\xff\x04"],
    ],
)
def test_what_is_refused(payloads: list[bytes]) -> None:
    with pytest.raises(MalformedPacket):
        Vp9Depacketizer().assemble(payloads)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_a_picture_or_malformed(payloads: list[bytes]) -> None:
    reader = Vp9Depacketizer()
    for payload in payloads:
        reader.start(payload)
    with contextlib.suppress(MalformedPacket):
        reader.assemble(payloads)
