"""Reads the tools of a step: single ones and sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from app.engine.language.checks import Checks, kind_of
from app.engine.language.rules import read_policy
from app.engine.language.source import Path
from app.engine.playbook import Task
from app.engine.policy import PREVIOUS

#: Keys of a tool that are not part of its own input.
NOT_CONFIG = frozenset({"kind", "name", "set", "desc", "spec", "output", "output_select"})
#: The tool whose ``name`` is its own key, too: that of the secret, where nothing else says it.
SECRETS = "secrets"
#: The tool that starts another playbook. The engine renders its input: no worker takes part.
PLAYBOOK = "playbook"


class Kind(Protocol):
    """What the parser asks of a tool."""

    @property
    def queue(self) -> str: ...

    @property
    def verbatim(self) -> frozenset[str]: ...


Kinds = Mapping[str, Kind]
"""Tool kinds by name."""


def own_config(tool: Mapping[str, Any]) -> dict[str, Any]:
    """What of *tool* is its own input."""
    rest = NOT_CONFIG - {"name"} if tool.get("kind") == SECRETS else NOT_CONFIG
    return {key: value for key, value in tool.items() if key not in rest}


class TaskReader:
    """Turns tools in today's form into tasks; *kinds* are the tools there are."""

    def __init__(self, checks: Checks, kinds: Kinds) -> None:
        self.checks = checks
        self.kinds = kinds

    def tasks(self, tool: Any, path: Path, step: str) -> tuple[tuple[Task, ...], bool]:
        """The tasks of *tool* (what a step has below the key) and whether they are a sequence."""
        if isinstance(tool, Mapping):
            task = self.task(tool, path, step)
            return ((task,) if task else ()), False
        if not isinstance(tool, list) or not tool:
            self.checks.problem(
                path,
                "tool-form",
                f"step {step!r}: tool must be a mapping with 'kind', or a list of them.",
            )
            return (), False
        tasks: list[Task] = []
        for number, item in enumerate(tool):
            task = self.task(item, (*path, number), f"task_{number}")
            if task is None:
                continue
            if any(task.name == other.name for other in tasks):
                message = f"step {step!r} has two tasks named {task.name!r}."
                self.checks.problem((*path, number), "duplicate-task", message)
            tasks.append(task)
        self._jumps(tasks, path)
        return tuple(tasks), True

    def router(self, step: str) -> Task:
        """The task of a step without a tool, which does nothing."""
        return Task(step, "noop", {}, self.kinds["noop"].queue)

    def task(self, raw: Any, path: Path, name: str) -> Task | None:
        """One tool; *name* is its task's where it has none of its own."""
        kind = self._kind(raw, path)
        if kind is None:
            return None
        spec = self.checks.mapping(raw, "spec", path)
        policy = self.checks.mapping(spec, "policy", (*path, "spec"))
        config = self._config(raw, spec, path, kind)
        return Task(
            str(raw.get("name") or name),
            kind,
            config,
            self.kinds[kind].queue,
            read_policy(self.checks, policy, (*path, "spec", "policy")),
            self.checks.templates(self.checks.mapping(raw, "set", path), (*path, "set")),
        )

    def kind(self, kind: Any, path: Path) -> bool:
        """Whether there is a tool of that *kind*, whose name stands at *path*."""
        if isinstance(kind, str) and kind in self.kinds:
            return True
        hint = self.checks.nearest(kind, self.kinds) or self._known()
        message = f"there is no tool of the kind {kind!r}."
        self.checks.problem(path, "unknown-tool", message, hint)
        return False

    def _known(self) -> str:
        return f"Known kinds: {', '.join(sorted(self.kinds))}."

    def _kind(self, raw: Any, path: Path) -> str | None:
        if not isinstance(raw, Mapping):
            message = f"a tool must be a mapping with 'kind', not {kind_of(raw)}."
            self.checks.problem(path, "tool-form", message)
            return None
        kind = raw.get("kind")
        if not isinstance(kind, str):
            self.checks.problem(path, "tool-kind", "a tool needs 'kind'.", self._known())
            return None
        return kind if self.kind(kind, (*path, "kind")) else None

    def _config(
        self, raw: Mapping[str, Any], spec: Mapping[str, Any], path: Path, kind: str
    ) -> dict[str, Any]:
        own = own_config(raw)
        # Existing playbooks may write a tool's own keys below its spec.
        below = {key: value for key, value in spec.items() if key != "policy" and key not in own}
        places = {**{key: (*path, "spec", key) for key in below}, **{k: (*path, k) for k in own}}
        check = self.checks.engine_templates if kind == PLAYBOOK else self.checks.templates
        verbatim = self.kinds[kind].verbatim
        config = {**below, **own}
        for key, value in config.items():
            if key not in verbatim:
                check(value, places[key])
        self._script(config, places)
        self._libs(config, places)
        return config

    def _script(self, config: Mapping[str, Any], places: Mapping[str, Path]) -> None:
        """``script`` is text, or ``{uri, source: {type, …}}``; what it names is read by the tool."""
        script = config.get("script")
        if script is None or isinstance(script, str):
            return
        path = places["script"]
        hint = "Write 'script: {uri: …, source: {type: file}}'."
        if not isinstance(script, Mapping):
            message = f"script must be text or a mapping, not {kind_of(script)}."
            self.checks.problem(path, "script-form", message, hint)
            return
        source = script.get("source")
        for part, value in ((("uri",), script.get("uri")), (("source", "type"), _type_of(source))):
            if value is not None and not isinstance(value, str):
                message = f"script.{'.'.join(part)} must be text, not {kind_of(value)}."
                self.checks.problem((*path, *part), "script-form", message, hint)
        if source is not None and not isinstance(source, Mapping):
            message = f"script.source must be a mapping, not {kind_of(source)}."
            self.checks.problem((*path, "source"), "script-form", message, hint)
        if not {"uri", "source", "path", "code"} & script.keys():
            message = "the script does not say where its text is."
            self.checks.problem(path, "script-form", message, hint)

    def _libs(self, config: Mapping[str, Any], places: Mapping[str, Path]) -> None:
        """``libs`` is ``{alias: module}``, ``{alias: {from, import}}`` or a list of modules."""
        libs = config.get("libs")
        if libs is None or isinstance(libs, str):
            return
        path = places["libs"]
        hint = "Write 'libs: {np: numpy}', or 'libs: {sqrt: {from: math, import: sqrt}}'."
        named: dict[Any, Any]
        if isinstance(libs, Mapping):
            named = dict(libs)
        elif isinstance(libs, list):
            named = dict(enumerate(libs))
        else:
            message = f"libs must be a mapping from names to modules, not {kind_of(libs)}."
            self.checks.problem(path, "libs-form", message, hint)
            return
        for name, module in named.items():
            parts = list(module.values()) if isinstance(module, Mapping) else [module]
            if not parts or not all(isinstance(part, str) for part in parts):
                message = f"libs: {name!r} must name a module."
                self.checks.problem((*path, name), "libs-form", message, hint)

    def _jumps(self, tasks: list[Task], path: Path) -> None:
        names = [task.name for task in tasks]
        for number, task in enumerate(tasks):
            for rule in task.rules:
                if rule.do == "jump" and rule.to not in PREVIOUS and rule.to not in names:
                    self.checks.problem(
                        (*path, number),
                        "jump",
                        f"task {task.name!r} jumps to {rule.to!r}, which is no task here.",
                        self.checks.nearest(rule.to, names),
                    )


def _type_of(source: Any) -> Any:
    return source.get("type") if isinstance(source, Mapping) else None
