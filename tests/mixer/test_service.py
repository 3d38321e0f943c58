"""The whole service as a process: what stopping it does to a recording, and what the next start brings home."""

from __future__ import annotations

import io
import json
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import av
import pytest

from tests.serving import Server, serving

PATIENCE_S = 30.0  # for what takes seconds here; a loaded CI machine is slower


def _await_state(server: Server, recording: str, state: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        info: dict[str, Any] = server.call("GET", f"/v1/recordings/{recording}")
        if info["state"] == state:
            return info
        assert time.monotonic() < deadline, f"still {info['state']}: {info}"
        time.sleep(0.1)  # another process's progress, told by HTTP only


def _await_spooled_media(server: Server, recording: str) -> Path:
    """Wait until at least one fragment of the recording is on the disk."""
    path = server.data_dir / "spool" / recording / "data" / "recording.mp4"
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() or path.stat().st_size < 2000:
        assert time.monotonic() < deadline, "nothing reached the spool"
        time.sleep(0.1)  # a file that another process writes
    return path


def _until_told(server: Server, kind: str) -> dict[str, Any]:
    """The first event of that kind since the server began."""
    headers = {"Authorization": f"Bearer {server.token}", "Last-Event-ID": "0"}
    request = urllib.request.Request(f"{server.url}/v1/events", headers=headers)
    deadline = time.monotonic() + PATIENCE_S
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                if event["type"] == kind:
                    return event
            assert time.monotonic() < deadline, f"no {kind}"
    pytest.fail(f"the stream ended without {kind}")


def _duration_s(server: Server, recording: str) -> float:
    film = server.call("GET", f"/v1/recordings/{recording}/media")
    with av.open(io.BytesIO(film)) as container:
        pictures = [
            float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and p.pts is not None
        ]
    return max(pictures) - min(pictures)


def test_that_a_recording_has_come_home_is_told(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        room = server.room("council")
        recording = server.call("POST", f"/v1/rooms/{room}/recordings", {})["id"]
        _await_spooled_media(server, recording)
        server.call("PATCH", f"/v1/recordings/{recording}", {"state": "stopped"})
        told = _until_told(server, "recording.archived")
        assert (told["room"], told["data"]) == (
            room,
            {"recording": recording, "complete": True, "reason": told["data"]["reason"]},
        )
        assert server.call("GET", f"/v1/recordings/{recording}")["state"] == "archived"


def test_sigterm_seals_what_is_recorded_and_exits_clean(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        room = server.room("council")
        recording = server.call("POST", f"/v1/rooms/{room}/recordings", {"note": "to the end"})["id"]
        _await_spooled_media(server, recording)
        server.process.terminate()
        assert server.process.wait(10) == 0, "contract section 1: exit 0 in at most 10 s"
    with serving(tmp_path) as server:
        info = _await_state(server, recording, "archived")
        assert info["complete"] is True
        assert info["note"] == "to the end"
        assert _duration_s(server, recording) > 0.5
        assert server.call("POST", f"/v1/recordings/{recording}/verify")["ok"] is True
        assert [found["name"] for found in server.call("GET", "/v1/rooms")] == [room], "rooms outlive it"


@pytest.mark.parametrize("how", ["second SIGTERM", "SIGKILL"])
def test_an_end_at_once_loses_no_recorded_media(tmp_path: Path, how: str) -> None:
    with serving(tmp_path) as server:
        room = server.room("council")
        recording = server.call("POST", f"/v1/rooms/{room}/recordings", {})["id"]
        spooled = _await_spooled_media(server, recording).stat().st_size
        if how == "SIGKILL":
            server.process.kill()
        else:
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGTERM)
        server.process.wait(10)
    with serving(tmp_path) as server:
        info = _await_state(server, recording, "archived")
        assert info["size"] >= spooled, "all that was on the disk is in the archive"
        assert _duration_s(server, recording) > 0.5
