"""Counters for Prometheus, kept per process in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from app.engine.entry import Entry
from app.engine.events import StepKey
from app.engine.ports import (
    NOTHING,
    Ahead,
    AttemptState,
    Draft,
    EventLog,
    ExecutionFilter,
    ExecutionSummary,
    LogTransaction,
    Overdue,
    Pointer,
)
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

    def appended(self, types: Mapping[str, int]) -> None:
        for type_, count in types.items():
            self._events.labels(type_).inc(count)

    def counting(self, log: EventLog) -> EventLog:
        """*log* with its appends counted here, once they are committed."""
        return CountedLog(log, self)

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


class CountedLog:
    """An ``EventLog`` that hands everything on, and counts the events of committed transactions."""

    def __init__(self, log: EventLog, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics

    @contextmanager
    def transaction(
        self,
        execution_ids: Iterable[int],
        *,
        durable: bool = True,
        ahead: Ahead = NOTHING,
        waits: bool = True,
    ) -> Iterator[LogTransaction]:
        with self._log.transaction(execution_ids, durable=durable, ahead=ahead, waits=waits) as tx:
            counted = _CountedTransaction(tx)
            yield counted
        self._metrics.appended(counted.types)

    def read(
        self,
        execution_id: int,
        *,
        after: int = 0,
        limit: int | None = None,
        types: Sequence[str] | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        return self._log.read(
            execution_id, after=after, limit=limit, types=types, newest_first=newest_first
        )

    def entries(self, seqs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Entry]:
        return self._log.entries(seqs)

    def iterations(self, execution_id: int, step: str, visit: int) -> list[Entry]:
        return self._log.iterations(execution_id, step, visit)

    def done(self, execution_id: int, keys: Iterable[StepKey]) -> dict[StepKey, Entry]:
        return self._log.done(execution_id, keys)

    def values(self, execution_id: int, names: Iterable[str]) -> dict[str, Any]:
        return self._log.values(execution_id, names)

    def count(self, execution_id: int) -> int:
        return self._log.count(execution_id)

    def summary(self, execution_id: int) -> ExecutionSummary | None:
        return self._log.summary(execution_id)

    def started_under(self, key: str) -> ExecutionSummary | None:
        return self._log.started_under(key)

    def executions(self, query: ExecutionFilter) -> list[ExecutionSummary]:
        return self._log.executions(query)

    def count_by_status(self) -> dict[str, int]:
        return self._log.count_by_status()

    def open_executions(self, *, limit: int = 1000, after: int = 0) -> list[int]:
        return self._log.open_executions(limit=limit, after=after)

    def unclaimed(
        self, *, older_than: float, limit: int = 1000, after: int = 0
    ) -> list[tuple[Pointer, str, str]]:
        return self._log.unclaimed(older_than=older_than, limit=limit, after=after)

    def overdue(self, *, older_than: float, limit: int = 1000) -> list[Overdue]:
        return self._log.overdue(older_than=older_than, limit=limit)

    def abandoned(self, *, lease: float, limit: int = 1000) -> list[tuple[Pointer, str]]:
        return self._log.abandoned(lease=lease, limit=limit)

    def untold(self, *, limit: int = 1000) -> list[int]:
        return self._log.untold(limit=limit)

    def orphans(self, *, limit: int = 1000) -> list[int]:
        return self._log.orphans(limit=limit)


class _CountedTransaction:
    def __init__(self, tx: LogTransaction) -> None:
        self._tx = tx
        self.types: dict[str, int] = {}

    @property
    def held(self) -> Container[int]:
        return self._tx.held

    def read(self, execution_id: int, *, after: int = 0) -> list[Entry]:
        return self._tx.read(execution_id, after=after)

    def last_seq(self, execution_id: int) -> int:
        return self._tx.last_seq(execution_id)

    def ended(self, execution_ids: Iterable[int]) -> dict[int, str]:
        return self._tx.ended(execution_ids)

    def paused(self, execution_ids: Iterable[int]) -> frozenset[int]:
        return self._tx.paused(execution_ids)

    def attempts(
        self, keys: Iterable[tuple[int, StepKey]]
    ) -> dict[tuple[int, StepKey], AttemptState]:
        return self._tx.attempts(keys)

    def under(self, execution_id: int, idempotency_key: str) -> Entry | None:
        return self._tx.under(execution_id, idempotency_key)

    def append(self, execution_id: int, drafts: Sequence[Draft]) -> list[Entry]:
        entries = self._tx.append(execution_id, drafts)
        for entry in entries:
            self.types[entry.event.type] = self.types.get(entry.event.type, 0) + 1
        return entries

    def begin(self, execution_id: int) -> None:
        self._tx.begin(execution_id)

    def store_value(self, execution_id: int, name: str, value: Any, *, source_step: str) -> None:
        self._tx.store_value(execution_id, name, value, source_step=source_step)
