"""Claims and reports of workers: the fence between an attempt and the log.

Both take many items per call and answer each on its own. A claim is granted once per attempt; a
report counts only while its attempt is the current one. Sending either twice changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from app.engine.decide import execution_names
from app.engine.events import (
    AttemptFailed,
    AttemptInterrupted,
    AttemptLate,
    CtxUpdated,
    Event,
    ExecutionStarted,
    LoopStarted,
    StepDone,
    StepFailed,
    StepKey,
    StepScheduled,
    StepStarted,
)
from app.engine.playbook import Step
from app.engine.ports import (
    AttemptState,
    Clock,
    Dispatcher,
    Draft,
    DuplicateEventError,
    EventLog,
    LogTransaction,
)
from app.engine.state import Execution
from app.engine.template import Needs
from app.engine.values import Values
from app.errors import BadRequestError, CallboardError, ForbiddenError, UnavailableError
from app.services.catalog import CatalogService
from app.services.large import Storage
from app.services.reading import Reader
from app.wire import (
    Claim,
    ClaimAnswer,
    ClaimRequest,
    ClaimResponse,
    PointerWire,
    Report,
    ReportAnswer,
    ReportRequest,
    ReportResponse,
    Variables,
)

log = structlog.get_logger(__name__)

Place = tuple[int, StepKey]


class Worked(Protocol):
    """What workers ask of the control plane; the HTTP client offers the same."""

    def claim(self, request: ClaimRequest) -> ClaimResponse: ...

    def report(self, request: ReportRequest) -> ReportResponse: ...


@dataclass(frozen=True, slots=True)
class _Granted:
    claim: Claim
    scheduled_seq: int


class Work:
    """The use cases behind ``/api/worker``."""

    def __init__(
        self,
        events: EventLog,
        catalog: CatalogService,
        dispatcher: Dispatcher,
        reader: Reader,
        *,
        storage: Storage,
        clock: Clock,
    ) -> None:
        self._log = events
        self._catalog = catalog
        self._dispatcher = dispatcher
        self._reader = reader
        self._storage = storage
        self._clock = clock

    # ------------------------------------------------------------------ claims
    def claim(self, request: ClaimRequest, *, pool: str | None = None) -> ClaimResponse:
        """Grant or refuse each claim; *pool* is the one the caller's token is limited to."""
        ids = {claim.execution_id for claim in request.claims}
        answers: list[ClaimAnswer | _Granted] = []
        # Losing a claim only means that the step is claimed again.
        with self._log.transaction(ids, durable=False) as tx:
            states = tx.attempts(_places(request.claims))
            ended = tx.ended(ids)
            drafts: dict[int, list[Draft]] = defaultdict(list)
            taken: set[Place] = set()
            for claim in request.claims:
                place = _place(claim)
                reason = _refusal(claim, states[place], ended, pool)
                key = f"claim:{claim.key}"
                if reason is None and (
                    place in taken or states[place].started_key not in {None, key}
                ):
                    reason = "claimed by another worker"
                if reason is not None:
                    answers.append(ClaimAnswer(granted=False, reason=reason))
                    continue
                taken.add(place)
                if states[place].started_key is None:
                    started = StepStarted(*place[1], attempt=claim.attempt, worker=request.worker)
                    drafts[claim.execution_id].append(Draft(started, key))
                answers.append(_Granted(claim, states[place].scheduled_seq))
            for execution_id, new in sorted(drafts.items()):
                tx.append(execution_id, new)
        return self._granted(answers)

    def _granted(self, answers: Sequence[ClaimAnswer | _Granted]) -> ClaimResponse:
        granted = [answer for answer in answers if isinstance(answer, _Granted)]
        places = [
            (answer.claim.execution_id, seq)
            for answer in granted
            for seq in (1, answer.scheduled_seq)
        ]
        heads = self._reader.events(places)
        steps: dict[str, dict[str, Any]] = {}
        result: list[ClaimAnswer] = []
        for answer in answers:
            if isinstance(answer, ClaimAnswer):
                result.append(answer)
                continue
            started = heads[answer.claim.execution_id, 1]
            scheduled = heads[answer.claim.execution_id, answer.scheduled_seq]
            assert isinstance(started, ExecutionStarted)
            assert isinstance(scheduled, StepScheduled)
            step = self._catalog.playbook(started.catalog_id).steps[scheduled.step]
            ref = f"{started.catalog_id}/{step.name}"
            steps[ref] = dict(step.raw)
            variables = self._variables(answer.claim.execution_id, started, scheduled, step)
            result.append(ClaimAnswer(granted=True, step=ref, variables=variables))
        return ClaimResponse(answers=result, steps=steps)

    def _variables(
        self, execution_id: int, started: ExecutionStarted, scheduled: StepScheduled, step: Step
    ) -> Variables:
        """Exactly what the step's templates name, as of when it was scheduled."""
        values = self._values(execution_id, scheduled)
        results: dict[str, Any] = {}
        ctx: dict[str, Any] = {}
        for name, seq in scheduled.reads.items():
            if name.startswith("ctx."):
                ctx[name[4:]] = self._reader.resolved(
                    execution_id, _ctx_value(values.event(seq), name[4:])
                )
            else:
                self._prepare(execution_id, seq, values)
                results[name] = values.result(seq)
        local = execution_names(
            execution_id, Execution(catalog_id=started.catalog_id, path=started.path)
        )
        local["_tries"] = scheduled.tries
        if scheduled.loop_seq is not None:
            local.update(
                self._loop_names(execution_id, values.event(scheduled.loop_seq), scheduled, step)
            )
        return Variables(
            workload=_named(started.workload, step.needs), results=results, ctx=ctx, local=local
        )

    def _values(self, execution_id: int, scheduled: StepScheduled) -> Values:
        seqs = {*scheduled.reads.values(), scheduled.loop_seq or 1}
        found = self._reader.events((execution_id, seq) for seq in seqs)
        return Values({seq: event for (_, seq), event in found.items()})

    def _prepare(self, execution_id: int, seq: int, values: Values) -> None:
        """Fetch what the result at *seq* refers to."""
        event = values.event(seq)
        if isinstance(event, StepDone):
            resolved = self._reader.resolved(execution_id, event.result)
            if resolved is not event.result:
                values.stored[event.result["_ref"]["name"]] = resolved
        elif event.type == "loop.done":
            key = StepKey(event.step, event.visit)  # type: ignore[union-attr]  # a loop.done has both
            values.loops[key] = self._reader.loop_results(execution_id, key.step, key.visit)

    def _loop_names(
        self, execution_id: int, event: Event, scheduled: StepScheduled, step: Step
    ) -> dict[str, Any]:
        assert isinstance(event, LoopStarted)
        assert step.loop is not None
        items = self._reader.resolved(execution_id, event.items)
        return loop_names(
            step.loop.iterator, items[scheduled.iteration], scheduled.iteration, event.size
        )

    # ------------------------------------------------------------------ reports
    def report(self, request: ReportRequest, *, pool: str | None = None) -> ReportResponse:
        """Record how attempts ended and wake the orchestrator; late ones are kept for the audit."""
        ids = {report.execution_id for report in request.reports}
        answers: list[ReportAnswer] = []
        late: list[Report] = []
        woken: set[int] = set()
        with self._log.transaction(ids) as tx:
            states = tx.attempts(_places(request.reports))
            ended = tx.ended(ids)
            drafts: dict[int, list[Draft]] = defaultdict(list)
            done: dict[Place, str] = {}
            for report in request.reports:
                place = _place(report)
                known = states[place].ended_key or done.get(place)
                if known == f"report:{report.key}":
                    answers.append(ReportAnswer(accepted=True, duplicate=True))
                    woken.add(report.execution_id)
                    continue
                reason = _refusal(report, states[place], ended, pool)
                if reason is None and (
                    place in done or states[place].started_by not in {None, request.worker}
                ):
                    reason = "the attempt belongs to another worker"
                if reason is not None:
                    late.append(report)
                    answers.append(ReportAnswer(accepted=False, reason=reason))
                    continue
                done[place] = f"report:{report.key}"
                drafts[report.execution_id].append(
                    Draft(self._event(tx, report, request.worker), done[place])
                )
                answers.append(ReportAnswer(accepted=True))
            for execution_id, new in sorted(drafts.items()):
                tx.append(execution_id, new)
                woken.add(execution_id)
        self._wake(woken)
        self._keep_late(late, request.worker)
        return ReportResponse(answers=answers)

    def _event(self, tx: LogTransaction, report: Report, worker: str) -> Event:
        place = {"attempt": report.attempt, "worker": worker}
        key = _place(report)[1]
        if report.outcome == "interrupted":
            return AttemptInterrupted(*key, **place)  # type: ignore[arg-type]  # an int and a text, in order
        if report.outcome == "done":
            done = StepDone(
                *key,
                report.attempt,
                report.result,
                report.ctx,
                report.tail,
                worker,
                report.duration_ms,
            )
            try:
                return self._storage.lighten(tx, report.execution_id, done)
            except BadRequestError as exc:
                error = {"kind": "schema", "message": str(exc), "retryable": False}
                return StepFailed(
                    *key, report.attempt, error, None, report.tail, worker, report.duration_ms
                )
        error = report.error or {
            "kind": "unknown",
            "message": "the worker gave no reason",
            "retryable": False,
        }
        if report.retry_in is not None:
            at = self._clock() + report.retry_in
            return AttemptFailed(*key, report.attempt, error, at, worker, report.duration_ms)
        return StepFailed(
            *key, report.attempt, error, report.ctx, report.tail, worker, report.duration_ms
        )

    def _wake(self, ids: set[int]) -> None:
        try:
            self._dispatcher.wake(ids)
        except UnavailableError as exc:
            # The log is the outbox: the sweeper wakes them when the broker is back.
            log.warning("wake.failed", executions=len(ids), error=str(exc))

    def _keep_late(self, late: Sequence[Report], worker: str) -> None:
        for report in late:
            event = AttemptLate(
                *_place(report)[1], attempt=report.attempt, worker=worker, outcome=report.outcome
            )
            try:
                with self._log.transaction([report.execution_id]) as tx:
                    if tx.last_seq(report.execution_id):
                        tx.append(report.execution_id, [Draft(event, f"late:{report.key}")])
            except DuplicateEventError:
                continue  # the same late report, sent again
            except CallboardError as exc:
                log.warning(
                    "late.not_kept",
                    execution_id=report.execution_id,
                    step=report.step,
                    error=str(exc),
                )


def loop_names(iterator: str, item: Any, index: int, size: int) -> dict[str, Any]:
    """The names that exist only inside a loop."""
    position = {"_index": index, "_total": size, "_first": index == 0, "_last": index == size - 1}
    loop = {
        "index": index,
        "first": index == 0,
        "last": index == size - 1,
        "length": size,
        "done": False,
    }
    return {
        "iter": {iterator: item, **position},
        iterator: item,
        **position,
        "loop_index": index,
        "loop": loop,
    }


def _place(pointer: PointerWire) -> Place:
    return pointer.execution_id, StepKey(pointer.step, pointer.visit, pointer.iteration)


def _places(pointers: Sequence[PointerWire]) -> list[Place]:
    return list(dict.fromkeys(_place(pointer) for pointer in pointers))


def _refusal(
    pointer: PointerWire, state: AttemptState, ended: Mapping[int, str], pool: str | None
) -> str | None:
    """Why this attempt may not go on; None where it may."""
    if state.attempt == 0:
        return "never scheduled"
    if pool is not None and not state.queue.startswith(f"{pool}."):
        raise ForbiddenError(
            f"this token is for the pool {pool!r}", remedy="use the token of the step's pool"
        )
    if pointer.execution_id in ended:
        return f"the execution has ended ({ended[pointer.execution_id]})"
    if state.ended is not None:
        return f"the step has ended ({state.ended})"
    if state.attempt != pointer.attempt or state.fenced:
        return f"attempt {pointer.attempt} was given up"
    return None


def _ctx_value(event: Event, name: str) -> Any:
    if isinstance(event, CtxUpdated):
        return event.values[name]
    assert isinstance(event, StepDone | StepFailed)
    return (event.ctx or {})[name]


def _named(workload: Mapping[str, Any], needs: Needs) -> dict[str, Any]:
    if needs.everything:
        return dict(workload)
    return {
        name: value
        for name, value in workload.items()
        if name in needs.names or name in needs.workload
    }
