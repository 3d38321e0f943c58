"""What a recording's timeline says of its room: everything that changes the picture or the sound, when it does. Pure.

Enough to compose the picture again: who is there and in which order, whose picture is expected, who has the floor,
each layout with its body. And exact: who was heard from when to when, as the mixer decided it. Of whoever refuses to
be recorded it says that, and that they were there, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from mixer.audio.speaker import SPEAKING_HOLD_S
from mixer.protocol import RosterEntry
from mixer.video.layout import LayoutBody, Source
from recording.timeline import NOT_RECORDED, RECORDED


class Note(Protocol):
    """Writes one line of the timeline, if there is one."""

    def __call__(self, event: str, /, **fields: Any) -> None: ...


class RoomJournal:
    """Keeps how things stand, and notes what changes. ``now``: seconds, monotonic."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._entries: dict[str, RosterEntry] = {}
        self._pictures: dict[str, Source] = {}  # those with a picture, by source
        self._speaker: str | None = None
        self._speaking: dict[str, float] = {}  # since when
        self._layout: tuple[int, LayoutBody] | None = None

    def introduce(self, now: float) -> None:
        """How things stand, when a recording begins."""
        for entry in self._entries.values():
            self._join(entry)
        if self._layout is not None:
            self.layout(*self._layout)
        self._note("notice", name="recording")
        for source in self._pictures.values():
            self._picture(source, on=True)
        if self._speaker is not None:
            self._note("speaker", participant=self._speaker)
        for participant in self._speaking:
            self._speaking[participant] = now
            self._note("speaking", participant=participant)

    def joined(self, entry: RosterEntry) -> None:
        """``entry`` sends from now on."""
        self._entries[entry.id] = entry
        self._join(entry)

    def _join(self, entry: RosterEntry) -> None:
        self._note("join", participant=entry.id, name=entry.name, kind=entry.kind)
        if entry.muted:
            self._note("mute", participant=entry.id)
        if entry.video_muted:
            self._note("video-mute", participant=entry.id)
        if entry.volume != 1.0:
            self._note("volume", participant=entry.id, volume=entry.volume)
        if not entry.recorded:
            self._note("notice", participant=entry.id, name=NOT_RECORDED)

    def changed(self, entry: RosterEntry) -> None:
        """``entry`` as it is from now on; who does not send is of no interest."""
        before = self._entries.get(entry.id)
        if before is None:
            return
        self._entries[entry.id] = entry
        if before.name != entry.name:
            self._note("rename", participant=entry.id, name=entry.name)
        if before.muted != entry.muted:
            self._note("mute" if entry.muted else "unmute", participant=entry.id)
        if before.video_muted != entry.video_muted:
            self._note("video-mute" if entry.video_muted else "video-unmute", participant=entry.id)
        if before.volume != entry.volume:
            self._note("volume", participant=entry.id, volume=entry.volume)
        if before.recorded != entry.recorded:
            self._note("notice", participant=entry.id, name=RECORDED if entry.recorded else NOT_RECORDED)

    def left(self, participant: str) -> None:
        """They are gone for good."""
        entry = self._entries.pop(participant, None)
        if entry is not None:
            self._note("leave", participant=participant, name=entry.name)

    def layout(self, version: int, body: LayoutBody) -> None:
        """The layout from now on, with all that is needed to arrange it again."""
        self._layout = version, body
        self._note("layout", version=version, layout=body.model_dump(mode="json"))

    def sources(self, sources: Sequence[Source]) -> None:
        """Who can have a tile in what is recorded now. Cheap; after every change."""
        pictures = {source.id: source for source in sources if source.has_video}
        for name, source in self._pictures.items():
            if name not in pictures:
                self._picture(source, on=False)
        for name, source in pictures.items():
            if name not in self._pictures:
                self._picture(source, on=True)
        self._pictures = pictures

    def _picture(self, source: Source, *, on: bool) -> None:
        """A screen's source is named after its participant: the part before the suffix."""
        participant = source.id.partition("#")[0]
        if source.screen:
            self._note("share" if on else "unshare", participant=participant)
        else:
            self._note("video-on" if on else "video-off", participant=participant)

    def speaker(self, participant: str | None) -> None:
        """Who has the floor from now on, of those who may be recorded."""
        if participant != self._speaker:
            self._speaker = participant
            self._note("speaker", **({} if participant is None else {"participant": participant}))

    def speaking(self, participants: Iterable[str], now: float) -> None:
        """Who is heard now; each tick. The mixer holds on to a speaker a little: that is taken off again."""
        heard = {p for p in participants if p not in self._entries or self._entries[p].recorded}
        if heard == self._speaking.keys():
            return
        for participant in [p for p in self._speaking if p not in heard]:
            since = self._speaking.pop(participant)
            entry = self._entries.get(participant)
            held_s = SPEAKING_HOLD_S if entry is not None and not entry.muted else 0.0
            duration = max(0.0, now - since - held_s)
            self._note("silent", participant=participant, duration=round(duration, 3))
        for participant in sorted(heard - self._speaking.keys()):
            self._speaking[participant] = now
            self._note("speaking", participant=participant)
