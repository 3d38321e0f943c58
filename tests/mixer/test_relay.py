"""The relay as a child of control: told, heard, brought back, and ended. The relay itself is a fake."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mixer import relay
from mixer.errors import ConfigError
from mixer.protocol import MediaSocket
from mixer.relay import RelayProcess
from mixer.relay_book import CREDENTIAL_S, RelayBook
from mixer.relay_config import configuration, free_ports, relay_addresses
from mixer.settings import Settings
from turn.settings import parse_settings

FAKE = Path(__file__).parents[1] / "fakes" / "relay.py"
ONE = MediaSocket(port=40001, addresses=("127.0.0.1",))


def settings(**turn: Any) -> Settings:
    tree = {"host": "127.0.0.1", "port": 0, "secret": "new,old", **turn}
    return Settings.model_validate({"turn": tree, "media": {"host": "127.0.0.1"}})


class Child:
    """A relay process and what it noted."""

    def __init__(self, directory: Path, *more: str) -> None:
        self.path = directory / "notes"
        self.book = RelayBook()
        program = (sys.executable, str(FAKE), str(self.path), *more)
        self.process = RelayProcess(settings(), self.book, program=program)

    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Another process's doing, seen in a file: asked for again and again."""
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0.02)
        pytest.fail(f"it never came: {self.notes()}")

    @property
    def pid(self) -> int:
        assert self.process._process is not None
        return self.process._process.pid

    def command_line(self) -> str:
        return Path(f"/proc/{self.pid}/cmdline").read_text()


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    running = Child(tmp_path)
    running.book.room_opened("early", [ONE])
    await running.process.start()
    yield running
    await running.process.stop(5.0)


async def test_it_is_configured_by_its_standard_input_and_told_what_is_in_force(child: Child) -> None:
    assert child.process.listening == (("udp", "127.0.0.1", 1), ("tls", "127.0.0.1", 2))
    assert child.process.is_up
    await child.until(lambda: len(child.notes()) == 2)
    told, first = child.notes()
    assert told["secrets"] == ["new", "old"]
    assert first == {"word": "peers", "add": [["127.0.0.1", 40001]], "remove": []}
    assert "new" not in child.command_line(), "a secret on a command line is read by everybody"


async def test_words_go_out_and_figures_come_back(child: Child) -> None:
    child.book.room_closed("early")
    child.book.removed("ann", 1000.0)
    await child.until(lambda: len(child.notes()) == 5)
    assert child.notes()[2] == {"word": "peers", "add": [], "remove": [["127.0.0.1", 40001]]}
    assert child.notes()[3] == {"word": "revoke", "until": {"ann": 1000 + CREDENTIAL_S}}
    assert child.notes()[4] == {"word": "end", "subjects": ["ann"]}
    await child.until(lambda: child.process.figures is not None)
    assert child.process.figures is not None
    assert child.process.figures.allocations == 5
    assert child.process.figures.drops == {"no_permission": 3}


async def test_one_that_dies_is_started_again_and_told_all(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "RESTART_S", 0.0)
    child.book.room_opened("late", [ONE.model_copy(update={"port": 40002})])
    before = child.pid
    os.kill(before, signal.SIGKILL)
    await child.until(lambda: child.process.restarts == 1 and child.process.is_up)
    assert child.pid != before
    await child.until(lambda: child.notes()[-1].get("word") == "peers" and "secrets" in child.notes()[-2])
    assert child.notes()[-1]["add"] == [["127.0.0.1", 40001], ["127.0.0.1", 40002]]


async def test_while_it_is_down_nothing_is_lost_and_nobody_waits(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "RESTART_S", 60.0)
    os.kill(child.pid, signal.SIGKILL)
    await child.until(lambda: not child.process.is_up)
    child.book.room_opened("late", [ONE])
    child.book.removed("ann", 1000.0)
    assert child.process.figures is None
    assert child.process.listening, "clients are told of it all the same: it is back in a second"


async def test_it_is_told_to_take_nobody_new_and_ends_with_us(tmp_path: Path) -> None:
    child = Child(tmp_path)
    await child.process.start()
    child.process.drain()
    await child.until(lambda: {"word": "drain"} in child.notes())
    assert child.process.is_up, "whoever is served stays so"
    await child.process.stop(5.0)
    await child.process.stop(5.0)
    assert child.notes()[-1] == {"word": "alone"}
    assert not child.process.is_up


async def test_one_that_ends_because_nobody_is_left_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "RESTART_S", 0.0)
    child = Child(tmp_path)
    await child.process.start()
    child.process.drain()
    os.kill(child.pid, signal.SIGKILL)
    await child.until(lambda: not child.process.is_up)
    keeper = child.process._keeper
    assert keeper is not None
    async with asyncio.timeout(60):
        await keeper
    assert child.process.restarts == 0
    await child.process.stop(1.0)


async def test_one_that_cannot_start_says_whose_keys_it_is(tmp_path: Path) -> None:
    child = Child(tmp_path, "--fail")
    with pytest.raises(ConfigError, match=r"turn\.host, turn\.port.*exit status 3"):
        await child.process.start()
    await child.process.stop(1.0)


# --- ports --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "words"), [(socket.SOCK_DGRAM, "UDP"), (socket.SOCK_STREAM, "TCP")])
def test_a_port_that_is_taken_is_named_with_its_key(kind: socket.SocketKind, words: str) -> None:
    with socket.socket(type=kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"turn\.port: the relay cannot have {words} port {port} on 127"
        ):
            free_ports(settings(port=port))


def test_443_without_a_certificate_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"turn\.tls_443"):
        free_ports(settings(tls_443=True))


def test_443_that_may_not_be_had_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).touch()
    tree = settings(tls_443=True, tls_cert=tmp_path / "cert", tls_key=tmp_path / "key", tls_port=0)
    bind = socket.socket.bind

    def refusing(self: socket.socket, address: tuple[str, int]) -> None:
        if address[1] == 443:
            raise PermissionError(13, "Permission denied")
        bind(self, address)

    monkeypatch.setattr(socket.socket, "bind", refusing)
    assert configuration(free_ports(tree))["tls_listen"] == ["127.0.0.1:0"]


def test_a_name_is_no_address_to_listen_on() -> None:
    with pytest.raises(ConfigError, match=r"turn\.host: takes IP addresses"):
        free_ports(settings(host="relay.example"))


# --- what it is told ----------------------------------------------------------------------------------------


def test_the_relay_understands_its_configuration(tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).touch()
    tree = Settings.model_validate(
        {
            "turn": {
                "host": "127.0.0.1,::1", "secret": "s", "tls_cert": tmp_path / "cert", "tls_key": tmp_path / "key",
                "tls_443": True, "allowed_peers": "11.0.0.0/8,10.1.2.3:99", "relay_ports": "50000-50999",
                "user_quota": 3, "max_allocations": 30, "max_kbps": 800, "realm": "here",
            },
            "media": {"public_ip": "198.51.100.7"},
        }
    )  # fmt: skip
    read = parse_settings(configuration(tree))
    assert read.listen == (("127.0.0.1", 3478), ("::1", 3478))
    assert read.tls_listen == (("127.0.0.1", 5349), ("::1", 5349), ("127.0.0.1", 443), ("::1", 443))
    assert (read.relay_addresses, read.public_ip) == (("127.0.0.1", "::1"), "198.51.100.7")
    assert (read.secrets, read.realm, read.relay_ports) == (("s",), "here", (50000, 50999))
    assert (read.user_quota, read.max_allocations, read.bandwidth_bps) == (3, 30, 800_000)
    assert [str(rule.network) for rule in read.allowed] == ["11.0.0.0/8", "10.1.2.3/32"]


def test_the_defaults_are_understood_too() -> None:
    tree = Settings.model_validate({"turn": {"secret": "s"}})
    read = parse_settings(configuration(tree))
    assert read.listen == (("0.0.0.0", 3478),)
    assert read.tls_listen == ()
    assert "0.0.0.0" not in read.relay_addresses


def test_a_relay_that_listens_everywhere_relays_from_one_address_a_family() -> None:
    tree = Settings.model_validate(
        {"turn": {"host": "0.0.0.0,127.0.0.2,::1"}, "media": {"host": "127.0.0.1"}}
    )
    first, second = relay_addresses(tree)
    assert "." in first
    assert second == "::1"
