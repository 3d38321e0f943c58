"""A recorded room played again from its timeline: who is there, who is seen, who has the floor, in which layout. Pure.

The same words that `mixer.journal` wrote, read back in order; what they make is what `arrange` takes, so that the tiles
are those of the live room at every picture.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from mixer.errors import InvalidBody, MosaiqueError
from mixer.video.layout import LayoutBody, Source, check, parse_layout
from recording.errors import BadPackage
from recording.timeline import (
    NOT_RECORDED,
    RECORDED,
    USUAL_WAIT_MS,
    TimelineEvent,
    read_timeline,
    sound_lines,
)
from recording.tracks import is_track

SCREEN_SUFFIX: Final = "#screen"  # as the live room names the source of a shared screen
MAX_TIMELINE_BYTES: Final = 64 * 1024 * 1024  # a day in which somebody begins to speak each second: 10 MB
MAX_LENGTH_S: Final = 7 * 24 * 3600.0
MAX_WAIT_MS: Final = 200.0  # as live: `playout` lets nobody wait longer (`arrival.MAX_FLOOR`)
MAX_PEOPLE: Final = 10_000
_ROUNDING_S: Final = 0.0005  # times are written in milliseconds


class BadTimeline(MosaiqueError):
    """A timeline that cannot be played: what of it, and in which line."""

    code = "bad-timeline"


@dataclass(frozen=True, slots=True)
class TrackFile:
    """A participant's own voice, camera or screen, from ``begins_s`` of the recording on."""

    file: str  # inside the package
    participant: str
    kind: str
    begins_s: float

    @property
    def source(self) -> str:
        """Of pictures: the source as the layout knows it."""
        return self.participant + (SCREEN_SUFFIX if self.kind == "screen" else "")


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who is in the room, as the timeline says. ``camera``: a picture is expected."""

    name: str
    phone: bool = False
    muted: bool = False
    camera: bool = False
    screen: bool = False
    volume: float = 1.0
    recorded: bool = True


def parse_events(data: bytes) -> list[TimelineEvent]:
    """The lines of a ``timeline.jsonl``, in order of time. Raises BadTimeline, and nothing else."""
    if len(data) > MAX_TIMELINE_BYTES:
        raise BadTimeline(f"the timeline has {len(data)} bytes, at most {MAX_TIMELINE_BYTES} are read")
    try:
        events = read_timeline(data)
    except BadPackage as error:
        raise BadTimeline(str(error)) from None
    if not events:
        raise BadTimeline("the timeline is empty")
    if max(event.t for event in events) > MAX_LENGTH_S:
        raise BadTimeline(f"the timeline is longer than {MAX_LENGTH_S / 3600:.0f} h")
    return sorted(events, key=lambda event: event.t)  # stable: what happened at one instant stays in order


class Waits:
    """How long the mix let each participant's sound wait, from a package's ``tracks.jsonl``; as usual without one.

    Lines that cannot be read, and all after them, are passed over: without them people are a few pictures early.
    """

    def __init__(self, data: bytes = b"") -> None:
        self._times: dict[str, list[float]] = {}
        self._waits: dict[str, list[float]] = {}
        for event in read_timeline(sound_lines(data[:MAX_TIMELINE_BYTES])):
            participant = event.fields.get("participant")
            if event.event == "wait" and isinstance(participant, str):
                self._times.setdefault(participant, []).append(event.t)
                wait_ms = min(MAX_WAIT_MS, max(0.0, _number(event.fields.get("ms"), USUAL_WAIT_MS)))
                self._waits.setdefault(participant, []).append(wait_ms / 1000)

    def at(self, participant: str, now_s: float) -> float:
        """Seconds, for what belongs to ``now_s`` of the recording."""
        place = bisect_right(self._times.get(participant, ()), now_s)
        return self._waits[participant][place - 1] if place else USUAL_WAIT_MS / 1000


class Replay:
    """See the module. ``layout``: instead of the layouts of the timeline. Raises BadTimeline for a layout in it that
    cannot be.
    """

    def __init__(self, events: Sequence[TimelineEvent], layout: LayoutBody | None = None) -> None:
        self._events = events
        self._next = 0
        self._fixed = layout
        self._layouts = {} if layout is not None else _layouts(events)
        self._gaps = [(e.t, e.t + _number(e.fields.get("duration"), 0.0)) for e in events if e.event == "gap"]
        # One that says nothing of cameras (of another program) has them where it has tracks of them.
        self._implied = all(e.event != "video-on" for e in events)
        self.body = layout or self._first_layout()
        self.speaker: str | None = None
        self.people: dict[str, Person] = {}
        self.tracks = _tracks(events)
        self.ends_s = max(event.t for event in events)

    def _first_layout(self) -> LayoutBody:
        return next(iter(self._layouts.values()), LayoutBody())

    def advance(self, now_s: float) -> bool:
        """Let everything happen up to ``now_s``. True when the arrangement may be another one."""
        changed = False
        while self._next < len(self._events) and self._events[self._next].t <= now_s + _ROUNDING_S:
            event = self._events[self._next]
            changed = self._apply(event, self._next) or changed
            self._next += 1
        return changed

    def frozen(self, now_s: float) -> bool:
        """Whether nothing was recorded at ``now_s``: the film shows a picture that stands still."""
        return any(start <= now_s < end for start, end in self._gaps)

    def sources(self) -> list[Source]:
        """As ``arrange`` takes them, in join order; without those who refused to be recorded."""
        found = []
        for name, person in self.people.items():
            if not person.recorded:
                continue
            kind = "phone" if person.phone else "webrtc"
            found.append(Source(name, person.name, kind, has_video=person.camera, muted=person.muted))  # type: ignore[arg-type]
            if person.screen:
                found.append(Source(name + SCREEN_SUFFIX, person.name, kind, has_video=True, screen=True))  # type: ignore[arg-type]
        return found

    def _apply(self, event: TimelineEvent, index: int) -> bool:
        if event.event == "layout":
            self.body = self._fixed or self._layouts.get(index, self.body)
            return True
        participant = event.fields.get("participant")
        if event.event == "speaker":
            self.speaker = participant if isinstance(participant, str) else None
            return True
        if not isinstance(participant, str):
            return False
        if event.event == "leave":
            return self.people.pop(participant, None) is not None
        if event.event == "join":
            if len(self.people) >= MAX_PEOPLE:
                raise BadTimeline(f"more than {MAX_PEOPLE} people at once")
            name, phone = str(event.fields.get("name", participant)), event.fields.get("kind") == "phone"
            # a worker that goes on introduces again who has been there
            self.people[participant] = replace(
                self.people.get(participant, Person(name)), name=name, phone=phone
            )
            return True
        return self._change(event, participant)

    def _change(self, event: TimelineEvent, participant: str) -> bool:
        person = self.people.get(participant)
        changes = _CHANGES.get(event.event)
        if event.event == "rename":
            changes = {"name": str(event.fields.get("name", participant))}
        elif event.event == "notice" and event.fields.get("name") in {RECORDED, NOT_RECORDED}:
            changes = {"recorded": event.fields["name"] == RECORDED}
        elif event.event == "volume":
            changes = {"volume": min(4.0, max(0.0, _number(event.fields.get("volume"), 1.0)))}
        elif event.event == "track" and self._implied and event.fields.get("kind") in {"camera", "screen"}:
            changes = {str(event.fields["kind"]): True}
        if person is None or changes is None:
            return False
        self.people[participant] = replace(person, **changes)
        return True


_CHANGES: Final[dict[str, dict[str, Any]]] = {
    "mute": {"muted": True},
    "unmute": {"muted": False},
    "video-on": {"camera": True},
    "video-off": {"camera": False},
    "share": {"screen": True},
    "unshare": {"screen": False},
}


def _layouts(events: Sequence[TimelineEvent]) -> dict[int, LayoutBody]:
    """The bodies, by the place of their line; a line without one changes nothing."""
    found = {}
    for index, event in enumerate(events):
        if event.event == "layout" and "layout" in event.fields:
            try:
                body = parse_layout(event.fields["layout"])
                check(body, participants=None, images=())
            except InvalidBody as error:
                raise BadTimeline(f"the layout of {event.t:.3f} s cannot be: {error}") from None
            found[index] = body
    return found


def _tracks(events: Sequence[TimelineEvent]) -> list[TrackFile]:
    found = []
    for event in events:
        file, participant = event.fields.get("file"), event.fields.get("participant")
        if (
            event.event == "track"
            and isinstance(file, str)
            and is_track(file)
            and isinstance(participant, str)
        ):
            found.append(TrackFile(file, participant, str(event.fields.get("kind")), event.t))
    return found


def _number(value: object, default: float) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else default  # type: ignore[arg-type]
