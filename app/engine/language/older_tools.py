"""Older forms of a tool in today's terms: ``args``, ``eval`` and ``retry``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.language.checks import Checks, kind_of
from app.engine.language.source import Path

#: Kinds whose ``args`` are the words of a command line.
ARGV = ("container",)
_OLDER = frozenset({"args", "eval", "retry"})
_REMEDY = "Say it with 'spec: {policy: {rules: [{when: …, then: {do: …}}]}}'."
_PAGES = "Read pages with a cycle of arcs, or with 'jump' in a sequence of tasks."
_FAILED = "output.status == 'error'"
#: Words for errors that are not the kinds of today.
_ERRORS = {"network": "connection", "connection_error": "connection", "timeout_error": "timeout"}
_ANY_ERROR = frozenset({"any", "all", "error", "*"})


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule, where it is written, and where those of its parts are that have another form."""

    rule: Any
    path: Path
    parts: Mapping[str, Path] = field(default_factory=dict)


def modern_tool(checks: Checks, raw: Any, path: Path) -> Any:
    """One tool in today's form; what is no mapping is left to whoever reads it."""
    if not isinstance(raw, Mapping) or not (_OLDER & raw.keys()):
        return raw
    tool = dict(raw)
    if tool.get("kind") not in ARGV:
        merge_older(checks, tool, path, "args", "input")
    rules: list[Placed] = []
    if "eval" in tool:
        rules += _eval(checks, tool.pop("eval"), (*path, "eval"))
    if "retry" in tool:
        rules += _retry(checks, tool.pop("retry"), (*path, "retry"))
    if rules:
        _add_rules(checks, tool, path, rules)
    return tool


def merge_older(checks: Checks, data: dict[str, Any], path: Path, older: str, today: str) -> None:
    """Move what stands below the key *older* to *today*, whose own entries win."""
    if not isinstance(data.get(older), Mapping):
        return
    moved, own = data.pop(older), data.get(today)
    if own is None:
        data[today] = moved
        checks.move((*path, today), (*path, older))
    elif isinstance(own, Mapping):
        data[today] = {**moved, **own}
        for key in moved.keys() - own.keys():
            checks.move((*path, today, key), (*path, older, key))


def _add_rules(checks: Checks, tool: dict[str, Any], path: Path, added: list[Placed]) -> None:
    """Put *added* behind the tool's own rules, before the ``else`` that would hide them."""
    where = (*path, "spec", "policy", "rules")
    spec = tool.get("spec") or {}
    policy = (spec.get("policy") or {}) if isinstance(spec, Mapping) else None
    own = (policy.get("rules") or []) if isinstance(policy, Mapping) else None
    if not isinstance(own, list) or not isinstance(policy, Mapping):
        return  # malformed, which its reader says
    rules = [Placed(rule, (*where, number)) for number, rule in enumerate(own)]
    last = next((n for n, each in enumerate(rules) if _is_else(each.rule)), len(rules))
    rules[last:last] = added
    places = {
        (*where, number, *below): checks.origin(place)
        for number, each in enumerate(rules)
        for below, place in [((), each.path), *(((key,), at) for key, at in each.parts.items())]
    }
    for path_, origin in places.items():
        checks.place(path_, origin)
    tool["spec"] = {**spec, "policy": {**policy, "rules": [each.rule for each in rules]}}


def _is_else(rule: Any) -> bool:
    return isinstance(rule, Mapping) and "else" in rule and "when" not in rule


# ---------------------------------------------------------------------- eval
def _eval(checks: Checks, raw: Any, path: Path) -> list[Placed]:
    """``eval: [{expr, do, …}, {else: {do, …}}]`` as policy rules."""
    if not isinstance(raw, list):
        message = f"'eval' must be a list of rules, not {kind_of(raw)}."
        checks.problem(path, "older-form", message, _REMEDY)
        return []
    found: list[Placed] = []
    for number, item in enumerate(raw):
        place = (*path, number)
        if isinstance(item, Mapping) and ("expr" in item or "when" in item):
            found.append(_expression(item, place))
        elif isinstance(item, Mapping) and isinstance(item.get("else"), Mapping):
            found.append(Placed({"else": _action(item["else"])}, place))
        else:
            checks.problem(
                place, "older-form", "a rule of 'eval' needs 'expr', or 'else'.", _REMEDY
            )
    return found


def _expression(item: Mapping[str, Any], path: Path) -> Placed:
    """A rule with a condition; what it does stands beside that, or below ``then``."""
    key, then, place = "expr" if "expr" in item else "when", item.get("then"), (*path, "then")
    if not isinstance(then, Mapping):
        then, place = {each: item[each] for each in item if each not in {key, "then"}}, path
    parts = {"when": (*path, key), "then": place}
    return Placed({"when": item[key], "then": _action(then)}, path, parts)


def _action(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What a rule does, with ``set_ctx`` and ``set_iter`` said as ``set``."""
    action = {key: value for key, value in raw.items() if key not in {"set_ctx", "set_iter"}}
    values: dict[str, Any] = {}
    for scope in ("ctx", "iter"):
        given = raw.get(f"set_{scope}")
        if isinstance(given, Mapping):
            values |= {f"{scope}.{key}": value for key, value in given.items()}
    if values and isinstance(action.get("set") or {}, Mapping):
        action["set"] = {**values, **(action.get("set") or {})}
    return action


# ---------------------------------------------------------------------- retry
def _retry(checks: Checks, raw: Any, path: Path) -> list[Placed]:
    """``retry: {max_attempts, backoff_seconds, retry_on_status, retry_on}`` as one policy rule."""
    if raw is None or raw is False:
        return []
    if isinstance(raw, list):
        pages = any(_names_pages(item) for item in raw)
        said = "reads pages" if pages else "has conditions of an older kind"
        message = f"'retry' as a list {said}, which is not part of the language."
        checks.problem(path, "older-form", message, _PAGES if pages else _REMEDY)
        return []
    if raw is True:
        raw = {}
    elif not isinstance(raw, Mapping):
        raw = {"max_attempts": raw}
    then = {"do": "retry", "backoff": raw.get("backoff") or _growth(raw)}
    for key in ("attempts", "max_attempts", "delay", "delay_seconds", "backoff_seconds", "jitter",
                "max_delay", "max_delay_seconds"):  # fmt: skip
        if key in raw:
            then[key] = raw[key]
    rule = {"when": _retried(checks, raw, path), "then": then}
    return [Placed(rule, path, {"when": path, "then": path})]


def _names_pages(item: Any) -> bool:
    then = item.get("then") if isinstance(item, Mapping) else None
    return isinstance(then, Mapping) and bool({"next_call", "collect"} & then.keys())


def _growth(raw: Mapping[str, Any]) -> str:
    factor = raw.get("backoff_multiplier")
    return "exponential" if isinstance(factor, int | float) and factor > 1 else "fixed"


def _retried(checks: Checks, raw: Mapping[str, Any], path: Path) -> str:
    """The condition under which the tool is tried again; any failure where nothing is named."""
    parts: list[str] = []
    statuses: list[int] = []
    kinds: list[str] = []
    for key in ("retry_on_status", "retry_on"):
        said = raw.get(key)
        for item in said if isinstance(said, list) else [] if said is None else [said]:
            word = str(item).strip().lower()
            if isinstance(item, bool) or not isinstance(item, str | int):
                message = f"{key} must name statuses or kinds of errors, not {kind_of(item)}."
                checks.problem((*path, key), "older-form", message, _REMEDY)
            elif word.isdigit():
                statuses.append(int(word))
            elif word in {"4xx", "5xx"}:
                low = int(word[0]) * 100
                parts.append(f"({low} <= (output.http.status | default(0)) < {low + 100})")
            elif word in _ANY_ERROR:
                parts.append(f"({_FAILED})")
            else:
                kinds.append(_ERRORS.get(word, word))
    if statuses:
        parts.append(f"(output.http.status in {statuses})")
    if kinds:
        parts.append(f"({_FAILED} and output.error.kind in {kinds})")
    return "{{ " + (" or ".join(parts) or _FAILED) + " }}"
