"""What each codec needs to stand in Matroska: its identifier, its private data, the form of its frames. Pure.

RFC 9559 section 27 lists the mappings; those of sound that Matroska has none for are written as Windows names them
(``A_MS/ACM`` with a WAVEFORMATEX), as FFmpeg does.
"""

from __future__ import annotations

import struct
from typing import Final

from recording.errors import BadPackage
from recording.matroska import TrackForm

_START_CODE: Final = b"\0\0\1"
_SPS, _PPS = 7, 8  # H.264 table 7-1
_OPUS_PREROLL_NS: Final = 80_000_000  # RFC 7845 section 4.6: a decoder has converged after 80 ms
# WAVE_FORMAT_ALAW, _MULAW (RFC 2361), and the number that FFmpeg gives G.722; bits a sample
_WAVE: Final = {"PCMA": (0x0006, 8_000, 8), "PCMU": (0x0007, 8_000, 8), "G722": (0x028F, 16_000, 4)}


def video_form(codec: str, keyframe: bytes, width: int, height: int) -> TrackForm:
    """The form of a picture track that begins with ``keyframe`` (H.264 as Annex B). Raises BadPackage."""
    match codec:
        case "VP8" | "VP9":
            return TrackForm("video", f"V_{codec}", b"", width, height)
        case "H264":
            return TrackForm("video", "V_MPEG4/ISO/AVC", _avc_configuration(keyframe), width, height)
        case _:
            raise BadPackage(f"pictures in {codec} are not kept in tracks")


def audio_form(codec: str, payload: bytes) -> TrackForm:
    """The form of a sound track that begins with the RTP payload ``payload``. Raises BadPackage."""
    if codec == "opus":
        if not payload:
            raise BadPackage("an Opus packet has at least one byte")
        channels = (
            2 if payload[0] & 0x04 else 1
        )  # RFC 6716 section 3.1; decoders take either, whatever is said
        # RFC 7845 section 5.1: version, channels, no pre-skip (it begins anywhere), input rate, no gain, family 0
        private = b"OpusHead" + struct.pack("<BBHIhB", 1, channels, 0, 48_000, 0, 0)
        return TrackForm(
            "audio", "A_OPUS", private, rate_hz=48_000, channels=channels, seek_preroll_ns=_OPUS_PREROLL_NS
        )
    if codec not in _WAVE:
        raise BadPackage(f"sound in {codec} is not kept in tracks")
    tag, rate_hz, bits = _WAVE[codec]
    private = struct.pack("<HHIIHHH", tag, 1, rate_hz, 8_000, 1, bits, 0)
    return TrackForm("audio", "A_MS/ACM", private, rate_hz=rate_hz, channels=1)


def video_frame(codec: str, data: bytes) -> bytes:
    """A picture as it stands in the file: H.264's NAL units behind their lengths, parameter sets included.

    Those that change on the way are where a decoder meets them; the private data has the first ones.
    """
    if codec != "H264":
        return data
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in nal_units(data))


def nal_units(data: bytes) -> list[bytes]:
    """The NAL units of an Annex B byte stream (H.264 annex B), without their start codes."""
    units = []
    at = data.find(_START_CODE)
    while at >= 0:
        start = at + 3
        at = data.find(_START_CODE, start)
        unit = (
            data[start:] if at < 0 else data[start:at].rstrip(b"\0")
        )  # the next start code may have four bytes
        if unit:
            units.append(unit)
    return units


def _avc_configuration(keyframe: bytes) -> bytes:
    """AVCDecoderConfigurationRecord, ISO/IEC 14496-15 section 5.3.3.1, of the keyframe's parameter sets."""
    units = nal_units(keyframe)
    sps = [unit for unit in units if unit[0] & 0x1F == _SPS and 4 <= len(unit) <= 0xFFFF][:31]
    pps = [unit for unit in units if unit[0] & 0x1F == _PPS and len(unit) <= 0xFFFF][:255]
    if not sps or not pps:
        raise BadPackage("the keyframe has no parameter sets")
    record = bytes((1, *sps[0][1:4], 0xFC | 3, 0xE0 | len(sps)))
    record += b"".join(len(unit).to_bytes(2, "big") + unit for unit in sps)
    record += bytes((len(pps),)) + b"".join(len(unit).to_bytes(2, "big") + unit for unit in pps)
    if sps[0][1] in {
        100,
        110,
        122,
        144,
    }:  # the high profiles say more: 4:2:0 of 8 bits, as all that is sent to us
        record += bytes((0xFC | 1, 0xF8, 0xF8, 0))
    return record
