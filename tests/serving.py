"""A real server for real peers: ``mosaique serve`` in a process of its own, as a person starts it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.ports import free_port

READY_TIMEOUT_S: Final = 60.0
DRAIN_S: Final = (
    20.0  # the contract says 10 s, which is test_service's claim; other tests leave many rooms behind
)
_ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. ``ready_s``: from exec to the first 200 of ``/readyz``."""

    url: str
    token: str
    process: subprocess.Popen[bytes]
    data_dir: Path
    log: Path
    ready_s: float

    def call(self, method: str, path: str, body: Any = None, *, accept: str = "application/json") -> Any:
        """One API call as admin; JSON or bytes back. ``urllib.error.HTTPError`` for a refusal."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Accept": accept}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            response = urllib.request.urlopen(request, timeout=15)
        except urllib.error.HTTPError as refusal:
            refusal.add_note(f"{method} {path}: {refusal.read(2000).decode(errors='replace')}")
            raise
        with response:
            content: bytes = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return json.loads(content) if is_json and content else content

    def room(self, name: str, **fields: Any) -> str:
        """Make a room; its name back, with a number if a test that is tried again has made one of that name before."""
        for number in itertools.count(1):
            wanted = name if number == 1 else f"{name}-{number}"
            try:
                self.call("POST", "/v1/rooms", {"name": wanted, **fields})
            except urllib.error.HTTPError as refusal:
                if refusal.code != 409:
                    raise
            else:
                return wanted
        raise AssertionError("numbers do not end")

    def enter(self, room: str, role: str = "participant", name: str = "") -> dict[str, str]:
        """A token for one person: ``{"token", "sub", …}``."""
        made: dict[str, str] = self.call("POST", f"/v1/rooms/{room}/tokens", {"role": role, "name": name})
        return made

    def log_tail(self, size: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-size:]


def workers(server: Server, room: str) -> list[dict[str, Any]]:
    """The ``worker.started`` lines of a room, oldest first."""
    found = []
    for line in server.log.read_text().splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            if entry.get("event") == "worker.started" and entry.get("room") == room:
                found.append(entry)
    return found


@contextlib.contextmanager
def serving(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start a server with its data under ``directory``; at the end SIGTERM it and demand a clean exit.

    ``settings``: further ``section.key`` → value. Raises ``RuntimeError`` with the log's end when the server
    does not start, or does not end as the contract says.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    wanted = {
        "data_dir": str(directory / "var"),
        "http.port": str(port),
        "media.host": "127.0.0.1",
        "sip.enabled": "false",
        "turn.enabled": "false",
        # on a busy machine rooms would take nobody in and give up size and pictures a second: test_overload's subject
        "media.overload": "tell",
        **(settings or {}),
    }
    command = [sys.executable, "-m", "mixer.cli", "serve"]
    for key, value in wanted.items():
        command += ["--set", f"{key}={value}"]
    # nothing of this machine's own configuration: neither variables nor a mosaique.toml in the directory
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOSAIQUE_")}
    environment["PYTHONPATH"] = str(_ROOT)
    token = environment["MOSAIQUE_AUTH__ADMIN_TOKEN"] = secrets.token_urlsafe(32)
    log = directory / "server.log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_ready(url, process, log)
        ready_s = time.monotonic() - started
        yield Server(url, token, process, directory / "var", log, ready_s)
        if process.poll() is None:  # a test may have ended it itself
            _drain(process, log)
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2) as response:
            if response.status == 200:
                return
        time.sleep(0.02)  # another program's socket: nothing to wait on
    raise RuntimeError(f"the server is not ready (status {process.poll()}):\n{log.read_text()[-4000:]}")


def _drain(process: subprocess.Popen[bytes], log: Path) -> None:
    process.terminate()
    try:
        status = process.wait(DRAIN_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no exit within {DRAIN_S} s of SIGTERM:\n{log.read_text()[-4000:]}") from None
    if status != 0:
        raise RuntimeError(f"exit status {status} after SIGTERM:\n{log.read_text()[-4000:]}")
