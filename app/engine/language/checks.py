"""Reads parts of a document and writes down what is wrong with them, each with its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

from app.engine.language.source import Path, Source
from app.engine.templates.template import Compiled, compile_condition, compile_text, has_template
from app.errors import Finding, InvalidPlaybookError, TemplateError

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*$")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_SECRETS = "keychain"
#: A hundred years in seconds. No moment that lies much further ahead has a date.
LONGEST = 3_153_600_000.0


class Checks:
    """One document under examination; every complaint is a finding, nothing stops at the first.

    Parts that were put into another form, or copied from elsewhere in the document, are read at
    their new path; ``move`` remembers where they are written, and complaints say that place.
    """

    def __init__(self, source: Source, name: str) -> None:
        self.source = source
        self.name = name
        self.findings: list[Finding] = []
        self._moves: dict[Path, Path] = {}

    def finish(self) -> None:
        """Raise ``InvalidPlaybookError`` with the findings, in the order of their places, if any."""
        if self.findings:
            # What stands once in the document and is used twice is wrong once.
            once: dict[tuple[str, str], Finding] = {}
            for found in self.findings:
                once.setdefault((found.code, found.key), found)
            ordered = sorted(once.values(), key=lambda found: (found.line, found.column))
            raise InvalidPlaybookError(ordered, source=self.name)

    # ------------------------------------------------------------------ places
    def move(self, path: Path, before: Path) -> None:
        """What is read at *path* from now on was read at *before* until now."""
        self._moves[path] = self.origin(before)

    def place(self, path: Path, origin: Path) -> None:
        """What is read at *path* is written at *origin*."""
        self._moves[path] = origin

    def forget(self, path: Path) -> None:
        """What is read at *path* or below it is written there."""
        below = [moved for moved in self._moves if moved[: len(path)] == path]
        for moved in below:
            del self._moves[moved]

    def origin(self, path: Path) -> Path:
        """Where the part read at *path* is written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._moves:
                return (*self._moves[path[:length]], *path[length:])
        return path

    def problem(self, path: Path, code: str, message: str, hint: str | None = None) -> None:
        """Something is wrong with the value at *path*."""
        origin = self.origin(path)
        mark = self.source.at(origin)
        self.findings.append(
            Finding(code, message, mark.line, mark.column, dotted(origin), suggestion=hint)
        )

    def key_problem(self, path: Path, code: str, message: str, hint: str | None = None) -> None:
        """Something is wrong with the key at the end of *path*."""
        origin = self.origin(path)
        mark = self.source.key_at(origin)
        self.findings.append(
            Finding(code, message, mark.line, mark.column, dotted(origin), suggestion=hint)
        )

    @staticmethod
    def nearest(word: object, known: Collection[str]) -> str | None:
        near = difflib.get_close_matches(str(word), list(known), n=1)
        return f"Did you mean {near[0]!r}?" if near else None

    # ------------------------------------------------------------------ shapes
    def mapping(self, data: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
        """The mapping below *key*; empty where there is none."""
        value = data.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            message = f"{key!r} must be a mapping, not {kind_of(value)}."
            self.problem((*path, key), "mapping", message)
            return {}
        return value

    def items(self, data: Mapping[str, Any], key: str, path: Path) -> list[Any]:
        """The list below *key*; empty where there is none."""
        value = data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            message = f"{key!r} must be a list, not {kind_of(value)}."
            self.problem((*path, key), "list", message)
            return []
        return value

    def flag(self, data: Mapping[str, Any], key: str, path: Path, *, default: bool = False) -> bool:
        """The true or false below *key*."""
        if data.get(key) is None:
            return default
        value = truth(data[key])
        if value is None:
            message = f"{key!r} must be true or false, not {data[key]!r}."
            self.problem((*path, key), "flag", message)
            return default
        return value

    def number(
        self,
        data: Mapping[str, Any],
        key: str,
        path: Path,
        read: Callable[[Any], Any],
        default: Any = None,
    ) -> Any:
        """What *read* makes of the value below *key*; it gives None for what makes no sense."""
        if data.get(key) is None:
            return default
        value = read(data[key])
        if value is None:
            message = f"{key} {data[key]!r} is not a number that makes sense here."
            self.problem((*path, key), "number", message)
            return default
        return value

    def word(
        self, value: Any, known: Collection[str], path: Path, code: str, what: str
    ) -> str | None:
        """*value* where it is one of *known*."""
        if isinstance(value, str) and value in known:
            return value
        self.problem(
            path,
            code,
            f"{what} {value!r} is unknown.",
            self.nearest(value, known) or f"Use one of {', '.join(known)}.",
        )
        return None

    # ------------------------------------------------------------------ templates
    def templates(self, data: Any, path: Path) -> Any:
        """Check the templates in *data*, which is given back as it is. A worker renders them."""
        for below, text in rendered(data):
            self._compiled((*path, *below), partial(compile_text, text))
        return data

    def engine_templates(self, data: Any, path: Path) -> Any:
        """The same for *data* that the engine renders, which knows no secrets."""
        for below, text in rendered(data):
            self._without_secrets((*path, *below), partial(compile_text, text))
        return data

    def condition(self, when: Any, path: Path) -> Any:
        """Check a condition that a worker evaluates; it is given back as it is."""
        self._check_form(when, path)
        self._compiled(path, partial(compile_condition, when))
        return when

    def engine_condition(self, when: Any, path: Path) -> Any:
        """The same for a condition that the engine evaluates."""
        self._check_form(when, path)
        self._without_secrets(path, partial(compile_condition, when))
        return when

    def _check_form(self, when: Any, path: Path) -> None:
        if isinstance(when, Mapping | list):
            message = f"a condition must be a template, or true or false, not {kind_of(when)}."
            self.problem(path, "condition", message, "Write it as text: when: \"{{ a == 'b' }}\".")

    def _compiled(self, path: Path, compile_: Callable[[], Compiled | None]) -> Compiled | None:
        try:
            return compile_()
        except TemplateError as exc:
            self.problem(path, "template", exc.message)
            return None

    def _without_secrets(self, path: Path, compile_: Callable[[], Compiled | None]) -> None:
        compiled = self._compiled(path, compile_)
        if compiled is not None and _SECRETS in compiled.needs.names:
            self.problem(
                path,
                "keychain-in-engine",
                "'keychain' is named here, but secrets are resolved only in the worker.",
                "Name it in the tool's own keys, such as auth, headers or input.",
            )


def rendered(data: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """The texts in *data* that rendering looks at, keys with templates included."""
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(key, str) and has_template(key):
                yield (*path, key), key
            yield from rendered(value, (*path, key))
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from rendered(value, (*path, index))


def dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def duration(value: Any) -> float | None:
    """Seconds from a number or from text such as '30s', '5m', '250ms'; None where it is neither.

    None, too, for more than ``LONGEST``.
    """
    if isinstance(value, bool):
        return None
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is not None:
        value = float(match[1]) * _UNITS[match[2]]
    # Compared as it is: NaN, infinity and the largest whole numbers are beyond every date.
    if not isinstance(value, int | float) or not abs(value) <= LONGEST:
        return None
    return float(value)


def wait(value: Any) -> float | None:
    """Seconds that are not negative, or None."""
    seconds = duration(value)
    return seconds if seconds is not None and seconds >= 0 else None


def span(value: Any) -> float | None:
    """More than no seconds, or None."""
    seconds = duration(value)
    return seconds if seconds is not None and seconds > 0 else None


def whole(value: Any) -> int | None:
    """A positive whole number, or None."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number > 0 else None


def truth(value: Any) -> bool | None:
    """A boolean, or one of the words for one; None for anything else."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    return {"true": True, "false": False}.get(word)


def kind_of(value: Any) -> str:
    names = {str: "text", list: "a list", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), "a mapping" if isinstance(value, Mapping) else "nothing")
