"""What an audio payload says about its own length before anyone decodes it. Pure.

The jitter buffer needs the duration of a packet to know which packet must come next; the RTP header does
not carry it, every codec tells it in its own way.
"""

from __future__ import annotations

from typing import Final

from mixer.errors import MalformedPacket
from mixer.media import AudioCodec

RTP_CLOCK_HZ: Final[dict[AudioCodec, int]] = {
    "opus": 48_000,  # RFC 7587 section 4.1
    "G722": 8_000,  # RFC 3551 section 4.5.2: a historical error that has to be kept, the codec runs at 16 kHz
    "PCMU": 8_000,  # RFC 3551 table 4
    "PCMA": 8_000,
}

MAX_PCM_BYTES: Final = 1_600  # 200 ms at 8 bytes/ms, what a receiver should accept, RFC 3551 section 4.2
MAX_OPUS_SAMPLES: Final = 5_760  # 120 ms at 48 kHz, the longest Opus packet, RFC 6716 section 3.2.5

# Samples at 48 kHz of one frame, by the five configuration bits of the TOC byte (RFC 6716 table 2):
# SILK 10/20/40/60 ms for three bandwidths, hybrid 10/20 ms for two, CELT 2.5/5/10/20 ms for four.
_OPUS_FRAME: Final = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4


def opus_frame_samples(payload: bytes) -> int:
    """Samples at 48 kHz of *one* frame of this Opus packet. Raises ``MalformedPacket`` on an empty one."""
    if not payload:
        raise MalformedPacket("an Opus packet needs its TOC byte")
    return _OPUS_FRAME[payload[0] >> 3]


def duration_samples(codec: AudioCodec, payload: bytes) -> int:
    """Length of a payload in samples **at 48 kHz**, whatever the codec's own rate.

    Strict parser of a stranger's bytes: raises ``MalformedPacket`` for an empty or over-long payload.
    Opus: RFC 6716 section 3.2 (frame count code); PCMU, PCMA, G722: 8 bytes a millisecond (RFC 3551).
    """
    if codec != "opus":
        if not 0 < len(payload) <= MAX_PCM_BYTES:
            raise MalformedPacket(f"{codec} payload of {len(payload)} bytes, 1 to {MAX_PCM_BYTES} expected")
        return len(payload) * 6  # 48 samples a millisecond over 8 bytes a millisecond
    frame = opus_frame_samples(payload)
    code = payload[0] & 0x03
    if code == 3:
        if len(payload) < 2 or not payload[1] & 0x3F:
            raise MalformedPacket("an Opus code 3 packet needs a count of at least one frame")
        frame *= payload[1] & 0x3F
    elif code:
        frame *= 2
    if frame > MAX_OPUS_SAMPLES:
        raise MalformedPacket(f"an Opus packet of {frame / 48:g} ms, at most 120 ms allowed")
    return frame


def opus_has_fec(payload: bytes) -> bool:
    """Whether this Opus packet carries its predecessor once more (LBRR, RFC 6716 section 4.2.4). False for nonsense.

    The first bits of a SILK frame are a flag of activity for each 20 ms of it and then the one asked for here
    (section 4.2.3), of the middle channel and then of the side.
    """
    if not payload or payload[0] >> 3 >= 16:  # configurations 16 to 31 are CELT alone, section 3.1
        return False
    start = _first_opus_frame(payload)
    if start is None or start >= len(payload):
        return False
    blocks = max(1, opus_frame_samples(payload) // 960)
    flags = payload[start]
    if flags >> (7 - blocks) & 1:
        return True
    return bool(payload[0] & 0x04 and flags >> (6 - 2 * blocks) & 1)  # stereo


def _first_opus_frame(payload: bytes) -> int | None:
    """Where the first frame of the packet begins (RFC 6716 section 3.2); None when it is empty."""
    code = payload[0] & 0x03
    if code < 2:  # one frame, or two of equal size
        return 1
    if code == 2:
        return _behind_length(payload, 1)
    if len(payload) < 2:
        return None
    at = 2
    if payload[1] & 0x40:  # padding: 255 means 254 and one byte more
        while at < len(payload) and payload[at] == 255:
            at += 1
        at += 1
    if payload[1] & 0x80:  # frames of different sizes: all but the last say theirs
        for _ in range((payload[1] & 0x3F) - 1):
            behind = _behind_length(payload, at)
            if behind is None:
                return None
            at = behind
    return at


def _behind_length(payload: bytes, at: int) -> int | None:
    """The place behind a frame length of one or two bytes (section 3.2.1)."""
    if at >= len(payload):
        return None
    return at + (1 if payload[at] < 252 else 2)
