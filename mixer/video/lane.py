"""One participant's decoding: a bounded line of coded pictures before a shared pool of threads.

Decoding is serial within a lane (a codec is a state machine) and parallel between lanes (libavcodec releases
the GIL). What is not shown is not decoded: a lane that is not ``shown`` drops its input and asks for a keyframe
when it is shown again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from mixer.errors import MalformedPacket
from mixer.media import EncodedVideo
from mixer.video.canvas import Mailbox
from mixer.video.decoder import DecodeFailed, PictureTooLarge, VideoDecoder
from mixer.video.headers import picture_size
from mixer.video.loopfilter import LoopFilterPolicy

MAX_WAIT_S: Final = 0.4
# A decoder that is further behind will not catch up; overflow drops everything up to the next keyframe, since the
# pictures between have lost what they refer to.

MAX_QUEUED: Final = 24  # behind a repaired packet ten come at once, and a decoder that keeps pace takes them

BATCH: Final = 3  # pictures decoded before the lane goes to the back of the pool's queue, so that lanes share
_SMOOTHING: Final = 0.1  # of ``late_s``: some ten pictures, a third of a second


class DecodeLane:
    """See the module. ``push`` from one thread; ``close`` from the same.

    ``request_keyframe`` is called from any thread and must be thread-safe.
    """

    def __init__(
        self,
        pool: Executor,
        mailbox: Mailbox,
        request_keyframe: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._mailbox = mailbox
        self._request_keyframe = request_keyframe
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: deque[tuple[EncodedVideo, float, float]] = deque()  # when it is due, when it came
        self._decoder: VideoDecoder | None = None
        self._filter = LoopFilterPolicy()
        self._width = 0  # of the stream, as its latest keyframe says
        self._running = False
        self._closed = False
        self._shown = True
        self._needs_keyframe = True
        self.decoded = 0
        self.dropped = 0
        self.failed = 0
        self.size = (0, 0)  # of the newest picture, pixels
        self.refused: str | None = None  # why nothing is decoded now: what is sent is too large
        self.refusals = 0  # pictures that were
        self.decode_ms = 0.0
        self.busy_s = 0.0  # decoding, of all pictures so far
        self.late_s = 0.0  # from a picture's coming until it is decoded, of the last second or so

    @property
    def depth(self) -> int:
        """Pictures waiting."""
        return len(self._queue)

    def set_shown(self, shown: bool) -> None:
        """Whether anybody sees this picture. Going back to shown asks the sender for a keyframe."""
        with self._lock:
            if shown == self._shown:
                return
            self._shown = shown
            self._needs_keyframe = True
            self._queue.clear()
        if shown:
            self._request_keyframe()

    def push(self, frame: EncodedVideo, *, due: float = float("-inf")) -> None:
        """Queue one coded picture; the mailbox gets the decoded one soon, to be shown at ``due``."""
        lost = False
        with self._lock:
            if self._closed:
                return
            if not self._shown:
                self.dropped += 1
                return
            if self._needs_keyframe and not frame.keyframe:
                self.dropped += 1
                return
            now = self._clock()
            if self._queue and (len(self._queue) >= MAX_QUEUED or now - self._queue[0][2] > MAX_WAIT_S):
                self.dropped += len(self._queue) + (not frame.keyframe)
                self._queue.clear()
                lost = not frame.keyframe
                self._needs_keyframe = lost
            if not lost:
                self._needs_keyframe = False
                self._queue.append((frame, due, now))
                if not self._running:
                    self._running = True
                    self._pool.submit(self._work)
        if lost:
            self._request_keyframe()

    def close(self) -> None:
        """Forget what waits; a picture being decoded now is finished and thrown away."""
        with self._lock:
            self._closed = True
            self._queue.clear()

    def _work(self) -> None:
        for _ in range(BATCH):
            with self._lock:
                if self._closed or not self._queue:
                    self._running = False
                    return
                frame, due, came = self._queue.popleft()
            self._decode(frame, due)
            self.late_s += _SMOOTHING * (self._clock() - came - self.late_s)
        with self._lock:
            self._running = bool(self._queue) and not self._closed
            if self._running:
                self._pool.submit(self._work)

    def _decode(self, frame: EncodedVideo, due: float) -> None:
        started = self._clock()
        try:
            decoder = self._decoder_for(frame, started)
            pictures = decoder.decode(frame)
        except DecodeFailed as error:
            self._decoder = None
            with self._lock:
                self.failed += 1
                self._needs_keyframe = True
                self._queue.clear()
            if isinstance(error, PictureTooLarge):  # another keyframe would be as large
                self.refused = str(error)
                self.refusals += 1
            else:
                self._request_keyframe()
            return
        now = self._clock()
        self.busy_s += now - started
        self.decode_ms += 0.1 * ((now - started) * 1000 - self.decode_ms)
        if not frame.keyframe and self._filter.wants_keyframe(
            frame.codec, self._width, self._mailbox.tile_width, now
        ):
            self._request_keyframe()
        for picture in pictures:
            self.decoded += 1
            self.size = picture.width, picture.height
            self.refused = None
            self._mailbox.put(picture, now, due=due)

    def _decoder_for(self, frame: EncodedVideo, now: float) -> VideoDecoder:
        """The decoder of this picture; a keyframe is where the loop filter can be left out, or come back."""
        decoder, skips = self._decoder, self._filter.skips
        if frame.keyframe:
            try:
                size = picture_size(frame.codec, frame.data)
            except MalformedPacket as error:
                raise DecodeFailed(f"{frame.codec} picture cannot be decoded: {error}") from error
            self._width = self._width if size is None else size[0]
            skips = self._filter.keyframe(frame.codec, self._width, self._mailbox.tile_width, now)
        if decoder is None or decoder.codec != frame.codec or decoder.skips_loop_filter != skips:
            decoder = self._decoder = VideoDecoder(frame.codec, skip_loop_filter=skips)
        return decoder
