"""Where the parts of a step stand in the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.engine.language.source import Path, Source
from app.errors import Finding


def steps(source: Source) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The steps as written, with their places, as far as they are mappings."""
    data = source.data
    workflow = data.get("workflow") if isinstance(data, Mapping) else None
    for number, raw in enumerate(workflow if isinstance(workflow, list) else []):
        if isinstance(raw, Mapping):
            yield ("workflow", number), raw


def tools(raw: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The tools of a step or workbook entry as written, without the older labels around them."""
    tool = raw.get("tool")
    if isinstance(tool, Mapping):
        yield (*path, "tool"), tool
    for number, item in enumerate(tool if isinstance(tool, list) else []):
        if not isinstance(item, Mapping):
            continue
        where: Path = (*path, "tool", number)
        label, inner = next(iter(item.items()), ("", None))
        if "kind" not in item and len(item) == 1 and isinstance(inner, Mapping):
            yield (*where, label), inner
        else:
            yield where, item


def arc(source: Source, step: Path, number: int) -> Path:
    """The *number*-th arc of the step at *step*; the step's own place where arcs stand elsewhere."""
    below: Path = (*step, "next")
    for candidate in ((*below, "arcs", number), (*below, number), below):
        if candidate in source.marks:
            return candidate
    return step


def finding(
    source: Source, path: Path, code: str, message: str, hint: str | None = None
) -> Finding:
    """A warning about the key (or the item of a list) at *path*."""
    mark = source.key_at(path)
    key = ".".join(str(part) for part in path)
    return Finding(code, message, mark.line, mark.column, key, "warning", hint)
