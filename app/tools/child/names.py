"""The functions that user code finds ready to use, as existing playbooks call them."""

from __future__ import annotations

import datetime as dt
import json
import types
from collections.abc import Mapping, Sequence
from typing import Any

from app.tools.child import encode


def get_val(data: Any, keys: str | Sequence[Any], default: Any = None) -> Any:
    """What *data* holds at the path *keys* (a sequence, or text with dots), or *default*."""
    for key in keys.split(".") if isinstance(keys, str) else keys:
        try:
            data = data[int(key)] if isinstance(data, list) else data[key]
        except (KeyError, IndexError, TypeError, ValueError):
            return default
    return data


def make_serializable(value: Any) -> Any:
    """*value* as plain JSON data, converted as a step's result is."""
    return json.loads(json.dumps(value, default=encode.plain))


def now_utc() -> dt.datetime:
    """The current time, with its zone."""
    return dt.datetime.now(dt.UTC)


def format_iso8601(moment: dt.datetime) -> str:
    """*moment* in UTC, as ISO 8601."""
    return moment.astimezone(dt.UTC).isoformat()


def deep_merge(base: Any, other: Any) -> Any:
    """*base* with *other* over it: mappings key by key, lists one after the other, else *other*."""
    if isinstance(base, Mapping) and isinstance(other, Mapping):
        merged = dict(base)
        for key, value in other.items():
            merged[key] = deep_merge(base[key], value) if _nests(base.get(key), value) else value
        return merged
    if isinstance(base, list) and isinstance(other, list):
        return [*base, *other]
    return other


def _nests(first: Any, second: Any) -> bool:
    return isinstance(first, (dict, list)) and isinstance(second, (dict, list))


class Datetime(types.ModuleType):
    """``datetime`` without an import: the module, and what only its class has (``datetime.now()``).

    Programs use the name either way.
    """

    def __init__(self) -> None:
        super().__init__("datetime", dt.__doc__)
        self.__dict__.update(dt.__dict__)

    def __getattr__(self, name: str) -> Any:
        return getattr(dt.datetime, name)


def secrets_modules(named: Mapping[str, Any]) -> dict[str, types.ModuleType]:
    """``noetl.worker.secrets`` for programs that import it: it knows the step's own credentials."""

    def fetch_credential_by_key(key: str) -> dict[str, Any]:
        """``{name, type, data: {its fields}}``. Raises ``LookupError``."""
        if key not in named:
            raise LookupError(f"the step has no credential {key!r}; name it under its 'auth'")
        return {"name": key, "type": named[key].get("type"), "data": named[key]}

    def fetch_credentials_by_keys(keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The same by name, for several."""
        return {key: fetch_credential_by_key(key) for key in keys}

    modules = {name: types.ModuleType(name) for name in _SECRETS}
    package, worker, secrets = modules.values()
    package.worker, worker.secrets = worker, secrets  # type: ignore[attr-defined]  # as imports do
    package.__path__ = worker.__path__ = []
    for function in (fetch_credential_by_key, fetch_credentials_by_keys):
        setattr(secrets, function.__name__, function)
    return modules


_SECRETS = ("noetl", "noetl.worker", "noetl.worker.secrets")

OFFERED = {
    function.__name__: function
    for function in (get_val, make_serializable, now_utc, format_iso8601, deep_merge)
}
