"""One event after the other: what each changes in the state of its execution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from app.engine.entry import Entry
from app.engine.ports import EventLog
from app.engine.state import Execution, StepState, evolve
from app.errors import BadRequestError

#: Events read at once: enough to be quick, few enough to be small.
PAGE = 500


@dataclass(frozen=True, slots=True)
class Change:
    """What an event changed: ``what`` is execution, step, loop, ctx, due or failed."""

    what: str
    name: str
    before: str | None
    after: str | None


def changes_of(before: Execution, after: Execution) -> list[Change]:
    """What is different in *after*; the seq that it counts is not."""
    found = []
    if before.status != after.status:
        found.append(Change("execution", after.path, before.status, after.status))
    for name, step in after.steps.items():
        was = before.steps.get(name)
        if was is not step:
            found += _step_changes(name, was or StepState(), step, known=was is not None)
    for name, seq in after.ctx.items():
        if before.ctx.get(name) != seq:
            was_at = before.ctx.get(name)
            old = None if was_at is None else f"event {was_at}"
            found.append(Change("ctx", name, old, f"event {seq}"))
    known = {due.key: due for due in before.due}
    for due in after.due:
        if known.get(due.key) != due:
            found.append(Change("due", str(due.key), None, f"attempt {due.attempt}"))
    for name in after.failed[len(before.failed) :]:
        found.append(Change("failed", name, None, "no arc caught it"))
    return found


def _step_changes(name: str, was: StepState, now: StepState, *, known: bool) -> Iterator[Change]:
    before = _standing(was) if known else None
    if before != _standing(now):
        yield Change("step", name, before, _standing(now))
    if now.loop is not None and _progress(was) != _progress(now):
        yield Change("loop", name, _progress(was), _progress(now))


def _standing(step: StepState) -> str:
    """``running``, ``running #2`` for a later visit, ``waiting (2 tokens)``, ``done, routed``."""
    text = step.status + (f" #{step.visit}" if step.visit > 1 else "")
    if step.attempt > 1 and step.status == "running":
        text += f", attempt {step.attempt}"
    if step.tokens:
        text += f" ({len(step.tokens)} token{'' if len(step.tokens) == 1 else 's'})"
    return text + (", routed" if step.routed and step.is_ended else "")


def _progress(step: StepState) -> str | None:
    loop = step.loop
    if loop is None:
        return None
    failed = f", {loop.failed} failed" if loop.failed else ""
    return f"{loop.ended}/{loop.size} ended, {loop.next} begun{failed}"


def concerns(step: str, entry: Entry, changes: Sequence[Change]) -> bool:
    """Whether the event is about *step*, or changed it."""
    return getattr(entry.event, "step", None) == step or any(
        change.name == step and change.what in {"step", "loop", "failed"} for change in changes
    )


def entries(
    log: EventLog, execution_id: int, *, after: int = 0, at: int | None = None
) -> Iterator[Entry]:
    """The events after *after* up to *at*, in order, read page by page."""
    while at is None or after < at:
        size = PAGE if at is None else min(PAGE, at - after)
        page = log.read(execution_id, after=after, limit=size)
        # A gap must not lead beyond what was asked for.
        yield from (entry for entry in page if at is None or entry.seq <= at)
        if len(page) < size:
            return
        after = page[-1].seq


def evolved(state: Execution, entry: Entry) -> Execution:
    """The state after *entry*. Raises ``BrokenFoldError`` where it cannot follow from *state*."""
    try:
        return evolve(state, entry.event, entry.seq)
    except (AssertionError, LookupError, TypeError, ValueError) as exc:
        raise BrokenFoldError(
            f"event {entry.seq} of execution {entry.execution_id} ({entry.event.type}) does not "
            "follow from those before it",
            remedy=f"rows were changed by hand; see 'callboard verify {entry.execution_id}'",
        ) from exc


class BrokenFoldError(BadRequestError):
    """The log of an execution says what cannot have happened."""

    code = "broken_fold"


def state_of(state: Any) -> Any:
    """A state, or a part of one, as JSON data; bit sets are left out, for they are counted beside."""
    if is_dataclass(state) and not isinstance(state, type):
        return {
            item.name: state_of(getattr(state, item.name))
            for item in fields(state)
            if not item.name.endswith("_bits")
        }
    if isinstance(state, Mapping):
        return {str(key): state_of(value) for key, value in state.items()}
    if isinstance(state, frozenset | set):
        return sorted(state_of(item) for item in state)
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return str(state)
    if isinstance(state, list | tuple):
        return [state_of(item) for item in state]
    return state
