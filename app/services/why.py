"""Why an execution stands where it stands: gathers what log, fleet and broker say, and explains it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.engine import encoding
from app.engine.entry import Entry
from app.engine.events import StepSkipped
from app.engine.output import Selection
from app.engine.playbook import Playbook
from app.engine.ports import Dispatcher, EventLog, ExecutionSummary, RuntimeRegistry
from app.engine.state import Execution
from app.errors import NotFoundError, UnavailableError
from app.services.advance import Advance
from app.services.attempts import TYPES, Attempt, Histories, History
from app.services.catalog import CatalogService
from app.services.executions import Executions
from app.services.fleet import fleet_of
from app.services.output import Output
from app.services.reasons import Case, Reason, Surroundings, reason_of

#: Events read at once.
PAGE = 1_000
#: Units of work (iterations) of a step that are shown, and sub-playbooks looked at.
SHOWN = 20
#: Lines of a step's output that are shown.
LINES = 20
#: Bytes of a task as written that are shown.
WRITTEN = 4_096
#: Seconds after which a decision that is due is late; one takes milliseconds.
LATE = 2.0


@dataclass(frozen=True, slots=True)
class StepWhy:
    """One step. ``histories`` are of what has not ended well; ``error`` is what it failed with.

    ``written`` is the failed task as the playbook has it, ``tail`` the end of what was printed.
    """

    name: str
    status: str
    visit: int
    reason: Reason
    histories: Sequence[History] = ()
    error: Mapping[str, Any] | None = None
    written: Any = None
    tail: str | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """An execution: the reason for all of it first, then step by step."""

    summary: ExecutionSummary
    reason: Reason
    steps: Sequence[StepWhy]


class Whys:
    """The use case behind ``/api/executions/{id}/why``. Reads, and never writes."""

    def __init__(
        self,
        log: EventLog,
        executions: Executions,
        catalog: CatalogService,
        *,
        advance: Advance,
        runtime: RuntimeRegistry,
        dispatcher: Dispatcher,
        output: Output,
        lease: float,
        sweep: float,
    ) -> None:
        self._log = log
        self._executions = executions
        self._catalog = catalog
        self._advance = advance
        self._runtime = runtime
        self._dispatcher = dispatcher
        self._output = output
        self._lease = lease
        self._sweep = sweep

    def why(self, execution_id: int, step: str | None = None) -> Why:
        """Why *step* does not run, or failed; without it, of whatever is not through.

        Raises ``NotFoundError``.
        """
        summary = self._executions.get(execution_id)
        state = self._executions.state(execution_id)
        playbook = self._catalog.playbook(summary.catalog_id)
        _check_step(execution_id, step, playbook)
        open_ones = _worth_telling(state)
        names = list(dict.fromkeys([*open_ones, *([step] if step else [])]))
        histories, skips = self._histories(execution_id)
        around = self._around(state, histories, names)
        told = {
            name: self._of_step(
                execution_id,
                Case(
                    name,
                    playbook,
                    state,
                    around,
                    histories.of(name, state.step(name).visit),
                    skips.get(name),
                ),
                asked=name == step,
            )
            for name in names
        }
        all_open = [told[name] for name in open_ones]
        reason = self._of_all(execution_id, state, summary, around, all_open)
        return Why(summary, reason, [told[step]] if step else all_open)

    # ------------------------------------------------------------------ what there is to know
    def _histories(self, execution_id: int) -> tuple[Histories, dict[str, StepSkipped]]:
        histories, skips = Histories(), {}
        for entry in self._entries(execution_id):
            if isinstance(entry.event, StepSkipped):
                skips[entry.event.step] = entry.event
            else:
                histories.see(entry)
        return histories, skips

    def _entries(self, execution_id: int) -> Iterator[Entry]:
        after = 0
        while True:
            types = (*TYPES, "step.skipped")
            page = self._log.read(execution_id, after=after, limit=PAGE, types=types)
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].seq

    def _around(self, state: Execution, histories: Histories, names: Sequence[str]) -> Surroundings:
        now = self._runtime.now()
        newest = [
            history.last
            for name in names
            for history in histories.of(name, state.step(name).visit)
            if history.last is not None
        ]
        return Surroundings(
            now,
            fleet_of(self._runtime.entries(), now, lease=self._lease),
            waits=self._waits(newest),
            children=self._children(newest),
            repaired_within=2 * self._sweep,
        )

    def _waits(self, attempts: Sequence[Attempt]) -> dict[str, float | None]:
        queues = sorted({one.queue for one in attempts if one.outcome == "scheduled"})
        waits: dict[str, float | None] = {}
        for queue in queues:
            try:
                waits[queue] = self._dispatcher.waited(queue)
            except UnavailableError:
                return waits  # the others would wait as long for nothing
        return waits

    def _children(self, attempts: Sequence[Attempt]) -> dict[int, ExecutionSummary]:
        ids = [one.child for one in attempts if one.outcome == "child" and one.child]
        found = (self._log.summary(child) for child in ids[:SHOWN])
        return {child.execution_id: child for child in found if child is not None}

    # ------------------------------------------------------------------ one step
    def _of_step(self, execution_id: int, case: Case, *, asked: bool) -> StepWhy:
        status = case.step.status if case.name in case.state.steps else "pending"
        failed = next((h.last for h in case.histories if h.last and h.last.error), None)
        error = case.step.error or (failed.error if failed else None)
        tail = failed.tail if failed else None
        if tail is None and asked:
            tail = self._printed(execution_id, case.name)
        return StepWhy(
            case.name,
            status,
            case.step.visit,
            reason_of(case),
            case.histories[:SHOWN],
            error,
            _written(case.playbook, case.name, error),
            tail,
        )

    def _printed(self, execution_id: int, step: str) -> str | None:
        page = self._output.tail(execution_id, Selection(step=step), LINES)
        return "".join(kept.printed.text for kept in page.pieces) or None

    # ------------------------------------------------------------------ all of it
    def _of_all(
        self,
        execution_id: int,
        state: Execution,
        summary: ExecutionSummary,
        around: Surroundings,
        steps: Sequence[StepWhy],
    ) -> Reason:
        """The first of these that has something to say."""
        return (
            _ended(summary)
            or _paused(summary, around, steps)
            or self._behind(execution_id, state, around)
            or _at_work(steps)
        )

    def _behind(self, execution_id: int, state: Execution, around: Surroundings) -> Reason | None:
        """Something follows from the log, and nobody has decided it."""
        newest = self._log.read(execution_id, limit=1, newest_first=True)
        waited = around.since(newest[0].at) if newest else 0.0
        if waited < LATE or not self._advance.due(execution_id, state):
            return None
        told = f"Nothing is lost: a decision is due since {waited:.0f} s"
        if not around.fleet.alive("orchestrator"):
            return Reason(
                "lag",
                f"{told}, and no orchestrator is alive",
                "start one: python -m app.orchestrator",
                needs_help=True,
            )
        remedy = (
            f"it is woken again within {self._sweep:.0f} s where a scheduler is alive; where that "
            "does not help, see 'callboard doctor'"
        )
        return Reason("lag", f"{told}, and no orchestrator has taken the wake", remedy)


def _paused(
    summary: ExecutionSummary, around: Surroundings, steps: Sequence[StepWhy]
) -> Reason | None:
    """An operator holds it, and its steps wait for that alone."""
    if summary.paused_at is None:
        return None
    at_work = [step.name for step in steps if step.reason.code == "running"]
    told = f"Nothing is lost: it is paused since {around.since(summary.paused_at):.0f} s"
    ending = f"; what runs may end ({', '.join(at_work)})" if at_work else ""
    remedy = f"let it go on: callboard resume {summary.execution_id}"
    return Reason("paused", told + ending, remedy, needs_help=True)


def _check_step(execution_id: int, step: str | None, playbook: Playbook) -> None:
    if step is None or step in playbook.steps:
        return
    near = difflib.get_close_matches(step, playbook.steps, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"see 'callboard status {execution_id}'"
    raise NotFoundError(f"execution {execution_id} has no step {step!r}", remedy=remedy)


def _worth_telling(state: Execution) -> list[str]:
    """The steps that are not through: live ones, and those that failed."""
    live = {*state.running, *state.waiting}
    return [name for name, step in state.steps.items() if name in live or step.status == "failed"]


def _written(playbook: Playbook, step: str, error: Mapping[str, Any] | None) -> Any:
    """The failed task as the playbook has it, or its beginning as text."""
    name = (error or {}).get("task")
    found = playbook.steps.get(step)
    task = next((task for task in found.tasks if task.name == name), None) if found else None
    if task is None:
        return None
    text = encoding.dumps(dict(task.config))
    if len(text) <= WRITTEN:
        return dict(task.config)
    return text[:WRITTEN].decode(errors="ignore") + "…"


def _ended(summary: ExecutionSummary) -> Reason | None:
    match summary.status:
        case "COMPLETED":
            return Reason("completed", "It completed; nothing of it waits")
        case "FAILED":
            return Reason(
                "failed", f"It failed: {summary.error or 'see its steps'}", needs_help=True
            )
        case "CANCELLED":
            return Reason("cancelled", "It was cancelled; nothing of it waits")
        case _:
            return None


def _at_work(steps: Sequence[StepWhy]) -> Reason:
    """The step that needs help, or else the first."""
    live = [step for step in steps if step.status in {"running", "waiting"}]
    if not live:
        return Reason("deciding", "It goes on: what follows is about to be decided")
    chosen = next((step for step in live if step.reason.needs_help), live[0])
    reason = chosen.reason
    lead = "Nothing is lost" if reason.needs_help else "It goes on"
    others = len(live) - 1
    more = f" ({others} other step{'' if others == 1 else 's'} beside it)" if others else ""
    because = f"{lead}: step {chosen.name} {reason.because}{more}"
    return Reason(reason.code, because, reason.remedy, needs_help=reason.needs_help)
