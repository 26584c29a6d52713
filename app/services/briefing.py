"""What a worker is told with a granted claim: the step and exactly the values its templates name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.engine.encoding import loads
from app.engine.entry import UnknownEventError, event_from
from app.engine.events import (
    ChildEnded,
    CtxUpdated,
    Event,
    ExecutionStarted,
    LoopDone,
    LoopStarted,
    StepDone,
    StepFailed,
    StepParked,
    StepScheduled,
)
from app.engine.iteration import loop_names
from app.engine.names import execution_names
from app.engine.playbook import Step
from app.engine.references import REF, Place, is_reference, loop_reference, place_of
from app.engine.state import Execution
from app.engine.templates.analysis import Needs
from app.engine.values import Values, rows_of, stats_of
from app.errors import UnavailableError
from app.services.catalog import CatalogService
from app.services.large import size_of
from app.services.reading import Reader
from app.wire import ClaimAnswer, KeychainPlan, PartRef, PointerWire, Resume, Variables

log = structlog.get_logger(__name__)

#: Bytes that the results of a loop, or one item of a collection, may have in the answer to a claim.
INLINE_BYTES = 65_536
#: The tool whose results say which secret they stand for, instead of what it is.
SECRETS = "secrets"
#: A loop of more iterations is sent by reference without a look at its results.
SMALL_LOOP = 100


@dataclass(frozen=True, slots=True)
class Granted:
    """A claim that was granted, and the seq and payload of the ``step.scheduled`` it is about.

    ``event`` is that one, where it need not be read from the payload, and ``new`` are the events by seq
    that its execution got along with it.
    """

    claim: PointerWire
    seq: int
    payload: Mapping[str, Any] = field(default_factory=dict)
    event: StepScheduled | None = None
    new: Mapping[int, Event] = field(default_factory=dict)

    @property
    def queue(self) -> str:
        """Where it was, or would have been, sent."""
        return self.event.queue if self.event is not None else str(self.payload.get("queue", ""))

    @property
    def scheduled(self) -> StepScheduled:
        """What it is about. Raises ``UnknownEventError``."""
        if self.event is not None:
            return self.event
        claim = self.claim
        columns = {
            "seq": self.seq,
            "step": claim.step,
            "visit": claim.visit,
            "iteration": claim.iteration,
            "attempt": claim.attempt,
        }
        found = event_from(
            StepScheduled.type, columns, self.payload, execution_id=claim.execution_id
        )
        assert isinstance(found, StepScheduled)
        return found


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
        heads = self._reader.events((item.claim.execution_id, 1) for item in granted)
        steps: dict[str, dict[str, Any]] = {}
        answers = [
            self._answer(item, heads, steps) if isinstance(item, Granted) else item
            for item in claims
        ]
        return answers, steps

    def value(self, place: Place, item: int | None = None) -> bytes:
        """What an answer refers to, as JSON. Raises ``MissingValueError``."""
        return self._reader.text(place) if item is None else self._reader.item(place, item)

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
        except UnknownEventError as exc:
            # What it reads was written by a newer version, which may answer the claim, too.
            raise UnavailableError(exc.message, remedy=exc.remedy) from exc
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
        started, scheduled = heads[execution_id, 1], granted.scheduled
        assert isinstance(started, ExecutionStarted)
        playbook = self._catalog.playbook(started.catalog_id)
        step = playbook.steps[scheduled.step]
        ref = f"{started.catalog_id}/{step.name}"
        steps[ref] = dict(step.raw)
        variables = self._variables(granted, started, scheduled, step)
        variables.secrets = {
            name: _secret_tasks(playbook.steps[name])
            for name in variables.results
            if name in playbook.steps and _tells_secrets(playbook.steps[name])
        }
        if "keychain" in step.needs.names and playbook.keychain:
            variables.keychain = KeychainPlan(
                entries=[dict(entry) for entry in playbook.keychain],
                workload=_named(started.workload, playbook.keychain_needs),
            )
        return ClaimAnswer(granted=True, step=ref, variables=variables)

    def _variables(
        self, granted: Granted, started: ExecutionStarted, scheduled: StepScheduled, step: Step
    ) -> Variables:
        """Exactly what the step's templates name, as of when it was scheduled."""
        execution_id, values = granted.claim.execution_id, self._values(granted, scheduled)
        results: dict[str, Any] = {}
        ctx: dict[str, Any] = {}
        for name, seq in scheduled.reads.items():
            if name.startswith("ctx."):
                ctx[name[4:]] = _ctx_value(values.event(seq), name[4:])
            else:
                results[name] = self._result(execution_id, values.event(seq))
        state = Execution(
            catalog_id=started.catalog_id, path=started.path, playbook_version=started.version
        )
        local = execution_names(execution_id, state, {*started.workload, *results, *ctx})
        local["_tries"] = scheduled.tries
        far = None
        if scheduled.loop_seq is not None:
            names, far = self._loop_names(
                execution_id, values.event(scheduled.loop_seq), scheduled, step
            )
            local.update(names)
        return Variables(
            workload=_named(started.workload, step.needs),
            results=results,
            ctx=ctx,
            local=local,
            resume=self._resume(execution_id, scheduled),
            item=far,
        )

    def _resume(self, execution_id: int, scheduled: StepScheduled) -> Resume | None:
        """Where a parked attempt goes on; what is large stays by reference."""
        if scheduled.parked_seq is None:
            return None
        seqs = {scheduled.parked_seq, scheduled.child_seq or scheduled.parked_seq}
        found = self._reader.events((execution_id, seq) for seq in seqs)
        parked = found[execution_id, scheduled.parked_seq]
        assert isinstance(parked, StepParked)
        progress = parked.progress
        if scheduled.child_seq is None:
            return Resume(progress=progress)
        child = found[execution_id, scheduled.child_seq]
        assert isinstance(child, ChildEnded)
        return Resume(progress=progress, child={"result": child.result, "error": child.error})

    def _values(self, granted: Granted, scheduled: StepScheduled) -> Values:
        seqs = {*scheduled.reads.values(), scheduled.loop_seq or 1}
        new = {seq: granted.new[seq] for seq in seqs if seq in granted.new}
        places = ((granted.claim.execution_id, seq) for seq in seqs if seq not in new)
        found = self._reader.events(places)
        return Values({**new, **{seq: event for (_, seq), event in found.items()}})

    def _result(self, execution_id: int, event: Event) -> Any:
        """The result that the end of a step carries; what is large by reference."""
        if isinstance(event, StepDone):
            return event.result
        if not isinstance(event, LoopDone):
            assert isinstance(event, StepFailed)
            return {"status": "error", "error": dict(event.error)}
        stats = stats_of(event)
        results: list[Any] = []
        if 0 < event.total <= SMALL_LOOP:
            results = self._reader.iterations(execution_id, event.step, event.visit)
        if len(results) < event.total or any(is_reference(value) for value in results):
            return loop_reference(execution_id, event.step, event.visit, stats)
        if size_of(results) > INLINE_BYTES:
            return loop_reference(execution_id, event.step, event.visit, stats)
        return {"results": results, "data": results, "stats": stats}

    def _loop_names(
        self, execution_id: int, event: Event, scheduled: StepScheduled, step: Step
    ) -> tuple[dict[str, Any], PartRef | None]:
        """The names of a loop, and where its item is if that is too large to be among them."""
        assert step.loop is not None
        if scheduled.key.is_claim:
            assert isinstance(event, LoopStarted)
            return {"__frame_max_rows": (event.frame or {}).get("max_rows")}, None
        index = scheduled.iteration
        place = index if scheduled.item is None else scheduled.item
        if isinstance(event, StepDone):
            rows = rows_of(self._reader.resolved(execution_id, event.result))
            whole = scheduled.item is None and step.loop.cursor is not None
            return loop_names(step.loop, rows if whole else rows[place], index, len(rows)), None
        assert isinstance(event, LoopStarted)
        if not is_reference(event.items):
            return loop_names(step.loop, event.items[place], index, event.size), None
        text = self._reader.item(place_of(event.items[REF]), place)
        far = len(text) > INLINE_BYTES
        names = loop_names(step.loop, None if far else loads(text), index, event.size)
        return names, PartRef(ref=event.items[REF]["ref"], index=place) if far else None


def _tells_secrets(step: Step) -> bool:
    return any(task.kind == SECRETS for task in step.tasks)


def _secret_tasks(step: Step) -> list[str]:
    """The tasks that look secrets up, where the step's result has a part for each task."""
    return [task.name for task in step.tasks if task.kind == SECRETS and step.sequence]


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
