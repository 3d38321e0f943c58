"""Janus' audiobridge as a peer of the audio benches: Debian's package, plain-RTP participants, on the loopback.

Nothing of the machine's own configuration is read; a room, its port and its participants are made by the REST API.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mixer.media import AudioCodec
from tests.bench.voices import PAYLOAD_TYPE
from tests.ports import free_port
from tests.processes import end

PLUGINS: Final = "/usr/lib/x86_64-linux-gnu/janus"
RTP_PORTS: Final = "20000-29999"
START_TIMEOUT_S: Final = 15.0
ROOM: Final = 1234
# G.711 is mixed at its own rate, the cheapest way that Janus has
SAMPLING_HZ: Final[dict[AudioCodec, int]] = {"opus": 48_000, "PCMU": 8_000}

_CONFIG: Final = """general: {{
    configs_folder = "{folder}"
    plugins_folder = "{plugins}/plugins"
    transports_folder = "{plugins}/transports"
    debug_level = 2
    session_timeout = 0
}}
nat: {{ ice_enforce_list = "lo" }}
plugins: {{ disable = "libjanus_duktape.so,libjanus_echotest.so,libjanus_lua.so,libjanus_nosip.so,\
libjanus_recordplay.so,libjanus_sip.so,libjanus_streaming.so,libjanus_textroom.so,libjanus_videocall.so,\
libjanus_videoroom.so,libjanus_voicemail.so" }}
transports: {{ disable = "libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so,\
libjanus_websockets.so" }}
"""
_HTTP: Final = """general: {{
    base_path = "/janus"
    http = true
    port = {port}
    ip = "127.0.0.1"
    https = false
}}
"""
_BRIDGE: Final = """general: {{
    local_ip = "127.0.0.1"
    rtp_port_range = "{ports}"
}}
"""


def present() -> bool:
    """Whether this machine has it."""
    return shutil.which("janus") is not None and Path(PLUGINS, "plugins/libjanus_audiobridge.so").exists()


@dataclass(slots=True)
class Janus:
    """A running one."""

    url: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def janus(folder: Path) -> Iterator[Janus]:
    """Start it with its configuration in ``folder``; ends with the block. ``RuntimeError`` if it won't start."""
    folder.mkdir(parents=True)
    port = free_port()
    (folder / "janus.jcfg").write_text(_CONFIG.format(folder=folder, plugins=PLUGINS))
    (folder / "janus.transport.http.jcfg").write_text(_HTTP.format(port=port))
    (folder / "janus.plugin.audiobridge.jcfg").write_text(_BRIDGE.format(ports=RTP_PORTS))
    log = folder / "janus.log"
    command = ["janus", f"--config={folder / 'janus.jcfg'}", f"--configs-folder={folder}", "--disable-colors"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=_environment()
        )
    try:
        url = f"http://127.0.0.1:{port}/janus"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Janus does not answer:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)  # another program's socket: nothing to wait on
        yield Janus(url, process)
    finally:
        end(process)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "LANG": "C.UTF-8"}


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/info", timeout=2) as response:
        return bool(response.status == 200)
    return False


class Client:
    """A session of the REST API: makes the room, lets participants in. Blocking."""

    def __init__(self, url: str, codec: AudioCodec) -> None:
        self._url = url
        self._codec = codec
        self._session = self._call(url, {"janus": "create"})["data"]["id"]
        room = {
            "request": "create",
            "room": ROOM,
            "sampling_rate": SAMPLING_HZ[codec],
            "allow_rtp_participants": True,
            "audiolevel_event": False,
        }
        made = self._message(self._handle(), room)
        if made.get("audiobridge") != "created":
            raise RuntimeError(f"Janus made no room: {made}")

    def join(self, port: int) -> tuple[str, int]:
        """A participant whose socket is at ``port`` of the loopback; where it has to send to."""
        body = {
            "request": "join",
            "room": ROOM,
            "codec": self._codec.lower(),
            "rtp": {"ip": "127.0.0.1", "port": port, "payload_type": PAYLOAD_TYPE[self._codec]},
        }
        handle = self._handle()
        self._message(handle, body)
        while True:  # events of the others come in between
            event = self._call(f"{self._url}/{self._session}?maxev=1")
            data = event.get("plugindata", {}).get("data", {})
            if event.get("sender") == handle and "rtp" in data:
                return str(data["rtp"]["ip"]), int(data["rtp"]["port"])
            if "error" in data or event["janus"] == "keepalive":
                raise RuntimeError(f"Janus lets nobody in: {event}")

    def _handle(self) -> int:
        body = {"janus": "attach", "plugin": "janus.plugin.audiobridge"}
        handle: int = self._call(f"{self._url}/{self._session}", body)["data"]["id"]
        return handle

    def _message(self, handle: int, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._call(f"{self._url}/{self._session}/{handle}", {"janus": "message", "body": body})
        data: dict[str, Any] = answer.get("plugindata", {}).get("data", {})
        return data

    def _call(self, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps({**body, "transaction": "bench"}).encode()
        request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=40) as response:
            answer: dict[str, Any] = json.load(response)
        if answer["janus"] == "error":
            raise RuntimeError(f"Janus: {answer['error']}")
        return answer
