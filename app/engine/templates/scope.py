"""The names a template sees, in one flat mapping: local names, ctx, results, workload."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import ChainableUndefined

from app.engine.templates.sandbox import Result

_EMPTY: Mapping[str, Any] = {}


class Lazy(Mapping[str, Any]):
    """A mapping whose values are looked up when read, and only then."""

    def __init__(self, keys: Mapping[str, Any], load: Callable[[str], Any]) -> None:
        self._keys = keys
        self._load = load

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return self._load(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Once(Mapping[str, Any]):
    """Another mapping, each value of which is looked up once.

    A result is copied where it is looked up, and a template may do so in each turn of a loop.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._found: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._found:
            self._found[key] = self._names[key]
        return self._found[key]

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, slots=True)
class Scope(Mapping[str, Any]):
    """Later layers win: workload, then step results, then ctx, then ``local``.

    ``ctx.x`` finds whatever ``x`` would find without ``local``, and so does ``workload.x`` where the
    workload has no ``x``; ``steps.x`` finds results alone.
    """

    workload: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    ctx: Mapping[str, Any] = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name in self.local:
            return self.local[name]
        if name == "workload":
            return Below(self)
        if name == "ctx":
            return Once(Flat(self))
        if name == "steps":
            return Once(Lazy(self.results, lambda step: as_result(self.results[step])))
        return self.flat(name)

    def flat(self, name: str) -> Any:
        """The value of *name* among the durable ones. Raises ``KeyError``."""
        if name in self.ctx:
            return self.ctx[name]
        if name in self.results:
            return as_result(self.results[name])
        return self.workload[name]

    def __contains__(self, name: object) -> bool:
        return name in self.local or name in {"workload", "ctx", "steps"} or self.has_flat(name)

    def has_flat(self, name: object) -> bool:
        return name in self.ctx or name in self.results or name in self.workload

    def names(self) -> list[str]:
        """The durable names, without repetition."""
        return list(dict.fromkeys([*self.workload, *self.results, *self.ctx]))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.names(), *self.local]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def with_local(self, names: Mapping[str, Any]) -> Scope:
        """The same with further local names."""
        return Scope(self.workload, self.results, self.ctx, {**self.local, **names})

    def with_ctx(self, values: Mapping[str, Any]) -> Scope:
        """The same with further ctx values."""
        return Scope(self.workload, self.results, {**_items(self.ctx), **values}, self.local)


def _items(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return values if isinstance(values, dict) else dict(values)


class Flat(Mapping[str, Any]):
    """``ctx``: all durable names as one mapping."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __getitem__(self, name: str) -> Any:
        return self._scope.flat(name)

    def __contains__(self, name: object) -> bool:
        return self._scope.has_flat(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._scope.names())

    def __len__(self) -> int:
        return len(self._scope.names())


class Below(Mapping[str, Any]):
    """``workload``: its own keys; one that is not there is looked for among all durable names."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __getitem__(self, name: str) -> Any:
        workload = self._scope.workload
        return workload[name] if name in workload else self._scope.flat(name)

    def __contains__(self, name: object) -> bool:
        return self._scope.has_flat(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._scope.workload)

    def __len__(self) -> int:
        return len(self._scope.workload)


def as_result(value: Any) -> Any:
    """A dict result with its aliases; anything else as it is."""
    return Result(value) if type(value) is dict else value


def output_of(result: Any, error: Mapping[str, Any] | None = None) -> Result:
    """``output`` in a step's ``set`` and arcs: the result's fields, ``data``, ``status``, ``error``."""
    base: dict[str, Any] = {
        "status": "error" if error else "ok",
        "error": dict(error) if error else None,
    }
    if isinstance(result, dict):
        base.update(result)
        if error:
            base.update(status="error", error=dict(error))
    elif result is not None:
        base["data"] = result
    for helper in ("http", "pg", "py"):
        if error and helper in error:
            base.setdefault(helper, error[helper])
    if http := http_of(base):
        base.setdefault("http", http)
    return Result(base)


def http_of(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """``output.http`` of what an HTTP request gave; None where *result* is none of those."""
    if "status_code" not in result or "headers" not in result:
        return None
    return {"status": result["status_code"], "headers": result["headers"]}


#: What ``output.response`` and other dead names read as.
UNDEFINED = ChainableUndefined()
