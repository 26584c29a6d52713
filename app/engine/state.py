"""The state of an execution is the fold of its events; there is one fold, and it is here.

State holds where a value is (the seq of the event that carries it), never the value: it stays
small whatever flows through an execution. Sets of loop indices are integers used as bit sets, so
that one more event costs the same in a loop of ten and of ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from app.engine.events import (
    NO_LOOP,
    AttemptExpired,
    AttemptFailed,
    AttemptInterrupted,
    AttemptLate,
    CtxUpdated,
    Entry,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    LoopDone,
    LoopStarted,
    StepCancelled,
    StepDone,
    StepFailed,
    StepKey,
    StepRouted,
    StepScheduled,
    StepSkipped,
    StepStarted,
)


@dataclass(frozen=True, slots=True)
class LoopState:
    """Progress of one entry into a loop. ``ended_bits`` has a bit per index that ended."""

    size: int
    window: int
    started_seq: int
    next: int = 0
    ended: int = 0
    failed: int = 0
    ended_bits: int = 0
    first_error: Mapping[str, Any] | None = None

    @property
    def outstanding(self) -> int:
        return self.next - self.ended

    def is_outstanding(self, index: int) -> bool:
        return index < self.next and not self.ended_bits >> index & 1


@dataclass(frozen=True, slots=True)
class StepState:
    """The newest visit of a step: ``status`` is waiting, running, done, failed, skipped or cancelled.

    ``ended_seq`` is the event that ended the visit; ``result_seq`` the newest event that carries a
    result, which outlives re-entry until it is replaced. ``tokens`` are the completions whose arcs
    led here and that wait for other branches, ``source`` the one that began this visit.
    """

    visit: int = 0
    status: str = "waiting"
    attempt: int = 0
    ended_seq: int = 0
    result_seq: int = 0
    routed: bool = False
    source: tuple[str, int] | None = None
    loop: LoopState | None = None
    tokens: tuple[tuple[str, int], ...] = ()
    error: Mapping[str, Any] | None = None

    @property
    def is_ended(self) -> bool:
        return self.status in {"done", "failed", "skipped", "cancelled"}


@dataclass(frozen=True, slots=True)
class Due:
    """An attempt to schedule because the one before was lost or asked for another."""

    key: StepKey
    attempt: int
    not_before: float | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """Everything ``decide`` knows. ``version`` is the seq of the last folded event."""

    version: int = 0
    status: str = "new"
    catalog_id: int = 0
    path: str = ""
    parent_execution_id: int | None = None
    steps: Mapping[str, StepState] = field(default_factory=dict)
    ctx: Mapping[str, int] = field(default_factory=dict)
    running: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    unrouted: tuple[str, ...] = ()
    due: tuple[Due, ...] = ()
    lost: Mapping[StepKey, int] = field(default_factory=dict)
    tries: Mapping[StepKey, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    error: Mapping[str, Any] | None = None

    @property
    def is_running(self) -> bool:
        return self.status == "running"

    def step(self, name: str) -> StepState:
        return self.steps.get(name, _NOT_SEEN)


_NOT_SEEN = StepState()
NEW = Execution()


def replay(entries: Iterable[Entry], state: Execution = NEW) -> Execution:
    """Fold *entries* onto *state*."""
    for entry in entries:
        state = evolve(state, entry.event, entry.seq)
    return state


def evolve(state: Execution, event: Event, seq: int) -> Execution:  # noqa: C901, PLR0911, PLR0912 (one case per event type)
    """Return the state after *event*. Decides nothing: the log already did."""
    state = replace(state, version=seq)
    match event:
        case ExecutionStarted():
            return replace(
                state,
                status="running",
                catalog_id=event.catalog_id,
                path=event.path,
                parent_execution_id=event.parent_execution_id,
            )
        case StepScheduled():
            return _scheduled(state, event)
        case LoopStarted():
            return _loop_started(state, event, seq)
        case StepDone() | StepFailed():
            return _ended(state, event, seq)
        case LoopDone():
            return _loop_done(state, event, seq)
        case AttemptExpired():
            lost = state.lost.get(event.key, 0) + 1
            state = replace(state, lost={**state.lost, event.key: lost})
            return _due(state, event.key, event.attempt)
        case AttemptFailed():
            tries = state.tries.get(event.key, 0) + 1
            state = replace(state, tries={**state.tries, event.key: tries})
            return _due(state, event.key, event.attempt, event.retry_at)
        case AttemptInterrupted():
            return _due(state, event.key, event.attempt)
        case StepSkipped():
            return _skipped(state, event, seq)
        case StepCancelled():
            step = replace(
                state.step(event.step), visit=event.visit, status="cancelled", ended_seq=seq
            )
            return _put(replace(state, running=state.running - {event.step}), event.step, step)
        case StepRouted():
            return _routed(state, event)
        case CtxUpdated():
            return replace(state, ctx={**state.ctx, **dict.fromkeys(event.values, seq)})
        case ExecutionCompleted():
            return replace(state, status="completed")
        case ExecutionFailed():
            return replace(state, status="failed", error=event.error)
        case ExecutionCancelled():
            return replace(state, status="cancelled")
        case StepStarted() | AttemptLate():
            return state
        case _:
            assert_never(event)


def _put(state: Execution, name: str, step: StepState) -> Execution:
    return replace(state, steps={**state.steps, name: step})


def _scheduled(state: Execution, event: StepScheduled) -> Execution:
    key = event.key
    if state.due:
        state = replace(state, due=tuple(due for due in state.due if due.key != key))
    state = _mark_routed(state, event.source, event.source_visit)
    step = state.step(event.step)
    if event.iteration != NO_LOOP:
        assert step.loop is not None
        loop = replace(step.loop, next=max(step.loop.next, event.iteration + 1))
        return _put(state, event.step, replace(step, loop=loop))
    # An attempt after the first names no source: what began the visit did so once.
    source = step.source if event.source is None else (event.source, event.source_visit)
    step = replace(step, visit=event.visit, attempt=event.attempt, source=source, loop=None)
    return _entered(state, event.step, step)


def _loop_started(state: Execution, event: LoopStarted, seq: int) -> Execution:
    state = _mark_routed(state, event.source, event.source_visit)
    loop = LoopState(event.size, event.window, seq)
    return _entered(
        state, event.step, replace(state.step(event.step), visit=event.visit, loop=loop)
    )


def _entered(state: Execution, name: str, step: StepState) -> Execution:
    step = replace(step, status="running", routed=False, ended_seq=0, tokens=(), error=None)
    state = replace(
        state,
        running=state.running | {name},
        waiting=state.waiting - {name},
        unrouted=tuple(other for other in state.unrouted if other != name),
    )
    return _put(state, name, step)


def _ended(state: Execution, event: StepDone | StepFailed, seq: int) -> Execution:
    if event.ctx:
        state = replace(state, ctx={**state.ctx, **dict.fromkeys(event.ctx, seq)})
    state = replace(
        state,
        due=tuple(due for due in state.due if due.key != event.key),
        lost=_without(state.lost, event.key),
        tries=_without(state.tries, event.key),
    )
    step = state.step(event.step)
    failed = isinstance(event, StepFailed)
    if event.iteration != NO_LOOP:
        return _put(state, event.step, _iteration_ended(step, event))
    step = replace(
        step,
        visit=event.visit,
        status="failed" if failed else "done",
        loop=None,
        ended_seq=seq,
        result_seq=seq,
        routed=False,
        tokens=(),
        error=event.error if isinstance(event, StepFailed) else None,
    )
    return _finished(state, event.step, step)


def _iteration_ended(step: StepState, event: StepDone | StepFailed) -> StepState:
    loop = step.loop
    assert loop is not None
    if event.visit != step.visit or loop.ended_bits >> event.iteration & 1:
        return step
    error = event.error if isinstance(event, StepFailed) else None
    loop = replace(
        loop,
        ended=loop.ended + 1,
        failed=loop.failed + (error is not None),
        ended_bits=loop.ended_bits | 1 << event.iteration,
        first_error=loop.first_error or error,
    )
    return replace(step, loop=loop)


def _loop_done(state: Execution, event: LoopDone, seq: int) -> Execution:
    status = "failed" if event.failed else "done"
    step = replace(
        state.step(event.step),
        status=status,
        ended_seq=seq,
        result_seq=seq,
        routed=False,
        error=event.error,
    )
    return _finished(state, event.step, step)


def _finished(state: Execution, name: str, step: StepState) -> Execution:
    state = replace(
        state,
        running=state.running - {name},
        waiting=state.waiting - {name},
        unrouted=(*(other for other in state.unrouted if other != name), name),
    )
    return _put(state, name, step)


def _due(
    state: Execution, key: StepKey, attempt: int, not_before: float | None = None
) -> Execution:
    return replace(
        state,
        due=(*(due for due in state.due if due.key != key), Due(key, attempt + 1, not_before)),
    )


def _skipped(state: Execution, event: StepSkipped, seq: int) -> Execution:
    state = _mark_routed(state, event.source, event.source_visit)
    step = replace(
        state.step(event.step),
        visit=event.visit,
        status="skipped",
        ended_seq=seq,
        routed=True,
        tokens=(),
    )
    return _put(replace(state, waiting=state.waiting - {event.step}), event.step, step)


def _routed(state: Execution, event: StepRouted) -> Execution:
    state = _mark_routed(state, event.step, event.visit)
    for target in event.waiting:
        step = state.step(target)
        state = _put(state, target, replace(step, tokens=(*step.tokens, (event.step, event.visit))))
    state = replace(state, waiting=state.waiting | set(event.waiting))
    if event.handled:
        return state
    return replace(state, failed=(*state.failed, event.step), error=state.error or event.error)


def _mark_routed(state: Execution, source: str | None, visit: int) -> Execution:
    if source is None:
        return state
    step = state.step(source)
    if step.visit != visit or step.routed:
        return state
    state = replace(state, unrouted=tuple(name for name in state.unrouted if name != source))
    return _put(state, source, replace(step, routed=True))


def _without(counts: Mapping[StepKey, int], key: StepKey) -> Mapping[StepKey, int]:
    return (
        {other: count for other, count in counts.items() if other != key}
        if key in counts
        else counts
    )
