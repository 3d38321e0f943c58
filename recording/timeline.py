"""The journal of a recording, and what is derived from it: chapters, and who was there. Pure.

``timeline.jsonl`` has one JSON object a line, ``{"t": …, "event": …, "participant"?, "name"?, "version"?,
"duration"?}``. ``t`` is the file's time in seconds: pauses are cut out of it, gaps are not. So the wall clock
of an event is ``started + t +`` the durations of the pauses before it (`wall_time`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from recording.errors import BadPackage
from recording.keys import rfc3339

EVENTS: Final = frozenset({
    "join", "leave", "rename", "mute", "unmute", "volume", "video-mute", "video-unmute", "video-on", "video-off",
    "share", "unshare", "speaker", "speaking", "silent", "layout", "track", "pause", "resume", "gap", "notice", "end",
})  # fmt: skip
NOT_RECORDED: Final = "not recorded"  # names of notices: a participant refuses to be in the recording ...
RECORDED: Final = "recorded"  # ... and agrees again
USUAL_WAIT_MS: Final = (
    40  # of sound in the mix, on a good line; times in tracks are as if it were always that
)
MIN_TURN_S: Final = 10.0  # a shorter turn at speaking opens no chapter: a list of interjections helps nobody
_SAME_INSTANT_S: Final = 0.002  # WebVTT counts milliseconds; two cues may not begin in the same one
_WORDS: Final = {
    "en": {"start": "Start", "resume": "After a pause", "gap": "After a gap"},
    "fr": {"start": "Début", "resume": "Après une pause", "gap": "Après une lacune"},
    "de": {"start": "Beginn", "resume": "Nach einer Pause", "gap": "Nach einer Lücke"},
    "nl": {"start": "Begin", "resume": "Na een pauze", "gap": "Na een onderbreking"},
}


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One line: seconds from the start of the file, what happened, and the fields that go with it."""

    t: float
    event: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Presence:
    """One stay of a participant: RFC 3339 times; ``left`` None while (or because) nobody saw them leave."""

    id: str
    name: str
    joined: str
    left: str | None


def write_line(event: TimelineEvent) -> bytes:
    """The event as one line of JSON, newline included. ValueError for an unknown event or a negative time."""
    if event.event not in EVENTS:
        raise ValueError(f"{event.event!r} is no timeline event")
    if not (math.isfinite(event.t) and event.t >= 0):
        raise ValueError("a timeline event happens at 0 s or later")
    if event.fields.keys() & {"t", "event"}:
        raise ValueError("'t' and 'event' are not fields")
    line = {"t": round(event.t, 3), "event": event.event, **event.fields}
    # ensure_ascii also escapes U+2028 and lone surrogates, so that a line is a line for every reader
    return json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read_line(line: bytes) -> TimelineEvent:
    """The inverse of `write_line`; raises BadPackage."""
    try:
        body = json.loads(line)
        t, event = float(body.pop("t")), str(body.pop("event"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadPackage("a line of the timeline cannot be read") from error
    if not (math.isfinite(t) and t >= 0):
        raise BadPackage("a line of the timeline has no time")
    return TimelineEvent(t, event, body)


def read_timeline(data: bytes) -> list[TimelineEvent]:
    """All lines; raises BadPackage for one that cannot be read."""
    return [read_line(line) for line in data.splitlines() if line.strip()]


def sound_lines(data: bytes) -> bytes:
    """``data`` up to its first line that is torn or cannot be read: what a death in the middle of a write
    leaves.
    """
    good = 0
    for line in data.splitlines(keepends=True):
        try:
            read_line(line)
        except BadPackage:
            break
        if not line.endswith(b"\n"):
            break
        good += len(line)
    return data[:good]


def paused_s(events: Iterable[TimelineEvent], until: float = math.inf) -> float:
    """Seconds that pauses cut out of the file before the file's time ``until``."""
    return sum(float(e.fields.get("duration", 0.0)) for e in events if e.event == "resume" and e.t <= until)


def is_paused(events: Sequence[TimelineEvent]) -> bool:
    """True when the last pause was not resumed."""
    last = next((e.event for e in reversed(events) if e.event in {"pause", "resume"}), "resume")
    return last == "pause"


def presences(events: Iterable[TimelineEvent], started_s: float) -> list[Presence]:
    """Who was there, from when to when, in the order of joining. ``started_s``: Unix time of the file's zero.

    Someone who comes back has two entries. A stay that the recording outlived by nothing ends with its end.
    """
    found: list[Presence] = []
    open_at: dict[str, int] = {}
    cut = 0.0
    for event in events:
        moment = rfc3339(started_s + event.t + cut)
        participant = str(event.fields.get("participant", ""))
        if event.event == "resume":
            cut += float(event.fields.get("duration", 0.0))
        elif event.event == "join" and participant not in open_at:
            open_at[participant] = len(found)
            found.append(Presence(participant, str(event.fields.get("name", participant)), moment, None))
        elif event.event == "leave" and participant in open_at:
            _close(found, open_at.pop(participant), moment)
        elif event.event == "end":
            for index in open_at.values():
                _close(found, index, moment)
            open_at.clear()
    return found


def _close(found: list[Presence], index: int, moment: str) -> None:
    stay = found[index]
    found[index] = Presence(stay.id, stay.name, stay.joined, moment)


def chapters(
    events: Sequence[TimelineEvent], duration_s: float, language: str = "en"
) -> list[tuple[float, str]]:
    """Chapters (start in seconds, title): turns at speaking of 10 s and more, and what follows a pause or
    gap.
    """
    words = _WORDS.get(language, _WORDS["en"])
    names: dict[str, str] = {}
    marks: list[tuple[float, str]] = [(0.0, words["start"])]
    for event in events:
        participant = str(event.fields.get("participant", ""))
        if event.event in {"join", "rename"} and "name" in event.fields:
            names[participant] = str(event.fields["name"])
        if event.event == "speaker" and participant:
            marks.append((event.t, names.get(participant, participant)))
        elif event.event in {"resume", "gap"}:
            marks.append((event.t, words[event.event]))
    return _without_short(marks, duration_s)


def _without_short(marks: list[tuple[float, str]], duration_s: float) -> list[tuple[float, str]]:
    """Drop marks that last less than a turn (the first excepted), and those that say what is said already."""
    kept: list[tuple[float, str]] = []
    ends = [start for start, _ in marks[1:]] + [duration_s]
    for (start, title), end in zip(marks, ends, strict=True):
        if kept and (end - start < MIN_TURN_S or title == kept[-1][1]):
            continue
        if kept and start - kept[-1][0] < _SAME_INSTANT_S:
            kept.pop()
        kept.append((start, title))
    return kept


def write_chapters(marks: Sequence[tuple[float, str]], duration_s: float) -> bytes:
    """A WebVTT chapters file (W3C WebVTT 1, section 3.3)."""
    lines = ["WEBVTT", ""]
    for index, (start, title) in enumerate(marks):
        end = marks[index + 1][0] if index + 1 < len(marks) else max(duration_s, start + 0.001)
        lines += [str(index + 1), f"{_timestamp(start)} --> {_timestamp(end)}", _cue_text(title), ""]
    return "\n".join(lines).encode()


def _timestamp(t: float) -> str:
    milliseconds = round(t * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


def _cue_text(title: str) -> str:
    """A name as cue text: one line, no markup, not empty. Escaping also breaks any ``-->``."""
    plain = " ".join(title.encode("utf-8", "replace").decode().replace("\0", " ").split()) or "–"
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
