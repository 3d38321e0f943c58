"""``/metrics`` for Prometheus, ``/healthz``, ``/readyz``, and the one line a request leaves in the log.

A registry of our own, so that two applications in one process (tests) do not share counters. The rooms' figures
are asked of their workers at each scrape; a worker that does not answer in time is left out of that scrape.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from mixer.errors import MosaiqueError
from mixer.http.auth import ADMIN
from mixer.http.bodies import json_response
from mixer.http.events import EventRoutes
from mixer.http.routing import CALLER, Answer, Route, json_answer
from mixer.http.schemas import WELL
from mixer.registry import Registry
from mixer.relay import Relay
from recording.holdings import Holdings
from recording.report import ArchiverReport, read_report

log = structlog.get_logger(__name__)

SCRAPE_TIMEOUT_S: Final = (
    2.0  # Prometheus gives a target 10 s by default; a healthy worker answers in milliseconds
)
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # asked for every few seconds by machines

Stats = Mapping[str, Any]


class _RoomFigures(Collector):
    """Rooms as they were when the scrape asked for them."""

    def __init__(
        self, registry: Registry, events: EventRoutes, holdings: Holdings, relay: Relay | None
    ) -> None:
        self._registry = registry
        self._events = events
        self._holdings = holdings
        self._relay = relay
        self.damaged = 0
        self.archiver: ArchiverReport | None = None
        self.stats: dict[str, Stats] = {}

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is asked of the rooms when the collector is registered

    def collect(self) -> Iterator[Metric]:
        rooms = self._registry.rooms()
        yield _gauge("mosaique_rooms", "Rooms that exist", [({}, len(rooms))])
        kinds = [
            ({"room": r.name, "kind": kind}, sum(p.kind == kind for p in r.participants.values()))
            for r in rooms
            for kind in ("webrtc", "phone")
        ]
        yield _gauge("mosaique_participants", "People in the room", kinds)
        live = [({"room": r.name}, int(r.recording is not None)) for r in rooms]
        yield _gauge("mosaique_recording", "1 while the room is recorded", live)
        yield _counter(
            "mosaique_worker_restarts", "Room workers that were replaced", [({}, self._registry.restarts)]
        )
        yield _gauge("mosaique_event_streams", "Clients that listen to events", [({}, self._events.streams)])
        yield _counter(
            "mosaique_event_overflows",
            "Event streams closed for lagging",
            [({}, self._registry.hub.overflows)],
        )
        yield from self._archive_figures()
        yield from self._archiver_figures()
        yield from self._worker_figures()
        if self._relay is not None:
            yield from _relay_figures(self._relay)

    def _archiver_figures(self) -> Iterator[Metric]:
        report = self.archiver
        if report is None:
            return
        waiting = [({"store": "first"}, report.waiting - report.waiting_second)]
        up = [({"store": "first"}, float(not report.first))]
        if report.second_where:
            waiting.append(({"store": "second"}, report.waiting_second))
            up.append(({"store": "second"}, float(not report.second)))
        yield _gauge("mosaique_archive_waiting", "Closed recordings that a store has not got yet", waiting)
        yield _gauge("mosaique_archive_store_up", "0 while the last thing a store was asked for failed", up)
        yield _gauge(
            "mosaique_archiver_report_age_seconds",
            "Above 60: the archiver is not there",
            [({}, time.time() - report.written_s)],
        )

    def _archive_figures(self) -> Iterator[Metric]:
        custody = self._holdings.custody
        yield _gauge(
            "mosaique_recordings_damaged",
            "Archived recordings with a file that is not as it was sealed",
            [({}, self.damaged)],
        )
        outcomes = {"passed": custody.checks - custody.failures, "failed": custody.failures}
        yield _counter(
            "mosaique_fixity_checks",
            "Recordings read again and compared, by what was found",
            [({"outcome": outcome}, count) for outcome, count in outcomes.items()],
        )
        if self._holdings.catch_up is None:
            return
        figures = self._holdings.catch_up.figures
        counts = {"copied": figures.copied, "purged": figures.purged, "failed": figures.failed}
        yield _counter(
            "mosaique_second_store_objects",
            "What the second store was lacking, or had too much, by what was done about it",
            [({"outcome": outcome}, count) for outcome, count in counts.items()],
        )
        yield _gauge(
            "mosaique_second_store_differing",
            "Objects that are not of the same size in both stores",
            [({}, figures.differing)],
        )

    def _worker_figures(self) -> Iterator[Metric]:
        ticks: list[tuple[dict[str, str], float]] = []
        depth: list[tuple[dict[str, str], float]] = []
        dropped: list[tuple[dict[str, str], float]] = []
        viewers: list[tuple[dict[str, str], float]] = []
        pressure: list[tuple[dict[str, str], float]] = []
        steps: list[tuple[dict[str, str], float]] = []
        for room, stats in self.stats.items():
            if isinstance(load := stats.get("load"), Mapping):
                pressure.append(({"room": room}, float(load.get("pressure", 0))))
                steps.append(({"room": room}, float(load.get("step", 0))))
            for kind, counts in _mappings(stats.get("ticks")):
                ticks += [
                    ({"room": room, "kind": kind, "outcome": outcome}, counts[outcome])
                    for outcome in ("run", "late", "dropped")
                    if isinstance(counts.get(outcome), (int, float))
                ]
            for queue, counts in _mappings(stats.get("queues")):
                depth.append(({"room": room, "queue": queue}, float(counts.get("depth", 0))))
                dropped.append(({"room": room, "queue": queue}, float(counts.get("dropped", 0))))
            for name, figures in _mappings(stats.get("renditions")):
                viewers.append(({"room": room, "rendition": name}, float(figures.get("viewers", 0))))
        yield _counter("mosaique_ticks", "Ticks of the mixer by outcome", ticks)
        yield _gauge("mosaique_queue_depth", "Items waiting", depth)
        yield _counter("mosaique_queue_dropped", "Items given up because the queue was full", dropped)
        yield _gauge(
            "mosaique_load_pressure",
            "Of the time there is, the share that is used; worst of its causes",
            pressure,
        )
        yield _gauge("mosaique_load_step", "Steps of quality given up for the load, 0 is none", steps)
        yield _gauge("mosaique_viewers", "Viewers of a rendition", viewers)


def _relay_figures(relay: Relay) -> Iterator[Metric]:
    """The embedded relay's, as it told them last; a relay that is down has none but that it is down."""
    yield _gauge("mosaique_relay_up", "1 while the embedded relay runs", [({}, int(relay.is_up))])
    yield _counter("mosaique_relay_restarts", "Relays that were started again", [({}, relay.restarts)])
    figures = relay.figures
    if figures is None:
        return
    yield _gauge("mosaique_relay_allocations", "Allocations that live", [({}, figures.allocations)])
    for name, label, counts, text in (
        ("packets", "direction", figures.packets, "Packets relayed"),
        ("bytes", "direction", figures.bytes, "Bytes relayed"),
        ("drops", "reason", figures.drops, "Packets not relayed"),
        ("refusals", "reason", figures.refusals, "Requests refused"),
    ):
        samples = [({label: key}, float(count)) for key, count in counts.items()]
        yield _counter(f"mosaique_relay_{name}", text, samples)


def _mappings(value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Mapping):
                yield str(key), inner


def _gauge(name: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    return _fill(GaugeMetricFamily(name, text), name, samples)


def _counter(name: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    return _fill(CounterMetricFamily(name, text), name + "_total", samples)


def _fill(family: Metric, name: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    for labels, value in samples:
        family.add_sample(name, labels, value)
    return family


class MetricRoutes:
    """See the module."""

    def __init__(
        self,
        registry: Registry,
        events: EventRoutes,
        holdings: Holdings,
        spool: Path,
        relay: Relay | None = None,
    ) -> None:
        self._registry = registry
        self._holdings = holdings
        self._spool = spool
        self._metrics = CollectorRegistry()
        self._figures = _RoomFigures(registry, events, holdings, relay)
        self._metrics.register(self._figures)
        self._requests = Counter(
            "mosaique_http_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self._metrics,
        )
        self._duration = Histogram(
            "mosaique_http_request_seconds", "Time to the whole answer", ("route",), registry=self._metrics
        )

    def routes(self) -> list[Route]:
        """The table."""
        return [
            Route(
                "GET", "/metrics", self._expose, "Figures for Prometheus", "operation", ADMIN,
                (Answer(200, "Prometheus text format", {"text/plain": None}),),
            ),
            Route(
                "GET", "/healthz", self._alive, "Whether the process answers", "operation", None,
                (json_answer(200, "It does", WELL),),
            ),
            Route(
                "GET", "/readyz", self._ready, "Whether new sessions are taken", "operation", None,
                (json_answer(200, "They are", WELL),), errors=(503,),
            ),
        ]  # fmt: skip

    @web.middleware
    async def measure(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count, time and log a request. The route's pattern stands for the path, whose names would be endless."""
        started = time.perf_counter()
        status = 499  # what nginx writes when the client went away before the answer
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            resource = request.match_info.route.resource
            route = resource.canonical if resource is not None else "(none)"
            seconds = time.perf_counter() - started
            method = request.method if request.method in _METHODS else "(other)"
            self._requests.labels(method, route, str(status)).inc()
            self._duration.labels(route).observe(seconds)
            if route not in _QUIET:
                caller = request.get(CALLER)
                log.info(
                    "http.answered",
                    method=method,
                    path=request.path[:200],
                    status=status,
                    ms=round(seconds * 1000, 1),
                    sub=caller.sub if caller else None,
                )

    async def _expose(self, request: web.Request) -> web.Response:
        names = [room.name for room in self._registry.rooms()]
        answers = await asyncio.gather(*(self._stats(name) for name in names))
        self._figures.stats = {name: stats for name, stats in zip(names, answers, strict=True) if stats}
        self._figures.damaged = await asyncio.to_thread(self._holdings.index.count_damaged)
        self._figures.archiver = await asyncio.to_thread(read_report, self._spool)
        text = generate_latest(self._metrics)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _stats(self, room: str) -> Stats:
        try:
            async with asyncio.timeout(SCRAPE_TIMEOUT_S):
                return await self._registry.stats(room)
        except (MosaiqueError, TimeoutError):
            return {}

    async def _alive(self, request: web.Request) -> web.Response:
        return json_response({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:
        if not self._registry.ready:
            raise web.HTTPServiceUnavailable(
                text="The server takes no new sessions now.", headers={"Retry-After": "10"}
            )
        report = await asyncio.to_thread(read_report, self._spool)
        # Not ready only for new sessions: a store that is down costs none of them anything. Why, the log says.
        archive = "unknown" if report is None else "failing" if report.first or report.second else "ok"
        return json_response({"status": "ready", "archive": archive})


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
