"""Relays for tests with real peers: a certificate that a browser can be made to trust, coturn as we configure it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.ports import free_port
from tests.serving import Server, serving

START_S: Final = 60.0
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: an authority of the test's own, and a server's certificate for 127.0.0.1 that it signed."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Relayed:
    """A server with its relay (``embedded``, ``coturn``), and whose certificate to trust."""

    kind: str
    server: Server
    authority: Path


@contextlib.contextmanager
def relayed_server(
    kind: str, directory: Path, made: Certificates, other: Mapping[str, str] | None = None, **more: str
) -> Iterator[Relayed]:
    """``mosaique serve`` with its own relay, or with coturn as we configure it. ``more``: keys of the section;
    ``other``: of others."""
    settings = turn_settings(made, mode=kind, public_host="localhost", **more) | dict(other or {})
    with serving(directory, settings) as server:
        if kind == "embedded":
            yield Relayed(kind, server, made.authority)
        else:
            configuration = turn_config("coturn", directory, settings)
            with coturn(directory, configuration, int(settings["turn.port"])):
                yield Relayed(kind, server, made.authority)


def certificates(directory: Path) -> Certificates:
    """Make them."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key, server_key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority of the tests")])

    def begun(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
        )

    usage = dict.fromkeys(
        (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    authority = (
        begun(issuer, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    server = (
        begun(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), server_key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    made = Certificates(directory / "authority.pem", directory / "server.pem", directory / "server.key")
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made


def turn_settings(made: Certificates | None = None, **more: str) -> dict[str, str]:
    """Settings for ``tests.serving`` of a relay on the loopback, with TLS when there are certificates. ``more``:
    further keys of the section."""
    settings = {
        "turn.enabled": "true",
        "turn.host": "127.0.0.1",
        "turn.port": str(free_port()),
        **{f"turn.{key}": value for key, value in more.items()},
    }
    if made is not None:
        settings["turn.tls_port"] = str(free_port())
        settings |= {"turn.tls_cert": str(made.certificate), "turn.tls_key": str(made.key)}
    return settings


def turn_config(relay: str, directory: Path, settings: Mapping[str, str]) -> Path:
    """What `mosaique turn-config` writes for the server that ``tests.serving`` runs in ``directory``."""
    output = directory / f"{relay}.conf"
    wanted = {"data_dir": str(directory / "var"), "media.host": "127.0.0.1", **settings}
    command = [sys.executable, "-m", "mixer.cli", "turn-config", relay, "-o", str(output)]
    for key, value in wanted.items():
        command += ["--set", f"{key}={value}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOSAIQUE_")}
    environment["PYTHONPATH"] = str(_ROOT)
    subprocess.run(command, cwd=directory, env=environment, check=True, timeout=60)
    return output


@contextlib.contextmanager
def coturn(directory: Path, configuration: Path, port: int) -> Iterator[None]:
    """Debian's coturn with ``configuration``, which says that it listens on ``port``."""
    log = directory / "coturn.log"
    # what is about this machine and not about the policy: no file outside the test's directory
    local = ["--pidfile", str(directory / "coturn.pid"), "--userdb", str(directory / "turndb")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["turnserver", "-c", str(configuration), *local],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_listener(process, port, log)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        if process.poll() is None:
            process.kill()
            process.wait()


def _await_listener(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)  # another program's socket: nothing to wait on
    raise RuntimeError(
        f"coturn does not listen (status {process.poll()}):\n{log.read_text(errors='replace')[-3000:]}"
    )
