"""From YAML to ``Playbook``: older forms are normalised, mistakes are collected with their lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.engine import graph
from app.engine.checks import duration, whole
from app.engine.playbook import Arc, Loop, Playbook, Step
from app.engine.source import Path, Source, read, texts
from app.engine.tasks import Kinds, TaskReader
from app.engine.template import Needs, compile_condition, compile_text, has_template
from app.errors import InvalidPlaybookError, TemplateError

API_VERSIONS = ("noetl.io/v2", "noetl.io/v10")
STEP_KEYS = frozenset(
    {"step", "desc", "input", "spec", "loop", "tool", "set", "output", "next", "timeout", "pool"}
)
#: What a step without a tool may carry; anything else needs a tool to mean something.
ROUTER_KEYS = frozenset({"step", "desc", "spec", "set", "next", "pool", "timeout"})
REFUSED_KEYS = {
    "args": "Use 'input'.",
    "set_ctx": "Use 'set'.",
    "set_iter": "Use 'set'.",
    "vars": "Use 'workload'.",
    "when": "Put the condition on the arc that leads here.",
    "case": "Use 'next' with arcs and 'when'.",
}
_POOL = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")
#: Bytes of a step's name.
MAX_NAME = 128
_WHOLE_CONTEXT = re.compile(r"\b(variables|context)\b")


def parse(
    text: str | bytes, kinds: Kinds, *, name: str = "playbook", max_bytes: int | None = None
) -> Playbook:
    """Read a playbook. Raises ``InvalidPlaybookError`` with everything that is wrong with it."""
    source = read(text, name=name, **({"max_bytes": max_bytes} if max_bytes else {}))
    return _Parser(source, name, kinds).playbook()


def parse_step(raw: Mapping[str, Any], kinds: Kinds) -> Step:
    """Read one step from JSON data, as workers get it. Raises ``InvalidPlaybookError``."""
    parser = _Parser(Source(raw), f"step {raw.get('step')}", kinds)
    step = parser.step(raw, ())
    parser.finish()
    assert step is not None
    return step


class _Parser(TaskReader):
    """Walks the document once."""

    # ------------------------------------------------------------------ the document
    def playbook(self) -> Playbook:
        data = self.source.data
        if not isinstance(data, Mapping):
            self.problem(
                (),
                "playbook-form",
                "a playbook must be a mapping with apiVersion, kind, metadata, workflow",
            )
            raise InvalidPlaybookError(self.findings, source=self.name)
        self._head(data)
        workload = self.mapping(data, "workload", ())
        metadata = self.mapping(data, "metadata", ())
        steps = self._steps(data)
        entry = self._entry(data, steps)
        self._arcs(steps)
        self.finish()
        links = {name: [arc.step for arc in step.arcs] for name, step in steps.items()}
        path = (
            metadata.get("path")
            or data.get("path")
            or metadata.get("name")
            or data.get("name")
            or "unknown"
        )
        return Playbook(
            name=str(metadata.get("name") or path),
            path=str(path),
            steps=steps,
            entry=entry,
            workload=workload,
            graph=graph.build(links, entry),
            kind=str(data.get("kind", "Playbook")),
            meta=metadata,
        )

    def _head(self, data: Mapping[str, Any]) -> None:
        if data.get("apiVersion") not in API_VERSIONS:
            said = (
                f"apiVersion is {data['apiVersion']!r}"
                if "apiVersion" in data
                else "apiVersion is missing"
            )
            self.problem(
                ("apiVersion",),
                "api-version",
                f"{said}.",
                f"Write 'apiVersion: {API_VERSIONS[0]}'.",
            )
        if str(data.get("kind", "")).lower() not in {"playbook", "agent"}:
            said = f"kind is {data['kind']!r}" if "kind" in data else "kind is missing"
            self.problem(("kind",), "kind", f"{said}.", "Write 'kind: Playbook'.")
        metadata = data.get("metadata")
        if not isinstance(metadata, Mapping) or not (metadata.get("name") or metadata.get("path")):
            self.problem(
                ("metadata",),
                "metadata-name",
                "metadata.name is missing.",
                "Give the playbook a name.",
            )
        if "vars" in data:
            self.key_problem(
                ("vars",), "refused-key", "'vars' is not part of the language.", "Use 'workload'."
            )

    def _steps(self, data: Mapping[str, Any]) -> dict[str, Step]:
        workflow = data.get("workflow")
        if not isinstance(workflow, Sequence) or isinstance(workflow, str) or not workflow:
            self.problem(("workflow",), "workflow", "workflow must be a list of at least one step.")
            return {}
        steps: dict[str, Step] = {}
        for number, raw in enumerate(workflow):
            path: Path = ("workflow", number)
            step = self.step(raw, path)
            if step is None:
                continue
            if step.name in steps:
                self.problem(
                    (*path, "step"), "duplicate-step", f"the step {step.name!r} is defined twice."
                )
            steps[step.name] = step
        return steps

    def _entry(self, data: Mapping[str, Any], steps: Mapping[str, Step]) -> str:
        spec = self.mapping(self.mapping(data, "executor", ()), "spec", ("executor",))
        entry = spec.get("entry_step")
        if entry is None:
            return "start" if "start" in steps else next(iter(steps), "")
        if not isinstance(entry, str) or entry not in steps:
            self.problem(
                ("executor", "spec", "entry_step"),
                "entry-step",
                f"entry_step {entry!r} is no step.",
                self.nearest(entry, steps),
            )
        return str(entry)

    def _arcs(self, steps: Mapping[str, Step]) -> None:
        if not steps:
            return
        numbers = {
            str(raw.get("step")): number
            for number, raw in enumerate(self.source.data["workflow"])
            if isinstance(raw, Mapping)
        }
        for step in steps.values():
            for number, arc in enumerate(step.arcs):
                if arc.step not in steps and arc.step != "end":
                    path = self._arc_path(("workflow", numbers.get(step.name, 0), "next"), number)
                    self.problem(
                        path,
                        "arc-to-nowhere",
                        f"step {step.name!r} leads to {arc.step!r}, which is no step.",
                        self.nearest(arc.step, steps),
                    )

    def _arc_path(self, path: Path, number: int) -> Path:
        for candidate in (
            (*path, "arcs", number, "step"),
            (*path, number, "step"),
            (*path, number),
        ):
            if candidate in self.source.marks:
                return candidate
        return path

    # ------------------------------------------------------------------ a step
    def step(self, raw: Any, path: Path) -> Step | None:
        if not isinstance(raw, Mapping) or not isinstance(raw.get("step"), str | int):
            self.problem(
                path, "step-name", "a step must be a mapping with the key 'step', its name."
            )
            return None
        name = str(raw["step"])
        if len(name.encode()) > MAX_NAME:
            # Pointers carry the name, and a pointer is small.
            message = (
                f"the name of a step may have {MAX_NAME} bytes, this one has {len(name.encode())}."
            )
            self.problem((*path, "step"), "step-name", message)
        self._step_keys(raw, path, name)
        tasks, sequence = self.tasks(raw, path, name)
        spec = self.mapping(raw, "spec", path)
        arcs, inclusive = self._next(raw.get("next"), (*path, "next"), name)
        step = Step(
            name=name,
            tasks=tasks,
            sequence=sequence,
            arcs=arcs,
            inclusive=inclusive,
            loop=self._loop(raw, path),
            set=self.templates(self.mapping(raw, "set", path), (*path, "set")),
            input=self.templates(self.mapping(raw, "input", path), (*path, "input")),
            timeout=self._timeout(raw, spec, path),
            pool=self._pool(raw, spec, path),
            raw={key: value for key, value in raw.items() if key not in {"next", "desc"}},
        )
        return replace(step, needs=self._needs(step))

    def _step_keys(self, raw: Mapping[str, Any], path: Path, name: str) -> None:
        for key in raw:
            if key in REFUSED_KEYS:
                self.key_problem(
                    (*path, key),
                    "refused-key",
                    f"step {name!r}: {key!r} is not part of the language.",
                    REFUSED_KEYS[key],
                )
            elif key not in STEP_KEYS and (near := self._near_key(key, raw)):
                self.key_problem(
                    (*path, key), "unknown-key", f"step {name!r} has the unknown key {key!r}.", near
                )
            elif "tool" not in raw and key not in ROUTER_KEYS:
                self.key_problem(
                    (*path, key),
                    "tool-missing",
                    f"step {name!r} has {key!r} but no tool.",
                    "Add 'tool: {kind: …}'.",
                )

    @staticmethod
    def _near_key(key: str, raw: Mapping[str, Any]) -> str | None:
        near = difflib.get_close_matches(str(key), STEP_KEYS, n=1)
        return f"Did you mean '{near[0]}'?" if near and near[0] not in raw else None

    def _pool(self, raw: Mapping[str, Any], spec: Mapping[str, Any], path: Path) -> str | None:
        pool = raw.get("pool", spec.get("pool"))
        if pool is None or (isinstance(pool, str) and _POOL.match(pool)):
            return pool
        where = (*path, "pool") if "pool" in raw else (*path, "spec", "pool")
        hint = "Use letters, digits, '_' and '-', 64 at the most."
        self.problem(where, "pool", f"{pool!r} is not the name of a pool.", hint)
        return None

    def _timeout(self, raw: Mapping[str, Any], spec: Mapping[str, Any], path: Path) -> float | None:
        for holder, where in ((raw, path), (spec, (*path, "spec"))):
            if "timeout" in holder:
                seconds = duration(holder["timeout"])
                if seconds is None or seconds <= 0:
                    self.problem(
                        (*where, "timeout"),
                        "timeout",
                        f"timeout {holder['timeout']!r} is not a time.",
                        "Write seconds, or text such as '30s' or '5m'.",
                    )
                return seconds
        return None

    def _loop(self, raw: Mapping[str, Any], path: Path) -> Loop | None:
        if "loop" not in raw:
            return None
        loop, where = self.mapping(raw, "loop", path), (*path, "loop")
        spec = self.mapping(loop, "spec", where)
        if "in" not in loop:
            self.problem(where, "loop-in", "a loop needs 'in', the collection to go over.")
            return None
        mode = str(spec.get("mode", loop.get("mode", "sequential")))
        if mode not in {"sequential", "parallel", "async"}:
            self.problem(
                (*where, "spec", "mode"),
                "loop-mode",
                f"loop mode {mode!r} is unknown.",
                "Use sequential or parallel.",
            )
        window = spec.get("max_in_flight")
        if (
            window is not None
            and not (isinstance(window, str) and has_template(window))
            and whole(window) is None
        ):
            self.problem(
                (*where, "spec", "max_in_flight"),
                "max-in-flight",
                f"max_in_flight {window!r} is not a positive whole number.",
            )
        self.templates(loop["in"], (*where, "in"))
        self.templates(window, (*where, "spec", "max_in_flight"))
        iterator = loop.get("iterator", "item")
        if not isinstance(iterator, str):
            self.problem((*where, "iterator"), "iterator", "iterator must be a name.")
        return Loop(loop["in"], str(iterator), parallel=mode != "sequential", max_in_flight=window)

    # ------------------------------------------------------------------ arcs
    def _next(self, raw: Any, path: Path, step: str) -> tuple[tuple[Arc, ...], bool]:
        if raw is None:
            return (), False
        inclusive = False
        items = raw
        if isinstance(raw, Mapping) and ("arcs" in raw or "spec" in raw):
            spec = self.mapping(raw, "spec", path)
            mode = str(spec.get("mode", "exclusive"))
            if mode not in {"exclusive", "inclusive"}:
                self.problem(
                    (*path, "spec", "mode"),
                    "next-mode",
                    f"next mode {mode!r} is unknown.",
                    "Use exclusive or inclusive.",
                )
            inclusive, items, path = mode == "inclusive", raw.get("arcs") or [], (*path, "arcs")
        elif isinstance(raw, str | Mapping):
            items = [raw]
        elif isinstance(raw, list):
            # The older form: a list without conditions runs in parallel.
            inclusive = all(
                isinstance(item, str) or (isinstance(item, Mapping) and "when" not in item)
                for item in raw
            )
        if not isinstance(items, list):
            self.problem(path, "next-form", f"step {step!r}: next must have 'arcs', a list.")
            return (), False
        arcs = [self._arc(item, (*path, number), step) for number, item in enumerate(items)]
        return tuple(arc for arc in arcs if arc is not None), inclusive

    def _arc(self, raw: Any, path: Path, step: str) -> Arc | None:
        if isinstance(raw, str):
            return Arc(raw)
        if not isinstance(raw, Mapping) or not isinstance(raw.get("step"), str | int):
            self.problem(path, "arc-step", f"step {step!r}: an arc needs 'step', where it leads.")
            return None
        when = raw.get("when")
        self.condition(when, (*path, "when"))
        names_failure = isinstance(when, str) and bool(
            re.search(
                rf"\bevent\.name\b|\bevent\[|\boutput\.(status|error)\b|\b{re.escape(step)}\.(error|status)\b",
                when,
            )
        )
        set_ = self.templates(self.mapping(raw, "set", path), (*path, "set"))
        return Arc(str(raw["step"]), when, set_, names_failure)

    # ------------------------------------------------------------------ what it needs
    def _needs(self, step: Step) -> Needs:
        needs = _template_needs(step.input)
        for task in step.tasks:
            verbatim = self.kinds[task.kind].verbatim
            for key, value in task.config.items():
                if key not in verbatim:
                    needs |= _template_needs(value)
                elif any(_WHOLE_CONTEXT.search(text) for _, text in texts(value)):
                    needs |= Needs(everything=True)
            needs |= _template_needs(task.set)
            for rule in task.rules:
                needs |= _template_needs(rule.set) | _condition_needs(rule.when)
        return needs


def _template_needs(data: Any) -> Needs:
    needs = Needs()
    for _, text in texts(data):
        if has_template(text):
            try:
                needs |= compile_text(text).needs
            except TemplateError:
                continue  # found and reported where the text was checked
    return needs


def _condition_needs(when: Any) -> Needs:
    try:
        condition = compile_condition(when)
    except TemplateError:
        return Needs()  # the same
    return condition.needs if condition else Needs()
