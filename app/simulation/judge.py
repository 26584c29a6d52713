"""What must hold when a run is over, whatever went wrong in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.entry import Entry
from app.engine.events import LoopDone, StepDone, StepFailed, StepKey, StepScheduled
from app.simulation.faults import CALM
from app.simulation.watch import Finding, Watch
from app.simulation.world import World
from app.store.rows import FENCES

#: Fields of a result that differ from run to run.
_OWN = ("execution_id",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended: its status, and the result of each step that has one."""

    status: str
    results: Mapping[str, Any]


def judged(world: World, *, thorough: bool) -> list[Finding]:
    """Everything that must not be in a run that is over.

    *thorough*: all that is shown of it is compared with its log, too, which takes as long as the run.
    """
    if world.watch.found:
        return world.watch.found  # it was not run to its end
    found: list[Finding] = []
    for execution_id in world.log.ids:
        found += _of_execution(world, execution_id, thorough=thorough)
    found += _of_family(world)
    found += [
        Finding("lost", "was accepted, and is not there", execution_id)
        for execution_id in sorted(world.watch.accepted - set(world.log.ids))
    ]
    if world.plan == CALM:
        found += _of_calm(world.watch)
    return found


def _of_execution(world: World, execution_id: int, *, thorough: bool) -> Iterator[Finding]:
    entries = world.log.read(execution_id)
    yield from _keys(world, execution_id)
    yield from _attempts(entries)
    yield from _internal(entries)
    if thorough:
        for shown in world.apis[0].control.inspection.verify(execution_id).findings:
            yield Finding(f"verify-{shown.code}", shown.message, execution_id, shown.seq)


def _keys(world: World, execution_id: int) -> Iterator[Finding]:
    """No idempotency key is there twice."""
    seen: Counter[str] = Counter()
    for row in world.log.rows_of(execution_id):
        if row.idempotency_key is None:
            continue
        seen[row.idempotency_key] += 1
        if seen[row.idempotency_key] > 1:
            said = f"{row.type} with the key {row.idempotency_key} is there again"
            yield Finding("key-twice", said, execution_id, row.seq)


def _attempts(entries: Sequence[Entry]) -> Iterator[Finding]:
    """What ends an attempt comes from the newest one, which was not given up before."""
    newest: dict[StepKey, int] = {}
    given_up: set[tuple[StepKey, int]] = set()
    for entry in entries:
        event = entry.event
        if isinstance(event, StepScheduled):
            newest[event.key] = event.attempt
        if not isinstance(event, StepDone | StepFailed) and event.type not in FENCES:
            continue
        key, attempt, worker = (getattr(event, name) for name in ("key", "attempt", "worker"))
        late = (key, attempt) in given_up or newest.get(key, 0) != attempt
        if late and worker is not None:
            said = f"{event.type} of {key}, attempt {attempt}, which was given up"
            yield Finding("fence", said, entry.execution_id, entry.seq)
        if event.type in FENCES:
            given_up.add((key, attempt))


def _internal(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Nothing failed because of a mistake of the engine."""
    for entry in entries:
        error = getattr(entry.event, "error", None) or {}
        if error.get("kind") == "internal":
            yield Finding("internal", str(error["message"]), entry.execution_id, entry.seq)


def _of_family(world: World) -> Iterator[Finding]:
    """Nobody waits for what has ended, and nothing runs on for somebody who has."""
    for execution_id in world.log.untold():
        yield Finding("untold", "has ended, and its parent was not told", execution_id)
    for execution_id in world.log.orphans():
        yield Finding("orphan", "runs on although its parent has failed", execution_id)


def _of_calm(watch: Watch) -> Iterator[Finding]:
    """Where nothing goes wrong, every attempt of a step is made by one worker, once."""
    for (execution_id, key), times in watch.runs.items():
        due = watch.scheduled[execution_id, key]
        if times != due:
            yield Finding("calm", f"{key} was scheduled {due} times, ran {times}", execution_id)


def outcome(world: World, execution_id: int) -> Outcome:
    """How that execution ended."""
    state = world.watch.state(execution_id)
    ends = {entry.seq: entry.event for entry in world.log.read(execution_id)}
    results = {
        name: _result(ends[step.result_seq])
        for name, step in sorted(state.steps.items())
        if step.result_seq
    }
    return Outcome(state.status, results)


def _result(event: Any) -> Any:
    match event:
        case StepDone(result=dict() as result):
            return {key: value for key, value in result.items() if key not in _OWN}
        case StepDone():
            return event.result
        case LoopDone():
            return [event.total, event.success, event.failed]
        case _:
            return str(event.error.get("kind"))
