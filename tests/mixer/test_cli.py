"""The command: what it prints, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mixer.cli import main
from mixer.http.auth import Authenticator
from mixer.version import version

SECRET = "a-secret-of-the-tests-32-bytes-or-more"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration but the test's own."""
    monkeypatch.chdir(tmp_path)


def ends(*argv: str) -> int:
    try:
        return main(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("--version") == 0
    assert capsys.readouterr().out == f"mosaique {version()}\n"


@pytest.mark.parametrize(
    "argv", [[], ["dance"], ["serve", "--loud"], ["token"], ["token", "--room", "a", "--role", "king"]]
)
def test_usage_is_2(argv: list[str]) -> None:
    assert ends(*argv) == 2


@pytest.mark.parametrize("command", ["", "serve", "config", "token", "compose", "probe", "archive"])
def test_help_is_0(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command in {"compose", "probe", "archive"}:
        pytest.importorskip(f"mixer.{command}")
    assert ends(*filter(None, [command, "--help"])) == 0
    assert "usage: mosaique" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        ("compose", "mixer.settings"),
        ("compose", "mixer.compose_timeline"),
        ("compose", "opuslib"),
        ("config", "av"),
    ],
)
def test_a_command_does_not_load_what_only_others_need(command: str, spared: str) -> None:
    code = f"import sys, mixer.cli; mixer.cli.build_parser([{command!r}]); print({spared!r} in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_config_prints_toml_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("config", "--set", "http.port=8099", "--set", f"auth.secret={SECRET}") == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text)["http"]["port"] == 8099
    assert SECRET not in text
    assert not Path("var").exists()


@pytest.mark.parametrize("command", ["config", "serve"])
def test_a_wrong_configuration_is_2_and_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(command, "--set", "http.prot=1") == 2
    assert "http.prot: unknown key" in capsys.readouterr().err
    Path("mine.toml").write_text("[media]\nudp_ports = 7\nhost = 7\n")
    assert ends(command, "--config", "mine.toml") == 2
    assert "media.host" in capsys.readouterr().err


def test_a_token_of_the_command_is_accepted_by_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "token",
        "--room",
        "demo",
        "--role",
        "moderator",
        "--name",
        "Mo",
        "--sub",
        "mo",
        "--set",
        f"auth.secret={SECRET}",
    ]
    assert ends(*argv) == 0
    caller = Authenticator("unused", SECRET).caller(capsys.readouterr().out.strip())
    assert (caller.sub, caller.name, caller.role, caller.room) == ("mo", "Mo", "moderator", "demo")


def test_a_token_is_signed_with_the_kept_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("token", "--room", "*", "--role", "viewer") == 0
    token = capsys.readouterr().out.strip()
    secret = Path("var/token-secret").read_text().strip()
    assert Authenticator("unused", secret).caller(token).room == "*"


@pytest.mark.parametrize(
    "more", [["--ttl", "0"], ["--ttl", "99999999"], ["--sub", "a/b"], ["--room", "No Room"]]
)
def test_no_token_for_what_no_token_carries(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("token", "--room", "demo", "--role", "viewer", *more) == 2
    assert capsys.readouterr().err.startswith("mosaique token: ")


def test_light_commands_load_no_codec() -> None:
    code = (
        "import sys, mixer.cli; mixer.cli.main(['config']); "
        "sys.exit(bool({'av', 'aiortc', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
