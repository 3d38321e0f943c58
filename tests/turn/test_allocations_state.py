"""Any order of requests, expiries, leavings and comings of peers: what must always hold, holds."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.turn.relay import UDP, Relay, bind, code, five_tuple, permit, send_indication
from turn.allocation import CHANNEL_S, LIFETIME_S, PERMISSION_S
from turn.core import ToPeer
from turn.message import Attribute, Method
from turn.table import Change

CLIENTS = st.integers(0, 5)
SUBJECTS = ("alice", "bob")
LIVE = [("192.0.2.10", 5000), ("192.0.2.10", 5001), ("192.0.2.11", 5000), ("2001:db8::7", 5000)]
PEERS = st.sampled_from([*LIVE, ("192.0.2.12", 5000), ("192.0.2.10", 22)])
FLAVOURS = st.sampled_from(
    [
        (),
        ((Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\2\0\0\0"),),
        ((Attribute.REQUESTED_ADDRESS_FAMILY, b"\2\0\0\0"),),
        ((Attribute.EVEN_PORT, b"\x80"),),
    ]
)


class Allocations(RuleBasedStateMachine):
    """``edge`` holds what an edge would, from the changes alone: it must never differ from the table."""

    def __init__(self) -> None:
        super().__init__()
        self.relay = Relay(allowed=(), a_user=3, allocations=5, ports=(50_000, 50_015))
        self.live: set[tuple[str, int]] = set()
        self.edge: dict[object, set[object]] = {}
        self.permitted_at: dict[tuple[int, str], float] = {}
        self.bound_at: dict[tuple[int, int], float] = {}
        ask = self.relay.raw

        def raw(data: bytes, at: object) -> object:
            outputs = ask(data, at)  # type: ignore[arg-type]
            self.follow([output for output in outputs if isinstance(output, Change)])
            return outputs

        self.relay.raw = raw  # type: ignore[method-assign,assignment]

    def follow(self, changes: list[Change]) -> None:
        for change in changes:
            match change.what, change.channel:
                case "opened", None:
                    assert change.allocation not in self.edge
                    self.edge[change.allocation] = set()
                case "closed", None:
                    assert not self.edge.pop(change.allocation), "channels close before their allocation"
                case "opened", channel:
                    self.edge[change.allocation].add(channel)
                case "closed", channel:
                    self.edge[change.allocation].remove(channel)

    def subject(self, client: int) -> str:
        return SUBJECTS[client % 2]

    @rule(client=CLIENTS, flavour=FLAVOURS)
    def allocate(self, client: int, flavour: tuple[tuple[int, bytes], ...]) -> None:
        before = len(self.relay.table.by_tuple)
        answer = self.relay.ask(
            five_tuple(client), Method.ALLOCATE, UDP, *flavour, subject=self.subject(client)
        )
        assert code(answer) in {0, 437, 486, 508}
        assert len(self.relay.table.by_tuple) == before + (code(answer) == 0)

    @rule(client=CLIENTS, lifetime=st.sampled_from([0, 1, 60, 600, 9999]))
    def refresh(self, client: int, lifetime: int) -> None:
        value = (Attribute.LIFETIME, lifetime.to_bytes(4, "big"))
        answer = self.relay.ask(five_tuple(client), Method.REFRESH, value, subject=self.subject(client))
        assert code(answer) in {0, 437}
        if code(answer) == 0 and lifetime:
            granted = int.from_bytes(answer.get(Attribute.LIFETIME) or b"", "big")
            assert granted == min(lifetime, LIFETIME_S)

    @rule(client=CLIENTS, peer=PEERS)
    def permit(self, client: int, peer: tuple[str, int]) -> None:
        answer = self.ask_as(client, permit, peer)
        if code(answer) == 0:  # type: ignore[arg-type]
            assert any(live[0] == peer[0] for live in self.live)
            self.permitted_at[client, peer[0]] = self.relay.now_s

    @rule(client=CLIENTS, peer=PEERS, number=st.integers(0x4000, 0x4003))
    def bind(self, client: int, peer: tuple[str, int], number: int) -> None:
        answer = self.ask_as(client, lambda relay, at, peer: bind(relay, at, number, peer), peer)
        if code(answer) == 0:  # type: ignore[arg-type]
            assert peer in self.live
            self.permitted_at[client, peer[0]] = self.bound_at[client, number] = self.relay.now_s

    def ask_as(self, client: int, request: object, peer: tuple[str, int]) -> object:
        ask = self.relay.ask

        def as_subject(*args: object, **kwargs: object) -> object:
            return ask(*args, subject=self.subject(client), **kwargs)  # type: ignore[arg-type]

        self.relay.ask = as_subject  # type: ignore[method-assign,assignment]
        try:
            return request(self.relay, five_tuple(client), peer)  # type: ignore[operator]
        finally:
            self.relay.ask = ask  # type: ignore[method-assign]

    @rule(client=CLIENTS, peer=PEERS)
    def send(self, client: int, peer: tuple[str, int]) -> None:
        outputs = self.relay.raw(send_indication(peer, b"x"), five_tuple(client))
        if outputs:
            assert isinstance(outputs[0], ToPeer)
            assert peer in self.live
            assert self.relay.now_s - self.permitted_at[client, peer[0]] < PERMISSION_S

    @rule(client=CLIENTS, peer=PEERS)
    def from_peer(self, client: int, peer: tuple[str, int]) -> None:
        allocation = self.relay.table.by_tuple.get(five_tuple(client))
        if allocation and self.relay.core.from_peer(b"x", allocation, peer, self.relay.now_s) is not None:
            assert peer in self.live
            assert self.relay.now_s - self.permitted_at[client, peer[0]] < PERMISSION_S

    @rule(seconds=st.sampled_from([1, 29, 31, 299, 301, 599, 601]))
    def time_passes(self, seconds: int) -> None:
        self.relay.now_s += seconds
        self.follow(self.relay.core.expire(self.relay.now_s))

    @rule(peer=st.sampled_from(LIVE))
    def peer_comes(self, peer: tuple[str, int]) -> None:
        self.live.add(peer)
        self.follow(self.relay.core.set_peers([(peer, peer)], []))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def peer_goes(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(sorted(self.live)))
        self.live.remove(peer)
        self.follow(self.relay.core.set_peers([], [peer]))

    @rule(subject=st.sampled_from(SUBJECTS))
    def leaves(self, subject: str) -> None:
        self.follow(self.relay.core.end([subject]))
        assert not self.relay.table.holds(subject)

    @rule(client=CLIENTS)
    def disconnects(self, client: int) -> None:
        self.follow(self.relay.core.disconnected(five_tuple(client)))

    @invariant()
    def the_edge_knows_all_and_no_more(self) -> None:
        allocations = list(self.relay.table.by_tuple.values())
        assert list(self.edge) == allocations
        for allocation in allocations:
            assert self.edge[allocation] == set(allocation.channels.values())
            assert set(allocation.channel_of.values()) == set(allocation.channels.values())

    @invariant()
    def what_lives_has_time_left(self) -> None:
        for at, allocation in self.relay.table.by_tuple.items():
            assert allocation.expires_s > self.relay.now_s
            for number, channel in allocation.channels.items():
                assert self.relay.now_s - self.bound_at[at.client[1], number] < CHANNEL_S
                assert channel.peer in self.live
                assert channel.permitted == (channel.peer[0] in allocation.permissions)

    @invariant()
    def bounds_hold_and_no_port_leaks(self) -> None:
        table = self.relay.table
        assert len(table.by_tuple) <= 5
        for subject in SUBJECTS:
            assert len(table.of_subject(subject)) <= 3
        held = {(relay.address, relay.port) for each in table.by_tuple.values() for relay in each.relays}
        reserved = {(each.relay.address, each.relay.port) for each in table._reserved.values()}
        assert self.relay.ports.taken == held | reserved


TestAllocations = Allocations.TestCase
TestAllocations.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
