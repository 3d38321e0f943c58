"""A real relay: over UDP, TCP and TLS, with everything strangers do to it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.turn.client import UDP, TurnClient, TurnError
from tests.turn.echo import Echo
from tests.turn.forbidden import FORBIDDEN
from tests.turn.running import SECRET, Running, ours
from turn.control import (
    Drain,
    End,
    Ended,
    Listening,
    Metrics,
    Peers,
    Revoke,
    ToRelay,
    parse_word,
    write_word,
)
from turn.message import Attribute, Class, Method, write_message

KINDS = ("udp", "tcp", "tls")


def door(relay: Running, kind: str) -> tuple[str, int]:
    return "127.0.0.1", relay.tls_port if kind == "tls" else relay.port


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1200])
def test_data_goes_and_comes_by_channel_and_by_indication(
    relay: Running, echo: Echo, kind: str, size: int
) -> None:
    data = secrets.token_bytes(size)
    with TurnClient(door(relay, kind), kind=kind) as client:
        client.allocate()
        client.permit(echo.address)
        client.send_indication(echo.address, data, (Attribute.DONT_FRAGMENT, b""))
        assert client.receive_data() == (echo.address, data)
        client.bind(0x4001, echo.address)
        client.send_channel(0x4001, data)
        assert client.receive_data() == (0x4001, data)
        client.send_indication(echo.address, data)
        assert client.receive_data() == (
            0x4001,
            data,
        )  # RFC 8656 section 12.7: by the channel where there is one
        assert client.refresh(600) == 600
        assert client.refresh(0) == 0
        with pytest.raises(TurnError, match="437"):
            client.refresh(0)


def test_padding_of_a_stream_holds_nothing_of_others(relay: Running, echo: Echo) -> None:
    with (
        TurnClient(door(relay, "tcp"), kind="tcp") as client,
        TurnClient(door(relay, "udp"), subject="bob") as other,
    ):
        for each in (client, other):
            each.allocate()
            each.bind(0x4000, echo.address)
        for _ in range(5):
            other.send_channel(0x4000, b"secret!" * 100)
            other.receive()
            client.send_channel(0x4000, b"a")
            assert client.sock.recv(100) == b"\x40\0\0\1a\0\0\0"


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_a_stream_cut_at_every_byte(relay: Running, echo: Echo, kind: str) -> None:
    """Every byte in a segment of its own, then two frames and a half in one."""
    with TurnClient(door(relay, kind), kind=kind) as client:
        client.allocate()
        client.bind(0x4000, echo.address)
        if kind == "tcp":
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole = b"\x40\0\0\5hello\0\0\0" + write_message(Method.BINDING, Class.REQUEST, bytes(12))
        for byte in whole:
            client.sock.sendall(bytes((byte,)))
        frames = {client.receive()[:2] for _ in range(2)}
        assert frames == {b"\x40\0", b"\x01\x01"}
        for cut in range(1, len(whole)):
            client.sock.sendall(whole[:cut])
            client.sock.sendall(whole[cut:])
            assert {client.receive()[:2] for _ in range(2)} == {b"\x40\0", b"\x01\x01"}


def test_ipv6_and_both(relay: Running) -> None:
    peer = Echo("::1")
    thread = threading.Thread(target=peer.run, daemon=True)
    thread.start()
    both = (Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\2\0\0\0")
    for server, attribute in (
        (("::1", relay.port), (Attribute.REQUESTED_ADDRESS_FAMILY, b"\2\0\0\0")),
        (("127.0.0.1", relay.port), both),
    ):
        with TurnClient(server) as client:
            client.allocate(attribute)
            client.bind(0x4000, peer.address)
            client.send_channel(0x4000, b"six")
            assert client.receive_data() == (0x4000, b"six")
    peer.stop()
    thread.join(5)


@pytest.mark.parametrize("kind", KINDS)
def test_forbidden_peers_through_the_wire(relay: Running, kind: str) -> None:
    """Each by CreatePermission, ChannelBind and Send; ::1 and 127.0.0.1 are named exactly here, and so left out."""
    with TurnClient(door(relay, kind), kind=kind) as client:
        client.allocate((Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\2\0\0\0"))
        for address in FORBIDDEN:
            if address in {"127.0.0.1", "::1"}:
                continue
            with pytest.raises(TurnError, match="403"):
                client.permit((address, 443))
            with pytest.raises(TurnError, match="403"):
                client.bind(0x4000, (address, 443))
            client.send_indication((address, 443), b"x")
        client.refresh(600)  # it has read all of them


def test_nothing_of_a_peer_without_permission(relay: Running, echo: Echo) -> None:
    with TurnClient(door(relay, "udp")) as client, socket.socket(type=socket.SOCK_DGRAM) as stranger:
        relayed = client.allocate()
        stranger.sendto(b"let me in", relayed)
        client.permit(echo.address)
        client.bind(0x4000, echo.address)
        client.send_channel(0x4000, b"mine")
        assert client.receive_data() == (0x4000, b"mine")


def test_a_tls_handshake_that_never_ends_is_ended_after_ten_seconds(relay: Running) -> None:
    with (
        socket.create_connection(door(relay, "tls")) as silent,
        socket.create_connection(door(relay, "tls")) as half,
    ):
        half.sendall(b"\x16\x03\x01\x02\x00\x01")
        began = time.monotonic()
        for sock in (silent, half):
            sock.settimeout(60)
            assert sock.recv(1) == b""
        assert 5 < time.monotonic() - began < 50


def test_alpn_and_no_plaintext(relay: Running) -> None:
    with TurnClient(door(relay, "tls"), kind="tls") as client:
        assert client.sock.selected_alpn_protocol() == "stun.turn"
        assert client.sock.version() in {"TLSv1.2", "TLSv1.3"}
    with socket.create_connection(door(relay, "tls")) as plain:
        plain.settimeout(60)
        plain.sendall(write_message(Method.BINDING, Class.REQUEST, bytes(12)))
        with contextlib.suppress(ConnectionResetError):
            assert not plain.recv(100).startswith(b"\x01\x01")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(door(relay, "tls")) as sock, context.wrap_socket(sock) as without:
        without.sendall(write_message(Method.BINDING, Class.REQUEST, bytes(12)))
        assert without.recv(100).startswith(b"\x01\x01")


@pytest.mark.parametrize(
    "data", [b"\x80\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"\0\1\0\3" + bytes(30), b"\0\1\xff\xfc" + bytes(16)]
)
def test_a_stream_that_is_none_is_closed(relay: Running, data: bytes) -> None:
    with socket.create_connection(door(relay, "tcp")) as sock:
        sock.settimeout(60)
        sock.sendall(data)
        assert sock.recv(100) == b""


def test_noise_over_udp_gets_silence_and_changes_nothing(relay: Running, echo: Echo) -> None:
    with TurnClient(door(relay, "udp")) as client, socket.socket(type=socket.SOCK_DGRAM) as noise:
        client.allocate()
        client.bind(0x4000, echo.address)
        noise.connect(door(relay, "udp"))
        noise.settimeout(20)
        wrong_length = [b"\x40\0\0\x09short", b"\x40\0", b"\x40", b"\x40\1\0\0"]
        for data in [
            b"",
            b"\0",
            os.urandom(1500)[:1400],
            b"\0\1\0\0" + bytes(16),
            bytes(2000),
            *wrong_length,
        ]:
            noise.send(b"\x00" + data if data[:1] > b"\x7f" else data)
        for data in wrong_length:
            client.sock.send(data)
        noise.send(write_message(Method.BINDING, Class.REQUEST, b"the only one"))
        answer = noise.recv(100)
        assert (answer[:2], answer[8:20]) == (b"\x01\x01", b"the only one"), "nothing else was answered"
        client.send_channel(0x4000, b"still here")
        assert client.receive_data() == (0x4000, b"still here")


@pytest.mark.parametrize("flood", ["noise", "binding", "allocate", "connections"])
def test_an_allocation_in_use_loses_nothing_in_a_flood(relay: Running, echo: Echo, flood: str) -> None:
    """At another's door, some 20,000 a second; memory stays where it was.

    Not faster: beyond its backlog (``net.core.netdev_max_backlog``) the kernel itself drops what it likes.
    """
    before_mb = relay.pss_mb()
    stop = threading.Event()
    data = {
        "noise": os.urandom(600),
        "binding": write_message(Method.BINDING, Class.REQUEST, bytes(12)),
        "allocate": write_message(Method.ALLOCATE, Class.REQUEST, bytes(12), [UDP]),
    }

    def pour() -> None:
        opened = []
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.connect(door(relay, "udp"))
        while not stop.is_set():
            if flood == "connections":
                try:
                    opened.append(socket.create_connection(door(relay, "tcp"), timeout=1))
                except OSError:
                    continue
                if len(opened) > 200:
                    opened.pop(0).close()
            else:
                for _ in range(20):
                    sock.send(data[flood])
                stop.wait(0.001)
        for each in [sock, *opened]:
            each.close()

    thread = threading.Thread(target=pour, daemon=True)
    with TurnClient(door(relay, "udp")) as client:
        client.allocate()
        client.bind(0x4000, echo.address)
        thread.start()
        try:
            for number in range(400):
                client.send_channel(0x4000, number.to_bytes(4, "big") * 50)  # far below the bandwidth cap
                assert client.receive_data()[1][:4] == number.to_bytes(4, "big")
        finally:
            stop.set()
            thread.join(10)
    assert relay.pss_mb() - before_mb < 8


def test_a_slow_reader_loses_media_and_costs_bounded_memory(relay: Running, echo: Echo) -> None:
    before_mb = relay.pss_mb()
    with (
        TurnClient(door(relay, "tcp"), kind="tcp") as slow,
        TurnClient(door(relay, "udp"), subject="bob") as other,
    ):
        slow.allocate()
        slow.bind(0x4000, echo.address)
        other.allocate()
        other.bind(0x4000, echo.address)
        for number in range(3000):
            slow.send_channel(0x4000, number.to_bytes(2, "big") * 600)
            if number % 10 == 0:
                other.send_channel(0x4000, b"through")
                assert other.receive_data() == (0x4000, b"through")
        assert relay.pss_mb() - before_mb < 8
        slow.sock.settimeout(1)
        seen = []
        with contextlib.suppress(TimeoutError):
            while True:
                seen.append(slow.receive())
        assert all(len(frame) == 1204 and len(set(frame[4:])) <= 2 for frame in seen), "only whole frames"
        assert seen


def test_a_connection_that_closes_lets_its_port_go(relay: Running) -> None:
    client = TurnClient(door(relay, "tcp"), kind="tcp")
    relayed = client.allocate()
    client.sock.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            try:
                sock.bind(relayed)
            except OSError:
                time.sleep(0.05)
                continue
            return
    pytest.fail("the relayed port is still taken")


# as a child


class Child:
    """``python -m turn --config - --control-fd N``, as ``mosaique serve`` starts it."""

    def __init__(self, **settings: object) -> None:
        mine, its = socket.socketpair()
        self.control = mine.makefile("rwb")
        self._socket = mine
        mine.settimeout(20)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "turn", "--config", "-", "--control-fd", str(its.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[its.fileno()],
        )
        its.close()
        body = {"listen": ["127.0.0.1:0"], "secrets": [SECRET], "realm": "child", **settings}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(body).encode())
        self.process.stdin.close()
        listening = self.hear(Listening)
        self.port = next(port for kind, _, port in listening.sockets if kind == "udp")

    def say(self, word: ToRelay) -> None:
        self.control.write(write_word(word))
        self.control.flush()

    def hear(self, kind: type) -> object:
        for line in self.control:
            word = parse_word(line)
            if isinstance(word, kind):
                return word
        raise AssertionError(f"the relay has gone before it said {kind}")

    def settle(self) -> None:
        """What was said before has been obeyed: words are taken in order, and this subject comes and goes."""
        with TurnClient(("127.0.0.1", self.port), subject="settle") as client:
            client.allocate()
            self.say(End(("settle",)))
            assert self.hear(Ended) == Ended("settle")

    def close(self) -> None:
        self.control.close()
        self._socket.close()


def test_a_child_follows_the_rooms_and_ends_with_its_parent(echo: Echo) -> None:
    child = Child()
    with TurnClient(("127.0.0.1", child.port)) as client:
        client.allocate()
        with pytest.raises(TurnError, match="403"):
            client.permit(echo.address)
        child.say(Peers(((echo.address, echo.address),)))
        child.settle()
        client.bind(0x4000, echo.address)
        client.send_channel(0x4000, b"in")
        assert client.receive_data() == (0x4000, b"in")
        with pytest.raises(TurnError, match="403"):
            client.bind(0x4001, (echo.address[0], 9))
        child.say(Peers((), (echo.address,)))
        child.settle()
        client.send_channel(0x4000, b"too late")
        with pytest.raises(TurnError, match="403"):
            client.permit(echo.address)
        child.say(End(("alice",)))
        assert child.hear(Ended) == Ended("alice")
        metrics = child.hear(Metrics)  # told after that word, and so after what it counts
        assert (metrics.allocations, metrics.packets) == (0, {"to_peer": 1, "to_client": 1})
        assert metrics.bytes == {"to_peer": 2, "to_client": 2}
        assert metrics.refusals["peer denied"] == 3
        assert metrics.drops["no such channel"] == 1
        with pytest.raises(TurnError, match="437"):
            client.refresh(600)
    child.close()
    assert child.process.wait(60) == 0


def test_a_child_takes_back_the_credentials_of_who_was_put_out() -> None:
    child = Child()
    at = ("127.0.0.1", child.port)
    with TurnClient(at) as alice, TurnClient(at, subject="bob") as bob:
        alice.allocate()
        bob.allocate()
        child.say(Revoke({"alice": int(alice.username.partition(":")[0])}))
        child.say(End(("alice",)))
        assert child.hear(Ended) == Ended("alice")
        with pytest.raises(TurnError, match="403"):
            alice.allocate()
        bob.refresh(600)
        with TurnClient(at) as again:  # another socket, the same credential
            again.username, again.password = alice.username, alice.password
            with pytest.raises(TurnError, match="403"):
                again.allocate()
        with TurnClient(at, ttl_s=7200) as later:
            later.allocate()
    child.close()
    assert child.process.wait(60) == 0


def test_traffic_for_a_public_address_goes_to_the_local_one(echo: Echo) -> None:
    child = Child()
    public = ("198.51.7.1", 40_000)
    child.say(Peers(((public, echo.address),)))
    child.settle()
    with TurnClient(("127.0.0.1", child.port)) as client:
        client.allocate()
        client.permit(public)
        client.send_indication(public, b"ping")
        assert client.receive_data() == (public, b"ping")
        client.bind(0x4000, public)
        client.send_channel(0x4000, b"pong")
        assert client.receive_data() == (0x4000, b"pong")
    child.close()
    assert child.process.wait(60) == 0


def test_a_drain_waits_for_who_is_in_and_a_second_one_does_not() -> None:
    child = Child()
    with TurnClient(("127.0.0.1", child.port)) as client:
        client.allocate()
        child.say(Drain())
        _await_drain(child.port)
        assert client.refresh(600) > 500
        client.refresh(0)
        assert child.process.wait(60) == 0
    child.close()
    impatient = Child()
    with TurnClient(("127.0.0.1", impatient.port)) as client:
        client.allocate()
        impatient.process.send_signal(signal.SIGTERM)
        _await_drain(impatient.port)
        assert impatient.process.poll() is None
        impatient.process.send_signal(signal.SIGTERM)
        assert impatient.process.wait(60) == 0
    impatient.close()


def _await_drain(port: int) -> None:
    """Newcomers are refused: the signal has been heard, and another one is another one."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with TurnClient(("127.0.0.1", port), subject="late") as late:
            try:
                late.allocate()
            except TurnError:
                return
            late.refresh(0)
    pytest.fail("it does not drain")


# alone


def run(*arguments: str, stdin: str = "") -> tuple[int, str]:
    answer = subprocess.run(
        [sys.executable, "-m", "turn", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return answer.returncode, answer.stderr


def test_bad_starts_say_what_is_wrong(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("north\n")
    good = ("--secret-file", str(secret))
    assert run() == (2, "turn: secret_file: a relay needs a secret to check credentials with\n")
    for arguments, status, says in (
        (("--listen", "localhost", *good), 2, "listen"),
        (("--allow-peer", "10.0.0.0/8", *good), 2, "name each address"),
        (("--listen", "127.0.0.1:0", "--secret-file", str(tmp_path / "none")), 1, "cannot be read"),
        (("--listen", "127.0.0.1:0", "--relay-address", "203.0.113.77", *good), 1, "on relayed 203.0.113.77"),
        (("--tls-listen", "127.0.0.1:0", "--tls-cert", str(secret), "--tls-key", str(secret), *good), 1, "tls_cert"),
        (("--config", "-"), 2, "one JSON object"),
    ):  # fmt: skip
        code, error = run(*arguments)
        assert code == status, (arguments, error)
        assert says in error
        assert error.count("\n") == 1, error
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        code, error = run("--listen", f"127.0.0.1:{taken.getsockname()[1]}", *good)
        assert code == 1
        assert "in use" in error


def test_a_second_relay_at_the_same_port_is_refused(relay: Running, tmp_path: Path) -> None:
    """Though the first one has set SO_REUSEPORT for its clients' sockets."""
    secret = tmp_path / "secret"
    secret.write_text("north\n")
    with TurnClient(door(relay, "udp")) as client:
        client.allocate()
        code, error = run("--listen", f"127.0.0.1:{relay.port}", "--secret-file", str(secret))
    assert code == 1
    assert "in use" in error


def test_secrets_are_read_again_and_metrics_told(tmp_path: Path) -> None:
    port = free_port()
    with ours(tmp_path, "--metrics-port", str(port)) as running:
        (tmp_path / "secret").write_text("south\nwest\n")
        os.kill(running.pid, signal.SIGHUP)
        until = time.monotonic() + 20
        while True:
            try:
                with TurnClient(("127.0.0.1", running.port), secret="west") as client:
                    client.allocate()
                    break
            except TurnError:
                assert time.monotonic() < until
        with TurnClient(("127.0.0.1", running.port)) as client, pytest.raises(TurnError, match="401"):
            client.allocate()
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(60)
            sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            text = b"".join(iter(lambda: sock.recv(65_536), b"")).decode()
        assert text.startswith("HTTP/1.1 200 OK\r\n")
        assert "turn_allocations 1\n" in text
        assert 'turn_refusals_total{reason="wrong credentials"}' in text
    log = (tmp_path / "ours.log").read_text()
    assert all(line.startswith(("turn: udp ", "turn: tcp ", "turn: tls ")) for line in log.splitlines()), log
