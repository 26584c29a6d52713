"""How an execution ended, in whichever way it ran, and how that differs from what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from app.engine.events import EXECUTION_ENDS, Event
from app.errors import Finding
from tests.conformance.case import Case, Like

#: Events that say how the engine works, not what a rule of the language is about.
SILENT = {"execution.started", "step.started", "step.routed"}


@dataclass(frozen=True, slots=True)
class Ended:
    """``lines`` are its events (see ``line``); ``result`` gives the result of a step by name, or
    of the step that ended last."""

    status: str
    error: str | None
    lines: tuple[str, ...]
    variables: Mapping[str, Any]
    result: Callable[[str | None], Any]


def line(type_: str, key: str, attempt: int | None = None) -> str | None:
    """An event in words, such as ``fetch#2[0] done``; None for those that nothing is said of."""
    if type_ in SILENT:
        return None
    if type_ in EXECUTION_ENDS:
        return type_
    tried = f" attempt {attempt}" if type_ == "step.scheduled" and (attempt or 1) > 1 else ""
    return f"{key} {type_.removeprefix('step.')}{tried}"


def line_of(event: Event) -> str | None:
    """As ``line``, of an event of the log."""
    step = getattr(event, "step", "")
    return line(event.type, str(getattr(event, "key", step)), getattr(event, "attempt", None))


def check(case: Case, ended: Ended, *, ordered: bool) -> None:
    """Fail with all that is not as expected. *ordered*: also events across steps."""
    if found := differences(case, ended, ordered=ordered):
        pytest.fail("\n".join([case.rule, *found]), pytrace=False)


def differences(case: Case, ended: Ended, *, ordered: bool) -> list[str]:
    expect = case.expect
    found: list[str] = []
    if expect.get("status") != ended.status:
        found.append(f"status: expected {expect.get('status')}, got {ended.status}: {ended.error}")
    if "error" in expect and expect["error"] not in (ended.error or ""):
        found.append(f"error: expected {expect['error']!r} in {ended.error!r}")
    if not found:
        if "result" in expect:
            found += unlike(expect["result"], ended.result(None), "result")
        for step, value in expect.get("results", {}).items():
            found += unlike(value, ended.result(step), f"results.{step}")
        for name, value in expect.get("ctx", {}).items():
            found += unlike(value, ended.variables.get(name), f"ctx.{name}")
    if "events" in expect:
        found += _events(expect["events"], ended.lines, ordered=ordered)
    return found


def unlike(expected: Any, actual: Any, where: str) -> Iterator[str]:
    """Where *actual* is not as *expected*: mappings may hold more keys than those named."""
    if isinstance(expected, Like):
        if not (isinstance(actual, str) and re.fullmatch(expected.pattern, actual)):
            yield f"{where}: expected text like {expected.pattern!r}, got {actual!r}"
    elif isinstance(expected, dict) and expected and isinstance(actual, dict):
        for key, value in expected.items():
            if key in actual:
                yield from unlike(value, actual[key], f"{where}.{key}")
            else:
                yield f"{where}.{key}: missing; there are {sorted(map(str, actual))}"
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from unlike(one, other, f"{where}[{index}]")
    elif expected != actual or isinstance(expected, bool) is not isinstance(actual, bool):
        yield f"{where}: expected {expected!r}, got {actual!r}"


def _events(expected: list[str], actual: Iterable[str], *, ordered: bool) -> Iterator[str]:
    actual = list(actual)
    same = expected == actual if ordered else _by_key(expected) == _by_key(actual)
    if not same:
        yield f"events: expected\n{yaml.safe_dump(expected)}got\n{yaml.safe_dump(actual)}"


def _by_key(lines: Iterable[str]) -> dict[str, list[str]]:
    """What happened to each unit of work, in order; branches at once have no order among them."""
    found: dict[str, list[str]] = {}
    for text in lines:
        key, _, word = text.partition(" ")
        found.setdefault(key, []).append(word)
    return found


def found_wrong(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """The errors among *findings* as cases expect them: what is wrong, and in which line."""
    return [
        {"code": finding.code, "line": finding.line}
        for finding in findings
        if finding.severity == "error"
    ]
