"""Reads ``loop``: over a collection, or over what a cursor claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.engine.language.checks import Checks, span, whole
from app.engine.language.source import Path
from app.engine.language.tasks import TaskReader
from app.engine.playbook import Cursor, Frame, Loop, Task
from app.engine.templates.template import has_template

MODES = ("sequential", "parallel", "async", "cursor")
#: Names of the claim's own making, which nothing outside it gives.
CLAIM_NAMES = frozenset({"__frame_max_rows", "frame"})
_CURSOR_KEYS = frozenset({"kind", "claim", "options"})
_CLAIMS = ("command", "query", "sql", "commands")
_RETRIES = ("whole_frame",)
_TIMES = ("lease_seconds", "heartbeat_seconds", "max_seconds")


def read_loop(tools: TaskReader, raw: Mapping[str, Any], path: Path) -> Loop | None:
    """``loop`` of the step *raw*, which stands at *path*; None where it has none."""
    checks = tools.checks
    if raw.get("loop") is None:
        return None
    loop, path = checks.mapping(raw, "loop", path), (*path, "loop")
    spec = checks.mapping(loop, "spec", path)
    cursor = _cursor(tools, loop, spec, path) if "cursor" in loop else None
    if ("in" in loop) == ("cursor" in loop):
        _one_source(checks, loop, path)
        return None
    mode = _mode(checks, loop, spec, path)
    checks.engine_templates(loop.get("in"), (*path, "in"))
    iterator = loop.get("iterator", "item")
    if not isinstance(iterator, str) or not iterator:
        checks.problem((*path, "iterator"), "iterator", "iterator must be a name.")
    return Loop(
        loop.get("in"),
        str(iterator),
        parallel=mode != "sequential",
        max_in_flight=_window(checks, spec, (*path, "spec", "max_in_flight")),
        cursor=cursor,
    )


def _one_source(checks: Checks, loop: Mapping[str, Any], path: Path) -> None:
    if "in" in loop:
        message = "a loop goes over 'in' or over a 'cursor', not over both."
        checks.problem(path, "loop-source", message, "Leave one of them out.")
    else:
        message = "a loop needs 'in', the collection to go over, or a 'cursor'."
        checks.problem(path, "loop-in", message)


def _mode(checks: Checks, loop: Mapping[str, Any], spec: Mapping[str, Any], path: Path) -> str:
    """The loop's mode: ``cursor`` exactly where it has a cursor."""
    natural = "cursor" if "cursor" in loop else "sequential"
    if spec.get("mode") is None:
        return natural
    place = (*path, "spec", "mode")
    mode = checks.word(spec["mode"], MODES, place, "loop-mode", "loop mode")
    if mode is not None and (mode == "cursor") != ("cursor" in loop):
        has = "a cursor" if "cursor" in loop else "no cursor"
        hint = "Write 'mode: cursor'." if "cursor" in loop else "Use sequential or parallel."
        checks.problem(place, "loop-mode", f"the loop has {has}, its mode is {mode}.", hint)
    return mode or natural


def _window(checks: Checks, spec: Mapping[str, Any], path: Path) -> Any:
    """How many iterations may run at once: a number or a template."""
    window = spec.get("max_in_flight")
    if window is None or _is_template(window):
        return checks.engine_templates(window, path)
    count = whole(window)
    if count is None:
        message = f"max_in_flight {window!r} is not a positive whole number."
        checks.problem(path, "max-in-flight", message)
    return count


# ---------------------------------------------------------------------- cursor
def _cursor(
    tools: TaskReader, loop: Mapping[str, Any], spec: Mapping[str, Any], path: Path
) -> Cursor | None:
    checks = tools.checks
    cursor = checks.mapping(loop, "cursor", path)
    frame = _frame(checks, checks.mapping(spec, "frame", (*path, "spec")), (*path, "spec", "frame"))
    path = (*path, "cursor")
    kind = cursor.get("kind")
    if not isinstance(kind, str):
        if not isinstance(loop["cursor"], str | int | list):  # which is told already
            checks.problem(path, "tool-kind", "a cursor needs 'kind', the tool that claims rows.")
        return None
    if not tools.kind(kind, (*path, "kind")):
        return None
    options = checks.mapping(cursor, "options", path)
    checks.templates(options, (*path, "options"))
    config = {**options, **{key: cursor[key] for key in cursor if key not in _CURSOR_KEYS}}
    claim = cursor.get("claim")
    if isinstance(claim, str) and claim.strip():
        config["command"] = claim
    elif "claim" in cursor or not any(config.get(key) for key in _CLAIMS):
        message = "a cursor needs 'claim', the command that takes the next rows."
        checks.problem((*path, "claim"), "cursor-claim", message)
    for key, value in cursor.items():
        if key not in tools.kinds[kind].verbatim:
            checks.templates(value, (*path, key))
    return Cursor(Task("claim", kind, config, tools.kinds[kind].queue), frame)


def _frame(checks: Checks, raw: Mapping[str, Any], path: Path) -> Frame:
    """How much is claimed at once; every part but ``process`` may be a template."""

    def part(key: str, read: Callable[[Any], Any], default: Any = None) -> Any:
        if _is_template(raw.get(key)):
            return checks.engine_templates(raw[key], (*path, key))
        return checks.number(raw, key, path, read, default)

    process = raw.get("process", "row")
    if process != "row":
        checks.word(process, ("row", "frame"), (*path, "process"), "frame-process", "process")
    retries = raw.get("retry_mode")
    if retries is not None and not _is_template(retries):
        checks.word(retries, _RETRIES, (*path, "retry_mode"), "retry-mode", "retry_mode")
    if not _is_template(raw.get("verify_ipc")):
        checks.flag(raw, "verify_ipc", path)
    for key in _TIMES:
        part(key, span)
    part("max_bytes", whole)
    default = Frame()
    return Frame(
        max_rows=part("max_rows", whole, default.max_rows),
        row_concurrency=part("row_concurrency", whole),
        by_row=process != "frame",
        max_attempts=part("max_attempts", whole, default.max_attempts),
    )


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and has_template(value)
