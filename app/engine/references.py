"""Values kept outside the log: what stands for them in events, and how templates read them.

A reference is ``{_ref: {kind, name, ref, type, fields}, _store, _size_bytes, _preview}`` and, beside
these, the parts that the step selected. What it tells is read without fetching the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from app.engine.encoding import dumps
from app.engine.templates.sandbox import Result
from app.engine.templates.scope import http_of, output_of
from app.errors import BadRequestError

#: Key that marks a value kept outside the log.
REF = "_ref"
#: The fields of a reference; none of them is part of the value it stands for.
FIELDS = frozenset({REF, "_store", "_size_bytes", "_preview"})
#: Bytes of JSON that a preview, and the names of a value's fields, may take at the most.
PREVIEW_BYTES = 1_024
#: A field of a mapping is shown in the preview up to this many characters.
SMALL = 200

#: What the names of artifacts begin with, and the names under which they are looked up.
ARTIFACT, NAMED = "artifact/", "named/"
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,80}/[a-z0-9][a-z0-9!#$&^_.+-]{0,80}")
_KINDS = frozenset({"result_ref", "loop_ref"})
_SCHEME = "noetl://execution/"
_LOOP = "loop/"
_VISIT = re.compile(r"[1-9][0-9]{0,8}")

#: Gives the value that a reference stands for.
Load = Callable[[Mapping[str, Any]], Any]


class Place(NamedTuple):
    """Where a value is: the execution it belongs to, and its name there.

    The last part of the name is the value's digest; those of loops have none.
    """

    execution_id: int
    name: str

    @property
    def ref(self) -> str:
        return f"{_SCHEME}{self.execution_id}/{quote(self.name, safe='/-._~')}"

    @property
    def loop(self) -> tuple[str, int] | None:
        """The step and visit whose iterations gave the value, where it is a loop's."""
        if not self.name.startswith(_LOOP):
            return None
        step, _, visit = self.name.removeprefix(_LOOP).rpartition("/")
        return (step, int(visit)) if step and _VISIT.fullmatch(visit) else None


def place_of(ref: Any) -> Place:
    """The place that a ``noetl://`` reference names. Raises ``BadRequestError`` for anything else."""
    text = ref.get("ref") if isinstance(ref, Mapping) else ref
    if isinstance(text, str) and text.startswith(_SCHEME):
        number, _, name = text.removeprefix(_SCHEME).partition("/")
        if number.isascii() and number.isdecimal() and int(number) < 1 << 63 and name:
            return Place(int(number), unquote(name))
    raise BadRequestError(
        f"{str(text)[:SMALL]!r} is no reference to a value",
        remedy="give what stands in '_ref' of a result, noetl://execution/ID/NAME",
    )


def is_reference(value: Any) -> bool:
    """Whether *value* stands for one that is kept elsewhere. Of what a step gave nothing is one."""
    if not isinstance(value, dict) or not value.keys() >= FIELDS:
        return False
    pointer = value[REF]
    return isinstance(pointer, dict) and pointer.get("kind") in _KINDS and "ref" in pointer


def reference(
    place: Place, store: str, size: int, value: Any, selected: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What stands in an event for *value*, *size* bytes of JSON kept in *store*."""
    pointer: dict[str, Any] = {"kind": "result_ref", "name": place.name, "ref": place.ref}
    pointer["type"] = _type_of(value)
    if isinstance(value, Mapping) and len(dumps(list(value))) <= PREVIEW_BYTES:
        pointer["fields"] = list(value)
    parts = {
        name: part
        for name, part in (selected or {}).items()
        # The value's own field of that name is what reads as this where it is not kept elsewhere.
        if name not in FIELDS and not (isinstance(value, Mapping) and value.get(name, part) != part)
    }
    shown = {"_store": store, "_size_bytes": size, "_preview": preview(value)}
    return {**parts, REF: pointer, **shown}


def loop_reference(
    execution_id: int, step: str, visit: int, stats: Mapping[str, int]
) -> dict[str, Any]:
    """What stands for the results of a loop while nobody has asked for them."""
    place = Place(execution_id, f"{_LOOP}{step}/{visit}")
    pointer = {"kind": "loop_ref", "name": place.name, "ref": place.ref}
    shown = {"_store": "log", "_size_bytes": None, "_preview": None}
    return {"stats": dict(stats), REF: pointer, **shown}


def media_type(content_type: str) -> str:
    """*content_type* without its parameters. Raises ``BadRequestError`` for what is none."""
    kind = content_type.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(kind):
        raise BadRequestError(
            f"{content_type[:SMALL]!r} is no content type", remedy="write TYPE/SUBTYPE"
        )
    return kind


def artifact_place(execution_id: int, name: str, content_type: str, digest: str) -> Place:
    """Where an artifact is. Raises ``BadRequestError`` for a name that cannot be one."""
    if not name.strip() or not name.isprintable():
        raise BadRequestError(
            f"{name[:SMALL]!r} cannot be the name of an artifact",
            remedy="use letters, digits, dots and dashes, as for a file",
        )
    return Place(execution_id, f"{ARTIFACT}{media_type(content_type)}/{name}/{digest}")


def artifact_reference(
    place: Place, store: str, size: int, content_type: str, checksum: str
) -> dict[str, Any]:
    """What stands for an artifact. It is data: templates do not fetch what it stands for."""
    pointer = {"kind": "artifact_ref", "name": place.name, "ref": place.ref, "store": store}
    pointer |= {"content_type": content_type, "checksum": f"sha256:{checksum}"}
    return {REF: pointer, "_store": store, "_size_bytes": size, "_preview": None}


def content_type_of(place: Place) -> str:
    """What the value at *place* is made of; JSON for all that is no artifact."""
    if not place.name.startswith(ARTIFACT):
        return "application/json"
    kind, subtype, *_ = [*place.name.removeprefix(ARTIFACT).split("/"), "", ""]
    return f"{kind}/{subtype}"


def file_name_of(place: Place) -> str:
    """The last part of an artifact's name that its maker gave it."""
    return place.name.rpartition("/")[0].rpartition("/")[2]


def selection(paths: Mapping[str, str], value: Any) -> dict[str, Any]:
    """The parts of *value* at the dotted *paths*, by name; those that are not there are left out."""
    found = {}
    for name, path in paths.items():
        try:
            found[name] = _at(value, path)
        except LookupError:
            continue
    return found


def _at(value: Any, path: str) -> Any:
    """The part at a dotted path. ``data`` at its beginning may mean the whole. Raises LookupError."""
    names = [name for name in path.replace("[", ".").replace("]", "").split(".") if name]
    for position, name in enumerate(names):
        if isinstance(value, Mapping):
            if name not in value and position == 0 and name in Result.ALIASES:
                continue
            value = value[name]
        elif isinstance(value, list | tuple) and name.isdecimal():
            value = value[int(name)]
        elif position == 0 and name in Result.ALIASES:
            continue
        else:
            raise LookupError(path)
    return value


# ---------------------------------------------------------------------- reading them
class Referenced(Mapping[str, Any]):
    """A mapping that is fetched when something is read that its reference does not tell.

    As data it is the value alone; the fields of the reference and the selected parts can be read
    beside it. ``data`` and its like mean the value itself where it has no such key.
    """

    __slots__ = ("__load", "__reference", "__value")

    def __init__(self, reference: Mapping[str, Any], load: Load) -> None:
        self.__reference = reference
        self.__load = load
        self.__value: Mapping[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        if key in self.__reference:
            return self.__reference[key]
        preview = self.__reference["_preview"]
        if isinstance(preview, dict) and key in preview:
            return preview[key]
        if not self.__has(key):
            if key in Result.ALIASES:
                return self
            raise KeyError(key)
        return self.__whole()[key]

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        return key in self.__reference or key in Result.ALIASES or self.__has(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__whole())

    def items(self) -> ItemsView[str, Any]:
        return self.__whole().items()

    def values(self) -> ValuesView[Any]:
        return self.__whole().values()

    def __len__(self) -> int:
        fields = self.__fields()
        return len(self.__whole() if fields is None else fields)

    def __bool__(self) -> bool:
        return True  # an empty one is small, so it is not kept elsewhere

    def __str__(self) -> str:
        return str(self.__whole())

    __repr__ = __str__

    def __fields(self) -> Sequence[str] | None:
        fields: Sequence[str] | None = self.__reference[REF].get("fields")
        return fields

    def __has(self, key: str) -> bool:
        fields = self.__fields()
        return key in (self.__whole() if fields is None else fields)

    def __whole(self) -> Mapping[str, Any]:
        if self.__value is None:
            self.__value = self.__load(self.__reference)
        return self.__value


class LoopResults(Mapping[str, Any]):
    """What a finished loop reads as: ``results`` and ``data`` are fetched when they are read."""

    __slots__ = ("__load", "__stats")
    _KEYS = ("results", "data", "stats")

    def __init__(self, stats: Mapping[str, int], load: Callable[[], list[Any]]) -> None:
        self.__stats = stats
        self.__load = load

    def __getitem__(self, key: str) -> Any:
        if key == "stats":
            return dict(self.__stats)
        if key in {"results", "data"}:
            return self.__load()
        if key in Result.ALIASES:
            return self
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return key in self._KEYS or key in Result.ALIASES

    def __iter__(self) -> Iterator[str]:
        return iter(self._KEYS)

    def __len__(self) -> int:
        return len(self._KEYS)


class KeptList(list[Any]):
    """A list that was kept elsewhere: ``x._ref`` and the like read its reference."""

    def __init__(self, value: list[Any], reference: Mapping[str, Any]) -> None:
        super().__init__(value)
        self.__reference = reference

    def __getitem__(self, key: Any) -> Any:
        return self.__reference[key] if isinstance(key, str) else super().__getitem__(key)


class KeptText(str):
    """A text that was kept elsewhere: ``x._ref`` and the like read its reference."""

    __slots__ = ("__reference",)
    __reference: Mapping[str, Any]

    @classmethod
    def of(cls, value: str, reference: Mapping[str, Any]) -> KeptText:
        kept = cls(value)
        kept.__reference = reference
        return kept

    def __getitem__(self, key: Any) -> Any:
        return self.__reference[key] if isinstance(key, str) else super().__getitem__(key)


def opened(value: Any, load: Load) -> Any:
    """*value* as templates read it: what a reference stands for, fetched by *load* when needed."""
    if not is_reference(value):
        return value
    pointer = value[REF]
    if pointer["kind"] == "loop_ref":
        return LoopResults(value["stats"], lambda: list(load(value)))
    if pointer.get("type") == "object":
        return Referenced(value, load)
    found = load(value)
    if isinstance(found, dict):  # a reference from before these told the type
        return Referenced(value, lambda _: found)
    if isinstance(found, list):
        return KeptList(found, value)
    return KeptText.of(found, value) if isinstance(found, str) else found


def whole(value: Any) -> Any:
    """*value* as plain data; fetches what is not at hand."""
    if isinstance(value, Referenced | LoopResults):
        return dict(value.items())
    if isinstance(value, KeptList):
        return list(value)
    return str(value) if isinstance(value, KeptText) else value


# ---------------------------------------------------------------------- what a reference tells
def _type_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, list | tuple):
        return "array"
    return "text" if isinstance(value, str) else "number"


def preview(value: Any) -> Any:
    """The beginning of *value*: small fields of a mapping, first items of a list, of a text the start.

    It has at most ``PREVIEW_BYTES`` bytes. The fields shown of a mapping are exact: they are read
    from here.
    """
    if isinstance(value, str):
        return value[: PREVIEW_BYTES // 6 - 1]  # a character takes six bytes at the most
    left = PREVIEW_BYTES - 2
    if isinstance(value, Mapping):
        fields: dict[str, Any] = {}
        for name, part in value.items():
            if len(str(name)) > SMALL or not _is_small(part):
                continue
            left -= len(dumps({name: part}))
            if left < 0:
                break
            fields[name] = part
        return fields
    if isinstance(value, list | tuple):
        items = []
        for part in value:
            # Looked at from above first: an item may be very large.
            left -= len(dumps(part)) + 1 if _weight(part, left) <= left else left + 1
            if left < 0:
                break
            items.append(part)
        return items
    return None


def _is_small(part: Any) -> bool:
    return part is None or (isinstance(part, str | int | float) and len(str(part)) < SMALL)


def _weight(value: Any, most: int) -> int:
    """At least so many bytes has *value* as JSON; looks no further than *most*."""
    weight = 0
    todo = [value]
    while todo and weight <= most:
        part = todo.pop()
        weight += len(part) + 2 if isinstance(part, str | list | tuple | Mapping) else 1
        if weight <= most and isinstance(part, Mapping):
            todo.extend(part.values())
        elif weight <= most and isinstance(part, list | tuple):
            todo.extend(part)
    return weight


class OutputOver(Mapping[str, Any]):
    """``output`` of a step whose result is fetched when it is read: its fields over *base*."""

    __slots__ = ("__base", "__fixed", "__result")

    def __init__(
        self, base: Mapping[str, Any], result: Referenced | LoopResults, fixed: frozenset[str]
    ) -> None:
        self.__base = base
        self.__result = result
        self.__fixed = fixed

    def __getitem__(self, key: str) -> Any:
        if key in self.__base and (key in self.__fixed or key not in self.__result):
            return self.__base[key]
        if key == "http" and key not in self.__result and (http := http_of(self.__result)):
            return http
        return self.__result[key]

    def __contains__(self, key: object) -> bool:
        found = key in self.__base or key in self.__result
        return found or (key == "http" and http_of(self.__result) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.__base, *self.__result]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def output_over(result: Any, error: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """``output`` in a step's ``set`` and arcs; see ``scope.output_of``."""
    if not isinstance(result, Referenced | LoopResults):
        return output_of(result, error)
    fixed = frozenset({"status", "error"} if error else ())
    return OutputOver(output_of(None, error), result, fixed)
