"""`mosaique probe --turn` against Debian's coturn: open as it comes, closed as `mosaique turn-config` has it."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from mixer.cli import main
from mixer.kept_secrets import with_secrets
from mixer.settings import Settings
from tests.peers.relays import Certificates, coturn, turn_config, turn_settings
from tests.ports import free_port

pytestmark = pytest.mark.peer("coturn")
SECRET: Final = "of-the-tests"
AS_IT_COMES: Final = """
listening-ip=127.0.0.1
listening-ip=::1
relay-ip=127.0.0.1
relay-ip=::1
use-auth-secret
static-auth-secret={secret}
realm=tests
no-cli
no-tls
no-dtls
listening-port={port}
"""


@pytest.fixture(scope="module")
def as_it_comes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a coturn with a secret and nothing else."""
    directory, port = tmp_path_factory.mktemp("open"), free_port()
    (directory / "turnserver.conf").write_text(AS_IT_COMES.format(port=port, secret=SECRET))
    with coturn(directory, directory / "turnserver.conf", port):
        yield port


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory, made: Certificates) -> Iterator[dict[str, str]]:
    """The settings of a coturn that runs with what `mosaique turn-config` wrote, and its secret beside them."""
    directory = tmp_path_factory.mktemp("configured")
    settings = turn_settings(made, mode="coturn")
    settings |= {"turn.host": "127.0.0.1,::1", "media.host": "127.0.0.1,::1"}
    configuration = turn_config("coturn", directory, settings)
    assert configuration.stat().st_mode & 0o777 == 0o600, "it holds the secret"
    with coturn(directory, configuration, int(settings["turn.port"])):
        secret = with_secrets(Settings(data_dir=directory / "var")).turn.secrets[0]
        yield {**settings, "secret": secret}


def probed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status, and the only report."""
    status = main(["probe", "--json", *arguments])
    (report,) = json.loads(capsys.readouterr().out)
    return status, report


def test_as_it_comes_it_is_open_and_the_probe_says_where(
    as_it_comes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = probed(capsys, "--turn", f"turn:127.0.0.1:{as_it_comes}", "--secret", SECRET)
    assert status == 1
    assert not report["sound"]
    assert report["forbidden_peers_asked"] >= 40
    reached = {name.split()[1] for name in report["open"]}
    assert {"169.254.169.254", "10.0.0.1", "ff02::1"} <= reached
    mapped = str(ipaddress.ip_address("::ffff:127.0.0.1"))
    assert mapped in reached, "CVE-2026-27624: Debian's coturn reaches its own machine by the mapped address"
    assert "127.0.0.1" not in reached
    assert report["failed"] == []
    (version,) = [f for f in report["findings"] if f["name"] == "version of coturn"]
    assert "before 4.17" in version["detail"]


@pytest.mark.parametrize("way", ["udp", "tcp", "tls"])
def test_as_we_configure_it_it_is_closed(
    configured: dict[str, str], made: Certificates, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    port = configured["turn.tls_port" if way == "tls" else "turn.port"]
    url = f"turns:localhost:{port}" if way == "tls" else f"turn:127.0.0.1:{port}?transport={way}"
    media = ("--allow-peer", "127.0.0.1", "--allow-peer", "::1")
    status, report = probed(
        capsys, "--turn", url, "--secret", configured["secret"], "--ca", str(made.authority), *media
    )
    assert (status, report["open"], report["failed"]) == (0, [], [])
    assert report["forbidden_peers_asked"] >= 40
    assert report["software"] is None, "it does not tell strangers what it is"
    (version,) = [f for f in report["findings"] if f["name"] == "version of coturn"]
    assert "nonces are those of coturn before 4.17" in version["detail"]
    verdicts = {f["name"]: f["verdict"] for f in report["findings"]}
    assert verdicts["Data comes back from it"] == verdicts["ChannelData comes back from it"] == "ok"
    assert verdicts["a bad password is 401"] == verdicts["an expired name is 401"] == "ok"


def test_without_naming_our_media_the_probe_finds_what_it_reaches(
    configured: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = probed(
        capsys, "--turn", f"turn:127.0.0.1:{configured['turn.port']}", "--secret", configured["secret"]
    )
    assert status == 1
    assert {name.split()[1] for name in report["open"]} == {"127.0.0.1", "::1"}


def test_a_user_name_and_password_do_as_well(
    configured: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from turn.credentials import issue

    made_ = issue("somebody", configured["secret"], now_s=time.time(), ttl_s=60)
    monkeypatch.setenv("MOSAIQUE_TURN_PASSWORD", made_.password)
    _, report = probed(
        capsys, "--turn", f"turn:127.0.0.1:{configured['turn.port']}", "--user", made_.username
    )
    verdicts = {f["name"]: f["verdict"] for f in report["findings"]}
    assert verdicts["Allocate"] == "ok"
    assert verdicts["an expired name is 401"] == "skipped"


def test_a_password_that_is_wrong_is_said(
    configured: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = probed(
        capsys, "--turn", f"turn:127.0.0.1:{configured['turn.port']}", "--secret", "not-the-secret"
    )
    assert status == 1
    assert report["failed"] == ["Allocate"]
    (allocate,) = [f for f in report["findings"] if f["name"] == "Allocate"]
    assert allocate["detail"].startswith("error 401")
    assert report["forbidden_peers_asked"] == 0, "nothing more can be asked"


def test_the_certificate_is_checked(configured: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main(
        [
            "probe",
            "--turn",
            f"turns:localhost:{configured['turn.tls_port']}",
            "--secret",
            configured["secret"],
        ]
    )
    assert status == 1
    assert "--ca" in capsys.readouterr().err


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--turn", f"turn:127.0.0.1:{free_port()}", "--secret", "x"]) == 1
    assert "no answer" in capsys.readouterr().err


def test_what_was_written_is_for_its_owner(tmp_path: Path) -> None:
    path = turn_config("eturnal", tmp_path, {"turn.mode": "eturnal"})
    assert path.stat().st_mode & 0o777 == 0o600
