"""Between the mix and the recording: the same coded pictures the viewers get, and the whole mix as AAC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixer.audio.codec import AacEncoder
from mixer.media import EncodedVideo
from mixer.protocol import RecordingOrder
from mixer.video.rendition import Rendition
from recording.recorder import Recorder
from recording.tracks import TrackFrame, TrackSource


class RecorderTap:
    """Feeds one ``recording.Recorder``. Opening and closing block (disk); all between does not.

    Raises ``recording.errors.RecordingError`` or ``OSError`` when the spool does not take (or continue) the
    recording. ``on_alert`` (its kind, a sentence), ``on_keyframe_needed`` and
    ``on_track_keyframe_needed`` are called on the recorder's thread.
    """

    def __init__(
        self,
        order: RecordingOrder,
        rendition: Rendition,
        *,
        on_alert: Callable[[str, str], None],
        on_keyframe_needed: Callable[[], None],
        on_track_keyframe_needed: Callable[[TrackSource], None],
    ) -> None:
        self.id = order.id
        self.paused = False
        self._aac: AacEncoder | None = None  # made with the first frame, whose time it starts at
        self._recorder = Recorder(
            Path(order.directory),
            fps=rendition.fps,
            width=rendition.width,
            height=rendition.height,
            audio_extradata=AacEncoder().extradata,
            on_alert=lambda alert: on_alert(alert.kind, alert.detail),
            on_keyframe_needed=on_keyframe_needed,
            on_track_keyframe_needed=on_track_keyframe_needed,
        )

    def video(self, frame: EncodedVideo) -> None:
        """One coded picture of the recorded rendition, room clock."""
        self._recorder.write_video(frame.data, frame.pts, frame.keyframe)

    def audio(self, pcm: NDArray[np.float32], pts: int) -> None:
        """20 ms of the whole mix: float32 (960,), 48 kHz, without gaps (``AudioBridge.set_recorder``)."""
        if self._aac is None:
            self._aac = AacEncoder(start_pts=pts)
        for data, packet_pts in self._aac.encode(pcm):
            self._recorder.write_audio(data, packet_pts)

    def track(self, source: TrackSource, frame: TrackFrame, pts_90k: int) -> None:
        """One frame of a participant's own, as received; room clock."""
        self._recorder.write_track(source, frame, pts_90k)

    def end_tracks(self, participant: str) -> None:
        """The participant has left."""
        self._recorder.end_tracks(participant)

    def event(self, event: str, pts_90k: int, /, **fields: Any) -> None:
        """One line of the timeline."""
        self._recorder.event(event, pts_90k, **fields)

    def pause(self, pts_90k: int) -> None:
        """Nothing is kept from here on."""
        self.paused = True
        self._recorder.pause(pts_90k)

    def resume(self, pts_90k: int) -> None:
        """Kept again from the next keyframe on."""
        self.paused = False
        self._recorder.resume(pts_90k)

    def close(self, pts_90k: int) -> None:
        """End at ``pts_90k`` and put everything on the disk. Blocks: call it from a thread."""
        for data, packet_pts in self._aac.flush() if self._aac is not None else ():
            self._recorder.write_audio(data, packet_pts)
        self._recorder.close(pts_90k)

    def stats(self) -> dict[str, dict[str, Any]]:
        """Depth and losses of the recorder's two queues, bytes written, alerts."""
        return self._recorder.stats()
