"""Counters for Prometheus, kept per process in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from app.engine.entry import Entry
from app.errors import CallboardError
from app.wire import ClaimAnswer, Report, ReportAnswer

log = structlog.get_logger(__name__)

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Everything one process counts."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "callboard_http_requests",
            "Requests answered; status 0: the connection broke before an answer",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "callboard_http_request_seconds",
            "Time to answer a request",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._claims = Counter(
            "callboard_claims",
            "Claims of workers: granted or refused",
            ["outcome"],
            registry=self._registry,
        )
        self._reports = Counter(
            "callboard_reports",
            "Reports of workers: done, failed or interrupted; duplicate or refused",
            ["outcome"],
            registry=self._registry,
        )
        self._events = Counter(
            "callboard_events_appended",
            "Events this process appended to the log",
            ["type"],
            registry=self._registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def claimed(self, answers: Sequence[ClaimAnswer]) -> None:
        for answer in answers:
            self._claims.labels("granted" if answer.granted else "refused").inc()

    def reported(self, reports: Sequence[Report], answers: Sequence[ReportAnswer]) -> None:
        for report, answer in zip(reports, answers, strict=True):
            outcome: str = report.outcome
            if answer.duplicate:
                outcome = "duplicate"
            elif not answer.accepted:
                outcome = "refused"
            self._reports.labels(outcome).inc()

    def appended(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._events.labels(entry.event.type).inc()

    def watch_executions(self, count_by_status: Callable[[], Mapping[str, int]]) -> None:
        """Show the number of executions by status, asked for at each scrape."""
        self._registry.register(_Executions(count_by_status))

    def exposition(self) -> bytes:
        """All of it in Prometheus' text form."""
        return generate_latest(self._registry)


class _Executions(Collector):
    def __init__(self, count_by_status: Callable[[], Mapping[str, int]]) -> None:
        self._count = count_by_status

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: registering must not ask the database."""
        return []

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "callboard_executions", "Executions in the log by status", labels=["status"]
        )
        try:
            counts = self._count()
        except CallboardError as exc:
            # The other metrics say what is wrong, so they must stay readable just now.
            log.warning("metrics.executions_unknown", error=str(exc))
            return []
        for status in ("RUNNING", "COMPLETED", "FAILED", "CANCELLED"):
            family.add_metric([status], counts.get(status, 0))
        return [family]
