"""``RecordingDesk`` in memory."""

from __future__ import annotations

from mixer.live_recordings import DeskState
from mixer.protocol import RecordingOrder


class MemoryDesk:
    """Numbers recordings and remembers the states it was told."""

    def __init__(self) -> None:
        self.states: dict[str, list[str]] = {}

    def create(self, room: str, *, note: str, language: str, tracks: bool) -> RecordingOrder:
        recording_id = f"REC{len(self.states)}"
        self.states[recording_id] = ["recording"]
        return RecordingOrder(
            id=recording_id, directory=f"/nonexistent/{recording_id}", note=note, tracks=tracks
        )

    def set_state(self, recording_id: str, state: DeskState) -> None:
        self.states[recording_id].append(state)
