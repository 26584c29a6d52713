"""Reads ``output_select``: the parts of a large result that stay readable without fetching it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.language.checks import Checks, kind_of
from app.engine.language.source import Path

_REMEDY = "Write 'output_select: [summary.total]', or '{path: summary.total, as: total}'."


def read_selection(checks: Checks, raw: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Name and dotted path of every part selected by a step or by its tools."""
    found: dict[str, str] = {}
    holders: list[tuple[Any, Path]] = [(raw, path)]
    tool, where = raw.get("tool"), (*path, "tool")
    if isinstance(tool, list):
        holders += [(item, (*where, number)) for number, item in enumerate(tool)]
    else:
        holders.append((tool, where))
    for holder, place in holders:
        if isinstance(holder, Mapping):
            _of_holder(checks, holder, place, found)
    return found


def _of_holder(
    checks: Checks, holder: Mapping[str, Any], path: Path, found: dict[str, str]
) -> None:
    output = checks.mapping(holder, "output", path)
    checks.mapping(output, "store", (*path, "output"))
    for data, place, key in (
        (holder, path, "output_select"),
        (output, (*path, "output"), "output_select"),
        (output, (*path, "output"), "select"),
    ):
        selected = data.get(key)
        if isinstance(selected, Mapping):
            selected = [{"path": part, "as": name} for name, part in selected.items()]
        elif isinstance(selected, str):
            selected = [selected]
        for number, item in enumerate(checks.items({key: selected}, key, place)):
            _add(checks, item, (*place, key, number), found)


def _add(checks: Checks, item: Any, path: Path, found: dict[str, str]) -> None:
    part, name = (item.get("path"), item.get("as")) if isinstance(item, Mapping) else (item, None)
    if not isinstance(part, str) or not part.strip(" ."):
        message = f"a selected part is a dotted path, not {kind_of(part)}."
        checks.problem(path, "output-select", message, _REMEDY)
        return
    name = str(name) if name is not None else part.strip(" .").rsplit(".", 1)[-1]
    if found.setdefault(name, part) != part:
        message = f"{name!r} already stands for {found[name]!r}; {part!r} needs another name."
        checks.problem(path, "output-select", message, "Say which with '{path: …, as: …}'.")
