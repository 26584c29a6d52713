"""Executions: start, look at, list, cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from app import failpoints
from app.engine.ahead import Ahead, NotAsAssumedError
from app.engine.decide import last_step
from app.engine.entry import Entry
from app.engine.events import ExecutionStarted, StepDone
from app.engine.ports import (
    CatalogEntry,
    Clock,
    Dispatcher,
    Draft,
    DuplicateEventError,
    EventLog,
    ExecutionFilter,
    ExecutionSummary,
    NewId,
)
from app.engine.state import NEW, Execution, replay
from app.engine.values import Values
from app.errors import ConflictError, NotFoundError, UnavailableError
from app.services.cache import Lru
from app.services.catalog import CatalogService
from app.services.durable import durable
from app.services.eager import MOST_READ, Eager, NotDecidedError, Room
from app.services.family import Family
from app.services.opening import opening
from app.services.reading import Reader

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """A new execution and the playbook version it is pinned to."""

    execution_id: int
    entry: CatalogEntry


@dataclass(frozen=True, slots=True)
class StepView:
    """One step as people see it. ``status`` adds ``pending`` for steps never reached.

    ``total``, ``ended`` and ``failed`` are counts of loop iterations, 0 elsewhere.
    """

    name: str
    status: str
    visit: int = 0
    total: int = 0
    ended: int = 0
    failed: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class StatusView:
    """The fold of an execution, for people: ``state`` is at event ``version``."""

    summary: ExecutionSummary
    state: Execution
    steps: Sequence[StepView]
    final_step: str | None


class Executions:
    """The use cases behind ``/api/execute`` and ``/api/executions``."""

    def __init__(
        self,
        events: EventLog,
        catalog: CatalogService,
        dispatcher: Dispatcher,
        reader: Reader,
        family: Family,
        *,
        eager: Eager,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._log = events
        self._catalog = catalog
        self._dispatcher = dispatcher
        self._reader = reader
        self._family = family
        self._eager = eager
        self._clock = clock
        self._new_id = new_id
        self._folded: Lru[int, Execution] = Lru(512)

    # ------------------------------------------------------------------ start
    def start(
        self,
        path: str | None = None,
        *,
        catalog_id: int | None = None,
        version: int | None = None,
        payload: Mapping[str, Any] | None = None,
        parent_execution_id: int | None = None,
        execution_id: int | None = None,
        key: str | None = None,
    ) -> Started:
        """Accept a run: it is in the log when this returns, and somebody is told.

        *payload* overrides top-level workload keys. With *execution_id* or *key* given, starting
        twice is starting once. Raises ``NotFoundError``, ``InvalidPlaybookError``,
        ``UnavailableError``; ``ConflictError`` where *key* started another playbook.
        """
        start_key = None if key is None else f"start:{key}"
        known = self._started_under(start_key, path, catalog_id)
        if known is not None:
            return known
        entry = self._catalog.entry(path, version=version, catalog_id=catalog_id)
        playbook = self._catalog.playbook(entry.catalog_id)
        new_id = execution_id or self._new_id()
        started = opening(
            new_id,
            entry,
            playbook,
            payload,
            now=self._clock(),
            parent_execution_id=parent_execution_id,
        )
        try:
            self.accept(new_id, started, key=start_key)
        except DuplicateEventError as exc:
            # Two calls under one key at the same time: this one lost, and answers as the other.
            known = self._started_under(start_key, path, catalog_id) if exc.key == "U9" else None
            if known is not None:
                return known
            if execution_id is None:
                raise
            self._wake(new_id)
        return Started(new_id, entry)

    def accept(
        self, execution_id: int, started: ExecutionStarted, *, key: str | None = None
    ) -> None:
        """Begin the log of an execution, and tell the orchestrator. *key* can begin one only.

        Raises ``NotFoundError`` where it is a retry of one that was pruned meanwhile, or where its
        parent was there when this was called and is not any more.
        """
        before = [started.retry_of] if started.retry_of else []
        parent = started.parent_execution_id
        if parent is not None and self._log.summary(parent) is not None:
            before.append(parent)
        draft = Draft(started, key)
        room = self._eager.starting(execution_id, started, is_alone=not before)
        try:
            self._begin(execution_id, draft, before, room)
        except (NotDecidedError, NotAsAssumedError):
            room = room.closed()
            self._begin(execution_id, draft, before, room)
        if started.deadline is not None:
            # First: what ends at once has it dropped again.
            self._wake(execution_id, delay=started.deadline - self._clock())
        if not self._eager.conclude(room):
            self._wake(execution_id)

    def _begin(self, execution_id: int, started: Draft, before: Sequence[int], room: Room) -> None:
        # With the locks of those before: from its commit on, they are not pruned.
        ahead = Ahead(room.ahead, most=MOST_READ + 1)
        if room.foreseen is not None:
            ahead = Ahead(assumed=room.foreseen.standings)
        with self._log.transaction([execution_id, *before], ahead=ahead) as tx:
            for each in before:
                if not tx.last_seq(each):
                    raise NotFoundError(f"there is no execution {each} any more")
            self._eager.look(tx, room)
            entries = tx.append(execution_id, [started])
            self._eager.begin(tx, room, execution_id, entries)
            failpoints.before("start.commit")
        failpoints.after("start.commit")

    def _started_under(
        self, key: str | None, path: str | None, catalog_id: int | None
    ) -> Started | None:
        """What an earlier call under *key* started. Raises ``ConflictError`` where that is no such run."""
        summary = None if key is None else self._log.started_under(key)
        if summary is None:
            return None
        asked = catalog_id or path
        if asked not in {summary.catalog_id, summary.path}:
            raise ConflictError(
                f"this Idempotency-Key started execution {summary.execution_id} of {summary.path}",
                remedy="use one key for one start",
            )
        self._wake(summary.execution_id)
        return Started(summary.execution_id, self._catalog.entry(catalog_id=summary.catalog_id))

    def _wake(self, execution_id: int, *, delay: float = 0.0) -> None:
        try:
            failpoints.before("start.wake")
            self._dispatcher.wake([execution_id], delay=delay)
            failpoints.after("start.wake")
        except UnavailableError as exc:
            # The log is the outbox: the sweeper wakes it when the broker is back.
            log.warning("wake.failed", execution_id=execution_id, error=str(exc))

    # ------------------------------------------------------------------ look
    def get(self, execution_id: int) -> ExecutionSummary:
        """One row of the list. Raises ``NotFoundError``."""
        summary = self._log.summary(execution_id)
        if summary is None:
            raise NotFoundError(
                f"there is no execution {execution_id}", remedy="see 'callboard executions'"
            )
        return summary

    def find(self, query: ExecutionFilter) -> list[ExecutionSummary]:
        return self._log.executions(query)

    def count_by_status(self) -> dict[str, int]:
        return self._log.count_by_status()

    def events(
        self,
        execution_id: int,
        *,
        after: int = 0,
        limit: int | None = None,
        types: Sequence[str] | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        """Events of the log with seq > *after*; see ``EventLog.read``."""
        return self._log.read(
            execution_id, after=after, limit=limit, types=types, newest_first=newest_first
        )

    def count_events(self, execution_id: int) -> int:
        return self._log.count(execution_id)

    def state(self, execution_id: int) -> Execution:
        """The fold of the log as of now; only what is new since the last call is read."""
        known = self._folded.get(execution_id) or NEW
        entries = self._log.read(execution_id, after=known.version)
        self._folded.put(execution_id, replay(durable(entries), known))
        return replay(entries, known)

    def status(self, execution_id: int) -> StatusView:
        """Where the execution stands, step by step. Raises ``NotFoundError``."""
        summary = self.get(execution_id)
        state = self.state(execution_id)
        playbook = self._catalog.playbook(summary.catalog_id)
        names = [*playbook.steps, *(name for name in state.steps if name not in playbook.steps)]
        steps = [_step_view(name, state) for name in names]
        final = last_step(state)
        return StatusView(summary, state, steps, final)

    def result(self, execution_id: int, step: str | None = None) -> Any:
        """The result of *step*, by default of the one that ended last. Raises ``NotFoundError``."""
        state = self.state(execution_id)
        name = step or last_step(state)
        if name is None or not state.step(name).result_seq:
            what = f"no result of step {step!r}" if step else "no result yet"
            raise NotFoundError(f"execution {execution_id} has {what} (it is {state.status})")
        return self._reader.result(execution_id, state.step(name).result_seq)

    def variables(self, execution_id: int) -> dict[str, Any]:
        """Workload, results by step and ctx, as templates would see them; large ones as references."""
        state = self.state(execution_id)
        seqs = {
            1,
            *(step.result_seq for step in state.steps.values() if step.result_seq),
            *state.ctx.values(),
        }
        found = self._reader.events((execution_id, seq) for seq in seqs)
        values = Values({seq: event for (_, seq), event in found.items()})
        started = values.event(1)
        assert isinstance(started, ExecutionStarted)
        result: dict[str, Any] = dict(started.workload)
        for name, step in state.steps.items():
            if step.result_seq:
                event = values.event(step.result_seq)
                result[name] = event.result if isinstance(event, StepDone) else _outline(event)
        for name, seq in state.ctx.items():
            event = values.event(seq)
            result[name] = (
                getattr(event, "values", None) or getattr(event, "ctx", None) or {}
            ).get(name)
        return result

    # ------------------------------------------------------------------ cancel
    def cancel(
        self, execution_id: int, *, reason: str | None = None, cascade: bool = True
    ) -> list[int]:
        """End the execution, and with *cascade* its open children; the ids that were cancelled.

        Running tools learn of it with the next heartbeat. Raises ``NotFoundError``, and
        ``ConflictError`` where it has ended already.
        """
        summary = self.get(execution_id)
        if not self._family.cancel_one(execution_id, reason, cascade=cascade):
            raise ConflictError(
                f"execution {execution_id} has ended already ({self.get(execution_id).status})"
            )
        cancelled = [summary.execution_id]
        if cascade:
            cancelled += self._family.cancel_children(execution_id, reason)
        return cancelled


def duration_seconds(summary: ExecutionSummary, now: datetime) -> float:
    """How long the execution ran, or has been running until *now*."""
    return max(0.0, ((summary.ended_at or now) - summary.started_at).total_seconds())


def _step_view(name: str, state: Execution) -> StepView:
    step = state.steps.get(name)
    if step is None:
        return StepView(name, "pending")
    loop = step.loop
    error = str(step.error.get("message", "")) if step.error else None
    counts = (loop.size, loop.ended, loop.failed) if loop else (0, 0, 0)
    return StepView(name, step.status, step.visit, *counts, error)


def _outline(event: Any) -> Any:
    """What stands for the result of a loop or of a failed step where values are not read."""
    if hasattr(event, "total"):
        return {"stats": {"total": event.total, "success": event.success, "failed": event.failed}}
    return {"status": "error", "error": dict(event.error)}
