"""Reads the size of a picture out of its coded form, before a decoder allocates anything for it.

Untrusted bytes: strict, bounded, and ``MalformedPacket`` is the only exception.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mixer.errors import MalformedPacket
from mixer.media import VideoCodec

_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_MAX_UE_ZEROS = 32  # H.264 9.1: codeNum fits in 32 bits
_MAX_SPS: Final = 32  # H.264 7.4.2.1.1: identifiers are below
_MAX_SPS_BYTES: Final = 1024  # read of one; real ones have 10 to 60
_SPS: Final = re.compile(
    rb"\x00\x00\x01[\x07\x27\x47\x67\x87\xa7\xc7\xe7]"
)  # nal_unit_type 7, whatever is before it


class Announced(NamedTuple):
    """Two sizes, each (width, height) in pixels: of what is ``shown``, and of what is ``coded`` and gets memory."""

    shown: tuple[int, int]
    coded: tuple[int, int]


def announced(codec: VideoCodec, data: bytes) -> list[Announced]:
    """Every size that this coded picture announces, mostly none: which of several is used, a decoder finds out.

    ``data``: one access unit; H.264 as Annex B. Raises ``MalformedPacket`` for a header that cannot be read.
    """
    if codec == "H264":
        return _h264(data)
    size = _vp8(data) if codec == "VP8" else _vp9(data)
    return [] if size is None else [Announced(size, size)]


def picture_size(codec: VideoCodec, data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels that this coded picture is shown in, the largest of ``announced``; None without any.

    ``data``: one access unit; H.264 as Annex B. Raises ``MalformedPacket`` for a header that cannot be read.
    """
    sizes = [size.shown for size in announced(codec, data)]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _vp8(data: bytes) -> tuple[int, int] | None:
    """RFC 6386 section 9.1: frame tag, start code, two 14-bit sizes below 2 bits of upscaling hint."""
    if len(data) < 3:
        raise MalformedPacket("VP8 frame shorter than its tag")
    if data[0] & 1:
        return None  # an interframe
    if len(data) < 10 or data[3:6] != b"\x9d\x01\x2a":
        raise MalformedPacket("VP8 keyframe without start code")
    return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF


def _vp9(data: bytes) -> tuple[int, int] | None:
    """VP9 bitstream specification section 6.2, uncompressed_header. Sizes are read of key frames only."""
    bits = _Bits(data)
    if bits.read(2) != 2:
        raise MalformedPacket("VP9 frame marker missing")
    profile = bits.read(1) | bits.read(1) << 1
    if profile == 3:
        bits.read(1)
    if bits.read(1):  # show_existing_frame
        return None
    if bits.read(1):  # frame_type: 1 is not a key frame
        return None
    bits.read(2)  # show_frame, error_resilient_mode
    if bits.read(24) != 0x498342:
        raise MalformedPacket("VP9 keyframe without sync code")
    if profile >= 2:
        bits.read(1)  # ten_or_twelve_bit
    srgb = bits.read(3) == 7
    if not srgb:
        bits.read(1)  # color_range
    if profile in (1, 3):
        bits.read(1 if srgb else 3)  # subsampling_x, subsampling_y, reserved_zero
    width = bits.read(16) + 1
    return width, bits.read(16) + 1


def _h264(data: bytes) -> list[Announced]:
    """The sequence parameter sets of an Annex B access unit (H.264 section 7.3.2.1.1)."""
    found: list[Announced] = []
    for start in _SPS.finditer(data):
        if len(found) == _MAX_SPS:
            raise MalformedPacket("H.264 picture with more SPS than there can be")
        begin = start.end()
        end = data.find(b"\0\0\1", begin, begin + _MAX_SPS_BYTES)
        nal = data[begin : end if end >= 0 else begin + _MAX_SPS_BYTES]
        found.append(_sps_size(_Bits(nal.replace(b"\0\0\3", b"\0\0"))))
    return found


def _sps_size(bits: _Bits) -> Announced:
    profile = bits.read(8)
    bits.read(16)  # constraint flags, level
    bits.ue()  # seq_parameter_set_id
    chroma, separate = 1, 0
    if profile in _HIGH_PROFILES:
        chroma = bits.ue()
        if chroma == 3:
            separate = bits.read(1)
        bits.ue()  # bit_depth_luma_minus8
        bits.ue()
        bits.read(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.read(1):  # seq_scaling_matrix_present_flag
            _skip_scaling_lists(bits, 12 if chroma == 3 else 8)
    bits.ue()  # log2_max_frame_num_minus4
    _skip_picture_order(bits)
    bits.ue()  # max_num_ref_frames
    bits.read(1)
    width = (bits.ue() + 1) * 16
    map_units = bits.ue() + 1
    frame_only = bits.read(1)
    if not frame_only:
        bits.read(1)  # mb_adaptive_frame_field_flag
    height = map_units * 16 * (2 - frame_only)
    coded = width, height
    bits.read(1)  # direct_8x8_inference_flag
    if bits.read(1):  # frame_cropping_flag; crop units: table 6-1
        planar = separate or chroma == 0
        unit_x = 1 if planar or chroma == 3 else 2
        unit_y = (1 if planar or chroma != 1 else 2) * (2 - frame_only)
        width -= (bits.ue() + bits.ue()) * unit_x
        height -= (bits.ue() + bits.ue()) * unit_y
    if width <= 0 or height <= 0:
        raise MalformedPacket("H.264 SPS crops everything away")
    return Announced((width, height), coded)


def _skip_picture_order(bits: _Bits) -> None:
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.read(1)
        bits.ue()
        bits.ue()
        cycle = bits.ue()
        if cycle > 255:
            raise MalformedPacket("H.264 SPS: num_ref_frames_in_pic_order_cnt_cycle beyond 255")
        for _ in range(cycle):
            bits.ue()


def _skip_scaling_lists(bits: _Bits, count: int) -> None:
    for index in range(count):
        if not bits.read(1):
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                code = bits.ue()
                following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
            last = following or last


class _Bits:
    """Most significant bit first; reading past the end is ``MalformedPacket``."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            byte, bit = divmod(self._at, 8)
            if byte >= len(self._data):
                raise MalformedPacket("header ends too early")
            value = value << 1 | self._data[byte] >> (7 - bit) & 1
            self._at += 1
        return value

    def ue(self) -> int:
        """An unsigned Exp-Golomb code (H.264 section 9.1)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > _MAX_UE_ZEROS:
                raise MalformedPacket("Exp-Golomb code too long")
        return (1 << zeros) - 1 + self.read(zeros)
