"""Reads YAML strictly: size, depth, aliases and duplicate keys are checked, and every value keeps its place.

Measured on PyYAML: an alias bomb of 324 bytes passes ``safe_load`` and needs 800 MB when written
out again; 20,000 nested brackets end in a RecursionError; duplicate keys are silently accepted; and
its tree of nodes takes 2 KB for each word. Here data grows straight out of the parser's events.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from app.errors import Finding, InvalidPlaybookError

MAX_DEPTH = 64
MAX_NODES = 100_000
MAX_BYTES = 8_388_608
#: Nodes that aliases may add beyond those written down.
MAX_ALIASED = 10_000
#: Texts with templates: each is compiled, which takes half a millisecond and more.
MAX_TEMPLATES = 10_000
MAX_KEY = 1024
#: Findings after which reading ends: nobody reads more.
MAX_FINDINGS = 100
#: libyaml compares each tag directive with all before it.
MAX_TAG_DIRECTIVES = 100

Path = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SHOWN = 60

# YAML 1.1 as PyYAML reads it, because playbooks were written for that, with one exception: 22:22 is
# no number to the base of 60. Nobody means 1342 by it.
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {
    form: value
    for word, value in (
        ("yes", True),
        ("on", True),
        ("true", True),
        ("no", False),
        ("off", False),
        ("false", False),
    )
    for form in (word, word.capitalize(), word.upper())
}
_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
#: What a plain scalar begins with that is not text.
_SPECIAL = frozenset("~nNyYtTfFoO+-.0123456789")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the text; ``line`` and ``column`` count from 1."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value and its key stand; for a container also what it holds.

    A scalar's place is one number: see ``_packed``. A hundred thousand of them take little memory.
    """

    packed: int = 0
    below: Mapping[str, Place | int] | list[Place | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed document: plain data, where each key and value of it stands, and what looks odd."""

    data: Any
    place: Place | int = 0
    warnings: tuple[Finding, ...] = ()

    def at(self, path: Path) -> Mark:
        """Where the value at *path* stands; the nearest known parent's place otherwise."""
        return _value_mark(self._find(path)[0])

    def key_at(self, path: Path) -> Mark:
        """Where the key at the end of *path* stands."""
        place, whole = self._find(path)
        key = _number(place) >> _BITS
        return _mark(key) if whole and key else _value_mark(place)

    @property
    def marks(self) -> Known:
        """The paths that stand in the text, for asking whether one does."""
        return Known(self)

    def _find(self, path: Path) -> tuple[Place | int, bool]:
        """The place of the longest known part of *path*, and whether that is all of it."""
        place = self.place
        for part in path:
            below = place.below if isinstance(place, Place) else {}
            try:
                place = below[part]  # type: ignore[index]  # a wrong kind of part is not found
            except (LookupError, TypeError):
                return place, False
        return place, True


@dataclass(frozen=True, slots=True)
class Known(Container[Path]):
    """The paths of the values of one document."""

    source: Source

    def __contains__(self, path: object) -> bool:
        return isinstance(path, tuple) and self.source._find(path)[1]  # noqa: SLF001 (its other half)


def read(text: str | bytes, *, name: str = "playbook", max_bytes: int = MAX_BYTES) -> Source:
    """Parse *text*; raises ``InvalidPlaybookError`` that names the line for anything wrong with it."""
    # Half a surrogate pair is no character; it is counted here and refused by the parser.
    size = len(text.encode(errors="surrogatepass") if isinstance(text, str) else text)
    if size > max_bytes:
        limit = f"{size} bytes are more than the {max_bytes} allowed"
        raise _invalid(name, "yaml-size", limit, hint="Set CALLBOARD_PLAYBOOK_BYTES to allow more.")
    try:
        return _read(text.decode() if isinstance(text, bytes) else text, name)
    except UnicodeError as exc:
        problem, hint = f"the text is not UTF-8: {exc}", "Save the file as UTF-8."
        raise _invalid(name, "yaml-encoding", problem, hint=hint) from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = Mark(mark.line + 1, mark.column + 1) if mark else Mark()
        problem = exc.problem or exc.context or "cannot be read"
        raise _invalid(name, "yaml-syntax", f"not valid YAML: {problem}", where) from exc
    except yaml.YAMLError as exc:
        raise _invalid(name, "yaml-syntax", f"not valid YAML: {exc}") from exc


def _read(text: str, name: str) -> Source:
    if text.count("%TAG") > MAX_TAG_DIRECTIVES:
        raise _invalid(name, "yaml-syntax", f"more than {MAX_TAG_DIRECTIVES} tag directives")
    loader = _Loader(text)
    try:
        return _Reader(name, loader.get_event).document()
    finally:
        loader.dispose()


@dataclass(frozen=True, slots=True)
class _Node:
    """What one value came to: its data, its place, how many values it is, and its text as a key."""

    data: Any
    place: Place | int
    size: int = 1
    text: str | None = None


class _Reader:
    """Turns the parser's events into plain data, with places, refusing what would explode later."""

    def __init__(self, name: str, get: Any) -> None:
        self.name = name
        self.get = get
        self.anchors: dict[str, _Node] = {}
        self.open: dict[str, Mark] = {}
        self.nodes = self.depth = self.aliased = self.templates = 0
        self.findings: list[Finding] = []
        self.warnings: list[Finding] = []

    def document(self) -> Source:
        """The only document of the stream."""
        event = self._next()  # the stream's start
        event = self._next()
        if isinstance(event, StreamEndEvent):
            raise _invalid(self.name, "yaml-empty", "the document is empty")
        event = self._next()
        empty = isinstance(event, ScalarEvent) and event.implicit[0] and not event.value
        node = self._value(event)
        self._next()  # the document's end
        event = self._next()
        if isinstance(event, DocumentStartEvent):
            problem = "not valid YAML: there is a second document; a playbook is one"
            raise _invalid(self.name, "yaml-syntax", problem, _place(event))
        if empty:
            raise _invalid(self.name, "yaml-empty", "the document is empty")
        if self.findings:
            raise InvalidPlaybookError(self.findings, source=self.name)
        return Source(node.data, node.place, tuple(self.warnings))

    def _next(self) -> Event:
        event: Event = self.get()
        self.nodes += 1
        if self.nodes > MAX_NODES:
            problem = f"the document has too many nodes; the limit is {MAX_NODES}"
            raise _invalid(self.name, "yaml-depth", problem, _place(event))
        return event

    def _value(self, event: Any) -> _Node:
        if isinstance(event, ScalarEvent):
            node = _Node(self._scalar(event), _packed(event), text=event.value)
        elif isinstance(event, AliasEvent):
            return self._alias(event)
        else:
            node = self._container(event)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _container(self, event: Any) -> _Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            problem = f"the document is nested deeper than {MAX_DEPTH}"
            raise _invalid(self.name, "yaml-depth", problem, _place(event))
        if event.tag not in {None, "!", _TAG + "map", _TAG + "seq"}:
            self._refuse_tag(event)
        if event.anchor:
            self.open[event.anchor] = _place(event)
        mapping = isinstance(event, MappingStartEvent)
        node = self._mapping(event) if mapping else self._sequence(event)
        self.open.pop(event.anchor, None)
        self.depth -= 1
        return node

    def _sequence(self, start: Event) -> _Node:
        assert isinstance(start, SequenceStartEvent)
        data: list[Any] = []
        places: list[Place | int] = []
        size = 1
        while not isinstance(event := self._next(), SequenceEndEvent):
            node = self._value(event)
            data.append(node.data)
            places.append(node.place)
            size += node.size
        return _Node(data, Place(_packed(start), places), size)

    def _mapping(self, start: Event) -> _Node:
        data: dict[str, Any] = {}
        places: dict[str, Place | int] = {}
        merged: dict[str, Any] = {}
        merged_places: dict[str, Place | int] = {}
        size = 1
        while not isinstance(event := self._next(), MappingEndEvent):
            if _merges(event):
                size += self._merge(merged, merged_places)
                continue
            key, at = self._key(event), _packed(event)
            if key in data:
                problem = f"the key {_short(key)} appears twice"
                self._report(_finding("yaml-duplicate-key", problem, _place(event)))
            node = self._value(self._next())
            data[key] = node.data
            places[key] = _with_key(node.place, at)
            size += node.size + 1
        if merged:
            data, places = {**merged, **data}, {**merged_places, **places}
        return _Node(data, Place(_packed(start), places), size)

    def _merge(self, merged: dict[str, Any], places: dict[str, Place | int]) -> int:
        event = self._next()
        node = self._value(event)
        parts = [node]
        if isinstance(node.data, list):
            assert isinstance(node.place, Place)
            assert isinstance(node.place.below, list)
            # The first of several wins.
            pairs = zip(reversed(node.data), reversed(node.place.below), strict=True)
            parts = [_Node(data, place) for data, place in pairs]
        for part in parts:
            if not isinstance(part.data, dict) or not isinstance(part.place, Place):
                problem = "'<<' merges mappings only"
                raise _invalid(self.name, "yaml-merge", problem, _value_mark(part.place))
            assert isinstance(part.place.below, dict)
            merged.update(part.data)
            places.update(part.place.below)
        return node.size

    def _key(self, event: Event) -> str:
        """A key is the text that is written there: ``on``, ``3`` and ``null`` are words, as in JSON."""
        node = self._alias(event) if isinstance(event, AliasEvent) else None
        text = node.text if node else getattr(event, "value", None)
        if not isinstance(text, str):
            problem = "a key must be a plain word or text"
            raise _invalid(self.name, "yaml-key", problem, _place(event))
        self._count_templates(text, event)
        if len(text) > MAX_KEY:
            self._report(
                _finding("yaml-key", f"a key is longer than {MAX_KEY} characters", _place(event))
            )
            text = text[:MAX_KEY]
        if "\0" in text:
            self._report(_finding("yaml-key", "a key holds the character NUL", _place(event)))
        if isinstance(event, ScalarEvent) and event.anchor:
            self.anchors[event.anchor] = _Node(self._scalar(event), _packed(event), text=text)
        return text

    def _alias(self, event: Any) -> _Node:
        if event.anchor in self.open:
            mark = self.open[event.anchor]
            raise _invalid(self.name, "yaml-alias", "an alias refers to itself", mark)
        node = self.anchors.get(event.anchor)
        if node is None:
            problem = f"not valid YAML: there is no anchor {_short(event.anchor)}"
            raise _invalid(self.name, "yaml-syntax", problem, _place(event))
        self.aliased += node.size
        if self.aliased > MAX_ALIASED:
            problem = f"aliases expand to more than {MAX_ALIASED} nodes"
            raise _invalid(self.name, "yaml-alias", problem, _place(event))
        return _Node(_copied(node.data), node.place, node.size, node.text)

    def _count_templates(self, text: str, event: Event) -> None:
        self.templates += "{{" in text or "{%" in text
        if self.templates > MAX_TEMPLATES:
            problem = f"more than {MAX_TEMPLATES} texts have templates"
            raise _invalid(self.name, "template", problem, _place(event))

    # ------------------------------------------------------------------ scalars
    def _scalar(self, event: ScalarEvent) -> Any:
        text = event.value
        self._count_templates(text, event)
        if "\0" in text:
            self._report(
                _finding("yaml-value", "a text may not hold the character NUL", _place(event))
            )
        if event.tag is None or event.tag == "!":
            # Quoted text is text, and so is what begins as no other value does.
            if event.tag or not event.implicit[0] or (text and text[0] not in _SPECIAL):
                return text
            return self._plain(text, event)
        match event.tag.removeprefix(_TAG):
            # JSON has no dates and no bytes: keep what was written.
            case "str" | "timestamp" | "binary":
                return text
            case "null" | "bool" | "int" | "float" as kind:
                return self._tagged(text, kind, event)
            case _:
                return self._refuse_tag(event)

    def _tagged(self, text: str, kind: str, event: ScalarEvent) -> Any:
        value = self._plain(text, event) if not text or text[0] in _SPECIAL else text
        if kind == "float" and type(value) is int:
            return float(value)
        if (type(value).__name__ if value is not None else "null") != kind:
            problem = f"cannot read the value {_short(text)} as {kind}"
            self._report(_finding("yaml-value", problem, _place(event)))
            return None
        return value

    def _plain(self, text: str, event: ScalarEvent) -> Any:
        if text in _NULLS:
            return None
        if text in _BOOLS:
            if text.lower() not in {"true", "false"}:
                read_as = "true" if _BOOLS[text] else "false"
                message = f"the word {text} is read as {read_as}"
                self._warn(
                    "yaml-word", message, event, f'Write {read_as}, or "{text}" for the word.'
                )
            return _BOOLS[text]
        if _INT.fullmatch(text):
            return self._int(text, event)
        if _FLOAT.fullmatch(text):
            return self._float(text, event)
        return text

    def _int(self, text: str, event: ScalarEvent) -> int | str:
        digits = text.replace("_", "").lower().lstrip("+-")
        base = {"0b": 2, "0x": 16}.get(digits[:2], 10)
        # An octal 0644 stays one, as PyYAML had it, because file modes are written so. A postal code
        # is written so too, hence the warning.
        if base == 10 and len(digits) > 1 and digits[0] == "0":
            base = 8
            message = f"the number {_short(text)} is read as octal"
            self._warn("yaml-octal", message, event, "Put it in quotes where it is a text.")
        try:
            number = int(digits[2:] if base in {2, 16} else digits, base)
        except ValueError:  # thousands of digits, or 0b without any
            number = 2**64
        number = -number if text[0] == "-" else number
        if not -(2**63) <= number < 2**64:
            problem = f"the number {_short(text)} does not fit into 64 bits"
            self._report(_finding("yaml-value", problem, _place(event), "Put it in quotes."))
        return number

    def _float(self, text: str, event: ScalarEvent) -> float:
        digits = text.replace("_", "").lower()
        sign, bare = (-1, digits[1:]) if digits[0] == "-" else (1, digits.lstrip("+"))
        number = sign * float(bare[1:] if bare in {".inf", ".nan"} else bare)
        if not math.isfinite(number):
            problem = f"the value {_short(text)} is no finite number; JSON has no such value"
            self._report(
                _finding("yaml-value", problem, _place(event), "Write null, or put it in quotes.")
            )
        return number

    # ------------------------------------------------------------------ findings
    def _refuse_tag(self, event: Any) -> None:
        tag = event.tag.replace(_TAG, "!!", 1)
        problem = f"the tag {_short(tag)} is not known; a playbook is plain data"
        self._report(_finding("yaml-value", problem, _place(event)))

    def _report(self, finding: Finding) -> None:
        self.findings.append(finding)
        if len(self.findings) >= MAX_FINDINGS:
            raise InvalidPlaybookError(self.findings, source=self.name)

    def _warn(self, code: str, message: str, event: Event, hint: str) -> None:
        if len(self.warnings) < MAX_FINDINGS:
            mark = _place(event)
            self.warnings.append(
                Finding(code, message, mark.line, mark.column, severity="warning", suggestion=hint)
            )


def _merges(event: Event) -> bool:
    return isinstance(event, ScalarEvent) and (
        event.tag == _TAG + "merge"
        or (event.value == "<<" and event.tag is None and event.implicit[0])
    )


def _copied(data: Any) -> Any:
    """A copy of what an alias stands for, so that no two places of the data are one object."""
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_copied(value) for value in data]
    return data


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


# ---------------------------------------------------------------------- places as numbers
_COLUMN_BITS = 24
_BITS = 2 * _COLUMN_BITS


def _packed(event: Any) -> int:
    mark = _place(event)
    return mark.line << _COLUMN_BITS | mark.column


def _with_key(place: Place | int, key: int) -> Place | int:
    """*place* with the place of its key above its own."""
    if isinstance(place, Place):
        return Place(place.packed & ((1 << _BITS) - 1) | key << _BITS, place.below)
    return place & ((1 << _BITS) - 1) | key << _BITS


def _number(place: Place | int) -> int:
    return place.packed if isinstance(place, Place) else place


def _value_mark(place: Place | int) -> Mark:
    return _mark(_number(place) & ((1 << _BITS) - 1))


def _mark(number: int) -> Mark:
    return Mark(number >> _COLUMN_BITS, number & ((1 << _COLUMN_BITS) - 1))


def _place(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def texts(data: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """All strings in *data* with their paths; keys only where they may be templates."""
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(key, str) and "{" in key:
                yield (*path, key), key
            yield from texts(value, (*path, key))
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from texts(value, (*path, index))


def _finding(code: str, message: str, mark: Mark, hint: str | None = None) -> Finding:
    return Finding(code, message, mark.line, mark.column, suggestion=hint)


def _invalid(
    name: str, code: str, message: str, mark: Mark = Mark(), *, hint: str | None = None
) -> InvalidPlaybookError:
    return InvalidPlaybookError([_finding(code, message, mark, hint)], source=name)
