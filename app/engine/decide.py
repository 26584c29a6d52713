"""What must happen next: a pure function of the playbook, the state, and the values templates read.

    decide(playbook, state, values, limits) -> events to append

Deciding twice on the same state gives the same events; deciding after they were folded gives none.
An execution is never left with nothing running, nothing scheduled and no end.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.engine.encoding import dumps
from app.engine.events import (
    NO_LOOP,
    CtxUpdated,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    LoopDone,
    LoopStarted,
    StepCancelled,
    StepFailed,
    StepKey,
    StepRouted,
    StepScheduled,
    StepSkipped,
)
from app.engine.loops import collection, window
from app.engine.names import Names, Origin, scope_key
from app.engine.playbook import Arc, Playbook, Step
from app.engine.state import Due, Execution, StepState, evolve
from app.engine.template import holds, render
from app.engine.values import Values
from app.errors import BadRequestError, TemplateError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep a playbook from running away; each is a setting."""

    max_visits: int = 10_000
    max_attempts: int = 5
    loop_window: int = 1_000
    value_bytes: int = 104_857_600
    pool: str = "default"


def decide(
    execution_id: int, playbook: Playbook, state: Execution, values: Values, limits: Limits
) -> list[Event]:
    """The events that follow from *state*. Raises ``ValueNeeded`` where *values* lacks one."""
    if not state.is_running:
        return []
    turn = _Turn(execution_id, playbook, state, values, limits)
    turn.run()
    return turn.events


def cancel(state: Execution, reason: str | None) -> list[Event]:
    """The events that cancel an execution; none where it has ended."""
    if not state.is_running:
        return []
    stopped = [StepCancelled(name, state.step(name).visit) for name in sorted(state.running)]
    return [*stopped, ExecutionCancelled(reason)]


class _Turn:
    """One decision: every event it adds is folded at once, so later parts see it."""

    def __init__(
        self,
        execution_id: int,
        playbook: Playbook,
        state: Execution,
        values: Values,
        limits: Limits,
    ) -> None:
        self.execution_id = execution_id
        self.playbook = playbook
        self.state = state
        # New events are readable by their future seq, without touching what the caller keeps.
        self.values = Values(ChainMap({}, values.events), values.loops, values.stored)
        self.limits = limits
        self.events: list[Event] = []

    @property
    def names(self) -> Names:
        return Names(self.execution_id, self.state, self.values)

    def add(self, event: Event) -> None:
        seq = self.state.version + 1
        self.values.events[seq] = event
        self.state = evolve(self.state, event, seq)
        self.events.append(event)

    def run(self) -> None:
        if not self.state.steps:
            self.enter(self.playbook.steps[self.playbook.entry], None)
        while True:
            before = len(self.events)
            for due in self.state.due:
                self.try_again(due)
            for name in self.state.unrouted:
                # A completion before it may have entered the step again.
                if name in self.state.unrouted:
                    self.route(self.playbook.steps[name])
            for name in sorted(self.state.running):
                self.advance_loop(self.playbook.steps[name])
            if not self.state.failed:
                self.fire_joins()
            if len(self.events) == before:
                break
        self.finish()

    # ------------------------------------------------------------------ routing
    def route(self, step: Step) -> None:
        """Evaluate the arcs of a completion, once. After a failure nothing new is started."""
        visit = self.state.step(step.name).visit
        if self.state.failed:
            self.drain(step)
            return
        try:
            matched = self.match_arcs(step)
        except TemplateError as exc:
            error = {
                "kind": "template",
                "message": f"after step {step.name!r}: {exc}",
                "retryable": False,
            }
            self.add(StepRouted(step.name, visit, handled=False, error=error))
            return
        if matched is None:
            self.add(
                StepRouted(step.name, visit, handled=False, error=self.state.step(step.name).error)
            )
            return
        self.follow(step, matched)

    def drain(self, step: Step) -> None:
        state = self.state.step(step.name)
        if state.status == "failed":
            self.add(StepRouted(step.name, state.visit, handled=False, error=state.error))

    def match_arcs(self, step: Step) -> list[Arc] | None:
        """The arcs taken, after ``set`` was applied; None: the step failed and no arc caught it."""
        state = self.state.step(step.name)
        failed = state.status == "failed"
        if step.set and not failed:
            self.update_ctx(step, [step.set])
        scope = self.names.after(step)
        matched: list[Arc] = []
        for arc in step.arcs:
            if matched and not step.inclusive:
                break
            if (arc.names_failure or not failed) and holds(arc.when, scope):
                matched.append(arc)
        if failed and not matched:
            return None
        if any(arc.set for arc in matched):
            self.update_ctx(step, [arc.set for arc in matched])
        return matched

    def follow(self, step: Step, matched: list[Arc]) -> None:
        """Start the targets that can start, leave tokens at those that wait, skip what is left out."""
        visit = self.state.step(step.name).visit
        before = len(self.events)
        taken = tuple(dict.fromkeys(arc.step for arc in matched))
        targets = [
            target
            for target in taken
            if target in self.playbook.steps and self.accepts(step.name, target)
        ]
        # What the same completion leads to is about to live, too.
        live = self.live() - {step.name} | set(targets)
        ready = [target for target in targets if self.is_ready(target, live)]
        waiting = tuple(target for target in targets if target not in ready)
        if waiting:
            self.add(StepRouted(step.name, visit, taken=taken, waiting=waiting))
        for target in ready:
            self.enter(self.playbook.steps[target], (step.name, visit))
        self.skip_others(step, set(taken))
        if len(self.events) == before:
            self.add(StepRouted(step.name, visit, taken=taken))

    def accepts(self, source: str, target: str) -> bool:
        """A token from *source* means something at *target*: it has not run, or it runs again."""
        there = self.state.step(target)
        if target in self.state.running:
            return False
        if not there.is_ended:
            return True
        newer = self.state.step(source).ended_seq > there.ended_seq or source == target
        return newer and self.playbook.graph.reaches(target, source)

    def live(self) -> set[str]:
        """The steps that run, wait for others, or have ended without their arcs being followed yet."""
        return {*self.state.running, *self.state.waiting, *self.state.unrouted}

    def is_ready(self, target: str, live: set[str]) -> bool:
        """No live step can still bring another token in this turn."""
        graph = self.playbook.graph
        return not graph.is_join(target) or not any(
            graph.leads_to(name, target) for name in live if name != target
        )

    def skip_others(self, step: Step, taken: set[str]) -> None:
        graph = self.playbook.graph
        if graph.branches_in_loop(step.name):
            return
        live = self.live() - {step.name}
        for target in dict.fromkeys(arc.step for arc in step.arcs):
            if target in taken or target not in self.playbook.steps or target in live:
                continue
            there = self.state.step(target)
            if there.visit or any(graph.leads_to(name, target) for name in live):
                continue
            self.add(
                StepSkipped(
                    target, 1, source=step.name, source_visit=self.state.step(step.name).visit
                )
            )

    def fire_joins(self) -> None:
        for name in sorted(self.state.waiting, key=self.playbook.graph.index.__getitem__):
            if self.is_ready(name, self.live()):
                self.enter(self.playbook.steps[name], self.state.step(name).tokens[-1])

    # ------------------------------------------------------------------ starting work
    def enter(self, step: Step, source: Origin | None) -> None:
        """Begin the next visit of *step*."""
        visit = self.state.step(step.name).visit + 1
        if visit > self.limits.max_visits:
            self.stop_cycle(step, visit, source)
        elif step.loop is not None:
            self.enter_loop(step, visit, source)
        else:
            self.schedule(
                step, StepKey(step.name, visit), 1, self.names.reads(step, source), source=source
            )

    def stop_cycle(self, step: Step, visit: int, source: Origin | None) -> None:
        """Fail a step entered too often. No arc may catch that: it could lead back here for ever."""
        message = f"step {step.name!r} was entered more than {self.limits.max_visits} times"
        error = {"kind": "limit", "message": f"{message} (setting CALLBOARD_MAX_VISITS)"}
        self.refuse(step, visit, source, error)
        self.add(StepRouted(step.name, visit, handled=False, error=error))

    def refuse(
        self, step: Step, visit: int, source: Origin | None, error: Mapping[str, Any]
    ) -> None:
        """End a visit that could not begin."""
        if source is not None:
            self.add(StepRouted(*source, taken=(step.name,)))
        self.add(StepFailed(step.name, visit, NO_LOOP, 0, {"retryable": False, **error}))

    def enter_loop(self, step: Step, visit: int, source: Origin | None) -> None:
        assert step.loop is not None
        scope = self.names.before(source)
        try:
            items = collection(render(step.loop.items, scope))
            size = window(step.loop, scope, self.limits.loop_window)
            self.check_storable(items, "in")
        except (TemplateError, ValueError) as exc:
            message = f"loop of step {step.name!r}: {exc}"
            self.refuse(step, visit, source, {"kind": "template", "message": message})
            return
        self.add(LoopStarted(step.name, visit, items, len(items), size, *(source or (None, 0))))
        self.advance_loop(step)

    def advance_loop(self, step: Step) -> None:
        """Top up the window, or end the loop once every iteration has ended."""
        state = self.state.step(step.name)
        loop = state.loop
        if loop is None:
            return
        if loop.ended == loop.size:
            self.end_loop(step.name, state)
            return
        count = (
            0 if self.state.failed else min(loop.window - loop.outstanding, loop.size - loop.next)
        )
        if count > 0:
            reads = self.names.reads(step, None)
            for index in range(loop.next, loop.next + count):
                self.schedule(step, StepKey(step.name, state.visit, index), 1, reads)

    def end_loop(self, name: str, state: StepState) -> None:
        loop = state.loop
        assert loop is not None
        error = None
        if loop.failed:
            first = (loop.first_error or {}).get("message", "")
            message = f"{loop.failed} of {loop.size} iterations failed; the first: {first}"
            error = {**(loop.first_error or {}), "message": message}
        self.add(
            LoopDone(name, state.visit, loop.size, loop.size - loop.failed, loop.failed, error)
        )

    def schedule(
        self,
        step: Step,
        key: StepKey,
        attempt: int,
        reads: Mapping[str, int],
        *,
        source: Origin | None = None,
        not_before: float | None = None,
    ) -> None:
        loop = self.state.step(key.step).loop if key.iteration != NO_LOOP else None
        self.add(
            StepScheduled(
                *key,
                attempt=attempt,
                tool=step.kind,
                queue=f"{step.pool or self.limits.pool}.{step.queue}",
                reads=reads,
                source=source[0] if source else None,
                source_visit=source[1] if source else 0,
                not_before=not_before,
                loop_seq=loop.started_seq if loop else None,
                tries=self.state.tries.get(key, 0),
            )
        )

    def try_again(self, due: Due) -> None:
        """Schedule the attempt after one that was lost or asked for it, or fail the step at its limit."""
        step = self.playbook.steps[due.key.step]
        lost = self.state.lost.get(due.key, 0)
        if lost >= self.limits.max_attempts:
            message = f"{due.key} lost its worker {lost} times (setting CALLBOARD_MAX_ATTEMPTS)"
            error = {"kind": "lost", "message": message, "retryable": True}
            self.add(StepFailed(*due.key, due.attempt - 1, error))
            return
        reads = self.names.reads(step, self.state.step(step.name).source)
        self.schedule(step, due.key, due.attempt, reads, not_before=due.not_before)

    def update_ctx(self, step: Step, sets: list[Mapping[str, Any]]) -> None:
        scope = self.names.after(step)
        updates: dict[str, Any] = {}
        for assignments in sets:
            for key, value in assignments.items():
                updates[scope_key(key)] = render(value, scope)
                self.check_storable(updates[scope_key(key)], f"set: {key}")
        self.add(CtxUpdated(step.name, self.state.step(step.name).visit, updates))

    def check_storable(self, value: Any, where: str) -> None:
        """Raise ``TemplateError`` for a value that the log could not keep."""
        try:
            size = len(dumps(value))
        except BadRequestError as exc:
            raise TemplateError(f"'{where}' gave a value that cannot be kept: {exc}") from exc
        if size > self.limits.value_bytes:
            limit = f"{size} bytes are above {self.limits.value_bytes}"
            raise TemplateError(f"'{where}': {limit} (setting CALLBOARD_RESULT_BYTES)")

    # ------------------------------------------------------------------ the end
    def finish(self) -> None:
        """End the execution where nothing runs and nothing can."""
        state = self.state
        if state.failed:
            if not state.due and not any(self.is_busy(state.step(name)) for name in state.running):
                self.add(ExecutionFailed(failure(state)))
        elif not (state.running or state.waiting or state.unrouted or state.due):
            last = max(state.steps, key=lambda name: state.steps[name].result_seq, default=None)
            self.add(ExecutionCompleted(last))

    @staticmethod
    def is_busy(step: StepState) -> bool:
        return step.loop is None or step.loop.outstanding > 0


def failure(state: Execution) -> dict[str, Any]:
    """The error of an execution that failed: which steps, and why."""
    names = list(dict.fromkeys(state.failed))
    errors = {name: (state.step(name).error or state.error or {}) for name in names}
    told = [
        f"{name} ({errors[name]['message']})" if errors[name].get("message") else name
        for name in names
    ]
    return {"message": f"Failed steps: {', '.join(told)}", "steps": names, "errors": errors}
