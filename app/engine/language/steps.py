"""Reads one step of the workflow."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from app.engine.language.arcs import read_next
from app.engine.language.checks import Checks, span
from app.engine.language.looping import read_loop
from app.engine.language.needs import needs_of_step
from app.engine.language.older import modern_step
from app.engine.language.rules import read_admission
from app.engine.language.selection import read_selection
from app.engine.language.source import Path
from app.engine.language.tasks import PLAYBOOK, Kinds, TaskReader
from app.engine.language.workbook import Workbook
from app.engine.playbook import Step, Task

STEP_KEYS = frozenset(
    {
        "step", "desc", "input", "spec", "loop", "tool", "set", "output", "next", "timeout", "pool",
        "output_select",
        # older words
        "args", "when", "case", "vars", "timeout_seconds",
    }
)  # fmt: skip
#: What a step without a tool may carry; anything else needs a tool to mean something.
ROUTER_KEYS = frozenset(
    {"step", "desc", "spec", "set", "next", "pool", "timeout", "when", "case", "vars"}
) | {"timeout_seconds"}
REFUSED_KEYS = {
    "set_ctx": "Use 'set: {ctx.name: …}'.",
    "set_iter": "Use 'set' in a rule of the tool: 'then: {set: {iter.name: …}}'.",
    "result": "Use 'set' to keep parts of the result; the result itself is read under the step's name.",
    "outcome": "Use 'spec: {policy: {rules: [{when: …, then: {do: …}}]}}' of the tool.",
    "type": "Use 'tool: {kind: …}'.",
}
#: Bytes of a step's name.
MAX_NAME = 128
_POOL = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")
_TIMEOUTS = ("timeout", "timeout_seconds")
#: What a worker does not need of a step.
_NOT_RAW = frozenset({"next", "desc"})


def is_pool(name: str) -> bool:
    """Whether a pool of workers can have this *name*."""
    return _POOL.fullmatch(name) is not None


class StepReader:
    """Reads steps of one document; *known* are the names of all its steps (None: not known)."""

    def __init__(
        self, checks: Checks, kinds: Kinds, workbook: Workbook, known: Collection[str] | None
    ) -> None:
        self.checks = checks
        self.kinds = kinds
        self.tools = TaskReader(checks, kinds)
        self.workbook = workbook
        self.known = known

    def step(self, raw: Any, path: Path) -> Step | None:
        """The step; None, and a finding, where it has no name."""
        name = self._name(raw, path)
        if name is None:
            return None
        self._keys(raw, path, name)
        raw = modern_step(self.checks, raw, path)
        tasks, sequence = self._tasks(raw, path, name)
        checks, spec = self.checks, self.checks.mapping(raw, "spec", path)
        policy = checks.mapping(spec, "policy", (*path, "spec"))
        leads = read_next(checks, raw.get("next"), (*path, "next"), name, self.known)
        step = Step(
            name=name,
            tasks=tasks,
            sequence=sequence,
            arcs=leads.arcs,
            inclusive=leads.inclusive,
            quiet=leads.quiet,
            loop=read_loop(self.tools, raw, path),
            set=checks.engine_templates(checks.mapping(raw, "set", path), (*path, "set")),
            input=self._input(raw, path, tasks),
            timeout=self._timeout(raw, spec, path),
            pool=self._pool(raw, spec, path),
            admit=read_admission(checks, policy, (*path, "spec", "policy")),
            guard=checks.engine_condition(raw.get("when"), (*path, "when")),
            output_select=read_selection(checks, raw, path),
            raw={key: value for key, value in raw.items() if key not in _NOT_RAW},
        )
        return replace(step, needs=needs_of_step(step, self.kinds))

    def _name(self, raw: Any, path: Path) -> str | None:
        if not isinstance(raw, Mapping) or not isinstance(raw.get("step"), str | int):
            message = "a step must be a mapping with the key 'step', its name."
            self.checks.problem(path, "step-name", message)
            return None
        name = str(raw["step"])
        size = len(name.encode(errors="surrogatepass"))
        if size > MAX_NAME:
            # Pointers carry the name, and a pointer is small.
            message = f"the name of a step may have {MAX_NAME} bytes, this one has {size}."
            self.checks.problem((*path, "step"), "step-name", message)
        return name

    def _keys(self, raw: Mapping[str, Any], path: Path, name: str) -> None:
        for key in raw:
            where = (*path, key)
            if key in REFUSED_KEYS:
                message = f"step {name!r}: {key!r} is not part of the language."
                self.checks.key_problem(where, "refused-key", message, REFUSED_KEYS[key])
            elif key not in STEP_KEYS and (near := _near_key(key, raw)):
                message = f"step {name!r} has the unknown key {key!r}."
                self.checks.key_problem(where, "unknown-key", message, near)
            elif "tool" not in raw and key not in ROUTER_KEYS:
                message = f"step {name!r} has {key!r} but no tool."
                hint = "Add 'tool: {kind: …}'."
                self.checks.key_problem(where, "tool-missing", message, hint)

    def _tasks(self, raw: dict[str, Any], path: Path, name: str) -> tuple[tuple[Task, ...], bool]:
        """The step's tasks; *raw* gets its tool in today's form, with workbook tools in place."""
        if "tool" not in raw:
            return (self.tools.router(name),), False
        where = (*path, "tool")
        raw["tool"] = self.workbook.expand(raw["tool"], where)
        return self.tools.tasks(raw["tool"], where, name)

    def _input(
        self, raw: Mapping[str, Any], path: Path, tasks: tuple[Task, ...]
    ) -> Mapping[str, Any]:
        given: Mapping[str, Any] = self.checks.mapping(raw, "input", path)
        if any(task.kind == PLAYBOOK for task in tasks):
            self.checks.engine_templates(given, (*path, "input"))
        else:
            self.checks.templates(given, (*path, "input"))
        return given

    def _timeout(self, raw: Mapping[str, Any], spec: Mapping[str, Any], path: Path) -> float | None:
        return read_timeout(self.checks, [(raw, path), (spec, (*path, "spec"))])

    def _pool(self, raw: Mapping[str, Any], spec: Mapping[str, Any], path: Path) -> str | None:
        pool = raw.get("pool", spec.get("pool"))
        if pool is None or (isinstance(pool, str) and is_pool(pool)):
            return pool
        where = (*path, "pool") if "pool" in raw else (*path, "spec", "pool")
        hint = "Use letters, digits, '_' and '-', 64 at the most."
        self.checks.problem(where, "pool", f"{pool!r} is not the name of a pool.", hint)
        return None


def read_timeout(checks: Checks, holders: list[tuple[Mapping[str, Any], Path]]) -> float | None:
    """Seconds from the first of *holders* (each with its place) that names a timeout."""
    for holder, path in holders:
        for key in _TIMEOUTS:
            if key not in holder:
                continue
            seconds = span(holder[key])
            if seconds is None:
                message = f"timeout {holder[key]!r} is not a time."
                hint = "Write seconds, or text such as '30s' or '5m'."
                checks.problem((*path, key), "timeout", message, hint)
            return seconds
    return None


def _near_key(key: str, raw: Mapping[str, Any]) -> str | None:
    near = difflib.get_close_matches(str(key), STEP_KEYS, n=1)
    return f"Did you mean '{near[0]}'?" if near and near[0] not in raw else None
