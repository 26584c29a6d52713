"""The workbook: tools by name, put in the place of the steps that use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.engine.language.checks import Checks, kind_of
from app.engine.language.older_tools import modern_tool
from app.engine.language.source import Path
from app.engine.language.tasks import SECRETS

KIND = "workbook"
#: Keys of the use of a workbook tool that say which it is, and nothing about the tool.
_CALL = frozenset({"kind", "name", "task", "desc", "input"})
#: Keys of an entry that say nothing about its tool.
_ENTRY = frozenset({"name", "type", "desc", "assert"})
#: Stands where a tool could not be found; the finding keeps the playbook from running.
_NOTHING: Mapping[str, Any] = {"kind": "noop"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool of the workbook as it is written, and where."""

    tool: Any
    path: Path


class Workbook:
    """The entries of one document. ``used`` are the names that some tool referred to."""

    def __init__(self, checks: Checks, entries: Mapping[str, Entry] | None = None) -> None:
        self.checks = checks
        self.entries = entries or {}
        self.used: set[str] = set()

    def expand(self, tool: Any, path: Path) -> Any:
        """What a step has below ``tool``, in today's form, with workbook tools put in place."""
        if isinstance(tool, list):
            return [self._item(item, (*path, number), ()) for number, item in enumerate(tool)]
        tool = modern_tool(self.checks, tool, path)
        if not _refers(tool):
            return tool
        found = self._put(tool, path, ())
        if isinstance(found, Mapping):
            return {key: value for key, value in found.items() if key != "name"}
        return found

    def _item(self, item: Any, path: Path, seen: tuple[str, ...]) -> Any:
        """One tool of a list; the form ``{label: {kind: …}}`` becomes ``{name: label, kind: …}``."""
        label = None
        if isinstance(item, Mapping) and "kind" not in item and len(item) == 1:
            key, inner = next(iter(item.items()))
            if isinstance(inner, Mapping):
                label, item = key, inner
                self.checks.move(path, (*path, key))
        tool = modern_tool(self.checks, item, path)
        if not _refers(tool):
            return _labelled(label, tool)
        label, origin = label or tool.get("name"), self.checks.origin(path)
        found = self._put(tool, path, seen)
        if isinstance(found, list):
            self._no_list(path, origin, "a list of workbook tools cannot stand in another list.")
            return _NOTHING
        unnamed = {key: value for key, value in found.items() if key != "name"}
        return {"name": label, **unnamed} if label else unnamed

    def _put(self, call: Mapping[str, Any], path: Path, seen: tuple[str, ...]) -> Any:
        """The tool that *call* refers to, with the call's input and other keys over its own."""
        key = "task" if "task" in call else "name"
        name = call.get(key)
        if not isinstance(name, str) or name not in self.entries:
            said = (
                f"the workbook has no {name!r}" if key in call else "a workbook tool needs 'name'"
            )
            hint = self.checks.nearest(name, self.entries) if key in call else None
            self.checks.problem((*path, key), "workbook-name", f"{said}.", hint)
            return _NOTHING
        self.used.add(name)
        if name in seen:
            circle = " → ".join([*seen[seen.index(name) :], name])
            message = f"workbook entries refer to each other in a circle: {circle}."
            self.checks.problem((*path, key), "workbook-cycle", message)
            return _NOTHING
        return self._over(call, path, self.entries[name], (*seen, name))

    def _over(
        self, call: Mapping[str, Any], path: Path, entry: Entry, seen: tuple[str, ...]
    ) -> Any:
        own = {key: value for key, value in call.items() if key not in _CALL}
        given = self.checks.mapping(call, "input", path)
        places: dict[tuple[str, ...], Path] = {
            (key,): self.checks.origin((*path, key)) for key in own
        }
        inputs: dict[tuple[str, ...], Path] = {
            ("input", key): self.checks.origin((*path, "input", key)) for key in given
        }
        self.checks.forget(path)
        self.checks.move(path, entry.path)
        self.checks.move((*path, "kind"), (*entry.path, "kind"))
        tool = modern_tool(self.checks, entry.tool, path)
        if _refers(tool):
            tool = self._put(tool, path, seen)
        if isinstance(tool, list):
            if own:
                told = f"a list of workbook tools takes no {', '.join(map(repr, own))}."
                self._no_list(path, next(iter(places.values())), told)
            return self._inputs(tool, path, given, inputs, seen)
        if not isinstance(tool, Mapping):
            return tool
        merged = {**tool, **own}
        spec = tool.get("spec")
        if isinstance(spec, Mapping) and isinstance(own.get("spec"), Mapping):
            merged["spec"] = {**spec, **own["spec"]}
            kept = spec.keys() - own["spec"].keys()
            places |= {("spec", key): self.checks.origin((*path, "spec", key)) for key in kept}
        for below, place in (places | inputs).items():
            self.checks.place((*path, *below), place)
        return _with_input(merged, given)

    def _inputs(
        self,
        tools: list[Any],
        path: Path,
        given: Mapping[str, Any],
        places: Mapping[tuple[str, ...], Path],
        seen: tuple[str, ...],
    ) -> list[Any]:
        """A list of workbook tools, each with the call's input over its own."""
        found = [self._item(tool, (*path, number), seen) for number, tool in enumerate(tools)]
        for number in range(len(found)):
            for below, place in places.items():
                self.checks.place((*path, number, *below), place)
        return [_with_input(tool, given) if isinstance(tool, Mapping) else tool for tool in found]

    def _no_list(self, path: Path, origin: Path, message: str) -> None:
        """A list of tools was put at *path*, where *origin* has it that it cannot be."""
        self.checks.forget(path)
        self.checks.place(path, origin)
        hint = "Give it a step of its own, with 'input' alone."
        self.checks.problem(path, "workbook-sequence", message, hint)


def read_workbook(checks: Checks, data: Mapping[str, Any]) -> Workbook:
    """The ``workbook`` of a document; its tools are read where they are used."""
    entries: dict[str, Entry] = {}
    for number, raw in enumerate(checks.items(data, "workbook", ())):
        path: Path = (KIND, number)
        if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str):
            checks.problem(path, "workbook-name", "a workbook entry needs 'name'.")
            continue
        name = raw["name"]
        if name in entries:
            message = f"the workbook has two entries named {name!r}."
            checks.problem((*path, "name"), "duplicate-workbook", message)
        entry = _entry(checks, raw, path)
        if entry is not None:
            entries[name] = entry
    return Workbook(checks, entries)


def _entry(checks: Checks, raw: Mapping[str, Any], path: Path) -> Entry | None:
    """``{name, tool}``, or the older ``{name, type, …the tool's keys}``."""
    if isinstance(raw.get("tool"), Mapping | list) and raw["tool"]:
        return Entry(raw["tool"], (*path, "tool"))
    if "tool" not in raw and isinstance(raw.get("type", raw.get("kind")), str):
        tool = {key: value for key, value in raw.items() if key not in _ENTRY}
        if "type" in raw:
            tool["kind"] = raw["type"]
            checks.move((*path, "kind"), (*path, "type"))
        return Entry(tool, path)
    said = f"is {kind_of(raw['tool'])}" if "tool" in raw else "is missing"
    message = f"the tool of workbook entry {raw['name']!r} {said}."
    checks.problem((*path, "tool"), "workbook-tool", message, "Write 'tool: {kind: …}'.")
    return None


def _refers(tool: Any) -> bool:
    return isinstance(tool, Mapping) and tool.get("kind") == KIND


def _with_input(tool: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """*tool* with *given* over its input."""
    own = tool.get("input")
    if given and (own is None or isinstance(own, Mapping)):
        return {**tool, "input": {**(own or {}), **given}}
    return dict(tool)


def _labelled(label: Any, tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """*tool* under its label; a name of its own wins, but that of a secret is the secret's."""
    if label is None:
        return tool
    if tool.get("kind") == SECRETS and "name" in tool:
        tool = {"secret": tool["name"], **{k: v for k, v in tool.items() if k != "name"}}
    return {"name": label, **tool}
