"""What a key may hold: shapes that give a JSON Schema, words for a page, and a way to walk a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any]

#: A text in which something is left to be filled in.
TEMPLATE: Schema = {"type": "string", "pattern": r"\{\{|\{%"}


@dataclass(frozen=True, slots=True)
class Plain:
    """A value without keys of ours: ``words`` for people, ``schema`` for programs."""

    words: str
    schema: Schema = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Of:
    """A mapping with the keys of the form of that name."""

    form: str


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; ``least`` is how many items it needs."""

    item: Shape
    least: int = 0


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping with keys of the author's choice."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Either:
    """One of several shapes; the value's own form says which."""

    options: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Older:
    """A shape that is read and not to be written any more; ``remedy`` says what to write."""

    shape: Shape
    remedy: str


Shape = Plain | Of | ListOf | MapOf | Either | Older


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a form. ``about`` is one sentence. ``older`` marks a key of older playbooks and says
    what to write instead; ``aliases`` are other names that mean the same."""

    name: str
    about: str
    shape: Shape
    required: bool = False
    aliases: tuple[str, ...] = ()
    older: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Form:
    """A mapping of the language. ``open`` ones may have further keys, which are kept or ignored.

    In ``strict`` ones a key that is nearly a known one is an error, in others a warning. In ``shared``
    ones the keys of a tool stand as well, and the tool checks them. ``refused`` are keys that some
    engine once read, with what to write instead. ``any_of`` names keys of which at least one is
    needed, ``one_of`` keys of which exactly one is.
    """

    name: str
    about: str
    keys: tuple[Key, ...]
    open: bool = False
    strict: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False
    any_of: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()

    def known(self) -> dict[str, Key]:
        """Every name that may stand here, aliases included."""
        return {name: key for key in self.keys for name in key.names}


def any_value() -> Plain:
    return Plain("anything")


def text() -> Plain:
    return Plain("text", {"type": ["string", "number", "boolean"]})


def name() -> Plain:
    return Plain("name", {"type": ["string", "integer"]})


def mapping() -> Plain:
    return Plain("mapping", {"type": ["object", "null"]})


def condition() -> Plain:
    return Plain("condition", {"type": ["string", "boolean", "number", "null"]})


def choice(*words: str) -> Plain:
    return Plain(" or ".join(f"`{word}`" for word in words), {"enum": list(words)})


def flag() -> Plain:
    return Plain("true or false", {"anyOf": [{"type": "boolean"}, TEMPLATE]})


def switch() -> Plain:
    """True or false that is read before anything is rendered."""
    return Plain("true or false", {"type": "boolean"})


def count() -> Plain:
    """A positive whole number, as number, text or template."""
    number = {"type": "integer", "minimum": 1}
    digits = {"type": "string", "pattern": r"^\s*[1-9][0-9]*\s*$"}
    return Plain("whole number or template", {"anyOf": [number, digits, TEMPLATE]})


def time() -> Plain:
    """Seconds, or text with a unit."""
    number = {"type": "number", "minimum": 0}
    words = {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)?\s*$"}
    return Plain("seconds, or text such as `30s`, `5m`", {"anyOf": [number, words, TEMPLATE]})


def words_of(shape: Shape) -> str:
    """*shape* in words, for a table."""
    match shape:
        case Plain(words):
            return words
        case Of(form):
            return f"[{form}](#{form.replace(' ', '-')})"
        case ListOf(item):
            return f"list of {words_of(item)}"
        case MapOf(item):
            return f"mapping of names to {words_of(item)}"
        case Either(options):
            return ", or ".join(words_of(option) for option in options)
        case Older(inner):
            return f"{words_of(inner)} (older)"


def schema_of(shape: Shape) -> Schema:
    """*shape* as JSON Schema; forms are referred to below ``$defs``."""
    match shape:
        case Plain(_, schema):
            return dict(schema)
        case Of(form):
            return {"$ref": f"#/$defs/{form.replace(' ', '-')}"}
        case ListOf(item, least):
            return {"type": "array", "items": schema_of(item), "minItems": least}
        case MapOf(item):
            return {"type": "object", "additionalProperties": schema_of(item)}
        case Either(options):
            return {"anyOf": [schema_of(option) for option in options]}
        case Older(inner, remedy):
            return {**schema_of(inner), "deprecated": True, "description": f"Older. {remedy}"}
