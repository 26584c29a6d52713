"""What must happen next: a pure function of the playbook, the state, and the values templates read.

    decide(playbook, state, values, limits) -> events to append

Deciding twice on the same state gives the same events; deciding after they were folded gives none.
An execution is never left with nothing running, nothing scheduled and no end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.engine.events import (
    CtxUpdated,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    StepCancelled,
    StepKey,
    StepRouted,
    StepSkipped,
)
from app.engine.ledger import Limits
from app.engine.names import Origin, scope_key
from app.engine.outgoing import Outgoing
from app.engine.playbook import Arc, Playbook, Step
from app.engine.state import Execution, StepState
from app.engine.templates.scope import Scope
from app.engine.templates.template import holds, render
from app.engine.values import Values
from app.errors import TemplateError

__all__ = ["Limits", "cancel", "decide", "failure", "last_step"]


def decide(
    execution_id: int, playbook: Playbook, state: Execution, values: Values, limits: Limits
) -> list[Event]:
    """The events that follow from *state*. Raises ``ValueNeeded`` where *values* lacks one."""
    if not state.is_running:
        return []
    turn = _Turn(execution_id, playbook, state, values, limits)
    turn.run()
    return turn.events


def cancel(state: Execution, reason: str | None, *, cascade: bool = True) -> list[Event]:
    """The events that cancel an execution; none where it has ended."""
    if not state.is_running:
        return []
    return [*_stopped(state), ExecutionCancelled(reason, cascade)]


def _stopped(state: Execution) -> list[Event]:
    return [StepCancelled(name, state.step(name).visit) for name in sorted(state.running)]


class _Turn(Outgoing):
    """One decision: follows arcs, fires joins, and ends the execution where nothing is left to do."""

    def run(self) -> None:
        if self.state.deadline is not None and self.values.now >= self.state.deadline:
            self.time_out()
            return
        if self.state.paused:
            return
        if not self.state.steps:
            self.enter(self.step(self.playbook.entry), None)
        while True:
            before = len(self.events)
            self.go_on()
            for name in self.state.unrouted:
                # A completion before it may have entered the step again.
                if name in self.state.unrouted:
                    self.route(self.step(name))
            for name in sorted(self.state.running):
                self.advance_loop(self.step(name))
            if not self.state.failed:
                self.fire_joins()
            if len(self.events) == before:
                self.finish()
            if len(self.events) == before or not self.state.is_running:
                break

    def go_on(self) -> None:
        """Take up what waited: sub-playbooks to start, those waited for long enough, due attempts."""
        for key, seq in self.state.calls.items():
            self.start_parked(key, seq)
        for child in self.state.children.values():
            self.settle(child)
        for due in self.state.due:
            self.try_again(due)

    def time_out(self) -> None:
        for event in _stopped(self.state):
            self.add(event)
        message = "the execution ran longer than its playbook allows (executor.spec.timeout)"
        self.add(ExecutionFailed({"kind": "timeout", "message": message}))

    # ------------------------------------------------------------------ routing
    def route(self, step: Step) -> None:
        """Evaluate the arcs of a completion, once. After a failure nothing new is started."""
        visit = self.state.step(step.name).visit
        if self.state.failed:
            self.drain(step)
            return
        if self.was_final(step) and self.state.step(step.name).status == "done":
            self.add(StepRouted(step.name, visit))
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

    def was_final(self, step: Step) -> bool:
        """It ran because nothing else was left: then it leads nowhere, either."""
        playbook = self.playbook
        began_alone = self.state.step(step.name).source is None and step.name != playbook.entry
        return step.name == playbook.executor.final_step and began_alone

    def drain(self, step: Step) -> None:
        state = self.state.step(step.name)
        if state.status == "failed":
            self.add(StepRouted(step.name, state.visit, handled=False, error=state.error))

    def match_arcs(self, step: Step) -> list[Arc] | None:
        """The arcs taken, after ``set`` was applied; None: the step failed and no arc caught it."""
        state = self.state.step(step.name)
        failed = state.status == "failed"
        if step.set and state.status == "done":
            self.update_ctx(step, [step.set])
        scope: Scope | None = None
        matched: list[Arc] = []
        for arc in step.arcs:
            if matched and not step.inclusive:
                break
            if failed and not arc.names_failure:
                continue
            if arc.when is not None and scope is None:
                scope = self.names.after(step)
            if scope is None or holds(arc.when, scope):
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
        if not taken and self.may_not_end(step):
            self.refuse_end(step, visit)
            return
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
            if not self.state.failed:
                self.enter(self.playbook.steps[target], (step.name, visit))
        self.skip_others(step, set(taken))
        if len(self.events) == before:
            self.add(StepRouted(step.name, visit, taken=taken))

    def may_not_end(self, step: Step) -> bool:
        """The playbook calls it an error when a branch ends with *step*."""
        executor = self.playbook.executor
        ends = {"end", executor.final_step}
        return executor.no_next_is_error and not step.quiet and step.name not in ends

    def refuse_end(self, step: Step, visit: int) -> None:
        message = f"no arc leads on from step {step.name!r} (executor.spec.no_next_is_error)"
        error = {"kind": "routing", "message": message, "retryable": False}
        self.add(StepRouted(step.name, visit, handled=False, error=error))

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
            # Over back arcs, too: a cycle that still turns may take its way here later.
            if there.visit or any(graph.reaches(name, target) for name in live):
                continue
            self.add(
                StepSkipped(
                    target, 1, source=step.name, source_visit=self.state.step(step.name).visit
                )
            )

    def fire_joins(self) -> None:
        for name in sorted(self.state.waiting, key=self.playbook.graph.index.__getitem__):
            if not self.state.failed and self.is_ready(name, self.live()):
                self.enter(self.playbook.steps[name], self.state.step(name).tokens[-1])

    # ------------------------------------------------------------------ entering
    def enter(self, step: Step, source: Origin | None) -> None:
        """Begin the next visit of *step*, where its admission lets it."""
        visit = self.state.step(step.name).visit + 1
        limit = self.playbook.executor.max_visits or self.limits.max_visits
        if visit > limit:
            self.stop_cycle(step, visit, source, limit)
            return
        try:
            passed_over = self.passes_over(step, visit, source)
        except TemplateError as exc:
            error = {"kind": "template", "message": f"before step {step.name!r}: {exc}"}
            self.refuse(StepKey(step.name, visit), source, error)
            return
        if passed_over is None:
            self.begin(step, visit, source)
        else:
            self.add(passed_over)

    def passes_over(self, step: Step, visit: int, source: Origin | None) -> StepSkipped | None:
        """The event that says the step does not run now; None where it may."""
        if step.guard is None and not step.admit:
            return None
        scope = self.names.before(source)
        origin, since = source or (None, 0)
        skipped = StepSkipped(step.name, visit, source=origin, source_visit=since)
        if not holds(step.guard, scope):
            return replace(skipped, reason="its 'when' is false", walks_on=True)
        admitted = next((rule.allow for rule in step.admit if holds(rule.when, scope)), True)
        return None if admitted else replace(skipped, reason="not admitted")

    def stop_cycle(self, step: Step, visit: int, source: Origin | None, limit: int) -> None:
        """Fail a step entered too often. No arc may catch that: it could lead back here for ever."""
        message = f"step {step.name!r} was entered more than {limit} times"
        own = self.playbook.executor.max_visits is not None
        said_by = "executor.spec.policy.limits" if own else "setting CALLBOARD_MAX_VISITS"
        error = {"kind": "limit", "message": f"{message} ({said_by})"}
        self.refuse(StepKey(step.name, visit), source, error)
        self.add(StepRouted(step.name, visit, handled=False, error=error))

    def update_ctx(self, step: Step, sets: list[Mapping[str, Any]]) -> None:
        scope = self.names.after(step)
        updates: dict[str, Any] = {}
        for assignments in sets:
            for key, value in assignments.items():
                updates[scope_key(key)] = render(value, scope)
                self.check_storable(updates[scope_key(key)], f"set: {key}")
        self.add(CtxUpdated(step.name, self.state.step(step.name).visit, updates))

    # ------------------------------------------------------------------ the end
    def finish(self) -> None:
        """End the execution where nothing runs and nothing can, after its final step."""
        state = self.state
        if state.failed:
            if state.due or any(self.is_busy(state.step(name)) for name in state.running):
                return
        elif state.running or state.waiting or state.unrouted or state.due:
            return
        final = self.playbook.executor.final_step
        if final is not None and state.step(final).status not in {"done", "failed"}:
            # It always runs: neither an admission nor an older 'when' is asked.
            self.begin(self.step(final), state.step(final).visit + 1, None)
        elif state.failed:
            self.add(ExecutionFailed(failure(state)))
        else:
            self.add(ExecutionCompleted(last_step(state)))

    @staticmethod
    def is_busy(step: StepState) -> bool:
        return step.loop is None or step.loop.is_busy


def last_step(state: Execution) -> str | None:
    """The step that ended last with a result; None where none has one."""
    ended = {name: step.result_seq for name, step in state.steps.items() if step.result_seq}
    return max(ended, key=ended.__getitem__, default=None)


def failure(state: Execution) -> dict[str, Any]:
    """The error of an execution that failed: which steps, and why."""
    names = list(dict.fromkeys(state.failed))
    errors = {name: _in_short(state.step(name).error or state.error or {}) for name in names}
    told = [
        f"{name} ({errors[name]['message']})" if errors[name].get("message") else name
        for name in names
    ]
    return {"message": f"Failed steps: {', '.join(told)}", "steps": names, "errors": errors}


def _in_short(error: Mapping[str, Any]) -> dict[str, Any]:
    """*error* without what its task was given: that stays with the step's own event."""
    return {key: value for key, value in error.items() if key != "rendered"}
