"""Reads the tools of a step: single ones and sequences, in all their forms, and policy rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from app.engine.checks import Checks, duration, whole
from app.engine.playbook import Rule, Task
from app.engine.source import Path, Source

ACTIONS = ("continue", "retry", "break", "jump", "fail")
BACKOFFS = ("none", "fixed", "linear", "exponential")
#: Keys of a tool that are not part of its own input.
NOT_CONFIG = frozenset({"kind", "name", "set", "desc"})


class Kind(Protocol):
    """What the parser asks of a tool."""

    @property
    def queue(self) -> str: ...

    @property
    def verbatim(self) -> frozenset[str]: ...


Kinds = Mapping[str, Kind]
"""Tool kinds by name."""


class TaskReader(Checks):
    """Turns the ``tool`` of a step into tasks; *kinds* are the tools there are."""

    def __init__(self, source: Source, name: str, kinds: Kinds) -> None:
        super().__init__(source, name)
        self.kinds = kinds

    def tasks(self, raw: Mapping[str, Any], path: Path, step: str) -> tuple[tuple[Task, ...], bool]:
        tool, where = raw.get("tool"), (*path, "tool")
        if "tool" not in raw:
            return (Task(step, "noop", {}, self.kinds["noop"].queue),), False
        if isinstance(tool, Mapping):
            task = self._task(tool, where, step)
            return ((task,) if task else ()), False
        if not isinstance(tool, Sequence) or isinstance(tool, str) or not tool:
            self.problem(
                where,
                "tool-form",
                f"step {step!r}: tool must be a mapping with 'kind', or a list of them.",
            )
            return (), False
        tasks: list[Task] = []
        for number, item in enumerate(tool):
            task = self._task(*self._labelled(item, (*where, number)), f"task_{number}")
            if task and any(task.name == other.name for other in tasks):
                self.problem(
                    (*where, number),
                    "duplicate-task",
                    f"step {step!r} has two tasks named {task.name!r}.",
                )
            if task:
                tasks.append(task)
        self._jumps(tasks, where)
        return tuple(tasks), True

    def _labelled(self, item: Any, path: Path) -> tuple[Any, Path]:
        """The form ``{label: {kind: …}}`` as ``{name: label, kind: …}``."""
        if isinstance(item, Mapping) and "kind" not in item and len(item) == 1:
            label, inner = next(iter(item.items()))
            if isinstance(inner, Mapping):
                return {"name": label, **inner}, (*path, label)
        return item, path

    def _task(self, raw: Any, path: Path, default: str) -> Task | None:
        if not isinstance(raw, Mapping):
            self.problem(path, "tool-form", "a tool must be a mapping with 'kind'.")
            return None
        kind = raw.get("kind")
        if not isinstance(kind, str):
            self.problem(
                path,
                "tool-kind",
                "a tool needs 'kind'.",
                f"Known kinds: {', '.join(sorted(self.kinds))}.",
            )
            return None
        if kind not in self.kinds:
            hint = (
                self.nearest(kind, self.kinds) or f"Known kinds: {', '.join(sorted(self.kinds))}."
            )
            self.problem(
                (*path, "kind"), "unknown-tool", f"there is no tool of the kind {kind!r}.", hint
            )
            return None
        spec = self.mapping(raw, "spec", path)
        policy = self.mapping(spec, "policy", (*path, "spec"))
        config = {
            key: value for key, value in raw.items() if key not in NOT_CONFIG and key != "spec"
        }
        # Existing playbooks may write a tool's own keys below its spec.
        config = {**{key: value for key, value in spec.items() if key != "policy"}, **config}
        verbatim = self.kinds[kind].verbatim
        for key, value in config.items():
            if key not in verbatim:
                self.templates(value, (*path, key))
        rules = self._rules(policy.get("rules"), (*path, "spec", "policy", "rules"))
        set_ = self.templates(self.mapping(raw, "set", path), (*path, "set"))
        return Task(
            str(raw.get("name", default)), kind, config, self.kinds[kind].queue, rules, set_
        )

    def _jumps(self, tasks: list[Task], path: Path) -> None:
        names = [task.name for task in tasks]
        for number, task in enumerate(tasks):
            for rule in task.rules:
                if rule.do == "jump" and rule.to not in {
                    *names,
                    "previous",
                    "prev",
                    "_previous",
                    "@previous",
                }:
                    self.problem(
                        (*path, number),
                        "jump",
                        f"task {task.name!r} jumps to {rule.to!r}, which is no task here.",
                        self.nearest(str(rule.to), names),
                    )

    # ------------------------------------------------------------------ policy rules
    def _rules(self, raw: Any, path: Path) -> tuple[Rule, ...]:
        if raw is None:
            return ()
        if not isinstance(raw, list):
            self.problem(path, "rules", "policy rules must be a list.")
            return ()
        return tuple(
            rule
            for number, item in enumerate(raw)
            if (rule := self._rule(item, (*path, number))) is not None
        )

    def _rule(self, raw: Any, path: Path) -> Rule | None:
        if not isinstance(raw, Mapping) or not ({"when", "else", "then"} & set(raw)):
            self.problem(path, "rule", "a rule needs 'when' and 'then', or 'else'.")
            return None
        then = raw.get("then")
        if then is None and isinstance(raw.get("else"), Mapping):
            # The short form `else: {do: …}` means what it says.
            then = raw["else"].get("then", raw["else"])
        if not isinstance(then, Mapping):
            self.problem(path, "rule-then", "a rule needs 'then: {do: …}'.")
            return None
        action = str(then.get("do", ""))
        if action not in {*ACTIONS, ""}:
            self.problem(
                (*path, "then", "do"),
                "rule-do",
                f"'do: {action}' is unknown.",
                f"Use one of {', '.join(ACTIONS)}.",
            )
        self.condition(raw.get("when"), (*path, "when"))
        backoff = str(then.get("backoff", "none"))
        if backoff not in BACKOFFS:
            self.problem(
                (*path, "then", "backoff"),
                "backoff",
                f"backoff {backoff!r} is unknown.",
                f"Use one of {', '.join(BACKOFFS)}.",
            )
        return Rule(
            when=None if "else" in raw else raw.get("when"),
            do=action,
            attempts=self.number(then, "attempts", path, 3, whole),
            delay=self.number(then, "delay", path, 0.0, duration),
            backoff=backoff,
            max_delay=self.number(then, "max_delay", path, None, duration),
            jitter=bool(then.get("jitter", False)),
            to=str(then["to"]) if "to" in then else None,
            set=self.templates(self.mapping(then, "set", (*path, "then")), (*path, "then", "set")),
        )
