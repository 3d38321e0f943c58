"""The core decides, this does: real sockets for allocations and channels, and what is sent where. Edge."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from turn.allocation import Allocation, Channel, FiveTuple
from turn.core import Answer, Core, Output, ToPeer
from turn.door import Door
from turn.paths import MAX_DATAGRAM, Client, DatagramClient, Frame, PeerPath, Traffic, again
from turn.policy import Peer
from turn.reactor import Reactor
from turn.sockets import RelayPorts, beside, send_whole
from turn.streams import Streams
from turn.table import Change

_VIEW: Final = memoryview(bytearray(MAX_DATAGRAM))


class Server:
    """``ended``: subjects whose last allocation went since this was emptied."""

    def __init__(self, core: Core, ports: RelayPorts, reactor: Reactor) -> None:
        self.core = core
        self.traffic = Traffic()
        self.ended: list[str] = []
        self.streams = Streams(self._stun, self._gone, reactor, self.traffic)
        self._ports = ports
        self._reactor = reactor
        self._datagram_clients: dict[FiveTuple, tuple[DatagramClient, Door]] = {}

    def tick(self, now_s: float) -> None:
        """What time alone brings about."""
        self.core.unix_offset_s = time.time() - time.monotonic()
        self.apply(self.core.expire(now_s))
        self.streams.tick(now_s)

    def apply(self, changes: Iterable[Change]) -> None:
        """Make what the core has decided so."""
        for change in changes:
            self._change(change, None)

    def bytes_relayed(self) -> tuple[int, int]:
        """To peers, to clients; payloads."""
        living = self.core.table.by_tuple.values()
        return (
            self.traffic.bytes_to_peer + sum(allocation.to_peer.spent for allocation in living),
            self.traffic.bytes_to_client + sum(allocation.to_client.spent for allocation in living),
        )

    # what comes in

    def at_door(self, data: bytes, five_tuple: FiveTuple, door: Door) -> None:
        """A datagram that came by no client's own socket."""
        known = self._datagram_clients.get(five_tuple)
        if known is not None:
            known[0].received(data)  # it was under way when the client's socket was made
        elif data[:1] < b"\x40":
            self._perform(self.core.from_client(data, five_tuple, self._reactor.now_s), five_tuple, door)
        else:
            self.traffic.drops["no such channel"] += 1

    def _stun(self, data: bytes, five_tuple: FiveTuple) -> None:
        known = self._datagram_clients.get(five_tuple)
        door = None if known is None else known[1]
        self._perform(self.core.from_client(data, five_tuple, self._reactor.now_s), five_tuple, door)

    def _gone(self, five_tuple: FiveTuple) -> None:
        self.apply(self.core.disconnected(five_tuple))

    def _relay_readable(self, sock: socket.socket, allocation: Allocation) -> None:
        try:
            size, source = sock.recvfrom_into(_VIEW)
        except OSError:
            return
        self._from_peer(bytes(_VIEW[:size]), (source[0], source[1]), allocation)

    def _from_peer(self, data: bytes, source: Peer, allocation: Allocation) -> None:
        frame = self.core.from_peer(data, allocation, source, self._reactor.now_s)
        client = self._client(allocation.five_tuple)
        if frame is not None and client is not None:
            self.traffic.to_client += self._send(client.write, frame)

    # what is done

    def _perform(self, outputs: Iterable[Output], five_tuple: FiveTuple, door: Door | None) -> None:
        for output in outputs:
            if isinstance(output, Answer):
                self._answer(output.data, five_tuple, door)
            elif isinstance(output, ToPeer):
                self._to_peer(output)
            else:
                self._change(output, door)

    def _answer(self, data: bytes, five_tuple: FiveTuple, door: Door | None) -> None:
        client = self._client(five_tuple)
        if client is not None:
            self._send(client.write, data)
        elif door is not None:
            self._send(partial(door.send, five_tuple=five_tuple), data)

    def _to_peer(self, output: ToPeer) -> None:
        sock = self._ports.socket(output.relay.address, output.relay.port)
        if output.dont_fragment:
            sent = self._send(partial(send_whole, sock, target=output.target), output.data)
        else:
            sent = self._send(partial(_send_to, sock, output.target), output.data)
        self.traffic.to_peer += sent

    def _send(self, send: Callable[[Frame], object], data: bytes) -> bool:
        try:
            send(data)
        except OSError as error:
            return again(send, data, error, self.traffic)
        return True

    def _client(self, five_tuple: FiveTuple) -> Client | None:
        if five_tuple.transport == "udp":
            known = self._datagram_clients.get(five_tuple)
            return None if known is None else known[0]
        return self.streams.clients.get(five_tuple)

    # allocations and channels that come and go

    def _change(self, change: Change, door: Door | None) -> None:
        if change.channel is not None:
            act = self._open_channel if change.what == "opened" else self._close_channel
            act(change.channel)
        elif change.what == "opened":
            self._open(change.allocation, door)
        else:
            self._close(change.allocation)

    def _open(self, allocation: Allocation, door: Door | None) -> None:
        five_tuple = allocation.five_tuple
        if door is not None:
            self._open_datagram_client(five_tuple, door)
        elif (stream := self.streams.clients.get(five_tuple)) is not None:
            self.streams.known(stream, known=True)
        for relay in allocation.relays:
            sock = self._ports.socket(relay.address, relay.port)
            self._ports.watch(relay.address, relay.port, partial(self._relay_readable, sock, allocation))

    def _open_datagram_client(self, five_tuple: FiveTuple, door: Door) -> None:
        try:
            sock, waiting = beside(five_tuple.server, five_tuple.client)
        except OSError:  # no descriptor left: through the door then, which costs more a packet
            by_door = partial(door.send, five_tuple=five_tuple)
            client = DatagramClient(None, by_door, five_tuple, self._stun, self._reactor, self.traffic)
            self._datagram_clients[five_tuple] = client, door
            return
        client = DatagramClient(sock, sock.send, five_tuple, self._stun, self._reactor, self.traffic)
        self._datagram_clients[five_tuple] = client, door
        for data, source in waiting:
            self.at_door(data, FiveTuple("udp", (source[0], source[1]), five_tuple.server), door)

    def _close(self, allocation: Allocation) -> None:
        five_tuple = allocation.five_tuple
        self.traffic.bytes_to_peer += allocation.to_peer.spent
        self.traffic.bytes_to_client += allocation.to_client.spent
        if (known := self._datagram_clients.pop(five_tuple, None)) is not None:
            known[0].close()
        elif (stream := self.streams.clients.get(five_tuple)) is not None:
            self.streams.known(stream, known=False)
        if not self.core.table.holds(allocation.subject):
            self.ended.append(allocation.subject)

    def _open_channel(self, channel: Channel) -> None:
        client = self._client(channel.allocation.five_tuple)
        relay = channel.relay
        if client is None:
            return
        try:
            sock, waiting = beside((relay.address, relay.port), channel.target)
        except (
            OSError
        ):  # no descriptor left: by the relayed address' own socket then, which costs more a packet
            shared = self._ports.socket(relay.address, relay.port)
            client.routes[channel.number] = self._path(
                channel, client, None, partial(_send_to, shared, channel.target)
            )
            return
        client.routes[channel.number] = self._path(channel, client, sock, sock.send)
        for data, source in waiting:
            self._from_peer(data, (source[0], source[1]), channel.allocation)

    def _path(
        self, channel: Channel, client: Client, sock: socket.socket | None, send: Callable[[Frame], object]
    ) -> PeerPath:
        return PeerPath(channel, client, sock, send, self._reactor, self.traffic)

    def _close_channel(self, channel: Channel) -> None:
        client = self._client(channel.allocation.five_tuple)
        if client is not None and (path := client.routes.pop(channel.number, None)) is not None:
            path.close()


def _send_to(sock: socket.socket, target: Peer, data: Frame) -> None:
    sock.sendto(data, target)
