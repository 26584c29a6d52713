"""The names that templates of the engine see, and the events that hold what a worker needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.engine.playbook import Step
from app.engine.scope import Lazy, Scope, as_result, output_of
from app.engine.state import Execution
from app.engine.values import Values

#: A completion whose arc led somewhere: step and visit.
Origin = tuple[str, int]

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
        names = [*state.steps, *state.ctx] if needs.everything else needs.names
        reads: dict[str, int] = {}
        for name in sorted(set(names)):
            if name in state.ctx:
                reads[f"ctx.{name}"] = state.ctx[name]
            if name in state.steps and state.steps[name].result_seq:
                reads[name] = state.steps[name].result_seq
        if "result" in needs.names and "result" not in reads and source is not None:
            reads["result"] = state.step(source[0]).result_seq
        return reads

    def before(self, source: Origin | None) -> Scope:
        """The names before a step runs that *source* led to."""
        state, values = self.state, self.values
        local = execution_names(self.execution_id, state)
        if source is not None:
            seq = state.step(source[0]).result_seq
            return self._scope(
                Lazy(
                    {**local, "result": seq},
                    lambda name: values.result(seq) if name == "result" else local[name],
                )
            )
        return self._scope(local)

    def after(self, step: Step) -> Scope:
        """The names that ``set`` and arcs of a completed step see."""
        state = self.state.step(step.name)
        fixed = execution_names(self.execution_id, self.state)
        # A loop that could not be entered has no loop state: it failed as a plain step does.
        plain = "call.error" if state.status == "failed" else "call.done"
        name = plain if state.loop is None else "loop.done"

        def load(key: str) -> Any:
            if key in fixed:
                return fixed[key]
            result = self.values.result(state.ended_seq)
            if key == "output":
                return output_of(None if name == "call.error" else result, state.error)
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


def execution_names(execution_id: int, state: Execution) -> dict[str, Any]:
    """Names of the execution itself; ids are text, as JSON clients need them."""
    text = str(execution_id)
    return {
        "execution_id": text,
        "catalog_id": str(state.catalog_id),
        "path": state.path,
        "job": {"uuid": text, "id": text, "execution_id": text},
    }


def scope_key(key: str) -> str:
    """The bare name of a ``set`` key: ``ctx.x`` means x."""
    return _SCOPES.sub("", key)
