"""Search in an index of 100,000 recordings, as the API asks: each kind of query many times, p95 of all and of each."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ulid import ULID

from recording.index import Index
from recording.keys import rfc3339
from recording.package import Description, Seal, SealedFile, Stay
from recording.rows import Query
from tests.bench.figures import Figure

RECORDINGS: Final = 100_000
ROUNDS: Final = 12  # of each kind
TARGET_MS: Final = 100.0  # issue 5
_T0: Final = 1_600_000_000.0
_EVERY_S: Final = 1200.0  # four years of meetings
_FIRST: Final = ("Ann", "Zoë", "Jean-Luc", "Müller", "Björn", "Chloé", "Pierre", "Łukasz", "Sofía", "Émile")
_WORDS: Final = (
    "budget",
    "conseil",
    "séance",
    "planning",
    "rétrospective",
    "accueil",
    "école",
    "voirie",
    "audit",
    "vote",
)


def search(directory: Path) -> list[Figure]:
    """Fill an index, ask it, and tell."""
    index = Index(directory / "search.sqlite")
    _fill(index)
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for kind, query in _queries():
            began = time.perf_counter()
            index.search(query)
            times.setdefault(kind, []).append((time.perf_counter() - began) * 1000)
    index.close()
    worst = max(times, key=lambda kind: _p95(times[kind]))
    everything = [one for kind in times.values() for one in kind]
    return [
        Figure(f"search in {RECORDINGS:,} recordings, p95 of {len(times)} kinds of query", _p95(everything), "ms",
               TARGET_MS, digits=1),
        Figure(f"the slowest kind, p95: {worst}", _p95(times[worst]), "ms", TARGET_MS, digits=1),
    ]  # fmt: skip


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def _fill(index: Index) -> None:
    chance = random.Random(5)
    with index._transaction():  # one: what is measured is reading
        for number in range(RECORDINGS):
            moment = rfc3339(_T0 + number * _EVERY_S)
            identifier = str(ULID.from_timestamp(_T0 + number * _EVERY_S))
            room = f"room-{number % 300}"
            description = Description(
                id=identifier, room=room, key=f"{room}/2020/01/01/{identifier}/", created=moment,
                note=" ".join(chance.sample(_WORDS, 3)) + f" n° {number}",
            )  # fmt: skip
            names = [f"{chance.choice(_FIRST)} {chance.choice(_FIRST)}son{number % 997}" for _ in range(6)]
            index.archived(
                Seal(
                    **description.model_dump(exclude={"tracks"}), complete=True, started=moment, ended=moment,
                    duration_s=3600, size=500_000_000, sha256="0" * 64,
                    participants=tuple(Stay(id=f"p{number}-{n}", name=name, joined=moment, left=moment)
                                       for n, name in enumerate(names)),
                    files=(SealedFile(path="x", size=1, sha256="0" * 64),),
                ),
                "0" * 64,
            )  # fmt: skip


def _queries() -> Iterator[tuple[str, Query]]:
    """Each kind once, with other values each time."""
    at = random.randrange(RECORDINGS)
    day, later = rfc3339(_T0 + at * _EVERY_S), rfc3339(_T0 + at * _EVERY_S + 30 * 86400)
    room = f"room-{at % 300}"
    some = Query(q=random.choice(_WORDS))
    deep = Query()
    yield "all", deep
    yield "room", Query(room=room)
    yield "dates", Query(from_=day, to=later)
    yield "room and dates", Query(room=room, from_=day)
    yield "word in 30 of 100", some
    yield "beginning of a word", Query(q=random.choice(_WORDS)[:2])
    yield "one letter", Query(q=random.choice("abcpz"))
    yield "two words", Query(q="seance bud")
    yield "rare word", Query(q=str(at))
    yield "no such word", Query(q="nowhere")
    yield "participant", Query(participant=f"zoe {random.choice(_FIRST)[:3]}")
    yield "participant, rare", Query(participant=f"son{at % 997}")
    yield "word and room", Query(q="conseil", room=room)
    yield "word and dates long ago", Query(q="conseil", from_=rfc3339(_T0), to=rfc3339(_T0 + 10 * 86400))
    yield "word and state", Query(q="conseil", state="failed")
    yield "word, participant, room, dates", Query(q="vote", participant="ann", room=room, to=later)
    yield "held", Query(only="held")
    yield "word, damaged", Query(q="vote", only="damaged")
