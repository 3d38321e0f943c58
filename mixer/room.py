"""One room as control knows it: its settings, its people, its layout history. Pure: time is an argument.

The room is the noun that outlives worker processes. Whatever a worker needs to carry on is read off it
(``Room.state``), and what a worker reports is written to it, so losing a worker loses no name and no layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mixer.errors import NoCapacity, NotFound
from mixer.protocol import RecordingOrder, RoomState, RosterEntry, WorkerSettings
from mixer.video.layout import LayoutBody

Role = Literal["viewer", "participant", "moderator", "archivist", "admin"]

ROOM_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# A label of a host name: the same name works in `sip:ROOM@host` and in a URL without any escaping.

LAYOUT_HISTORY: Final = 100  # versions kept for rollback; older ones are in the recordings' timelines
MAX_RECORDING_MINUTES: Final = 24 * 60  # of the limit that a room may set
RECORDING_MINUTES: Final = 12 * 60  # without one: a forgotten recording ends before the night is over
MAX_NAME: Final = 80  # characters of a display name; what fits a full-width name plate at its smallest size


class _Body(BaseModel):
    """A request body: unknown fields are the caller's mistake and are named."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def _printable(value: str | None) -> str | None:
    if value is not None and not value.isprintable():
        raise ValueError("control characters are not allowed in a name")
    return value


class RoomCreate(_Body):
    """Body of ``POST /v1/rooms``. PINs are digits, for telephone keys; ``language`` is that of the prompts."""

    name: str = Field(pattern=f"^{ROOM_NAME.pattern}$", description="Lower-case letters, digits, hyphens.")
    layout: LayoutBody = Field(default_factory=LayoutBody)
    pin: str | None = Field(default=None, pattern=r"^[0-9]{4,12}$")
    moderator_pin: str | None = Field(default=None, pattern=r"^[0-9]{4,12}$")
    record: bool = Field(default=False, description="Record from the first publisher on.")
    max_recording_minutes: int = Field(default=RECORDING_MINUTES, ge=1, le=MAX_RECORDING_MINUTES)
    language: Literal["fr", "en", "de", "nl"] = "en"
    max_participants: int = Field(default=100, ge=1, le=1000)


class RoomPatch(_Body):
    """Body of ``PATCH /v1/rooms/{room}``: only what is present changes; a null PIN removes it."""

    pin: str | None = Field(default=None, pattern=r"^[0-9]{4,12}$")
    moderator_pin: str | None = Field(default=None, pattern=r"^[0-9]{4,12}$")
    record: bool | None = None
    max_recording_minutes: int | None = Field(default=None, ge=1, le=MAX_RECORDING_MINUTES)
    language: Literal["fr", "en", "de", "nl"] | None = None
    max_participants: int | None = Field(default=None, ge=1, le=1000)


class ParticipantPatch(_Body):
    """Body of ``PATCH …/participants/{id}``. ``volume`` is linear: 0 is silence, 1 untouched, 4 is +12 dB.

    ``agc`` brings a voice to an even level, ``noise_suppression`` takes the noise out of it, for all who hear it.
    ``recorded``: false keeps voice and pictures out of recordings, from that instant on, not out of the room.
    Anybody who may change a participant may set it to false, only the person themself (or the admin token) to true.
    """

    muted: bool | None = None
    video_muted: bool | None = None
    volume: float | None = Field(default=None, ge=0, le=4, allow_inf_nan=False)
    name: str | None = Field(default=None, min_length=1, max_length=MAX_NAME)
    hand: bool | None = None
    agc: bool | None = None
    noise_suppression: bool | None = None
    recorded: bool | None = None

    _name_is_printable = field_validator("name")(_printable)


@dataclass(slots=True)
class Participant:
    """One person in the room. ``publishes``: sends a voice or a picture, so has a tile.

    ``absent_since`` (seconds, monotonic) is set while no session of it is live and
    the person may still come back (a reload, a lost worker).
    """

    id: str
    name: str
    kind: Literal["webrtc", "phone"]
    role: Role
    joined_at: datetime
    publishes: bool = True
    muted: bool = False
    video_muted: bool = False
    volume: float = 1.0
    speaking: bool = False
    hand: bool = False
    agc: bool = False
    noise_suppression: bool = False
    recorded: bool = True
    absent_since: float | None = None

    def public(self) -> dict[str, Any]:
        """The contract's JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "muted": self.muted,
            "video_muted": self.video_muted,
            "volume": self.volume,
            "speaking": self.speaking,
            "hand": self.hand,
            "agc": self.agc,
            "noise_suppression": self.noise_suppression,
            "recorded": self.recorded,
            "joined_at": self.joined_at.isoformat(),
        }

    def entry(self) -> RosterEntry:
        """The part that the worker acts on."""
        return RosterEntry(
            id=self.id,
            name=self.name,
            kind=self.kind,
            publishes=self.publishes,
            muted=self.muted,
            video_muted=self.video_muted,
            volume=self.volume,
            agc=self.agc,
            noise_suppression=self.noise_suppression,
            recorded=self.recorded,
        )


@dataclass(frozen=True, slots=True)
class LayoutVersion:
    """One entry of the layout history."""

    version: int
    body: LayoutBody
    at: datetime
    by: str

    def public(self) -> dict[str, Any]:
        """JSON for ``GET …/layout/versions``."""
        return {
            "version": self.version,
            "at": self.at.isoformat(),
            "by": self.by,
            "layout": self.body.model_dump(mode="json"),
        }


@dataclass(slots=True)
class Room:
    """A room's whole state on the control side."""

    name: str
    created_at: datetime
    layouts: list[LayoutVersion]
    pin: str | None = None
    moderator_pin: str | None = None
    record: bool = False
    max_recording_minutes: int = RECORDING_MINUTES
    language: str = "en"
    max_participants: int = 100
    participants: dict[str, Participant] = field(default_factory=dict)
    recording: RecordingOrder | None = None
    speaker: str | None = None
    epoch: int = 0
    ended: bool = False  # and its name may be another room's by now

    @classmethod
    def create(cls, body: RoomCreate, now: datetime, *, by: str) -> Room:
        """A new room with layout version 1."""
        return cls(
            name=body.name,
            created_at=now,
            layouts=[LayoutVersion(1, body.layout, now, by)],
            pin=body.pin,
            moderator_pin=body.moderator_pin,
            record=body.record,
            max_recording_minutes=body.max_recording_minutes,
            language=body.language,
            max_participants=body.max_participants,
        )

    @property
    def layout(self) -> LayoutVersion:
        """The layout in force."""
        return self.layouts[-1]

    def set_layout(self, body: LayoutBody, now: datetime, *, by: str) -> LayoutVersion:
        """Append a version and return it; the oldest beyond ``LAYOUT_HISTORY`` are forgotten."""
        version = LayoutVersion(self.layout.version + 1, body, now, by)
        self.layouts.append(version)
        del self.layouts[:-LAYOUT_HISTORY]
        return version

    def layout_at(self, version: int) -> LayoutVersion:
        """The version numbered ``version``. Raises ``NotFound``."""
        for entry in self.layouts:
            if entry.version == version:
                return entry
        raise NotFound(
            f"room {self.name} keeps layout versions {self.layouts[0].version} to {self.layout.version}, "
            f"not {version}"
        )

    def participant(self, participant_id: str) -> Participant:
        """The participant. Raises ``NotFound``."""
        try:
            return self.participants[participant_id]
        except KeyError:
            raise NotFound(f"no participant {participant_id!r} in room {self.name}") from None

    def admit(self, entry: RosterEntry, role: Role, now: datetime) -> tuple[Participant, bool]:
        """Let a person in, or back in. Returns the participant and whether it is new.

        Who comes back keeps name, mute and volume: a reload is no way round a moderator. Raises ``NoCapacity``
        when the room is full.
        """
        known = self.participants.get(entry.id)
        if known is not None:
            known.publishes = known.publishes or entry.publishes
            known.recorded = known.recorded and entry.recorded
            known.role = role
            known.absent_since = None
            return known, False
        if entry.publishes and sum(p.publishes for p in self.participants.values()) >= self.max_participants:
            raise NoCapacity(f"room {self.name} is full: it takes {self.max_participants} participants")
        participant = Participant(
            id=entry.id,
            name=entry.name,
            kind=entry.kind,
            role=role,
            joined_at=now,
            publishes=entry.publishes,
            recorded=entry.recorded,
        )
        self.participants[entry.id] = participant
        return participant, True

    def change_participant(self, participant_id: str, patch: ParticipantPatch) -> Participant:
        """Apply what is present in ``patch``. Raises ``NotFound``."""
        participant = self.participant(participant_id)
        for key, value in patch.model_dump(exclude_none=True).items():
            setattr(participant, key, value)
        return participant

    def set_speaking(self, speaking: tuple[str, ...], speaker: str | None) -> None:
        """What the mixer heard."""
        self.speaker = speaker
        for participant in self.participants.values():
            participant.speaking = participant.id in speaking

    def state(self, settings: WorkerSettings) -> RoomState:
        """What the next worker starts from; makes the next epoch."""
        self.epoch += 1
        return RoomState(
            room=self.name,
            epoch=self.epoch,
            settings=settings,
            layout_version=self.layout.version,
            layout=self.layout.body,
            roster=tuple(p.entry() for p in self.participants.values()),
            recording=self.recording,
        )

    def public(self) -> dict[str, Any]:
        """JSON of ``GET /v1/rooms/{room}``. PINs are never shown, only whether there are any."""
        return {
            "name": self.name,
            "created_at": self.created_at.isoformat(),
            "language": self.language,
            "record": self.record,
            "max_recording_minutes": self.max_recording_minutes,
            "has_pin": self.pin is not None,
            "has_moderator_pin": self.moderator_pin is not None,
            "max_participants": self.max_participants,
            "participants": len(self.participants),
            "speaker": self.speaker,
            "layout": {"version": self.layout.version, **self.layout.body.model_dump(mode="json")},
            "recording": None
            if self.recording is None
            else {"id": self.recording.id, "state": "paused" if self.recording.paused else "recording"},
        }
