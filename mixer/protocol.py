"""What control and a room worker say to each other: requests, answers, events. Plain, serialisable, no media.

One ``Request`` gets one ``Answer`` or one ``Failure`` (which carries a ``MosaiqueError`` by its code).
``Event`` travels unasked, worker to control. Everything is JSON; ``bytes`` (a PNG) travel as base64.
A message that does not validate is a bug of ours: the reader closes the connection.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mixer.video.layout import LayoutBody


class Message(BaseModel):
    """Base of all messages: immutable, strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


# --- state a worker starts from --------------------------------------------------------------------------


class WorkerSettings(Message):
    """Where a worker's sockets live (``udp_ports`` is inclusive at both ends), what it may use and whether it gives up
    quality when that is not enough, how it logs.
    """

    host: str
    public_ip: str | None
    udp_ports: tuple[int, int]
    cpu_cores: float | None = None
    overload: Literal["act", "tell"] = "act"
    log_level: str = "info"
    log_style: str = "auto"


class RosterEntry(Message):
    """One participant as control knows it. ``volume`` is linear, 1.0 = untouched; ``agc``, ``noise_suppression``:
    what others hear of the voice is brought to an even level, is cleaned of noise. ``recorded``: false leaves voice
    and picture out of recordings.
    """

    id: str
    name: str
    kind: Literal["webrtc", "phone"] = "webrtc"
    publishes: bool = True
    muted: bool = False
    video_muted: bool = False
    volume: float = 1.0
    agc: bool = False
    noise_suppression: bool = False
    recorded: bool = True


class RecordingOrder(Message):
    """A recording to write: its identity, its spool directory, whether it starts paused, and whether participants'
    own tracks are kept beside the film."""

    id: str
    directory: str
    note: str = ""
    paused: bool = False
    tracks: bool = False


class RoomState(Message):
    """All a fresh worker needs to carry a room on. ``epoch`` grows by one with every worker of a room and
    fences a late one: control drops what an older epoch says."""

    room: str
    epoch: int
    settings: WorkerSettings
    layout_version: int
    layout: LayoutBody
    roster: tuple[RosterEntry, ...] = ()
    recording: RecordingOrder | None = None


# --- requests --------------------------------------------------------------------------------------------


class Offer(Message):
    """An SDP offer of a WHIP (``publish``) or WHEP connection; answered by ``OfferAnswer``.

    ``minus``: the participant whose voice this connection's mix must not contain, or None for everyone.
    """

    op: Literal["offer"] = "offer"
    session: str
    publish: bool
    participant: RosterEntry
    sdp: str
    rendition: str = "auto"
    minus: str | None = None


class Trickle(Message):
    """An RFC 8840 SDP fragment for a session."""

    op: Literal["trickle"] = "trickle"
    session: str
    fragment: str


class HangUp(Message):
    """End one session."""

    op: Literal["hang-up"] = "hang-up"
    session: str
    reason: str = "hung up"


class SetLayout(Message):
    """Replace the layout at the next frame."""

    op: Literal["set-layout"] = "set-layout"
    version: int
    layout: LayoutBody


class SetParticipant(Message):
    """The participant's entry as it is from now on."""

    op: Literal["set-participant"] = "set-participant"
    participant: RosterEntry


class RemoveParticipant(Message):
    """End every session of a participant and forget it."""

    op: Literal["remove-participant"] = "remove-participant"
    participant: str


class GetPreview(Message):
    """What the canvas would look like in ``layout``; ``picture`` asks for the PNG as well."""

    op: Literal["preview"] = "preview"
    layout: LayoutBody
    picture: bool


class GetSnapshot(Message):
    """The canvas as it is now."""

    op: Literal["snapshot"] = "snapshot"


class GetMedia(Message):
    """Where the worker's media sockets are; answered by ``Media``. They stay there as long as it lives."""

    op: Literal["media"] = "media"


class GetStats(Message):
    """Counters of the room, the contract's ``stats`` body."""

    op: Literal["stats"] = "stats"


class StartRecording(Message):
    """Start writing a recording to its spool directory."""

    op: Literal["start-recording"] = "start-recording"
    recording: RecordingOrder


class ChangeRecording(Message):
    """Pause, resume or stop the live recording; ``stopped`` is answered once the spool is closed."""

    op: Literal["change-recording"] = "change-recording"
    id: str
    state: Literal["paused", "recording", "stopped"]


class Drain(Message):
    """Stop the recording, hang up every session; answered once that is done."""

    op: Literal["drain"] = "drain"
    reason: str = "the server is going down"


Request = Annotated[
    Offer | Trickle | HangUp | SetLayout | SetParticipant | RemoveParticipant | GetPreview | GetSnapshot
    | GetMedia | GetStats | StartRecording | ChangeRecording | Drain,
    Field(discriminator="op"),
]  # fmt: skip


# --- answers ---------------------------------------------------------------------------------------------


class Done(Message):
    """Nothing to say beyond success."""

    answer: Literal["done"] = "done"


class OfferAnswer(Message):
    """The SDP answer."""

    answer: Literal["offer"] = "offer"
    sdp: str


class Preview(Message):
    """Rectangles in pixels, predicted cost, and the PNG when it was asked for."""

    answer: Literal["preview"] = "preview"
    tiles: list[dict[str, Any]]
    cost: dict[str, float]
    png: bytes | None = None


class Snapshot(Message):
    """``image/png``."""

    answer: Literal["snapshot"] = "snapshot"
    png: bytes


class MediaSocket(Message):
    """One bound UDP socket: its port, and the addresses that candidates name for it, best first. ``public_ip``: the
    one among them that is a NAT's in front of this machine."""

    port: int
    addresses: tuple[str, ...]
    public_ip: str | None = None


class Media(Message):
    """The worker's media sockets."""

    answer: Literal["media"] = "media"
    sockets: tuple[MediaSocket, ...]


class Stats(Message):
    """The contract's stats body."""

    answer: Literal["stats"] = "stats"
    body: dict[str, Any]


class Failure(Message):
    """A ``MosaiqueError`` on its way through a process border."""

    answer: Literal["failure"] = "failure"
    code: str
    message: str
    details: dict[str, Any] = {}


Answer = Annotated[
    Done | OfferAnswer | Preview | Snapshot | Media | Stats | Failure, Field(discriminator="answer")
]


# --- events ----------------------------------------------------------------------------------------------


class SessionClosed(Message):
    """A session ended, by either side."""

    event: Literal["session-closed"] = "session-closed"
    session: str
    reason: str


class SpeakingChanged(Message):
    """Who is heard now, and who holds the floor."""

    event: Literal["speaking-changed"] = "speaking-changed"
    speaking: tuple[str, ...]
    speaker: str | None


class RenditionChanged(Message):
    """A viewer with `auto` was moved from one rendition to another, as its line asked for."""

    event: Literal["rendition-changed"] = "rendition-changed"
    session: str
    participant: str
    before: str
    rendition: str


class PictureRefused(Message):
    """Pictures of a participant's camera or ``screen`` are too large to be decoded; ``detail`` says the sizes."""

    event: Literal["picture-refused"] = "picture-refused"
    participant: str
    screen: bool
    detail: str


class LoadChanged(Message):
    """How busy the room's process is: ``pressure`` of 1.0 by ``cause``, the ``step`` of what is given up for it,
    whether it is ``full``, CPU ``cores`` in use. Told when any of it changes noticeably.
    """

    event: Literal["load-changed"] = "load-changed"
    pressure: float
    cause: str
    step: int
    name: str
    full: bool
    cores: float


class RecordingAlert(Message):
    """Something is wrong with the recording (disk full or slow, I/O error); the room goes on."""

    event: Literal["recording-alert"] = "recording-alert"
    id: str
    kind: str
    reason: str


class RecordingLost(Message):
    """A fresh worker could not continue the recording of the one before; the archiver brings home what there is."""

    event: Literal["recording-lost"] = "recording-lost"
    id: str
    reason: str


class WorkerDied(Message):
    """Said by the host, not by the worker: its process is gone."""

    event: Literal["worker-died"] = "worker-died"
    epoch: int
    detail: str


Event = Annotated[
    SessionClosed
    | SpeakingChanged
    | RenditionChanged
    | PictureRefused
    | LoadChanged
    | RecordingAlert
    | RecordingLost
    | WorkerDied,
    Field(discriminator="event"),
]


# --- the wire --------------------------------------------------------------------------------------------


class RequestFrame(Message):
    """Control to worker."""

    number: int
    request: Request


class WorkerFrame(Message):
    """Worker to control: an answer (with its request's number) or an event."""

    number: int | None = None
    answer: Answer | None = None
    event: Event | None = None
