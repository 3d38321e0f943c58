"""The whole server with an S3 store: recorded, sent, encrypted, copied, fetched; and refused where it must be."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mixer.probe.run import Plan, opened
from recording.store import read_object
from recording.stores import open_store
from tests.peers.test_recording import fetch_in_ranges, sealed
from tests.serving import Server, serving
from tests.weed import ACCESS_KEY, SECRET_KEY, Weed, new_store, weed_server


def s3_settings(weed: Weed, prefix: str) -> dict[str, str]:
    return {
        "archive.url": f"s3://{weed.bucket}/{prefix}",
        "archive.provider": "seaweedfs",
        "archive.endpoint": weed.endpoint,
        "archive.jurisdiction": "self",
        "archive.access_key": ACCESS_KEY,
        "archive.secret_key": SECRET_KEY,
    }


async def record(server: Server, seconds: float) -> str:
    room = server.room("recorded")
    plan = Plan(url=server.url, room=room, token=server.token, callers=2, viewers=0)
    async with opened(plan) as probe:
        started = await asyncio.to_thread(server.call, "POST", f"/v1/rooms/{room}/recordings", {})
        await probe.measure(seconds)
        await asyncio.to_thread(server.call, "PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"})
    await sealed(server, started["id"])
    return str(started["id"])


async def test_recorded_into_a_bucket_encrypted_and_copied(tmp_path: Path) -> None:
    with weed_server(tmp_path / "weed") as weed:
        settings = {
            **s3_settings(weed, "meetings"),
            "archive.encrypt": "true",
            "archive.second_url": f"file:{tmp_path}/copies",
        }
        with serving(tmp_path / "server", settings) as server:
            for _ in range(300):  # nobody has recorded anything yet
                if "store_probed" in server.log.read_text():
                    break
                await asyncio.sleep(0.2)
            assert "store_probed" in server.log.read_text(), "what the store can do is found out at the start"
            recording = await record(server, 6.0)
            film = await asyncio.to_thread(fetch_in_ranges, server, f"/v1/recordings/{recording}/media")
            assert film[4:8] == b"ftyp"
            verified = await asyncio.to_thread(server.call, "POST", f"/v1/recordings/{recording}/verify")
            assert verified["ok"]
            ready = await asyncio.to_thread(server.call, "GET", "/readyz")
            assert ready == {"status": "ready", "archive": "ok"}
            told = _told_to_the_archiver(tmp_path)
            assert len(told) == 2
            assert not any(SECRET_KEY.encode() in text for text in told)
            assert SECRET_KEY not in server.log.read_text()
            spool = server.data_dir / "spool"
            for _ in range(300):  # the second store has its own pace
                if not (spool / recording).exists():
                    break
                await asyncio.sleep(0.2)
            assert not (spool / recording).exists()
        raw = {info.key: info.size for info in _bucket(weed).list("meetings/")}
        films = [key for key in raw if key.endswith("recording.mp4")]
        assert len(films) == 1
        assert read_object(_bucket(weed), films[0])[:8] == b"MSQCRYP1"
        copies = {info.key for info in open_store(f"file:{tmp_path}/copies").list()}
        assert {key.removeprefix("meetings/") for key in films} <= copies


def _told_to_the_archiver(directory: Path) -> list[bytes]:
    """Command line and environment of its process, which every process of the user can read."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes()
            if b"recording.archiver" in line and str(directory).encode() in line:
                found += [line, (path.parent / "environ").read_bytes()]
    return found


def _bucket(weed: Weed):  # type: ignore[no-untyped-def]
    store = new_store(weed)
    store._prefix = ""
    return store


@pytest.mark.parametrize(
    ("endpoint", "jurisdiction", "reason"),
    [
        ("https://s3.eu-west-3.amazonaws.com", "eu", "belongs to Amazon"),
        ("http://127.0.0.1:8333", "eu", "private address"),
        ("https://192.0.2.300", "eu", "European list"),
    ],
)
def test_refused_at_the_start_with_exit_2(
    endpoint: str, jurisdiction: str, reason: str, tmp_path: Path
) -> None:
    settings = {
        "data_dir": str(tmp_path / "var"), "archive.url": "s3://films", "archive.region": "x",
        "archive.endpoint": endpoint, "archive.jurisdiction": jurisdiction, "archive.access_key": "AK",
        "archive.secret_key": SECRET_KEY, "http.port": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "mixer.cli", "serve"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOSAIQUE_")}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert ended.returncode == 2
    assert endpoint.rpartition("/")[2].partition(":")[0] in ended.stderr
    assert reason in ended.stderr
    assert SECRET_KEY not in ended.stdout + ended.stderr
