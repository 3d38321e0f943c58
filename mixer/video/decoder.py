"""One incoming stream's video decoder: coded picture in, raw pictures out."""

from __future__ import annotations

from typing import Final, cast

import av
from av.codec.context import Flags

from mixer.errors import MalformedPacket, MosaiqueError
from mixer.media import EncodedVideo, VideoCodec
from mixer.video.headers import announced

# libav would otherwise call Python's logging from its own threads (known deadlocks).
av.logging.set_level(None)

MAX_LONG_PX: Final = 1920
MAX_SHORT_PX: Final = 1088  # 1080 in whole macroblocks
_DECODERS: Final[dict[VideoCodec, str]] = {"H264": "h264", "VP8": "vp8", "VP9": "vp9"}


class DecodeFailed(MosaiqueError):
    """A stranger's coded picture that cannot be shown. The stream is usable again from its next keyframe."""

    code = "decode-failed"


class PictureTooLarge(DecodeFailed):
    """The picture is larger than a participant may send; nothing was allocated for it."""

    code = "picture-too-large"


class VideoDecoder:
    """Decodes one stream on the calling thread (``thread_count=1``: the pool is what runs in parallel).

    ``skip_loop_filter``: leave the deblocking filter out of all but keyframes. Errors add up until the next one:
    ``mixer.video.loopfilter`` says when that is not seen.
    """

    def __init__(self, codec: VideoCodec, *, skip_loop_filter: bool = False) -> None:
        self.codec: Final[VideoCodec] = codec
        self.skips_loop_filter: Final = skip_loop_filter
        self._context: av.VideoCodecContext = self._open()
        self._waiting = True

    def _open(self) -> av.VideoCodecContext:
        context = cast(av.VideoCodecContext, av.CodecContext.create(_DECODERS[self.codec], "r"))
        context.thread_count = 1
        context.flags |= Flags.low_delay
        # A second lock behind the header check: sizes that change where no header is read (VP9 interframes).
        options = {"max_pixels": str(MAX_LONG_PX * MAX_SHORT_PX)}
        if self.skips_loop_filter:
            options["skip_loop_filter"] = "nokey"
        context.options = options
        return context

    def decode(self, frame: EncodedVideo) -> list[av.VideoFrame]:
        """Decode one coded picture of this decoder's codec; usually one picture comes back, at times none.

        Raises ``DecodeFailed``; pictures up to the next keyframe are then dropped silently.
        """
        if self._waiting and not frame.keyframe:
            return []
        try:
            self._check_size(frame)
            pictures = self._context.decode(av.Packet(frame.data))
        except (MalformedPacket, av.FFmpegError) as error:
            self.reset()
            raise DecodeFailed(f"{self.codec} picture cannot be decoded: {error}") from error
        except DecodeFailed:
            self.reset()
            raise
        self._waiting = False
        return pictures

    def reset(self) -> None:
        """Forget every reference picture and wait for a keyframe."""
        self._context = self._open()
        self._waiting = True

    def _check_size(self, frame: EncodedVideo) -> None:
        for shown, coded in announced(self.codec, frame.data):
            if max(coded) > MAX_LONG_PX or min(coded) > MAX_SHORT_PX:
                # an H.264 picture may be cropped to a stamp, and its memory is taken all the same
                size = shown if max(shown) > MAX_LONG_PX or min(shown) > MAX_SHORT_PX else coded
                largest = f"{MAX_LONG_PX}×{MAX_SHORT_PX}"
                raise PictureTooLarge(f"picture of {size[0]}×{size[1]} pixels; at most {largest} is accepted")
            if min(shown) < 2:
                raise DecodeFailed(f"picture of {shown[0]}×{shown[1]} pixels")
