"""The keeper: retention by policy, disposal, copies of the audit log, fixity within its period; and PREMIS of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from recording import package
from recording.archive import Recording
from recording.archiver import Archiver
from recording.audit_copy import AUDIT_PREFIX
from recording.errors import StoreError
from recording.holdings import Holdings
from recording.keeper import DAY_S, Keeper, Policy, Stopped, _Pace
from recording.keys import rfc3339
from recording.ledger import ledger_prefix
from recording.local import LocalStore
from recording.premis import NAMESPACE
from recording.rows import RecordingInfo
from recording.store import ObjectInfo
from tests.fakes.memory_store import MemoryStore
from tests.recording.conftest import feed, open_recorder
from tests.recording.media import clip


@dataclass
class Desk:
    """An archive with a clock of its own, and a keeper."""

    folder: Path
    store: LocalStore | MemoryStore
    now_s: float = 1_900_000_000.0
    heard: list[RecordingInfo] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.holdings = Holdings.open(self.folder, self.store, wall=lambda: self.now_s)
        self.stop = threading.Event()

    def keeper(self, **policy: object) -> Keeper:
        held = self.holdings
        return Keeper(
            held.custody, held.audit, held.store, held.index, Policy(**policy),  # type: ignore[arg-type]
            damaged=self.heard.append, wall=lambda: self.now_s, clock=lambda: self.now_s,
        )  # fmt: skip

    def make(self, room: str = "salon") -> str:
        recording: Recording = self.holdings.archive.create(room)
        recorder = open_recorder(recording.directory, clip(3), wall=lambda: self.now_s)
        feed(recorder, clip(3))
        recorder.close(3 * 90_000)
        self.holdings.archive.set_state(recording.id, "sealing")
        assert Archiver(self.folder / "spool", self.store, self.holdings.index).step() == 1
        return recording.id

    def get(self, identifier: str) -> RecordingInfo:
        return self.holdings.archive.get(identifier)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "var", LocalStore(tmp_path / "archive"))


def test_retention_by_room_and_by_policy(desk: Desk) -> None:
    first, council = desk.make(), desk.make("council")
    keeper = desk.keeper(retention_days=10, room_retention_days={"council": 3650})
    keeper.step(desk.stop)
    until = desk.get(first).retention
    assert until is not None
    assert until[:10] == rfc3339(desk.now_s + 10 * DAY_S)[:10]
    assert desk.get(council).retention[:4] == "2040"  # type: ignore[index]
    desk.holdings.custody.retain(first, by="ann", until=None)
    desk.now_s += 61
    keeper.step(desk.stop)
    assert desk.get(first).retention is None, "what a person decided stays"


def test_what_is_over_is_deleted_only_where_that_is_wanted(desk: Desk) -> None:
    over, held, young = desk.make(), desk.make("held"), desk.make("young")
    for identifier in (over, held):
        desk.holdings.custody.retain(identifier, by="ann", until=rfc3339(desk.now_s + DAY_S))
    desk.holdings.custody.hold(held, by="court", reason="case 1")
    desk.now_s += 2 * DAY_S
    desk.keeper(fixity_days=0).step(desk.stop)
    assert desk.get(over).state == "archived"
    desk.keeper(fixity_days=0, delete_expired=True).step(desk.stop)
    assert [desk.get(one).state for one in (over, held, young)] == ["deleted", "archived", "archived"]
    gone = desk.holdings.custody.tombstone(over)
    assert gone.by == "policy"
    assert "its retention ended" in gone.reason
    assert [line.body["act"] for line in desk.holdings.audit.read(recording=over).lines] == ["delete"]


def test_each_is_read_again_within_the_period(desk: Desk) -> None:
    first = desk.make()
    desk.now_s += 3600
    second = desk.make()
    keeper = desk.keeper(fixity_days=90)
    keeper.step(desk.stop)
    assert desk.get(first).checked is None, "the archiver has just read it"
    desk.now_s += 91 * DAY_S
    for _ in range(3):
        keeper.step(desk.stop)
    assert desk.get(first).checked == desk.get(second).checked == rfc3339(desk.now_s)
    assert desk.holdings.custody.checks == 2, "each once"
    assert desk.heard == []


def test_damage_is_told_and_is_in_the_premis_beside_the_package(desk: Desk, tmp_path: Path) -> None:
    identifier = desk.make()
    info = desk.get(identifier)
    (tmp_path / "archive" / info.key / package.MEDIA).write_bytes(b"x")
    desk.now_s += 91 * DAY_S
    desk.keeper().step(desk.stop)
    assert [(one.id, one.damaged) for one in desk.heard] == [(identifier, ("data/recording.mp4",))]
    assert desk.holdings.index.count_damaged() == 1
    (key,) = [item.key for item in desk.store.list(info.key.rstrip("/") + ".premis/")]
    kept = ET.fromstring((tmp_path / "archive" / key).read_bytes())
    outcomes = {
        event.findtext(f"{{{NAMESPACE}}}eventType"): event.findtext(f".//{{{NAMESPACE}}}eventOutcome")
        for event in kept.iter(f"{{{NAMESPACE}}}event")
    }
    assert outcomes == {
        "capture": "success", "message digest calculation": "success", "ingestion": "success",
        "fixity check": "fail",
    }  # fmt: skip
    note = kept.findtext(f".//{{{NAMESPACE}}}eventOutcomeDetailNote")
    assert note == "data/recording.mp4"
    files = [e.text for e in kept.iter(f"{{{NAMESPACE}}}messageDigest")]
    assert len(files) == 9
    line = desk.holdings.audit.read(recording=identifier).lines[0]
    assert (line.body["act"], line.body["detail"]["damaged"]) == ("verify", ["data/recording.mp4"])


def test_a_spoilt_ledger_is_damage_too_and_is_not_read_for_ever(desk: Desk, tmp_path: Path) -> None:
    identifier = desk.make()
    desk.holdings.custody.hold(identifier, by="ann", reason="x")
    (tmp_path / "archive" / ledger_prefix(desk.get(identifier).key) / "00001.json").write_bytes(b"{}")
    desk.now_s += 91 * DAY_S
    keeper = desk.keeper()
    keeper.step(desk.stop)
    keeper.step(desk.stop)
    assert [one.damaged for one in desk.heard] == [(f"{identifier}.ledger/",)]


def test_the_audit_log_is_copied_each_hour(desk: Desk) -> None:
    keeper = desk.keeper(fixity_days=0)
    desk.holdings.audit.add("read", by="ann", role="archivist")
    keeper.step(desk.stop)
    keeper.step(desk.stop)
    assert len(list(desk.store.list(AUDIT_PREFIX))) == 1
    desk.holdings.audit.add("read", by="ann", role="archivist")
    desk.now_s += 3601
    keeper.step(desk.stop)
    assert len(list(desk.store.list(AUDIT_PREFIX))) == 2
    desk.holdings.audit.add("read", by="ann", role="archivist")
    keeper.close()
    assert len(list(desk.store.list(AUDIT_PREFIX))) == 3


def test_a_store_that_is_down_is_waited_for(tmp_path: Path) -> None:
    class Down(LocalStore):
        down = False

        def put(self, key: str, source: Path | bytes) -> ObjectInfo:
            if self.down:
                raise StoreError("503")
            return super().put(key, source)

    store = Down(tmp_path / "archive")
    desk = Desk(tmp_path / "var", store)
    identifier = desk.make()
    keeper = desk.keeper(retention_days=5)
    store.down = True
    keeper.step(desk.stop)
    assert desk.get(identifier).retention is None
    store.down = False
    desk.now_s += 61
    keeper.step(desk.stop)
    assert desk.get(identifier).retention is not None


def test_a_store_with_locks_is_told_to_lock(tmp_path: Path) -> None:
    store = MemoryStore(locks=True)
    desk = Desk(tmp_path / "var", store)
    identifier = desk.make()
    custody = desk.holdings.custody
    custody.hold(identifier, by="ann", reason="case 1")
    key = desk.get(identifier).key
    assert {one for one in store.held if one.startswith(key)} == {
        one for one in store.objects if one.startswith(key)
    }
    custody.release(identifier, by="ann")
    assert store.held == set()
    custody.retain(identifier, by="ann", until=rfc3339(desk.now_s + 9 * DAY_S))
    assert store.retained[key + "recording.json"].timestamp() == desk.now_s + 9 * DAY_S
    assert desk.holdings.index.to_bind() == []


def test_locks_come_later_where_they_could_not_come_at_once(tmp_path: Path) -> None:
    store = MemoryStore(locks=True)
    desk = Desk(tmp_path / "var", store)
    live = desk.holdings.archive.create("live")
    desk.holdings.custody.hold(live.id, by="ann", reason="evidence")
    recorder = open_recorder(live.directory, clip(3))
    feed(recorder, clip(3))
    recorder.close(3 * 90_000)
    desk.holdings.archive.set_state(live.id, "sealing")
    assert Archiver(desk.folder / "spool", store, desk.holdings.index).step() == 1
    assert store.held == set()
    desk.keeper(fixity_days=0).step(desk.stop)
    assert desk.get(live.id).key + "recording.json" in store.held


def test_the_pace_and_the_stop() -> None:
    stop = threading.Event()
    waits: list[float] = []
    stop.wait = lambda timeout=None: waits.append(timeout) or False  # type: ignore[assignment, func-returns-value, return-value]
    pace = _Pace(1000.0, stop, lambda: 0.0)
    pace("a", 500, 2000)
    pace("a", 2000, 2000)
    assert waits == [0.5, 2.0]
    told = threading.Event()
    told.set()
    with pytest.raises(Stopped):
        _Pace(1e9, told, lambda: 0.0)("a", 1, 1)


def test_a_stop_gives_a_check_up(desk: Desk) -> None:
    identifier = desk.make()
    desk.now_s += 91 * DAY_S
    desk.stop.set()
    desk.keeper().step(desk.stop)
    assert desk.get(identifier).checked is None
