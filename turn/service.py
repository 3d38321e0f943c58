"""A relay from its settings to its end: doors, the parent's words, signals, metrics. Edge, and the composition root."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from turn.authentication import Authenticator
from turn.control import (
    MAX_LINE_BYTES,
    BadWord,
    Drain,
    End,
    Ended,
    FromRelay,
    Listening,
    Metrics,
    Peers,
    Revoke,
    Secrets,
    parse_word,
    write_word,
)
from turn.core import Core
from turn.door import Door
from turn.exposition import Exposition
from turn.nonces import Nonces
from turn.policy import PeerPolicy
from turn.reactor import Reactor
from turn.server import Server
from turn.settings import BadSettings, Settings
from turn.sockets import LocalAddresses, RelayPorts, allow_many_descriptors, family, listener
from turn.table import AllocationTable, Bounds

_TELL_S: Final = 1.0
_SAME_PORT_TRIES: Final = 8  # with port 0: UDP and TCP must have the same one


class CannotListen(OSError):
    """A socket that was asked for can't be had; the message says which and why."""


def run(settings: Settings, control: socket.socket | None) -> int:
    """Serve until the parent closes ``control``, a drain is over, or a second signal. 0, or 1 when it can't begin."""
    try:
        service = Service(settings, control)
    except (CannotListen, BadSettings) as error:
        print(f"turn: {error}", file=sys.stderr)
        return 1
    service.serve()
    return 0


class Service:
    """Raises ``CannotListen`` or ``BadSettings`` when it can't begin."""

    def __init__(self, settings: Settings, control: socket.socket | None) -> None:
        allow_many_descriptors()
        self._settings = settings
        self._control = control
        self._rest = b""
        self._unsent = b""  # of a word that went only in part
        self._draining = False
        self._reactor = reactor = Reactor()
        context = _tls_context(settings) if settings.tls_listen else None
        self._context = context
        ports = RelayPorts(reactor)
        _check_relay_addresses(settings, ports)
        self._authenticator = Authenticator(settings.realm, _secrets_of(settings), Nonces())
        table = AllocationTable(_bounds(settings), ports)
        core = Core(table, PeerPolicy(settings.allowed, LocalAddresses()), self._authenticator)
        self._server = Server(core, ports, reactor)
        self.sockets = tuple(self._listen())
        self._exposition: Exposition | None = None
        if settings.metrics_port is not None:
            with _naming("tcp", "127.0.0.1", settings.metrics_port):
                self._exposition = Exposition(settings.metrics_port, self.metrics, reactor)
        self._told_s = 0.0

    def serve(self) -> None:
        """Until the end."""
        self._watch_signals()
        if self._control is not None:
            self._control.setblocking(False)
            self._reactor.add(self._control.fileno(), self._hear)
        self._tell(Listening(self.sockets))
        if self._control is None:
            for kind, address, port in self.sockets:
                print(f"turn: {kind} {f'[{address}]' if ':' in address else address}:{port}", flush=True)
        gc.collect()
        gc.freeze()  # what is here stays: no collection looks at it again
        self._reactor.run(self._tick)

    def metrics(self) -> Metrics:
        """Counters as they are now."""
        server = self._server
        to_peer, to_client = server.bytes_relayed()
        return Metrics(
            allocations=len(server.core.table.by_tuple),
            packets={"to_peer": server.traffic.to_peer, "to_client": server.traffic.to_client},
            bytes={"to_peer": to_peer, "to_client": to_client},
            drops=dict(server.traffic.drops + server.core.drops),
            refusals=dict(server.core.refusals),
        )

    def _tick(self, now_s: float) -> None:
        self._server.tick(now_s)
        for subject in self._server.ended:
            self._tell(Ended(subject))
        self._server.ended.clear()
        if now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            self._tell(self.metrics())
        if self._draining and not self._server.core.table.by_tuple:
            self._reactor.stop()

    # doors

    def _listen(self) -> Iterator[tuple[str, str, int]]:
        for address, port in self._settings.listen:
            door, stream = self._pair(address, port)
            self._server.streams.listen(stream, None)
            yield "udp", door.address, door.port
            yield "tcp", door.address, door.port
        for address, port in self._settings.tls_listen:
            with _naming("tls", address, port):
                stream = listener(address, port)
            self._server.streams.listen(stream, self._context)
            yield "tls", address, stream.getsockname()[1]

    def _pair(self, address: str, port: int) -> tuple[Door, socket.socket]:
        """UDP and TCP at one port."""
        for last in [False] * (_SAME_PORT_TRIES if not port else 0) + [True]:
            with _naming("tcp", address, port):
                stream = listener(address, port)
            try:
                with _naming("udp", address, port):
                    return Door(address, stream.getsockname()[1], self._server.at_door, self._reactor), stream
            except CannotListen:
                stream.close()
                if last:
                    raise
        raise AssertionError("the last try returns or raises")

    # the parent

    def _hear(self) -> None:
        try:
            data = b"" if self._control is None else self._control.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._rest) > MAX_LINE_BYTES:  # the parent is gone, or it is not our parent
            self._reactor.stop()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._obey(line)

    def _obey(self, line: bytes) -> None:
        core, now_s = self._server.core, self._reactor.now_s
        try:
            word = parse_word(line)
        except BadWord as error:
            print(f"turn: {error}", file=sys.stderr)
            return
        match word:
            case Peers(add, remove):
                self._server.apply(core.set_peers(add, remove))
            case End(subjects):
                self._server.apply(core.end(subjects))
            case Revoke(until):
                core.revoke(until, now_s)
            case Secrets(secrets):
                self._authenticator.secrets = secrets
            case Drain():
                self._drain(now_s)
            case _:
                print("turn: that word is the relay's own", file=sys.stderr)

    def _tell(self, word: FromRelay) -> None:
        """A parent that does not read misses words; it does not hold up packets."""
        if self._control is None:
            return
        with contextlib.suppress(OSError):
            self._unsent = self._unsent[self._control.send(self._unsent) :] if self._unsent else b""
            if not self._unsent:
                line = write_word(word)
                self._unsent = line[self._control.send(line) :]

    def _drain(self, now_s: float) -> None:
        if self._draining:
            self._reactor.stop()
        self._draining = True
        self._server.core.drain(now_s)

    # signals

    def _watch_signals(self) -> None:
        """SIGTERM and SIGINT drain, and end at once when they come again; SIGHUP: secrets and certificate anew."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._signals = ours, theirs
        self._reactor.add(ours.fileno(), self._signalled)

    def _signalled(self) -> None:
        try:
            numbers = self._signals[0].recv(64)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGHUP:
                self._read_again()
            else:
                self._drain(self._reactor.now_s)

    def _read_again(self) -> None:
        try:
            if self._settings.secret_file is not None:
                self._authenticator.secrets = _secrets_of(self._settings)
            if self._context is not None:
                _load_certificate(self._context, self._settings)
        except BadSettings as error:
            print(f"turn: {error}; what was there before stays", file=sys.stderr)


@contextlib.contextmanager
def _naming(kind: str, address: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {kind} {address} port {port}: {os.strerror(error.errno or 0)}"
        ) from None


def _check_relay_addresses(settings: Settings, ports: RelayPorts) -> None:
    """Said now, not as a 508 to the first client."""
    for address in settings.relay_addresses:
        with _naming("relayed", address, 0), socket.socket(family(address), socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        addresses=settings.relay_addresses,
        shown=tuple(
            settings.public_ip
            if settings.public_ip is not None and family(settings.public_ip) == family(address)
            else address
            for address in settings.relay_addresses
        ),
        ports=settings.relay_ports,
        allocations=settings.max_allocations,
        a_user=settings.user_quota,
        bandwidth_bps=settings.bandwidth_bps,
    )


def _secrets_of(settings: Settings) -> tuple[str, ...]:
    if settings.secret_file is None:
        return settings.secrets
    try:
        lines = Path(settings.secret_file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"secret_file: {settings.secret_file} cannot be read ({error})") from None
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise BadSettings(f"secret_file: {settings.secret_file} holds no secret")
    return settings.secrets + found


def _tls_context(settings: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["stun.turn"])  # RFC 7443; a client that names none is welcome, too
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load_certificate(context, settings)
    return context


def _load_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    try:
        context.load_cert_chain(settings.tls_cert or "", settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(f"tls_cert: {settings.tls_cert} with {settings.tls_key}: {error}") from None
