"""Video payload formats: one module each, and what the frame assembler asks of them.

``depacketizer(codec)`` makes the one for a codec. Depacketizers read untrusted bytes: MalformedPacket only.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixer.media import VideoCodec
from mixer.rtp.payload.h264 import H264Depacketizer
from mixer.rtp.payload.picture import Depacketizer, Picture, Start
from mixer.rtp.payload.vp8 import Vp8Depacketizer
from mixer.rtp.payload.vp9 import Vp9Depacketizer

__all__ = ["Depacketizer", "Picture", "Start", "depacketizer"]


def depacketizer(codec: VideoCodec, parameter_sets: Sequence[bytes] = ()) -> Depacketizer:
    """The reader of ``codec``. ``parameter_sets``: H.264's SPS and PPS when the SDP brought them
    (``sprop-parameter-sets``, decoded from base64); other codecs have none.
    """
    match codec:
        case "H264":
            return H264Depacketizer(parameter_sets)
        case "VP8":
            return Vp8Depacketizer()
        case "VP9":
            return Vp9Depacketizer()
