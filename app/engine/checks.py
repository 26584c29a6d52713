"""Reads parts of a document and writes down what is wrong with them, each with its place."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from app.engine.source import Path, Source, texts
from app.engine.template import compile_condition, compile_text
from app.errors import Finding, InvalidPlaybookError, TemplateError

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*$")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


class Checks:
    """One document under examination; every complaint is a finding, nothing stops at the first."""

    def __init__(self, source: Source, name: str) -> None:
        self.source = source
        self.name = name
        self.findings: list[Finding] = []

    def finish(self) -> None:
        """Raise ``InvalidPlaybookError`` with the findings, in the order of their places, if any."""
        if self.findings:
            ordered = sorted(self.findings, key=lambda finding: (finding.line, finding.column))
            raise InvalidPlaybookError(ordered, source=self.name)

    def mapping(self, data: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
        value = data.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.problem(
                (*path, key), "mapping", f"{key!r} must be a mapping, not {_kind_of(value)}."
            )
            return {}
        return value

    def number(
        self,
        data: Mapping[str, Any],
        key: str,
        path: Path,
        default: Any,
        read_: Callable[[Any], Any],
    ) -> Any:
        if key not in data:
            return default
        value = read_(data[key])
        if value is None:
            self.problem(
                (*path, "then", key),
                "number",
                f"{key} {data[key]!r} is not a number that makes sense here.",
            )
            return default
        return value

    def templates(self, data: Any, path: Path) -> Any:
        """Check the templates in *data*, which is given back as it is."""
        for below, text in texts(data):
            self._checked((*path, *below), partial(compile_text, text))
        return data

    def condition(self, when: Any, path: Path) -> None:
        self._checked(path, lambda: compile_condition(when))

    def _checked(self, path: Path, compile_: Callable[[], Any]) -> None:
        try:
            compile_()
        except TemplateError as exc:
            self.problem(path, "template", exc.message)

    def nearest(self, word: str, known: Collection[str]) -> str | None:
        near = difflib.get_close_matches(str(word), list(known), n=1)
        return f"Did you mean {near[0]!r}?" if near else None

    def problem(self, path: Path, code: str, message: str, hint: str | None = None) -> None:
        """Something is wrong with the value at *path*."""
        mark = self.source.at(path)
        self.findings.append(
            Finding(code, message, mark.line, mark.column, dotted(path), suggestion=hint)
        )

    def key_problem(self, path: Path, code: str, message: str, hint: str | None = None) -> None:
        """Something is wrong with the key at the end of *path*."""
        mark = self.source.key_at(path)
        self.findings.append(
            Finding(code, message, mark.line, mark.column, dotted(path), suggestion=hint)
        )


def dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def duration(value: Any) -> float | None:
    """Seconds from a number or from text such as '30s', '5m', '250ms'; None where it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    match = _DURATION.match(value) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2]] if match else None


def whole(value: Any) -> int | None:
    """A positive whole number, or None."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 and not isinstance(value, bool) else None


def _kind_of(value: Any) -> str:
    names = {str: "text", list: "a list", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), type(value).__name__)
