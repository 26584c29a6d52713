"""Reads ``next``: where a step leads, and under which conditions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from app.engine.language.checks import Checks
from app.engine.language.older import in_ctx
from app.engine.language.source import Path
from app.engine.playbook import Arc

#: Where a branch may end without a step of that name.
END = "end"


@dataclass(frozen=True, slots=True)
class Next:
    """Where a step leads. ``inclusive``: all arcs that match are taken, not the first alone."""

    arcs: tuple[Arc, ...] = ()
    inclusive: bool = False
    quiet: bool = False


def read_next(
    checks: Checks, raw: Any, path: Path, step: str, known: Collection[str] | None
) -> Next:
    """``next`` of *step* in any of its forms; *known* are the steps there are, None: any."""
    if raw is None:
        return Next()
    reader = _ArcReader(checks, step, known)
    if isinstance(raw, str) or (isinstance(raw, Mapping) and not {"arcs", "spec"} & raw.keys()):
        arc = reader.arc(raw, path)
        return Next((arc,) if arc else ())
    inclusive, quiet, items = False, False, raw
    if isinstance(raw, Mapping):
        inclusive, quiet = _spec(checks, checks.mapping(raw, "spec", path), (*path, "spec"))
        items, path = raw.get("arcs") or [], (*path, "arcs")
    elif isinstance(raw, list):
        # The older form: a list without conditions runs in parallel.
        inclusive = not any(isinstance(item, Mapping) and _condition(item) for item in raw)
    if not isinstance(items, list):
        checks.problem(path, "next-form", f"step {step!r}: next must have 'arcs', a list.")
        return Next()
    arcs = [reader.arc(item, (*path, number)) for number, item in enumerate(items)]
    return Next(tuple(arc for arc in arcs if arc is not None), inclusive, quiet)


def _spec(checks: Checks, spec: Mapping[str, Any], path: Path) -> tuple[bool, bool]:
    """Whether all arcs that match are taken, and whether a branch may end without a word."""
    mode, on_no_match = spec.get("mode"), spec.get("on_no_match")
    if mode is not None:
        words, place = ("exclusive", "inclusive"), (*path, "mode")
        mode = checks.word(mode, words, place, "next-mode", "next mode")
    if on_no_match is not None:
        words, place = ("complete", "quiet"), (*path, "on_no_match")
        on_no_match = checks.word(on_no_match, words, place, "on-no-match", "on_no_match")
    return mode == "inclusive", on_no_match == "quiet"


def _condition(raw: Mapping[str, Any]) -> str | None:
    """The key of an arc's condition; ``cond`` is an older word for ``when``."""
    return next((key for key in ("when", "cond") if key in raw), None)


class _ArcReader:
    """Reads the arcs of one step."""

    def __init__(self, checks: Checks, step: str, known: Collection[str] | None) -> None:
        self.checks = checks
        self.step = step
        self.known = known
        own = re.escape(step)
        self.failure = re.compile(
            rf"\bevent\.name\b|\bevent\[|\boutput\.(status|error)\b|\b{own}\.(error|status)\b"
        )

    def arc(self, raw: Any, path: Path) -> Arc | None:
        if isinstance(raw, str):
            return self.leading(Arc(raw), path)
        if not isinstance(raw, Mapping) or not isinstance(raw.get("step"), str | int):
            message = f"step {self.step!r}: an arc needs 'step', where it leads."
            self.checks.problem(path, "arc-step", message)
            return None
        key = _condition(raw) or "when"
        when = self.checks.engine_condition(raw.get(key), (*path, key))
        names_failure = isinstance(when, str) and bool(self.failure.search(when))
        arc = Arc(str(raw["step"]), when, self.values(raw, path), names_failure)
        return self.leading(arc, (*path, "step"))

    def leading(self, arc: Arc, path: Path) -> Arc:
        if self.known is not None and arc.step not in self.known and arc.step != END:
            message = f"step {self.step!r} leads to {arc.step!r}, which is no step."
            hint = self.checks.nearest(arc.step, {*self.known, END})
            self.checks.problem(path, "arc-to-nowhere", message, hint)
        return arc

    def values(self, raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """What the arc sets; the older ``args`` are values of ctx."""
        own, args = self.checks.mapping(raw, "set", path), self.checks.mapping(raw, "args", path)
        self.checks.engine_templates(own, (*path, "set"))
        self.checks.engine_templates(args, (*path, "args"))
        return {**in_ctx(args), **own}
