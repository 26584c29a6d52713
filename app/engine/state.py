"""The state of an execution is the fold of its events; there is one fold, and it is here.

State holds where a value is (the seq of the event that carries it), never the value: it stays
small whatever flows through an execution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, assert_never

from app.engine.changing import changed
from app.engine.children import Caller
from app.engine.entry import Entry
from app.engine.events import (
    NO_LOOP,
    AttemptExpired,
    AttemptFailed,
    AttemptInterrupted,
    AttemptLate,
    ChildEnded,
    ChildStarted,
    CtxUpdated,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    FrameOpened,
    LoopDone,
    LoopStarted,
    StepCancelled,
    StepDone,
    StepFailed,
    StepKey,
    StepParked,
    StepRouted,
    StepScheduled,
    StepSkipped,
    StepStarted,
    claim_iteration,
)
from app.engine.progress import CursorState, LoopState

V = TypeVar("V")


@dataclass(frozen=True)  # no slots: see ``changed``
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
class Child:
    """A sub-playbook that a step started. ``deadline`` is when the step stops waiting for it."""

    execution_id: int
    path: str
    caller: Caller
    waits: bool
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Where the next attempt of a parked step goes on: the seqs of its parking and of the child's end."""

    parked_seq: int
    child_seq: int | None = None


@dataclass(frozen=True)
class Execution:
    """Everything ``decide`` knows. ``version`` is the seq of the last folded event.

    ``calls`` are parked steps whose sub-playbook is to be started (the seq that says which),
    ``children`` those that wait for one, ``resumes`` where steps that were parked go on.
    ``retry_of`` and ``redo`` are as in ``execution.started``.
    """

    version: int = 0
    status: str = "new"
    catalog_id: int = 0
    path: str = ""
    playbook_version: int = 0
    parent_execution_id: int | None = None
    depth: int = 0
    deadline: float | None = None
    caller: Mapping[str, Any] | None = None
    paused: bool = False
    retry_of: int | None = None
    redo: frozenset[str] = frozenset()
    steps: Mapping[str, StepState] = field(default_factory=dict)
    ctx: Mapping[str, int] = field(default_factory=dict)
    running: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    unrouted: tuple[str, ...] = ()
    due: tuple[Due, ...] = ()
    lost: Mapping[StepKey, int] = field(default_factory=dict)
    tries: Mapping[StepKey, int] = field(default_factory=dict)
    calls: Mapping[StepKey, int] = field(default_factory=dict)
    children: Mapping[StepKey, Child] = field(default_factory=dict)
    resumes: Mapping[StepKey, Resume] = field(default_factory=dict)
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
    state = changed(state, version=seq)
    match event:
        case ExecutionStarted():
            return changed(
                state,
                status="running",
                catalog_id=event.catalog_id,
                path=event.path,
                playbook_version=event.version,
                parent_execution_id=event.parent_execution_id,
                depth=event.depth,
                deadline=event.deadline,
                caller=event.caller,
                retry_of=event.retry_of,
                redo=frozenset(event.redo or ()),
            )
        case ExecutionPaused():
            return changed(state, paused=True)
        case ExecutionResumed():
            return changed(state, paused=False)
        case StepScheduled():
            return _scheduled(state, event)
        case LoopStarted():
            return _loop_started(state, event, seq)
        case StepDone() | StepFailed():
            return _ended(state, event, seq)
        case FrameOpened():
            return _frame_opened(state, event)
        case LoopDone():
            return _loop_done(state, event, seq)
        case StepParked():
            return _parked(state, event, seq)
        case ChildStarted():
            return _child_started(state, event)
        case ChildEnded():
            return _child_ended(state, event, seq)
        case AttemptExpired():
            lost = state.lost.get(event.key, 0) + 1
            state = changed(state, lost={**state.lost, event.key: lost})
            return _due(state, event.key, event.attempt)
        case AttemptFailed():
            tries = state.tries.get(event.key, 0) + 1
            state = changed(state, tries={**state.tries, event.key: tries})
            return _due(state, event.key, event.attempt, event.retry_at)
        case AttemptInterrupted():
            return _due(state, event.key, event.attempt)
        case StepSkipped():
            return _skipped(state, event, seq)
        case StepCancelled():
            step = changed(
                state.step(event.step), visit=event.visit, status="cancelled", ended_seq=seq
            )
            return _put(changed(state, running=state.running - {event.step}), event.step, step)
        case StepRouted():
            return _routed(state, event)
        case CtxUpdated():
            return changed(state, ctx={**state.ctx, **dict.fromkeys(event.values, seq)})
        case ExecutionCompleted():
            return changed(state, status="completed")
        case ExecutionFailed():
            return changed(state, status="failed", error=event.error)
        case ExecutionCancelled():
            return changed(state, status="cancelled")
        case StepStarted() | AttemptLate():
            return state
        case _:
            assert_never(event)


def _put(state: Execution, name: str, step: StepState) -> Execution:
    return changed(state, steps={**state.steps, name: step})


def _with_loop(state: Execution, name: str, change: Callable[[LoopState], LoopState]) -> Execution:
    step = state.step(name)
    assert step.loop is not None
    return _put(state, name, changed(step, loop=change(step.loop)))


def _frame_opened(state: Execution, event: FrameOpened) -> Execution:
    def change(loop: LoopState) -> LoopState:
        if event.error is not None:
            return loop.claim_finished(0, event.error)
        return loop.frame_opened(event.claim_seq, event.rows)

    return _with_loop(state, event.step, change)


def _scheduled(state: Execution, event: StepScheduled) -> Execution:
    if state.due:
        state = changed(state, due=tuple(due for due in state.due if due.key != event.key))
    return _began(state, event)


def _began(state: Execution, event: StepScheduled | ChildStarted) -> Execution:
    """A unit of work is out."""
    state = _mark_routed(state, event.source, event.source_visit)
    key = event.key
    if key.is_claim:
        number = claim_iteration(key.iteration)
        return _with_loop(state, key.step, lambda loop: loop.claim_scheduled(number))
    if key.iteration != NO_LOOP:
        return _with_loop(state, key.step, lambda loop: loop.scheduled(key.iteration))
    step = state.step(event.step)
    # An attempt after the first names no source: what began the visit did so once.
    source = step.source if event.source is None else (event.source, event.source_visit)
    step = changed(step, visit=event.visit, attempt=event.attempt, source=source, loop=None)
    return _entered(state, event.step, step)


def _parked(state: Execution, event: StepParked, seq: int) -> Execution:
    state = changed(state, resumes={**state.resumes, event.key: Resume(seq)})
    if event.call is None:
        return _due(state, event.key, event.attempt, event.resume_at)
    return changed(state, calls={**state.calls, event.key: seq})


def _child_started(state: Execution, event: ChildStarted) -> Execution:
    caller = Caller(*event.key, event.attempt, event.returns or "", event.resumes, event.fails)
    child = Child(event.child_execution_id, event.path, caller, event.waits, event.deadline)
    state = changed(state, children={**state.children, event.key: child})
    if event.resumes:
        return changed(state, calls=_without(state.calls, event.key))
    return _began(state, event)


def _child_ended(state: Execution, event: ChildEnded, seq: int) -> Execution:
    parked = state.resumes.get(event.key)
    if event.key not in state.calls and event.key not in state.children:
        return state  # nobody waits for it any more
    state = changed(
        state,
        calls=_without(state.calls, event.key),
        children=_without(state.children, event.key),
    )
    if parked is None:
        return state
    state = changed(state, resumes={**state.resumes, event.key: Resume(parked.parked_seq, seq)})
    return _due(state, event.key, event.attempt)


def _loop_started(state: Execution, event: LoopStarted, seq: int) -> Execution:
    state = _mark_routed(state, event.source, event.source_visit)
    loop = LoopState(event.size, event.window, seq, cursor=_cursor(event.frame))
    source = None if event.source is None else (event.source, event.source_visit)
    step = changed(state.step(event.step), visit=event.visit, source=source, loop=loop)
    return _entered(state, event.step, step)


def _cursor(frame: Mapping[str, Any] | None) -> CursorState | None:
    if frame is None:
        return None
    return CursorState(by_row=frame["by_row"], row_concurrency=frame["row_concurrency"])


def _entered(state: Execution, name: str, step: StepState) -> Execution:
    step = changed(step, status="running", routed=False, ended_seq=0, tokens=(), error=None)
    state = changed(
        state,
        running=state.running | {name},
        waiting=state.waiting - {name},
        unrouted=tuple(other for other in state.unrouted if other != name),
    )
    return _put(state, name, step)


def _ended(state: Execution, event: StepDone | StepFailed, seq: int) -> Execution:
    if event.ctx:
        state = changed(state, ctx={**state.ctx, **dict.fromkeys(event.ctx, seq)})
    state = changed(
        state,
        due=tuple(due for due in state.due if due.key != event.key),
        lost=_without(state.lost, event.key),
        tries=_without(state.tries, event.key),
        calls=_without(state.calls, event.key),
        children=_without(state.children, event.key),
        resumes=_without(state.resumes, event.key),
    )
    step = state.step(event.step)
    failed = isinstance(event, StepFailed)
    if event.iteration != NO_LOOP:
        return _put(state, event.step, _iteration_ended(step, event, seq))
    step = changed(
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


def _iteration_ended(step: StepState, event: StepDone | StepFailed, seq: int) -> StepState:
    loop = step.loop
    assert loop is not None
    if event.visit != step.visit:
        return step
    error = event.error if isinstance(event, StepFailed) else None
    if event.key.is_claim:
        return changed(step, loop=loop.claim_finished(seq, error))
    return changed(step, loop=loop.finished(event.iteration, error))


def _loop_done(state: Execution, event: LoopDone, seq: int) -> Execution:
    status = "failed" if event.error else "done"
    step = changed(
        state.step(event.step),
        status=status,
        ended_seq=seq,
        result_seq=seq,
        routed=False,
        error=event.error,
    )
    return _finished(state, event.step, step)


def _finished(state: Execution, name: str, step: StepState) -> Execution:
    state = changed(
        state,
        running=state.running - {name},
        waiting=state.waiting - {name},
        unrouted=(*(other for other in state.unrouted if other != name), name),
    )
    return _put(state, name, step)


def _due(
    state: Execution, key: StepKey, attempt: int, not_before: float | None = None
) -> Execution:
    return changed(
        state,
        due=(*(due for due in state.due if due.key != key), Due(key, attempt + 1, not_before)),
    )


def _skipped(state: Execution, event: StepSkipped, seq: int) -> Execution:
    state = _mark_routed(state, event.source, event.source_visit)
    step = changed(
        state.step(event.step),
        visit=event.visit,
        status="skipped",
        ended_seq=seq,
        routed=not event.walks_on,
        tokens=(),
        loop=None,
        error=None,
    )
    if event.walks_on:
        return _finished(state, event.step, step)
    return _put(changed(state, waiting=state.waiting - {event.step}), event.step, step)


def _routed(state: Execution, event: StepRouted) -> Execution:
    state = _mark_routed(state, event.step, event.visit)
    for target in event.waiting:
        step = state.step(target)
        state = _put(state, target, changed(step, tokens=(*step.tokens, (event.step, event.visit))))
    state = changed(state, waiting=state.waiting | set(event.waiting))
    if event.handled:
        return state
    return changed(state, failed=(*state.failed, event.step), error=state.error or event.error)


def _mark_routed(state: Execution, source: str | None, visit: int) -> Execution:
    if source is None:
        return state
    step = state.step(source)
    if step.visit != visit or step.routed:
        return state
    state = changed(state, unrouted=tuple(name for name in state.unrouted if name != source))
    return _put(state, source, changed(step, routed=True))


def _without(values: Mapping[StepKey, V], key: StepKey) -> Mapping[StepKey, V]:
    if key not in values:
        return values
    return {other: value for other, value in values.items() if other != key}
