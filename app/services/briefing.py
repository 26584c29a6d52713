"""What a worker is told with a granted claim: the step and exactly the values its templates name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from app.engine.events import (
    CtxUpdated,
    Event,
    ExecutionStarted,
    LoopDone,
    LoopStarted,
    StepDone,
    StepFailed,
    StepScheduled,
)
from app.engine.names import execution_names
from app.engine.playbook import Step
from app.engine.state import Execution
from app.engine.template import Needs
from app.engine.values import REF, Values
from app.errors import UnavailableError
from app.services.catalog import CatalogService
from app.services.reading import Reader
from app.wire import Claim, ClaimAnswer, Variables

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Granted:
    """A claim that was granted, and the seq of the ``step.scheduled`` it is about."""

    claim: Claim
    scheduled_seq: int


class Briefing:
    """Reads what granted claims need, in one go for all of them."""

    def __init__(self, catalog: CatalogService, reader: Reader) -> None:
        self._catalog = catalog
        self._reader = reader

    def answers(
        self, claims: Sequence[ClaimAnswer | Granted]
    ) -> tuple[list[ClaimAnswer], dict[str, dict[str, Any]]]:
        """An answer per claim, in order, and the steps they are about."""
        granted = [claim for claim in claims if isinstance(claim, Granted)]
        heads = self._reader.events(
            (item.claim.execution_id, seq) for item in granted for seq in (1, item.scheduled_seq)
        )
        steps: dict[str, dict[str, Any]] = {}
        answers = [
            self._answer(item, heads, steps) if isinstance(item, Granted) else item
            for item in claims
        ]
        return answers, steps

    def _answer(
        self,
        granted: Granted,
        heads: Mapping[tuple[int, int], Event],
        steps: dict[str, dict[str, Any]],
    ) -> ClaimAnswer:
        """The claims are committed: whatever goes wrong here must end one step, not a batch."""
        try:
            return self._brief(granted, heads, steps)
        except UnavailableError:
            raise  # the same claim is granted again
        except Exception as exc:
            claim = granted.claim
            log.exception("briefing.failed", execution_id=claim.execution_id, step=claim.step)
            return ClaimAnswer(granted=True, reason=f"{type(exc).__name__}: {exc}")

    def _brief(
        self,
        granted: Granted,
        heads: Mapping[tuple[int, int], Event],
        steps: dict[str, dict[str, Any]],
    ) -> ClaimAnswer:
        execution_id = granted.claim.execution_id
        started, scheduled = heads[execution_id, 1], heads[execution_id, granted.scheduled_seq]
        assert isinstance(started, ExecutionStarted)
        assert isinstance(scheduled, StepScheduled)
        step = self._catalog.playbook(started.catalog_id).steps[scheduled.step]
        ref = f"{started.catalog_id}/{step.name}"
        steps[ref] = dict(step.raw)
        variables = self._variables(execution_id, started, scheduled, step)
        return ClaimAnswer(granted=True, step=ref, variables=variables)

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
                values.stored[event.result[REF]["name"]] = resolved
        elif isinstance(event, LoopDone):
            results = self._reader.loop_results(execution_id, event.step, event.visit)
            values.loops[event.key] = results

    def _loop_names(
        self, execution_id: int, event: Event, scheduled: StepScheduled, step: Step
    ) -> dict[str, Any]:
        assert isinstance(event, LoopStarted)
        assert step.loop is not None
        items = self._reader.resolved(execution_id, event.items)
        return loop_names(
            step.loop.iterator, items[scheduled.iteration], scheduled.iteration, event.size
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
