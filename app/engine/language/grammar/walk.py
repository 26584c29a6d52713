"""Goes through a document along the forms: unknown keys and older spellings, each with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from app.engine.language.grammar.forms import DOCUMENT, FORMS
from app.engine.language.grammar.likeness import Likeness
from app.engine.language.grammar.shapes import (
    Either,
    Form,
    Key,
    ListOf,
    MapOf,
    Of,
    Older,
    Plain,
    Shape,
)
from app.engine.language.source import Path, Source
from app.errors import Finding

#: How alike two keys must be (0 to 1) for one to be a slip of the other.
_CUTOFF = 0.75


def unusual_keys(source: Source) -> list[Finding]:
    """What is unknown (error or warning) or written in an older way (info) in a playbook."""
    walk = _Walk(source)
    walk.form(DOCUMENT, source.data, ())
    return walk.findings


@cache
def known_keys(form: str) -> Mapping[str, Key]:
    """The keys of the form of that name, by every name they have."""
    return FORMS[form].known()


class _Walk:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.findings: list[Finding] = []
        self.likeness = Likeness()

    def form(self, form: Form, value: Any, path: Path) -> None:
        if not isinstance(value, Mapping):
            return  # the parser says what it must be
        known = known_keys(form.name)
        for name, inner in value.items():
            where = (*path, name)
            key = known.get(name)
            if key is None:
                self._unknown(form, name, value, where)
                continue
            if key.older:
                self._older(f"{name!r} of {_a(form)} is an older key.", where, key.older)
            self.shape(key.shape, inner, where)

    def shape(self, shape: Shape, value: Any, path: Path) -> None:
        match shape:
            case Of(form):
                self.form(FORMS[form], value, path)
            case ListOf(item) if isinstance(value, list):
                for number, each in enumerate(value):
                    self.shape(item, each, (*path, number))
            case MapOf(item) if isinstance(value, Mapping):
                for name, each in value.items():
                    self.shape(item, each, (*path, name))
            case Either(options):
                chosen = choose(options, value)
                if chosen is not None:
                    self.shape(chosen, value, path)
            case Older(inner, remedy):
                written = next(part for part in reversed(path) if isinstance(part, str))
                self._older(f"{written!r} is written in an older form.", path, remedy)
                self.shape(inner, value, path)
            case _:
                pass  # the parser says what the value must be

    def _unknown(self, form: Form, name: str, value: Mapping[str, Any], where: Path) -> None:
        if name in form.refused:
            message = f"{name!r} of {_a(form)} is not part of the language."
            self._add("refused-key", message, where, form.refused[name], "error")
            return
        if form.shared:
            return
        absent = [word for word in known_keys(form.name) if word not in value]
        near = self.likeness.near(str(name), absent, _CUTOFF)
        if near:
            severity = "error" if form.strict else "warning"
            message = f"{_a(form)} has no key {name!r}."
            self._add("unknown-key", message, where, f"Did you mean {near!r}?", severity)
            return
        if not form.open:
            below = next((key for key, inner in _below(form) if name in known_keys(inner)), None)
            hint = f"Write it below {below!r}." if below else "See 'callboard schema'."
            message = f"{_a(form)} has no key {name!r}; it is ignored."
            self._add("unknown-key", message, where, hint)

    def _older(self, message: str, where: Path, remedy: str) -> None:
        self._add("deprecated", message, where, remedy, "info")

    def _add(
        self, code: str, message: str, where: Path, hint: str, severity: str = "warning"
    ) -> None:
        mark = self.source.key_at(where)
        key = ".".join(str(part) for part in where)
        self.findings.append(Finding(code, message, mark.line, mark.column, key, severity, hint))


def choose(options: tuple[Shape, ...], value: Any) -> Shape | None:
    """The option that *value* looks most like: the same kind of value, then the most known keys."""
    fitting = [option for option in options if _fits(option, value)]
    return max(fitting, key=lambda option: _likeness(option, value)) if fitting else None


def _fits(shape: Shape, value: Any) -> bool:
    match shape:
        case Older(inner):
            return _fits(inner, value)
        case Of() | MapOf():
            return isinstance(value, Mapping)
        case ListOf():
            return isinstance(value, list)
        case Either(options):
            return any(_fits(option, value) for option in options)
        case Plain():
            return not isinstance(value, Mapping | list)


def _likeness(shape: Shape, value: Any) -> int:
    match shape:
        case Older(inner):
            return _likeness(inner, value)
        case Of(form) if isinstance(value, Mapping):
            known = known_keys(form)
            missing = any(
                key.required and not (set(key.names) & set(value)) for key in FORMS[form].keys
            )
            return sum(name in known for name in value) - missing
        case _:
            return 0


def _below(form: Form) -> Iterator[tuple[str, str]]:
    """The keys of *form* that hold another form, with its name."""
    for key in form.keys:
        if isinstance(key.shape, Of):
            yield key.name, key.shape.form


def _a(form: Form) -> str:
    return f"{'an' if form.name[0] in 'aeiou' else 'a'} {form.name}"
