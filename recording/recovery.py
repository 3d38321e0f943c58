"""Closing what a dead process left: the file cut to its last whole fragment, the timeline ended, the marker
written.

The caller holds the package's writer lock. Safe to repeat after a crash at any point.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog
from av.error import FFmpegError

from recording import package
from recording.durable import file_sha256, make_folder, write_whole
from recording.keys import from_rfc3339
from recording.loudness import measure
from recording.muxer import AudioFormat
from recording.timeline import TimelineEvent, paused_s, read_timeline, write_line
from recording.tracks import repair as repair_tracks
from recording.writer import MediaForm, media_on_disk, summarize, timeline_on_disk

_log = structlog.get_logger(__name__)

REASON = "the recording process ended without closing"


def recover(directory: Path, description: package.Description) -> package.Summary:
    """Close the package and return its `Summary` (``complete`` False). Closed already: returns that summary.

    A package without one whole fragment has ``size`` 0; there is nothing in it to archive. Raises OSError.
    """
    closed = package.read_model(package.Summary, directory / package.CLOSED)
    if closed is not None:
        return closed
    make_folder(directory / "data")
    (directory / package.RESERVE).unlink(missing_ok=True)  # first: it may be all the space there is
    tail = media_on_disk(directory)
    media = directory / package.MEDIA
    if tail.fragments:
        with media.open("r+b") as file:
            file.truncate(tail.whole_bytes)
            os.fsync(file.fileno())
    repair_tracks(directory)
    lines = timeline_on_disk(directory)
    events = read_timeline(lines)
    if not events or events[-1].event != "end":
        lines += write_line(TimelineEvent(tail.duration_s, "end"))
        write_whole(directory / package.TIMELINE, lines)
    anchor = package.read_model(package.Anchor, directory / package.ANCHOR)
    started_s = from_rfc3339(anchor.started if anchor else description.created)
    summary = summarize(
        _form(anchor),
        tail,
        started_s=started_s,
        ended_s=started_s + tail.duration_s + paused_s(events),
        sha256=file_sha256(media) if tail.fragments else "",
        reason=REASON,
    )
    package.write_model(directory / package.CLOSED, summary)
    return summary


def with_loudness(directory: Path, summary: package.Summary) -> package.Summary:
    """The summary with what its writer could not measure, having begun or ended in the middle; read from the file.

    Reads all of the sound: some 20 s for two hours. A file that cannot be measured is no reason not to keep it.
    """
    anchor = package.read_model(package.Anchor, directory / package.ANCHOR)
    form = _form(anchor).audio
    if summary.audio is None or summary.loudness is not None or form is None:
        return summary
    try:
        loudness = measure(directory / package.MEDIA, form)
    except (FFmpegError, OSError) as error:
        _log.warning("loudness_not_measured", recording=directory.name, detail=str(error))
        return summary
    return summary.model_copy(update={"loudness": loudness})


def _form(anchor: package.Anchor | None) -> MediaForm:
    """What the anchor says was recorded; without one (lost to a full disk) the numbers are unknown: 0."""
    if anchor is None:
        return MediaForm(0, 0, 0)
    audio = AudioFormat.parse(bytes.fromhex(anchor.audio_config)) if anchor.audio_config else None
    return MediaForm(anchor.width, anchor.height, anchor.fps, audio)
