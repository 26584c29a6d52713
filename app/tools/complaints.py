"""What is wrong with a tool's keys, as far as one can tell before its templates are rendered."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.engine.language.source import texts
from app.engine.templates.template import has_template
from app.errors import Complaint

#: Keys that any tool may have beside its own; the engine reads them, or nobody does.
COMMON = frozenset(
    {"kind", "name", "label", "desc", "set", "spec", "policy", "input", "args", "auth", "output"}
    | {"output_select", "retry", "eval", "timeout", "timeout_seconds", "credential", "credentials"}
)
_WANTED = {
    "string": "text",
    "list": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "none": "nothing",
}

Loc = tuple[str | int, ...]


def names_of(model: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    """Every key that *model* reads, with all names of the same field; the first is the usual one."""
    found: dict[str, tuple[str, ...]] = {}
    by_name = bool(model.model_config.get("populate_by_name"))
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices):
            names = tuple(choice for choice in alias.choices if isinstance(choice, str))
        else:
            names = (str(alias or name),)
        own = () if name in names or not by_name else (name,)
        for each in (*names, *own):
            found[each] = names
    return found


def complaints(
    model: type[BaseModel],
    config: Mapping[str, Any],
    *,
    needs: Sequence[Sequence[str]] = (),
    kind: str = "tool",
) -> list[Complaint]:
    """What is wrong with *config* for *model*. Of each group in *needs* one key must be given.

    Whatever holds a template may become anything and is not complained about.
    """
    names = names_of(model)
    required = [(names[name][0],) for name in _required(model)]
    missing = [
        group
        for group in (*required, *needs)
        if not any(_is_given(config.get(name)) for key in group for name in names.get(key, (key,)))
    ]
    absent = {name for group in missing for key in group for name in names.get(key, (key,))}
    return [
        *(_lacking(group, kind) for group in missing),
        *(each for each in _misfits(model, config) if not (set(each.path[:1]) & absent)),
        *_unknown(model, config, kind),
    ]


def _required(model: type[BaseModel]) -> list[str]:
    return [
        str(alias.choices[0] if isinstance(alias, AliasChoices) else alias or name)
        for name, field in model.model_fields.items()
        if field.is_required()
        for alias in (field.validation_alias,)
    ]


def _lacking(group: Sequence[str], kind: str) -> Complaint:
    wanted = ", ".join(group[:-1]) + " or " + group[-1] if len(group) > 1 else group[0]
    message = f"a tool of the kind {kind} needs {wanted}."
    return Complaint((), "tool-key-missing", message, f"Add '{group[0]}: …'.")


def _is_given(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value not in (None, [], {})


def _misfits(model: type[BaseModel], config: Mapping[str, Any]) -> Iterator[Complaint]:
    """One complaint per place that the model refuses, whatever the alternatives were."""
    try:
        model.model_validate(dict(config))
    except ValidationError as exc:
        places: dict[Loc, list[ErrorDetails]] = {}
        for error in exc.errors(include_url=False, include_input=False):
            if error["type"] == "missing" and len(error["loc"]) == 1:
                continue  # counted above
            places.setdefault(_place(config, error), []).append(error)
        for place, errors in places.items():
            if not _may_change(config, place):
                yield _misfit(config, place, errors)


def _place(config: Any, error: ErrorDetails) -> Loc:
    """Where in *config* the error is; names of alternatives, which pydantic adds, are left out."""
    place: list[str | int] = []
    value: Any = config
    for part in error["loc"]:
        if _has(value, part):
            value = value[part]
            place.append(part)
    return tuple(place)


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, Mapping):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _may_change(config: Any, place: Loc) -> bool:
    value = config
    for part in place:
        value = value[part]
    # Of the whole config only the keys count here: a value that changes does not add one.
    found: Iterable[str] = value if not place else (text for _, text in texts(value))
    return any(has_template(str(text)) for text in found)


def _misfit(config: Any, place: Loc, errors: Sequence[ErrorDetails]) -> Complaint:
    shown = ".".join(str(part) for part in place)
    missing = [str(error["loc"][-1]) for error in errors if error["type"] == "missing"]
    if missing:
        where = f"{shown!r} needs" if shown else "the tool needs"
        words = " or ".join(missing)
        return Complaint(place, "tool-key-missing", f"{where} {words}.", f"Add '{missing[0]}: …'.")
    value = config
    for part in place:
        value = value[part]
    wanted = " or ".join(dict.fromkeys(word for error in errors if (word := _wanted(error))))
    return Complaint(place, "tool-key-type", f"{shown!r} must be {wanted}, not {_kind_of(value)}.")


def _wanted(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "literal_error" | "enum":
            return str(context.get("expected", ""))
        case "greater_than":
            return f"more than {context['gt']:g}"
        case "greater_than_equal":
            return f"at least {context['ge']:g}"
        case "string_too_short" | "too_short":
            return "not empty"
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case other:
            return _WANTED.get(other.partition("_")[0], error["msg"])


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return "true or false"
        case int() | float():
            return "this number"
        case str():
            return "this text"
        case Mapping():
            return "a mapping"
        case _:
            return "this list"


def _unknown(model: type[BaseModel], config: Mapping[str, Any], kind: str) -> Iterator[Complaint]:
    if model.model_config.get("extra") == "allow":
        return
    known = names_of(model)
    for key in config:
        if key in known or key in COMMON or has_template(str(key)):
            continue
        absent = [name for name in (*known, *sorted(COMMON)) if name not in config]
        near = difflib.get_close_matches(str(key), absent, n=1, cutoff=0.7)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        message = f"a tool of the kind {kind} has no key {key!r}; it is ignored."
        yield Complaint((key,), "tool-key-unknown", message, hint, "warning")
