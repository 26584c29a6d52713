"""Why a step does not run, or why it failed. Pure: it is told what the log and the fleet say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.engine.events import StepKey, StepSkipped
from app.engine.playbook import Playbook
from app.engine.ports import ExecutionSummary
from app.engine.state import Execution, StepState
from app.services.attempts import Attempt, History
from app.services.fleet import Fleet

#: Names that a sentence lists; of more, the rest is counted.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Reason:
    """``code`` is a stable word for programs, ``because`` a sentence for people.

    ``needs_help``: it will not go on by itself; ``remedy`` says what would help.
    """

    code: str
    because: str
    remedy: str | None = None
    needs_help: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around the execution. ``waits`` are the seconds that the oldest message of a queue
    has waited to be fetched, by queue; None: the broker is away.

    ``children`` are the sub-playbooks that its steps wait for. ``repaired_within``: seconds until
    the sweeper looks again.
    """

    now: datetime
    fleet: Fleet
    waits: Mapping[str, float | None] = field(default_factory=dict)
    children: Mapping[int, ExecutionSummary] = field(default_factory=dict)
    repaired_within: float = 5.0

    def since(self, moment: datetime | None) -> float:
        return max(0.0, (self.now - moment).total_seconds()) if moment else 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """One step: what the fold, the log and the surroundings say of it."""

    name: str
    playbook: Playbook
    state: Execution
    around: Surroundings
    histories: Sequence[History] = ()
    skipped: StepSkipped | None = None

    @property
    def step(self) -> StepState:
        return self.state.step(self.name)


def reason_of(case: Case) -> Reason:  # noqa: PLR0911 (one case per status)
    """Why the step stands where it stands."""
    step = case.step
    if _is_held(case):
        return Reason("paused", "waits until the execution is resumed", needs_help=True)
    if case.name not in case.state.steps:
        return _not_reached(case)
    match step.status:
        case "waiting":
            return _at_join(case)
        case "running":
            return _under_way(case)
        case "skipped":
            return _skipped(case)
        case "failed":
            message = (step.error or {}).get("message") or "its iterations failed"
            return Reason("failed", f"failed: {message}", needs_help=True)
        case "cancelled":
            return Reason("cancelled", "was cancelled with its execution")
        case _:
            visits = f", in {step.visit} visits" if step.visit > 1 else ""
            return Reason("done", f"is done{visits}")


def _is_held(case: Case) -> bool:
    """Only the pause of the execution keeps it from going on: no worker and no child is at it."""
    if not (case.state.is_running and case.state.paused) or case.step.is_ended:
        return False
    at_work = any(history.last and history.last.outcome == "running" for history in case.histories)
    waits_for_child = any(key.step == case.name for key in case.state.children)
    return not at_work and not waits_for_child


# ---------------------------------------------------------------------- not begun
def _not_reached(case: Case) -> Reason:
    if not case.state.is_running:
        return Reason("not_reached", f"was never reached: the execution is {case.state.status}")
    before = _may_lead(case)
    if not before:
        told = "is not reached, and no step that runs or waits leads to it"
        return Reason("not_reached", f"{told}: it will hardly run")
    return Reason("not_reached", f"is not reached yet; what may lead to it: {_listed(before)}")


def _at_join(case: Case) -> Reason:
    came = list(dict.fromkeys(source for source, _ in case.step.tokens))
    before = [text for text in _may_lead(case) if not text.startswith(f"{case.name} ")]
    told = f"waits at its join: {_listed(came)} came"
    if not before:
        return Reason("lag", f"{told}, nothing else can, and no orchestrator has taken it up yet")
    return Reason("join", f"{told}, and these may still: {_listed(before)}")


def _may_lead(case: Case) -> list[str]:
    """The live steps that lead to this one by forward arcs, each with its standing."""
    state, graph = case.state, case.playbook.graph
    live = {*state.running, *state.waiting, *state.unrouted}
    names = [
        name
        for name in case.playbook.steps
        if name in live and name != case.name and graph.leads_to(name, case.name)
    ]
    return [f"{name} ({state.step(name).status})" for name in names]


def _skipped(case: Case) -> Reason:
    if case.skipped is None:
        return Reason("skipped", "was passed over")
    event = case.skipped
    told = f"was passed over: {event.reason}"
    if event.source is None or event.walks_on or event.reason != "no arc led here":
        return Reason("skipped", told)
    source = case.playbook.steps.get(event.source)
    arcs = [arc for arc in source.arcs if arc.step == case.name] if source else []
    conditions = [f"'{arc.when}'" for arc in arcs if arc.when is not None]
    why = f"{_listed(conditions)} did not hold" if conditions else "another arc was taken"
    return Reason("skipped", f"{told}; after step {event.source!r} {why}")


# ---------------------------------------------------------------------- begun
def _under_way(case: Case) -> Reason:
    open_ones = [history for history in case.histories if not history.is_over]
    loop = case.step.loop
    if loop is not None:
        return _in_loop(case, open_ones)
    child = case.state.children.get(StepKey(case.name, case.step.visit))
    if child is not None and child.waits:
        return _for_child(child.execution_id, case.around)
    if not open_ones:
        return Reason("lag", "has begun, and nothing of it is out: it is about to be decided on")
    return unit_reason(open_ones[0], case.around)


def _in_loop(case: Case, open_ones: Sequence[History]) -> Reason:
    loop = case.step.loop
    assert loop is not None
    total = "unknown" if loop.cursor else str(loop.size)
    told = f"is in its loop: {loop.ended} of {total} iterations ended"
    told += f", {loop.failed} of them badly" if loop.failed else ""
    if not open_ones:
        return Reason("lag", f"{told}; none is out, so the next are about to be decided on")
    window = f" (window {loop.window})" if not loop.cursor else ""
    told += f", {len(open_ones)} are out{window}"
    reasons = [(history, unit_reason(history, case.around)) for history in open_ones]
    counts = Counter(reason.code for _, reason in reasons)
    # What needs help first, then the most common.
    reasons.sort(key=lambda pair: (not pair[1].needs_help, -counts[pair[1].code]))
    history, first = reasons[0]
    others = ", ".join(f"{count} {code}" for code, count in counts.most_common())
    return Reason(
        first.code,
        f"{told} ({others}); {history.key} {first.because}",
        first.remedy,
        needs_help=first.needs_help,
    )


def unit_reason(history: History, around: Surroundings) -> Reason:
    """Why one unit of work that has not ended is not further."""
    attempt = history.last
    if attempt is None:
        return Reason("lag", "is about to be scheduled")
    match attempt.outcome:
        case "scheduled":
            return _unclaimed(attempt, around)
        case "running":
            return _claimed(attempt, around)
        case "child":
            return _for_child(attempt.child or 0, around)
        case _:
            return _between(attempt, around)


def _between(attempt: Attempt, around: Surroundings) -> Reason:
    """Nothing is out: the next attempt waits for its time, or for an orchestrator."""
    said = (attempt.error or {}).get("message")
    ended = f"attempt {attempt.number} ended as {attempt.outcome}"
    ended += f" ({said})" if said else ""
    if attempt.resumes is not None and attempt.resumes > around.now:
        left = (attempt.resumes - around.now).total_seconds()
        when = f"{attempt.resumes:%H:%M:%S} UTC, in {left:.0f} s"
        return Reason("retry", f"waits until {when}: {ended}")
    return Reason("lag", f"{ended}, and the next is about to be scheduled")


def _unclaimed(attempt: Attempt, around: Surroundings) -> Reason:
    if attempt.due is not None and attempt.due > around.now:
        left = (attempt.due - around.now).total_seconds()
        when = f"{attempt.due:%H:%M:%S} UTC, in {left:.0f} s"
        return Reason("retry", f"waits until {when} for attempt {attempt.number}")
    waited = around.since(attempt.due)
    pool, _, queue = attempt.queue.partition(".")
    condition = around.fleet.condition(attempt.queue, waited)
    told = f"waits since {waited:.0f} s for a worker of pool {pool!r} (queue {queue!r})"
    oldest = around.waits.get(attempt.queue)
    held = _queue_says(oldest)
    if condition == "absent":
        remedy = f"start one with CALLBOARD_POOL={pool} and CALLBOARD_QUEUES={queue}"
        return Reason("no_worker", f"{told}, which has none; {held}", remedy, needs_help=True)
    workers = around.fleet.serving(attempt.queue)
    if condition == "busy":
        slots = sum(worker.capacity or 0 for worker in workers)
        remedy = "start more workers, or raise CALLBOARD_WORKER_THREADS"
        return Reason("busy", f"{told}, whose {slots} slots are busy; {held}", remedy)
    if condition == "stuck":
        names = _listed([worker.name for worker in workers if worker.has_room])
        remedy = "start the workers again, and see 'callboard doctor'"
        because = f"{told}; {names}, alive and with free slots, claims nothing; {held}"
        return Reason("wedged", because, remedy, needs_help=True)
    if oldest is None:
        remedy = "start NATS; it is sent again from the log by itself"
        return Reason("nats", f"{told}; {held}", remedy, needs_help=True)
    return Reason("unclaimed", f"{told}; {held}, and workers take them")


def _queue_says(oldest: float | None) -> str:
    if oldest is None:
        return "NATS does not answer"
    return (
        f"the oldest message there waits since {oldest:.0f} s"
        if oldest
        else "no message waits there"
    )


def _claimed(attempt: Attempt, around: Surroundings) -> Reason:
    worker, fleet = attempt.worker or "", around.fleet
    told = f"runs on {worker} since {around.since(attempt.started):.0f} s"
    process = fleet.named(worker)
    if process is None or process.silent > fleet.lease:
        silent = f" for {process.silent:.0f} s" if process else ""
        remedy = f"it is given to another within {around.repaired_within:.0f} s, by the scheduler"
        because = f"ran on {worker}, which gives no sign of life{silent}: its lease has run out"
        return Reason("expired", because, remedy, needs_help=not fleet.alive("scheduler"))
    left = fleet.lease - process.silent
    beat = f"its last heartbeat was {process.silent:.0f} s ago, its lease ends in {left:.0f} s"
    return Reason("running", f"{told}; {beat}")


def _for_child(execution_id: int, around: Surroundings) -> Reason:
    child = around.children.get(execution_id)
    if child is None:
        return Reason("child", f"waits for sub-playbook execution {execution_id}")
    told = f"waits for execution {execution_id} of {child.path}, which is {child.status}"
    if child.status == "RUNNING":
        return Reason("child", told, f"callboard why {execution_id}")
    within = f"within {around.repaired_within:.0f} s"
    return Reason("lag", f"{told}; its end is told to this one {within}, by the scheduler")


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more
