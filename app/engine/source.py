"""Reads YAML strictly: size, depth, aliases and duplicate keys are checked, and every node keeps its place.

Measured on PyYAML: an alias bomb of 324 bytes passes ``safe_load`` and needs 800 MB when written
out again; 20,000 nested brackets end in a RecursionError; duplicate keys are silently accepted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from app.errors import Finding, InvalidPlaybookError

MAX_DEPTH = 64
MAX_NODES = 500_000
MAX_BYTES = 8_388_608
#: Nodes that aliases may add beyond those written down.
MAX_ALIASED = 10_000

Path = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTRUCTOR = yaml.SafeLoader("")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the text; ``line`` and ``column`` count from 1."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed document: plain data, and where each key and value of it stands."""

    data: Any
    marks: Mapping[Path, Mark] = field(default_factory=dict)
    keys: Mapping[Path, Mark] = field(default_factory=dict)

    def at(self, path: Path) -> Mark:
        """Where the value at *path* stands; the nearest known parent's place otherwise."""
        while path:
            if path in self.marks:
                return self.marks[path]
            path = path[:-1]
        return self.marks.get((), Mark())

    def key_at(self, path: Path) -> Mark:
        """Where the key at the end of *path* stands."""
        return self.keys.get(path) or self.at(path)


def read(text: str | bytes, *, name: str = "playbook", max_bytes: int = MAX_BYTES) -> Source:
    """Parse *text*; raises ``InvalidPlaybookError`` that names the line for anything wrong with it."""
    # Half a surrogate pair is no character; it is counted here and refused by the parser.
    size = len(text.encode(errors="surrogatepass") if isinstance(text, str) else text)
    if size > max_bytes:
        limit = f"{size} bytes are more than the {max_bytes} allowed"
        raise _invalid(name, "yaml-size", limit, hint="Set CALLBOARD_PLAYBOOK_BYTES to allow more.")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        _check_nesting(decoded, name)
        node = _compose(decoded)
    except UnicodeError as exc:
        raise _invalid(name, "yaml-encoding", f"the text is not UTF-8: {exc}") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = Mark(mark.line + 1, mark.column + 1) if mark else Mark()
        problem = exc.problem or exc.context or "cannot be read"
        raise _invalid(name, "yaml-syntax", f"not valid YAML: {problem}", where) from exc
    except yaml.YAMLError as exc:
        raise _invalid(name, "yaml-syntax", f"not valid YAML: {exc}") from exc
    if node is None:
        raise _invalid(name, "yaml-empty", "the document is empty")
    return _Builder(name).build(node)


def _compose(text: str) -> Node | None:
    loader = _Loader(text)
    try:
        node: Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


def _check_nesting(text: str, name: str) -> None:
    """Refuse deep nesting on the event stream, before anything recurses over it."""
    depth = nodes = 0
    loader = _Loader(text)
    try:
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                depth += 1
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                depth -= 1
            nodes += 1
            if depth > MAX_DEPTH or nodes > MAX_NODES:
                mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
                what = f"nested deeper than {MAX_DEPTH}" if depth > MAX_DEPTH else "too many nodes"
                raise _invalid(name, "yaml-depth", f"the document is {what}", mark)
    finally:
        loader.dispose()


class _Builder:
    """Turns nodes into plain data, with places, refusing what would explode later."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.marks: dict[Path, Mark] = {}
        self.keys: dict[Path, Mark] = {}
        self.seen: set[int] = set()
        self.open: set[int] = set()
        self.aliased = 0
        self.findings: list[Finding] = []

    def build(self, node: Node) -> Source:
        data = self._value(node, (), inside_alias=False)
        if self.findings:
            raise InvalidPlaybookError(self.findings, source=self.name)
        return Source(data, self.marks, self.keys)

    def _value(self, node: Node, path: Path, *, inside_alias: bool) -> Any:
        alias = inside_alias or id(node) in self.seen
        self.seen.add(id(node))
        if alias:
            self.aliased += 1
            if self.aliased > MAX_ALIASED:
                raise _invalid(
                    self.name,
                    "yaml-alias",
                    f"aliases expand to more than {MAX_ALIASED} nodes",
                    _mark(node),
                )
        if id(node) in self.open:
            raise _invalid(self.name, "yaml-alias", "an alias refers to itself", _mark(node))
        self.marks[path] = _mark(node)
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        self.open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path, alias=alias)
            assert isinstance(node, SequenceNode)
            return [
                self._value(item, (*path, index), inside_alias=alias)
                for index, item in enumerate(node.value)
            ]
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: MappingNode, path: Path, *, alias: bool) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged.update(self._merge(value_node, path))
                continue
            key = self._key(key_node)
            if key in result:
                self.findings.append(
                    _finding(
                        "yaml-duplicate-key", f"the key {key!r} appears twice", _mark(key_node)
                    )
                )
            self.keys[(*path, key)] = _mark(key_node)
            result[key] = self._value(value_node, (*path, key), inside_alias=alias)
        return {**merged, **result}

    def _merge(self, node: Node, path: Path) -> dict[str, Any]:
        parts = node.value if isinstance(node, SequenceNode) else [node]
        result: dict[str, Any] = {}
        for part in reversed(parts):
            value = self._value(part, path, inside_alias=True)
            if not isinstance(value, dict):
                raise _invalid(self.name, "yaml-merge", "'<<' merges mappings only", _mark(part))
            result.update(value)
        return result

    def _key(self, node: Node) -> str:
        if not isinstance(node, ScalarNode):
            raise _invalid(self.name, "yaml-key", "a key must be a plain word or text", _mark(node))
        return str(node.value)

    def _scalar(self, node: ScalarNode) -> Any:
        try:
            value = _CONSTRUCTOR.construct_object(node)
        except (yaml.YAMLError, ValueError) as exc:
            message = getattr(exc, "problem", None) or str(exc)
            self.findings.append(
                _finding(
                    "yaml-value", f"cannot read the value {node.value!r}: {message}", _mark(node)
                )
            )
            return None
        finally:
            # It remembers what it made, and what it could not make, for ever.
            _CONSTRUCTOR.constructed_objects.pop(node, None)
            _CONSTRUCTOR.recursive_objects.pop(node, None)
        # JSON has no dates and no bytes: keep what was written.
        return node.value if isinstance(value, dt.date | bytes) else value


def texts(data: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """All strings in *data* with their paths."""
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from texts(value, (*path, key))
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from texts(value, (*path, index))


def _mark(node: Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


def _finding(code: str, message: str, mark: Mark, hint: str | None = None) -> Finding:
    return Finding(code, message, mark.line, mark.column, suggestion=hint)


def _invalid(
    name: str, code: str, message: str, mark: Mark = Mark(), *, hint: str | None = None
) -> InvalidPlaybookError:
    return InvalidPlaybookError([_finding(code, message, mark, hint)], source=name)
