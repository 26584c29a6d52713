"""The names that templates of the engine see, and the events that hold what a worker needs."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, cast

from app.engine.events import NO_LOOP, StepKey
from app.engine.iteration import loop_names
from app.engine.playbook import Step
from app.engine.references import output_over
from app.engine.state import Execution
from app.engine.templates.scope import Lazy, Scope, as_result
from app.engine.values import Values

#: A completion whose arc led somewhere: step and visit.
Origin = tuple[str, int]

#: ``event.name`` after a step without a loop, by its status.
_PLAIN_EVENTS = {"done": "call.done", "failed": "call.error", "skipped": "step.skipped"}

#: Names of the execution that are words of playbooks, too.
OWN_WORDS = ("path", "version")

_SCOPES = re.compile(r"^(ctx|iter|step)\.")


class Names:
    """Scopes over one state of an execution; values are looked up when a template reads them."""

    def __init__(self, execution_id: int, state: Execution, values: Values) -> None:
        self.execution_id = execution_id
        self.state = state
        self.values = values

    def reads(self, step: Step, source: Origin | None) -> dict[str, int]:
        """Which event holds each value that the step's templates name; ``ctx.`` marks ctx values."""
        needs, state = step.needs, self.state
        # Of what is read below the workload, the workload itself has nearly everything.
        elsewhere = needs.workload - self.values.workload().keys()
        names = [*state.steps, *state.ctx] if needs.everything else needs.names | elsewhere
        reads: dict[str, int] = {}
        for name in sorted(set(names)):
            if name in state.ctx:
                reads[f"ctx.{name}"] = state.ctx[name]
            if name in state.steps and state.steps[name].result_seq:
                reads[name] = state.steps[name].result_seq
        led = state.step(source[0]).result_seq if source is not None else 0
        if "result" in needs.names and "result" not in reads and led:
            reads["result"] = led
        return reads

    def before(self, source: Origin | None) -> Scope:
        """The names before a step runs that *source* led to."""
        state, values = self.state, self.values
        local = self._fixed()
        if source is not None:
            seq = state.step(source[0]).result_seq
            return self._scope(
                Lazy(
                    {**local, "result": seq},
                    lambda name: (
                        (values.result(seq) if seq else None) if name == "result" else local[name]
                    ),
                )
            )
        return self._scope(local)

    def inside(self, step: Step, key: StepKey, source: Origin | None) -> Scope:
        """The names that the tool of *step* sees; with those of the loop, where it is in one."""
        scope = self.before(source)
        loop = self.state.step(step.name).loop
        if key.iteration == NO_LOOP or loop is None or step.loop is None:
            return scope
        seq, place = loop.item_of(key.iteration)
        items = self.values.items(seq)
        item = items if place is None else items[place]
        inner = loop_names(step.loop, item, key.iteration, loop.size)
        # Chained and not copied: a copy would read the result that led here, wanted or not.
        return replace(scope, local=ChainMap(inner, cast("dict[str, Any]", scope.local)))

    def _fixed(self) -> dict[str, Any]:
        state = self.state
        layers = (state.ctx, state.steps, self.values.workload())
        taken = {name for name in OWN_WORDS if any(name in layer for layer in layers)}
        return {**execution_names(self.execution_id, state, taken), "now_at": self.values.now}

    def after(self, step: Step) -> Scope:
        """The names that ``set`` and arcs of a completed step see."""
        state = self.state.step(step.name)
        fixed = self._fixed()
        # A loop that could not be entered has no loop state: it failed as a plain step does.
        plain = _PLAIN_EVENTS[state.status]
        name = plain if state.loop is None else "loop.done"

        def load(key: str) -> Any:
            if key in fixed:
                return fixed[key]
            result = None if state.status == "skipped" else self.values.result(state.ended_seq)
            if key == "output":
                return output_over(None if name == "call.error" else result, state.error)
            if key == "event":
                return {
                    "name": name,
                    "step": step.name,
                    "payload": {"response": result, "error": state.error},
                    "timestamp": None,
                }
            return as_result(result)

        return self._scope(Lazy(dict.fromkeys([*fixed, "output", "event", "result"]), load))

    def _scope(self, local: Mapping[str, Any]) -> Scope:
        state, values = self.state, self.values
        results = {name: step.result_seq for name, step in state.steps.items() if step.result_seq}
        return Scope(
            workload=values.workload(),
            results=Lazy(results, lambda name: values.result(results[name])),
            ctx=Lazy(state.ctx, lambda name: values.ctx(state.ctx[name], name)),
            local=local,
        )


def execution_names(
    execution_id: int, state: Execution, taken: Container[str] = ()
) -> dict[str, Any]:
    """Names of the execution itself; ids are text, as JSON clients need them.

    ``path`` and ``version`` are words that playbooks use, too: names that are *taken* keep their
    meaning.
    """
    text = str(execution_id)
    names = {
        "execution_id": text,
        "catalog_id": str(state.catalog_id),
        "job": {"uuid": text, "id": text, "execution_id": text},
    }
    ours = dict(zip(OWN_WORDS, (state.path, state.playbook_version), strict=True))
    return {**names, **{name: value for name, value in ours.items() if name not in taken}}


def scope_key(key: str) -> str:
    """The bare name of a ``set`` key: ``ctx.x`` means x."""
    return _SCOPES.sub("", key)
