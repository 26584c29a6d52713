"""Older forms of a step in today's terms: ``args``, ``vars``, ``case``, ``loop.mode`` and more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.language.checks import Checks, kind_of
from app.engine.language.older_tools import merge_older
from app.engine.language.source import Path

_OLDER = frozenset({"args", "vars", "case", "timeout_seconds"})
#: What an older loop says of itself and today's says in its spec.
_LOOP_SPEC = ("mode", "max_in_flight", "frame")
_REMEDY = "Use 'next: {arcs: [{step, when, set}]}'."

#: An arc and where it is written, with the place of its condition.
Written = tuple[dict[str, Any], Path, Path | None]


def modern_step(checks: Checks, raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The step *raw* in today's form; what that cannot say is a finding."""
    step = dict(raw)
    if isinstance(step.get("loop"), Mapping):
        step["loop"] = _loop(checks, step["loop"], (*path, "loop"))
    if not _OLDER & step.keys():
        return step
    for key in ("args", "vars"):
        checks.mapping(step, key, path)
    merge_older(checks, step, path, "args", "input")
    if isinstance(step.get("vars"), Mapping):
        _vars(checks, step, path)
    if "timeout_seconds" in step and "timeout" not in step:
        step["timeout"] = step.pop("timeout_seconds")
        checks.move((*path, "timeout"), (*path, "timeout_seconds"))
    if "case" in step:
        _case(checks, step, path)
    return step


def in_ctx(values: Mapping[str, Any]) -> dict[str, Any]:
    """*values* as ``set`` writes them: a bare name is one of ``ctx``."""
    return {
        key if key.startswith(("ctx.", "iter.", "step.")) else f"ctx.{key}": value
        for key, value in values.items()
    }


def _loop(checks: Checks, raw: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """A loop with its mode and its limits in ``spec``."""
    spec = raw.get("spec") or {}
    moved = [key for key in _LOOP_SPEC if key in raw]
    if not moved or not isinstance(spec, Mapping):
        return raw
    for key in moved:
        if key not in spec:
            checks.move((*path, "spec", key), (*path, key))
    kept = {key: value for key, value in raw.items() if key not in moved}
    return {**kept, "spec": {**{key: raw[key] for key in moved}, **spec}}


def _vars(checks: Checks, step: dict[str, Any], path: Path) -> None:
    """``vars`` of a step are what it sets when it has run."""
    given, own = step.pop("vars"), step.get("set") or {}
    if not isinstance(own, Mapping):
        return  # malformed, which the reader of 'set' says
    for key in given:
        checks.move((*path, "set", *in_ctx({key: None})), (*path, "vars", key))
    step["set"] = {**in_ctx(given), **own}


# ---------------------------------------------------------------------- case
def _case(checks: Checks, step: dict[str, Any], path: Path) -> None:
    """``case: [{when, then, else}]`` as arcs in that order; ``next`` is what follows otherwise."""
    cases, where = step.pop("case"), (*path, "case")
    if not isinstance(cases, list):
        message = f"'case' must be a list, not {kind_of(cases)}."
        checks.problem(where, "older-form", message, _REMEDY)
        return
    groups = [
        group
        for number, item in enumerate(cases)
        for group in _groups(checks, item, (*where, number))
    ]
    otherwise = _targets(step.get("next"), (*path, "next"))
    if otherwise is None:
        message = "'case' cannot stand beside a 'next' with arcs."
        checks.problem(where, "older-form", message, "Put the cases among the arcs.")
        return
    groups.append([(arc, place, None) for arc, place in otherwise])
    groups = [group for group in groups if group]
    several = any(len(group) > 1 for group in groups)
    if several and len(groups) > 1:
        message = "a case leads to several steps at once and is not the only one."
        checks.problem(where, "older-form", message, "Lead to one step, and from there to several.")
        return
    arcs = [written for group in groups for written in group]
    for number, (_, place, when) in enumerate(arcs):
        checks.move((*path, "next", "arcs", number), place)
        if when is not None:
            checks.move((*path, "next", "arcs", number, "when"), when)
    mode = "inclusive" if several else "exclusive"
    step["next"] = {"spec": {"mode": mode}, "arcs": [arc for arc, _, _ in arcs]}


def _groups(checks: Checks, item: Any, path: Path) -> list[list[Written]]:
    """The arcs of one case: those of ``then`` and those of ``else``."""
    if not isinstance(item, Mapping) or not ({"then", "else"} & item.keys()):
        message = "a case needs 'when' and 'then', or 'else'."
        checks.problem(path, "older-form", message, _REMEDY)
        return []
    groups: list[list[Written]] = []
    if "then" in item:
        when, place = item.get("when"), (*path, "when")
        arcs = _arcs(checks, item["then"], (*path, "then"))
        if when is None:
            groups.append([(arc, at, None) for arc, at in arcs])
        else:
            groups.append([({**arc, "when": when}, at, place) for arc, at in arcs])
    if "else" in item:
        groups.append([(arc, at, None) for arc, at in _arcs(checks, item["else"], (*path, "else"))])
    return groups


def _arcs(checks: Checks, raw: Any, path: Path) -> list[tuple[dict[str, Any], Path]]:
    """The arcs of ``then`` or ``else``: the steps it leads to, each with what it sets."""
    values: dict[str, Any] = {}
    arcs: list[tuple[dict[str, Any], Path]] = []
    actions = raw if isinstance(raw, list) else [raw]
    for number, action in enumerate(actions):
        place = (*path, number) if isinstance(raw, list) else path
        if not isinstance(action, Mapping):
            message = f"a case leads somewhere with 'next', not with {kind_of(action)}."
            checks.problem(place, "older-form", message, _REMEDY)
            continue
        for key, value in action.items():
            targets = _targets(value, (*place, key)) if key == "next" else []
            if key in {"set", "vars"} and isinstance(value, Mapping):
                values |= in_ctx(value)
            elif key not in {"next", "desc"} or targets is None:
                message = f"a case cannot say {key!r} in this form."
                checks.key_problem((*place, key), "older-form", message, _REMEDY)
            else:
                arcs += targets
    if not arcs:
        message = "a case must lead to a step."
        checks.problem(path, "older-form", message, "Add 'next', or set values on the step.")
    if values:
        return [({**arc, "set": {**values, **(arc.get("set") or {})}}, at) for arc, at in arcs]
    return arcs


def _targets(raw: Any, path: Path) -> list[tuple[dict[str, Any], Path]] | None:
    """The arcs of an older ``next``, none of them with a condition; None for any other form."""
    if raw is None:
        return []
    if isinstance(raw, str):
        return [({"step": raw}, path)]
    if isinstance(raw, list):
        found: list[tuple[dict[str, Any], Path]] = []
        for number, item in enumerate(raw):
            one = None if isinstance(item, list) else _targets(item, (*path, number))
            if one is None:
                return None
            found += one
        return found
    if isinstance(raw, Mapping) and "step" in raw and not ({"when", "arcs", "spec"} & raw.keys()):
        set_ = raw.get("set")
        return [(dict(raw), path)] if set_ is None or isinstance(set_, Mapping) else None
    return None
