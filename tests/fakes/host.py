"""``RoomHost`` in memory: no process, no media. Passes the same contract as the process host."""

from __future__ import annotations

import asyncio

from mixer import protocol
from mixer.errors import BadOffer, Conflict, InvalidBody, NotFound
from mixer.video.layout import Source, arrange
from mixer.video.rendition import RENDITIONS
from mixer.workers import empty_stats

# The smallest valid PNG: one transparent pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c626001000000"
    "ffff03000006000557bfabd40000000049454e44ae426082"
)

ANSWER_SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"


class MemoryRoom:
    """The worker's side of the protocol, kept in dictionaries."""

    def __init__(self, state: protocol.RoomState, port: int = 40000) -> None:
        self.state = state
        self.layout = state.layout
        self.version = state.layout_version
        self.roster = {entry.id: entry for entry in state.roster}
        self.sessions: dict[str, protocol.Offer] = {}
        self.recording = state.recording
        self.sockets = (protocol.MediaSocket(port=port, addresses=("127.0.0.1",)),)

    def answer(self, request: protocol.Request) -> protocol.Answer:  # noqa: C901, PLR0912 - one case a request
        match request:
            case protocol.Offer():
                if not request.sdp.startswith("v=0"):
                    raise BadOffer("this is not SDP: it must start with v=0")
                if request.rendition not in {"auto", *RENDITIONS}:
                    raise InvalidBody(
                        "no such rendition", [{"loc": ["query", "rendition"], "msg": "unknown"}]
                    )
                self.sessions[request.session] = request
                self.roster.setdefault(request.participant.id, request.participant)
                return protocol.OfferAnswer(sdp=ANSWER_SDP)
            case protocol.Trickle():
                self._session(request.session)
            case protocol.HangUp():
                self._session(request.session)
                del self.sessions[request.session]
            case protocol.SetLayout():
                self.version, self.layout = request.version, request.layout
            case protocol.SetParticipant():
                self.roster[request.participant.id] = request.participant
            case protocol.RemoveParticipant():
                self.roster.pop(request.participant, None)
            case protocol.GetPreview():
                sources = [Source(e.id, e.name, e.kind, False) for e in self.roster.values() if e.publishes]
                tiles = arrange(request.layout, sources, None)
                keys = ("id", "participant", "x", "y", "width", "height", "z")
                return protocol.Preview(
                    tiles=[{key: getattr(tile, key) for key in keys} for tile in tiles],
                    cost={"cpu_cores": 0.1, "kbps": 1400},
                    png=PIXEL if request.picture else None,
                )
            case protocol.GetSnapshot():
                return protocol.Snapshot(png=PIXEL)
            case protocol.GetMedia():
                return protocol.Media(sockets=self.sockets)
            case protocol.GetStats():
                return protocol.Stats(
                    body={
                        **empty_stats(),
                        "ticks": {**empty_stats()["ticks"], "audio": {"run": 1, "late": 0, "dropped": 0}},
                    }
                )
            case protocol.StartRecording():
                self.recording = request.recording
            case protocol.ChangeRecording():
                if self.recording is None or self.recording.id != request.id:
                    raise Conflict("no such recording is live")
                if request.state == "stopped":
                    self.recording = None
            case protocol.Drain():
                self.sessions.clear()
        return protocol.Done()

    def _session(self, session: str) -> None:
        if session not in self.sessions:
            raise NotFound("there is no such session")


class MemoryHost:
    """Rooms in a dictionary. ``kill`` makes one die as a process would."""

    def __init__(self) -> None:
        self.open_rooms: dict[str, MemoryRoom] = {}
        self.events: asyncio.Queue[tuple[str, protocol.Event]] = asyncio.Queue()
        self.next_port = 40000  # of the media socket of the next room
        self.refusal: Exception | None = None  # raised by the next `open`, to play a machine without room

    async def open(self, state: protocol.RoomState) -> None:
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal
        if state.room in self.open_rooms:
            raise Conflict(f"room {state.room} has a worker already")
        self.open_rooms[state.room] = MemoryRoom(state, self.next_port)

    async def ask(self, room: str, request: protocol.Request) -> protocol.Answer:
        if room not in self.open_rooms:
            raise NotFound(f"room {room} has no worker")
        return self.open_rooms[room].answer(request)

    async def next_event(self) -> tuple[str, protocol.Event]:
        return await self.events.get()

    async def close(self, room: str, *, grace_s: float) -> None:
        self.open_rooms.pop(room, None)

    async def shutdown(self, *, grace_s: float) -> None:
        self.open_rooms.clear()

    def say(self, room: str, event: protocol.Event) -> None:
        """Play an event of a room's worker."""
        self.events.put_nowait((room, event))

    def kill(self, room: str) -> None:
        """The worker of ``room`` dies."""
        dead = self.open_rooms.pop(room)
        self.say(room, protocol.WorkerDied(epoch=dead.state.epoch, detail="killed"))
