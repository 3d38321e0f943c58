"""Relays under test, ours and coturn, started alike; and what they cost. Linux."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.ports import free_port

SECRET = "north"


@dataclass(frozen=True, slots=True)
class Running:
    """``port``: UDP and TCP; ``tls_port``: TLS; both on 127.0.0.1."""

    name: str
    pid: int
    port: int
    tls_port: int

    def cpu_s(self) -> float:
        """Of all its threads, with the scheduler's nanoseconds rather than ticks of 10 ms."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def pss_mb(self) -> float:
        rows = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return next(int(row.split()[1]) / 1024 for row in rows if row.startswith("Pss:"))


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed one for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


@contextmanager
def ours(directory: Path, *arguments: str) -> Iterator[Running]:
    """``python -m turn`` on 127.0.0.1; on ::1 too where the machine has it."""
    cert_file, key_file = certificate(directory)
    secret_file = directory / "secret"
    secret_file.write_text(SECRET)
    port, tls_port = free_port(), free_port()
    v6 = ["--listen", f"[::1]:{port}", "--relay-address", "::1"] if has_ipv6() else []
    command = [
        *(
            sys.executable,
            "-m",
            "turn",
            "--listen",
            f"127.0.0.1:{port}",
            "--tls-listen",
            f"127.0.0.1:{tls_port}",
        ),
        *("--tls-cert", str(cert_file), "--tls-key", str(key_file), "--secret-file", str(secret_file)),
        *("--relay-address", "127.0.0.1", *v6, *arguments),
    ]
    with _running("mosaique", command, port, tls_port, directory / "ours.log") as running:
        yield running


def has_ipv6() -> bool:
    """By trying: some builds of Python say no and have it."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextmanager
def coturn(directory: Path) -> Iterator[Running]:
    """Debian's, with one relay thread: it is a packet's cost that is compared, and one core."""
    cert_file, key_file = certificate(directory)
    port, tls_port = free_port(), free_port()
    command = [
        *("turnserver", "-n", "--no-cli", "--use-auth-secret", f"--static-auth-secret={SECRET}"),
        *("--realm=mosaique", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--allow-loopback-peers"),
        *(
            f"--listening-port={port}",
            f"--tls-listening-port={tls_port}",
            "--relay-threads=1",
            "--fingerprint",
        ),
        *(f"--cert={cert_file}", f"--pkey={key_file}", "--log-file=stdout", "--simple-log", "--no-dtls"),
        *(f"--userdb={directory / 'turndb'}", f"--pidfile={directory / 'coturn.pid'}"),
    ]
    with _running("coturn", command, port, tls_port, directory / "coturn.log") as running:
        yield running


@contextmanager
def _running(name: str, command: list[str], port: int, tls_port: int, log: Path) -> Iterator[Running]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        _await_port(process, port, log)
        _await_port(process, tls_port, log)
        yield Running(name, process.pid, port, tls_port)
    finally:
        for patience_s in (0.5, 5.0):  # ours drains while there are allocations, until it is told again
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
        process.kill()
        process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text(errors='replace')[-2000:]}")
